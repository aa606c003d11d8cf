//! `place`: who should hold which item in a case, how much moves, and what does not fit.

use std::fmt::Write as _;

use raft_autopilot::allocator::case::{Case, Placement, Staying};

use super::{Failure, input};

/// How many items that lack replicas are listed before the rest is only counted.
const LISTED: usize = 20;

/// Reads a case, plans it, and prints the plan.
pub(super) fn run(file: &str, json: bool) -> Result<String, Failure> {
    let placement = input::read_as::<Case>(file, "docs/items.md")?.place();
    if !json {
        return Ok(text(&placement));
    }
    let json = serde_json::to_string(&placement);
    json.map(|json| json + "\n").map_err(|error| Failure::Answer(error.to_string()))
}

fn text(placement: &Placement) -> String {
    let sums = &placement.summary;
    let mut text = String::new();
    let _ = writeln!(text, "placed: {}, unplaced: {}", sums.placed, sums.unplaced);
    let _ = writeln!(
        text,
        "added: {} (at least {} in any plan as good), removed: {}, unchanged: {}, hand-offs: {}",
        sums.added, sums.lower_bound, sums.removed, sums.unchanged, sums.hand_offs
    );
    let _ = writeln!(text, "load: {} to {} items a member", sums.min_load, sums.max_load);
    let _ = writeln!(text, "items that break the zone rule: {}", sums.zones_violated);
    for unplaced in placement.unplaced.iter().take(LISTED) {
        let (item, missing) = (&unplaced.item, unplaced.missing);
        let _ = writeln!(text, "unplaced: {item} lacks {missing}: {}", unplaced.words);
    }
    if placement.unplaced.len() > LISTED {
        let _ = writeln!(text, "unplaced: {} more items", placement.unplaced.len() - LISTED);
    }
    for Staying { zone, member, words, .. } in &placement.staying {
        let _ = writeln!(text, "staying: {zone}#{member} cannot leave yet: {words}");
    }
    for ignored in &placement.ignored {
        let _ = writeln!(text, "ignored: {ignored}");
    }
    text
}
