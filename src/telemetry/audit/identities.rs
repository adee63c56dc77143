//! Identities as they stand in records, made once for many requests with one token.

use std::{
    cell::RefCell,
    sync::{Arc, Weak},
};

use serde_json::{
    Value,
    value::{RawValue, to_raw_value},
};

use super::{facts::OF_IDENTITY, record::fingerprint};
use crate::domain::Identity;

/// Places of one thread, a power of two. Two tokens in one place cost the work again, nothing else.
const PLACES: usize = 256;

thread_local! {
    static KNOWN: RefCell<Vec<Option<Known>>> = RefCell::new(std::iter::repeat_with(|| None).take(PLACES).collect());
}

struct Known {
    /// Holds the allocation, not the identity: its address can be no other identity's while this is here.
    identity: Weak<Identity>,
    json: Box<RawValue>,
}

/// What `then` makes of an identity as it stands in records: without what stands at the head of the line, and with the
/// [`fingerprint`] for the token's id.
pub(super) fn with_json<T>(
    identity: &Arc<Identity>,
    then: impl FnOnce(&RawValue) -> Result<T, serde_json::Error>,
) -> Result<T, serde_json::Error> {
    KNOWN.with_borrow_mut(|known| {
        let place = &mut known[place(identity)];
        let found = place.take().filter(|known| std::ptr::eq(known.identity.as_ptr(), Arc::as_ptr(identity)));
        let found = match found {
            Some(found) => found,
            None => Known { identity: Arc::downgrade(identity), json: shortened(identity)? },
        };
        then(&place.insert(found).json)
    })
}

fn shortened(identity: &Identity) -> Result<Box<RawValue>, serde_json::Error> {
    let token_id = fingerprint(identity.token_id.as_str()).into();
    let mut json = serde_json::to_value(Identity { token_id, ..identity.clone() })?;
    if let Value::Object(members) = &mut json {
        members.retain(|name, _| !OF_IDENTITY.contains(&name.as_str()));
    }
    to_raw_value(&json)
}

/// The upper bits of a multiplicative hash: the lower bits of addresses are alike.
fn place(identity: &Arc<Identity>) -> usize {
    const FIBONACCI: u64 = 0x9e37_79b9_7f4a_7c15;
    let address = Arc::as_ptr(identity).addr() as u64;
    (address.wrapping_mul(FIBONACCI) >> (u64::BITS - PLACES.trailing_zeros())) as usize
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::audit::sample::facts;

    fn identity(token_id: &str) -> Arc<Identity> {
        Arc::new(Identity { token_id: token_id.into(), ..Identity::clone(facts().identity().unwrap()) })
    }

    fn json(identity: &Arc<Identity>) -> String {
        with_json(identity, |json| Ok(json.get().to_owned())).unwrap()
    }

    #[test]
    fn an_identity_is_never_taken_for_another_whoever_had_its_place_or_address_before() {
        // Dropped at once, so that allocations are used again; far more of them than there are places.
        for number in 0..20 * PLACES {
            let token_id = format!("jti-{number}");
            let identity = identity(&token_id);
            for _ in 0..2 {
                let text = json(&identity);
                assert!(text.contains(&fingerprint(&token_id)) && !text.contains(&token_id), "{text}");
            }
        }
    }

    #[test]
    fn an_identity_that_is_changed_in_its_place_is_another() {
        let mut first = identity("one");
        json(&first);
        Arc::make_mut(&mut first).token_id = "two".into();
        assert!(json(&first).contains(&fingerprint("two")));
    }
}
