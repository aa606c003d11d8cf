//! What `/explain` answers: each server's one current answer, and what comes next.

use std::{collections::BTreeMap, time::Duration};

use serde::Serialize;

use super::{durations, wire::Reading};
use crate::autopilot::{Answer, Code};

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Explained {
    summary: String,
    age: String,
    next: NextReply,
    may_fail: Vec<String>,
    zones: BTreeMap<String, ZoneReply>,
    servers: BTreeMap<String, AnswerReply>,
    held: Vec<String>,
    warnings: Vec<String>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct NextReply {
    words: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    after: Option<String>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct ZoneReply {
    may_be_lost: bool,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct AnswerReply {
    #[serde(rename = "ID")]
    id: String,
    code: Code,
    words: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    changes_in: Option<String>,
    may_fail: bool,
    /// Where the promoter panicked, in the answer about one server; of all, they stand beside all.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    warnings: Vec<String>,
}

/// Why everything is as it is.
pub(super) fn all(reading: &Reading<'_>) -> Explained {
    let view = reading.view;
    let found = view.explain_by(&reading.promoter, reading.state);
    let may_fail = found.may_fail().map(ToString::to_string).collect();
    let late = reading.now.saturating_sub(reading.state.at);
    let answers = found.servers.into_iter();
    let zones = found.zones.into_iter();
    Explained {
        summary: found.summary,
        age: durations::print(late),
        next: NextReply { words: found.next.words, after: left(found.next.after, late) },
        may_fail,
        zones: zones.map(|(name, may_be_lost)| (name, ZoneReply { may_be_lost })).collect(),
        servers: answers.map(|a| (a.server.to_string(), reply(a, late))).collect(),
        held: found.held,
        warnings: found.warnings,
    }
}

/// The same of one server; `None`: nobody has that id.
pub(super) fn one(reading: &Reading<'_>, id: &str) -> Option<AnswerReply> {
    let view = reading.view;
    let found = view.explain_by(&reading.promoter, reading.state);
    let late = reading.now.saturating_sub(reading.state.at);
    let answer = found.servers.into_iter().find(|a| a.server.as_str() == id)?;
    Some(AnswerReply { warnings: reading.promoter.warnings(), ..reply(answer, late) })
}

fn reply(answer: Answer, late: Duration) -> AnswerReply {
    AnswerReply {
        id: answer.server.to_string(),
        code: answer.code,
        words: answer.words,
        changes_in: left(answer.changes_in, late),
        may_fail: answer.may_fail,
        warnings: Vec::new(),
    }
}

/// What is left of a time that ran from the state on.
fn left(time: Option<Duration>, late: Duration) -> Option<String> {
    time.map(|time| durations::print(time.saturating_sub(late)))
}
