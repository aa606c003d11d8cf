//! Every cluster of up to five servers, walked whole: what is planned, what is let through, and that it settles.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod oracle;
#[path = "../support/mod.rs"]
mod support;
mod world;

use raft_autopilot::{
    autopilot::{Origin, Plan, Promoter, Role, ServerId, State, Step, Why, Wishes, check, plan},
    promoters::Stable,
};

use oracle::broken;
use support::{Wish, change};
use world::{ALL, Case, Is, Maker, cases};

const UNIFORM: &[Role] = &[Role::Voter, Role::Learner];
/// Every health that a leader may have, who hears itself and holds its own log.
const LEADERS: &[(Role, Is)] = &[
    (Role::Voter, Is::Well),
    (Role::Voter, Is::Cordoned),
    (Role::Learner, Is::Young),
    (Role::Voter, Is::Draining),
    (Role::Voter, Is::Young),
    (Role::Learner, Is::Draining),
];

/// The places of a leader in a joint membership.
const JOINT_LEADERS: &[(Role, Is)] =
    &[(Role::Voter, Is::Well), (Role::Incoming, Is::Well), (Role::Outgoing, Is::Well)];

/// An optimised build walks everything, in seconds; a debug build what a debug build can.
const WHOLE: bool = !cfg!(debug_assertions);

/// Every state of health, without those that differ in their age only.
const FEWER: &[Is] = &[
    Is::Well,
    Is::Young,
    Is::Cordoned,
    Is::Doubtful,
    Is::Trailing,
    Is::LostByOneSign,
    Is::Lost,
    Is::LongDead,
];

/// All clusters of up to five servers in every state; in a debug build those of five in fewer.
fn every_case() -> impl Iterator<Item = Case> {
    let upto4 = (1..=4).flat_map(|size| cases(size, ALL, UNIFORM, LEADERS, WHOLE));
    upto4.chain(cases(5, if WHOLE { ALL } else { FEWER }, UNIFORM, LEADERS, WHOLE))
}

fn all(ids: &Case, role: Role) -> Vec<ServerId> {
    let of =
        |(id, (has, _)): (&u8, &(Role, Is))| (*has == role).then(|| ServerId::from(id.to_string()));
    ids.members.iter().filter_map(of).collect()
}

fn planned(maker: &Maker, case: &Case, promoter: &dyn Promoter) -> (State, Plan) {
    let scene = maker.scene(case);
    let state = scene.state();
    let plan = plan(&scene.config, &state, promoter);
    (state, plan)
}

/// Judges a whole plan: every step of it is one that the oracle allows, and one that the safety
/// check lets through. (Without a quorum nothing is let through.)
fn judge(maker: &Maker, case: &Case, promoter: &dyn Promoter) -> Option<Step> {
    let (state, plan) = planned(maker, case, promoter);
    let config = maker.scene(case).config;
    let mut first = None;
    for change in &plan.changes {
        let law = broken(case, &change.step, &change.origin);
        let refusal = check(&config, change, &state).err();
        assert_eq!(
            law.is_none(),
            refusal.is_none(),
            "{}: {law:?} but {refusal:?}\n{case:?}",
            change.step
        );
        let quorum_lost = !state.quorum;
        assert!(refusal.is_none() || quorum_lost, "planned {}: {refusal:?}\n{case:?}", change.step);
        if refusal.is_none() && first.is_none() {
            first = Some(change.step.clone());
        }
    }
    explained(case, &state, &plan);
    first
}

/// What waits for time alone names the moment.
fn explained(case: &Case, state: &State, plan: &Plan) {
    use raft_autopilot::autopilot::Refusal::{GraceRuns, NotStable};
    for held in &plan.held {
        let waits = matches!(held.why, Why::Refused(GraceRuns { .. } | NotStable { .. }));
        if waits {
            assert!(plan.wake.is_some_and(|at| at > state.at), "{held:?}\n{case:?}");
        }
    }
}

/// Does what is planned until nothing is; returns the steps.
fn settle(maker: &Maker, case: &Case, promoter: &dyn Promoter) -> (Case, Vec<Step>) {
    let (mut case, mut steps, mut seen) = (case.clone(), Vec::new(), Vec::new());
    while let Some(step) = judge(maker, &case, promoter) {
        assert!(!seen.contains(&case), "round in a circle: {steps:?}\n{case:?}");
        let next = case.after(&step);
        seen.push(std::mem::replace(&mut case, next));
        steps.push(step);
    }
    assert!(steps.len() <= 2 * case.members.len() + 4, "{steps:?}\n{case:?}");
    (case, steps)
}

