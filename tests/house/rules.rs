//! The rules of the house, each a function from the tree to the faults in it.

use std::collections::{BTreeMap, BTreeSet};

use crate::text::{Fault, File, Named, Tree, code, names};

/// Files, or folders of that name, in which everything is a function of its arguments. They may
/// not be missing once their wing stands.
pub(crate) const PURE_CORE: &[&str] = &[
    "src/autopilot/cluster",
    "src/autopilot/config",
    "src/autopilot/plan",
    "src/autopilot/promoter",
    "src/autopilot/records",
    "src/autopilot/refusal",
    "src/autopilot/safety",
    "src/autopilot/server",
    "src/autopilot/state",
];

/// Just as pure, where they exist.
pub(crate) const PURE_TOO: &[&str] = &[
    "src/autopilot/assess",
    "src/autopilot/lapse",
    "src/autopilot/explain",
    "src/autopilot/history",
    "src/autopilot/orders",
    "src/autopilot/policy",
    "src/autopilot/wake",
    "src/allocator/case",
    "src/allocator/converge",
    "src/allocator/flights",
    "src/allocator/intent",
    "src/allocator/item",
    "src/allocator/joint",
    "src/allocator/local",
    "src/allocator/moves",
    "src/allocator/part",
    "src/allocator/plain",
    "src/allocator/plan",
    "src/allocator/planner",
    "src/allocator/progress",
    "src/allocator/report",
    "src/allocator/roster",
    "src/allocator/route",
    "src/allocator/state",
    "src/allocator/table",
    "src/allocator/value",
    "src/allocator/world",
    "src/ids/audit",
    "src/ids/flights",
    "src/ids/forecast",
    "src/ids/layout",
    "src/ids/ledger",
    "src/ids/life",
    "src/ids/pool",
    "src/ids/range",
    "src/ids/slot",
    "src/ids/source",
    "src/ids/stock",
    "src/ids/txns",
    "src/placement/decide",
    "src/placement/notice",
    "src/placement/policy",
    "src/placement/yielding",
    "src/promoters",
    "src/rehearse",
    "src/store/machine",
    "src/store/replicated/sessions",
    "src/store/tree",
];

/// Pure files that declare an asynchronous port: they may say `Future`, and still not `async`.
const PORTS: &[&str] = &["src/autopilot/cluster", "src/autopilot/records"];

/// Words and paths that no pure file names: clocks, chance, input, output and waiting.
const IMPURE: &[&str] = &[
    "async",
    "await",
    "dbg",
    "eprintln",
    "Future",
    "Instant",
    "print",
    "println",
    "rand",
    "std::env",
    "std::fs",
    "std::io",
    "std::net",
    "std::process",
    "std::thread",
    "SystemTime",
    "tokio",
    "tracing",
];

/// Words that define something.
const DEFINITIONS: &[&str] =
    &["const", "enum", "fn", "impl", "macro_rules", "static", "struct", "trait", "type", "union"];

/// Each room, and the rooms that it may import, all of them above it in this list.
pub(crate) const ROOMS: &[(&str, &[&str])] = &[
    ("docs", &[]),
    ("duration", &[]),
    ("runtime", &[]),
    ("codec", &[]),
    ("autopilot", &["duration", "runtime", "codec"]),
    ("promoters", &["autopilot"]),
    ("rehearse", &["duration", "autopilot", "promoters"]),
    ("testing", &["duration", "runtime", "autopilot", "promoters", "rehearse"]),
    ("store", &["runtime", "codec"]),
    ("openraft", &["runtime", "codec", "autopilot", "store"]),
    ("allocator", &["runtime", "codec", "store"]),
    ("ids", &["runtime", "codec", "store"]),
    ("placement", &["duration", "runtime", "autopilot", "promoters", "allocator", "store"]),
    ("http", &["duration", "runtime", "codec", "autopilot", "rehearse"]),
];

