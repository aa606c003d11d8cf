//! Reads a case; says of a bad one the file, the place, the field, and what was expected.

use std::{
    collections::{BTreeMap, BTreeSet},
    io::Read as _,
    sync::Arc,
    time::Duration,
};

use raft_autopilot::{
    autopilot::{Observation, Promoter, Role, ServerId, State},
    duration::rounded,
    promoters::promoter,
    rehearse::Case,
};

use serde::de::DeserializeOwned;
use serde_json::value::RawValue;

use super::Failure;

/// A case that can be rehearsed, with its promoter.
pub(super) fn read(file: &str) -> Result<(Case, Arc<dyn Promoter>), Failure> {
    read_and(file, "docs/rehearse.md", |case| check(&case).map(|promoter| (case, promoter)))
}

/// A value as JSON, none of whose fields is unknown to `page`.
pub(super) fn read_as<T: DeserializeOwned>(file: &str, page: &str) -> Result<T, Failure> {
    read_and(file, page, Ok)
}

/// What is wrong with a field: its path, keys and numbers parted by dots, and what was expected.
struct Wrong(String, String);

/// A value as JSON, none of whose fields is unknown to `page`, and what comes of it.
fn read_and<T: DeserializeOwned, U>(
    file: &str,
    page: &str,
    then: impl FnOnce(T) -> Result<U, Wrong>,
) -> Result<U, Failure> {
    let name = if file == "-" { "standard input" } else { file };
    let mut bytes = Vec::new();
    let read = if file == "-" {
        std::io::stdin().lock().read_to_end(&mut bytes).map(drop)
    } else {
        std::fs::read(file).map(|found| bytes = found)
    };
    read.map_err(|error| Failure::Input(format!("{name}: {error}")))?;
    parse(&bytes, page, then).map_err(|error| Failure::Input(format!("{name}: {error}")))
}

fn parse<T: DeserializeOwned, U>(
    bytes: &[u8],
    page: &str,
    then: impl FnOnce(T) -> Result<U, Wrong>,
) -> Result<U, String> {
    let mut json = serde_json::Deserializer::from_slice(bytes);
    let mut unknown = Vec::new();
    let mut note = |path: serde_ignored::Path<'_>| unknown.push(path.to_string().replace(".?", ""));
    let watched = serde_ignored::Deserializer::new(&mut json, &mut note);
    let found: Result<T, _> = serde_path_to_error::deserialize(watched);
    let value = found.map_err(|error| {
        let path = error.path().to_string();
        placed(bytes, &path, error.inner())
    })?;
    json.end().map_err(|error| placed(bytes, ".", &error))?;
    let done = match unknown.pop() {
        None => then(value),
        Some(field) => Err(Wrong(field, format!("not known; expected one of those in {page}"))),
    };
    done.map_err(|Wrong(field, what)| {
        let (line, column) = place(bytes, &field);
        format!("line {line} column {column}: field `{}`: {what}", shown(&field))
    })
}

/// A path as errors show it: numbers in brackets.
fn shown(path: &str) -> String {
    let is_number = |key: &str| key.parse::<usize>().is_ok();
    path.split('.').fold(String::new(), |text, key| match (text.is_empty(), is_number(key)) {
        (true, _) => key.to_owned(),
        (false, true) => format!("{text}[{key}]"),
        (false, false) => format!("{text}.{key}"),
    })
}

/// The line and the column at which the value at a path begins, both from 1; where it is missing,
/// those of the last on the way that is there.
fn place(bytes: &[u8], path: &str) -> (usize, usize) {
    let text = std::str::from_utf8(bytes).unwrap_or_default();
    let mut here = text.trim_start();
    for key in path.split('.') {
        let found: Option<&RawValue> = if here.starts_with('[') {
            let all: Vec<&RawValue> = serde_json::from_str(here).unwrap_or_default();
            key.parse().ok().and_then(|number: usize| all.get(number).copied())
        } else {
            let all: BTreeMap<String, &RawValue> = serde_json::from_str(here).unwrap_or_default();
            all.get(key).copied()
        };
        let Some(found) = found else { break };
        here = found.get();
    }
    // What was found is a part of the text.
    let before = text.get(..here.as_ptr().addr() - text.as_ptr().addr()).unwrap_or_default();
    position(before.as_bytes())
}

/// The line and the column after all this, both from 1.
fn position(before: &[u8]) -> (usize, usize) {
    let lines = before.split(|byte| *byte == b'\n');
    let (count, last) = lines.fold((0, 0), |(count, _), line| (count + 1, line.len()));
    (count, last + 1)
}

