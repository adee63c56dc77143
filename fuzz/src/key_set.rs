//! Key sets: whatever an issuer serves is read without a panic, and only public signature keys of it are usable.

use std::collections::BTreeMap;

use countersign::identity::probe::key_set;
use serde_json::{Value, value::RawValue};

pub fn run(data: &[u8]) {
    let Ok((usable, ignored)) = key_set(data) else { return };
    // What was read is JSON that others read too (they keep the last of two members; keys with those are ours to drop).
    let set: BTreeMap<String, &RawValue> = serde_json::from_slice(data).expect("a key set is a JSON object");
    let keys: Vec<&RawValue> = serde_json::from_str(set["keys"].get()).expect("a key set has a list of keys");
    assert!(usable >= 1, "a set without a usable key replaces no good one");
    assert!(
        usable + ignored.len() <= keys.len() * 2,
        "{usable} usable and {} ignored of {}",
        ignored.len(),
        keys.len()
    );
    let read = keys.iter().filter_map(|key| serde_json::from_str::<Value>(key.get()).ok());
    let candidates = read.filter(|key| {
        let kind = key["kty"].as_str();
        matches!(kind, Some("RSA" | "EC" | "OKP")) && key.get("d").is_none() && key["kid"].is_string()
    });
    assert!(usable <= candidates.count(), "{usable} usable keys: {keys:?}");
}
