//! A command that arrives again is done once, on every copy; and bytes that are no copy make none.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use openraft::type_config::TypeConfigExt;
use proptest::{collection::vec, prelude::*};
use raft_autopilot::{
    codec,
    store::{
        KeyRange, Op, OpResponse, RangeRequest, Store as _, StoreError, Txn,
        machine::{Command, Outcome},
        replicated::{Applied, Entry, Part, Proposal, Replica, Stamp},
    },
};

use super::{cluster::Cluster, simulate, sleep, types::Sim};

/// How long the answers to a client are kept.
const SESSION_AGE: Duration = Duration::from_secs(600);

fn frames(replica: &Replica) -> Vec<Vec<u8>> {
    replica.freeze().parts().map(|part| codec::encode(&part).unwrap()).collect()
}

fn copy(replica: &Replica) -> Replica {
    let parts: Vec<Part> =
        frames(replica).iter().map(|frame| codec::decode(frame).unwrap()).collect();
    let copy = Replica::new();
    copy.install(copy.restore(parts).unwrap());
    copy
}

fn put(client: u64) -> Command {
    Command::Txn(Txn::new([Op::put(format!("{client}"), "")]))
}

/// How often the key of a client was put, by a command that changes nothing else.
fn versions(replica: &Replica, client: u64, stamp: Stamp) -> u64 {
    let read = Op::Range(RangeRequest::new(KeyRange::key(format!("{client}"))));
    let command = Command::Txn(Txn::new([read]));
    let ask = Proposal { client: 99, number: 0, floor: 0, since: stamp.at, stamp, command };
    // On a copy, since even this is remembered.
    let Applied::Done(Ok(Outcome::Txn(done))) = copy(replica).apply(Entry::Propose(ask)) else {
        panic!("it is read")
    };
    let [OpResponse::Range(found)] = &done.responses[..] else { panic!("{done:?}") };
    found.items.first().map_or(0, |kv| kv.version)
}

/// What the nodes of a log do in one step.
#[derive(Clone, Debug)]
enum Step {
    /// Another takes the word.
    Lead,
    /// A client sends a new command.
    Send(u64),
    /// One of the commands that were sent so far arrives, perhaps again.
    Arrive(prop::sample::Index),
    /// A client waits for no answer any more to what it has sent so far.
    Forget(u64),
    /// The next ones are stamped by who has lost the word.
    Late,
    Wait(Duration),
    /// The node gets a snapshot of itself.
    Snapshot,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        1 => Just(Step::Lead),
        6 => (0..3_u64).prop_map(Step::Send),
        12 => any::<prop::sample::Index>().prop_map(Step::Arrive),
        1 => (0..3_u64).prop_map(Step::Forget),
        1 => Just(Step::Late),
        2 => (0..400_u64).prop_map(|seconds| Step::Wait(Duration::from_secs(seconds))),
        1 => Just(Step::Snapshot),
    ];
    vec(step, 1..120)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn whatever_arrives_again_is_done_once_on_every_copy(steps in steps()) {
        let (mut here, there) = (Replica::new(), Replica::new());
        let (mut leader, mut stamped, mut now) = (0, 0, Duration::ZERO);
        // The machine's time: that of the last command that was done.
        let mut told = Duration::ZERO;
        let mut sent: Vec<Proposal> = Vec::new();
        let mut floors: BTreeMap<u64, u64> = (0..3).map(|client| (client, 0)).collect();
        let mut done: BTreeMap<(u64, u64), Applied> = BTreeMap::new();
        for step in steps {
            match step {
                Step::Lead => {
                    leader += 1;
                    stamped = leader;
                    let answer = here.apply(Entry::Lead(leader));
                    prop_assert_eq!(answer, there.apply(Entry::Lead(leader)));
                }
                Step::Send(client) => {
                    let number = sent.iter().filter(|other| other.client == client).count() as u64;
                    let (stamp, command) = (Stamp::default(), put(client));
                    sent.push(Proposal { client, number, floor: 0, since: told, stamp, command });
                }
                Step::Arrive(index) if !sent.is_empty() => {
                    let mut proposal = index.get(&sent).clone();
                    let name = (proposal.client, proposal.number);
                    proposal.floor = floors[&proposal.client];
                    proposal.stamp = Stamp { leader: stamped, at: now };
                    let late = told > proposal.since + SESSION_AGE;
                    let answer = here.apply(Entry::Propose(proposal.clone()));
                    prop_assert_eq!(&answer, &there.apply(Entry::Propose(proposal.clone())));
                    match answer {
                        Applied::Done(_) if done.contains_key(&name) => {
                            prop_assert_eq!(Some(&answer), done.get(&name));
                        }
                        Applied::Done(_) => {
                            prop_assert!(!late && stamped == leader);
                            done.insert(name, answer);
                            told = now;
                        }
                        Applied::Forgotten => {
                            let given_up = proposal.number < floors[&proposal.client];
                            prop_assert!(given_up);
                        }
                        Applied::Stale => prop_assert_ne!(stamped, leader),
                        Applied::Late => prop_assert!(late),
                    }
                }
                Step::Arrive(_) => {}
                Step::Forget(client) => {
                    let count = sent.iter().filter(|other| other.client == client).count() as u64;
                    floors.insert(client, count);
                }
                Step::Late => stamped = leader.saturating_sub(1),
                Step::Wait(time) => now += time,
                Step::Snapshot => here = copy(&here),
            }
        }
        prop_assert_eq!(frames(&here), frames(&there));
        let stamp = Stamp { leader, at: now };
        let clients: BTreeSet<u64> = sent.iter().map(|proposal| proposal.client).collect();
        for client in clients {
            let times = done.keys().filter(|name| name.0 == client).count() as u64;
            prop_assert_eq!(versions(&here, client, stamp), times);
        }
    }

    #[test]
    fn changed_bytes_of_a_copy_never_panic(
        clients in 1..40_u64,
        changes in vec((any::<prop::sample::Index>(), any::<prop::sample::Index>(), any::<u8>()), 1..5),
    ) {
        let replica = Replica::new();
        let stamp = Stamp { leader: 0, at: Duration::from_secs(1) };
        let propose = |client, number| {
            let (since, command) = (stamp.at, put(client));
            Entry::Propose(Proposal { client, number, floor: 0, since, stamp, command })
        };
        for number in 0..3 {
            for client in 0..clients {
                replica.apply(propose(client, number));
            }
        }
        let mut frames = frames(&replica);
        for (frame, at, byte) in changes {
            let frame = frame.index(frames.len());
            let at = at.index(frames[frame].len());
            frames[frame][at] = byte;
        }
        let parts: Result<Vec<Part>, _> = frames.iter().map(|frame| codec::decode(frame)).collect();
        if let Ok(parts) = parts
            && let Ok(frozen) = replica.restore(parts)
        {
            replica.install(frozen);
            for client in 0..=clients {
                let _ = replica.apply(propose(client, 9));
            }
            let _ = replica.freeze().parts().count();
        }
    }

    #[test]
    fn foreign_bytes_are_no_entry_and_no_request(bytes in vec(any::<u8>(), 0..200)) {
        let _ = codec::decode_payload::<Entry>(&bytes);
        let _ = codec::decode_payload::<raft_autopilot::store::replicated::Request>(&bytes);
        let _ = codec::decode_payload::<raft_autopilot::store::replicated::Answer>(&bytes);
        let _ = codec::decode_payload::<Part>(&bytes);
    }
}

