//! Text of a claim as it may be kept: non-blank, bounded, without anything that a log or terminal would obey.

use crate::domain::text::is_format;

/// Longest claim, in characters.
pub(super) const MAX_CHARS: usize = 1024;

/// Whether `text` may be an identifier: 1 to 1024 characters, not all blank, no control, format or separator character.
pub(super) fn is_clean(text: &str) -> bool {
    if text.is_ascii() {
        // Without a way out in the middle: sixteen octets at a time.
        let (printable, blank) = text.bytes().fold((true, true), |(printable, blank), octet| {
            (printable & (octet >= 0x20) & (octet != 0x7f), blank & (octet == b' '))
        });
        return text.len() <= MAX_CHARS && printable && !blank;
    }
    let mut blank = true;
    for (i, c) in text.chars().enumerate() {
        if i >= MAX_CHARS || c.is_control() || is_format(c) {
            return false;
        }
        blank &= c.is_whitespace();
    }
    !blank
}

/// Whether `text` fits `pattern`, in which `*` stands for any run of characters.
pub(super) fn matches_pattern(pattern: &str, text: &str) -> bool {
    let Some((head, rest)) = pattern.split_once('*') else { return pattern == text };
    let Some(mut text) = text.strip_prefix(head) else { return false };
    let mut parts: Vec<&str> = rest.split('*').collect();
    let tail = parts.pop().unwrap_or_default();
    for part in parts {
        let Some(at) = text.find(part) else { return false };
        text = &text[at + part.len()..];
    }
    text.ends_with(tail)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identifiers_hold_nothing_that_a_terminal_obeys() {
        for text in ["alice", "Zoë", "a b", "日本語", "spiffe://td/ns/a", &"x".repeat(1024)] {
            assert!(is_clean(text), "{text}");
        }
        for text in ["", " ", "\u{3000}", "a\0b", "a\r\nb", "\u{202e}x", "\x1b[31m", "a\u{200b}", "a\u{7f}", "é\u{85}"]
        {
            assert!(!is_clean(text), "{text:?}");
        }
        assert!(!is_clean(&"x".repeat(1025)));
        assert!(!is_clean(&"é".repeat(1025)));
    }

    #[test]
    fn a_star_stands_for_any_run_of_characters() {
        for (pattern, text) in
            [("*", ""), ("*", "x"), ("partner-*", "partner-a"), ("*-ro", "x-ro"), ("a*b*c", "a1b2b3c")]
        {
            assert!(matches_pattern(pattern, text), "{pattern} {text}");
        }
        for (pattern, text) in [("partner-*", "admin"), ("a", "ab"), ("a*a", "a"), ("a*b*c", "acb"), ("", "x")] {
            assert!(!matches_pattern(pattern, text), "{pattern} {text}");
        }
    }
}
