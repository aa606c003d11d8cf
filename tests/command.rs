//! The operator's command, run as a program: cases from files and standard input, bad input, and a running node.

#![allow(clippy::unwrap_used, reason = "a test may panic")]
#![allow(clippy::disallowed_methods, reason = "a test speaks to tokio and to the wall clock")]

use std::{
    io::Write as _,
    process::{Command, Output, Stdio},
    time::Duration,
};

use raft_autopilot::{
    autopilot::{Config, Promoter, Role, Server},
    promoters::{Stable, Upgrade},
    rehearse::{Case, Rehearsal, World},
};
use serde_json::{Value, json};

#[path = "http/fixture.rs"]
#[allow(dead_code, reason = "shared with the tests of the router")]
mod fixture;

fn command(arguments: &[&str], input: impl AsRef<[u8]>) -> Output {
    let mut child = Command::new(env!("CARGO_BIN_EXE_raft-autopilot"))
        .args(arguments)
        .env_remove("RAFT_AUTOPILOT_ADDRESS")
        .env_remove("RAFT_AUTOPILOT_TOKEN")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(input.as_ref()).unwrap();
    child.wait_with_output().unwrap()
}

fn out(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn error(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

/// Three old voters and three new servers, saved by a leader.
fn migration() -> Value {
    let promoter = Upgrade::new(Stable::with_target(3));
    let mut world = World::new(Config::default());
    for (id, version, role) in [
        ("o1", "1.0", Role::Voter),
        ("o2", "1.0", Role::Voter),
        ("o3", "1.0", Role::Voter),
        ("n1", "2.0", Role::Learner),
        ("n2", "2.0", Role::Learner),
        ("n3", "2.0", Role::Learner),
    ] {
        let server = Server { version: version.to_owned(), ..Server::new(id, format!("{id}:1")) };
        world.insert(server, role);
    }
    let state = world.assess();
    serde_json::to_value(Case::of(world.config.clone(), promoter.policy(), &state)).unwrap()
}

#[test]
fn a_case_is_rehearsed_from_standard_input_and_from_a_file() {
    let text = migration().to_string();
    let output = command(&["plan", "-"], &text);
    assert!(output.status.success(), "{}", error(&output));
    let said = out(&output);
    let expected = [
        "healthy; o1 leads; 3 of 6 vote; 1 may fail",
        "o1  leads       may fail  leads, healthy for 0s: the promoter wishes no other leader",
        "n1  not-stable  may fail  does not vote; is not promoted: 0s of 10s stable",
        " after 10s        promote n1, n2, n3 and demote o2, o3  then vote: n1 n2 n3 o1*",
        " after 10s 100ms  transfer leadership to n1             then vote: n1* n2 n3 o1",
        " after 10s 200ms  demote o1                             then vote: n1* n2 n3",
        "end: converged",
        "warning: upgrade (await-new-voters): 0 of 3 voters could run 2.0.0",
    ];
    for line in expected {
        assert!(said.lines().any(|found| found == line), "{line}\n{said}");
    }
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), &text).unwrap();
    let again = command(&["plan", file.path().to_str().unwrap(), "--horizon", "1h"], "");
    assert_eq!(out(&again), said);
    let json = command(&["plan", "-", "--json"], &text);
    let rehearsal: Rehearsal = serde_json::from_str(&out(&json)).unwrap();
    assert_eq!(rehearsal.steps.len(), 3);
}

/// A case that is refused, with the words that say why.
#[track_caller]
fn refused(case: &str, words: &[&str]) {
    let output = command(&["plan", "-"], case);
    let said = error(&output);
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(out(&output).is_empty());
    for word in words {
        assert!(said.contains(word), "{word}: {said}");
    }
}

