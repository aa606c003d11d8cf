//! Holds the architecture: what each file may name, import and define, and that each rule can fail.
//!
//! The rules read text, so they can be fooled; they guard habit, not malice.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

#[path = "house/rules.rs"]
mod rules;
#[path = "house/text.rs"]
mod text;

use text::{Fault, File, Tree};

/// Makes each rule a test on this very tree, and lists them all for the planted faults.
macro_rules! rules {
    ($($rule:ident),+ $(,)?) => {
        $(#[test]
        fn $rule() {
            hold(rules::$rule);
        })+

        const RULES: &[(&str, Rule)] = &[$((stringify!($rule), rules::$rule)),+];
    };
}

type Rule = fn(&Tree) -> Vec<Fault>;

rules! {
    pure_files_name_no_clock_no_chance_and_no_io,
    faces_declare_and_define_nothing,
    every_file_opens_with_a_sentence,
    a_file_has_at_most_600_lines,
    rooms_import_only_what_lies_below_them,
    files_of_a_wing_import_only_from_their_floor_and_below,
    files_of_a_wing_import_in_no_circle,
    nobody_imports_through_the_face,
    a_dependency_stays_in_its_room,
    the_readme_runs_and_tests_with_one_command_each,
    the_readme_embeds_in_25_lines,
    every_page_is_linked_or_compiled_in,
    nothing_is_left_unfinished,
}

fn hold(rule: Rule) {
    let tree = Tree::of_this_crate();
    assert!(tree.get("src/lib.rs").is_some(), "the tree was not read");
    let faults = rule(&tree);
    assert!(faults.is_empty(), "\n{}", lines(&faults).join("\n"));
}

fn lines(faults: &[Fault]) -> Vec<String> {
    faults.iter().map(|fault| format!("{}:{}: {}", fault.path, fault.line, fault.what)).collect()
}

/// A rule, the files that replace those of a sound tree, and where it then must find a fault;
/// nowhere, if the case looks like a fault and is none.
type Planted = (&'static str, &'static [(&'static str, &'static str)], &'static [&'static str]);

