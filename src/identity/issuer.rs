//! One issuer at run time: its settings and its keys.

use std::sync::Arc;

use super::{
    keys::Keys,
    settings::{IssuerSettings, KeySetSettings},
};

/// An issuer whose tokens are accepted.
#[derive(Debug)]
pub(super) struct IssuerState {
    pub settings: IssuerSettings,
    pub keys: Arc<Keys>,
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
        Self { settings, keys: Arc::new(Keys::new(key_sets)), types }
    }

    /// Whether a token of this `typ` may be an access token of this issuer; `JWT` also means none.
    pub(super) fn accepts_type(&self, typ: Option<&str>) -> bool {
        let typ = typ.unwrap_or("jwt");
        self.types.iter().any(|accepted| accepted == typ)
    }

    /// Whether this issuer signs tokens at all, rather than being asked about opaque ones.
    pub(super) fn has_keys(&self) -> bool {
        self.settings.jwks.is_some() || self.settings.introspection.is_none()
    }
}
