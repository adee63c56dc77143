//! One spelling for a path, or a refusal: what two parsers could read in two ways is not decided at all.
//!
//! The profile is THREATS.md section 5, rows P1 to P11: the query is cut at the first `?`, path parameters are cut per
//! segment, what a segment may hold unencoded (RFC 3986 `pchar`) stands unencoded and everything else encoded, everything
//! doubtful is a [`PathProblem`].

use std::{borrow::Cow, fmt};

use serde::{Deserialize, Serialize};

/// Longest path (without its query) that is looked at, in octets.
pub const MAX_PATH: usize = 8 * 1024;

/// Why a path has no canonical form. Always a 400, never a guess.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PathProblem {
    /// The request as a whole could not be read: no CheckRequest, or a host that is none.
    Unreadable,
    /// The question was larger than any that is read.
    TooLarge,
    /// Longer than [`MAX_PATH`].
    TooLong,
    /// Does not begin with `/` (absolute form, `*`, CONNECT, empty).
    NotAbsolute,
    /// An octet outside 0x21 to 0x7E.
    RawOctet,
    /// A `#`.
    Fragment,
    /// A raw backslash.
    Backslash,
    /// `.` or `..` as a segment, also encoded.
    DotSegment,
    /// `//` anywhere but at the very end's single trailing slash.
    EmptySegment,
    /// A `%` that two hexadecimal digits do not follow, or `%u`.
    MalformedEscape,
    /// An encoded `/ \ % ; ? #`, or an encoded control character.
    ReservedEscape,
    /// Octets that do not decode to valid UTF-8, or a full-width solidus.
    NotUtf8,
}

impl fmt::Display for PathProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Unreadable => "the request could not be read",
            Self::TooLarge => "the question is larger than 4 MiB: leave `with_request_body` out of Envoy's filter",
            Self::TooLong => "the path is too long",
            Self::NotAbsolute => "the path does not begin with a slash",
            Self::RawOctet => "the path holds an octet outside 0x21 to 0x7e",
            Self::Fragment => "the path holds a fragment",
            Self::Backslash => "the path holds a backslash",
            Self::DotSegment => "the path holds a dot segment",
            Self::EmptySegment => "the path holds an empty segment",
            Self::MalformedEscape => "the path holds a malformed percent-encoding",
            Self::ReservedEscape => "the path holds an encoded reserved or control character",
            Self::NotUtf8 => "the path does not decode to UTF-8",
        })
    }
}

/// The canonical path of a request target, without query and path parameters.
///
/// What upstreams read alike is equal octets: `%40` is `@`, and `{`, which browsers encode and others do not, is `%7B`. Escapes
/// are upper case. Borrowed when nothing had to change.
pub fn canonical_path(target: &str) -> Result<Cow<'_, str>, PathProblem> {
    let path = target.bytes().position(|octet| octet == b'?').map_or(target, |query| &target[..query]);
    if path.len() > MAX_PATH {
        return Err(PathProblem::TooLong);
    }
    if !path.starts_with('/') {
        return Err(PathProblem::NotAbsolute);
    }
    let plain = check_octets(path)?;
    if plain {
        check_segments(path)?;
        return Ok(Cow::Borrowed(path));
    }
    let canonical = rewrite(path)?;
    if canonical.len() > MAX_PATH {
        return Err(PathProblem::TooLong);
    }
    check_segments(&canonical)?;
    Ok(Cow::Owned(canonical))
}

/// Whether no octet calls for rewriting: no escapes, no parameters, nothing to encode.
fn check_octets(path: &str) -> Result<bool, PathProblem> {
    // Nearly every path: without a way out in the middle, sixteen octets at a time.
    let is_plain = |octet: u8| (octet.wrapping_sub(0x21) < 0x5e) & !calls_for_rewriting(octet);
    if path.bytes().fold(true, |plain, octet| plain & is_plain(octet)) {
        return Ok(true);
    }
    for octet in path.bytes() {
        match octet {
            b'#' => return Err(PathProblem::Fragment),
            b'\\' => return Err(PathProblem::Backslash),
            0x21..=0x7e => {}
            _ => return Err(PathProblem::RawOctet),
        }
    }
    Ok(false)
}

fn check_segments(path: &str) -> Result<(), PathProblem> {
    // What is wrong here begins with a slash and a dot, or with two slashes.
    let (octets, next) = (path.as_bytes(), &path.as_bytes()[1..]);
    let pairs = octets.iter().zip(next);
    if pairs.fold(true, |fine, (octet, next)| fine & !((*octet == b'/') & ((*next == b'.') | (*next == b'/')))) {
        return Ok(());
    }
    let mut segments = path[1..].split('/').peekable();
    while let Some(segment) = segments.next() {
        match segment {
            "." | ".." => return Err(PathProblem::DotSegment),
            "" if segments.peek().is_some() => return Err(PathProblem::EmptySegment),
            _ => {}
        }
    }
    Ok(())
}