const PLANTED: &[Planted] = &[
    (
        "pure_files_name_no_clock_no_chance_and_no_io",
        &[("src/autopilot/plan.rs", "//! A.\n\nfn now() {\n    std::time::Instant::now();\n}\n")],
        &["src/autopilot/plan.rs:4"],
    ),
    (
        "pure_files_name_no_clock_no_chance_and_no_io",
        &[("src/promoters/stable.rs", "//! A.\nuse std::{\n    cmp,\n    fs::{self, File},\n};\n")],
        &["src/promoters/stable.rs:4", "src/promoters/stable.rs:4"],
    ),
    (
        "pure_files_name_no_clock_no_chance_and_no_io",
        &[("src/autopilot/cluster.rs", "//! A.\ntrait Cluster {\n    async fn observe();\n}\n")],
        &["src/autopilot/cluster.rs:3"],
    ),
    (
        "pure_files_name_no_clock_no_chance_and_no_io",
        &[("src/autopilot/state.rs", "//! A.\nfn f() -> impl Future<Output = ()> {}\n")],
        &["src/autopilot/state.rs:2"],
    ),
    (
        "pure_files_name_no_clock_no_chance_and_no_io",
        &[("src/autopilot/state/lag.rs", "//! A.\nfn f() {\n    println!();\n}\n")],
        &["src/autopilot/state/lag.rs:3"],
    ),
    (
        "pure_files_name_no_clock_no_chance_and_no_io",
        &[("src/autopilot/safety.rs", MISSING)],
        &["src/autopilot/safety.rs:1"],
    ),
    (
        "pure_files_name_no_clock_no_chance_and_no_io",
        &[
            (
                "src/autopilot/plan.rs",
                "//! No tokio.\n/* rand /* async */ */\nconst A: &str = r#\"\n\"tokio\"#;\nconst B: char = '\"';\nfn f<'a>(strand: &'a str) {}\n",
            ),
            (
                "src/autopilot/cluster.rs",
                "//! A.\ntrait Cluster {\n    fn observe() -> impl Future;\n}\n",
            ),
        ],
        &[],
    ),
    (
        "faces_declare_and_define_nothing",
        &[("src/lib.rs", "//! A.\npub mod autopilot;\npub fn start() {}\n")],
        &["src/lib.rs:3"],
    ),
    (
        "faces_declare_and_define_nothing",
        &[("src/lib.rs", "//! A.\npub mod autopilot;\npub use autopilot::State;\n")],
        &["src/lib.rs:3"],
    ),
    (
        "faces_declare_and_define_nothing",
        &[("src/autopilot/mod.rs", "//! A.\nmod state;\npub use state::State;\nimpl State {}\n")],
        &["src/autopilot/mod.rs:4"],
    ),
    ("every_file_opens_with_a_sentence", &[("tests/a.rs", "\n//! A.\n")], &["tests/a.rs:1"]),
    (
        "every_file_opens_with_a_sentence",
        &[("benches/a.rs", "//! A\n\n//! b.\n")],
        &["benches/a.rs:1"],
    ),
    (
        "every_file_opens_with_a_sentence",
        &[("examples/a/main.rs", "fn main() {}\n")],
        &["examples/a/main.rs:1"],
    ),
    (
        "every_file_opens_with_a_sentence",
        &[("src/codec.rs", "//! Frames that\n//! last. Parts:\n//!\n")],
        &[],
    ),
    ("a_file_has_at_most_600_lines", &[("src/codec.rs", LONG)], &["src/codec.rs:601"]),
    (
        "rooms_import_only_what_lies_below_them",
        &[(
            "src/autopilot/driver.rs",
            "//! A.\nuse crate::{\n    promoters::Stable,\n    runtime::Runtime,\n};\n",
        )],
        &["src/autopilot/driver.rs:3"],
    ),
    (
        "rooms_import_only_what_lies_below_them",
        &[("src/promoters/stable.rs", "//! A.\nfn f(a: super::super::codec::Frame) {}\n")],
        &["src/promoters/stable.rs:2"],
    ),
    (
        "rooms_import_only_what_lies_below_them",
        &[("src/attic.rs", "//! A.\n")],
        &["src/attic.rs:1"],
    ),
    (
        "files_of_a_wing_import_only_from_their_floor_and_below",
        &[("src/autopilot/state.rs", "//! A.\nuse super::{config::Config, plan::Plan};\n")],
        &["src/autopilot/state.rs:2"],
    ),
    (
        "files_of_a_wing_import_only_from_their_floor_and_below",
        &[(
            "src/autopilot/safety.rs",
            "//! A.\nmod tests {\n    use super::*;\n    use super::super::plan;\n}\n",
        )],
        &["src/autopilot/safety.rs:4"],
    ),
    (
        "files_of_a_wing_import_only_from_their_floor_and_below",
        &[("src/autopilot/driver.rs", "//! A.\nuse crate::autopilot::State;\n")],
        &["src/autopilot/driver.rs:2"],
    ),
    (
        "files_of_a_wing_import_only_from_their_floor_and_below",
        &[("src/autopilot/attic.rs", "//! A.\n")],
        &["src/autopilot/attic.rs:1"],
    ),
    (
        "files_of_a_wing_import_only_from_their_floor_and_below",
        &[(
            "src/allocator/planner/flow.rs",
            "//! A.\nuse super::{holder::Holder, quota::Quota};\nuse super::super::value::Value;\n",
        )],
        &["src/allocator/planner/flow.rs:3", "src/allocator/planner/flow.rs:2"],
    ),
    (
        "files_of_a_wing_import_only_from_their_floor_and_below",
        &[("src/allocator/planner/attic.rs", "//! A.\nuse super::Holder;\n")],
        &["src/allocator/planner/attic.rs:1"],
    ),
    (
        "files_of_a_wing_import_in_no_circle",
        &[
            ("src/allocator/planner/fair.rs", "//! A.\nuse super::kinds::Zones;\n"),
            ("src/allocator/planner/kinds.rs", "//! A.\nuse super::fair::Fair;\n"),
        ],
        &["src/allocator/planner/fair.rs:1", "src/allocator/planner/kinds.rs:1"],
    ),
    (
        "files_of_a_wing_import_in_no_circle",
        &[
            ("src/autopilot/config.rs", "//! A.\nuse super::cluster::ServerId;\n"),
            ("src/autopilot/cluster.rs", "//! A.\nuse super::records::Record;\n"),
            ("src/autopilot/records.rs", "//! A.\nuse super::config::Config;\n"),
        ],
        &["src/autopilot/cluster.rs:1", "src/autopilot/config.rs:1", "src/autopilot/records.rs:1"],
    ),
    (
        "nobody_imports_through_the_face",
        &[("src/promoters/stable.rs", "//! A.\nuse crate::autopilot::State;\nuse crate::Plan;\n")],
        &["src/promoters/stable.rs:3"],
    ),
    (
        "nobody_imports_through_the_face",
        &[("examples/a.rs", "//! A.\nuse raft_autopilot::{State, autopilot::Plan};\n")],
        &["examples/a.rs:2"],
    ),
    (
        "a_dependency_stays_in_its_room",
        &[
            ("src/autopilot/driver.rs", "//! A.\nuse ::openraft::Raft;\n"),
            ("src/openraft.rs", "//! A.\nuse ::openraft::Raft;\n"),
        ],
        &["src/autopilot/driver.rs:2"],
    ),
    (
        "the_readme_runs_and_tests_with_one_command_each",
        &[("README.md", MISSING)],
        &["README.md:1"],
    ),
    (
        "the_readme_runs_and_tests_with_one_command_each",
        &[(
            "README.md",
            "# A\n\n## Run it\n```sh\ncd a\nb\n```\n## Test it\n```sh\ntests/run\n```\n```sh\nmore\n```\n",
        )],
        &["README.md:3", "README.md:8"],
    ),
    (
        "the_readme_runs_and_tests_with_one_command_each",
        &[("README.md", "## Run it\n```sh\na && b\n```\n## Test it\n```sh\nmake\n```\n")],
        &["README.md:1", "README.md:5"],
    ),
    ("the_readme_embeds_in_25_lines", &[("README.md", "# A\n\n## Test it\n")], &["README.md:1"]),
    ("the_readme_embeds_in_25_lines", &[("README.md", LONG_EXAMPLE)], &["README.md:2"]),
    ("every_page_is_linked_or_compiled_in", &[("docs/lost.md", "# Lost\n")], &["docs/lost.md:1"]),
    (
        "every_page_is_linked_or_compiled_in",
        &[
            ("docs/a.md", ""),
            ("src/lib.rs", "//! A.\n#[doc = include_str!(\"../docs/a.md\")]\npub mod docs {}\n"),
        ],
        &[],
    ),
    (
        "nothing_is_left_unfinished",
        &[
            ("docs/a.md", concat!("\n<!-- TO", "DO -->\n")),
            ("src/codec.rs", concat!("//! A.\n// FIX", "ME\nfn f() {\n    todo", "!()\n}\n")),
            ("docs/b.md", concat!("\n<<<<", "<<< HEAD\n=======\n>>>>", ">>> steps\n")),
            ("tests/a.rs", concat!("//! A.\n#[", "ignore = \"slow\"]\n")),
        ],
        &[
            "docs/a.md:2",
            "docs/b.md:2",
            "docs/b.md:4",
            "src/codec.rs:2",
            "src/codec.rs:4",
            "tests/a.rs:2",
        ],
    ),
];