fn settles(promoter: &dyn Promoter, target: usize) {
    let maker = Maker::new();
    for case in every_case() {
        let (end, steps) = settle(&maker, &case, promoter);
        // Beyond the target a vote is given up; up to it none is taken from a live server.
        let mut surplus = all(&case, Role::Voter).len().saturating_sub(target);
        for step in steps {
            let (Step::Votes { demote, .. } | Step::Remove { servers: demote, .. }) = step else {
                continue;
            };
            for id in demote {
                let live = case.members[&Case::number(&id)].1.facts().live;
                assert!(!live || surplus > 0, "{id} is as good as anybody\n{case:?}");
                surplus = surplus.saturating_sub(1);
            }
        }
        let (before, after) = (all(&case, Role::Voter).len(), all(&end, Role::Voter).len());
        assert!(after <= target.max(before), "{before} became {after}\n{case:?}");
        // The same observation gives the same plan, also when it comes in another order.
        let mut scene = maker.scene(&case);
        let first = plan(&scene.config, &scene.state(), promoter);
        scene.seen.servers.reverse();
        assert_eq!(first, plan(&scene.config, &scene.state(), promoter), "{case:?}");
    }
}

#[test]
fn whoever_is_stable_votes_and_every_cluster_settles() {
    settles(&Stable::new(), usize::MAX);
}

#[test]
fn with_a_target_of_three_every_cluster_settles() {
    settles(&Stable::with_target(3), 3);
}

#[test]
fn with_a_target_of_five_every_cluster_settles() {
    settles(&Stable::with_target(5), 5);
}

#[test]
fn no_wish_is_too_foolish() {
    let maker = Maker::new();
    for case in every_case() {
        let (voters, learners) = (all(&case, Role::Voter), all(&case, Role::Learner));
        let everybody: Vec<ServerId> =
            ["nobody".into()].into_iter().chain(voters.clone()).chain(learners.clone()).collect();
        let leader = everybody.last().cloned();
        let upside_down = Wishes { promote: learners, demote: voters, leader: leader.clone() };
        judge(&maker, &case, &Wish(upside_down));
        let reversed: Vec<ServerId> = everybody.iter().rev().cloned().collect();
        judge(&maker, &case, &Wish(Wishes { promote: everybody, demote: reversed, leader }));
    }
}

#[test]
fn a_constant_wish_settles() {
    let maker = Maker::new();
    for case in every_case() {
        let ids: Vec<ServerId> = case.members.keys().map(|id| id.to_string().into()).collect();
        let half = ids.len() / 2;
        let (low, high) = (ids[..half].to_vec(), ids[half..].to_vec());
        let leader = high.first().cloned();
        settle(&maker, &case, &Wish(Wishes { promote: high, demote: low, leader }));
    }
}

/// Every step that asks of nobody what its role forbids: wrong roles are walked in smaller clusters.
fn every_step_of_roles(case: &Case) -> Vec<Step> {
    let votes = |id: &ServerId| case.members[&Case::number(id)].0 == Role::Voter;
    let mut steps = every_step(case);
    steps.retain(|step| match step {
        Step::Votes { promote, demote } => !promote.iter().any(votes) && demote.iter().all(votes),
        Step::Remove { promote, .. } => !promote.iter().any(votes),
        _ => true,
    });
    steps
}

/// Every step that names each member for at most one thing, right or wrong.
fn every_step(case: &Case) -> Vec<Step> {
    let ids: Vec<ServerId> = case.members.keys().map(|id| id.to_string().into()).collect();
    let mut steps = vec![Step::FinishJoint];
    steps.extend(ids.iter().map(|id| Step::Transfer { to: id.clone() }));
    for choice in 0..3_usize.pow(u32::try_from(ids.len()).unwrap()) {
        let (mut gain, mut lose, mut rest) = (Vec::new(), Vec::new(), choice);
        for id in &ids {
            match rest % 3 {
                1 => gain.push(id.clone()),
                2 => lose.push(id.clone()),
                _ => {}
            }
            rest /= 3;
        }
        steps.push(Step::Votes { promote: gain.clone(), demote: lose.clone() });
        steps.push(Step::Remove { servers: lose, promote: gain, add: None });
    }
    steps
}

/// Every step that names one member.
fn every_step_of_one(case: &Case) -> Vec<Step> {
    let mut steps = vec![Step::FinishJoint];
    for id in case.members.keys().map(|id| ServerId::from(id.to_string())) {
        let (one, none) = (|| vec![id.clone()], Vec::new);
        steps.push(Step::Votes { promote: one(), demote: none() });
        steps.push(Step::Votes { promote: none(), demote: one() });
        steps.push(Step::Remove { servers: one(), promote: none(), add: None });
        steps.push(Step::Transfer { to: id });
    }
    steps
}

