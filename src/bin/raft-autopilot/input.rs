//! Reads a case; says of a bad one the file, the place, the field, and what was expected.

use std::{io::Read as _, sync::Arc, time::Duration};

use raft_autopilot::{
    autopilot::{Promoter, ServerId},
    promoters::promoter,
    rehearse::Case,
};

use serde::de::DeserializeOwned;

use super::Failure;

/// A case that can be rehearsed, with its promoter.
pub(super) fn read(file: &str) -> Result<(Case, Arc<dyn Promoter>), Failure> {
    let (name, case) = read_as(file, "docs/rehearse.md")?;
    check(case).map_err(|error| Failure::Input(format!("{name}: {error}")))
}

/// A value as JSON, none of whose fields is unknown to `page`; and the file's name.
pub(super) fn read_as<T: DeserializeOwned>(file: &str, page: &str) -> Result<(String, T), Failure> {
    let name = if file == "-" { "standard input" } else { file };
    let mut bytes = Vec::new();
    let read = if file == "-" {
        std::io::stdin().lock().read_to_end(&mut bytes).map(drop)
    } else {
        std::fs::read(file).map(|found| bytes = found)
    };
    read.map_err(|error| Failure::Input(format!("{name}: {error}")))?;
    let value = parse(&bytes, page).map_err(|error| Failure::Input(format!("{name}: {error}")))?;
    Ok((name.to_owned(), value))
}

fn parse<T: DeserializeOwned>(bytes: &[u8], page: &str) -> Result<T, String> {
    let mut json = serde_json::Deserializer::from_slice(bytes);
    let mut unknown = Vec::new();
    let mut note = |path: serde_ignored::Path<'_>| unknown.push(path.to_string().replace(".?", ""));
    let watched = serde_ignored::Deserializer::new(&mut json, &mut note);
    let found: Result<T, _> = serde_path_to_error::deserialize(watched);
    let value = found.map_err(|error| {
        let path = error.path().to_string();
        placed(&path, error.inner())
    })?;
    json.end().map_err(|error| placed(".", &error))?;
    match unknown.first() {
        None => Ok(value),
        Some(field) => Err(format!("field `{field}`: not known; expected one of those in {page}")),
    }
}

fn check(case: Case) -> Result<(Case, Arc<dyn Promoter>), String> {
    // Without the host's heartbeat, which a case does not tell.
    case.config.validate(Duration::from_millis(1)).map_err(|error| {
        format!("field `config.{}`: found {}, {}", error.field, error.found, error.expected)
    })?;
    let listed = |id: &ServerId| case.observation.servers.iter().any(|seen| seen.server.id == *id);
    for (field, id) in [("leader", case.observation.leader.as_ref()), ("local", local(&case))] {
        if let Some(id) = id.filter(|id| !listed(id)) {
            return Err(format!(
                "field `observation.{field}`: found `{id}`, expected the id of one of \
                 `observation.servers`"
            ));
        }
    }
    let policy = case.promoter.as_ref().ok_or(
        "field `promoter`: not set (a policy of the application's own cannot be saved); expected \
         a ready-made one, such as {\"stable\": {}} or {\"zones\": {\"target\": 5}}",
    )?;
    let promoter = promoter(policy).map_err(|error| format!("field `promoter`: {error}"))?;
    Ok((case, promoter))
}

/// This node, which must be listed where it leads.
fn local(case: &Case) -> Option<&ServerId> {
    case.observation.leading.map(|_| &case.observation.local)
}

/// An error with its place and field.
fn placed(path: &str, error: &serde_json::Error) -> String {
    let (line, column) = (error.line(), error.column());
    let text = error.to_string();
    let what = text.strip_suffix(&format!(" at line {line} column {column}")).unwrap_or(&text);
    let field = if path == "." { String::new() } else { format!("field `{path}`: ") };
    format!("line {line} column {column}: {field}{what}")
}
