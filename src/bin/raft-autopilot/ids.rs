//! `ids`: what stands below a prefix of an etcd, who uses it, and what nobody uses any more.

use std::{collections::BTreeMap, time::Duration};

use clap::{Args, Subcommand};
use raft_autopilot::{
    ids::{Collector, CollectorOptions, KeyHash, Listing, list, look_up, look_up_id},
    runtime::{Runtime, TokioRuntime},
    store::{Bytes, etcd::Etcd},
};
use serde_json::json;

use super::{Failure, etcd::Connection, plan::table};

#[derive(Debug, Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    connection: Connection,
    /// What the keys of the ids begin with.
    #[arg(long, default_value = "ids/")]
    prefix: String,
    /// Print the answer as JSON.
    #[arg(long)]
    json: bool,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// List all keys with their ids, and who uses them.
    List,
    /// Print the id of a key; or, with `--id`, the key of an id.
    #[command(group = clap::ArgGroup::new("what").required(true))]
    Lookup {
        /// The key as `list` prints it: text, in which \\, \n, \xff and the like stand for bytes.
        #[arg(group = "what", value_parser = unescape)]
        name: Option<Bytes>,
        /// The id.
        #[arg(long, group = "what")]
        id: Option<u64>,
    },
    /// Take ids back that nobody uses.
    Collect {
        /// How long nobody has to use them; it waits as long.
        #[arg(long, default_value = "0s", value_parser = raft_autopilot::duration::parse)]
        grace: Duration,
        /// How long they rest before another key may have them.
        #[arg(long, default_value = "0s", value_parser = raft_autopilot::duration::parse)]
        rest: Duration,
    },
}

/// The bytes that a text of `list` stands for.
fn unescape(text: &str) -> Result<Bytes, String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut left = text.as_bytes();
    while let Some((first, rest)) = left.split_first() {
        left = rest;
        if *first != b'\\' {
            bytes.push(*first);
            continue;
        }
        let escape = match rest {
            [b't', ..] => Some((b'\t', 1)),
            [b'n', ..] => Some((b'\n', 1)),
            [b'r', ..] => Some((b'\r', 1)),
            [same @ (b'\'' | b'"' | b'\\'), ..] => Some((*same, 1)),
            [b'x', high, low, ..] => digit(*high).zip(digit(*low)).map(|(h, l)| (h << 4 | l, 3)),
            _ => None,
        };
        let Some((byte, len)) = escape else {
            let at = text.len() - rest.len() - 1;
            return Err(format!(
                r#"no escape at byte {at}: one of \t \n \r \' \" \\ \x00 to \xff expected"#
            ));
        };
        bytes.push(byte);
        left = &rest[len..];
    }
    Ok(bytes.into())
}

fn digit(text: u8) -> Option<u8> {
    char::from(text).to_digit(16).and_then(|digit| u8::try_from(digit).ok())
}

/// Does what is asked for.
pub(super) fn run(arguments: &Arguments) -> Result<String, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| Failure::Answer(error.to_string()))?;
    runtime.block_on(async {
        let store = arguments.connection.connect().await?;
        match &arguments.verb {
            Verb::List => {
                let found = list(&store, arguments.prefix.as_str()).await.map_err(answer)?;
                Ok(if arguments.json { listing_json(&found) } else { listing(&found) })
            }
            Verb::Lookup { name, id } => lookup(&store, arguments, name.as_ref(), *id).await,
            Verb::Collect { grace, rest } => collect(store, arguments, *grace, *rest).await,
        }
    })
}

#[expect(clippy::needless_pass_by_value, reason = "for `map_err`")]
fn answer(error: impl ToString) -> Failure {
    Failure::Answer(error.to_string())
}

/// How many users each key has, and their names.
fn users(found: &Listing) -> BTreeMap<KeyHash, Vec<String>> {
    let mut users: BTreeMap<KeyHash, Vec<String>> = BTreeMap::new();
    for reference in &found.references {
        users.entry(reference.hash).or_default().push(reference.node.to_string());
    }
    users
}