#[test]
fn bad_input_is_named_with_file_place_field_and_what_was_expected() {
    refused("{", &["standard input: line 1 column 1", "EOF"]);
    refused("{} {}", &["standard input", "missing field `observation`"]);
    let with = |path: &str, value: Value| {
        let mut case = migration();
        *case.pointer_mut(path).unwrap() = value;
        format!("{case:#}")
    };
    refused(
        &with("/observation/servers/1/contact", json!("soon")),
        &["line ", "`observation.servers[1].contact`", "`soon`", "write text like `200ms`"],
    );
    refused(
        &with("/observation/servers/1/role", json!("king")),
        &["`observation.servers[1].role`", "`king`", "expected one of `voter`, `learner`"],
    );
    refused(
        &with("/promoter", json!({"zones": 5})),
        &["field `promoter.zones`: invalid type: integer `5`, expected an object"],
    );
    let text = format!("{:#}", migration());
    let cut = text.find("\"role\"").unwrap();
    refused(&text[..cut], &["field `history.servers[0]`: EOF"]);
    refused(
        &with("/observation/leader", json!("nobody")),
        &["`observation.leader`", "`nobody`", "expected the id of one of"],
    );
    refused(
        &with("/observation/servers/1/role", json!("incoming")),
        &["`observation.servers[1].role`", "one half", "expected `voter`"],
    );
    refused(
        &with("/observation/servers/1/server/id", json!("o1")),
        &["`observation.servers[", "].server.id`", "`o1` again"],
    );
    refused(
        &with("/history/servers/1/server/id", json!("a")),
        &["`history.servers[1].server.id`", "`a` after `n1`", "expected each id once, in order"],
    );
    refused(
        &with("/history/at", json!("9h")),
        &["`history.at`", "found 9h", "expected at most `observation.at`, 1h"],
    );
    refused(
        &with("/observation/servers/1/server/id", json!("")),
        &["`observation.servers[1].server.id`", "an empty id", "expected the name of a server"],
    );
    refused(
        &with("/promoter", json!({"zones": {"target": 0}})),
        &["`promoter`", "a `target` of 0 voters", "expected 1 or more"],
    );
    refused(&with("/promoter", Value::Null), &["`promoter`", "{\"stable\": {}}"]);
    refused(&with("/promoter", json!({"dictator": {}})), &["`promoter`", "dictator", "expected"]);
    refused(
        &with("/config/stall_threshold", json!("1ms")),
        &["`config.stall_threshold`", "1ms", "must be at least 200ms"],
    );
    let mut case = migration();
    case["observation"]["servers"][0]["contct"] = json!("1s");
    refused(&case.to_string(), &["`observation.servers[0].contct`", "not known"]);
}

