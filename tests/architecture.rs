//! Keeps the picture of DESIGN section 2 true: reads the paths under `src/` and fails, naming file and line, where an
//! arrow points up or sideways, where a pure module mentions the world, or where a store adapter is named outside `app`.
//!
//! Reads tokens, not types: comments, literals and test modules are left out; macros are taken as written.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::{fs, path::Path};

/// Layer of each module, lowest first. An arrow may only point down; inside a layer there are none.
const LAYERS: &[&[&str]] = &[
    &["domain", "document", "wire"],
    &["risk", "trust", "policy", "segment", "store", "clock", "tls", "private", "stamp"],
    &["decision"],
    &[
        "identity",
        "revocation",
        "device",
        "notice",
        "location",
        "behavior",
        "session",
        "quota",
        "assertion",
        "telemetry",
    ],
    &["pipeline"],
    &["extauthz", "admin", "signals", "ops", "replay", "idp", "enrollment"],
    &["config"],
    &["app"],
    &["cli"],
];

/// Functions of facts and rules. `store`, `clock`, `tls`, `private` and `stamp` share layer 1 with four of them and are not pure.
const PURE: &[&str] = &["domain", "document", "risk", "trust", "policy", "segment", "decision"];

/// Words that no pure module may say.
const IMPURE_WORDS: &[&str] =
    &["tokio", "redis", "tonic", "hyper", "reqwest", "axum", "async", "await", "SystemTime", "Instant", "Clock"];

/// Parts of the standard library that touch the world.
const IMPURE_STD: &[&str] = &["fs", "env", "process", "thread"];

/// Adapters of the store: only `app` picks one.
const ADAPTERS: &[&str] = &["memory", "file", "redis"];

/// Longer files are two ideas.
const MAX_LINES: usize = 400;

#[test]
fn every_arrow_points_down() {
    let found: Vec<String> = sources().iter().flat_map(arrows).collect();
    assert!(found.is_empty(), "broken layers:\n{}", found.join("\n"));
}

#[test]
fn pure_modules_know_no_runtime_store_or_clock() {
    let found: Vec<String> = sources().iter().flat_map(impurities).collect();
    assert!(found.is_empty(), "impure:\n{}", found.join("\n"));
}

#[test]
fn only_app_names_a_store_adapter() {
    let found: Vec<String> = sources().iter().flat_map(adapters).collect();
    assert!(found.is_empty(), "adapters named outside `app`:\n{}", found.join("\n"));
}

#[test]
fn every_file_says_what_it_is_for_and_stays_short() {
    let mut found = Vec::new();
    for source in sources() {
        if !source.text.starts_with("//!") {
            found.push(format!("{}: does not open with `//!`", source.file));
        }
        let lines = source.text.lines().count();
        if lines > MAX_LINES {
            found.push(format!("{}: {lines} lines, more than {MAX_LINES}", source.file));
        }
    }
    assert!(found.is_empty(), "\n{}", found.join("\n"));
}

#[test]
fn the_checks_see_what_they_should() {
    let upward = Source::new("src/domain/x.rs", "//! x\nuse crate::{\n  wire::y,\n  pipeline::{Check, z},\n};");
    assert_eq!(arrows(&upward).len(), 3, "{:?}", arrows(&upward));
    assert!(arrows(&upward)[1].starts_with("src/domain/x.rs:4: `domain` (0) -> `pipeline` (4)"));
    let sideways = Source::new("src/device/a.rs", "fn f() { super::super::revocation::g() }");
    assert_eq!(arrows(&sideways).len(), 1);
    let from_the_top = Source::new("src/clock.rs", "use super::app;");
    assert_eq!(arrows(&from_the_top).len(), 1);
    let fine = Source::new(
        "src/pipeline/mod.rs",
        "// crate::app\nuse crate::domain::Fact; /* crate::cli */ const S: &str = \"crate::cli\"; use super::decision;\n\
         #[cfg(test)]\nmod tests { use crate::app::x; }\npub(crate) struct A<'a>(&'a str);",
    );
    assert_eq!(arrows(&fine), Vec::<String>::new());
    let after_tests = Source::new("src/domain/y.rs", "#[cfg(test)]\nmod tests { fn f() {} }\nuse crate::cli;");
    assert_eq!(arrows(&after_tests).len(), 1);

    let impure = Source::new("src/decision/x.rs", "//! async\nasync fn f() { std::fs::read(\"tokio\") }");
    assert_eq!(impurities(&impure).len(), 2, "{:?}", impurities(&impure));
    assert_eq!(impurities(&Source::new("src/store/x.rs", "async fn f() {}")).len(), 0);

    let adapter = Source::new("src/device/mod.rs", "use crate::store::{Store, memory::Memory};");
    assert_eq!(adapters(&adapter).len(), 1);
    assert_eq!(adapters(&Source::new("src/app/mod.rs", "use crate::store::memory::Memory;")).len(), 0);
}

