//! How an etcd is reached: certificates, users, several endpoints, deadlines, and what is never sent.

use std::time::Duration;

use etcd_client::Permission;
use raft_autopilot::{
    runtime::TokioRuntime,
    store::{
        KeyRange, LeaseId, Op, RangeRequest, Refusal, Store, StoreError, Txn, Update, Watch,
        etcd::{Etcd, Options, Tls},
    },
};
use tokio::time::{Instant, timeout};

use super::server::{PATIENCE, Server, certificate, tls};

const SHORT: Duration = Duration::from_millis(1_500);

fn put(key: &str, value: &str) -> Txn {
    Txn::new([Op::put(key, value)])
}

async fn connect(options: Options) -> Result<Etcd, StoreError> {
    Etcd::connect(options, TokioRuntime).await
}

#[tokio::test]
async fn certificates_are_shown_and_asked_for() {
    let server = Server::start_with_certificates().await;
    let store = server.store().await;
    let mut watch = store.watch(KeyRange::key("a"), 0).await.unwrap();
    let revision = store.commit(put("a", "1")).await.unwrap().revision;
    let Ok(Update::Events(events)) = watch.next().await else { panic!() };
    assert_eq!(events.revision, revision);
    let short = Options { deadline: SHORT, ..server.options() };
    let with = |tls: Tls| Options { tls: Some(tls), ..short.clone() };
    for (options, what) in [
        (with(Tls { identity: None, ..tls() }), "no certificate of ours"),
        (with(Tls { ca: Some(certificate("other.pem")), ..tls() }), "another authority"),
        (with(Tls { domain: Some("elsewhere".to_owned()), ..tls() }), "another name"),
        (Options { tls: None, ..short.clone() }, "no certificates at all"),
    ] {
        let error = connect(options).await.expect_err(what);
        let fine = matches!(error, StoreError::Retry(_) | StoreError::Refused(_));
        assert!(fine, "{what}: {error}");
    }
    let nonsense = with(Tls { ca: Some("nonsense".to_owned()), ..tls() });
    let error = connect(nonsense).await.unwrap_err();
    let text = format!("{:?} {:?}", with(tls()), error);
    assert!(!text.contains("PRIVATE KEY"), "{text}");
}

/// Users: the one of the operators, and one that may read and write below `mine/`.
async fn enable_users(server: &Server) {
    let mut client = server.client().await;
    for (name, password) in [("root", "secret"), ("worker", "pass")] {
        client.user_add(name, password, None).await.unwrap();
        client.role_add(name).await.unwrap();
        client.user_grant_role(name, name).await.unwrap();
    }
    let mine = Permission::read_write("mine/").with_prefix();
    client.role_grant_permission("worker", mine).await.unwrap();
    client.auth_enable().await.unwrap();
}

#[tokio::test]
async fn a_user_does_what_it_may() {
    let mut server = Server::start().await;
    enable_users(&server).await;
    let with = |name: &str, password: &str| Options {
        user: Some((name.to_owned(), password.to_owned())),
        deadline: SHORT,
        ..server.options()
    };
    for options in [with("root", "wrong"), with("nobody", "pass"), server.options()] {
        let error = connect(options).await.unwrap_err();
        assert!(matches!(error, StoreError::Refused(Refusal::Denied(_))), "{error}");
    }
    let root = connect(with("root", "secret")).await.unwrap();
    root.commit(put("theirs", "1")).await.unwrap();
    let worker = with("worker", "pass");
    assert!(!format!("{worker:?}").contains("pass\""));
    let worker = connect(Options { deadline: PATIENCE, ..worker }).await.unwrap();
    let done = worker.commit(put("mine/a", "1")).await.unwrap();
    let denied = |done: Result<(), StoreError>| {
        assert!(matches!(done, Err(StoreError::Refused(Refusal::Denied(_)))), "{done:?}");
    };
    denied(worker.commit(put("theirs", "2")).await.map(drop));
    denied(worker.range(RangeRequest::new(KeyRange::key("theirs"))).await.map(drop));
    let mut theirs = worker.watch(KeyRange::key("theirs"), 0).await;
    if let Ok(watch) = &mut theirs {
        denied(timeout(PATIENCE, watch.next()).await.unwrap().map(drop));
    } else {
        denied(theirs.map(drop));
    }
    let mut watch = worker.watch(KeyRange::prefix("mine/"), done.revision).await.unwrap();
    assert!(matches!(watch.next().await, Ok(Update::Events(_))));
    // A server that was started again knows no token that it gave before.
    server.kill();
    server.restart();
    let again = retry(&worker, put("mine/a", "2")).await;
    let next = timeout(PATIENCE, async {
        loop {
            match watch.next().await {
                Ok(Update::Events(events)) => return events.revision,
                Ok(Update::Progress(_)) => {}
                Err(error) => panic!("{error}"),
            }
        }
    });
    assert_eq!(next.await.unwrap(), again);
}