/// Of 0x21 to 0x7E: `%`, `;`, and what no path may hold unencoded, by RFC 3986, though some clients send it. In ranges of
/// neighbours, none of which depends on another: the compiler compares sixteen octets at a time.
const fn calls_for_rewriting(octet: u8) -> bool {
    let quote_or_hash = octet.wrapping_sub(b'"') < 2;
    let semicolon_or_less = octet.wrapping_sub(b';') < 2;
    let bracket_backslash_or_caret = octet.wrapping_sub(b'[') < 4;
    let brace_or_bar = octet.wrapping_sub(b'{') < 3;
    let alone = (octet == b'%') | (octet == b'>') | (octet == b'`');
    quote_or_hash | semicolon_or_less | bracket_backslash_or_caret | brace_or_bar | alone
}

/// What may stand unencoded in a segment (RFC 3986 `pchar`), except `;`, which begins a parameter.
const fn is_safe(octet: u8) -> bool {
    octet.is_ascii_alphanumeric()
        || matches!(octet, b'-' | b'.' | b'_' | b'~')
        || matches!(octet, b'!' | b'$' | b'&' | b'\'' | b'(' | b')' | b'*' | b'+' | b',' | b'=' | b':' | b'@')
}

/// Decodes what may stand unencoded, encodes what may not, in upper case, and cuts parameters off each segment.
///
/// A segment that consisted of parameters alone is left empty, for `check_segments` to refuse unless it is the last.
fn rewrite(path: &str) -> Result<String, PathProblem> {
    let mut canonical = String::with_capacity(path.len());
    let mut decoded = Vec::with_capacity(path.len());
    for (i, segment) in path.split('/').enumerate() {
        if i > 0 {
            canonical.push('/');
        }
        decoded.clear();
        let parameters = segment.find(';').unwrap_or(segment.len());
        let (name, rest) = segment.split_at(parameters);
        rewrite_segment(name, &mut canonical, &mut decoded)?;
        // Parameters are cut, yet what is malformed in one of them is still refused.
        for parameter in rest.split(';') {
            let mut octets = Vec::new();
            rewrite_segment(parameter, &mut String::new(), &mut octets)?;
            check_text(&octets)?;
        }
        if name.is_empty() && !rest.is_empty() {
            return Err(PathProblem::EmptySegment);
        }
        check_text(&decoded)?;
    }
    Ok(canonical)
}

fn rewrite_segment(segment: &str, canonical: &mut String, decoded: &mut Vec<u8>) -> Result<(), PathProblem> {
    let mut rest = segment.as_bytes();
    while let Some((&octet, tail)) = rest.split_first() {
        if octet != b'%' {
            push(canonical, octet);
            decoded.push(octet);
            rest = tail;
            continue;
        }
        let [high, low, tail @ ..] = tail else { return Err(PathProblem::MalformedEscape) };
        let (Some(h), Some(l)) = (hex_digit(*high), hex_digit(*low)) else { return Err(PathProblem::MalformedEscape) };
        let value = h << 4 | l;
        decoded.push(value);
        match value {
            b'/' | b'\\' | b'%' | b';' | b'?' | b'#' | 0x00..=0x1f | 0x7f => return Err(PathProblem::ReservedEscape),
            _ => push(canonical, value),
        }
        rest = tail;
    }
    Ok(())
}

/// An octet in its one spelling.
fn push(canonical: &mut String, octet: u8) {
    const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
    if is_safe(octet) {
        canonical.push(octet as char);
        return;
    }
    canonical.push('%');
    canonical.push(DIGITS[usize::from(octet >> 4)] as char);
    canonical.push(DIGITS[usize::from(octet & 0xf)] as char);
}

fn check_text(decoded: &[u8]) -> Result<(), PathProblem> {
    let text = std::str::from_utf8(decoded).map_err(|_| PathProblem::NotUtf8)?;
    if text.chars().any(|c| matches!(c, '\u{FF0F}' | '\u{FF3C}')) {
        return Err(PathProblem::NotUtf8);
    }
    if text.chars().any(char::is_control) {
        return Err(PathProblem::ReservedEscape);
    }
    Ok(())
}

