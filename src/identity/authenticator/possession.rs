//! Proof of possession: a DPoP proof that is right and used once, or the certificate that a token is bound to.

use std::sync::Arc;

use tokio::time::{Instant, timeout_at};

use super::{
    super::{
        Detail,
        dpop::{self, Nonces, ProvenRequest},
        entry::TokenEntry,
        peer::Peer,
        settings::Settings,
    },
    Authenticator, Error, Miss, Presented,
};
use crate::{
    domain::{Possession, Unavailable, UnixTime},
    store::{StoreErrorKind, keys},
};

impl Authenticator {
    /// RFC 9449: exactly one proof, checked on a verifier thread, never seen before. `only_look`: nor now.
    pub(super) async fn prove(
        &self,
        request: ProvenRequest,
        only_look: bool,
        deadline: Instant,
    ) -> Result<Possession, Miss> {
        let (settings, nonces) = (self.settings.dpop.clone(), self.nonces.clone());
        let (sender, receiver) = tokio::sync::oneshot::channel();
        let queued = self.pool.submit(move || {
            let _ = sender.send(dpop::check(&request, &settings, nonces.as_deref()));
        });
        if !queued {
            return Err(Unavailable::Overloaded.into());
        }
        let checked = timeout_at(deadline, receiver).await.map_err(|_| Unavailable::Timeout)?;
        let id = checked.map_err(|_| Unavailable::Internal)??;
        self.first_use(&id, only_look, deadline).await?;
        self.counters.proofs.increment();
        Ok(Possession::Dpop)
    }

    pub(super) fn proven_request(
        &self,
        presented: &Presented<'_>,
        entry: &TokenEntry,
        thumbprint: &str,
    ) -> Result<ProvenRequest, Detail> {
        let credentials = presented.credentials;
        let text = |octets| std::str::from_utf8(octets).map_err(|_| Detail::ProofOtherRequest);
        let proof = match credentials.dpop.only() {
            Ok(Some(proof)) => std::str::from_utf8(proof).map_err(|_| Detail::ProofMalformed)?,
            Ok(None) | Err(()) => return Err(Detail::ProofMalformed),
        };
        let dpop = &self.settings.dpop;
        let scheme = dpop.external_scheme.as_deref().map_or_else(|| text(credentials.scheme), Ok)?;
        let host = dpop.external_host.as_deref().map_or_else(|| text(credentials.host), Ok)?;
        Ok(ProvenRequest {
            proof: proof.to_owned(),
            method: text(credentials.method)?.to_owned(),
            url: format!("{scheme}://{host}{}", text(credentials.path)?),
            token_sha256: *entry.token_sha256(presented.token),
            thumbprint: thumbprint.to_owned(),
            now: presented.now,
        })
    }

    /// One atomic step at the store, so that no two replicas accept the same proof.
    async fn first_use(&self, id: &[u8; 32], only_look: bool, deadline: Instant) -> Result<(), Miss> {
        let key = keys::dpop_proof(id);
        let life = self.settings.dpop.window.get() + self.settings.dpop.skew.get();
        let first = async {
            if !only_look {
                return self.store.create(&key, b"1", Some(life)).await;
            }
            let held = self.store.read(std::slice::from_ref(&key)).await?;
            held.into_iter().next().unwrap_or(Ok(None)).map(|held| held.is_none())
        };
        match timeout_at(deadline, first).await.map_err(|_| Unavailable::Timeout)? {
            Ok(true) => Ok(()),
            Ok(false) => Err(Detail::ProofReplayed.into()),
            Err(error) if error.kind == StoreErrorKind::Timeout => Err(Unavailable::Timeout.into()),
            Err(_) => Err(Unavailable::Store.into()),
        }
    }
}

/// RFC 8705: the certificate of this connection is the one that the token names. One whose time is over, on a connection that
/// outlives it, keeps the token good and proves nothing more.
pub(super) fn certificate_matches(
    peer: Option<&Peer>,
    sum: &[u8; 32],
    now: UnixTime,
) -> Result<Option<Possession>, Detail> {
    let (peer, shown) = peer.and_then(|peer| Some((peer, peer.sha256?))).ok_or(Detail::CertificateMissing)?;
    if shown != *sum {
        return Err(Detail::CertificateMismatch);
    }
    Ok(peer.is_in_time(now).then_some(Possession::Certificate))
}

/// Nonces of the configured secret, else of one of our own that no other replica knows.
pub(super) fn nonces(settings: &Settings) -> Result<Option<Arc<Nonces>>, Error> {
    if !settings.dpop.enabled || !settings.dpop.nonce {
        return Ok(None);
    }
    if let Some(secret) = &settings.dpop.nonce_secret {
        return Ok(Some(Arc::new(Nonces::new(secret.expose().as_bytes()))));
    }
    let mut secret = [0; 32];
    aws_lc_rs::rand::fill(&mut secret).map_err(|_| Error::Random)?;
    Ok(Some(Arc::new(Nonces::new(&secret))))
}
