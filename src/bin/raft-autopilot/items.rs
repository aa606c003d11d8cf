//! `items`: who holds how many items of those in an etcd, what moves now, and how long it may take.

use std::{fmt::Write as _, io::Write as _, sync::Arc, time::Duration};

use clap::Args;
use raft_autopilot::{
    allocator::{
        AssignmentValue, Entity, ItemValue, MemberValue, Outside, Replica, Report, Rules, Workload,
        ZoneRule, item::Keys,
    },
    runtime::{Runtime, TokioRuntime},
    store::{
        KeyRange, RangeRequest, Store, StoreError,
        mirror::{Mirror, Options},
    },
};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{Failure, etcd::Connection};

#[derive(Debug, Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    connection: Connection,
    /// What the keys of items, members and assignments begin with.
    #[arg(long)]
    root: String,
    /// The rule by which replicas are spread over zones: `two`, `spread`, or a number, the most in
    /// one zone.
    #[arg(long, default_value = "two", value_parser = zone_rule)]
    zone_rule: ZoneRule,
    /// The same for what zones lie in, for each level again, the outermost first: the first part of a
    /// zone's name, up to a `/`, then its first two parts, and so on.
    #[arg(long = "level", value_name = "ZONE_RULE", value_parser = zone_rule)]
    levels: Vec<ZoneRule>,
    /// Rather leave a replica out than place it beyond these rules.
    #[arg(long)]
    zones_required: bool,
    /// How far from its fair share a member may be, in items.
    #[arg(long, default_value_t = 0)]
    balance_slack: u32,
    /// Look again and again, and show how long it may still take.
    #[arg(long)]
    watch: bool,
    /// How often, with `--watch`.
    #[arg(long, default_value = "1s", value_parser = every)]
    every: Duration,
    /// Print the answer as JSON; with `--watch` a line each time.
    #[arg(long)]
    json: bool,
}

fn every(text: &str) -> Result<Duration, String> {
    match raft_autopilot::duration::parse(text) {
        Ok(Duration::ZERO) => Err("it is not more than zero".to_owned()),
        parsed => parsed,
    }
}

fn zone_rule(text: &str) -> Result<ZoneRule, String> {
    match text {
        "two" => Ok(ZoneRule::Two),
        "spread" => Ok(ZoneRule::Spread),
        _ => match text.parse() {
            Ok(most @ 1..) => Ok(ZoneRule::MaxPerZone(most)),
            _ => Err("it is neither `two` nor `spread` nor a number above zero".to_owned()),
        },
    }
}

/// A value as JSON, in which the usual fields are looked for.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(transparent)]
struct Any(Value);

impl Any {
    fn number(&self, names: &[&str]) -> Option<u32> {
        let number = names.iter().find_map(|name| self.0.get(name))?.as_u64()?;
        Some(u32::try_from(number).unwrap_or(u32::MAX))
    }

    fn is(&self, names: &[&str]) -> bool {
        names.iter().any(|name| self.0.get(name) == Some(&Value::Bool(true)))
    }

    /// Reads a value that has one of these numbers.
    fn with_number(bytes: &[u8], names: &[&str]) -> Result<Self, String> {
        let value: Self = serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
        match value.number(names) {
            Some(_) => Ok(value),
            None => Err(format!("it has no number `{}`", names.join("` or `"))),
        }
    }
}

const REPLICATION: &[&str] = &["replication", "R"];
const LIMIT: &[&str] = &["limit", "R"];
const EXITING: &[&str] = &["exiting", "E"];

/// What of an item's value a plan depends on.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Wanted {
    replication: u32,
    zones: Option<Vec<String>>,
}

impl ItemValue for Wanted {
    fn replication(&self) -> u32 {
        self.replication
    }

    fn zones(&self) -> Option<&[String]> {
        self.zones.as_deref()
    }

    fn decode(bytes: &[u8]) -> Result<Self, String> {
        let value = Any::with_number(bytes, REPLICATION)?;
        let zones = value.0.get("zones").cloned().unwrap_or_default();
        let zones = serde_json::from_value(zones);
        let zones = zones.map_err(|_| "its `zones` is no list of names".to_owned())?;
        Ok(Self { replication: value.number(REPLICATION).unwrap_or(0), zones })
    }
}

impl MemberValue for Any {
    fn limit(&self) -> u32 {
        self.number(LIMIT).unwrap_or(0)
    }

    fn share(&self) -> Option<f64> {
        self.0.get("share")?.as_f64()
    }

    fn is_exiting(&self) -> bool {
        self.is(EXITING)
    }

    fn set_exiting(&mut self) {}

