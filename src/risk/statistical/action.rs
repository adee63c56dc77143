//! Names what a request does: its method and path with identifiers starred out, as a 32-bit key.
//!
//! Where a policy or a route already knows the template (`/orders/{id}`), pass that instead: the key
//! is then the operator's own name for the action.

use serde::{Deserialize, Serialize};

use super::hash;

/// The method and path template of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
pub struct Action {
    /// Key of method and template.
    pub key: u32,
    /// Key of the resource family: the template without its last literal part, whatever the method.
    pub family: u32,
    /// Whether the method only reads (GET, HEAD, OPTIONS).
    pub reads: bool,
}

impl Action {
    /// Templates a raw path: the query is dropped and every segment that looks like an identifier is starred.
    #[must_use]
    pub fn of(method: &str, path: &str) -> Self {
        let path = path.split(['?', '#']).next().unwrap_or_default();
        let mut template = hash::stable(b"/");
        let mut family = template;
        for (depth, segment) in path.split('/').filter(|s| !s.is_empty()).take(MAX_SEGMENTS).enumerate() {
            let word = if is_identifier(segment) { STAR } else { hash::stable(segment.as_bytes()) };
            template = hash::join(template, word);
            if depth < 2 {
                family = hash::join(family, word);
            }
        }
        let key = hash::short(hash::join(hash::stable(method.as_bytes()), template));
        Self { key, family: hash::short(family), reads: matches!(method, "GET" | "HEAD" | "OPTIONS") }
    }
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
    fn a_family_spans_methods_and_deeper_paths() {
        assert_eq!(Action::of("GET", "/api/files/1").family, Action::of("PUT", "/api/files/2").family);
        assert_ne!(Action::of("GET", "/api/files/1").family, Action::of("GET", "/api/users/1").family);
    }
}
