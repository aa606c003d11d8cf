//! The facts that the reference's own tests hold, by the names of their cases, and where a remedy changes them.

use std::{sync::Arc, time::Duration};

use raft_autopilot::{
    autopilot::{
        Config, NodeStatus, NodeType, Promoter, Reason, Record, Role, Server, ServerId, State,
        Task, Verdict, Wishes,
    },
    promoters::Stable,
};

use crate::support::{AT, Wish, World, check_plan, entry, time, wish};

// TestReconcile. The reference moves votes one call after another; here (weaknesses C1, C3, C4)
// those that belong together move in one joint change, and the driver takes the first step only.

#[test]
fn ignore_failed_nonvoter_promote_one_and_filter_others_and_demotions() {
    let world = World::of("1 leader\n2\n3 learner\n4 learner matched=10\n5");
    // The reference: promotes 3, and demotes nobody in that round. C1: one joint change.
    check_plan(
        &world,
        &wish("1 2 3 4", "5", ""),
        &["do promote 3 and demote 5", "held promote 4: 4 is unhealthy"],
    );
}

#[test]
fn demotions_and_filter_leader_transfer() {
    let world = World::of("1 leader\n2\n3\n4\n5 learner healthy_for=1s");
    // As the reference: the demotion now; the transfer is planned behind it, not applied with it.
    check_plan(&world, &wish("1", "5 4", "3"), &["do demote 4", "then transfer leadership to 3"]);
}

#[test]
fn leader_transfer_same_leader() {
    check_plan(&World::of("1 leader\n2\n3\n5 learner"), &wish("", "5", "1"), &[]);
}

#[test]
fn leader_transfer() {
    let world = World::of("1 leader\n2\n3\n5 learner");
    check_plan(&world, &wish("", "5", "2"), &["do transfer leadership to 2"]);
}

#[test]
fn demote_single_unhealthy_voter_promote_a_non_voter() {
    let world = World::of("1 leader\n2 lost=1m\n3 matched=10\n4\n5 learner");
    // The reference demotes 2 and promotes 5 in two steps. C1: in one, and the healthy 4 with
    // them. 3 only trails, which is no sign of death: it keeps its vote.
    check_plan(
        &world,
        &wish("5", "4 2 3", ""),
        &[
            "do promote 5 and demote 2, 4",
            "held demote 3: 0 of 2 independent signs say that 3 is dead",
            "held remove 2: 1 of 2 independent signs say that 2 is dead",
        ],
    );
}

#[test]
fn promote_first_with_even_voters() {
    let world = World::of("1 leader\n2\n3\n4 lost=1m\n5 learner\n6 learner");
    // The reference promotes 5, then 6, and passes through five voters of which one is dead.
    // (It has two dead of four; then no quorum is left to change anything.)
    let plan = world.plan(&wish("5 6", "4", ""));
    assert_eq!(plan[0], "do promote 5, 6 and demote 4");
}

#[test]
fn demote_any_with_even_voters_and_no_promotions() {
    let world = World::of("1 leader\n2\n3 lost=25h silent=25h\n4 lost=25h silent=25h\n5\n6");
    // The reference demotes 3, 4 and 5 in one round. C3: one step, then observe again.
    check_plan(
        &world,
        &wish("", "3 4 5", ""),
        &["do demote 5", "then demote 3", "then demote 4", "then remove 3", "then remove 4"],
    );
}

#[test]
fn reconcile_disabled_and_prune_disabled_touch_nothing() {
    let mut world = World::of("1 leader\n2\n3\n4 lost=25h silent=25h\n5 learner");
    world.ledger.as_mut().unwrap().apply(1, AT, Record::Pause("migration".into()));
    check_plan(
        &world,
        &Stable::new(),
        &["idle: paused: migration", "do promote 5", "then remove 4"],
    );
}

// TestPruneDeadServers. Short names as in its addresses.

const VOTERS: &str = "1 leader\n2\n7\n";

fn min_quorum(text: &str, floor: u32) -> World {
    let mut world = World::of(text);
    world.config.min_quorum = floor;
    world
}

#[test]
fn one_of_each_removal() {
    let dead = "3 lost=49h failed=49h\n5 lost=49h missing=49h\n\
                4 learner lost=49h missing=49h\n6 learner lost=49h failed=49h";
    let world = min_quorum(&(VOTERS.to_owned() + dead), 3);
    // The same four leave, those without a vote first. B5: one at a time. B1: after their grace;
    // twice of it, because four of seven vanished together.
    check_plan(
        &world,
        &wish("", "", ""),
        &["do remove 4", "then remove 6", "then remove 5", "then remove 3"],
    );
}

