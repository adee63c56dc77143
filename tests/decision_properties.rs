//! What holds for every request under every set of rules. `PROPTEST_CASES=20000` looks longer.

#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

#[path = "oracle/random.rs"]
mod random;

use std::sync::{Arc, OnceLock};

use countersign::{
    clock::Clock,
    decision::{Decision, LiveFacts, Target, authorize, decide},
    device::{Certificates, DeviceQuery, Devices, Settings},
    domain::*,
    policy::{
        Options, Rules,
        model::{Access, DeviceMode, DeviceState, Guard, GuardAction, When},
    },
    store::memory::Memory,
};
use proptest::prelude::*;
use rand::{Rng, SeedableRng, rngs::StdRng};
use tokio::{
    runtime::Runtime,
    time::{Duration, Instant},
};

/// Rules that build and facts to go with them, from a seed.
fn world(seed: u64) -> (Rules, Facts) {
    let mut rng = StdRng::seed_from_u64(seed);
    let options = Options { risk_model: RiskModel::Fixed, ..Options::default() };
    loop {
        if let Ok(rules) = Rules::build("random", random::rules(&mut rng), None, options.clone()) {
            // Nine in ten begin where there is something to lose.
            let draws: Vec<Facts> = (0..20).map(|_| random::facts(&mut rng)).collect();
            let allowed = draws.iter().find(|facts| decide(facts, &rules).is_allow());
            let facts = allowed.filter(|_| rng.random_bool(0.9)).unwrap_or(&draws[0]).clone();
            return (rules, facts);
        }
    }
}

/// As [`world`], always with the guard that keeps contradicted devices out.
fn guarded(seed: u64) -> (Rules, Facts) {
    let mut rng = StdRng::seed_from_u64(seed);
    let when = When { device: Some(DeviceState::Untrusted), ..When::default() };
    let options = Options { risk_model: RiskModel::Fixed, ..Options::default() };
    loop {
        let mut rules = random::rules(&mut rng);
        rules.guards.push(Guard { id: "untrusted".into(), when, action: GuardAction::Deny });
        if let Ok(rules) = Rules::build("random", rules, None, options.clone()) {
            let draws: Vec<Facts> = (0..20).map(|_| random::facts(&mut rng)).collect();
            let allowed = draws.iter().find(|facts| decide(facts, &rules).is_allow());
            return (rules, allowed.unwrap_or(&draws[0]).clone());
        }
    }
}

/// A registry in memory, for all cases.
fn registry() -> &'static (Runtime, Arc<Devices>) {
    static REGISTRY: OnceLock<(Runtime, Arc<Devices>)> = OnceLock::new();
    REGISTRY.get_or_init(|| {
        let runtime = Runtime::new().unwrap();
        let clock = Clock::manual(random::NOW);
        let ticking = clock.clone();
        let store = Arc::new(Memory::new(move || ticking.now()));
        let certificates = Certificates::new(&[], None, None).unwrap();
        let _entered = runtime.enter();
        let devices = Devices::start(store, &Settings::default(), certificates, clock, Default::default());
        (runtime, devices)
    })
}