fn check(case: &Case) -> Result<Arc<dyn Promoter>, Wrong> {
    // Without the host's heartbeat, which a case does not tell.
    case.config.validate(Duration::from_millis(1)).map_err(|error| {
        let field = format!("config.{}", error.field);
        Wrong(field, format!("found {}, {}", error.found, error.expected))
    })?;
    let seen = &case.observation;
    observation(seen)?;
    case.history.as_ref().map_or(Ok(()), |last| history(last, seen))?;
    for (field, id) in [("leader", seen.leader.as_ref()), ("local", local(case))] {
        if id.is_some_and(|id| !seen.servers.iter().any(|s| s.server.id == *id)) {
            let id = id.map_or("", ServerId::as_str);
            let what = format!("found `{id}`, expected the id of one of `observation.servers`");
            return Err(Wrong(format!("observation.{field}"), what));
        }
    }
    let wrong = |what: String| Wrong("promoter".to_owned(), what);
    let policy = case.promoter.as_ref().ok_or_else(|| {
        wrong(
            "not set (a policy of the application's own cannot be saved); expected a ready-made \
             one, such as {\"stable\": {}} or {\"zones\": {\"target\": 5}}"
                .to_owned(),
        )
    })?;
    promoter(policy).map_err(wrong)
}

/// What no cluster gives.
fn observation(seen: &Observation) -> Result<(), Wrong> {
    let mut ids = BTreeSet::new();
    for (number, sighting) in seen.servers.iter().enumerate() {
        let field = |name: &str| format!("observation.servers.{number}.{name}");
        let id = &sighting.server.id;
        if !ids.insert(id) {
            return Err(Wrong(field("server.id"), format!("found `{id}` again, expected another")));
        }
        if id.as_str().is_empty() {
            let what = "found an empty id, expected the name of a server";
            return Err(Wrong(field("server.id"), what.to_owned()));
        }
        let half = matches!(sighting.role, Role::Incoming | Role::Outgoing);
        if half && !seen.membership.joint {
            let what = "found one half of a joint membership, expected `voter` or `learner`, or \
                        `observation.membership.joint` to be true";
            return Err(Wrong(field("role"), what.to_owned()));
        }
    }
    Ok(())
}

/// What is no round before that observation.
fn history(last: &State, seen: &Observation) -> Result<(), Wrong> {
    if last.at > seen.at {
        let (last, seen) = (rounded(last.at), rounded(seen.at));
        let what = format!("found {last}, expected at most `observation.at`, {seen}");
        return Err(Wrong("history.at".to_owned(), what));
    }
    let ids = last.servers.iter().map(|server| &server.server.id);
    for (number, (before, id)) in ids.clone().zip(ids.skip(1)).enumerate() {
        if before >= id {
            let field = format!("history.servers.{}.server.id", number + 1);
            let what = format!("found `{id}` after `{before}`, expected each id once, in order");
            return Err(Wrong(field, what));
        }
    }
    Ok(())
}

/// This node, which must be listed where it leads.
fn local(case: &Case) -> Option<&ServerId> {
    case.observation.leading.map(|_| &case.observation.local)
}

/// An error with its place and field.
fn placed(bytes: &[u8], path: &str, error: &serde_json::Error) -> String {
    let (mut line, mut column) = (error.line(), error.column());
    let text = error.to_string();
    let what = text.strip_suffix(&format!(" at line {line} column {column}")).unwrap_or(&text);
    // Where it ends in the middle nobody knows of what.
    let path = path.replace(".?", "");
    let mut named = path != ".";
    let what = match std::str::from_utf8(bytes) {
        Ok(_) => in_json(what),
        Err(bad) => {
            // Whatever else is wrong is wrong elsewhere.
            named &= what == "invalid unicode code point";
            (line, column) = position(&bytes[..bad.valid_up_to()]);
            format!("found the byte {:#04x}, expected UTF-8", bytes[bad.valid_up_to()])
        }
    };
    let field = if named { format!("field `{}`: ", shown(&path)) } else { String::new() };
    format!("line {line} column {column}: {field}{what}")
}

/// What is wrong with a value, to whoever writes JSON: what it is called in Rust says nothing to them.
fn in_json(what: &str) -> String {
    let Some((found, expected)) = what.rsplit_once(", expected ") else { return what.to_owned() };
    let found = match found {
        "invalid type: map" => "invalid type: object",
        "invalid type: sequence" => "invalid type: list",
        // A list of the values of its fields, of which there are too few.
        _ if found.starts_with("invalid length ") => "invalid type: list",
        _ => found,
    };
    let expected = match expected {
        "a sequence" => "a list",
        "a boolean" => "true or false",
        "u32" => "a whole number from 0 to 4294967295",
        "u64" => "a whole number, 0 or more",
        "f64" => "a number",
        _ if expected.starts_with("struct ") => "an object",
        _ => expected,
    };
    format!("{found}, expected {expected}")
}
