//! Whatever is observed and wished: nothing panics, nothing unsafe passes, and verdicts do not flutter.
//!
//! A failure names the case in its smallest form, and the command that plays it again.

use std::{
    collections::BTreeSet,
    hash::{BuildHasher, RandomState},
    sync::Arc,
    time::Duration,
};

use proptest::{collection::vec, option, prelude::*, test_runner::RngSeed};
use raft_autopilot::{
    autopilot::{
        Change, Config, Leading, Ledger, LogId, Membership, NodeStatus, Observation, Origin, Probe,
        Record, Report, Role, Server, ServerId, Sighting, Sign, StandingSign, State, Status, Step,
        Verdict, Wishes, check, plan,
    },
    promoters::Stable,
};

use crate::support::{HEARTBEAT, Wish, World, time};

/// Another seed every time, unless one is given; a failing test shows the command.
fn chance() -> ProptestConfig {
    let config = ProptestConfig { cases: 1_000, failure_persistence: None, ..<_>::default() };
    let seed = match config.rng_seed {
        RngSeed::Fixed(seed) => seed,
        RngSeed::Random => RandomState::new().hash_one(0),
    };
    println!("Again: PROPTEST_RNG_SEED={seed} cargo test --test autopilot chance");
    ProptestConfig { rng_seed: RngSeed::Fixed(seed), ..config }
}

/// Times that matter and times that hurt.
fn moments() -> impl Strategy<Value = Duration> {
    prop_oneof![
        Just(Duration::ZERO),
        Just(Duration::MAX),
        Just(Duration::from_nanos(1)),
        (0_u64..400).prop_map(Duration::from_millis),
        (0_u64..100).prop_map(Duration::from_secs),
        (0_u64..100).prop_map(|hours| Duration::from_secs(hours * 3_600)),
        any::<Duration>(),
    ]
}

fn indexes() -> impl Strategy<Value = u64> {
    prop_oneof![Just(0), Just(u64::MAX), 0_u64..2_000, any::<u64>()]
}

fn log_ids() -> impl Strategy<Value = LogId> {
    (prop_oneof![Just(5), any::<u64>()], indexes()).prop_map(|(term, index)| LogId { term, index })
}

fn names() -> impl Strategy<Value = ServerId> {
    prop_oneof![
        8 => (1_u8..7).prop_map(|id| ServerId::from(id.to_string())),
        1 => Just(ServerId::from("")),
        1 => Just(ServerId::from("nobody")),
    ]
}

fn roles() -> impl Strategy<Value = Role> {
    prop_oneof![
        6 => Just(Role::Voter),
        3 => Just(Role::Learner),
        1 => Just(Role::Incoming),
        1 => Just(Role::Outgoing),
        1 => Just(Role::Absent),
    ]
}

fn statuses() -> impl Strategy<Value = Status> {
    let ids = (0_u64..3, option::of(0_u64..2));
    (moments(), ids, indexes(), indexes(), indexes(), option::of(indexes())).prop_map(
        |(age, (boot, disk), last_log, acknowledged, applied, snapshot)| Status {
            age,
            boot,
            disk,
            last_log,
            acknowledged,
            applied,
            snapshot,
        },
    )
}

fn probes() -> impl Strategy<Value = Probe> {
    prop_oneof![
        Just(Probe::Off),
        statuses().prop_map(Probe::Answered),
        moments().prop_map(Probe::Silent),
    ]
}

fn discoveries() -> impl Strategy<Value = Option<NodeStatus>> {
    option::of(prop_oneof![
        Just(NodeStatus::Unknown),
        Just(NodeStatus::Alive),
        Just(NodeStatus::Failed),
        Just(NodeStatus::Left),
    ])
}

fn sightings() -> impl Strategy<Value = Sighting> {
    let signals = (option::of(moments()), option::of(log_ids()), probes(), discoveries());
    (names(), roles(), any::<bool>(), signals).prop_map(
        |(id, role, read_replica, (contact, matched, probe, discovery))| {
            let server = Server { read_replica, ..Server::new(id, "x") };
            Sighting { server: Arc::new(server), role, contact, matched, probe, discovery }
        },
    )
}

fn signs() -> impl Strategy<Value = Vec<Sign>> {
    let sign = prop_oneof![
        Just(Sign::Contact),
        Just(Sign::Probe),
        Just(Sign::Discovery),
        Just(Sign::Identity),
        Just(Sign::Shrunk),
    ];
    vec(sign, 0..4)
}

fn records() -> impl Strategy<Value = Record> {
    let verdict =
        prop_oneof![Just(Verdict::Healthy), Just(Verdict::Unhealthy), Just(Verdict::Unknown),];
    prop_oneof![
        4 => (names(), verdict, moments(), option::of(0_u64..3), option::of(0_u64..2), signs()).prop_map(
            |(server, verdict, age, boot, disk, signs)| {
                let signs = signs.into_iter().map(|sign| StandingSign { sign, age }).collect();
                Record::Health(vec![Report { server, verdict, age, boot, disk, signs, flaps: 0, leads: false }])
            }
        ),
        1 => vec(names(), 0..2).prop_map(Record::Removed),
        1 => moments().prop_map(Record::Lapse),
        1 => (names(), option::of(moments())).prop_map(|(server, ttl)| Record::Cordon {
            server,
            reason: String::new(),
            ttl,
        }),
    ]
}

