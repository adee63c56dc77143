//! Names what a request does: its method and path with identifiers starred out, as a 32-bit key.
//!
//! Where a rule matched the path, its pattern (`/wiki/{title}`) says what is a name and what is not: the key is then the
//! operator's own name for the action. Only what no pattern spells out is guessed at.

use serde::{Deserialize, Serialize};

use super::hash;

/// The method and path template of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
pub struct Action {
    /// Key of method and template.
    pub key: u32,
}

impl Action {
    /// Templates a raw path of which no pattern is known.
    #[must_use]
    pub fn of(method: &str, path: &str) -> Self {
        Self::matched(method, path, "/**")
    }

    /// Templates a path that `pattern` matched. The query is dropped; what stands for a `{name}` is starred, whatever it is; of
    /// what `**` stands for, every segment that looks like an identifier is.
    #[must_use]
    pub fn matched(method: &str, path: &str, pattern: &str) -> Self {
        let path = path.split(['?', '#']).next().unwrap_or_default();
        let (mut template, mut parts, mut spelled_out) = (hash::stable(b"/"), segments(pattern), true);
        for segment in segments(path).take(MAX_SEGMENTS) {
            let part = if spelled_out { parts.next() } else { None };
            spelled_out = part.is_some_and(|part| part != "**");
            let starred = match part {
                Some(part) if spelled_out => part.starts_with('{'),
                _ => is_identifier(segment),
            };
            template = hash::join(template, if starred { STAR } else { hash::stable(segment.as_bytes()) });
        }
        Self { key: hash::short(hash::join(hash::stable(method.as_bytes()), template)) }
    }
}

fn segments(path: &str) -> impl Iterator<Item = &str> {
    path.split('/').filter(|segment| !segment.is_empty())
}

/// Deeper paths share the action of their first segments.
const MAX_SEGMENTS: usize = 12;
const STAR: u64 = 0x2a;

/// Numbers, UUIDs, hashes and other generated names; ordinary words are not.
fn is_identifier(segment: &str) -> bool {
    let bytes = segment.as_bytes();
    let digits = bytes.iter().filter(|b| b.is_ascii_digit()).count();
    let hexadecimal = bytes.iter().filter(|b| b.is_ascii_hexdigit() || **b == b'-').count();
    let version = bytes.len() <= 3 && bytes.first() == Some(&b'v');
    let numeric = digits == bytes.len();
    let hex = bytes.len() >= 8 && hexadecimal == bytes.len() && digits > 0;
    let opaque = bytes.len() >= 16 && digits >= 3;
    let mostly_digits = digits >= 4 && digits * 2 >= bytes.len();
    !version && (numeric || hex || opaque || mostly_digits || bytes.contains(&b'@') || bytes.len() > 64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identifiers_are_starred_and_words_are_kept() {
        let same = |a: &str, b: &str| Action::of("GET", a).key == Action::of("GET", b).key;
        assert!(same("/orders/17", "/orders/99231?page=2"));
        assert!(same("/f/9b2e1c44-1111-4222-8333-aaaaaaaaaaaa", "/f/0c2e1c44-9911-4222-8333-aaaaaaaaaaab"));
        assert!(same("/u/a@example.org", "/u/b@example.org"));
        assert!(!same("/orders/open", "/orders/closed"));
        assert!(!same("/v1/orders", "/v2/orders"));
        assert_ne!(Action::of("GET", "/orders").key, Action::of("POST", "/orders").key);
    }

    #[test]
    fn a_pattern_says_what_is_a_name_and_only_the_rest_is_guessed_at() {
        let key = |path: &str, pattern: &str| Action::matched("GET", path, pattern).key;
        let wiki = "/wiki/{title}";
        assert_eq!(key("/wiki/Oslo", wiki), key("/wiki/Red_shoes", wiki));
        assert_ne!(key("/wiki/Oslo", wiki), key("/wiki/Oslo", "/wiki/**"), "below `**` a word is a word");
        assert_eq!(key("/wiki/17", wiki), Action::of("GET", "/wiki/99").key, "as a number is without a pattern");
        assert_eq!(key("/a/b/c/17", "/a/{x}/**"), key("/a/d/c/18?q=1", "/a/{x}/**"));
        assert_ne!(key("/a/b/c", "/a/{x}/**"), key("/a/b/d", "/a/{x}/**"));
        assert_ne!(
            key("/reports/2024", "/reports/2024"),
            key("/reports/2025", "/reports/2025"),
            "written out in the rules"
        );
    }
}