/// One file: its name, its module path, its text and its tokens.
struct Source {
    file: String,
    path: Vec<String>,
    text: String,
    tokens: Vec<Token>,
}

#[derive(Clone, Debug, PartialEq)]
struct Token {
    text: String,
    line: usize,
}

impl Source {
    fn new(file: &str, text: &str) -> Self {
        let mut path: Vec<String> =
            file.trim_start_matches("src/").trim_end_matches(".rs").split('/').map(str::to_owned).collect();
        if path.last().is_some_and(|last| last == "mod") {
            path.pop();
        }
        let tokens = without_test_modules(&tokens(text));
        Self { file: file.to_owned(), path, text: text.to_owned(), tokens }
    }

    fn module(&self) -> &str {
        &self.path[0]
    }
}

fn sources() -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut found = Vec::new();
    collect(root, &root.join("src"), &mut found);
    assert!(found.len() > 20, "only {} files under src/: is the test looking in the right place?", found.len());
    found
}

fn collect(root: &Path, folder: &Path, found: &mut Vec<Source>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        let top = path.parent() == Some(&root.join("src")) && matches!(name.as_str(), "lib.rs" | "main.rs");
        if path.is_dir() {
            if name != "tests" {
                collect(root, &path, found);
            }
        } else if name.ends_with(".rs") && name != "tests.rs" && !top {
            let text = fs::read_to_string(&path).unwrap();
            found.push(Source::new(&path.strip_prefix(root).unwrap().to_string_lossy(), &text));
        }
    }
}

fn layer(module: &str) -> Option<usize> {
    LAYERS.iter().position(|members| members.contains(&module))
}

fn arrows(source: &Source) -> Vec<String> {
    let from = source.module();
    let Some(from_layer) = layer(from) else {
        return vec![format!("{}: module `{from}` has no layer", source.file)];
    };
    let mut found = Vec::new();
    for (path, line) in paths(source) {
        let to = path[0].as_str();
        if let Some(to_layer) = layer(to).filter(|to_layer| to != from && *to_layer >= from_layer) {
            found.push(format!("{}:{line}: `{from}` ({from_layer}) -> `{to}` ({to_layer})", source.file));
        }
    }
    found
}

fn impurities(source: &Source) -> Vec<String> {
    if !PURE.contains(&source.module()) {
        return Vec::new();
    }
    let words = source.tokens.iter().filter(|token| IMPURE_WORDS.contains(&token.text.as_str()));
    let std = source.tokens.windows(3).filter(|three| {
        three[0].text == "std" && three[1].text == "::" && IMPURE_STD.contains(&three[2].text.as_str())
    });
    words
        .chain(std.map(|three| &three[2]))
        .map(|token| format!("{}:{}: `{}`", source.file, token.line, token.text))
        .collect()
}

fn adapters(source: &Source) -> Vec<String> {
    if matches!(source.module(), "app" | "store") {
        return Vec::new();
    }
    paths(source)
        .into_iter()
        .filter(|(path, _)| path[0] == "store" && path.get(1).is_some_and(|second| ADAPTERS.contains(&second.as_str())))
        .map(|(path, line)| format!("{}:{line}: `{}`", source.file, path.join("::")))
        .collect()
}

/// Every path that begins at `crate` or climbs by `super`, from the root of the crate, with the line of its last name.
fn paths(source: &Source) -> Vec<(Vec<String>, usize)> {
    let (tokens, mut found, mut at) = (&source.tokens, Vec::new(), 0);
    let is = |at: usize, text: &str| tokens.get(at).is_some_and(|token| token.text == text);
    while at < tokens.len() {
        let start = if is(at, "crate") && is(at + 1, "::") {
            at += 2;
            Some(Vec::new())
        } else if is(at, "super") && is(at + 1, "::") {
            let mut base = source.path.clone();
            while is(at, "super") && is(at + 1, "::") {
                base.pop();
                at += 2;
            }
            Some(base)
        } else {
            at += 1;
            None
        };
        if let Some(base) = start {
            at = tree(tokens, at, &base, &mut found);
        }
    }
    found.retain(|(path, _)| !path.is_empty());
    found
}

