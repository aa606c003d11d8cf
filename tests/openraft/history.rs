//! What a node did and held back, as its handle tells: every step taken and every step refused, with the reason.

use raft_autopilot::autopilot::{
    Config, Decision, Fate, Origin, Reason, Refusal, Step, VerbError, Why,
};

use crate::{
    simulated,
    types::Sim,
    world::{Knobs, Node, World, id, ids, millis, secs, server},
};

fn told(node: &Node<Sim>) -> Vec<Decision> {
    node.handle.history().iter().cloned().collect()
}

/// The step and the fate of each decision, in short.
fn lines(node: &Node<Sim>) -> Vec<String> {
    let fate = |fate: &Fate| match fate {
        Fate::Applied => "applied",
        Fate::Moved(_) => "moved",
        Fate::Failed(_) => "failed",
        Fate::Unknown(_) => "unknown",
        Fate::Held(Why::Refused(_)) => "refused",
        Fate::Held(_) => "held",
    };
    told(node).iter().map(|d| format!("{}: {}", d.step, fate(&d.fate))).collect()
}

#[test]
fn every_step_taken_and_every_step_refused_is_told_once_with_its_reason() {
    simulated(async {
        let world = World::<Sim>::new(Knobs::default());
        let leader = world.form(&["1", "2", "3"]).await;
        world.until("all healthy", || leader.state().healthy).await;
        assert!(told(&leader).is_empty(), "a converged cluster has no history");
        world.join("4").await;
        world.until("4 votes", || leader.learners().is_empty()).await;
        world.sleep(secs(30)).await;
        let history = told(&leader);
        let promote = Step::Votes { promote: ids(&["4"]), demote: Vec::new() };
        let [add, taken] = &history[..] else { panic!("{:#?}", lines(&leader)) };
        assert!(matches!(&add.step, Step::Add(added) if added.id == id("4")));
        assert!(matches!(add.origin, Origin::Operator { .. }));
        assert_eq!(add.fate, Fate::Applied);
        assert!(add.took > millis(1) && add.took < millis(100), "{:?}", add.took);
        assert_eq!((&taken.step, &taken.origin), (&promote, &Origin::Promoter));
        assert_eq!(taken.fate, Fate::Applied);
        // A server that is sick for long is held for one reason after the other, each told once.
        world.kill("4").await;
        world.sleep(secs(30)).await;
        let history = told(&leader);
        let [_, _, first, second] = &history[..] else { panic!("{:#?}", lines(&leader)) };
        for held in [first, second] {
            assert!(matches!(&held.step, Step::Remove { servers, .. } if *servers == ids(&["4"])));
            assert_eq!(held.origin, Origin::Cleanup);
            assert!(held.reasons[&id("4")].contains(Reason::ContactLost), "{held:?}");
        }
        let few = Refusal::TooFewSigns { server: id("4"), signs: 1 };
        assert_eq!(first.fate, Fate::Held(Why::Refused(few)));
        let Fate::Held(Why::Refused(refusal)) = &second.fate else { panic!("{second:?}") };
        assert!(matches!(refusal, Refusal::GraceRuns { .. }), "{refusal:?}");
        assert!(history.windows(2).all(|pair| pair[0].number + 1 == pair[1].number));
        assert!(history.windows(2).all(|pair| pair[0].at <= pair[1].at));
    });
}

#[test]
fn an_order_that_is_refused_and_a_host_that_fails_are_told() {
    simulated(async {
        let knobs = Knobs::default();
        let config = Config { min_quorum: 3, ..knobs.config.clone() };
        let world = World::<Sim>::new(Knobs { config, ..knobs });
        let leader = world.form(&["1", "2", "3"]).await;
        world.until("all healthy", || leader.state().healthy).await;
        let other = if leader.id == "1" { "2" } else { "1" };
        let said = leader.handle.remove(other).await;
        assert!(matches!(said, Err(VerbError::Refused { .. })), "{said:?}");
        let mut nowhere = server("4");
        nowhere.address = String::new();
        leader.handle.clone().within(millis(1500)).add(nowhere).await.unwrap_err();
        let told = lines(&leader);
        let demote = format!("demote {other}: refused");
        let add = |fate: &str| format!("add 4 at : {fate}");
        assert_eq!(told, [demote, add("failed"), add("held"), add("failed"), add("held")]);
    });
}

#[test]
fn each_node_tells_of_its_own_leadership_and_of_nobody_elses() {
    simulated(async {
        let world = World::<Sim>::new(Knobs::default());
        let old = world.form(&["1", "2", "3"]).await;
        world.until("all healthy", || old.state().healthy).await;
        let to = if old.id == "1" { "2" } else { "1" };
        old.handle.transfer(Some(id(to))).await.unwrap();
        let next = world.leader().await;
        assert_eq!(next.id, to);
        world.sleep(secs(5)).await;
        assert_eq!(lines(&old), [format!("transfer leadership to {to}: applied")]);
        assert!(lines(&next).is_empty(), "{:?}", lines(&next));
    });
}
