//! Requests that nobody would send in good faith, and durations as Go has them.

use std::{cell::Cell, time::Duration};

use axum::{
    body::Body,
    http::{HeaderName, HeaderValue, Request},
};
use proptest::{
    collection::vec,
    prelude::{Just, ProptestConfig, Strategy, any, prop_oneof, proptest},
    sample::select,
};
use raft_autopilot::{
    autopilot::Config,
    http::durations::{self, DurationError},
};

use crate::fixture::{BASE, TOKEN, World, from, healthy};

const FIELDS: &[&str] = &[
    "CleanupDeadServers",
    "LastContactThreshold",
    "MaxTrailingLogs",
    "MinQuorum",
    "ServerStabilizationTime",
    "RedundancyZoneTag",
    "UpgradeVersionTag",
    "ModifyIndex",
    "TrailingLogsRecovery",
    "DeadServerLastContactThreshold",
    "LeftServerGrace",
    "Nonsense",
];

const VALUES: &[&str] = &[
    "null",
    "true",
    "false",
    "0",
    "1",
    "-1",
    "3",
    "250",
    "1e400",
    "1e8",
    "18446744073709551615",
    "18446744073709551616",
    "9223372036854775808",
    "\"\"",
    "\"0\"",
    "\"200ms\"",
    "\"10s\"",
    "\"1h1m1.000000001s\"",
    "\"-1s\"",
    "\"2562047h47m16.854775808s\"",
    "\"\\u0000\"",
    "[]",
    "{}",
    "[[[]]]",
    "\"\\ud800\"",
    "NaN",
];

/// Bodies that are to be taken.
const SOUND: &[&str] = &[
    "{}",
    "{\"MinQuorum\": 3, \"ModifyIndex\": 7}",
    "{\"LastContactThreshold\": \"1m\", \"JoinGrace\": null}",
    "{\"CleanupDeadServers\": false, \"RedundancyZoneTag\": \"zone\"}",
];

fn body() -> impl Strategy<Value = Vec<u8>> {
    let field = (select(FIELDS), select(VALUES)).prop_map(|(f, v)| format!("\"{f}\": {v}"));
    let object = vec(field, 0..4).prop_map(|fields| format!("{{{}}}", fields.join(", ")));
    prop_oneof![
        4 => select(SOUND).prop_map(|body| body.as_bytes().to_vec()),
        4 => object.clone().prop_map(String::into_bytes),
        1 => vec(any::<u8>(), 0..64),
        1 => (object, any::<usize>(), any::<u8>()).prop_map(|(text, at, byte)| {
            let mut bytes = text.into_bytes();
            let at = at % bytes.len();
            bytes[at] = byte;
            bytes
        }),
        1 => (1..300_usize).prop_map(|deep| "[".repeat(deep).into_bytes()),
    ]
}

fn query() -> impl Strategy<Value = String> {
    prop_oneof![
        3 => Just(String::new()),
        1 => "\\?(cas|stale|dc|%63as|%FF)(=[0-9a-z%+-]{0,8})?(&cas=[0-9]{1,25})?",
        1 => (100..110_u64).prop_map(|cas| format!("?cas={cas}")),
    ]
}

fn headers() -> impl Strategy<Value = Vec<(HeaderName, HeaderValue)>> {
    let name = select(vec!["x-consul-token", "authorization", "content-type", "content-length"]);
    let value = prop_oneof![
        Just(TOKEN.as_bytes().to_vec()),
        Just(format!("Bearer {TOKEN}").into_bytes()),
        vec(32..=255_u8, 0..20),
    ];
    vec((name, value), 0..3).prop_map(|headers| {
        let parse = |(name, value): (&str, Vec<u8>)| {
            Some((HeaderName::try_from(name).ok()?, HeaderValue::from_bytes(&value).ok()?))
        };
        headers.into_iter().filter_map(parse).collect()
    })
}

#[test]
fn no_request_brings_it_down_or_changes_half_of_anything() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .start_paused(true)
        .build()
        .unwrap();
    let world = runtime.block_on(World::new(healthy()));
    let method = prop_oneof![4 => Just("PUT"), 1 => select(vec!["GET", "POST", "HEAD", "DELETE"])];
    let path = prop_oneof![8 => Just("/configuration"), 1 => Just("/state"), 1 => Just("/health")];
    let config = ProptestConfig::with_cases(4096);
    let (all_written, all_refused) = (Cell::new(0), Cell::new(0));
    proptest!(config, |(method in method, path in path, query in query(), body in body(),
                        headers in headers(), trusted in any::<bool>())| {
        let uri = format!("{BASE}{path}{query}");
        let mut request = Request::builder().method(method).uri(uri);
        for (name, value) in headers {
            request = request.header(name, value);
        }
        if trusted {
            request = request.header("x-consul-token", TOKEN);
        }
        // What is no request at all does not reach the router.
        if let Ok(request) = request.body(Body::from(body)) {
            let request = from("127.0.0.1:1", request);
            let before = world.handle.view();
            let answer = runtime.block_on(world.send(request));
            assert!(answer.status.as_u16() < 500, "{answer:?}");
            // A round later whatever was written is seen.
            runtime.block_on(world.edit(|_| ()));
            let after = world.handle.view();
            let written = method == "PUT" && answer.status == 200 && answer.text == "true";
            assert_eq!(written, after.modify_index > before.modify_index, "{answer:?}");
            if !written {
                assert_eq!(&before.config, &after.config);
            }
            let count = if written { &all_written } else { &all_refused };
            count.set(count.get() + 1);
            assert_eq!(after.config.validate(world.handle.heartbeat()), Ok(()));
        }
    });
    // The requests are neither all good nor all bad.
    assert!(all_written.get() > 100 && all_refused.get() > 100, "{all_written:?} {all_refused:?}");
}

