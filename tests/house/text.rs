//! Reads the tree as text: files, Rust code without comments and strings, and the paths that it names.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path as FsPath, PathBuf},
};

/// One file: its path from the top of the tree, with `/`, and its text.
#[derive(Debug, Clone)]
pub(crate) struct File {
    pub(crate) path: String,
    pub(crate) text: String,
}

/// All files that the rules look at, by path.
#[derive(Debug, Clone, Default)]
pub(crate) struct Tree(pub(crate) Vec<File>);

/// What a rule found: where, and what to do about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Fault {
    pub(crate) path: String,
    pub(crate) line: usize,
    pub(crate) what: String,
}

impl Tree {
    /// Reads the crate that this test belongs to.
    pub(crate) fn of_this_crate() -> Self {
        let top = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
        let mut files = Vec::new();
        for name in ["src", "examples", "tests", "benches", "docs", ".ci"] {
            read_folder(&top, name, &mut files);
        }
        for name in ["README.md", "Cargo.toml", ".deny.toml", ".clippy.toml", ".rustfmt.toml"] {
            read_file(&top, name, &mut files);
        }
        files.sort_by(|a: &File, b| a.path.cmp(&b.path));
        Self(files)
    }

    pub(crate) fn get(&self, path: &str) -> Option<&File> {
        self.0.iter().find(|file| file.path == path)
    }

    /// The Rust files below `folder`, for example `src`.
    pub(crate) fn rust<'a>(&'a self, folder: &'a str) -> impl Iterator<Item = &'a File> {
        self.0.iter().filter(move |file| {
            let path = FsPath::new(&file.path);
            path.starts_with(folder) && path.extension().is_some_and(|ext| ext == "rs")
        })
    }

    /// The rooms of the house: the modules that stand directly below `src`.
    pub(crate) fn rooms(&self) -> BTreeSet<&str> {
        self.rust("src").filter_map(|file| file.module().first().copied()).collect()
    }
}

fn read_folder(top: &FsPath, name: &str, files: &mut Vec<File>) {
    let Ok(entries) = fs::read_dir(top.join(name)) else { return };
    for entry in entries {
        let entry = entry.unwrap();
        let path = format!("{name}/{}", entry.file_name().to_str().unwrap());
        if entry.file_type().unwrap().is_dir() {
            read_folder(top, &path, files);
        } else {
            read_file(top, &path, files);
        }
    }
}

/// Files that are missing or are not text have nothing to say to a rule about text.
fn read_file(top: &FsPath, path: &str, files: &mut Vec<File>) {
    if let Ok(text) = fs::read_to_string(top.join(path)) {
        files.push(File { path: path.to_owned(), text });
    }
}

impl File {
    /// A fault of this file.
    pub(crate) fn fault(&self, line: usize, what: impl Into<String>) -> Fault {
        Fault { path: self.path.clone(), line, what: what.into() }
    }

    /// `lib.rs` and every `mod.rs`: they declare rooms.
    pub(crate) fn is_face(&self) -> bool {
        self.path == "src/lib.rs"
            || (self.path.starts_with("src/") && self.path.ends_with("/mod.rs"))
    }

    /// The module that a file below `src` is: `src/a/b.rs` is `[a, b]`, `src/a/mod.rs` is `[a]`.
    /// Empty for `lib.rs` and for programs, which are no rooms of the library.
    pub(crate) fn module(&self) -> Vec<&str> {
        let Some(path) = self.path.strip_prefix("src/").and_then(|p| p.strip_suffix(".rs")) else {
            return Vec::new();
        };
        if matches!(path, "lib" | "main") || path.starts_with("bin/") {
            return Vec::new();
        }
        path.strip_suffix("/mod").unwrap_or(path).split('/').collect()
    }
}

/// `text` with comments, strings and characters blanked out; lines stay where they are.
pub(crate) fn code(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut code = bytes.to_vec();
    let mut at = 0;
    while at < bytes.len() {
        let end = at + skipped(&text[at..]);
        for byte in &mut code[at..end] {
            if *byte != b'\n' {
                *byte = b' ';
            }
        }
        at = end.max(at + text[at..].chars().next().map_or(1, char::len_utf8));
    }
    String::from_utf8(code).unwrap()
}

/// How many bytes at the start of `text` are a comment, a string or a character.
fn skipped(text: &str) -> usize {
    if text.starts_with("//") {
        return text.find('\n').unwrap_or(text.len());
    }
    if text.starts_with("/*") {
        return block_comment(text);
    }
    if text.starts_with('"') {
        return quoted(text, '"');
    }
    if let Some(rest) = text.strip_prefix('r') {
        let hashes = rest.len() - rest.trim_start_matches('#').len();
        if rest[hashes..].starts_with('"') {
            let close = format!("\"{}", "#".repeat(hashes));
            let body = 1 + hashes + 1;
            return text[body..].find(&close).map_or(text.len(), |n| body + n + close.len());
        }
    }
    if let Some(rest) = text.strip_prefix('\'') {
        let mut chars = rest.chars();
        let first = chars.next();
        // Otherwise it is a lifetime.
        if first == Some('\\') || chars.next() == Some('\'') {
            return quoted(text, '\'');
        }
    }
    0
}

