//! Gathering: what the stages know of one request. Looks things up, judges nothing.
//!
//! Without a verified identity no store is asked: a junk token costs no round trip.

use std::borrow::Cow;

use super::{Pipeline, Stage, Stopwatch, outcome::Beside};
use crate::{
    behavior::LastAgent,
    decision,
    device::DeviceQuery,
    domain::{Fact, Facts, Revocation, Workload},
    identity::{Credentials, HeaderValues},
    policy::Rules,
    revocation::CheckedAt,
    session,
    wire::check::{CheckView, HttpView},
};

impl Pipeline {
    pub(super) async fn gather(
        &self,
        view: &CheckView<'_>,
        facts: &mut Facts,
        beside: &mut Beside,
        rules: &Rules,
        deadline: tokio::time::Instant,
    ) {
        let Some(http) = &view.http else { return };
        let now = facts.now;
        let needs = decision::needs(&facts.request, rules);

        let stage = Stopwatch::now();
        let traced = beside.stage("authenticate");
        let authentication = self.authenticator.authenticate(&credentials(view, http), now, deadline).await;
        let authenticated = Stopwatch::now();
        self.counters.time(Stage::Authenticate, authenticated.duration_since(stage));
        drop(traced);
        beside.detail = authentication.detail;
        facts.workload = authentication.workload;
        facts.credential = authentication.credential;
        beside.dpop_nonce = authentication.nonce;
        let Some(entry) = authentication.entry else { return };
        let identity = &entry.identity;

        let _traced = beside.stage("gather");
        let fingerprint = joined(http, "x-device-fingerprint");
        let id = joined(http, "x-device-id");
        let thumbprint = facts.workload.value().and_then(|peer| peer.cert_sha256.as_deref());
        let certificate = thumbprint.map(|sum| self.devices.certificate(sum, view.source.certificate, now));
        let query = DeviceQuery {
            id: id.as_deref(),
            fingerprint: fingerprint.as_deref(),
            token_device: identity.device.as_ref(),
            cert_sha256: thumbprint,
            of_workload: facts.workload.value().is_some_and(Workload::is_trusted),
            certificate,
            jkt: authentication.jkt.as_deref(),
        };
        let asked = needs.device || identity.device.is_some();
        let device = async { if asked { self.devices.look_up(&query, deadline).await } else { Fact::NotAsked } };
        let named = query.named();
        let (slot, own) = (entry.facts::<CheckedAt>(), entry.facts::<session::Slot>());
        if needs.identity {
            facts.place = self.locator.locate(facts.request.client, now);
        }
        let context = (named.as_ref(), facts.place.value(), facts.request.client);
        let session = async {
            if needs.session || (needs.identity && self.sessions.has_limits()) {
                let (fact, visit) = self.sessions.check(identity, own, context, now, deadline).await;
                (fact, Some(visit))
            } else {
                (Fact::NotAsked, None)
            }
        };
        let between = if needs.workload { self.authenticator.workload(&credentials(view, http), now) } else { None };
        let revocation = async {
            let own = self.revocations.check(identity, named.as_ref(), slot, now, deadline).await;
            match between {
                Some(between) if matches!(own, Fact::Known { value: Revocation::Clear, .. }) => {
                    let slot = between.facts::<CheckedAt>();
                    Box::pin(self.revocations.check(&between.identity, None, slot, now, deadline)).await
                }
                _ => own,
            }
        };
        let notice = self.notices.check(identity, (own.text(identity), named.as_ref()), now, deadline);
        let found = tokio::join!(revocation, notice, device, session);
        (facts.revocation, facts.notice, facts.device, (facts.session, beside.visit)) = found;
        if needs.identity {
            let header =
                || http.value("user-agent").and_then(|text| std::str::from_utf8(text).ok()).unwrap_or_default();
            let agent = || entry.facts::<LastAgent>().read(header());
            self.observe(agent, facts, beside, rules, deadline).await;
        }
        self.counters.time(Stage::Gather, authenticated.elapsed());
    }
}

/// What the request carries to say who asks, as Envoy sent it.
fn credentials<'a>(view: &CheckView<'a>, http: &HttpView<'a>) -> Credentials<'a> {
    let lines = |name| {
        let mut values = HeaderValues::NONE;
        http.values(name).into_iter().for_each(|line| values.push(line));
        values
    };
    let mut target = http.path.splitn(2, |octet| *octet == b'?');
    Credentials {
        authorization: lines("authorization"),
        dpop: lines("dpop"),
        xfcc: lines("x-forwarded-client-cert"),
        path: target.next().unwrap_or_default(),
        query: target.next(),
        method: http.method,
        scheme: http.scheme,
        host: http.host,
        principal: view.source.principal,
        certificate: view.source.certificate,
    }
}

/// The text of a header; several lines are joined by commas, as Envoy joins them.
fn joined<'a>(http: &HttpView<'a>, name: &str) -> Option<Cow<'a, str>> {
    let lines = http.values(name);
    match lines.as_slice() {
        [] => None,
        [line] => Some(String::from_utf8_lossy(line)),
        lines => Some(String::from_utf8_lossy(&lines.join(&b","[..])).into_owned().into()),
    }
}
