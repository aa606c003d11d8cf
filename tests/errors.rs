//! Every error says what happened, what was changed by it, and what to do: each variant of each type, by its text.

#![allow(clippy::unwrap_used, reason = "a test may panic")]
#![allow(clippy::disallowed_methods, reason = "a test reads this crate's own files")]

use std::{collections::BTreeSet, fmt::Debug, fs, path::Path, time::Duration};

use raft_autopilot::{
    autopilot::{
        ClusterError, ConfigError, Fence, IntentKind, LogId, Refusal, Role, ServerId, VerbError,
        Verdict,
    },
    codec::CodecError,
    store::{self, LeaseId, OpenError, StoreError, machine::Restore},
};

/// What may be said of the state that an error left.
const CHANGED: &[&str] = &[
    "nothing was changed",
    "nothing was kept",
    "nothing was read",
    "nothing was written",
    "left behind: ",
    "may be in effect",
    "may have",
    "is unchanged",
    "it was done",
    "was given up",
    "is open until",
    "was written",
    "an order that was recorded goes on",
];

/// How advice begins.
const ADVICE: &[&str] = &[
    "add",
    "ask",
    "bring",
    "change",
    "choose",
    "close",
    "configure",
    "correct",
    "cut",
    "demote",
    "discard",
    "fetch",
    "give",
    "grant",
    "implement",
    "join",
    "look",
    "mend",
    "name",
    "open",
    "plan",
    "read",
    "restore",
    "send",
    "split",
    "start",
    "transfer",
    "uncordon",
    "use",
    "wait",
    "watch",
    "write",
];

/// What is missing in a text of an error.
fn missing(text: &str) -> Option<&'static str> {
    let said = CHANGED.iter().filter_map(|said| text.find(said)).min();
    let Some(said) = said else { return Some("what was changed") };
    // What happened comes first, in two words at least.
    if text[..said].split_whitespace().count() < 2 {
        return Some("what happened");
    }
    (!advises(text)).then_some("what to do")
}

/// Whether a part of the text, after the first, is advice.
fn advises(text: &str) -> bool {
    let parts = text.split([';', ':']).skip(1);
    let first =
        |part: &str| part.split([' ', ',']).find(|word| !word.is_empty()).map(str::to_owned);
    parts.filter_map(first).any(|word| ADVICE.contains(&word.as_str()))
}

/// The types of which there are samples below, each with its file.
const EXAMINED: &[(&str, &str)] = &[
    ("src/allocator/error.rs", "AllocatorError"),
    ("src/autopilot/cluster.rs", "ClusterError"),
    ("src/autopilot/config.rs", "ConfigError"),
    ("src/autopilot/handle.rs", "VerbError"),
    ("src/codec.rs", "CodecError"),
    ("src/http/durations.rs", "DurationError"),
    ("src/ids/error.rs", "IdsError"),
    ("src/ids/range.rs", "RangeError"),
    ("src/openraft/node.rs", "OpenraftError"),
    ("src/store/error.rs", "Refusal"),
    ("src/store/error.rs", "StoreError"),
    ("src/store/journal/files.rs", "OpenError"),
    ("src/store/machine/snapshot.rs", "SnapshotError"),
    ("src/store/replicated/port.rs", "LogError"),
];

/// Those that only say why, within another that says the rest.
const REASONS: &[(&str, &str)] =
    &[("src/allocator/item.rs", "KeyError"), ("src/allocator/item.rs", "NameError")];

/// All files of `src`, with their texts.
fn sources() -> Vec<(String, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let (mut folders, mut found) = (vec![root.join("src")], Vec::new());
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else {
                let name = path.strip_prefix(root).unwrap().to_str().unwrap().replace('\\', "/");
                found.push((name, fs::read_to_string(path).unwrap()));
            }
        }
    }
    found
}

#[test]
fn every_type_of_an_error_is_examined() {
    let mut found = BTreeSet::new();
    for (file, text) in sources() {
        let mut derived = false;
        for line in text.lines() {
            derived |= line.contains("thiserror::Error)]");
            let name = line.trim().split_once("enum ").or(line.trim().split_once("struct "));
            if let Some((_, name)) = name.filter(|_| derived && !line.trim().starts_with("//")) {
                let name = name.split(|c: char| !c.is_alphanumeric()).next().unwrap().to_owned();
                found.insert((file.clone(), name));
                derived = false;
            }
        }
    }
    let known = EXAMINED.iter().chain(REASONS);
    let known = known.map(|(file, name)| ((*file).to_owned(), (*name).to_owned()));
    assert_eq!(found, known.collect::<BTreeSet<_>>());
}

