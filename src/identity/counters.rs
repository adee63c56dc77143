//! What this module counts about itself.

use crate::domain::metric::{Counter, Histogram, Page, Source};

/// Counters of authentication. Read by `ops`.
#[derive(Debug, Default)]
pub struct Counters {
    pub cache_hits: Counter,
    pub cache_misses: Counter,
    /// Refused from the small cache of refusals.
    pub refused_again: Counter,
    pub verified: Counter,
    pub refused: Counter,
    /// Answered 503: queue full, deadline, no keys.
    pub unavailable: Counter,
    pub key_fetches: Counter,
    pub key_fetch_failures: Counter,
    /// Members of key sets that somebody should look at: weak, private, ambiguous.
    pub alarming_keys: Counter,
    /// Opaque tokens about which the authorization server gave an answer, and about which none could be had.
    pub introspections: Counter,
    pub introspection_failures: Counter,
    pub status_list_fetches: Counter,
    pub status_list_failures: Counter,
    pub proofs: Counter,
    /// How long a token that had not been seen took, waiting included.
    pub cold: Histogram,
}

impl Source for Counters {
    fn collect(&self, page: &mut Page) {
        const TOKENS: &str = "Tokens by what became of them";
        for (outcome, counter) in [
            ("remembered", &self.cache_hits),
            ("new", &self.cache_misses),
            ("verified", &self.verified),
            ("refused", &self.refused),
            ("refused_again", &self.refused_again),
            ("unavailable", &self.unavailable),
        ] {
            page.counter("countersign_tokens", TOKENS, &[("outcome", outcome)], counter);
        }
        for (name, help, fine, failed) in [
            ("countersign_key_fetches", "Key sets fetched", &self.key_fetches, &self.key_fetch_failures),
            (
                "countersign_introspections",
                "Opaque tokens asked about",
                &self.introspections,
                &self.introspection_failures,
            ),
            (
                "countersign_status_list_fetches",
                "Status lists fetched",
                &self.status_list_fetches,
                &self.status_list_failures,
            ),
        ] {
            page.counter(name, help, &[("outcome", "ok")], fine);
            page.counter(name, help, &[("outcome", "failed")], failed);
        }
        page.counter(
            "countersign_alarming_keys",
            "Keys ignored because they are weak, private or ambiguous",
            &[],
            &self.alarming_keys,
        );
        page.counter("countersign_dpop_proofs", "DPoP proofs accepted", &[], &self.proofs);
        page.histogram("countersign_token_cold_seconds", "Tokens not seen before, waiting included", &[], &self.cold);
    }
}