/// The floors of a wing, ground floor first. A file imports from its own floor and those below. A folder
/// within a wing is on one of its floors, and may have floors itself.
const FLOORS: &[(&str, &[&[&str]])] = &[
    (
        "autopilot",
        &[
            &["cluster", "config", "options", "policy", "records", "server", "version"],
            &["state"],
            &[
                "assess", "lapse", "refusal", "report", "retries", "signs", "promoter", "orders",
                "wake",
            ],
            &["guard", "why"],
            &["plan", "safety"],
            &["explain", "foresee"],
            &["handle", "history"],
            &["desk"],
            &["driver", "requests"],
        ],
    ),
    (
        "allocator",
        &[
            &["flights", "item", "local", "place", "planner", "table"],
            &["progress", "state", "value"],
            &["error", "leader", "plain", "roster", "route"],
            &["case", "plan", "world"],
            &["intent"],
            &["moves", "part"],
            &["converge"],
            &["joint", "report"],
            &["desk"],
            &["handle"],
            &["worker"],
            &["driver", "errands"],
            &["session"],
        ],
    ),
    (
        "allocator/planner",
        &[
            &[
                "bits",
                "by_member",
                "columns",
                "flow",
                "holder",
                "holdings",
                "ladder",
                "share",
                "links",
            ],
            &["around", "problem", "routes", "seat", "tally"],
            &["crown", "kinds", "levels", "takers"],
            &["fair", "lists"],
            &["draft", "exact", "openings", "retire", "survey"],
            &["certificate", "evade", "live", "quota"],
            &["keep"],
            &["surplus"],
            &["fill"],
            &["apart", "detour", "even", "give", "meet", "parts", "primaries", "reach"],
            &["network"],
            &["incremental"],
        ],
    ),
    ("placement", &[&["notice"], &["policy", "yielding"], &["decide"], &["driver"], &["picture"]]),
    (
        "ids",
        &[
            &["dice", "forecast", "range", "slot", "tenure", "ticks", "uses"],
            &["config", "error", "layout", "life", "notices", "pool"],
            &["admin", "audit", "shelf", "source", "txns"],
            &["disorder", "follow", "ledger", "link", "stock"],
            &["desk"],
            &["flights", "handle", "proof"],
            &["collector", "driver", "events"],
            &["instance"],
            &["lookup", "remote", "typed"],
        ],
    ),
];

/// Files of one floor that are written apart, so that the one can judge the other.
const STRANGERS: &[(&str, &str)] = &[("plan", "safety")];

/// Dependencies that a single room speaks to.
const KEPT_IN: &[(&str, &str)] = &[
    ("axum", "src/http"),
    ("bincode", "src/codec"),
    ("etcd_client", "src/store/etcd"),
    ("openraft", "src/openraft"),
    ("openraft_rt", "src/openraft"),
    ("openraft_rt_tokio", "src/openraft"),
    ("sha2", "src/ids"),
];

/// A screen is a function, and this is a file.
const LINES_MAX: usize = 600;

/// Unfinished work; spelled so that this file does not contain it.
const UNFINISHED: &[&str] = &[
    concat!("TO", "DO"),
    concat!("FIX", "ME"),
    concat!("todo", "!("),
    concat!("unimplemented", "!("),
    concat!("#[", "ignore"),
    concat!("```", "ignore"),
    concat!("```rust,", "ignore"),
    // A merge that nobody has settled.
    concat!("<<<<", "<<< "),
    concat!(">>>>", ">>> "),
];

/// Whether `file` is `place.rs` or stands in the folder `place`.
fn is_in(file: &File, place: &str) -> bool {
    let rest = file.path.strip_prefix(place);
    rest.is_some_and(|rest| rest == ".rs" || rest.starts_with('/'))
}

pub(crate) fn pure_files_name_no_clock_no_chance_and_no_io(tree: &Tree) -> Vec<Fault> {
    let mut faults = Vec::new();
    let stands = tree.rust("src/autopilot").next().is_some();
    for place in PURE_CORE {
        if stands && !tree.rust("src").any(|file| is_in(file, place)) {
            let path = format!("{place}.rs");
            let what =
                "is missing: the core keeps its pure rooms; if it moved, say so in PURE_CORE";
            faults.push(Fault { path, line: 1, what: what.to_owned() });
        }
    }
    let pure = |file: &&File| PURE_CORE.iter().chain(PURE_TOO).any(|place| is_in(file, place));
    for file in tree.rust("src").filter(pure) {
        let port = PORTS.iter().any(|place| is_in(file, place));
        for name in names(&code(&file.text)) {
            let named =
                IMPURE.iter().filter(|impure| !(port && **impure == "Future")).find(|impure| {
                    name.starts_with(impure) || name.path.iter().any(|part| part == *impure)
                });
            if let Some(impure) = named {
                let what = format!(
                    "names `{impure}`: this file is pure; pass the value in, or move this to the driver"
                );
                faults.push(file.fault(name.line, what));
            }
        }
    }
    faults
}