    fn decode(bytes: &[u8]) -> Result<Self, String> {
        let value = Self::with_number(bytes, LIMIT)?;
        match value.0.get("share") {
            None | Some(Value::Null | Value::Number(_)) => Ok(value),
            Some(_) => Err("its `share` is no number".to_owned()),
        }
    }
}

impl AssignmentValue for Any {
    fn decode(bytes: &[u8]) -> Result<Self, String> {
        let text = || Value::String(String::from_utf8_lossy(bytes).into_owned());
        Ok(Self(serde_json::from_slice(bytes).unwrap_or_else(|_| text())))
    }
}

/// Whatever is stored, as far as its values are JSON with the usual fields.
struct Usual;

impl Workload for Usual {
    type Item = Wanted;
    type Member = Any;
    type State = Any;

    /// What its member says `"consistent":true` of, or `consistent` as text; what says neither counts
    /// as consistent as soon as it says anything.
    fn is_consistent(&self, _: &Wanted, one: usize, all: &[Replica<'_, Any>]) -> bool {
        all[one]
            .value
            .is_some_and(|Any(value)| value.get("consistent") != Some(&Value::Bool(false)))
    }
}

/// Looks, once or again and again.
pub(super) fn run(arguments: &Arguments) -> Result<String, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| Failure::Answer(error.to_string()))?;
    runtime.block_on(look(arguments))
}

async fn look(arguments: &Arguments) -> Result<String, Failure> {
    let answer = |error: StoreError| Failure::Answer(error.to_string());
    let keys = Keys::new(arguments.root.as_str());
    let decoder = keys.clone();
    let range = KeyRange::prefix(format!("{}/", keys.root()));
    let store = arguments.connection.connect().await?;
    let mirror = Mirror::open(
        store.clone(),
        TokioRuntime,
        range.clone(),
        move |kv: &_| Entity::<Usual>::decode(&decoder, kv),
        Options::default(),
    );
    let mirror = mirror.await.map_err(answer)?;
    let rules = Rules {
        zone_rule: arguments.zone_rule,
        levels: arguments.levels.clone(),
        zones_required: arguments.zones_required,
        balance_slack: arguments.balance_slack,
    };
    let (mut pace, outside, mut silent) = (Pace::default(), Outside::default(), None);
    loop {
        let report =
            Report::of_view(keys.clone(), Arc::new(Usual), &mirror.view(), &rules, &outside);
        pace.see(TokioRuntime.now(), report.unsettled());
        let mut text = text(arguments, &report, &pace)?;
        if !arguments.watch {
            return Ok(text);
        }
        if let Some(error) = silent {
            let stale = format!("this is how it stood: the store does not answer: {error}\n");
            if arguments.json {
                eprint!("{stale}");
            } else {
                text.insert_str(0, &stale);
            }
        }
        let clear = if arguments.json { "" } else { "\x1b[2J\x1b[H" };
        if std::io::stdout().write_all(format!("{clear}{text}").as_bytes()).is_err() {
            return Ok(String::new());
        }
        TokioRuntime.sleep(arguments.every).await;
        silent = store.range(RangeRequest::new(range.clone()).limit(1).keys_only()).await.err();
        if let Some(ended) = mirror.status().ended {
            return Err(answer(ended));
        }
    }
}

fn text(arguments: &Arguments, report: &Report, pace: &Pace) -> Result<String, Failure> {
    if arguments.json {
        let json = serde_json::to_string(report);
        return json.map(|json| json + "\n").map_err(|error| Failure::Answer(error.to_string()));
    }
    let mut text = report.to_string();
    if let Some(left) = pace.left() {
        let left = humantime::format_duration(left);
        let _ = writeln!(text, "time left, as it went so far: about {left}");
    }
    Ok(text)
}

/// How fast items come to stand as they are meant to.
#[derive(Debug, Default)]
struct Pace {
    /// When most were left, and how many.
    since: Option<(Duration, usize)>,
    now: Option<(Duration, usize)>,
}

impl Pace {
    fn see(&mut self, at: Duration, unsettled: usize) {
        if self.since.is_none_or(|(_, most)| unsettled >= most) {
            self.since = Some((at, unsettled));
        }
        self.now = Some((at, unsettled));
    }

    /// How long it takes at the same pace, in whole seconds; `None`: nobody knows, or it is done.
    fn left(&self) -> Option<Duration> {
        let ((since, most), (now, unsettled)) = (self.since?, self.now?);
        let settled = most.checked_sub(unsettled).filter(|settled| *settled > 0)?;
        let small = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
        let left = now.saturating_sub(since).saturating_mul(small(unsettled)) / small(settled);
        (unsettled > 0).then(|| Duration::from_secs(left.as_secs() + 1))
    }
}