const MISSING: &str = "";
const LONG_EXAMPLE: &str = "# A\n## Embed it\n```rust\n1\n2\n3\n4\n5\n6\n7\n8\n9\n10\n11\n12\n13\n14\n15\n16\n17\n18\n19\n20\n21\n22\n23\n24\n25\n26\n```\n";
const LONG: &str = {
    const LINES: [u8; 601] = [b'\n'; 601];
    match std::str::from_utf8(&LINES) {
        Ok(lines) => lines,
        Err(_) => "",
    }
};

/// A small tree in which every rule holds, with `changes` on top.
fn tree_with(changes: &[(&str, &str)]) -> Tree {
    let readme = "# A\n\n## Run it\n```sh\ncargo run --\\\n  x\n```\n```text\nout\n```\n\n## Test it\n```sh\n# all\ntests/run\n```\n\n## Embed it\n```rust\n# use a;\nfn f() {}\n```\n";
    let mut tree = Tree::default();
    let core = rules::PURE_CORE.iter().map(|place| (format!("{place}.rs"), "//! A.\n"));
    let rest = [
        (".ci/run", "tests/run\n"),
        ("README.md", readme),
        ("src/autopilot/mod.rs", "//! A.\nmod state;\npub use state::State;\n"),
        ("src/codec.rs", "//! A.\n"),
        ("src/lib.rs", "//! A.\npub mod autopilot;\n"),
        ("src/promoters/mod.rs", "//! A.\n"),
        ("src/runtime.rs", "//! A.\n"),
    ];
    let rest = rest.iter().map(|(path, text)| ((*path).to_owned(), *text));
    let changes = changes.iter().map(|(path, text)| ((*path).to_owned(), *text));
    for (path, text) in core.chain(rest).chain(changes) {
        tree.0.retain(|file| file.path != path);
        if text != MISSING || path.starts_with("docs/") {
            tree.0.push(File { path, text: text.to_owned() });
        }
    }
    tree.0.sort_by(|a, b| a.path.cmp(&b.path));
    tree
}

#[test]
fn a_sound_tree_has_no_faults() {
    for (name, rule) in RULES {
        let faults = rule(&tree_with(&[]));
        assert!(faults.is_empty(), "{name}:\n{}", lines(&faults).join("\n"));
    }
}

#[test]
fn every_planted_fault_is_found_where_it_lies() {
    for (name, files, expected) in PLANTED {
        let (_, rule) = RULES.iter().find(|(rule, _)| rule == name).unwrap();
        let found = rule(&tree_with(files));
        let places: Vec<String> =
            found.iter().map(|fault| format!("{}:{}", fault.path, fault.line)).collect();
        assert_eq!(places, *expected, "{name} on {files:?} found\n{}", lines(&found).join("\n"));
    }
}

#[test]
fn every_rule_has_a_planted_fault() {
    for (name, _) in RULES {
        let planted = PLANTED.iter().any(|(rule, _, faults)| rule == name && !faults.is_empty());
        assert!(planted, "plant a fault that `{name}` finds");
    }
}

#[test]
fn the_list_of_rooms_itself_falls_one_way() {
    for (at, (room, below)) in rules::ROOMS.iter().enumerate() {
        for other in *below {
            let earlier = rules::ROOMS[..at].iter().any(|(room, _)| room == other);
            assert!(earlier, "`{room}` imports `{other}`, which does not lie above it in ROOMS");
        }
    }
}
