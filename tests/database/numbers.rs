//! The ids over the store that the database hosts, in several processes at once.

use std::collections::BTreeSet;

use serde_json::Value;

use super::process::{Server, until, voters};

async fn number(server: &Server, method: &str, name: &str) -> Option<Value> {
    let (code, body) = server.ask(method, &format!("/numbers/{name}"), "").await?;
    (code == 200).then(|| serde_json::from_slice(&body).unwrap())
}

/// Uses a number for a name, however long it takes.
async fn allocated(server: &Server, name: &str) -> Value {
    let given = std::cell::RefCell::new(Value::Null);
    until("it is given a number", || async {
        let answer = number(server, "POST", name).await;
        let done = answer.is_some();
        *given.borrow_mut() = answer.unwrap_or_default();
        done
    })
    .await;
    given.into_inner()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_server_gives_a_name_the_same_number_whoever_is_killed() {
    let dirs = [(); 3].map(|()| tempfile::tempdir().unwrap());
    let first = Server::first(dirs[0].path()).await;
    first.wait("the first server leads", |status| status["role"] == "leader").await;
    let second = Server::joining(dirs[1].path(), &first.addr).await;
    let third = Server::joining(dirs[2].path(), &first.addr).await;
    first.wait("all three vote", |status| voters(status).len() == 3).await;
    let mut given = BTreeSet::new();
    for name in 0..20 {
        let name = format!("name-{name}");
        let all = tokio::join!(
            allocated(&first, &name),
            allocated(&second, &name),
            allocated(&third, &name)
        );
        let same =
            |a: &Value, b: &Value| a["number"] == b["number"] && a["generation"] == b["generation"];
        assert!(same(&all.0, &all.1) && same(&all.0, &all.2), "{all:?}");
        assert!(given.insert(all.0["number"].as_u64().unwrap()), "{name}: {all:?}");
    }

    // The leader dies in the middle; the others go on, and know the same.
    first.kill().await;
    for name in 15..30 {
        let name = format!("name-{name}");
        let both = tokio::join!(allocated(&second, &name), allocated(&third, &name));
        assert_eq!(both.0["number"], both.1["number"], "{name}");
        given.insert(both.0["number"].as_u64().unwrap());
    }
    assert_eq!(given.len(), 30);
    until("what they use is held again", || async {
        for name in 0..30 {
            let found = number(&second, "GET", &format!("name-{name}")).await;
            let Some(found) = found else { return false };
            if !["Held", "Restored"].contains(&found["here"].as_str().unwrap()) {
                return false;
            }
        }
        true
    })
    .await;

    // It comes back with nothing in use, and is told the same.
    let first = Server::start(dirs[0].path(), &[]).await;
    for name in 0..30 {
        let name = format!("name-{name}");
        let (here, there) = (allocated(&first, &name).await, allocated(&third, &name).await);
        assert_eq!(here["number"], there["number"], "{name}");
        assert_eq!(here["new"], false);
    }
    assert_eq!(second.ask("DELETE", "/numbers/name-3", "").await.unwrap().0, 204);
    assert_eq!(second.ask("DELETE", "/numbers/name-3", "").await.unwrap().0, 404);
    assert_eq!(second.ask("GET", "/numbers/nobody", "").await.unwrap().0, 404);
}