/// Reads what follows a `::`: a name with its path, or a group in braces. Returns where it ended.
fn tree(tokens: &[Token], mut at: usize, base: &[String], found: &mut Vec<(Vec<String>, usize)>) -> usize {
    let mut path = base.to_vec();
    while let Some(token) = tokens.get(at) {
        if token.text == "{" {
            at += 1;
            while let Some(next) = tokens.get(at) {
                match next.text.as_str() {
                    "}" => return at + 1,
                    "," => at += 1,
                    _ => {
                        let end = tree(tokens, at, &path, found);
                        at = end.max(at + 1);
                    }
                }
            }
            return at;
        }
        if !token.text.starts_with(|first: char| first.is_alphanumeric() || first == '_') {
            return at;
        }
        if token.text != "self" {
            path.push(token.text.clone());
        }
        at += 1;
        if tokens.get(at).is_none_or(|next| next.text != "::") {
            found.push((path, token.line));
            return at;
        }
        at += 1;
    }
    at
}

/// Leaves out what stands in the braces after `#[cfg(test)] mod name`.
fn without_test_modules(tokens: &[Token]) -> Vec<Token> {
    const MARK: &[&str] = &["#", "[", "cfg", "(", "test", ")", "]", "mod"];
    let (mut kept, mut at) = (Vec::new(), 0);
    while at < tokens.len() {
        let marked = tokens[at..].iter().zip(MARK).filter(|(token, mark)| token.text == **mark).count() == MARK.len();
        if !marked {
            kept.push(tokens[at].clone());
            at += 1;
            continue;
        }
        at += MARK.len() + 1; // the name of the module
        let mut depth = 0_usize;
        while let Some(token) = tokens.get(at) {
            at += 1;
            match token.text.as_str() {
                "{" => depth += 1,
                "}" => depth -= 1,
                _ => {}
            }
            if depth == 0 {
                break; // the closing brace, or the `;` of a module in a file of its own
            }
        }
    }
    kept
}

/// Names, `::` and single marks, with their lines; no comments, no literals.
fn tokens(text: &str) -> Vec<Token> {
    let (bytes, mut found, mut at, mut line) = (text.as_bytes(), Vec::new(), 0, 1);
    while at < bytes.len() {
        let rest = &text[at..];
        let end = if rest.starts_with("//") {
            at + rest.find('\n').unwrap_or(rest.len())
        } else if rest.starts_with("/*") {
            at + rest.find("*/").map_or(rest.len(), |end| end + 2)
        } else if let Some(length) = literal(rest) {
            at + length
        } else if rest.starts_with("::") {
            found.push(Token { text: "::".to_owned(), line });
            at + 2
        } else {
            let name = rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(rest.len());
            let length = if name > 0 { name } else { rest.chars().next().map_or(1, char::len_utf8) };
            if !rest.starts_with(char::is_whitespace) {
                found.push(Token { text: rest[..length].to_owned(), line });
            }
            at + length
        };
        line += text[at..end].matches('\n').count();
        at = end;
    }
    found
}

/// Length of the string or character literal that `rest` begins with. A lifetime (`'a`) is none.
fn literal(rest: &str) -> Option<usize> {
    let prefix = ["br", "cr", "b", "c", "r", ""].into_iter().find(|prefix| {
        rest.strip_prefix(prefix).is_some_and(|next| {
            next.starts_with('"') || (prefix.ends_with('r') && next.trim_start_matches('#').starts_with('"'))
        })
    });
    if let Some(prefix) = prefix {
        let body = &rest[prefix.len()..];
        if prefix.ends_with('r') {
            let hashes = body.len() - body.trim_start_matches('#').len();
            let close = format!("\"{}", "#".repeat(hashes));
            let open = hashes + 1;
            return Some(prefix.len() + open + body[open..].find(&close)? + close.len());
        }
        return Some(prefix.len() + quoted(body, '"'));
    }
    let mut chars = rest.strip_prefix('\'')?.chars();
    match (chars.next()?, chars.next()?) {
        ('\\', _) => Some(quoted(rest, '\'')),
        (one, '\'') => Some(1 + one.len_utf8() + 1),
        _ => None,
    }
}

/// Length of a literal with escapes that opens and closes with `mark`.
fn quoted(text: &str, mark: char) -> usize {
    let mut escaped = false;
    for (at, c) in text.char_indices().skip(1) {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            _ if c == mark => return at + 1,
            _ => {}
        }
    }
    text.len()
}