#[tokio::test]
async fn a_token_that_is_older_than_the_roles_is_fetched_again() {
    let server = Server::start_with_signed_tokens().await;
    enable_users(&server).await;
    let user = Some(("worker".to_owned(), "pass".to_owned()));
    let worker = connect(Options { user, ..server.options() }).await.unwrap();
    let mut watch = worker.watch(KeyRange::prefix("mine/"), 0).await.unwrap();
    let first = worker.commit(put("mine/a", "1")).await.unwrap().revision;
    let root = etcd_client::ConnectOptions::new().with_user("root", "secret");
    let mut root = etcd_client::Client::connect([server.address()], Some(root)).await.unwrap();
    for round in 0..3 {
        // Any change of any role makes all tokens old.
        root.role_add(format!("role{round}")).await.unwrap();
        let done = worker.commit(put("mine/a", "2")).await;
        let done = done.unwrap_or_else(|error| panic!("round {round}: {error}"));
        root.role_add(format!("other{round}")).await.unwrap();
        let found = worker.range(RangeRequest::new(KeyRange::key("mine/a"))).await.unwrap();
        assert_eq!(found.items[0].mod_revision, done.revision);
    }
    let mut again = worker.watch(KeyRange::prefix("mine/"), first).await.unwrap();
    for watch in [&mut watch, &mut again] {
        let Ok(Update::Events(events)) = watch.next().await else { panic!() };
        assert_eq!(events.revision, first);
    }
}

/// Commits what may be done twice, until it is done.
async fn retry(store: &Etcd, txn: Txn) -> u64 {
    let end = Instant::now() + PATIENCE;
    loop {
        match store.commit(txn.clone()).await {
            Ok(done) => return done.revision,
            Err(StoreError::Refused(refusal)) => panic!("{refusal}"),
            Err(error) => assert!(Instant::now() < end, "{error}"),
        }
    }
}

#[tokio::test]
async fn another_endpoint_is_taken_where_one_is_dead() {
    let mut servers = Server::cluster(3, false).await;
    let mut endpoints = vec!["http://127.0.0.1:1".to_owned()];
    endpoints.extend(servers.iter().map(|server| server.address().to_owned()));
    let options = Options { endpoints, ..Options::default() };
    let store = connect(options).await.unwrap();
    let mut watch = store.watch(KeyRange::all(), 0).await.unwrap();
    let mut last = 0;
    for (round, server) in servers.iter_mut().enumerate() {
        server.kill();
        last = retry(&store, put("a", &round.to_string())).await;
        let read = async {
            loop {
                match store.range(RangeRequest::new(KeyRange::key("a"))).await {
                    Ok(found) => return found,
                    Err(StoreError::Retry(_)) => {}
                    Err(error) => panic!("{error}"),
                }
            }
        };
        let found = timeout(PATIENCE, read).await.unwrap();
        assert_eq!(found.items[0].mod_revision, last);
        server.restart();
        server.ready().await;
    }
    // Every change came once, and in order.
    let mut told = Vec::new();
    while told.last() != Some(&last) {
        if let Update::Events(events) = timeout(PATIENCE, watch.next()).await.unwrap().unwrap() {
            told.push(events.revision);
        }
    }
    assert!(told.is_sorted_by(|a, b| a < b), "{told:?}");
}

#[tokio::test]
async fn a_server_of_another_cluster_is_not_asked() {
    let (mut server, other) = (Server::start().await, Server::start().await);
    let endpoints = vec![server.address().to_owned(), other.address().to_owned()];
    let store =
        connect(Options { endpoints, deadline: SHORT, ..Options::default() }).await.unwrap();
    store.commit(put("a", "1")).await.unwrap();
    server.kill();
    let read = store.range(RangeRequest::new(KeyRange::key("a"))).await;
    assert!(matches!(&read, Err(StoreError::Retry(_))), "{read:?}");
    let written = store.commit(put("a", "2")).await;
    assert!(matches!(written, Err(StoreError::Retry(_) | StoreError::Unknown(_))), "{written:?}");
    let theirs = other.store().await.range(RangeRequest::new(KeyRange::key("a"))).await.unwrap();
    assert_eq!(theirs.items, [], "nothing was written there");
    server.restart();
    server.ready().await;
    let found = timeout(PATIENCE, async {
        loop {
            if let Ok(found) = store.range(RangeRequest::new(KeyRange::key("a"))).await {
                return found;
            }
        }
    });
    assert!(!found.await.unwrap().items.is_empty());
}

