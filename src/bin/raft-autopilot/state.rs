//! `state`: votes and work of every server side by side, as the leader answers.

use std::fmt::Write as _;

use serde_json::{Map, Value};

use raft_autopilot::allocator::Standing;

use super::{Failure, Node, client, plan::table};

/// How many items that move or lack replicas are named.
const NAMED: usize = 20;

/// Asks the leader and prints what it says.
pub(super) fn run(node: &Node, json: bool) -> Result<String, Failure> {
    let found = client::get(&node.address, "/v1/operator/autopilot/state", node.token.as_deref())?;
    Ok(if json { format!("{found:#}\n") } else { text(&found) })
}

fn words(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

fn text(found: &Value) -> String {
    let empty = Map::new();
    let servers = found["Servers"].as_object().unwrap_or(&empty);
    let leader = words(&found["Leader"]);
    let voters = found["Voters"].as_array().map_or(0, Vec::len);
    let healthy = if found["Healthy"] == true { "all healthy" } else { "NOT all healthy" };
    let quorum = if found["Quorum"] == true { "" } else { "; NO QUORUM" };
    let mut text = format!(
        "{leader} leads in term {}; {voters} vote, {} more may fail; {healthy}{quorum}\n\n",
        found["Term"], found["FailureTolerance"]
    );
    let work = &found["Work"];
    let rows = servers.iter().map(|(id, server)| {
        let name = words(&server["Name"]).to_owned();
        let (vote, verdict) = (words(&server["Status"]), words(&server["Verdict"]));
        let (holds, standing) = holds(&server["Work"]);
        [id.clone(), name, vote.to_owned(), verdict.to_owned(), holds, standing]
    });
    text.push_str(&table(&rows.collect::<Vec<_>>()));
    if work.is_object() {
        text.push('\n');
        text.push_str(&cluster(work));
    }
    if let Some(why) = found["Idle"]["Why"].as_str() {
        let _ = writeln!(text, "nothing is done: {why}");
    }
    for held in list(&found["Held"]) {
        let _ = writeln!(text, "held: {} ({})", words(&held["Step"]), words(&held["Why"]));
    }
    for warning in list(&found["Warnings"]) {
        let _ = writeln!(text, "warning: {}", words(warning));
    }
    for spot in list(&found["BlindSpots"]) {
        let _ = writeln!(text, "cannot see: {}", words(&spot["What"]));
    }
    text
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

/// What a server holds, and what its standing takes from it.
fn holds(work: &Value) -> (String, String) {
    if !work.is_object() {
        return (String::new(), String::new());
    }
    let (items, limit, primaries) = (&work["Items"], &work["Limit"], &work["Primaries"]);
    let holds = format!("{items} of {limit} items, primary of {primaries}");
    let standing = match serde_json::from_value(work["Standing"].clone()).unwrap_or_default() {
        Standing::Full if work["Leaving"] == true => "leaves".to_owned(),
        Standing::Full => String::new(),
        lowered => format!("{lowered}: {}", words(&work["Why"])),
    };
    (holds, standing)
}

fn cluster(work: &Value) -> String {
    let empty = Map::new();
    let doing = work["Doing"].as_object().unwrap_or(&empty);
    let mut text = format!("{} items, {} replicas", work["Items"], work["Replicas"]);
    for (doing, count) in doing {
        let _ = write!(text, ", {count} {}", doing.replace('_', " "));
    }
    text.push('\n');
    let (moving, lacking) = (list(&work["Moving"]), list(&work["Lacking"]));
    // The answer itself names a hundred at most; what all items do is counted.
    let unsettled: u64 = doing.values().filter_map(Value::as_u64).sum();
    let unsettled = usize::try_from(unsettled).unwrap_or(usize::MAX).max(moving.len());
    for (title, lines, all) in [("moving", moving, unsettled), ("lacking", lacking, lacking.len())]
    {
        let named = &lines[..lines.len().min(NAMED)];
        for line in named {
            let _ = writeln!(text, "{title}: {}", words(line));
        }
        if all > named.len() {
            let _ = writeln!(text, "{title}: {} more items", all - named.len());
        }
    }
    // Where each is named its reason stands beside it.
    let reasons = work["Reasons"].as_object().filter(|_| unsettled > NAMED);
    for (why, count) in reasons.into_iter().flatten() {
        let _ = writeln!(text, "moving: {count} in all: {why}");
    }
    for (title, field) in [("no member", "Nameless"), ("zones differ", "Astray")] {
        for line in list(&work[field]) {
            let _ = writeln!(text, "{title}: {}", words(line));
        }
    }
    for (title, field) in [("health holds still", "Hold"), ("failing", "Failing")] {
        if let Some(why) = work[field].as_str() {
            let _ = writeln!(text, "{title}: {why}");
        }
    }
    text
}