fn ledgers() -> impl Strategy<Value = Option<Arc<Ledger>>> {
    option::of(vec((moments(), records()), 0..12).prop_map(|records| {
        let mut ledger = Ledger::default();
        for (index, (now, record)) in (1..).zip(records) {
            ledger.apply(index, now, record);
        }
        Arc::new(ledger)
    }))
}

prop_compose! {
    fn observations()(
        at in moments(),
        ledger_at in moments(),
        (term, since, gap) in (4_u64..7, moments(), moments()),
        (leads, lease, committed, joint) in any::<(bool, bool, bool, bool)>(),
        (local, leader) in (names(), option::of(names())),
        (log_id, last_log) in (log_ids(), log_ids()),
        discovery in option::of(moments()),
        servers in vec(sightings(), 0..9),
        ledger in ledgers(),
    ) -> Observation {
        Observation {
            at,
            local,
            leader,
            leading: leads.then_some(Leading { term, since, gap, lease }),
            membership: Membership { log_id, committed, joint },
            last_log,
            discovery,
            servers,
            ledger,
            ledger_at,
            pace: time("30s"),
            feedback: None,
        }
    }
}

fn configs() -> impl Strategy<Value = Config> {
    (0_u32..4, 0_u32..3, moments(), moments(), indexes()).prop_map(
        |(min_quorum, min_margin, grace, stable, lag)| Config {
            min_quorum,
            min_margin,
            dead_server_last_contact_threshold: grace,
            voter_replacement_grace: grace,
            server_stabilization_time: stable,
            ..Config::for_heartbeat(HEARTBEAT).with_max_trailing_logs(lag)
        },
    )
}

fn wishes() -> impl Strategy<Value = Wish> {
    (vec(names(), 0..8), vec(names(), 0..8), option::of(names()))
        .prop_map(|(promote, demote, leader)| Wish(Wishes { promote, demote, leader }))
}

fn steps() -> impl Strategy<Value = Step> {
    let some = || vec(names(), 0..4);
    prop_oneof![
        Just(Step::FinishJoint),
        (some(), some()).prop_map(|(promote, demote)| Step::Votes { promote, demote }),
        (some(), some(), option::of(names())).prop_map(|(servers, promote, add)| {
            let add = add.map(|id| Arc::new(Server::new(id, "y")));
            Step::Remove { servers, promote, add }
        }),
        names().prop_map(|id| Step::Add(Arc::new(Server::new(id, "y")))),
        names().prop_map(|to| Step::Transfer { to }),
        (names(), "[xy]?").prop_map(|(server, address)| Step::Readdress { server, address }),
    ]
}

fn origins() -> impl Strategy<Value = Origin> {
    prop_oneof![
        Just(Origin::Unfinished),
        Just(Origin::Promoter),
        Just(Origin::Cleanup),
        Just(Origin::Drain),
        Just(Origin::Operator { operation: 1, force: None }),
        Just(Origin::Operator { operation: 1, force: Some("now".into()) }),
    ]
}

/// What no step may do, whoever wants it and however odd the observation is.
fn assert_sound(config: &Config, change: &Change, state: &State) {
    assert!(state.may_act() && state.membership.committed);
    assert_eq!(state.fence().as_ref(), Some(&change.fence));
    let (gain, lose): (&[ServerId], &[ServerId]) = match &change.step {
        Step::Votes { promote, demote } => (promote, demote),
        Step::Remove { servers, promote, .. } => (promote, servers),
        Step::FinishJoint | Step::Add(_) | Step::Readdress { .. } | Step::Transfer { .. } => {
            (&[], &[])
        }
    };
    let before: BTreeSet<&ServerId> =
        state.servers.iter().filter(|s| s.role == Role::Voter).map(|s| &s.server.id).collect();
    let mut after: BTreeSet<&ServerId> = before.clone();
    after.retain(|id| !lose.contains(id));
    after.extend(gain);
    let live = |voters: &BTreeSet<&ServerId>| {
        voters.iter().filter(|id| state.server(id).is_some_and(|s| s.live)).count()
    };
    if !matches!(change.step, Step::FinishJoint | Step::Transfer { .. }) {
        assert!(!state.membership.joint);
        assert!(2 * live(&before) > before.len() && 2 * live(&after) > after.len());
    }
    assert!(!lose.contains(&state.local));
    for id in gain {
        let server = state.server(id).unwrap();
        assert_eq!((server.role, server.health.verdict), (Role::Learner, Verdict::Healthy));
        assert!(!state.removed(id) && state.cordoned(id).is_none());
        assert!(change.origin.is_forced() || server.is_stable(config, state.at));
    }
    for id in lose {
        let server = state.server(id).unwrap();
        let known = server.health.verdict != Verdict::Unknown;
        assert!(known || change.origin.is_operator());
        let sick = server.health.verdict == Verdict::Unhealthy;
        if sick && !change.origin.is_operator() {
            let grace = config.voter_replacement_grace.min(config.left_server_grace);
            let grace = grace.min(config.join_grace);
            let oldest = server.signs.iter().map(|(_, since)| since).min().unwrap();
            assert!(state.at.saturating_sub(oldest) >= grace);
        }
    }
}