fn listing(found: &Listing) -> String {
    let Some(meta) = found.meta else { return "there are no ids\n".to_owned() };
    let users = users(found);
    let mut mappings: Vec<_> = found.mappings.iter().collect();
    mappings.sort_by_key(|mapping| mapping.id);
    let rows = mappings.iter().map(|mapping| {
        let users = users.get(&KeyHash::of(&mapping.key)).map(Vec::as_slice).unwrap_or_default();
        let count = match users.len() {
            0 => "unused".to_owned(),
            1 => "1 user".to_owned(),
            count => format!("{count} users"),
        };
        [mapping.id.to_string(), mapping.key.to_string(), count, users.join(" ")]
    });
    let mut text = table(&rows.collect::<Vec<_>>());
    let (used, resting, total) = (mappings.len(), found.resting.len(), meta.range.total());
    let figures = format!(
        "{used} of {total} ids ({}) are used, {resting} rest; epoch {}, revision {}\n",
        meta.range, meta.epoch, found.revision
    );
    text.push_str(&figures);
    if !found.foreign.is_empty() {
        let foreign = format!("{} keys below the prefix are not ids\n", found.foreign.len());
        text.push_str(&foreign);
    }
    text.extend(found.violations.iter().map(|violation| format!("wrong: {violation}\n")));
    text
}

fn listing_json(found: &Listing) -> String {
    let users = users(found);
    let mappings = found.mappings.iter().map(|mapping| {
        let users = users.get(&KeyHash::of(&mapping.key)).cloned().unwrap_or_default();
        json!({ "id": mapping.id, "key": mapping.key.to_string(), "users": users })
    });
    let range = found.meta.map(|meta| json!([meta.range.first(), meta.range.last()]));
    let found = json!({
        "revision": found.revision,
        "epoch": found.meta.map(|meta| meta.epoch),
        "range": range,
        "ids": mappings.collect::<Vec<_>>(),
        "resting": found.resting,
        "foreign": found.foreign.iter().map(ToString::to_string).collect::<Vec<_>>(),
        "violations": found.violations.iter().map(ToString::to_string).collect::<Vec<_>>(),
    });
    format!("{found:#}\n")
}

async fn lookup(
    store: &Etcd,
    arguments: &Arguments,
    name: Option<&Bytes>,
    id: Option<u64>,
) -> Result<String, Failure> {
    let prefix = arguments.prefix.as_str();
    let mapping = match (name, id) {
        (Some(name), _) => look_up(store, prefix, name).await.map_err(answer)?,
        (None, id) => look_up_id(store, prefix, id.unwrap_or_default()).await.map_err(answer)?,
    };
    let Some(mapping) = mapping else {
        return Err(Failure::Answer(match name {
            Some(name) => format!("`{name}` has no id"),
            None => format!("{} is no key's id", id.unwrap_or_default()),
        }));
    };
    let key = mapping.key.to_string();
    Ok(match (arguments.json, name) {
        (true, _) => format!("{:#}\n", json!({ "id": mapping.id, "key": key })),
        (false, Some(_)) => format!("{}\n", mapping.id),
        (false, None) => format!("{key}\n"),
    })
}

async fn collect(
    store: Etcd,
    arguments: &Arguments,
    grace: Duration,
    rest: Duration,
) -> Result<String, Failure> {
    let options = CollectorOptions {
        grace,
        grace_floor: grace,
        rest,
        rate_limit: u32::MAX,
        ..CollectorOptions::default()
    };
    let prefix = arguments.prefix.as_str();
    let collector = Collector::open(store, TokioRuntime, prefix, options).await;
    let mut collector = collector.map_err(answer)?;
    TokioRuntime.sleep(grace).await;
    let done = collector.collect().await.map_err(answer)?;
    let left = done.found - done.deleted.min(done.found);
    if arguments.json {
        return Ok(format!("{:#}\n", json!({ "deleted": done.deleted, "left": left })));
    }
    Ok(format!("{} ids were taken back, {left} are left\n", done.deleted))
}
