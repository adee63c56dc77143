//! Reads a `User-Agent` into a family: operating system, browser, major version.
//!
//! The family is what a person does not change by accident, so versions are kept apart from it. The
//! header is the caller's claim: it is compared with the same caller's past, never believed.

use serde::{Deserialize, Serialize};

use super::hash;

/// Operating system and browser without versions, in 16 bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
pub struct Family(u16);

/// What a `User-Agent` header says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
pub struct Agent {
    /// Operating system and browser.
    pub family: Family,
    /// Major version of the browser; 0 when there is none.
    pub version: u16,
}

impl Family {
    /// Phones and tablets: their address changes as they move.
    #[must_use]
    pub fn is_mobile(self) -> bool {
        self.0 & TOOL == 0 && matches!((self.0 >> 8) & 0xf, IPHONE | ANDROID)
    }

    /// A library or a script rather than a browser.
    #[must_use]
    pub fn is_tool(self) -> bool {
        self.0 & TOOL != 0
    }

    /// The bits, for a slot of a profile.
    #[must_use]
    pub fn bits(self) -> u16 {
        self.0
    }

    /// The family whose bits these are.
    #[must_use]
    pub fn from_bits(bits: u16) -> Self {
        Self(bits)
    }

    /// The 32-bit key of the family's slot.
    #[must_use]
    pub fn key(self) -> u32 {
        u32::from(self.0) | 0x1_0000
    }
}

impl Agent {
    /// Parses a `User-Agent` header; an absent one is the empty string.
    #[must_use]
    pub fn parse(header: &str) -> Self {
        let header = header.trim();
        if !header.starts_with("Mozilla/") && !header.starts_with("Opera/") {
            return Self { family: tool_of(header), version: 0 };
        }
        let (mut system, mut browser, mut version) = (None, None, 0);
        for word in header.split([' ', '(', ';', ')']) {
            system = best(system, word, SYSTEMS.iter().map(|(marker, _)| *marker));
            let found = best(browser, word, BROWSERS.iter().map(|(token, _)| *token));
            if found != browser {
                browser = found;
                version = found.map_or(0, |place| digits(&word[BROWSERS[place].0.len()..]));
            }
        }
        let system = system.map_or(0, |place| SYSTEMS[place].1);
        match browser {
            Some(place) => Self { family: Family(system << 8 | BROWSERS[place].1), version },
            None => Self { family: tool_of(header), version: 0 },
        }
    }
}

const TOOL: u16 = 0x8000;
const WINDOWS: u16 = 1;
const MAC: u16 = 2;
const LINUX: u16 = 3;
const IPHONE: u16 = 4;
const ANDROID: u16 = 5;
const CHROME_OS: u16 = 6;

/// Markers in the order in which they must be tried: an iPhone also says "Mac OS X", Android also "Linux".
const SYSTEMS: [(&str, u16); 8] = [
    ("Windows", WINDOWS),
    ("iPhone", IPHONE),
    ("iPad", IPHONE),
    ("Android", ANDROID),
    ("CrOS", CHROME_OS),
    ("Macintosh", MAC),
    ("Linux", LINUX),
    ("X11", LINUX),
];

/// Product tokens in the order in which they must be tried: every Edge also says Chrome and Safari.
const BROWSERS: [(&str, u16); 12] = [
    ("Edg/", 1),
    ("EdgA/", 1),
    ("EdgiOS/", 1),
    ("OPR/", 2),
    ("SamsungBrowser/", 3),
    ("Vivaldi/", 4),
    ("HeadlessChrome/", 5),
    ("Firefox/", 6),
    ("FxiOS/", 6),
    ("CriOS/", 7),
    ("Chrome/", 7),
    ("Version/", 8),
];

/// The best of a table's markers that a word of the header begins with; earlier ones win.
fn best(best: Option<usize>, word: &str, mut markers: impl Iterator<Item = &'static str>) -> Option<usize> {
    match markers.position(|marker| word.as_bytes().first() == marker.as_bytes().first() && word.starts_with(marker)) {
        Some(place) if best.is_none_or(|best| place < best) => Some(place),
        _ => best,
    }
}

fn digits(text: &str) -> u16 {
    let digits = text.bytes().take_while(u8::is_ascii_digit).take(4);
    digits.fold(0, |sum, byte| sum * 10 + u16::from(byte - b'0'))
}

/// `curl/8.7.1`, `python-requests/2.32`, `svc-3/1.2`: the name before the version is the family.
fn tool_of(header: &str) -> Family {
    let name = header.split(['/', ' ', ';']).next().unwrap_or_default();
    Family(TOOL | (hash::stable(name.as_bytes()) as u16 & 0x7fff))
}

#[cfg(test)]
mod tests {
    use super::*;

    const CHROME: &str = "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/142.0.0.0 Safari/537.36";
    const EDGE: &str = "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/142.0.0.0 Safari/537.36 Edg/142.0.3595.53";
    const SAFARI: &str = "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/26.0 Safari/605.1.15";
    const IPHONE_SAFARI: &str = "Mozilla/5.0 (iPhone; CPU iPhone OS 18_6 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/26.0 Mobile/15E148 Safari/604.1";
    const PIXEL: &str = "Mozilla/5.0 (Linux; Android 16; Pixel 9) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/142.0.0.0 Mobile Safari/537.36";

    #[test]
    fn an_upgrade_keeps_the_family_and_raises_the_version() {
        let old = Agent::parse(CHROME);
        let new = Agent::parse(&CHROME.replace("142", "143"));
        assert_eq!(old.family, new.family);
        assert_eq!((old.version, new.version), (142, 143));
    }

    #[test]
    fn browsers_that_name_each_other_are_told_apart() {
        let families: Vec<Family> =
            [CHROME, EDGE, SAFARI, IPHONE_SAFARI, PIXEL].iter().map(|h| Agent::parse(h).family).collect();
        for (i, left) in families.iter().enumerate() {
            assert!(families[i + 1..].iter().all(|right| left != right));
        }
        assert!(families[3].is_mobile() && families[4].is_mobile() && !families[0].is_mobile());
    }

    #[test]
    fn tools_are_known_by_name() {
        assert_eq!(Agent::parse("curl/8.7.1").family, Agent::parse("curl/8.9.0").family);
        assert_ne!(Agent::parse("curl/8.7.1").family, Agent::parse("python-requests/2.32").family);
        assert!(Agent::parse("curl/8.7.1").family.is_tool() && Agent::parse("").family.is_tool());
    }

    #[test]
    fn nothing_a_caller_sends_breaks_the_parser() {
        for header in ["", "/", "Mozilla/", "Mozilla/5.0 Chrome/", "Mozilla/5.0 Chrome/99999999999", "é/1", "\u{0}"] {
            let _ = Agent::parse(header);
        }
    }
}