/// The variants that an enum has in its file, by name.
fn variants(file: &str, name: &str) -> BTreeSet<String> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(file);
    let text = fs::read_to_string(path).unwrap();
    let body = text.split_once(&format!("pub enum {name}")).unwrap().1;
    let body = body.split_once("\n}").unwrap().0;
    let names = body.lines().filter_map(|line| line.strip_prefix("    "));
    let names = names.filter(|line| line.starts_with(|c: char| c.is_ascii_uppercase()));
    names
        .map(|line| line.split(|c: char| !c.is_alphanumeric()).next().unwrap().to_owned())
        .collect()
}

/// Every variant that the file declares is among the samples.
#[track_caller]
fn all_are_here<T: Debug>(file: &str, name: &str, samples: &[T]) {
    assert!(EXAMINED.contains(&(file, name)) || name == "Refusal", "{name} is not in the list");
    let debug = samples.iter().map(|sample| format!("{sample:?}"));
    let here: BTreeSet<String> =
        debug.map(|text| text.split([' ', '(']).next().unwrap().to_owned()).collect();
    assert_eq!(here, variants(file, name), "samples of {name}, and its variants in {file}");
}

#[track_caller]
fn say_all<T: ToString>(errors: &[T]) {
    for error in errors {
        let text = error.to_string();
        assert_eq!(missing(&text), None, "{text}");
    }
}

fn id() -> ServerId {
    ServerId::from("7")
}

fn refusals() -> Vec<Refusal> {
    let (server, second) = (id(), Duration::from_secs(1));
    let planned = Fence { term: 1, leader: id(), membership: LogId::default() };
    vec![
        Refusal::NotLeading,
        Refusal::Moved { planned, found: None },
        Refusal::ChangeInFlight,
        Refusal::JointUnfinished,
        Refusal::NotJoint,
        Refusal::Empty,
        Refusal::Twice { server: id() },
        Refusal::WrongRole { server: id(), found: Role::Voter, expected: Role::Learner },
        Refusal::NoQuorum { live: 1, voters: 3 },
        Refusal::Margin { before: 1, after: 0 },
        Refusal::LeaderKeepsVote,
        Refusal::MinQuorum { left: 2, floor: 3 },
        Refusal::NotHealthy { server: id(), verdict: Verdict::Unhealthy },
        Refusal::NotStable { server: id(), healthy_for: second, needed: second * 2 },
        Refusal::NotCaughtUp { server: id(), lag: 9 },
        Refusal::Cordoned { server: id(), reason: "why".into() },
        Refusal::ReadReplica { server: id() },
        Refusal::NotMember { server: id() },
        Refusal::NotKnown { server: id() },
        Refusal::GraceRuns { server: id(), passed: second, grace: second * 2 },
        Refusal::TooFewSigns { server: id(), signs: 1 },
        Refusal::VanishedTogether { vanished: 3, members: 5 },
        Refusal::LiveVoter { server: id() },
        Refusal::RemovedId { server: id() },
        Refusal::Intended { server: id(), kind: IntentKind::Reboot },
        Refusal::NotMember { server: id() },
        Refusal::AddressInUse { server, address: "here:1".into() },
    ]
}

#[test]
fn a_refusal_says_what_stands_in_the_way_and_what_to_do() {
    let refusals = refusals();
    all_are_here("src/autopilot/refusal.rs", "Refusal", &refusals);
    for refusal in refusals {
        let text = refusal.to_string();
        assert!(advises(&text), "{text}");
        // Whoever ordered the step hears what was changed too.
        for left_behind in ["nothing was changed", "done: add 7"] {
            let left_behind = left_behind.to_owned();
            say_all(&[VerbError::Refused { refusal: refusal.clone(), left_behind }]);
        }
    }
}

fn config_error() -> ConfigError {
    let (found, expected) = ("50ms".to_owned(), "must be at least 150ms".to_owned());
    ConfigError { field: "last_contact_threshold", found, expected }
}

#[test]
fn a_verb_that_was_not_carried_out_says_all_of_it() {
    let left_behind = || "nothing of it".to_owned();
    let lost =
        |goes_on| VerbError::LostLeadership { leader: id(), left_behind: left_behind(), goes_on };
    let errors = [
        VerbError::NotLeading { leader: None },
        VerbError::NotLeading { leader: Some(id()) },
        lost(true),
        lost(false),
        VerbError::Refused { refusal: Refusal::Empty, left_behind: left_behind() },
        VerbError::Deadline { left_behind: left_behind() },
        VerbError::Conflict { found: 7 },
        VerbError::Invalid(config_error()),
        VerbError::NotProven { server: id(), address: "here:1".into(), answer: "nobody".into() },
        VerbError::NotRecorded("why".into()),
        VerbError::PerhapsRecorded("why".into()),
        VerbError::Observing,
        VerbError::Stopped,
    ];
    all_are_here("src/autopilot/handle.rs", "VerbError", &errors);
    say_all(&errors);
}

