//! Where a file holds secrets. A drawing shows lines of it, and reports end up in logs.
//!
//! Found in the text, by words in keys: what is no YAML has no tree, and its lines are shown all the same. In doubt too much is
//! hidden.

use std::{borrow::Cow, ops::Range};

/// Words in a key whose value is never shown.
const WORDS: [&str; 6] = ["password", "secret", "authorization", "private_key", "credential", "pepper"];
/// Nor that of a key that ends so: `status_token`, but not `token_types` or `tokens`.
const LAST_WORD: &str = "token";

/// The text with secrets starred out, octet for octet, so that positions stay true.
pub(super) fn masked(text: &str) -> Cow<'_, str> {
    let found = secrets(text);
    if found.is_empty() {
        return Cow::Borrowed(text);
    }
    let mut bytes = text.as_bytes().to_vec();
    for range in found {
        bytes[range].fill(b'*');
    }
    // Whole characters were replaced, so this is text.
    String::from_utf8(bytes).map_or(Cow::Borrowed(""), Cow::Owned)
}

/// Whether the value of a key goes on in the lines below it that stand further right.
#[derive(Clone, Copy)]
enum Below {
    No,
    /// Unless a map begins there, whose keys speak for themselves.
    Perhaps(usize),
    Yes(usize),
}

fn secrets(text: &str) -> Vec<Range<usize>> {
    let mut found = Vec::new();
    let mut below = Below::No;
    let mut start = 0;
    for line in text.split_inclusive('\n') {
        let content = line.trim_end();
        let indent = content.len() - content.trim_start().len();
        match below {
            _ if content.is_empty() => {}
            Below::Yes(column) if indent > column => found.push(start + indent..start + content.len()),
            Below::Perhaps(column) if indent > column && !begins_a_map(&content[indent..]) => {
                found.push(start + indent..start + content.len());
                below = Below::Yes(column);
            }
            _ => {
                let (ranges, goes_on) = in_line(content);
                found.extend(ranges.into_iter().map(|range| start + range.start..start + range.end));
                below = goes_on;
            }
        }
        start += line.len();
    }
    found
}

fn begins_a_map(content: &str) -> bool {
    !content.starts_with(['"', '\'']) && (content.contains(": ") || content.ends_with(':'))
}

/// Values after keys that name a secret, and user and password of every URL.
fn in_line(line: &str) -> (Vec<Range<usize>>, Below) {
    let mut found: Vec<Range<usize>> = passwords(line);
    let mut below = Below::No;
    let mut done = 0;
    for (colon, _) in line.match_indices(':') {
        let Some(column) = secret_key(&line[..colon]) else { continue };
        let rest = &line[colon + 1..];
        let from = colon + 1 + rest.len() - rest.trim_start().len();
        // `secret://…` is an address; a colon inside a value that is hidden already says nothing.
        if colon < done || rest.starts_with("//") {
            continue;
        }
        let value = &line[from..];
        if value.is_empty() || value.starts_with('#') {
            below = Below::Perhaps(column);
            continue;
        }
        let in_flow = is_open(&line[..column]);
        done = match value.chars().next() {
            // Its keys speak for themselves.
            Some('{') => continue,
            Some('[') => from + end(value, &[']']),
            _ if in_flow => from + end(value, &[',', '}', ']']),
            _ => line.len(),
        };
        below = if in_flow { Below::No } else { Below::Yes(column) };
        found.push(from..done);
    }
    (found, below)
}

/// Where the key begins that ends at the end of `before`, if its value is to be hidden.
fn secret_key(before: &str) -> Option<usize> {
    let before = before.trim_end();
    let start = match before.chars().last()? {
        quote @ ('"' | '\'') => before[..before.len() - 1].rfind(quote)?,
        _ => before.rfind(|c: char| c.is_whitespace() || ",{}[]\"'".contains(c)).map_or(0, |sign| sign + 1),
    };
    let key = before[start..].trim_matches(['"', '\'']).to_ascii_lowercase();
    (WORDS.iter().any(|word| key.contains(word)) || key.ends_with(LAST_WORD)).then_some(start)
}

/// Whether a `{` or `[` of this line is still open at its end.
fn is_open(text: &str) -> bool {
    let mut depth = 0_u32;
    unquoted(text, |_, c| {
        match c {
            '{' | '[' => depth += 1,
            '}' | ']' => depth = depth.saturating_sub(1),
            _ => {}
        }
        false
    });
    depth > 0
}

/// The place of the first of `signs` outside quotes, or the end.
fn end(text: &str, signs: &[char]) -> usize {
    let mut found = text.len();
    unquoted(text, |at, c| {
        let is_end = signs.contains(&c);
        if is_end {
            found = at;
        }
        is_end
    });
    found
}

