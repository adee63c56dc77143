//! What the tests through real Envoys stand on: processes that end with their test, free ports, tokens, a raw client.

pub mod browser;
pub mod countersign;
pub mod envoy;
pub mod front;
pub mod http;
pub mod key_sets;
pub mod otlp;
pub mod ports;
pub mod process;
pub mod receiver;
pub mod sample;
pub mod stack;
pub mod streams;
pub mod tls;
pub mod tokens;

use std::{
    fs,
    path::{Path, PathBuf},
};

/// A program below `.tools/`, as `tests/tools.sh` places it. Missing is a failure, never a skip.
pub fn tool(name: &str) -> PathBuf {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(".tools").join(name);
    assert!(path.exists(), "{} is not there: run `make tools` (or `make test`, which does)", path.display());
    path
}

/// Notes that an Envoy's client was refused for this reason; `make test` names the reasons that nobody was.
pub fn record_reason(code: &str) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/tests-ran/reasons");
    let known = !code.is_empty() && code.bytes().all(|octet| octet.is_ascii_lowercase() || octet == b'_');
    if known {
        fs::create_dir_all(&folder).and_then(|()| fs::write(folder.join(code), "")).expect("target/ is writable");
    }
}

/// Notes that the running test used something real; `make test` counts the notes.
pub fn record_real(what: &str) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/tests-ran").join(what);
    let test = std::thread::current().name().unwrap_or("unnamed").replace("::", ".");
    fs::create_dir_all(&folder).and_then(|()| fs::write(folder.join(test), "")).expect("target/ is writable");
}