#[test]
fn quorum_instability_prevention() {
    let dead = "1 leader\n7\n2 lost=49h failed=49h\n3 lost=49h failed=49h\n5 lost=49h missing=49h\n\
                4 learner lost=49h missing=49h\n6 learner lost=49h failed=49h";
    let world = min_quorum(dead, 3);
    let held = world.plan(&wish("", "", ""));
    // The reference would propose the removal of 4, 5, 6 and 3, which two of five cannot commit.
    assert_eq!(held.len(), 5);
    assert!(held.iter().all(|line| line.starts_with("held remove")), "{held:?}");
    assert!(held.iter().any(|line| line.ends_with("2 of 5 voters would answer")), "{held:?}");
}

#[test]
fn dont_go_under_min_quorum_with_3() {
    let world = min_quorum("1 leader\n2\n3 learner lost=25h failed=25h", 3);
    // The reference keeps 3, because it could vote. B5: the floor counts votes; a learner goes.
    check_plan(&world, &wish("", "", ""), &["do remove 3"]);
}

#[test]
fn dont_go_under_min_quorum_with_2() {
    let world = min_quorum("1 leader\n3 lost=49h failed=49h", 3);
    check_plan(
        &world,
        &wish("", "", ""),
        // One of two answers: nothing at all can be committed (E2).
        &["held remove 3: only 1 of 2 voters would answer"],
    );
}

#[test]
fn stale_non_voters() {
    let two = "1 leader\n2\n4 lost=49h missing=49h\n5 learner lost=49h missing=49h";
    // B3: discovery that lists two of four is not believed, so there is one sign only.
    let held = min_quorum(two, 3).plan(&wish("", "", ""));
    assert_eq!(held.len(), 2);
    assert!(held.iter().all(|line| line.contains("1 of 2 independent signs")), "{held:?}");
    // With the word of a probe it is as in the reference.
    let two = "1 leader\n2\n4 lost=49h silent=49h\n5 learner lost=49h silent=49h";
    check_plan(
        &min_quorum(two, 3),
        &wish("", "", ""),
        &["do remove 5", "held remove 4: 2 voters would be left, fewer than 3"],
    );
}

// TestAddServer, TestRemoveServer, TestNumVoters, as orders. Failures of the host are the
// driver's; the order stays until it is done or its time is over.

const ABC: &str = "1 leader addr=here1\n2 addr=here2\n3 addr=here3";

fn ordered(text: &str, task: Task) -> World {
    let mut world = World::of(text);
    world.order(task, None);
    world
}

fn add(id: &str, address: &str) -> Task {
    Task::Add(Arc::new(Server::new(id, address)))
}

#[test]
fn add_server_existing_no_change() {
    check_plan(&ordered(ABC, add("3", "here3")), &wish("", "", ""), &["finished 77"]);
}

#[test]
fn add_server_new() {
    check_plan(&ordered(ABC, add("4", "here4")), &wish("", "", ""), &["do add 4 at here4"]);
}

#[test]
fn add_server_existing_addr_change() {
    // The reference gives the vote of 2 to whoever listens at here4. E3: an address changes by
    // an order of its own, which the handle gives out only once the id has answered there.
    check_plan(
        &ordered(ABC, add("2", "here4")),
        &wish("", "", ""),
        &["refused add 2 at here4: 2 is Voter, expected Absent"],
    );
    let task = Task::Readdress { server: "2".into(), address: "here4".into() };
    check_plan(&ordered(ABC, task), &wish("", "", ""), &["do move 2 to here4"]);
}

#[test]
fn add_server_existing_id_change() {
    let lost = "1 leader addr=here1\n2 lost=1m addr=here2\n3 addr=here3";
    // The reference removes 2, then adds 4. E1: both in one change.
    check_plan(
        &ordered(lost, add("4", "here2")),
        &wish("", "", ""),
        &[
            "do remove 2 and add 4 at here2",
            "held remove 2: 1 of 2 independent signs say that 2 is dead",
        ],
    );
    check_plan(
        &ordered(ABC, add("4", "here2")),
        &wish("", "", ""),
        &["refused add 4 at here2: 2 already has the address here2"],
    );
}

#[test]
fn add_server_error_for_unsafe_removals() {
    let world = ordered("1 leader addr=here1\n2 lost=1m addr=here2", add("4", "here2"));
    let plan = world.plan(&wish("", "", ""));
    assert_eq!(plan[0], "refused remove 2 and add 4 at here2: only 1 of 2 voters would answer");
}

