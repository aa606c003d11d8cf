//! `explain`: why each server stands where it stands, as a running node answers.

use std::fmt::Write as _;

use raft_autopilot::duration::{parse, rounded};
use serde_json::Value;

use super::{Failure, Node, client, plan::table};

/// Asks a node and prints what it says.
pub(super) fn run(server: Option<&str>, node: &Node, json: bool) -> Result<String, Failure> {
    let path = "/v1/operator/autopilot/explain";
    let path = server.map_or(path.to_owned(), |server| format!("{path}/{}", escaped(server)));
    let found = client::get(&node.address, &path, node.token.as_deref())?;
    if json {
        return Ok(format!("{found:#}\n"));
    }
    Ok(if server.is_some() { one(&found) } else { all(&found) })
}

/// An id as a part of a path.
fn escaped(id: &str) -> String {
    id.bytes().fold(String::new(), |mut text, byte| {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            text.push(char::from(byte));
        } else {
            let _ = write!(text, "%{byte:02X}");
        }
        text
    })
}

fn one(answer: &Value) -> String {
    let words = |field| answer[field].as_str().unwrap_or_default();
    let fails = if answer["MayFail"] == true { "it may fail" } else { "it must not fail" };
    format!("{} [{}]: {}; {fails}\n", words("ID"), words("Code"), words("Words"))
}

fn all(found: &Value) -> String {
    let words = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let mut text = format!("{}\n\n", words(&found["Summary"]));
    let empty = serde_json::Map::new();
    let entries = |field: &str| found[field].as_object().unwrap_or(&empty);
    let rows = entries("Servers").iter().map(|(id, answer)| {
        let fails = if answer["MayFail"] == true { "may fail" } else { "must not fail" };
        [id.clone(), words(&answer["Code"]), fails.to_owned(), words(&answer["Words"])]
    });
    text.push_str(&table(&rows.collect::<Vec<_>>()));
    for (zone, loss) in entries("Zones") {
        let may = if loss["MayBeLost"] == true { "may" } else { "must not" };
        let _ = writeln!(text, "zone {zone} {may} be lost");
    }
    let after = found["Next"]["After"].as_str();
    let after = after.map_or(String::new(), |after| match after {
        "0s" => "now: ".to_owned(),
        after => {
            let rounded = parse(after).map(|after| rounded(after).to_string());
            format!("in {}: ", rounded.unwrap_or_else(|_| after.to_owned()))
        }
    });
    let _ = writeln!(text, "\nnext: {after}{}", words(&found["Next"]["Words"]));
    for (title, field) in [("held", "Held"), ("warning", "Warnings")] {
        for line in found[field].as_array().into_iter().flatten() {
            let _ = writeln!(text, "{title}: {}", words(line));
        }
    }
    text
}