/// Shows each character that stands outside quotes, until it is said to be enough.
fn unquoted(text: &str, mut enough: impl FnMut(usize, char) -> bool) {
    let mut quote = None;
    let mut characters = text.char_indices();
    while let Some((at, c)) = characters.next() {
        match quote {
            Some('"') if c == '\\' => drop(characters.next()),
            Some(open) if c == open => quote = None,
            Some(_) => {}
            None if matches!(c, '"' | '\'') => quote = Some(c),
            None if enough(at, c) => return,
            None => {}
        }
    }
}

/// User and password of every URL, and what follows a password among its options: that may hold `&` where it was not encoded.
fn passwords(line: &str) -> Vec<Range<usize>> {
    let mut found = Vec::new();
    for (scheme, _) in line.match_indices("://") {
        let authority = scheme + 3;
        let url = &line[authority..authority + length(&line[..scheme], &line[authority..])];
        // The last: a password may hold `@`, `/` and `?` where it was not encoded, and that may be what is wrong.
        if let Some(sign) = url.rfind('@').filter(|sign| *sign > 0) {
            found.push(authority..authority + sign);
        }
        if let Some((before, _)) = url.split_once("password=") {
            found.push(authority + before.len() + "password=".len()..authority + url.len());
        }
    }
    found
}

/// Octets of a URL that goes on with `rest`: to its quotation mark, else to the end of a plain YAML scalar.
fn length(before: &str, rest: &str) -> usize {
    let scheme = before.trim_end_matches(|c: char| c.is_ascii_alphanumeric() || c == '-' || c == '+');
    let end = match scheme.chars().next_back() {
        Some(quote @ ('"' | '\'' | '`')) => rest.find(quote),
        // Whatever may stand in a password.
        _ if before[scheme.len()..].starts_with("redis") => None,
        _ if before.contains(['{', '[']) => rest.find([',', ' ', '}', ']']),
        _ => rest.find(" #"),
    };
    end.unwrap_or(rest.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(text: &str) -> String {
        let shown = masked(text).into_owned();
        assert_eq!(shown.len(), text.len(), "{shown}");
        let mut short = shown;
        while short.contains("**") {
            short = short.replace("**", "*");
        }
        short
    }

    #[test]
    fn values_of_secret_keys_are_hidden_however_they_are_written() {
        for (text, expected) in [
            ("client_secret: hunter2, or so # mine", "client_secret: *"),
            ("client_secret : hunter2", "client_secret : *"),
            ("client_secret:hunter2", "client_secret:*"),
            (r#"{"client_secret":"hunter2","port":"x"}"#, r#"{"client_secret":*,"port":"x"}"#),
            (r#"{"client_secret" : "hun\",ter2","port":"x"}"#, r#"{"client_secret" : *,"port":"x"}"#),
            (r#"  "client_secret": "hunter2","#, r#"  "client_secret": *"#),
            ("ops: { status_token: hunter5, max_connections: x }", "ops: { status_token: *, max_connections: x }"),
            ("ops: { max_connections: x, 'status_token': 'a, b' }", "ops: { max_connections: x, 'status_token': *}"),
            ("secrets: [a, b]", "secrets: *]"),
            ("- Authorization: Bearer é{1,2}", "- Authorization: *"),
            ("url: redis://u:hunter2@h, # x: y", "url: redis://*@h, # x: y"),
            (
                "url: 'redis-sentinel://h/m?sentinel_password=hun&ter2'",
                "url: 'redis-sentinel://h/m?sentinel_password=*'",
            ),
        ] {
            assert_eq!(shown(text), expected);
        }
    }

    #[test]
    fn values_that_name_a_secret_hide_nothing() {
        for text in [
            "methods: [password, otp, { kind: token }]",
            "token_types: [at+jwt, JWT]",
            "admin: { tokens: [{ name: ci, role: x }] }",
            "by: password",
            "authorization: { mode: strict }",
            "url: secret://place",
        ] {
            assert_eq!(shown(text), text);
        }
    }

    #[test]
    fn what_goes_on_below_its_key_is_hidden_to_its_end() {
        let text =
            "- secret: |\n    hunter2: 2\n\n    hunter3\n  port: x\n  pepper:\n    hunter4\n    a: b\n  other: y\n";
        assert_eq!(shown(text), "- secret: *\n    *\n\n    *\n  port: x\n  pepper:\n    *\n    *\n  other: y\n");
        let map = "credentials:\n  id: x\n  client_secret: y\n";
        assert_eq!(shown(map), "credentials:\n  id: x\n  client_secret: *\n");
        assert_eq!(shown("password: \"a\n  b: c\"\nport: x\n"), "password: *\n  *\nport: x\n");
    }
}