#[test]
fn add_server_safe_non_voter_removals() {
    let world = ordered("1 leader\n2 learner lost=1m addr=here2", add("4", "here2"));
    let plan = world.plan(&wish("", "", ""));
    assert_eq!(plan[0], "do remove 2 and add 4 at here2");
}

#[test]
fn remove_server_not_found_is_done_and_a_member_leaves() {
    check_plan(&ordered(ABC, Task::Remove("9".into())), &wish("", "", ""), &["finished 77"]);
    // E4: a live vote is given back before its server leaves.
    check_plan(&ordered(ABC, Task::Remove("3".into())), &wish("", "", ""), &["do demote 3"]);
    let learner = "1 leader\n2\n3 learner";
    check_plan(&ordered(learner, Task::Remove("3".into())), &wish("", "", ""), &["do remove 3"]);
}

#[test]
fn num_voters_counts_neither_learners_nor_those_that_leave() {
    assert_eq!(World::of(ABC).state().num_voters(), 3);
    assert_eq!(World::of("1 leader\n2\n3 outgoing").state().num_voters(), 2);
    assert_eq!(World::of("1 leader\n2\n3 learner").state().num_voters(), 2);
}

// Health, stability, voting rights.

fn verdict(line: &str) -> Verdict {
    let mut world = World::of(&format!("1 leader alive\n2 {line}"));
    world.config = world.config.with_last_contact_threshold(time("100ms"));
    world.config = world.config.with_max_trailing_logs(200);
    world.state().server(&"2".into()).unwrap().health.verdict
}

#[test]
fn the_health_rule_holds_at_its_very_edges() {
    for (line, expected) in [
        ("contact=99ms matched=801", Verdict::Healthy),
        ("contact=100ms matched=800", Verdict::Healthy),
        ("contact=99ms matched=801 failed=1s", Verdict::Unhealthy),
        ("contact=150ms matched=801", Verdict::Unhealthy),
        ("contact=99ms matched=799", Verdict::Unhealthy),
    ] {
        assert_eq!(verdict(line), expected, "{line}");
    }
    // The reference calls everybody unhealthy while no leader is known; here nobody is judged.
    let state = World::of("1\n2\n3").state();
    assert!(state.servers.iter().all(|s| s.health.verdict == Verdict::Unknown));
    // It also compares the term of the last entry; A5: what the leader matched is of its log.
}

#[test]
fn stability_counts_from_equality() {
    for (line, expected) in [
        ("lost=1h", false),
        ("healthy_for=1s", false),
        ("healthy_for=10s", true),
        ("healthy_for=1h", true),
        ("new", false),
    ] {
        let world = World::of(&format!("1 leader\n2 {line}"));
        let state = world.state();
        let stable = state.server(&"2".into()).unwrap().is_stable(&world.config, state.at);
        assert_eq!(stable, expected, "{line}");
    }
}

#[test]
fn voting_rights() {
    assert!(Role::Voter.votes() && Role::Incoming.votes() && Role::Outgoing.votes());
    assert!(!Role::Learner.votes() && !Role::Absent.votes());
}

#[test]
fn stabilization_is_never_waived_for_a_promotion() {
    // The reference takes it for zero right after its first state. A1: history or patience.
    let world = World::of("1 leader new\n2 new\n3 learner new");
    check_plan(&world, &wish("3", "", ""), &["held promote 3: 3 is healthy for 0s of 10s"]);
}

// TestNextState: the golden states. A, B and C sort as 7, e and d do.

fn golden(b: &str, c: &str) -> World {
    let text = format!(
        "7 leader healthy_for=0s matched=1024\n\
                        e healthy_for=0s contact=10ms matched=1000 {b}\n\
                        d healthy_for=0s contact=15ms matched=999 {c}"
    );
    let mut world = World::of(&text);
    world.config = world.config.with_max_trailing_logs(200);
    world.seen.last_log = entry(1_024);
    world
}

fn summary(state: &State) -> (bool, usize, Vec<ServerId>) {
    (state.healthy, state.failure_tolerance, state.sorted_voters())
}

fn sorted(ids: &[&str]) -> Vec<ServerId> {
    ids.iter().map(|id| ServerId::from(*id)).collect()
}

#[test]
fn golden_typical() {
    assert_eq!(summary(&golden("", "").state()), (true, 1, sorted(&["7", "d", "e"])));
}

