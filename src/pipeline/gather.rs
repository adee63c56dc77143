//! Gathering: what the stages know of one request. Looks things up, judges nothing.
//!
//! Without a verified identity no store is asked: a junk token costs no round trip.

use std::{net::IpAddr, sync::Arc};

use tokio::time::Instant;

use super::{Pipeline, Stage, Stopwatch, outcome::Beside, request::Carried};
use crate::{
    behavior::{LastAgent, TokenKeys},
    decision::{Needs, Target},
    device::DeviceQuery,
    domain::{DeviceId, Fact, Facts, Revocation, UnixTime, Workload},
    identity::TokenEntry,
    revocation::CheckedAt,
    session,
};

/// What is looked up of one verified caller, and by what.
struct Asked<'a> {
    entry: &'a TokenEntry,
    needs: Needs,
    device: DeviceQuery<'a>,
    /// The device that the request names.
    named: Option<DeviceId>,
    client: Option<IpAddr>,
    /// The workload that hands the request on, where it must be one.
    between: Option<Arc<TokenEntry>>,
    now: UnixTime,
    deadline: Instant,
}

impl Pipeline {
    pub(super) async fn gather(
        &self,
        carried: &Carried<'_>,
        facts: &mut Facts,
        beside: &mut Beside,
        target: &Target<'_>,
        deadline: Instant,
    ) {
        let credentials = &carried.credentials;
        let now = facts.now;
        let needs = target.needs();

        let stage = Stopwatch::now();
        let traced = beside.stage("authenticate");
        let authentication = self.authenticator.authenticate(credentials, now, deadline).await;
        let authenticated = Stopwatch::now();
        self.counters.time(Stage::Authenticate, authenticated.duration_since(stage));
        drop(traced);
        beside.detail = authentication.detail;
        facts.workload = authentication.workload;
        facts.credential = authentication.credential;
        beside.by_dpop = authentication.by_dpop;
        beside.dpop_nonce = authentication.nonce;
        let Some(entry) = authentication.entry else { return };

        let _traced = beside.stage("gather");
        let thumbprint = facts.workload.value().and_then(|peer| peer.cert_sha256.clone());
        let shown = self.authenticator.certificate(credentials);
        let certificate = thumbprint.as_ref().map(|sum| self.devices.certificate(sum, shown, now));
        let device = DeviceQuery {
            id: carried.device.as_deref(),
            fingerprint: carried.fingerprint.as_deref(),
            token_device: entry.identity.device.as_ref(),
            cert_sha256: thumbprint.as_deref(),
            of_workload: facts.workload.value().is_some_and(Workload::is_trusted),
            certificate,
            jkt: authentication.jkt.as_deref(),
        };
        let named = device.named();
        let between = if needs.workload { self.authenticator.workload(credentials, now) } else { None };
        if needs.identity {
            facts.place = self.locator.locate(facts.request.client, now);
        }
        let asked = Asked { entry: &entry, needs, device, named, client: facts.request.client, between, now, deadline };
        let lacking = self.remembered(&asked, facts, beside);
        if lacking != Lacking::default() {
            Box::pin(self.look_up(&asked, lacking, facts, beside)).await;
        }
        if needs.identity {
            let agent = || entry.facts::<LastAgent>().read(carried.agent());
            self.observe((entry.facts::<TokenKeys>(), agent), facts, beside, target, deadline).await;
        }
        self.counters.time(Stage::Gather, authenticated.elapsed());
    }

    /// Fills in what memory knows, and says what it does not: nearly always nothing, and then nothing is waited for.
    fn remembered(&self, asked: &Asked<'_>, facts: &mut Facts, beside: &mut Beside) -> Lacking {
        let (identity, named, now) = (&asked.entry.identity, asked.named.as_ref(), asked.now);
        let own = asked.entry.facts::<session::Slot>();
        let mut lacking = Lacking::default();
        match self.revocation_remembered(asked) {
            Some(revocation) => facts.revocation = revocation,
            None => lacking.revocation = true,
        }
        match self.notices.remembered(identity, (|| own.text(identity), named), now) {
            Some(notice) => facts.notice = notice,
            None => lacking.notice = true,
        }
        if asked.needs.device || identity.device.is_some() {
            match self.devices.remembered(&asked.device, named) {
                Some(device) => facts.device = device,
                None => lacking.device = true,
            }
        }
        if asked.needs.session || (asked.needs.identity && self.sessions.has_limits()) {
            let context = (named, facts.place.value(), asked.client);
            match self.sessions.remembered(identity, own, context, now) {
                Some((session, visit)) => (facts.session, beside.visit) = (session, Some(visit)),
                None => lacking.session = true,
            }
        }
        lacking
    }

    fn revocation_remembered(&self, asked: &Asked<'_>) -> Option<Fact<Revocation>> {
        let of = |entry: &TokenEntry, device| {
            self.revocations.remembered(&entry.identity, device, entry.facts::<CheckedAt>(), asked.now)
        };
        match (of(asked.entry, asked.named.as_ref())?, &asked.between) {
            (Fact::Known { value: Revocation::Clear, .. }, Some(between)) => of(between, None),
            (own, _) => Some(own),
        }
    }

    /// Asks the stores for what is lacking, all at once.
    async fn look_up(&self, asked: &Asked<'_>, lacking: Lacking, facts: &mut Facts, beside: &mut Beside) {
        let (identity, named) = (&asked.entry.identity, asked.named.as_ref());
        let (now, deadline) = (asked.now, asked.deadline);
        let own = asked.entry.facts::<session::Slot>();
        let context = (named, facts.place.value(), asked.client);
        let revocation = when(lacking.revocation, async {
            let slot = asked.entry.facts::<CheckedAt>();
            let own = self.revocations.check(identity, named, slot, now, deadline).await;
            match &asked.between {
                Some(between) if matches!(own, Fact::Known { value: Revocation::Clear, .. }) => {
                    let slot = between.facts::<CheckedAt>();
                    self.revocations.check(&between.identity, None, slot, now, deadline).await
                }
                _ => own,
            }
        });
        let notice = self.notices.check(identity, (|| own.text(identity), named), now, deadline);
        let device = self.devices.look_up(&asked.device, deadline);
        let session = self.sessions.check(identity, own, context, now, deadline);
        let (revocation, notice, device, session) = tokio::join!(
            revocation,
            when(lacking.notice, notice),
            when(lacking.device, device),
            when(lacking.session, session)
        );
        if let Some(revocation) = revocation {
            facts.revocation = revocation;
        }
        if let Some(notice) = notice {
            facts.notice = notice;
        }
        if let Some(device) = device {
            facts.device = device;
        }
        if let Some((session, visit)) = session {
            (facts.session, beside.visit) = (session, Some(visit));
        }
    }
}

/// What memory does not know, and a store must be asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Lacking {
    revocation: bool,
    notice: bool,
    device: bool,
    session: bool,
}

async fn when<T>(wanted: bool, answer: impl Future<Output = T>) -> Option<T> {
    if wanted { Some(answer.await) } else { None }
}
