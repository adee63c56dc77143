//! The one hash of the model: stable across processes, replicas and restarts.
//!
//! Profiles keep hashes instead of names: they are smaller and fixed in size. They hide little: whoever has a profile can try
//! all networks and countries. It is not keyed either, and inputs with the hash of a given one are easy to find: whoever wants
//! to be taken for a known device would have to know that device already, and could simply name it. Subjects and sessions go by
//! a SHA-256 (`crate::behavior`): who may choose his own name must not be able to choose whose past is his.

/// Hashes bytes to 64 bits; the same on every machine and in every version of this model.
#[must_use]
pub fn stable(bytes: &[u8]) -> u64 {
    let mut state = mix(SEED ^ bytes.len() as u64, MULTIPLIER);
    let mut chunks = bytes.chunks_exact(8);
    for chunk in &mut chunks {
        let mut word = [0_u8; 8];
        word.copy_from_slice(chunk);
        state = mix(state ^ u64::from_le_bytes(word), MULTIPLIER);
    }
    let mut tail = [0_u8; 8];
    let rest = chunks.remainder();
    tail[..rest.len()].copy_from_slice(rest);
    mix(state ^ u64::from_le_bytes(tail), SEED)
}

/// Combines two hashes; the order matters.
#[must_use]
pub fn join(left: u64, right: u64) -> u64 {
    mix(left ^ MULTIPLIER, right ^ SEED)
}

/// The 32-bit key kept in a slot; never 0, which marks an empty slot.
#[must_use]
pub fn short(key: u64) -> u32 {
    let folded = (key >> 32) as u32 ^ key as u32;
    if folded == 0 { 1 } else { folded }
}

const SEED: u64 = 0x9e37_79b9_7f4a_7c15;
const MULTIPLIER: u64 = 0xd6e8_feb8_6659_fd93;

/// Folds the 128-bit product of two words: a full avalanche for one multiplication.
fn mix(left: u64, right: u64) -> u64 {
    let wide = u128::from(left) * u128::from(right | 1);
    (wide >> 64) as u64 ^ wide as u64 ^ left.rotate_left(29)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_never_change_between_versions() {
        assert_eq!(stable(b""), stable(&[]));
        assert_ne!(stable(b"a"), stable(b"a\0"));
        assert_ne!(stable(b"laptop-1"), stable(b"laptop-2"));
        assert_ne!(join(1, 2), join(2, 1));
    }

    #[test]
    fn short_keys_of_near_names_do_not_collide() {
        let keys: std::collections::HashSet<u32> =
            (0..20_000).map(|i| short(stable(format!("device-{i}").as_bytes()))).collect();
        assert!(keys.len() > 19_990);
    }
}