/// Registers a device bound to a certificate and a fingerprint, in any state.
fn register(id: &DeviceId, rng: &mut StdRng) {
    let mut of = |words: &[&'static str]| words[rng.random_range(0..words.len())];
    let fields = [
        ("cert_sha256", CERTIFICATE),
        ("fingerprint", "fp"),
        ("user", of(&["ada", "ada", "ada", "eve", ""])),
        ("compliant", of(&["true", "true", "true", "false", ""])),
        ("jailbroken", of(&["", "false", "false", "true"])),
        ("status", of(&["active", "active", "active", "suspended", "revoked"])),
        ("checked_at", of(&["", "1"])),
        ("managed", of(&["", "true"])),
        ("trust_score", of(&["", "0.1", "0.9"])),
    ];
    let (runtime, devices) = registry();
    let set: Vec<_> = fields.into_iter().filter(|(_, value)| !value.is_empty()).collect();
    runtime.block_on(devices.put(id, &set, &[])).unwrap();
}

const CERTIFICATE: &str = "cccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccc";

/// The decision where the request shows this much of its device.
fn showing(facts: &Facts, rules: &Rules, query: &DeviceQuery<'_>) -> Decision {
    let (runtime, devices) = registry();
    let owed = facts.identity().and_then(|who| who.device.clone());
    let query = DeviceQuery { token_device: owed.as_ref(), ..query.clone() };
    let deadline = Instant::now() + Duration::from_secs(10);
    let device = runtime.block_on(devices.look_up(&query, deadline));
    let mut facts = Facts { device, ..facts.clone() };
    facts.request.device_sent = query.id.is_some();
    decide(&facts, rules)
}

fn is_public(decision: &Decision, rules: &Rules) -> bool {
    let resource = decision.resource.as_ref().and_then(|id| rules.resource(id));
    resource.is_some_and(|resource| resource.access == Access::Public)
}

fn change_identity(facts: &mut Facts, change: impl FnOnce(&mut Identity)) {
    if let Fact::Known { value: Credential::Verified { identity, .. }, .. } = &mut facts.credential {
        change(Arc::make_mut(identity));
    }
}

fn change_record(facts: &mut Facts, change: impl FnOnce(&mut DeviceRecord)) {
    if let Fact::Known { value, .. } = &mut facts.device
        && let Some(record) = &mut value.record
    {
        change(Arc::make_mut(record));
    }
}

fn change_place(facts: &mut Facts, change: impl FnOnce(&mut Place)) {
    if let Fact::Known { value, .. } = &mut facts.place {
        change(value);
    }
}

fn change_past(facts: &mut Facts, change: impl FnOnce(&mut Behavior)) {
    if let Fact::Known { value, .. } = &mut facts.behavior {
        change(value);
    }
}

/// A name, and what makes one signal worse.
type Worsening = (&'static str, fn(&mut Facts));

const WORSE: [Worsening; 22] = [
    ("revoked", |facts| facts.revocation = Fact::known(Revocation::Revoked(RevocationKind::Token), facts.now)),
    ("only a password", |facts| {
        change_identity(facts, |who| who.methods = AuthMethods::NONE.with(AuthMethod::Password));
    }),
    ("no roles", |facts| change_identity(facts, |who| who.roles.clear())),
    ("no permissions", |facts| change_identity(facts, |who| who.permissions.clear())),
    ("no scopes", |facts| change_identity(facts, |who| who.scopes.retain(|_| false))),
    ("a day since the login", |facts| {
        let day = Duration::from_secs(86_400);
        change_identity(facts, |who| {
            who.auth_time = who.auth_time.map(|at| at.minus(day));
            who.issued_at = who.issued_at.minus(day);
        });
    }),
    ("suspended", |facts| change_record(facts, |record| record.status = DeviceStatus::Suspended)),
    ("not compliant", |facts| change_record(facts, |record| record.compliant = Some(false))),
    ("jailbroken", |facts| change_record(facts, |record| record.jailbroken = Some(true))),
    ("owned by another", |facts| change_record(facts, |record| record.user = Some("eve".into()))),
    ("no trust in the device", |facts| change_record(facts, |record| record.trust_score = Some(TrustScore::new(0.0)))),
    ("only named", |facts| {
        if let Fact::Known { value, .. } = &mut facts.device {
            value.proof = DeviceProof::IdOnly;
        }
    }),
    ("an unusual place", |facts| change_place(facts, |place| place.unusual = true)),
    ("impossible travel", |facts| change_place(facts, |place| place.impossible_travel = true)),
    ("a forbidden country", |facts| change_place(facts, |place| place.allowed = false)),
    ("over Tor", |facts| change_place(facts, |place| place.network = NetworkKind::Tor)),
    ("an unusual hour", |facts| change_past(facts, |past| past.unusual_time = true)),
    ("rapid requests", |facts| change_past(facts, |past| past.rapid_requests = true)),
    ("a new device", |facts| change_past(facts, |past| past.new_device = Some(true))),
    ("in the clear", |facts| facts.request.encrypted = false),
    ("no justification", |facts| facts.request.justification = None),
    ("the session ended", |facts| {
        if let Fact::Known { value, .. } = &mut facts.session {
            value.ended = true;
        }
    }),
];

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_identity_never_enters_what_is_not_public(seed: u64) {
        let (rules, facts) = world(seed);
        for credential in [Fact::Absent, Fact::NotAsked, Fact::Unavailable(Unavailable::Store),
            Fact::known(Credential::Refused(CredentialProblem::Invalid), facts.now)] {
            let decision = decide(&Facts { credential, ..facts.clone() }, &rules);
            prop_assert!(!decision.is_allow() || is_public(&decision, &rules), "{decision:#?}");
        }
    }

    #[test]
    fn revoked_never_enters_and_neither_does_who_may_be(seed: u64) {
        let (rules, facts) = world(seed);
        let revoked = RevocationKind::ALL.map(|kind| Fact::known(Revocation::Revoked(kind), facts.now));
        for revocation in revoked.into_iter().chain([Fact::Absent, Fact::NotAsked, Fact::Unavailable(Unavailable::Timeout)]) {
            let decision = decide(&Facts { revocation, ..facts.clone() }, &rules);
            prop_assert!(!decision.is_allow() || is_public(&decision, &rules), "{decision:#?}");
        }
    }

    #[test]
    fn a_worse_signal_never_turns_a_refusal_into_an_allow(seed: u64) {
        let (rules, facts) = world(seed);
        // Worse by two: the first may refuse, the second must not undo it.
        let mut rng = StdRng::seed_from_u64(seed);
        let (first, second) = (rng.random_range(0..WORSE.len()), rng.random_range(0..WORSE.len()));
        let mut worse = facts.clone();
        let mut allowed = decide(&facts, &rules).is_allow();
        for (name, change) in [WORSE[first], WORSE[second]] {
            change(&mut worse);
            let decision = decide(&worse, &rules);
            prop_assert!(allowed || !decision.is_allow(), "{name}: {decision:#?}\n{facts:#?}\n{rules:#?}");
            allowed = decision.is_allow();
        }
    }

    #[test]
    fn out_of_reach_is_never_better_than_the_posture_table_says(seed: u64) {
        let (rules, facts) = world(seed);
        let away = Unavailable::Stale;
        let allowed = |facts: Facts| {
            let decision = decide(&facts, &rules);
            decision.is_allow() && !is_public(&decision, &rules)
        };
        let lost = allowed(Facts { credential: Fact::Unavailable(away), ..facts.clone() });
        prop_assert!(!lost, "credentials");
        let lost = allowed(Facts { session: Fact::Unavailable(away), ..facts.clone() });
        prop_assert!(!lost, "session");
        // A device out of reach: at most as good as one the registry does not know.
        let id = facts.identity().and_then(|who| who.device.clone()).unwrap_or("laptop".into());
        let stranger = DeviceSighting { id, record: None, proof: DeviceProof::IdOnly, fingerprint_differs: false,
            key_differs: false, differs_from_token: false, evidence: Default::default() };
        let lost = allowed(Facts { device: Fact::Unavailable(away), ..facts.clone() });
        let unregistered = allowed(Facts { device: Fact::known(stranger, facts.now), ..facts.clone() });
        prop_assert!(!lost || unregistered, "device");
        // A place or a past out of reach: at most as good as one that nobody asks for.
        let lost = allowed(Facts { place: Fact::Unavailable(away), ..facts.clone() });
        let not_asked = allowed(Facts { place: Fact::NotAsked, ..facts.clone() });
        prop_assert!(!lost || not_asked, "place");
        let lost = allowed(Facts { behavior: Fact::Unavailable(away), ..facts.clone() });
        let not_asked = allowed(Facts { behavior: Fact::NotAsked, ..facts.clone() });
        prop_assert!(!lost || not_asked, "behavior");
    }

    #[test]
    fn a_header_never_beats_a_certificate_and_leaving_headers_out_never_beats_sending_them(seed: u64) {
        let (rules, mut facts) = guarded(seed);
        let id = DeviceId::from(format!("laptop-{seed}").as_str());
        register(&id, &mut StdRng::seed_from_u64(seed));
        change_identity(&mut facts, |who| {
            who.kind = SubjectKind::Person;
            who.device = who.device.take().map(|_| id.clone());
        });
        let nothing = DeviceQuery::default();
        let named = DeviceQuery { id: Some(id.as_str()), ..nothing.clone() };
        let copied = DeviceQuery { fingerprint: Some("fp"), ..named.clone() };
        let certified = DeviceQuery { cert_sha256: Some(CERTIFICATE), ..named.clone() };
        let [nothing, named, copied, certified] =
            [nothing, named, copied, certified].map(|query| showing(&facts, &rules, &query));
        for (weaker, stronger) in [(&named, &copied), (&copied, &certified)] {
            prop_assert!(!weaker.is_allow() || stronger.is_allow(), "{weaker:#?}\n{stronger:#?}");
            prop_assert!(weaker.trust.score.get() <= stronger.trust.score.get() + 1e-9);
            prop_assert!(weaker.risk.score.get() + 1e-9 >= stronger.risk.score.get());
        }
        let resource = nothing.resource.as_ref().and_then(|id| rules.resource(id));
        let mode = resource.map(|resource| resource.device.unwrap_or(rules.defaults().device));
        let owes = facts.identity().is_some_and(|who| who.device.is_some());
        if mode == Some(DeviceMode::Always) || (owes && mode != Some(DeviceMode::Never)) {
            prop_assert!(!nothing.is_allow() || is_public(&nothing, &rules), "{nothing:#?}");
        }
    }

    #[test]
    fn every_refusal_has_a_reason_a_status_and_a_class_and_a_permit_agrees(seed: u64) {
        let (rules, facts) = world(seed);
        let decision = decide(&facts, &rules);
        prop_assert_eq!(&decision, &decide(&facts, &rules));
        prop_assert_eq!(decision.is_allow(), decision.status() == 200);
        prop_assert_eq!(decision.is_allow(), decision.reason.is_none() && decision.class.is_none());
        prop_assert_eq!(decision.is_allow(), decision.findings.is_empty());
        prop_assert!(!decision.is_allow() || decision.grant.is_some());
        match authorize(LiveFacts::gathered(&facts, Target::of(&facts.request, &rules))) {
            Ok(permit) => prop_assert_eq!(permit.decision(), &decision),
            Err(refusal) => {
                prop_assert!(!refusal.is_allow() && refusal.reason.is_some());
                // Only an untaken quota stands between a dry allow and a permit.
                prop_assert!(!decision.is_allow() || decision.quota.is_some());
            }
        }
    }

    #[test]
    fn what_a_step_up_asks_for_would_be_allowed_once_it_is_done(seed: u64) {
        let (rules, facts) = world(seed);
        let mut facts = Facts { session: Fact::NotAsked, ..facts };
        let decision = decide(&facts, &rules);
        if let Some(asked) = decision.step_up {
            let now = facts.now;
            change_identity(&mut facts, |who| {
                who.methods = who.methods.union(asked.methods);
                who.issued_at = now;
                who.auth_time = Some(now);
            });
            let then = decide(&facts, &rules);
            prop_assert!(then.is_allow(), "{decision:#?}\n{then:#?}");
        }
    }
}
