//! Why items move is told of all that do, however many.

use std::{collections::BTreeMap, sync::Arc};

use raft_autopilot::allocator::{Judgement, MemberKey, Outside, Standing};

use crate::scene::Scene;

/// 150 items on A and B, of two zones, A being the primary of all, and then these changes: why items move,
/// and how many for each reason.
async fn reasons(changes: &str, standing: Standing) -> BTreeMap<String, usize> {
    let items = (100..250).map(|item| format!("i{item}:2 {item}@a/A.0* {item}@b/B.1* "));
    let mut scene = Scene::with("a/A=1000 b/B=1000").await;
    scene.put(&items.collect::<String>()).await;
    scene.put(changes).await;
    let judgement = Judgement { standing, why: "it is sick".into() };
    let standings = Arc::new(BTreeMap::from([(MemberKey::new("a", "A"), judgement)]));
    scene.outside = Outside { standings, ..Outside::default() };
    let report = scene.look_on();
    assert!(report.moves.len() <= 100, "so many are named");
    for named in &report.moves {
        assert!(report.reasons.contains_key(&named.why), "{named}");
    }
    report.reasons
}

#[tokio::test(start_paused = true)]
async fn every_item_that_moves_is_counted_with_its_reason() {
    for (changes, standing, expected) in [
        ("", Standing::Full, &[("so that primaries are even", 75)][..]),
        ("", Standing::NoPrimaries, &[("a#A hands its primaries over: it is sick", 150)]),
        ("a/C=1000", Standing::Shed(1000), &[("a#A sheds 1000: it is sick", 150)]),
        ("a/C=1000", Standing::Gone, &[("a#A holds nothing by its standing: it is sick", 150)]),
        ("a/C=1000 -a/A", Standing::Gone, &[("a#A is gone", 150)]),
        ("a/C=1000 a/A=1000E", Standing::Full, &[("a#A leaves", 150)]),
        ("a/C=1000 a/A=0", Standing::Full, &[("a#A holds more than it may", 150)]),
        (
            "a/C=1000 -i100 i101:3",
            Standing::Full,
            &[
                ("it is deleted", 1),
                ("it lacks replicas", 1),
                ("so that loads are even", 74),
                ("so that primaries are even", 25),
            ],
        ),
    ] {
        let expected = expected.iter().map(|(why, count)| ((*why).to_owned(), *count)).collect();
        assert_eq!(reasons(changes, standing).await, expected, "{changes} {standing:?}");
    }
}
