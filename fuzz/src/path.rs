//! Any text as a request target: the canonicaliser and a slow obvious reference must agree, and a canonical path must be
//! its own canonical path.

use countersign::domain::path::canonical_path;

use super::reference::path::canonical;

pub fn run(data: &[u8]) {
    let Ok(target) = std::str::from_utf8(data) else { return };
    let fast = canonical_path(target).ok();
    assert_eq!(fast.as_deref(), canonical(target).as_deref(), "{target:?}");
    if let Some(path) = fast {
        assert_eq!(canonical_path(&path).as_deref(), Ok(&*path), "not its own canonical form");
        assert!(path.starts_with('/') && path.bytes().all(|octet| (0x21..=0x7e).contains(&octet)), "{path:?}");
        assert!(!path.contains(['?', '#', ';', '\\']), "{path:?}");
        assert!(!path.split('/').any(|segment| matches!(segment, "." | "..")), "{path:?}");
    }
}