pub(crate) fn faces_declare_and_define_nothing(tree: &Tree) -> Vec<Fault> {
    let mut faults = Vec::new();
    for file in tree.rust("src").filter(|file| file.is_face()) {
        for name in names(&code(&file.text)) {
            let word = name.text();
            if DEFINITIONS.contains(&word.as_str()) {
                let what = format!(
                    "`{word}` in a face: faces declare and re-export; give it a file of its own"
                );
                faults.push(file.fault(name.line, what));
            } else if word == "use" && file.path == "src/lib.rs" {
                let what =
                    "`lib.rs` re-exports nothing: one path for each name, `crate::room::Name`";
                faults.push(file.fault(name.line, what));
            }
        }
    }
    faults
}

pub(crate) fn every_file_opens_with_a_sentence(tree: &Tree) -> Vec<Fault> {
    let mut faults = Vec::new();
    for file in ["src", "examples", "tests", "benches"].iter().flat_map(|folder| tree.rust(folder))
    {
        let opening: Vec<&str> = file
            .text
            .lines()
            .map_while(|line| line.strip_prefix("//! "))
            .map(str::trim)
            .take_while(|line| !line.is_empty())
            .collect();
        let opening = opening.join(" ");
        if !(opening.ends_with('.') || opening.contains(". ")) {
            let what =
                "open with one `//!` sentence, ended by a full stop, that says what this file is";
            faults.push(file.fault(1, what));
        }
    }
    faults
}

pub(crate) fn a_file_has_at_most_600_lines(tree: &Tree) -> Vec<Fault> {
    let len = |file: &File| file.text.lines().count();
    tree.rust("src")
        .filter(|file| len(file) > LINES_MAX)
        .map(|file| {
            file.fault(LINES_MAX + 1, format!("has {} lines: split it by subject", len(file)))
        })
        .collect()
}

pub(crate) fn rooms_import_only_what_lies_below_them(tree: &Tree) -> Vec<Fault> {
    let mut faults = Vec::new();
    let standing = tree.rooms();
    for file in tree.rust("src") {
        let module = file.module();
        let Some(&own) = module.first() else { continue };
        let Some((_, below)) = ROOMS.iter().find(|(room, _)| *room == own) else {
            faults.push(file.fault(1, format!("give the room `{own}` its place in ROOMS")));
            continue;
        };
        let code = code(&file.text);
        for (name, target) in imports(&code, &module) {
            let room = target[0].as_str();
            if standing.contains(room) && room != own && !below.contains(&room) {
                let may = if below.is_empty() { "nothing".to_owned() } else { below.join(", ") };
                let what = format!("`{}`: `{own}` may import {may} and not `{room}`", name.text());
                faults.push(file.fault(name.line, what));
            }
        }
    }
    faults
}

pub(crate) fn files_of_a_wing_import_only_from_their_floor_and_below(tree: &Tree) -> Vec<Fault> {
    let mut faults = Vec::new();
    for (wing, floors) in FLOORS {
        let floor = |name: &str| floors.iter().position(|floor| floor.contains(&name));
        let folder = format!("src/{wing}");
        for file in tree.rust(&folder).filter(|file| file.path != format!("{folder}/mod.rs")) {
            let module = file.module();
            let own = module[wing.split('/').count()];
            let Some(own_floor) = floor(own) else {
                faults.push(file.fault(1, format!("give `{own}` its floor in FLOORS")));
                continue;
            };
            let code = code(&file.text);
            for (name, target) in imports(&code, &module) {
                let other = match within(wing, &target) {
                    Some(other) if other != own => other,
                    _ => continue,
                };
                let strangers =
                    STRANGERS.contains(&(own, other)) || STRANGERS.contains(&(other, own));
                let what = match floor(other) {
                    None => format!(
                        "`{}`: inside a wing name the file, `super::file::Name`",
                        name.text()
                    ),
                    Some(above) if above > own_floor => {
                        format!("`{other}` lies above `{own}`: move what both need down")
                    }
                    Some(_) if strangers => format!("`{own}` and `{other}` are written apart"),
                    Some(_) => continue,
                };
                faults.push(file.fault(name.line, what));
            }
        }
    }
    faults
}

