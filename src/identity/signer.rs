//! A party whose signed documents are read here that are no access tokens: security event tokens, logout tokens.
//!
//! The same parsing, keys and algorithms as for access tokens; what the claims must be is the caller's business. A document
//! is never believed before [`Signer::verify`] has said so, and nothing here can make an identity of one.

use std::sync::Arc;

use serde_json::Value;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::{
    Algorithm, Counters, Fetcher, IssuerSettings,
    issuer::IssuerState,
    jws::Jws,
    keys::{Discovery, Keeper, Known, Refetch},
    search::Search,
    settings::KeySetSettings,
};
use crate::{clock::Clock, domain::UnixTime};

/// Whose documents, and how they are signed.
#[derive(Clone, Debug)]
pub struct SignerSettings {
    /// The exact `iss`.
    pub issuer: String,
    /// Address or file of the key set. Without it: discovery.
    pub jwks: Option<String>,
    pub algorithms: Vec<Algorithm>,
    /// Discovery as shared signals do it rather than OpenID Connect.
    pub shared_signals: bool,
}

/// A compact JWS taken apart; nothing about it is verified yet.
#[derive(Debug)]
pub struct Signed<'t> {
    jws: Jws<'t>,
    payload: Value,
    typ: Option<String>,
}

/// Why a document is not known to be its issuer's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SignerProblem {
    #[error("the algorithm is not one of those configured")]
    Algorithm,
    #[error("it names no key (`kid`), or one that the issuer does not have")]
    Key,
    #[error("the signature does not verify")]
    Signature,
    /// May pass: no keys yet, they are too old to be relied on, or were fetched too recently to ask for another.
    #[error("the issuer's keys cannot be had just now")]
    NotReady,
}

impl<'t> Signed<'t> {
    /// `None`: not a compact JWS of canonical base64url over strict JSON objects, or with header extensions. The caller bounds its length.
    pub fn parse(text: &'t str) -> Option<Self> {
        let jws = Jws::parse_large(text).ok()?;
        jws.refuse_extensions().ok()?;
        let (payload, typ) = (jws.payload().ok()?, jws.typ().ok()?);
        Some(Self { jws, payload, typ })
    }

    /// In lower case and without `application/`; `None`: absent.
    pub fn typ(&self) -> Option<&str> {
        self.typ.as_deref()
    }

    /// The claims, unverified until [`Signer::verify`].
    pub const fn payload(&self) -> &Value {
        &self.payload
    }
}

/// A signer and its keys, kept fresh.
#[derive(Debug)]
pub struct Signer {
    state: IssuerState,
    clock: Clock,
}

impl Signer {
    /// Begins to keep the signer's keys until cancelled. Waits for nothing. `counters`: where its fetches are counted.
    pub fn start(
        settings: &SignerSettings,
        key_sets: &KeySetSettings,
        fetcher: &Arc<Fetcher>,
        counters: &Arc<Counters>,
        clock: Clock,
        cancel: CancellationToken,
    ) -> Arc<Self> {
        let mut issuer = IssuerSettings::new(&*settings.issuer, Vec::<String>::new());
        issuer.jwks.clone_from(&settings.jwks);
        issuer.algorithms.clone_from(&settings.algorithms);
        let signer = Arc::new(Self { state: IssuerState::new(issuer.clone(), key_sets), clock: clock.clone() });
        let keeper = Keeper {
            discovery: if settings.shared_signals { Discovery::SharedSignals } else { Discovery::OpenId },
            issuer,
            keys: Arc::clone(&signer.state.keys),
            settings: key_sets.clone(),
            fetcher: Arc::clone(fetcher),
            counters: Arc::clone(counters),
            clock,
        };
        tokio::spawn(keeper.run(cancel));
        signer
    }

    pub fn issuer(&self) -> &str {
        &self.state.settings.issuer
    }

    /// Whether a key set is at hand that may be relied on.
    pub fn is_ready(&self, now: UnixTime) -> bool {
        self.state.keys.ever_known() && self.state.keys.is_fresh(now)
    }

    /// Whether the signature is this signer's. A key that is not known is asked for once, until `deadline`.
    ///
    /// # Errors
    ///
    /// Why it is not, or cannot be told.
    pub async fn verify(&self, document: &Signed<'_>, deadline: Instant) -> Result<(), SignerProblem> {
        let mut search = Search::default();
        loop {
            let found = self.look(document);
            let kid = match &found {
                Err(SignerProblem::Key) => Some(document.jws.kid().ok_or(SignerProblem::Key)?),
                Err(SignerProblem::NotReady) => None,
                _ => return found,
            };
            match search.again(&self.state.keys, kid, deadline).await {
                Ok(()) => {}
                Err(Refetch::Done | Refetch::Joined) => return found,
                // Somebody's made-up key may have spent the cool-down: that says nothing of this one. The next fetch does.
                Err(Refetch::NotNow | Refetch::Failed | Refetch::Late) => return Err(SignerProblem::NotReady),
            }
        }
    }

    fn look(&self, document: &Signed<'_>) -> Result<(), SignerProblem> {
        let algorithm = document.jws.alg().and_then(Algorithm::parse).ok_or(SignerProblem::Algorithm)?;
        if !self.state.settings.algorithms.contains(&algorithm) {
            return Err(SignerProblem::Algorithm);
        }
        let kid = document.jws.kid().ok_or(SignerProblem::Key)?;
        let Known::Set(set) = self.state.keys.known(self.clock.now()) else { return Err(SignerProblem::NotReady) };
        let key = set.find(kid, algorithm).map_err(|_| SignerProblem::Key)?;
        if key.verify(algorithm, document.jws.input.as_bytes(), &document.jws.signature) {
            Ok(())
        } else {
            Err(SignerProblem::Signature)
        }
    }
}