const fn hex_digit(octet: u8) -> Option<u8> {
    match octet {
        b'0'..=b'9' => Some(octet - b'0'),
        b'a'..=b'f' => Some(octet - b'a' + 10),
        b'A'..=b'F' => Some(octet - b'A' + 10),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn canonical(target: &str) -> Result<String, PathProblem> {
        canonical_path(target).map(Cow::into_owned)
    }

    #[test]
    fn ordinary_paths_are_borrowed_and_unchanged() {
        for path in ["/", "/orders", "/orders/", "/orders/42", "/a.b/..c/d..", "/a:b@c!$&'()*+,=~_-"] {
            assert!(matches!(canonical_path(path), Ok(Cow::Borrowed(same)) if same == path), "{path}");
        }
    }

    #[test]
    fn query_decides_nothing() {
        assert_eq!(canonical("/public?x=/../admin?y"), Ok("/public".into()));
        assert_eq!(canonical("/public?"), Ok("/public".into()));
    }

    #[test]
    fn what_may_stand_unencoded_does_and_everything_else_is_encoded_in_upper_case() {
        assert_eq!(canonical("/%61dmin"), Ok("/admin".into()));
        assert_eq!(canonical("/%7euser"), Ok("/~user".into()));
        assert_eq!(canonical("/%21%24%26%27%28%29%2a%2B%2c%3d%3A%40"), Ok("/!$&'()*+,=:@".into()));
        assert_eq!(canonical("/a%20b%c3%a9"), Ok("/a%20b%C3%A9".into()));
        assert_eq!(canonical("/{a}|[\"<^`>]"), Ok("/%7Ba%7D%7C%5B%22%3C%5E%60%3E%5D".into()));
        assert_eq!(canonical("/%7ba%7D"), canonical("/{a}"));
    }

    #[test]
    fn path_parameters_are_cut_per_segment_before_matching() {
        assert_eq!(canonical("/admin;x=1/users;y"), Ok("/admin/users".into()));
        assert_eq!(canonical("/admin/style;.css"), Ok("/admin/style".into()));
    }

    #[test]
    fn rows_p1_to_p8_are_refused() {
        use PathProblem::{
            Backslash, DotSegment, EmptySegment, Fragment, MalformedEscape, NotAbsolute, NotUtf8, RawOctet,
            ReservedEscape,
        };
        for (target, problem) in [
            ("/public/../admin", DotSegment),
            ("/public/..", DotSegment),
            ("/./admin", DotSegment),
            ("/public/%2e%2e/admin", DotSegment),
            ("/public/%2E./admin", DotSegment),
            ("/public/..;/admin", DotSegment),
            ("/public/..;x=1/admin", DotSegment),
            ("/.;/admin", DotSegment),
            ("/%2e%2e;a/admin", DotSegment),
            ("//admin", EmptySegment),
            ("/public//admin", EmptySegment),
            ("/public//", EmptySegment),
            ("/public/;/admin", EmptySegment),
            ("/public/;a=b", EmptySegment),
            ("/a;%;41", MalformedEscape),
            ("/a;%2f", ReservedEscape),
            ("/a;x=%c0%af", NotUtf8),
            ("/a;%ef%bc%8f", NotUtf8),
            ("/a%2fb", ReservedEscape),
            ("/a%5cb", ReservedEscape),
            ("/a%00", ReservedEscape),
            ("/a%3bb", ReservedEscape),
            ("/a%3fb", ReservedEscape),
            ("/a%23b", ReservedEscape),
            ("/%252e%252e/admin", ReservedEscape),
            ("/a;%2f", ReservedEscape),
            ("/a%0d%0ab", ReservedEscape),
            ("/a%c2%85", ReservedEscape),
            ("/a\\b", Backslash),
            ("/a#b", Fragment),
            ("/a b", RawOctet),
            ("/a\u{e9}", RawOctet),
            ("/a\tb", RawOctet),
            ("/a%", MalformedEscape),
            ("/a%4", MalformedEscape),
            ("/a%zz", MalformedEscape),
            ("/a%u002f", MalformedEscape),
            ("/a;%zz", MalformedEscape),
            ("/a%c0%af", NotUtf8),
            ("/a%c3", NotUtf8),
            ("/a%ef%bc%8fb", NotUtf8),
            ("/a%EF%BC%BCb", NotUtf8),
            ("", NotAbsolute),
            ("*", NotAbsolute),
            ("admin", NotAbsolute),
            ("http://shop.example/admin", NotAbsolute),
            ("?x", NotAbsolute),
        ] {
            assert_eq!(canonical(target), Err(problem), "{target}");
        }
    }

    #[test]
    fn eight_kibibytes_is_the_longest_path() {
        let fits = format!("/{}", "a".repeat(MAX_PATH - 1));
        assert!(canonical_path(&fits).is_ok());
        assert_eq!(canonical_path(&format!("{fits}a")), Err(PathProblem::TooLong));
        assert_eq!(canonical_path(&format!("/{}", "{".repeat(MAX_PATH / 2))), Err(PathProblem::TooLong));
        assert!(canonical_path(&format!("{fits}?{}", "q".repeat(MAX_PATH))).is_ok());
    }
}