proptest! {
    #![proptest_config(chance())]

    #[test]
    fn nothing_panics_and_nothing_unsound_is_planned(
        config in configs(),
        seen in vec(observations(), 1..4),
        wish in wishes(),
        target in 0_usize..8,
    ) {
        let mut last: Option<State> = None;
        for mut seen in seen {
            // Often the same leadership goes on.
            if let (Some(last), Some(leading)) = (&last, &mut seen.leading)
                && let Some(before) = last.leading
            {
                (leading.term, leading.since) = (before.term, before.since);
            }
            let state = State::assess(&config, last.as_ref(), &seen);
            prop_assert!(state.servers.is_sorted_by(|a, b| a.server.id < b.server.id));
            for promoter in [Stable::new(), Stable::with_target(target)] {
                for change in plan(&config, &state, &promoter).changes {
                    if check(&config, &change, &state).is_ok() {
                        assert_sound(&config, &change, &state);
                    }
                }
            }
            let first = plan(&config, &state, &wish);
            for change in &first.changes {
                if check(&config, change, &state).is_ok() {
                    assert_sound(&config, change, &state);
                }
            }
            prop_assert_eq!(&first, &plan(&config, &state, &wish));
            let text = serde_json::to_string(&state).unwrap();
            prop_assert!(text.contains("servers"));
            last = Some(state);
        }
    }

    #[test]
    fn no_step_that_anybody_can_think_of_passes_unsound(
        config in configs(),
        mut seen in observations(),
        step in steps(),
        origin in origins(),
    ) {
        // Most observations lead nowhere: make them lead.
        let local = seen.servers.first().map_or("1".into(), |s| s.server.id.clone());
        seen.local = local.clone();
        seen.leader = Some(local);
        seen.membership.committed = true;
        let (term, since, gap) = (5, Duration::ZERO, Duration::ZERO);
        seen.leading = Some(Leading { term, since, gap, lease: true });
        let state = State::assess(&config, None, &seen);
        let change = Change { step, fence: state.fence().unwrap(), origin };
        if check(&config, &change, &state).is_ok() {
            assert_sound(&config, &change, &state);
        }
        prop_assert_eq!(check(&config, &change, &state), check(&config, &change, &state));
    }

    #[test]
    fn a_contact_that_swings_around_one_threshold_swings_the_verdict_once(
        above in vec(any::<bool>(), 1..50),
        upper in any::<bool>(),
    ) {
        let mut world = World::of("1 leader\n2\n3");
        let middle = if upper {
            world.config.last_contact_threshold
        } else {
            world.config.last_contact_recovery
        };
        let (mut flips, mut before) = (0, Verdict::Healthy);
        for above in above {
            let wobble = Duration::from_millis(20);
            let contact = if above { middle + wobble } else { middle.saturating_sub(wobble) };
            world.server("3").contact = Some(contact);
            let verdict = world.pass(HEARTBEAT).server(&"3".into()).unwrap().health.verdict;
            flips += usize::from(verdict != before);
            before = verdict;
        }
        prop_assert!(flips <= 1);
    }

    #[test]
    fn the_ledger_is_the_same_everywhere_but_for_the_ages(
        records in vec((moments(), moments(), records()), 0..30),
    ) {
        let (mut one, mut two) = (Ledger::default(), Ledger::default());
        for (index, (here, there, record)) in (1..).zip(records) {
            prop_assert_eq!(one.apply(index, here, record.clone()), two.apply(index, there, record));
        }
        let bytes = |ledger: &Ledger| serde_json::to_vec(ledger).unwrap();
        prop_assert_eq!(bytes(&one), bytes(&two));
        // And comes back from a snapshot whole, with every age begun.
        let mut back: Ledger = serde_json::from_slice(&bytes(&one)).unwrap();
        back.restored(time("1h"));
        prop_assert_eq!(bytes(&back), bytes(&one));
        for server in back.servers.values() {
            prop_assert!(server.applied_at.is_some());
            let mut signs: Vec<Sign> = server.signs.clone();
            signs.sort_by_key(|sign| *sign as u8);
            signs.dedup();
            if signs.contains(&Sign::Shrunk) {
                signs.retain(|sign| *sign != Sign::Identity);
            }
            prop_assert_eq!(signs.len(), server.signs_at.iter().count());
        }
    }
}
