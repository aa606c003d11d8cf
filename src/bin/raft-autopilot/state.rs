//! `state`: votes and work of every server side by side, as the leader answers.

use std::fmt::Write as _;

use serde_json::{Map, Value};

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
    for held in found["Held"].as_array().into_iter().flatten() {
        let _ = writeln!(text, "held: {} ({})", words(&held["Step"]), words(&held["Why"]));
    }
    text
}

/// What a server holds, and what its standing takes from it.
fn holds(work: &Value) -> (String, String) {
    if !work.is_object() {
        return (String::new(), String::new());
    }
    let (items, limit, primaries) = (&work["Items"], &work["Limit"], &work["Primaries"]);
    let holds = format!("{items} of {limit} items, primary of {primaries}");
    let standing = match &work["Standing"] {
        Value::String(full) if full == "full" && work["Leaving"] == true => "leaves".to_owned(),
        Value::String(full) if full == "full" => String::new(),
        Value::String(other) => format!("{}: {}", other.replace('_', " "), words(&work["Why"])),
        Value::Object(shed) => format!("sheds {}: {}", shed["shed"], words(&work["Why"])),
        _ => String::new(),
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
    for (title, field) in [("moving", "Moving"), ("lacking", "Lacking")] {
        let lines = work[field].as_array().map_or(&[][..], Vec::as_slice);
        for line in lines.iter().take(NAMED) {
            let _ = writeln!(text, "{title}: {}", words(line));
        }
        if lines.len() > NAMED {
            let _ = writeln!(text, "{title}: {} more", lines.len() - NAMED);
        }
    }
    for (title, field) in [("nothing is taken by health", "Hold"), ("failing", "Failing")] {
        if let Some(why) = work[field].as_str() {
            let _ = writeln!(text, "{title}: {why}");
        }
    }
    text
}