type Spoil = fn(&mut raft_autopilot::autopilot::Config);

#[test]
fn a_configuration_that_is_refused_says_all_of_it() {
    say_all(&[config_error()]);
    let heartbeat = Duration::from_millis(50);
    let config = raft_autopilot::autopilot::Config::for_heartbeat(heartbeat);
    let spoils: [Spoil; 5] = [
        |config| config.last_contact_threshold = Duration::ZERO,
        |config| config.last_contact_recovery = Duration::MAX,
        |config| config.stall_threshold = Duration::ZERO,
        |config| config.trailing_logs_recovery = u64::MAX,
        |config| config.dead_server_last_contact_threshold = Duration::ZERO,
    ];
    for spoil in spoils {
        let mut config = config.clone();
        spoil(&mut config);
        let error = config.validate(heartbeat).unwrap_err();
        assert!(error.expected.starts_with("must be "), "{}", error.expected);
        say_all(&[error]);
    }
}

#[test]
fn a_host_that_does_not_do_it_says_all_of_it() {
    let why = || std::io::Error::other("why");
    let errors = [
        ClusterError::Moved("why".into()),
        ClusterError::Refused(why()),
        ClusterError::Unknown(why()),
    ];
    all_are_here("src/autopilot/cluster.rs", "ClusterError", &errors);
    say_all(&errors);
}

#[test]
fn a_frame_that_cannot_be_read_or_written_says_all_of_it() {
    let decode = bincode_error();
    let errors = [
        CodecError::Version { found: 9 },
        CodecError::TooLong { found: 9, limit: 8 },
        CodecError::Truncated { found: 8, expected: 9 },
        CodecError::Trailing { found: 1, expected: "u64" },
        decode,
        raft_autopilot::codec::encode(&Endless).unwrap_err(),
    ];
    all_are_here("src/codec.rs", "CodecError", &errors);
    say_all(&errors);
}

/// A payload that is no text.
fn bincode_error() -> CodecError {
    raft_autopilot::codec::decode_payload::<String>(&[1, 0xff]).unwrap_err()
}

/// A sequence that does not know its length.
struct Endless;

impl serde::Serialize for Endless {
    fn serialize<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        serde::ser::SerializeSeq::end(to.serialize_seq(None)?)
    }
}

#[test]
fn a_store_that_does_not_do_it_says_all_of_it() {
    let lease = LeaseId(7);
    let refusals = [
        store::Refusal::Compacted { compacted: 7 },
        store::Refusal::Ahead { requested: 9, current: 7 },
        store::Refusal::LeaseNotFound(lease),
        store::Refusal::LeaseExists(lease),
        store::Refusal::DuplicateKey("key".into()),
        store::Refusal::TooManyOperations { found: 9, limit: 8 },
        store::Refusal::TooLarge { found: 9, limit: 8 },
        store::Refusal::Invalid("the key is empty".into()),
        store::Refusal::Denied("why".into()),
        store::Refusal::Closed("why".into()),
    ];
    all_are_here("src/store/error.rs", "Refusal", &refusals);
    say_all(&refusals);
    let why = || "the leader is away".to_owned();
    let refused = StoreError::Refused(refusals[0].clone());
    let errors = [StoreError::Retry(why()), StoreError::Unknown(why()), refused];
    all_are_here("src/store/error.rs", "StoreError", &errors);
    say_all(&errors);
}

#[test]
fn a_directory_or_a_snapshot_that_is_no_use_says_all_of_it() {
    let path = || "/var/db/log-7".into();
    let errors = [
        OpenError::Io { path: path(), source: std::io::Error::other("why not") },
        OpenError::InUse(path()),
        OpenError::Damaged { path: path(), offset: 7, what: "the checksum differs".into() },
        OpenError::Limit { found: 9, limit: 8 },
    ];
    all_are_here("src/store/journal/files.rs", "OpenError", &errors);
    say_all(&errors);
    say_all(&[Restore::new().finish().unwrap_err()]);
}

#[test]
fn a_log_that_does_not_do_it_says_all_of_it() {
    use raft_autopilot::store::replicated::LogError;
    let why = || "the leader is away".to_owned();
    let errors = [
        LogError::NotLeading,
        LogError::Retry(why()),
        LogError::Unknown(why()),
        LogError::Forgotten,
        LogError::Closed(why()),
    ];
    all_are_here("src/store/replicated/port.rs", "LogError", &errors);
    say_all(&errors);
}

