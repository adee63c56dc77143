//! One issuer at run time: its settings and its keys.

use std::{sync::Arc, time::Duration};

use parking_lot::Mutex;

use super::{
    keys::Keys,
    settings::{IssuerSettings, KeySetSettings},
};
use crate::domain::UnixTime;

/// How long it is remembered that a clock was ahead: somebody may have set it right.
const LEAD_KEPT: Duration = Duration::from_secs(3600);

/// An issuer whose tokens are accepted.
#[derive(Debug)]
pub(super) struct IssuerState {
    pub settings: IssuerSettings,
    pub keys: Arc<Keys>,
    pub lead: Lead,
    /// `typ` values in lower case, without `application/`.
    types: Vec<String>,
}

impl IssuerState {
    pub(super) fn new(settings: IssuerSettings, key_sets: &KeySetSettings) -> Self {
        let types = settings
            .token_types
            .iter()
            .map(|typ| typ.to_ascii_lowercase())
            .map(|typ| typ.strip_prefix("application/").map_or(typ.clone(), str::to_owned))
            .collect();
        Self { settings, keys: Arc::new(Keys::new(key_sets)), lead: Lead::default(), types }
    }

    /// Whether a token of this `typ` may be an access token of this issuer; `JWT` also means none.
    pub(super) fn accepts_type(&self, typ: Option<&str>) -> bool {
        let typ = typ.unwrap_or("jwt");
        self.types.iter().any(|accepted| accepted == typ)
    }

    /// Whether its tokens are verified by its keys, rather than all asked about.
    pub(super) fn has_keys(&self) -> bool {
        self.settings.jwks.is_some() || self.settings.introspection.is_none()
    }
}

/// How far an issuer's clock is ahead of ours at least, in whole seconds, and when that was seen last. Its tokens show it: none
/// is here before it was issued.
#[derive(Debug, Default)]
pub(super) struct Lead(Mutex<Option<(u64, UnixTime)>>);

impl Lead {
    /// When a token that says `issued_at` was issued at the latest, by our clock, which is the one of revocations. What an issuer
    /// whose clock is right says is left as it is.
    pub(super) fn by_our_clock(&self, issued_at: UnixTime, now: UnixTime) -> UnixTime {
        let ahead = issued_at.since(now).as_secs();
        let mut lead = self.0.lock();
        if lead.is_none_or(|(most, seen)| ahead >= most || now.since(seen) > LEAD_KEPT) {
            *lead = (ahead > 0).then_some((ahead, now));
        }
        issued_at.minus(Duration::from_secs(lead.map_or(0, |(most, _)| most))).min(now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_clock_that_is_ahead_has_dated_is_put_back_by_what_was_seen() {
        let (lead, at) = (Lead::default(), UnixTime::from_secs);
        assert_eq!(lead.by_our_clock(at(1005), at(1005)), at(1005));
        assert_eq!(lead.by_our_clock(at(1015), at(1020)), at(1015), "nothing has shown it yet");
        assert_eq!(lead.by_our_clock(at(1045), at(1030)), at(1030), "15 s ahead");
        assert_eq!(lead.by_our_clock(at(1044), at(1050)), at(1029), "signed before, seen after");
        assert_eq!(lead.by_our_clock(at(1065), at(1052)), at(1050), "the farthest counts");
        assert_eq!(lead.by_our_clock(at(1065), at(1030 + 3601)), at(1065), "and not for ever");
        let millis = UnixTime::from_millis;
        assert_eq!(lead.by_our_clock(at(9000), millis(8_999_500)), millis(8_999_500));
        assert_eq!(lead.by_our_clock(at(9001), millis(9_002_000)), at(9001), "less than a second is none");
    }
}