#[test]
fn bad_input_is_named_with_its_place_whether_syntax_type_name_or_meaning() {
    let case = r#"{ "promoter": {"stable": {}},
  "config": { "min_quorum": 3,
    "stall_threshold":   "1ms" },
  "observation": {
    "at": "1h", "local": "a", "leader": "b",
    "membership": {"log_id": {"term": 3, "index": 90}, "committed": true},
    "last_log": {"term": 3, "index": 1000},
    "servers": [ {"server": {"id": "a"}, "role": "voter", "extra": 0} ]
  }
}"#;
    refused(case, &["standard input: line 8 column 68: field `observation.servers[0].extra`: not"]);
    let case = case.replace(", \"extra\": 0", "");
    refused(
        &case,
        &["standard input: line 3 column 26: field `config.stall_threshold`: found 1ms"],
    );
    let case = case.replace("1ms", "10s");
    refused(&case, &["standard input: line 5 column 41: field `observation.leader`: found `b`"]);
    let case = case.replace("\"promoter\": {\"stable\": {}},", "");
    let case = case.replace("\"leader\": \"b\"", "\"leader\": \"a\"");
    refused(&case, &["standard input: line 1 column 1: field `promoter`: not set"]);
    let missing = command(&["plan", "no/such/file.json"], "");
    assert_eq!(missing.status.code(), Some(2));
    assert!(error(&missing).contains("no/such/file.json"), "{}", error(&missing));
    assert_eq!(command(&["plan", "-", "--horizon", "soon"], "").status.code(), Some(2));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_running_node_explains_and_saves_what_can_be_replayed() {
    let world = fixture::World::new(fixture::healthy()).await;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    let app = world.app.clone();
    let token = ["--token", fixture::TOKEN];
    let server = tokio::spawn(async move { axum::serve(listener, app).await });
    let ask = |arguments: &[&str], input: String| {
        let arguments: Vec<String> = arguments.iter().map(|&a| a.to_owned()).collect();
        tokio::task::spawn_blocking(move || {
            let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
            command(&arguments, &input)
        })
    };
    let all = ask(&[&["explain", "--address", &address][..], &token].concat(), String::new());
    let all = all.await.unwrap();
    assert!(out(&all).starts_with("healthy; a leads; 3 of 4 vote; 1 may fail\n"), "{all:?}");
    assert!(out(&all).contains("d  not-stable  may fail"), "{all:?}");
    let environment =
        [("RAFT_AUTOPILOT_ADDRESS", address.clone()), ("RAFT_AUTOPILOT_TOKEN", token[1].into())];
    let told = tokio::task::spawn_blocking(move || {
        let mut command = Command::new(env!("CARGO_BIN_EXE_raft-autopilot"));
        command.arg("explain").envs(environment).output().unwrap()
    });
    assert!(out(&told.await.unwrap()).starts_with("healthy; a leads; 3 of 4 vote"));
    let one = ask(&[&["explain", "d", "--address", &address][..], &token].concat(), String::new());
    assert!(out(&one.await.unwrap()).starts_with("d [not-stable]: does not vote"));
    let none =
        ask(&[&["explain", "x/y", "--address", &address][..], &token].concat(), String::new());
    let none = none.await.unwrap();
    assert_eq!(none.status.code(), Some(1));
    assert!(error(&none).contains("no server has the id x/y"), "{none:?}");
    let denied = ask(&["explain", "--address", &address], String::new()).await.unwrap();
    assert!(error(&denied).contains("a token is needed"), "{denied:?}");

    let case = world.get("/case").await;
    let plan = ask(&["plan", "-"], case.text).await.unwrap();
    assert!(out(&plan).contains("promote d"), "{plan:?}");
    server.abort();
    tokio::time::sleep(Duration::from_millis(50)).await;
    let gone = ask(&["explain", "--address", &address], String::new()).await.unwrap();
    assert_eq!(gone.status.code(), Some(1));
    let bad = ask(&["explain", "--address", "https://a:1"], String::new()).await.unwrap();
    assert_eq!(bad.status.code(), Some(2));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_running_node_shows_votes_and_work_side_by_side() {
    let work = |server: &str, standing: Value, why: &str| {
        let shown = json!({"Items": 7, "Limit": 9, "Primaries": 3, "Standing": standing,
            "Why": why, "Leaving": false});
        (server.into(), shown)
    };
    let settings = fixture::settings().with_work(move |servers| {
        assert_eq!(servers.len(), 4);
        let cluster = json!({"Items": 9, "Replicas": 18, "Doing": {"changing": 301},
            "Moving": ["r1 from a to b (being changed): a is gone"], "Lacking": [],
            "Reasons": {"a is gone": 300, "it lacks replicas": 1},
            "Hold": "two look bad at once", "Nameless": ["server e: its zone has a #"],
            "Astray": ["server d votes elsewhere"]});
        let servers = [work("a", json!("full"), ""), work("d", json!({"shed": 2}), "it is sick")];
        Some((cluster, servers.into_iter().collect()))
    });
    let mut seen = fixture::healthy();
    seen.discovery = None;
    for server in &mut seen.servers {
        server.discovery = None;
    }
    let world = fixture::World::with(seen, settings).await;
    world.handle.pause("the disks are counted").await.unwrap();
    world.edit(|_| ()).await;
    let state = world.get("/state").await;
    let state: Value = serde_json::from_str(&state.text).unwrap();
    assert_eq!(state["Servers"]["d"]["Work"]["Items"], 7);
    assert!(state["Servers"]["b"].get("Work").is_none(), "nothing is told of it");
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    let app = world.app.clone();
    tokio::spawn(async move { axum::serve(listener, app).await });
    let arguments = ["state", "--address", &address, "--token", fixture::TOKEN].map(str::to_owned);
    let asked = tokio::task::spawn_blocking(move || {
        command(&arguments.iter().map(String::as_str).collect::<Vec<_>>(), "")
    });
    let shown = out(&asked.await.unwrap());
    assert!(
        shown.starts_with("a leads in term 3; 3 vote, 1 more may fail; all healthy\n"),
        "{shown}"
    );
    assert!(shown.contains("7 of 9 items, primary of 3  sheds 2: it is sick\n"), "{shown}");
    assert!(shown.contains("9 items, 18 replicas, 301 changing\n"), "{shown}");
    assert!(shown.contains("moving: 300 more items\n"), "{shown}");
    assert!(shown.contains("moving: 300 in all: a is gone\n"), "{shown}");
    assert!(shown.contains("no member: server e: its zone has a #\n"), "{shown}");
    assert!(shown.contains("zones differ: server d votes elsewhere\n"), "{shown}");
    assert!(shown.contains("cannot see: "), "{shown}");
    assert!(shown.contains("nothing is done: paused: the disks are counted"), "{shown}");
    assert!(shown.contains("moving: r1 from a to b (being changed): a is gone\n"), "{shown}");
    assert!(shown.contains("health holds still: two look bad at once\n"), "{shown}");
}

#[test]
fn items_are_placed_from_a_case() {
    let case = r#"{"members":[{"zone":"a","id":"m1","limit":10,"exiting":false}],
        "items":[{"id":"i1","replication":2}],
        "assignments":[{"item":"i1","zone":"a","member":"m1","slot":0}]}"#;
    let found = command(&["place", "-"], case);
    assert!(found.status.success(), "{}", error(&found));
    assert!(out(&found).contains("placed: 1, unplaced: 1"), "{}", out(&found));
    let found = command(&["place", "--json", "-"], case);
    let answer: Value = serde_json::from_str(&out(&found)).unwrap();
    assert_eq!(answer["summary"]["unchanged"], 1);
    assert_eq!(
        answer["desired"],
        json!([{"item": "i1", "zone": "a", "member": "m1", "primary": true}])
    );
    assert_eq!(answer["unplaced"][0]["item"], "i1");
}