#[cfg(feature = "ids")]
#[test]
fn ids_that_are_not_to_be_had_say_all_of_it() {
    use raft_autopilot::ids::{IdRange, IdsError, RangeError};
    let (found, expected) = (IdRange::default(), IdRange::new(1, 9).unwrap());
    let ranges = [
        RangeError::Zero,
        RangeError::Empty { first: 9, last: 8 },
        RangeError::Mask { mask: 1, range: expected },
    ];
    all_are_here("src/ids/range.rs", "RangeError", &ranges);
    say_all(&ranges);
    let unknown = || StoreError::Unknown("the leader is away".to_owned());
    let errors = [
        IdsError::Exhausted { used: 9, total: 9 },
        IdsError::Unassigned("key".into()),
        IdsError::KeyTooLong { found: 9, limit: 8 },
        IdsError::HashCollision { key: "key".into(), other: "other".into() },
        IdsError::Mismatch { found, expected },
        IdsError::Foreign("its value is not a mapping".into()),
        IdsError::Invalid { field: "ttl", found: "0ns".into(), expected: "more than 0" },
        IdsError::NoCache,
        IdsError::Range(ranges[0]),
        IdsError::Unavailable(unknown()),
        IdsError::Store(unknown()),
        IdsError::Closed,
    ];
    all_are_here("src/ids/error.rs", "IdsError", &errors);
    say_all(&errors);
}

#[cfg(feature = "allocator")]
#[test]
fn a_member_that_does_not_do_it_says_all_of_it() {
    use raft_autopilot::allocator::{AllocatorError, MemberKey, item::NameError};
    let member = || MemberKey::new("zone", "member");
    let errors = [
        AllocatorError::Name(NameError::Empty),
        AllocatorError::Value("why".into()),
        AllocatorError::Announced(member()),
        AllocatorError::NotHeld("item".into()),
        AllocatorError::LeaseLost,
        AllocatorError::Removed(member()),
        AllocatorError::Ended,
        AllocatorError::Store(StoreError::Unknown("the leader is away".to_owned())),
    ];
    all_are_here("src/allocator/error.rs", "AllocatorError", &errors);
    say_all(&errors);
}

#[cfg(feature = "openraft")]
#[test]
fn an_openraft_that_does_not_do_it_says_all_of_it() {
    use raft_autopilot::openraft::OpenraftError;
    let errors = [
        OpenraftError::Refused("why".into()),
        OpenraftError::Failed("why".into()),
        OpenraftError::NoNodeId(id()),
        OpenraftError::NoNode(id()),
        OpenraftError::NoRecords,
        OpenraftError::NoOutcome,
        OpenraftError::Unfit(id()),
        OpenraftError::NotTransferred(id()),
    ];
    all_are_here("src/openraft/node.rs", "OpenraftError", &errors);
    say_all(&errors);
}

#[cfg(feature = "http")]
#[test]
fn a_text_that_is_no_duration_says_all_of_it() {
    use raft_autopilot::http::durations::{DurationError, parse};
    let errors: Vec<DurationError> =
        ["fast", "12", "-1s", "9999999h"].map(|text| parse(text).unwrap_err()).into();
    all_are_here("src/http/durations.rs", "DurationError", &errors);
    say_all(&errors);
}

#[test]
fn a_text_in_a_file_that_is_no_duration_says_all_of_it() {
    say_all(&[raft_autopilot::duration::parse("fast").unwrap_err()]);
}

#[test]
fn a_text_that_lacks_a_part_is_found() {
    for (text, lacks) in [
        ("it failed", Some("what was changed")),
        ("it failed: try to live with it", Some("what was changed")),
        ("it failed; nothing was changed", Some("what to do")),
        ("it failed; nothing was changed: despair", Some("what to do")),
        ("nothing was changed: wait", Some("what happened")),
        ("it failed; nothing was changed: wait", None),
    ] {
        assert_eq!(missing(text), lacks, "{text}");
    }
}

#[test]
fn what_may_fail_is_documented_by_more_than_a_link() {
    let mut sections = 0;
    for (file, text) in sources() {
        let lines = text.lines().map(str::trim);
        let pairs = lines.clone().zip(lines.skip(1));
        for (_, first) in pairs.filter(|(line, _)| *line == "/// # Errors") {
            sections += 1;
            let bare = first.starts_with("/// See [") && first.ends_with("].");
            assert!(!bare, "{file}: {first}");
        }
    }
    assert!(sections > 20, "{sections} sections were found");
}