#[test]
fn golden_no_leader() {
    let mut world = golden("", "");
    (world.seen.leader, world.seen.leading) = (None, None);
    assert_eq!(summary(&world.state()), (false, 0, sorted(&["7", "d", "e"])));
}

#[test]
fn golden_not_the_leader() {
    let mut world = golden("", "");
    world.seen.local = "d".into();
    world.seen.leading = None;
    // The reference lets a follower judge by what it is told. A8: only the leader judges.
    let state = world.state();
    assert_eq!(summary(&state), (false, 0, sorted(&["7", "d", "e"])));
    assert!(state.servers.iter().all(|s| s.health.reasons.contains(Reason::NotJudged)));
}

#[test]
fn golden_one_failed() {
    let world = golden("", "contact=200001234ns matched=801");
    assert_eq!(summary(&world.state()), (false, 0, sorted(&["7", "e", "d"])));
}

#[test]
fn golden_non_voter() {
    assert_eq!(summary(&golden("", "learner").state()), (true, 0, sorted(&["7", "e"])));
}

#[test]
fn golden_staging() {
    // The nearest that there is here: it votes in the new half of a joint membership only.
    let state = golden("", "incoming").state();
    assert_eq!((state.healthy, state.failure_tolerance), (true, 0));
}

#[test]
fn golden_state_overrides() {
    let mut world = golden("", "");
    world.pass(time("1s"));
    world.server("e").contact = Some(time("1s"));
    world.server("d").contact = None;
    let state = world.state();
    // The reference keeps the old sample of C and calls it healthy. A2: silence is not health.
    assert_eq!(summary(&state), (false, 0, sorted(&["7", "d", "e"])));
    let c = state.server(&"d".into()).unwrap();
    assert_eq!(c.health.verdict, Verdict::Unhealthy);
    assert!(c.health.reasons.contains(Reason::ContactLost));
}

// StablePromoter.

#[test]
fn stable_promoter_types_are_voters() {
    let (world, promoter) = (World::of("1 leader\n2\n3 replica learner"), Stable::new());
    let state = world.state();
    let types: Vec<NodeType> =
        state.members().map(|s| promoter.node_type(&world.config, &state, s)).collect();
    // Read replicas never vote; the reference knows none.
    assert_eq!(types, [NodeType::VOTER, NodeType::VOTER, NodeType::READ_REPLICA]);
    assert!(promoter.is_potential_voter(&NodeType::VOTER));
    assert!(!promoter.is_potential_voter(&NodeType::READ_REPLICA));
}

#[test]
fn stable_promoter_promotes_whoever_is_stable() {
    let text =
        "1 leader\n2\n3 learner lost=11s\n4 learner healthy_for=2s\n5 learner healthy_for=11s";
    let world = World::of(text);
    let state = world.state();
    let wishes = Stable::new().wishes(&world.config, &state);
    assert_eq!((wishes.promote, wishes.demote, wishes.leader), (sorted(&["5"]), vec![], None));
}

#[test]
fn defaults_and_words_are_those_of_the_reference() {
    let config = Config::for_heartbeat(Duration::from_millis(50));
    assert_eq!(config.last_contact_threshold, time("200ms"));
    assert_eq!((config.max_trailing_logs, config.min_quorum), (250, 0));
    assert_eq!(config.server_stabilization_time, time("10s"));
    assert!(config.cleanup_dead_servers && config.validate(Duration::from_millis(50)).is_ok());
    let words = [NodeStatus::Unknown, NodeStatus::Alive, NodeStatus::Failed, NodeStatus::Left];
    assert_eq!(words.map(NodeStatus::as_str), ["unknown", "alive", "failed", "left"]);
    assert_eq!(Wish::default().wishes(&config, &World::of("1").state()), Wishes::default());
}

// Where the other facts are, or why there is none:
// - A host that fails to configure, add or remove (config-error, add-failure, remove-failure): in
//   `driver.rs`, over a host that refuses.
// - Input gathering: who leads and whether is read once with everything else (`golden_no_leader`,
//   `golden_not_the_leader` for a candidate). There is no time of a first state to be kept or set:
//   stability is never waived (`stabilization_is_never_waived_for_a_promotion`).
// - Life cycle: there is no start, stop or restart to race. One future runs for the node's whole
//   life; what a restart drops in the reference the ledger keeps (A1 in `weak_health.rs`), and
//   pausing and `remove_dead_servers` are verbs (`driver.rs`).
// - The filter of requests for statistics: there are none; a probe asks every member.