/// A case to place that is refused in these words.
#[track_caller]
fn misplaced(case: impl AsRef<[u8]>, words: &str) {
    let found = command(&["place", "-"], case);
    assert_eq!(found.status.code(), Some(2), "{}", out(&found));
    assert!(out(&found).is_empty());
    assert_eq!(error(&found), format!("error: standard input: line 1 {words}\n"));
}

#[test]
fn a_bad_case_to_place_is_said_with_its_place() {
    let whole = "a whole number from 0 to 4294967295";
    misplaced("[]", "column 2: invalid type: list, expected an object");
    misplaced("7", "column 1: invalid type: integer `7`, expected an object");
    misplaced(
        r#"{"members":{}}"#,
        "column 11: field `members`: invalid type: object, expected a list",
    );
    misplaced(
        r#"{"members":[{"zone":"a","id":"m","limit":-1}],"items":[]}"#,
        "column 43: field `members[0].limit`: invalid value: integer `-1`, expected a whole number, \
         0 or more",
    );
    misplaced(
        r#"{"members":[],"items":[{"id":"i","replication":0.5}]}"#,
        &format!(
            "column 50: field `items[0].replication`: invalid type: floating point `0.5`, expected {whole}"
        ),
    );
    misplaced(
        r#"{"members":[],"items":[],"zone":"two"}"#,
        "column 33: field `zone`: not known; expected one of those in docs/items.md",
    );
}

#[test]
fn of_a_bad_rule_or_standing_all_the_forms_are_said() {
    let forms = r#""two", "spread" or {"max_per_zone": 2}"#;
    let rule = |found: &str, words: &str| {
        misplaced(format!(r#"{{"members":[],"items":[],"zone_rule":{found}}}"#), words);
    };
    let field = "field `zone_rule`";
    rule("3", &format!("column 38: {field}: invalid type: integer `3`, expected {forms}"));
    rule("null", &format!("column 41: {field}: invalid type: null, expected {forms}"));
    rule(
        r#""three""#,
        &format!("column 44: {field}: invalid value: string \"three\", expected {forms}"),
    );
    rule("{}", &format!("column 39: {field}: invalid value: an empty object, expected {forms}"));
    rule(
        r#"{"max_per_zone":"x"}"#,
        "column 56: field `zone_rule.max_per_zone`: invalid type: string \"x\", expected a whole number \
         from 0 to 4294967295",
    );
    let forms = r#""full", "no_new_primaries", "no_primaries", "nothing_new", {"shed": 2}, {"shed_only": 2} or "gone""#;
    let standing = |found: &str, words: &str| {
        let case = r#"{"members":[{"zone":"a","id":"m","limit":1,"standing":"#;
        let words = format!("{words}, expected {forms}");
        misplaced(format!(r#"{case}{found}}}],"items":[]}}"#), &words);
    };
    let field = "field `members[0].standing`";
    standing("7", &format!("column 55: {field}: invalid type: integer `7`"));
    standing("[]", &format!("column 56: {field}: invalid type: list"));
    standing(r#""shed""#, &format!("column 60: {field}: invalid value: string \"shed\""));
    standing(r#"{"full":1}"#, &format!("column 61: {field}: invalid value: `full` with a number"));
    let two = format!("column 75: {field}: invalid value: an object of several fields");
    standing(r#"{"shed":1,"shed_only":2}"#, &two);
}

#[test]
fn a_case_to_place_that_is_no_utf8_is_said_with_its_place() {
    let bytes = |name: &[u8]| {
        [br#"{"members":[],"items":[{"id":""#, name, br#"","replication":1}]}"#].concat()
    };
    misplaced(
        bytes(b"a\xff"),
        "column 32: field `items[0].id`: found the byte 0xff, expected UTF-8",
    );
    misplaced(b"\xfe", "column 1: found the byte 0xfe, expected UTF-8");
}