proptest! {
    #[test]
    fn a_duration_survives_the_wire(nanos in 0..=i64::MAX.unsigned_abs(), zeros in 0..19_u32) {
        // Round numbers too, which leave out parts.
        let scale = 10_u64.pow(zeros);
        let duration = Duration::from_nanos(nanos / scale * scale);
        assert_eq!(durations::parse(&durations::print(duration)), Ok(duration));
    }

    #[test]
    fn small_durations_survive_the_wire(nanos in 0..10_000_000_000_u64) {
        let duration = Duration::from_nanos(nanos);
        assert_eq!(durations::parse(&durations::print(duration)), Ok(duration));
    }

    #[test]
    fn no_text_brings_the_reader_of_durations_down(
        text in "([-+]?[0-9]{0,40}\\.?[0-9]{0,40}(ns|us|µs|μs|ms|s|m|h|x|é|)){0,4}",
    ) {
        if let Ok(duration) = durations::parse(&text) {
            assert!(duration <= durations::MAX);
            assert_eq!(durations::parse(&durations::print(duration)), Ok(duration));
        }
    }
}

#[test]
fn durations_are_written_as_go_writes_them() {
    for (nanos, text) in [
        (0, "0s"),
        (1, "1ns"),
        (1_100, "1.1µs"),
        (2_200_000, "2.2ms"),
        (3_300_000_000, "3.3s"),
        (200_000_000, "200ms"),
        (10_000_000_000, "10s"),
        (60_000_000_000, "1m0s"),
        (245_000_000_000, "4m5s"),
        (245_001_000_000, "4m5.001s"),
        (18_367_001_000_000, "5h6m7.001s"),
        (3_600_000_000_000, "1h0m0s"),
        (86_400_000_000_000, "24h0m0s"),
        (480_000_000_001, "8m0.000000001s"),
        (i64::MAX.unsigned_abs(), "2562047h47m16.854775807s"),
        (u64::MAX, "2562047h47m16.854775807s"),
    ] {
        assert_eq!(durations::print(Duration::from_nanos(nanos)), text);
    }
}

#[test]
fn durations_are_read_as_go_reads_them() {
    for (text, nanos) in [
        ("0", 0),
        ("-0", 0),
        ("+0", 0),
        ("5s", 5_000_000_000),
        ("+5s", 5_000_000_000),
        ("-0s", 0),
        ("5.0s", 5_000_000_000),
        ("5.s", 5_000_000_000),
        (".5s", 500_000_000),
        ("1.0000000000000000000000000001ns", 1),
        ("10ns", 10),
        ("11us", 11_000),
        ("12µs", 12_000),
        ("12\u{3bc}s", 12_000),
        ("13ms", 13_000_000),
        ("3h30m", 12_600_000_000_000),
        ("10.5s4m", 250_500_000_000),
        ("2m3.4s", 123_400_000_000),
        ("1h2m3s4ms5us6ns", 3_723_004_005_006),
        ("0.3333333333333333333h", 1_199_999_999_999),
        ("0.100000000000000000000h", 360_000_000_000),
        ("9223372036854775807ns", i64::MAX.unsigned_abs()),
        ("0000000000000000000000001s", 1_000_000_000),
    ] {
        assert_eq!(durations::parse(text), Ok(Duration::from_nanos(nanos)), "{text}");
    }
    for text in ["", "-", "+", "s", ".", ".s", "-.", "+.s", "1.1.1s", "1x", "1 s", "--1s", "1S"] {
        let error = durations::parse(text).unwrap_err();
        assert_eq!(error, DurationError::Syntax(text.to_owned()), "{text}");
    }
    let error = |text: &str| durations::parse(text).unwrap_err();
    assert_eq!(error("3000000h"), DurationError::TooLong("3000000h".to_owned()));
    assert_eq!(
        error("9223372036854775808ns"),
        DurationError::TooLong("9223372036854775808ns".to_owned())
    );
    assert_eq!(error("-1ns"), DurationError::Negative("-1ns".to_owned()));
    assert_eq!(error("3"), DurationError::NoUnit("3".to_owned()));
    assert_eq!(error("1s3"), DurationError::NoUnit("1s3".to_owned()));
}

#[test]
fn a_default_configuration_is_never_too_long_to_write() {
    let config = Config::for_heartbeat(Duration::MAX);
    assert_eq!(durations::print(config.last_contact_threshold), durations::print(durations::MAX));
}