/// The step of a path after `wing`, if it leads there; empty for the wing itself.
fn within<'a>(wing: &str, target: &'a [String]) -> Option<&'a str> {
    let mut steps = target.iter().map(String::as_str);
    wing.split('/').all(|step| steps.next() == Some(step)).then(|| steps.next().unwrap_or_default())
}

/// Where the paths in `code` lead to within the crate; the second step is empty for a whole room.
fn imports<'a>(code: &'a str, module: &[&str]) -> Vec<(Named<'a>, Vec<String>)> {
    let mut imports = Vec::new();
    for name in names(code) {
        if let Some(mut target) = name.target(module) {
            if target.len() == 1 {
                target.push(String::new());
            }
            imports.push((name, target));
        }
    }
    imports
}

pub(crate) fn files_of_a_wing_import_in_no_circle(tree: &Tree) -> Vec<Fault> {
    let mut arrows: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for file in tree.rust("src").filter(|file| !file.is_face()) {
        let module = file.module();
        let Some(room) = module.first() else { continue };
        let nested = FLOORS.iter().map(|(wing, _)| *wing).filter(|wing| wing.contains('/'));
        let path = module.join("/");
        for wing in nested.filter(|wing| path.starts_with(&format!("{wing}/"))).chain([*room]) {
            let Some(own) = module.get(wing.split('/').count()) else { continue };
            for (_, target) in imports(&code(&file.text), &module) {
                if let Some(other) = within(wing, &target).filter(|other| other != own) {
                    let from = format!("{wing}/{own}");
                    arrows.entry(from).or_default().insert(format!("{wing}/{other}"));
                }
            }
        }
    }
    let mut faults = Vec::new();
    for from in arrows.keys() {
        let mut reached = BTreeSet::new();
        let mut next: Vec<&String> = arrows[from].iter().collect();
        while let Some(at) = next.pop() {
            if reached.insert(at) {
                next.extend(arrows.get(at).into_iter().flatten());
            }
        }
        if reached.contains(from) {
            let path = format!("src/{from}.rs");
            let what =
                "imports itself through others: move what they share into a file below".to_owned();
            faults.push(Fault { path, line: 1, what });
        }
    }
    faults
}

pub(crate) fn nobody_imports_through_the_face(tree: &Tree) -> Vec<Fault> {
    let mut faults = Vec::new();
    let standing = tree.rooms();
    for file in ["src", "examples", "tests", "benches"].iter().flat_map(|folder| tree.rust(folder))
    {
        let library = file.path.starts_with("src/") && !file.path.starts_with("src/bin/");
        let module = file.module();
        let code = code(&file.text);
        for name in names(&code) {
            let room = if library {
                name.target(&module).map(|target| target[0].clone())
            } else if name.path[0] == "raft_autopilot" {
                name.path.get(1).map(|room| (*room).to_owned())
            } else {
                None
            };
            if room.is_some_and(|room| !standing.contains(room.as_str())) {
                let what =
                    format!("`{}` goes through `lib.rs`: name the room, `room::Name`", name.text());
                faults.push(file.fault(name.line, what));
            }
        }
    }
    faults
}

pub(crate) fn a_dependency_stays_in_its_room(tree: &Tree) -> Vec<Fault> {
    let mut faults = Vec::new();
    for file in tree.rust("src") {
        for name in names(&code(&file.text)).iter().filter(|name| name.path.len() > 1) {
            for (dependency, place) in KEPT_IN {
                if name.path[0] == *dependency && !is_in(file, place) {
                    let what =
                        format!("`{dependency}` is spoken to in `{place}` alone: ask that room");
                    faults.push(file.fault(name.line, what));
                }
            }
        }
    }
    faults
}