fn block_comment(text: &str) -> usize {
    let mut depth = 0;
    let mut at = 0;
    while at < text.len() {
        let rest = &text.as_bytes()[at..];
        if rest.starts_with(b"/*") {
            depth += 1;
            at += 2;
        } else if rest.starts_with(b"*/") {
            depth -= 1;
            at += 2;
            if depth == 0 {
                return at;
            }
        } else {
            at += 1;
        }
    }
    at
}

fn quoted(text: &str, quote: char) -> usize {
    let mut escaped = false;
    for (at, c) in text.char_indices().skip(1) {
        if c == quote && !escaped {
            return at + 1;
        }
        escaped = c == '\\' && !escaped;
    }
    text.len()
}

/// A path as code names it, `a::b::{c, d}` opened up into two, and the inline modules around it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Named<'a> {
    pub(crate) line: usize,
    pub(crate) inside: Vec<&'a str>,
    pub(crate) path: Vec<&'a str>,
}

impl Named<'_> {
    pub(crate) fn text(&self) -> String {
        self.path.join("::")
    }

    /// Whether the path is `prefix` or goes on from it.
    pub(crate) fn starts_with(&self, prefix: &str) -> bool {
        let mut path = self.path.iter();
        prefix.split("::").all(|part| path.next() == Some(&part))
    }

    /// Where the path leads to within the crate, seen from `module`; `None` if it leaves the crate,
    /// is local, or names no more than a module around it.
    pub(crate) fn target(&self, module: &[&str]) -> Option<Vec<String>> {
        let mut at: Vec<&str> = module.iter().chain(&self.inside).copied().collect();
        let relative = |part: &&str| matches!(*part, "crate" | "self" | "super");
        let steps = self.path.iter().take_while(|part| relative(part)).count();
        if steps == 0 || steps == self.path.len() {
            return None;
        }
        for step in &self.path[..steps] {
            match *step {
                "crate" => at.clear(),
                "super" => drop(at.pop()),
                _ => {}
            }
        }
        Some(at.iter().chain(&self.path[steps..]).map(|part| (*part).to_owned()).collect())
    }
}

/// Words that a path beginning with `::` may follow, and that are no part of it.
const STARTERS: &[&str] =
    &["as", "dyn", "else", "for", "if", "impl", "in", "match", "mut", "return", "use", "where"];

/// Every path and every single word in `code`, in order.
pub(crate) fn names(code: &str) -> Vec<Named<'_>> {
    let mut reader = Reader { tokens: tokens(code), at: 0, names: Vec::new() };
    let mut depth = 0_usize;
    let mut inline: Vec<(usize, &str)> = Vec::new();
    while let Some((line, token)) = reader.next() {
        match token {
            "{" => depth += 1,
            "}" => {
                depth = depth.saturating_sub(1);
                inline.retain(|(at, _)| *at < depth);
            }
            "mod" if reader.peek(1) == Some("{") => {
                inline.push((depth, reader.peek(0).unwrap_or_default()));
            }
            _ if is_word(token) => {
                let from = reader.names.len();
                if STARTERS.contains(&token) {
                    reader.names.push(Named { line, inside: Vec::new(), path: vec![token] });
                } else {
                    reader.path(line, vec![token]);
                }
                for name in &mut reader.names[from..] {
                    name.inside = inline.iter().map(|(_, name)| *name).collect();
                }
            }
            _ => {}
        }
    }
    reader.names
}

fn is_word(token: &str) -> bool {
    token.starts_with(|c: char| c.is_alphanumeric() || c == '_')
}

struct Reader<'a> {
    tokens: Vec<(usize, &'a str)>,
    at: usize,
    names: Vec<Named<'a>>,
}

impl<'a> Reader<'a> {
    fn next(&mut self) -> Option<(usize, &'a str)> {
        let token = self.tokens.get(self.at).copied();
        self.at += 1;
        token
    }

    fn peek(&self, ahead: usize) -> Option<&'a str> {
        self.tokens.get(self.at + ahead).map(|(_, token)| *token)
    }

    /// Reads on from the first parts of a path to its end, or to all its ends.
    fn path(&mut self, line: usize, mut path: Vec<&'a str>) {
        while self.peek(0) == Some("::") {
            match self.peek(1) {
                Some("{") => {
                    self.at += 2;
                    return self.group(&path);
                }
                Some(part) if is_word(part) || part == "*" => {
                    path.push(part);
                    self.at += 2;
                }
                _ => break,
            }
        }
        self.names.push(Named { line, inside: Vec::new(), path });
    }

    fn group(&mut self, prefix: &[&'a str]) {
        while let Some((line, token)) = self.next() {
            match token {
                "}" => return,
                "," => {}
                // A new name for the path before it is no path.
                "as" => self.at += 1,
                "self" => self.names.push(Named { line, inside: vec![], path: prefix.to_vec() }),
                _ => self.path(line, prefix.iter().copied().chain([token]).collect()),
            }
        }
    }
}

fn tokens(code: &str) -> Vec<(usize, &str)> {
    let mut tokens = Vec::new();
    for (number, line) in code.lines().enumerate() {
        let mut rest = line.trim_start();
        while let Some(first) = rest.chars().next() {
            let word = rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(rest.len());
            let len = match word {
                0 if rest.starts_with("::") => 2,
                0 => first.len_utf8(),
                _ => word,
            };
            tokens.push((number + 1, &rest[..len]));
            rest = rest[len..].trim_start();
        }
    }
    tokens
}
