//! The configuration on the wire: Consul's fields, then ours, all in `CamelCase`.

use std::{collections::BTreeMap, fmt, time::Duration};

use serde::{
    Deserialize, Deserializer, Serialize,
    de::{Error, MapAccess, Visitor},
};
use serde_json::Value;

use super::durations;
use crate::autopilot::{Config, ConfigError, View};

/// What is wrong with a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Bad {
    /// The field to blame, as it is named on the wire; `None`: the whole.
    pub(super) field: Option<String>,
    /// Why.
    pub(super) reason: String,
}

impl Bad {
    pub(super) fn whole(reason: impl Into<String>) -> Self {
        Self { field: None, reason: reason.into() }
    }

    pub(super) fn field(field: &str, reason: impl Into<String>) -> Self {
        Self { field: Some(field.to_owned()), reason: reason.into() }
    }
}

impl From<ConfigError> for Bad {
    fn from(error: ConfigError) -> Self {
        let reason = format!("is {}: {}", error.found, with_wire_names(&error.expected));
        Self { field: Some(wire_name(error.field)), reason }
    }
}

/// `last_contact_threshold` as `LastContactThreshold`.
fn wire_name(field: &str) -> String {
    let capital = |word: &str| {
        let mut letters = word.chars();
        letters.next().map(|first| first.to_ascii_uppercase()).into_iter().chain(letters).collect()
    };
    field.split('_').map(capital).collect::<Vec<String>>().concat()
}

/// The text with every `snake_case` word as on the wire.
fn with_wire_names(text: &str) -> String {
    let part_of_name = |c: char| c.is_ascii_lowercase() || c == '_';
    let mut named = String::new();
    for piece in text.split_inclusive(|c| !part_of_name(c)) {
        let word = piece.trim_end_matches(|c| !part_of_name(c));
        let rest = &piece[word.len()..];
        named += &if word.contains('_') { wire_name(word) } else { word.to_owned() };
        named += rest;
    }
    named
}

/// What a GET answers.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Reply<'a> {
    cleanup_dead_servers: bool,
    last_contact_threshold: String,
    max_trailing_logs: u64,
    min_quorum: u32,
    server_stabilization_time: String,
    redundancy_zone_tag: &'a str,
    disable_upgrade_migration: bool,
    upgrade_version_tag: &'a str,
    create_index: u64,
    modify_index: u64,
    last_contact_recovery: String,
    trailing_logs_recovery: u64,
    max_catch_up_time: String,
    stall_threshold: String,
    status_max_age: String,
    dead_server_last_contact_threshold: String,
    left_server_grace: String,
    join_grace: String,
    voter_replacement_grace: String,
    min_margin: u32,
    upgrade_target_version: &'a str,
}

/// The configuration in force, as it is answered.
pub(super) fn reply(view: &View) -> Reply<'_> {
    let print = durations::print;
    let config = &*view.config;
    Reply {
        cleanup_dead_servers: config.cleanup_dead_servers,
        last_contact_threshold: print(config.last_contact_threshold),
        max_trailing_logs: config.max_trailing_logs,
        min_quorum: config.min_quorum,
        server_stabilization_time: print(config.server_stabilization_time),
        redundancy_zone_tag: &config.redundancy_zone_tag,
        disable_upgrade_migration: config.disable_upgrade_migration,
        upgrade_version_tag: &config.upgrade_version_tag,
        create_index: view.create_index,
        modify_index: view.modify_index,
        last_contact_recovery: print(config.last_contact_recovery),
        trailing_logs_recovery: config.trailing_logs_recovery,
        max_catch_up_time: print(config.max_catch_up_time),
        stall_threshold: print(config.stall_threshold),
        status_max_age: print(config.status_max_age),
        dead_server_last_contact_threshold: print(config.dead_server_last_contact_threshold),
        left_server_grace: print(config.left_server_grace),
        join_grace: print(config.join_grace),
        voter_replacement_grace: print(config.voter_replacement_grace),
        min_margin: config.min_margin,
        upgrade_target_version: &config.upgrade_target_version,
    }
}