fn check_is_the_oracle(cases: impl IntoIterator<Item = Case>, steps: fn(&Case) -> Vec<Step>) {
    let maker = Maker::new();
    let operator = |force| Origin::Operator { operation: 1, force };
    let origins = [
        Origin::Promoter,
        Origin::Cleanup,
        Origin::Drain,
        Origin::Unfinished,
        operator(None),
        operator(Some("now".to_owned())),
    ];
    for case in cases {
        let scene = maker.scene(&case);
        let state = scene.state();
        for step in steps(&case) {
            let mut change = change(&state, step, Origin::Promoter);
            for origin in &origins {
                change.origin = origin.clone();
                let law = broken(&case, &change.step, origin);
                let verdict = check(&scene.config, &change, &state);
                assert_eq!(
                    law.is_none(),
                    verdict.is_ok(),
                    "{} ({origin:?}): {law:?} but {verdict:?}\n{case:?}",
                    change.step
                );
            }
        }
    }
}

#[test]
fn check_agrees_with_the_oracle_on_every_step_of_up_to_three_servers() {
    check_is_the_oracle(
        (1..=3).flat_map(|size| cases(size, ALL, UNIFORM, LEADERS, WHOLE)),
        every_step,
    );
}

#[test]
fn check_agrees_with_the_oracle_on_every_step_of_four_servers() {
    let (states, leaders) = if WHOLE { (ALL, LEADERS) } else { (FEWER, &LEADERS[..1]) };
    check_is_the_oracle(cases(4, states, UNIFORM, leaders, WHOLE), every_step);
}

#[test]
fn check_agrees_with_the_oracle_on_every_step_of_five_servers() {
    let few = &[Is::Well, Is::Trailing, Is::Lost, Is::LongDead];
    let states = if WHOLE { ALL } else { few };
    check_is_the_oracle(cases(5, states, UNIFORM, &LEADERS[..1], WHOLE), every_step_of_roles);
}

#[test]
fn a_joint_membership_is_finished_first_and_nothing_else_is_done() {
    let maker = Maker::new();
    let roles = &[Role::Voter, Role::Learner, Role::Incoming, Role::Outgoing];
    let few: &[Is] = &[Is::Well, Is::Doubtful, Is::LongDead];
    let (small, large) = if WHOLE { (ALL, ALL) } else { (FEWER, few) };
    let walk = (1..=3).flat_map(|size| cases(size, small, roles, JOINT_LEADERS, WHOLE));
    for case in walk.chain((4..=5).flat_map(|size| cases(size, large, roles, JOINT_LEADERS, WHOLE)))
    {
        let half = |(role, _): &(Role, Is)| matches!(role, Role::Incoming | Role::Outgoing);
        if !case.members.values().any(half) {
            continue;
        }
        let scene = maker.scene(&case);
        let (config, state) = (scene.config.clone(), scene.state());
        let plan = plan(&config, &state, &Stable::new());
        assert!(state.membership.joint, "{case:?}");
        let (role, _) = case.members[&case.leader];
        for change in &plan.changes {
            check(&config, change, &state).unwrap();
        }
        let steps: Vec<&Step> = plan.changes.iter().map(|change| &change.step).collect();
        match (role, steps[..].first()) {
            // It would end its own vote: it hands over to one that keeps its own, if there is one.
            (Role::Outgoing, None) => {
                let fit = |(role, is): &(Role, Is)| {
                    let facts = is.facts();
                    let well = facts.healthy && facts.live && facts.may_gain && !facts.drains;
                    matches!(role, Role::Voter | Role::Incoming) && well
                };
                assert!(!case.members.values().any(fit), "{case:?}");
            }
            (Role::Outgoing, Some(Step::Transfer { to })) => {
                let next = Case { leader: Case::number(to), ..case.clone() };
                let (_, then) = planned(&maker, &next, &Stable::new());
                assert_eq!(then.changes[0].step, Step::FinishJoint, "{case:?}");
            }
            (Role::Voter | Role::Incoming, Some(Step::FinishJoint)) => {
                assert_eq!(steps.len(), 1, "{case:?}");
            }
            wrong => panic!("{wrong:?}\n{case:?}"),
        }
        let tried = if case.members.len() < 4 { every_step } else { every_step_of_one };
        for step in tried(&case) {
            let change = change(&state, step, Origin::Promoter);
            let passes = check(&config, &change, &state).is_ok();
            let may = match change.step {
                Step::FinishJoint => role != Role::Outgoing,
                Step::Transfer { .. } => role == Role::Outgoing,
                _ => false,
            };
            assert!(!passes || may, "{}\n{case:?}", change.step);
        }
    }
}