#[test]
fn many_large_answers_to_one_client_still_fit_their_frames() {
    let replica = Replica::new();
    let stamp = Stamp { leader: 0, at: Duration::from_secs(1) };
    let propose = |number, ops: Vec<Op>| {
        let command = Command::Txn(Txn::new(ops));
        Entry::Propose(Proposal { client: 7, number, floor: 0, since: stamp.at, stamp, command })
    };
    replica.apply(propose(0, vec![Op::put("large", vec![7; 1_000_000])]));
    let read = || vec![Op::get("large"), Op::put("small", "")];
    for number in 1..40 {
        assert!(matches!(replica.apply(propose(number, read())), Applied::Done(Ok(_))));
    }
    // Far more than a frame holds; each answer is still there on another copy.
    let copy = copy(&replica);
    for number in 1..40 {
        assert_eq!(copy.apply(propose(number, read())), replica.apply(propose(number, read())));
    }
    // What is larger than an answer may be is known to be done, and not done again.
    let twice = || vec![Op::get("large"), Op::get("large"), Op::put("small", "")];
    assert!(matches!(replica.apply(propose(40, twice())), Applied::Done(Ok(_))));
    assert_eq!(replica.apply(propose(40, twice())), Applied::Forgotten);
}

#[test]
fn what_is_answered_is_done_once_while_leaders_are_killed_and_snapshots_installed() {
    for seed in 40..43 {
        simulate(seed, async move {
            let cluster = Cluster::start().await;
            let here = cluster.follower().await;
            let store = cluster.node(here).store;
            cluster.lose_every(Some(5));
            cluster.kill_leaders(here, Duration::from_millis(900));
            let mut tasks = Vec::new();
            for task in 0..6_u64 {
                let store = store.clone();
                tasks.push(Sim::spawn(async move {
                    let (mut done, mut open) = (0, 0);
                    for _ in 0..60 {
                        match store.commit(Txn::new([Op::put("count", "")])).await {
                            Ok(_) => done += 1,
                            Err(StoreError::Unknown(_)) => open += 1,
                            // It says that nothing was changed.
                            Err(StoreError::Retry(_)) => {}
                            Err(StoreError::Refused(refusal)) => panic!("{refusal}"),
                        }
                        sleep(20 + task * 7).await;
                    }
                    (done, open)
                }));
            }
            let (mut done, mut open) = (0, 0);
            for task in tasks {
                let (d, o): (u64, u64) = task.await.unwrap();
                (done, open) = (done + d, open + o);
            }
            cluster.lose_every(None);
            let found = loop {
                let read = RangeRequest::new(KeyRange::key("count"));
                if let Ok(found) = store.range(read).await {
                    break found.items[0].version;
                }
            };
            assert!(done > 300, "{done} of 360 were answered");
            assert!(
                (done..=done + open).contains(&found),
                "{done} done, {open} open, {found} found"
            );
        });
    }
}