pub(crate) fn the_readme_runs_and_tests_with_one_command_each(tree: &Tree) -> Vec<Fault> {
    let Some(readme) = tree.get("README.md") else {
        let what = "is missing: it is the front page".to_owned();
        return vec![Fault { path: "README.md".to_owned(), line: 1, what }];
    };
    let mut faults = Vec::new();
    for heading in ["## Run it", "## Test it"] {
        let (line, commands) = sh_blocks(&readme.text, heading);
        let single = |block: &String| {
            block.lines().count() == 1 && !["&&", ";", "|"].iter().any(|more| block.contains(more))
        };
        match &commands[..] {
            [one] if single(one) => {
                let ci = tree.get(".ci/run").map_or("", |file| &file.text);
                if heading == "## Test it" && !ci.contains(one.trim()) {
                    faults.push(
                        readme.fault(line, format!("`.ci/run` does not call `{}`", one.trim())),
                    );
                }
            }
            _ => {
                let what =
                    format!("give `{heading}` exactly one `sh` block with exactly one command");
                faults.push(readme.fault(line, what));
            }
        }
    }
    faults
}

/// How short the embedding must be.
const EMBEDDING_MAX: usize = 25;

pub(crate) fn the_readme_embeds_in_25_lines(tree: &Tree) -> Vec<Fault> {
    let Some(readme) = tree.get("README.md") else { return Vec::new() };
    let Some((before, section)) = readme.text.split_once("\n## Embed it\n") else {
        return vec![readme.fault(1, "show under `## Embed it` what it takes".to_owned())];
    };
    let line = before.lines().count() + 1;
    let block = section.split_once("```rust").and_then(|(_, rest)| rest.split_once("\n```"));
    let Some((block, _)) = block else {
        return vec![
            readme.fault(line, "show it in a block of Rust, which is compiled".to_owned()),
        ];
    };
    // The first line is the rest of the fence; those that rustdoc hides are not shown.
    let shown = block.lines().skip(1).filter(|line| !line.starts_with('#')).count();
    if shown > EMBEDDING_MAX {
        let what = format!("{shown} lines, at most {EMBEDDING_MAX}");
        return vec![readme.fault(line, what)];
    }
    Vec::new()
}

/// The line of `heading`, and the `sh` blocks up to the next heading, without comments and with
/// continued lines joined.
fn sh_blocks(text: &str, heading: &str) -> (usize, Vec<String>) {
    let mut found = (1, Vec::new());
    let mut inside = false;
    let mut fence = None;
    for (number, line) in text.lines().enumerate() {
        match (fence, line.strip_prefix("```")) {
            (None, Some(language)) => {
                fence = Some(language == "sh");
                if inside && language == "sh" {
                    found.1.push(String::new());
                }
            }
            (Some(_), Some(_)) => fence = None,
            (None, None) if line.starts_with("## ") => {
                inside = line.trim_end() == heading;
                if inside {
                    found.0 = number + 1;
                }
            }
            (Some(true), None) if inside && !line.is_empty() && !line.starts_with('#') => {
                if let Some(block) = found.1.last_mut() {
                    block.push_str(line.trim_end_matches('\\'));
                    block.push_str(if line.ends_with('\\') { "" } else { "\n" });
                }
            }
            _ => {}
        }
    }
    found
}

pub(crate) fn every_page_is_linked_or_compiled_in(tree: &Tree) -> Vec<Fault> {
    let readme = tree.get("README.md").map_or("", |file| &file.text);
    let known = |path: &str| {
        readme.contains(&format!("({path}"))
            || tree.rust("src").any(|file| file.text.contains(&format!("/{path}\"")))
    };
    let page = |file: &&File| {
        file.path.starts_with("docs/") && file.path.split('.').next_back() == Some("md")
    };
    tree.0
        .iter()
        .filter(page)
        .filter(|file| !known(&file.path))
        .map(|file| {
            file.fault(1, "link it from README.md, or include it in the crate's documentation")
        })
        .collect()
}

pub(crate) fn nothing_is_left_unfinished(tree: &Tree) -> Vec<Fault> {
    let mut faults = Vec::new();
    for file in &tree.0 {
        for (number, line) in file.text.lines().enumerate() {
            for word in UNFINISHED.iter().filter(|word| line.contains(**word)) {
                faults.push(file.fault(number + 1, format!("`{word}`: finish it, or take it out")));
            }
        }
    }
    faults
}