/// Reads a whole configuration: what is left out is the default for `heartbeat`. Valid, or the
/// first thing that is wrong.
pub(super) fn parse(body: &[u8], heartbeat: Duration) -> Result<Config, Bad> {
    let Fields(fields) = serde_json::from_slice(body)
        .map_err(|error| Bad::whole(format!("not a configuration in JSON: {error}")))?;
    let mut given = Given(fields);
    let mut config = Config::for_heartbeat(heartbeat);
    let Config {
        cleanup_dead_servers,
        last_contact_threshold: _,
        last_contact_recovery,
        max_trailing_logs: _,
        trailing_logs_recovery,
        max_catch_up_time,
        stall_threshold,
        status_max_age,
        min_quorum,
        server_stabilization_time,
        dead_server_last_contact_threshold,
        left_server_grace,
        join_grace,
        voter_replacement_grace,
        min_margin,
        redundancy_zone_tag,
        disable_upgrade_migration,
        upgrade_version_tag,
        upgrade_target_version,
    } = given.lead(&mut config)?;
    given.flag("CleanupDeadServers", cleanup_dead_servers)?;
    given.number("MinQuorum", min_quorum)?;
    given.duration("ServerStabilizationTime", server_stabilization_time)?;
    given.text("RedundancyZoneTag", redundancy_zone_tag)?;
    given.flag("DisableUpgradeMigration", disable_upgrade_migration)?;
    given.text("UpgradeVersionTag", upgrade_version_tag)?;
    given.duration("LastContactRecovery", last_contact_recovery)?;
    given.number("TrailingLogsRecovery", trailing_logs_recovery)?;
    given.duration("MaxCatchUpTime", max_catch_up_time)?;
    given.duration("StallThreshold", stall_threshold)?;
    given.duration("StatusMaxAge", status_max_age)?;
    given.duration("DeadServerLastContactThreshold", dead_server_last_contact_threshold)?;
    given.duration("LeftServerGrace", left_server_grace)?;
    given.duration("JoinGrace", join_grace)?;
    given.duration("VoterReplacementGrace", voter_replacement_grace)?;
    given.number("MinMargin", min_margin)?;
    given.text("UpgradeTargetVersion", upgrade_target_version)?;
    given.number("CreateIndex", &mut 0_u64)?;
    given.number("ModifyIndex", &mut 0_u64)?;
    if let Some(field) = given.0.keys().next() {
        return Err(Bad::field(field, "is not a field of the configuration"));
    }
    config.validate(heartbeat)?;
    Ok(config)
}

/// What was sent and has not been read yet.
struct Given(BTreeMap<String, Value>);

impl Given {
    /// Reads the two fields that the defaults of others follow.
    fn lead<'a>(&mut self, config: &'a mut Config) -> Result<&'a mut Config, Bad> {
        let (mut contact, mut trailing) = (config.last_contact_threshold, config.max_trailing_logs);
        self.duration("LastContactThreshold", &mut contact)?;
        self.number("MaxTrailingLogs", &mut trailing)?;
        if contact != config.last_contact_threshold {
            *config = config.clone().with_last_contact_threshold(contact);
        }
        if trailing != config.max_trailing_logs {
            *config = config.clone().with_max_trailing_logs(trailing);
        }
        Ok(config)
    }

    /// The value of a field; `null` is as good as nothing, as Consul's own clients send it.
    fn take(&mut self, field: &str) -> Option<Value> {
        self.0.remove(field).filter(|value| !value.is_null())
    }

    fn duration(&mut self, field: &str, into: &mut Duration) -> Result<(), Bad> {
        match self.take(field) {
            None => {}
            Some(Value::String(text)) => {
                *into = durations::parse(&text)
                    .map_err(|error| Bad::field(field, error.to_string()))?;
            }
            Some(value) => {
                let nanos = value.as_i64().and_then(|nanos| u64::try_from(nanos).ok());
                *into = nanos.map(Duration::from_nanos).ok_or_else(|| {
                    let expected = "expected text like `200ms`, or a whole number of nanoseconds";
                    Bad::field(field, format!("is {}; {expected}", short(&value)))
                })?;
            }
        }
        Ok(())
    }

    fn number<T: TryFrom<u64>>(&mut self, field: &str, into: &mut T) -> Result<(), Bad> {
        if let Some(value) = self.take(field) {
            let number = value.as_u64().and_then(|number| T::try_from(number).ok());
            *into = number.ok_or_else(|| {
                let bits = 8 * size_of::<T>();
                let expected = format!("expected a whole number, not negative, of {bits} bits");
                Bad::field(field, format!("is {}; {expected}", short(&value)))
            })?;
        }
        Ok(())
    }

    fn flag(&mut self, field: &str, into: &mut bool) -> Result<(), Bad> {
        if let Some(value) = self.take(field) {
            *into = value.as_bool().ok_or_else(|| {
                Bad::field(field, format!("is {}; expected true or false", short(&value)))
            })?;
        }
        Ok(())
    }

    fn text(&mut self, field: &str, into: &mut String) -> Result<(), Bad> {
        match self.take(field) {
            None => {}
            Some(Value::String(text)) => *into = text,
            Some(value) => {
                return Err(Bad::field(field, format!("is {}; expected text", short(&value))));
            }
        }
        Ok(())
    }
}

/// A value as it was sent, cut to what a line can show.
fn short(value: &Value) -> String {
    const SHOWN: usize = 40;
    let text = value.to_string();
    match text.char_indices().nth(SHOWN) {
        Some((cut, _)) => format!("{}...", &text[..cut]),
        None => text,
    }
}

/// A JSON object in which no field stands twice.
struct Fields(BTreeMap<String, Value>);

impl<'de> Deserialize<'de> for Fields {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Object;

        impl<'de> Visitor<'de> for Object {
            type Value = Fields;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a JSON object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Fields, A::Error> {
                let mut fields = BTreeMap::new();
                while let Some((name, value)) = map.next_entry::<String, Value>()? {
                    if fields.contains_key(&name) {
                        return Err(A::Error::custom(format!("field `{name}` stands twice")));
                    }
                    fields.insert(name, value);
                }
                Ok(Fields(fields))
            }
        }

        from.deserialize_map(Object)
    }
}