#[tokio::test]
async fn a_request_ends_with_its_deadline() {
    let server = Server::start().await;
    let store = connect(Options { deadline: SHORT, ..server.options() }).await.unwrap();
    server.freeze();
    let start = Instant::now();
    let written = store.commit(put("a", "1")).await;
    assert!(matches!(written, Err(StoreError::Unknown(_))), "{written:?}");
    let read = store.range(RangeRequest::new(KeyRange::key("a"))).await;
    assert!(matches!(read, Err(StoreError::Retry(_))), "{read:?}");
    let kept = store.keep_alive(LeaseId(1)).await;
    assert!(matches!(kept, Err(StoreError::Retry(_))), "{kept:?}");
    let took = start.elapsed();
    assert!(took >= SHORT && took < SHORT * 3 + Duration::from_secs(2), "{took:?}");
    server.thaw();
    timeout(PATIENCE, async {
        while store.range(RangeRequest::new(KeyRange::key("a"))).await.is_err() {}
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn nobody_at_home_is_said_so() {
    let start = Instant::now();
    let endpoints = vec!["http://127.0.0.1:1".to_owned()];
    let error = connect(Options { endpoints, deadline: SHORT, ..Options::default() }).await;
    assert!(matches!(error, Err(StoreError::Retry(_))), "{error:?}");
    assert!(start.elapsed() < SHORT * 2);
    let error = connect(Options::default()).await;
    assert!(matches!(error, Err(StoreError::Refused(Refusal::Invalid(_)))), "{error:?}");
    let endpoints = || vec!["http://127.0.0.1:1".to_owned()];
    for options in [
        Options { endpoints: endpoints(), deadline: Duration::ZERO, ..Options::default() },
        Options { endpoints: endpoints(), deadline: Duration::MAX, ..Options::default() },
        Options { endpoints: endpoints(), connect_timeout: Duration::MAX, ..Options::default() },
        Options {
            endpoints: endpoints(),
            keep_alive: (SHORT, Duration::MAX),
            ..Options::default()
        },
    ] {
        let error = connect(options).await;
        assert!(matches!(error, Err(StoreError::Refused(Refusal::Invalid(_)))), "{error:?}");
    }
    let endpoints = vec!["not an address".to_owned()];
    let error = connect(Options { endpoints, deadline: SHORT, ..Options::default() }).await;
    assert!(error.is_err());
}

#[tokio::test]
async fn what_is_too_large_is_never_sent() {
    let mut server = Server::start().await;
    let store = server.store().await;
    // Nobody could answer.
    server.kill();
    let many = (0..129).map(|number| Op::put(format!("{number}"), ""));
    let error = store.commit(Txn::new(many.collect::<Vec<_>>())).await.unwrap_err();
    let refused = Refusal::TooManyOperations { found: 129, limit: 128 };
    assert_eq!(error, StoreError::Refused(refused));
    assert!(error.to_string().contains("at most 128"), "{error}");
    let large = Txn::new([Op::put("a", vec![0; 1_600_000])]);
    let error = store.commit(large).await.unwrap_err();
    let found = matches!(error, StoreError::Refused(Refusal::TooLarge { limit: 1_572_864, .. }));
    assert!(found, "{error}");
    assert!(error.to_string().contains("at most 1572864"), "{error}");
}

#[tokio::test]
async fn what_was_done_is_not_refused_for_the_size_of_its_answer() {
    let server = Server::start().await;
    let large = put("large", &"x".repeat(100_000));
    let revision = server.store().await.commit(large).await.unwrap().revision;
    let store = connect(Options { response_len: 50_000, ..server.options() }).await.unwrap();
    let both = Txn::new([Op::get("large"), Op::put("small", "")]);
    let done = store.commit(both).await;
    assert!(matches!(done, Err(StoreError::Unknown(_))), "{done:?}");
    let found = store.range(RangeRequest::new(KeyRange::key("small"))).await.unwrap();
    assert_eq!(found.items.len(), 1, "it was done");
    // What only reads will never do, and neither will a watch that comes to it.
    let too_large = |error: StoreError| {
        let StoreError::Refused(Refusal::Invalid(why)) = error else { panic!("{error}") };
        assert!(why.contains("50000"), "{why}");
    };
    too_large(store.range(RangeRequest::new(KeyRange::key("large"))).await.unwrap_err());
    let mut watch = store.watch(KeyRange::key("large"), revision).await.unwrap();
    too_large(timeout(PATIENCE, watch.next()).await.unwrap().unwrap_err());
}

#[tokio::test]
async fn the_largest_that_is_allowed_is_taken() {
    let server = Server::start().await;
    let store = server.store().await;
    let limits = store.limits();
    let mut txn = Txn::new([Op::put("a", "")]);
    let room = limits.bytes - txn.size();
    txn.success = vec![Op::put("a", vec![1; room - 16])];
    assert!(txn.check(&limits).is_ok());
    store.commit(txn).await.unwrap();
    let many = (0..128).map(|number| Op::put(format!("{number}"), ""));
    store.commit(Txn::new(many.collect::<Vec<_>>())).await.unwrap();
}
