//! `plan`: what is thought of a case, every step until it has converged, and what is held and why.

use std::{fmt::Write as _, time::Duration};

use raft_autopilot::{
    autopilot::ServerId,
    duration::rounded,
    rehearse::{End, Rehearsal, rehearse},
};

use super::{Failure, input};

/// Reads a case, rehearses it, and prints what came of it.
pub(super) fn run(file: &str, horizon: Duration, json: bool) -> Result<String, Failure> {
    let (case, promoter) = input::read(file)?;
    let found = rehearse(&case, &*promoter, horizon);
    if !json {
        return Ok(text(&found, horizon));
    }
    let json = serde_json::to_string_pretty(&found);
    json.map(|json| json + "\n").map_err(|error| Failure::Answer(error.to_string()))
}

fn text(found: &Rehearsal, horizon: Duration) -> String {
    let why = &found.explanation;
    let mut text = format!("{}\n\n", why.summary);
    let rows = why.servers.iter().map(|answer| {
        let fails = if answer.may_fail { "may fail" } else { "must not fail" };
        let code = code(answer.code);
        [answer.server.to_string(), code, fails.to_owned(), answer.words.clone()]
    });
    text.push_str(&table(&rows.collect::<Vec<_>>()));
    for (zone, may) in &why.zones {
        let _ = writeln!(text, "zone {zone} {} be lost", if *may { "may" } else { "must not" });
    }
    text.push_str("\nsteps:\n");
    let rows = found.steps.iter().map(|step| {
        let after = if step.after.is_zero() {
            "at once".to_owned()
        } else {
            format!("after {}", rounded(step.after))
        };
        let voters = format!("then vote: {}", voters(&step.voters, step.leader.as_ref()));
        [format!(" {after}"), step.step.to_string(), voters, String::new()]
    });
    text.push_str(&table(&rows.collect::<Vec<_>>()));
    let end = match &found.end {
        End::Converged if found.steps.is_empty() => "converged: there is nothing to do".to_owned(),
        End::Converged => "converged".to_owned(),
        End::Horizon => format!("not everything is done after {}", rounded(horizon)),
        End::Idle(why) => format!("nothing is done: {why}"),
        End::Endless => "the steps do not end: this policy never converges".to_owned(),
    };
    let _ = writeln!(text, "end: {end}");
    for held in &found.held {
        let _ = writeln!(text, "held: {}: {}", held.step, held.why);
    }
    for warning in &why.warnings {
        let _ = writeln!(text, "warning: {warning}");
    }
    text
}

fn voters(voters: &[ServerId], leader: Option<&ServerId>) -> String {
    let star = |id: &ServerId| if leader == Some(id) { format!("{id}*") } else { id.to_string() };
    voters.iter().map(star).collect::<Vec<_>>().join(" ")
}

/// The word that a code has where it is serialized.
fn code(code: raft_autopilot::autopilot::Code) -> String {
    let word = serde_json::to_value(code).ok();
    word.and_then(|word| word.as_str().map(str::to_owned)).unwrap_or_default()
}

/// Columns as wide as they need to be.
pub(super) fn table<const N: usize>(rows: &[[String; N]]) -> String {
    let width = |at: usize| rows.iter().map(|row| row[at].chars().count()).max().unwrap_or(0);
    let widths: [usize; N] = std::array::from_fn(width);
    let mut text = String::new();
    for row in rows {
        let cells = row.iter().zip(widths).map(|(cell, width)| format!("{cell:width$}"));
        text.push_str(cells.collect::<Vec<_>>().join("  ").trim_end());
        text.push('\n');
    }
    text
}
