//! Sessions over a store in memory and a clock that is moved by hand: a whole life, and two replicas of one store.

mod busy;
mod person;
mod stored;

use std::{sync::Arc, time::Duration};

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use self::person::Person;
use super::{Sessions, Settings, Slot, settings::OnExcess};
use crate::{
    clock::Clock,
    decision::{Decision, Reason, decide},
    domain::{AuthMethod, DeviceId, Fact, RiskModel, SubjectKind, TrustLevel, UnixTime},
    policy::{
        Options, RuleSet, Rules,
        model::{Access, Resource, SessionOutcome, SessionRule, SessionWhen},
    },
    store::{Store, memory::Memory},
};

const START: UnixTime = UnixTime::from_secs(1_800_000_000);
const HOUR: Duration = Duration::from_secs(3600);
const MINUTE: Duration = Duration::from_secs(60);

/// One replica. Several may share a store and a clock.
struct Replica {
    sessions: Arc<Sessions>,
    clock: Clock,
    rules: Rules,
    _stop: tokio_util::sync::DropGuard,
}

fn rules(sessions: Vec<SessionRule>) -> Rules {
    let resource = |id: &str, level| Resource {
        access: Access::Authenticated,
        min_trust_level: Some(level),
        ..Resource::new(id, &format!("/{id}"))
    };
    let set = RuleSet {
        resources: vec![resource("work", TrustLevel::Untrusted)],
        sessions,
        ..RuleSet::with_default_guards()
    };
    let options = Options { risk_model: RiskModel::Fixed, ..Options::default() };
    Rules::build("test", set, None, options).unwrap()
}

fn rule(when: SessionWhen, outcome: SessionOutcome) -> Vec<SessionRule> {
    vec![SessionRule { id: "rule".into(), when, outcome }]
}

async fn replica(store: &Arc<dyn Store>, clock: &Clock, settings: Settings, rules: Rules) -> Replica {
    let stop = CancellationToken::new();
    let sessions = Sessions::start(Arc::clone(store), settings, clock.clone(), Duration::from_secs(5), stop.clone());
    while !sessions.is_live() {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    Replica { sessions, clock: clock.clone(), rules, _stop: stop.drop_guard() }
}

async fn one(settings: Settings, rules: Rules) -> Replica {
    let clock = Clock::manual(START);
    let now = clock.clone();
    let store: Arc<dyn Store> = Arc::new(Memory::new(move || now.now()));
    replica(&store, &clock, settings, rules).await
}

impl Replica {
    /// One request from beginning to end.
    async fn ask(&self, person: &Person) -> Decision {
        let now = self.clock.now();
        let mut facts = person.facts(now);
        let device = person.device.map(DeviceId::from);
        let context = (device.as_ref(), person.place.value(), None);
        let deadline = Instant::now() + Duration::from_secs(5);
        let (fact, visit) = self.sessions.check(&person.identity, &Slot::default(), context, now, deadline).await;
        facts.session = fact;
        let mut decision = decide(&facts, &self.rules);
        if decision.is_allow() && self.sessions.admit(&visit, &mut facts, deadline).await.is_none() {
            decision = decide(&facts, &self.rules);
        }
        self.sessions.settle(&visit, &facts, &decision);
        decision
    }

    async fn told(&self, person: &Person) -> String {
        let decision = self.ask(person).await;
        let verdict = decision.verdict.as_str();
        decision.reason.map_or_else(|| verdict.to_owned(), |reason| format!("{verdict}:{reason}"))
    }

    async fn state(&self, person: &Person) -> crate::domain::SessionState {
        let deadline = Instant::now() + Duration::from_secs(5);
        let context = (None, None, None);
        let (fact, _) = self.sessions.check(&person.identity, &Slot::default(), context, START, deadline).await;
        fact.value().cloned().expect("known")
    }

    /// Until everything that was to be written is.
    async fn written(&self) {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test]
async fn evidence_is_renewed_by_a_newer_token_and_by_nothing_else() {
    let replica = one(Settings::default(), rules(Vec::new())).await;
    let mut ann = Person::signed_in(START);
    ann.identity.expires_at = START.plus(30 * HOUR);
    // An hour at most where the token lives longer; half an hour is this level's own.
    assert_eq!(replica.told(&ann).await, "allow");
    replica.clock.advance(HOUR);
    assert_eq!(replica.told(&ann).await, "allow");
    replica.clock.advance(MINUTE);
    let due = replica.ask(&ann).await;
    assert_eq!(due.reason.map(Reason::code), Some("reverification_due"));
    assert_eq!(due.step_up.unwrap().max_age, Some(300), "renewed by a new token or a new login");
    let newer = ann.clone().refreshed(replica.clock.now());
    let mut undated = newer.clone();
    undated.identity.issue_unstated = true;
    assert_eq!(replica.ask(&undated).await.reason, due.reason, "that somebody asked about a token is none");
    assert_eq!(replica.told(&ann).await, "step-up:reverification_due");
    assert_eq!(replica.told(&newer).await, "allow");
    assert_eq!(replica.told(&ann).await, "allow", "the session was renewed, whichever token it is used with");
    replica.clock.advance(25 * HOUR);
    let day = replica.ask(&ann).await;
    let session = replica.state(&ann).await;
    assert_eq!(replica.clock.now().since(session.created_at), 26 * HOUR + MINUTE, "25 hours are 25 hours");
    assert!(!day.is_allow());
    let mut again = ann.refreshed(replica.clock.now());
    (again.identity.issue_unstated, again.identity.auth_time) = (true, Some(replica.clock.now()));
    assert_eq!(replica.told(&again).await, "allow", "a new login, whoever says when its token was issued");
}

#[tokio::test]
async fn each_level_has_its_interval() {
    for (methods, hours, interval) in [
        (vec![AuthMethod::Password, AuthMethod::MfaTotp], 0, 1800),
        (vec![AuthMethod::Password, AuthMethod::MfaTotp], 4, 900),
        (vec![AuthMethod::Password, AuthMethod::MfaTotp], 8, 300),
        (vec![AuthMethod::HardwareKey, AuthMethod::Biometric], 0, 3600),
    ] {
        let replica = one(Settings::default(), rules(Vec::new())).await;
        let mut ann = Person::signed_in(START);
        ann.identity.methods = methods.into_iter().collect();
        ann.identity.auth_time = Some(START.minus(hours * HOUR));
        // A token that lives shorter than any interval.
        ann.identity.expires_at = START.plus(MINUTE);
        let decision = replica.ask(&ann).await;
        let next = decision.next_verification.expect("persons are verified again");
        assert_eq!(next.since(START).as_secs(), interval, "{} at {hours} hours", decision.trust.level);
    }
}

#[tokio::test]
async fn a_place_is_asked_about_once_and_a_new_login_is_the_answer_also_as_a_new_session() {
    let replica = one(Settings::default(), rules(Vec::new())).await;
    let on_laptop = |now| Person { device: Some("laptop"), ..Person::signed_in(now) };
    let abroad = on_laptop(START).from("NO", 1, true);
    replica.clock.advance(MINUTE);
    assert_eq!(replica.told(&abroad).await, "step-up:location_step_up");
    assert_eq!(replica.told(&abroad).await, "step-up:location_step_up", "the same token is no answer");
    replica.written().await;
    replica.clock.advance(MINUTE);
    let again = on_laptop(replica.clock.now()).from("NO", 1, true).session("s2");
    assert_eq!(replica.told(&again).await, "allow");
    replica.clock.advance(MINUTE);
    assert_eq!(replica.told(&again).await, "allow", "then quiet");
    let elsewhere = again.clone().from("CL", 2, true);
    assert_eq!(replica.told(&elsewhere).await, "step-up:location_step_up", "another network is another context");
    assert_eq!(replica.told(&again).await, "allow");
}

#[tokio::test]
async fn an_authentication_made_at_home_is_no_answer_to_what_was_asked_elsewhere() {
    let clock = Clock::manual(START);
    let now = clock.clone();
    let store: Arc<dyn Store> = Arc::new(Memory::new(move || now.now()));
    let a = replica(&store, &clock, Settings::default(), rules(Vec::new())).await;
    let b = replica(&store, &clock, Settings::default(), rules(Vec::new())).await;
    let at_home = |person: &Person| Person { device: Some("laptop"), ..person.clone() }.from("NO", 1, false);
    let abroad = |person: &Person| Person { device: Some("laptop"), ..person.clone() }.from("CL", 2, true);
    let anew = || {
        clock.advance(MINUTE);
        Person::signed_in(clock.now())
    };
    let old = anew();
    assert_eq!(a.told(&at_home(&old)).await, "allow");
    clock.advance(MINUTE);
    assert_eq!(a.told(&abroad(&old)).await, "step-up:location_step_up");
    let home = anew();
    assert_eq!(a.told(&at_home(&home)).await, "allow");
    clock.advance(MINUTE);
    assert_eq!(a.told(&abroad(&home)).await, "step-up:location_step_up");
    a.written().await;
    assert_eq!(b.told(&abroad(&home)).await, "step-up:location_step_up", "other replicas know where it was made");
    let answer = anew();
    assert_eq!(a.told(&abroad(&answer)).await, "allow");
    assert_eq!(a.told(&at_home(&answer)).await, "allow");
    assert_eq!(a.told(&abroad(&answer)).await, "allow", "then quiet");
}

#[test]
fn a_record_that_does_not_say_where_an_authentication_was_made_is_read() {
    let person = Person::signed_in(START);
    let judged = (TrustLevel::Medium, Default::default(), Default::default());
    let session = super::Session::begin(&person.identity, Default::default(), judged, START);
    let mut record: serde_json::Value = serde_json::from_slice(&session.render()).unwrap();
    record.as_object_mut().unwrap().remove("authentication").unwrap();
    assert_eq!(super::Session::parse(record.to_string().as_bytes()), Some(session));
}

#[tokio::test]
async fn each_outcome_of_a_rule() {
    let moved = SessionWhen { place_changed: true, ..SessionWhen::default() };
    let reduced = SessionOutcome::ReducePrivileges(crate::policy::Restrictions::READ_ONLY);
    for (outcome, expected, after) in [
        (SessionOutcome::Reauthenticate, "step-up:session_changed", "allow"),
        (SessionOutcome::VerifyIdentity, "step-up:identity_unverified", "allow"),
        (SessionOutcome::VerifyLocation, "step-up:location_unverified", "allow"),
        (SessionOutcome::StepUpAuthentication, "step-up:session_step_up", "allow"),
        (SessionOutcome::EndSession, "deny:session_ended", "deny:session_ended"),
        (reduced, "allow", "allow"),
    ] {
        let replica = one(Settings::default(), rules(rule(moved, outcome))).await;
        let home = Person::signed_in(START).from("NO", 1, false);
        assert_eq!(replica.told(&home).await, "allow");
        replica.clock.advance(MINUTE);
        let away = home.clone().from("CL", 2, false);
        let decision = replica.ask(&away).await;
        assert_eq!(decision.reason.map_or("allow", |reason| reason.code()), expected.rsplit(':').next().unwrap());
        assert_eq!(decision.restrictions.is_empty(), outcome != reduced);
        replica.clock.advance(MINUTE);
        let mut answered = away.refreshed(replica.clock.now());
        answered.identity.auth_time = Some(replica.clock.now());
        assert_eq!(replica.told(&answered).await, after, "{outcome:?}");
        let at_home = if outcome == SessionOutcome::EndSession { "deny:session_ended" } else { "allow" };
        assert_eq!(replica.told(&home).await, at_home, "{outcome:?}: ended is ended everywhere");
    }
}

#[tokio::test]
async fn a_level_falls_at_once_and_rises_with_time_or_a_new_login() {
    let replica = one(Settings::default(), rules(Vec::new())).await;
    let ann = Person::signed_in(START).from("NO", 1, false);
    let mut tor = ann.clone();
    if let Fact::Known { value, .. } = &mut tor.place {
        value.network = crate::domain::NetworkKind::Vpn;
    }
    let level = async |person: &Person| replica.ask(person).await.trust.level;
    replica.clock.advance(Duration::from_secs(10));
    let usual = level(&ann).await;
    replica.clock.advance(Duration::from_secs(10));
    let fallen = level(&tor).await;
    assert!(fallen < usual, "{fallen} {usual}");
    replica.clock.advance(Duration::from_secs(10));
    assert_eq!(level(&ann).await, fallen, "what it was a moment ago does not count yet");
    replica.clock.advance(5 * MINUTE);
    assert_eq!(level(&ann).await, usual, "it has lasted");
    assert_eq!(level(&tor).await, fallen);
    let mut anew = ann.clone();
    replica.clock.advance(Duration::from_secs(1));
    anew.identity.auth_time = Some(replica.clock.now());
    assert_eq!(level(&anew).await, usual, "a new login lifts at once");
}

#[tokio::test]
async fn a_session_that_nobody_uses_ends_and_services_have_no_such_limit() {
    let settings = Settings { idle: Some(HOUR.into()), ..Settings::default() };
    let replica = one(settings, rules(Vec::new())).await;
    let ann = Person::signed_in(START);
    let mut robot = Person::signed_in(START);
    (robot.identity.kind, robot.identity.subject) = (SubjectKind::Service, "robot".into());
    assert_eq!(replica.told(&ann).await, "allow");
    assert_eq!(replica.told(&robot).await, "allow");
    for _ in 0..3 {
        replica.clock.advance(50 * MINUTE);
        assert_eq!(replica.told(&ann.clone().refreshed(replica.clock.now())).await, "allow");
    }
    replica.clock.advance(HOUR + MINUTE);
    let back = ann.clone().refreshed(replica.clock.now());
    assert_eq!(replica.told(&back).await, "deny:session_ended");
    assert_eq!(replica.told(&back).await, "deny:session_ended");
    assert_eq!(replica.told(&robot.refreshed(replica.clock.now())).await, "allow");
}

/// A token that names neither a session nor an authentication.
fn nameless(now: UnixTime) -> Person {
    let mut person = Person::signed_in(now);
    (person.identity.session_claimed, person.identity.auth_time) = (false, None);
    person
}

#[tokio::test]
async fn after_an_end_a_token_that_names_no_session_begins_the_next_one() {
    let clock = Clock::manual(START);
    let now = clock.clone();
    let store: Arc<dyn Store> = Arc::new(Memory::new(move || now.now()));
    let moved = SessionWhen { device_changed: true, ..SessionWhen::default() };
    let ends = || rules(rule(moved, SessionOutcome::EndSession));
    let limited = || Settings { max_concurrent: Some(1), on_excess: OnExcess::Refuse, ..Settings::default() };
    let a = replica(&store, &clock, limited(), ends()).await;
    let b = replica(&store, &clock, limited(), ends()).await;
    let on_laptop = |person: Person| Person { device: Some("laptop"), ..person };
    let old = on_laptop(nameless(START));
    assert_eq!(a.told(&old).await, "allow");
    clock.advance(MINUTE);
    assert_eq!(a.told(&Person { device: Some("other"), ..old.clone() }).await, "deny:session_ended");
    a.written().await;
    let same_second = on_laptop(nameless(clock.now()));
    assert_eq!(a.told(&same_second).await, "deny:session_ended", "it may be from before");
    clock.advance(MINUTE);
    let new = on_laptop(nameless(clock.now()));
    assert_eq!(a.told(&new).await, "allow");
    a.written().await;
    assert_eq!(b.told(&new).await, "allow", "the next one is known to all");
    clock.advance(MINUTE);
    assert_eq!(b.told(&Person { device: Some("other"), ..new.clone() }).await, "deny:session_ended");
    b.written().await;
    assert_eq!(a.told(&new).await, "deny:session_ended");
}

#[tokio::test]
async fn a_token_from_before_the_end_stays_refused_where_the_next_session_has_not_begun() {
    let settings = Settings { idle: Some(HOUR.into()), ..Settings::default() };
    let replica = one(settings, rules(Vec::new())).await;
    let mut old = nameless(START);
    old.identity.expires_at = START.plus(9 * HOUR);
    assert_eq!(replica.told(&old).await, "allow");
    replica.clock.advance(HOUR + MINUTE);
    assert_eq!(replica.told(&old).await, "deny:session_ended");
    replica.clock.advance(MINUTE);
    assert_eq!(replica.told(&old).await, "deny:session_ended");
    let mut new = nameless(replica.clock.now());
    new.identity.expires_at = START.plus(9 * HOUR);
    assert_eq!(replica.told(&new).await, "allow");
    replica.clock.advance(HOUR + MINUTE);
    let next = nameless(replica.clock.now());
    assert_eq!(replica.told(&next).await, "allow", "idle, and a new login is the first to come");
    for before in [&old, &new] {
        let before = before.clone();
        assert_eq!(replica.told(&before).await, "deny:session_ended", "of the session before");
    }
    assert_eq!(replica.told(&next).await, "allow", "which is nothing to the next one");
    let mut dated = Person::signed_in(replica.clock.now()).session("s1");
    dated.identity.session_claimed = true;
    replica.clock.advance(HOUR + MINUTE);
    dated = dated.refreshed(replica.clock.now());
    assert_eq!(replica.told(&dated).await, "deny:session_ended", "a session that is named stays ended");
}

#[tokio::test]
async fn what_was_at_hand_when_the_question_was_put_does_not_answer_it() {
    let replica = one(Settings::default(), rules(Vec::new())).await;
    let of = |authenticated: UnixTime| {
        let ann = Person { device: Some("laptop"), ..Person::signed_in(START) };
        let mut ann = ann.from("FR", 3215, true);
        ann.identity.auth_time = Some(authenticated);
        ann
    };
    // Authenticated in the very second of the question, which whole seconds cannot tell from after it.
    assert_eq!(replica.told(&of(START)).await, "step-up:location_step_up");
    assert_eq!(replica.told(&of(START)).await, "step-up:location_step_up");
    replica.clock.advance(Duration::from_secs(1));
    assert_eq!(replica.told(&of(START)).await, "step-up:location_step_up");
    assert_eq!(replica.told(&of(replica.clock.now())).await, "allow");
}

#[tokio::test]
async fn two_replicas_agree_on_a_step_up_and_on_an_end() {
    let clock = Clock::manual(START);
    let now = clock.clone();
    let store: Arc<dyn Store> = Arc::new(Memory::new(move || now.now()));
    let moved = SessionWhen { device_changed: true, ..SessionWhen::default() };
    let ends = || rules(rule(moved, SessionOutcome::EndSession));
    let a = replica(&store, &clock, Settings::default(), ends()).await;
    let b = replica(&store, &clock, Settings::default(), ends()).await;
    let ann = Person { device: Some("laptop"), ..Person::signed_in(START).from("NO", 1, true) };
    clock.advance(MINUTE);
    assert_eq!(a.told(&ann).await, "step-up:location_step_up");
    a.written().await;
    clock.advance(Duration::from_secs(10));
    let mut answered = ann.clone().refreshed(clock.now());
    answered.identity.auth_time = Some(clock.now());
    assert_eq!(b.told(&answered).await, "allow", "the challenge of one replica is known at the other");
    b.written().await;
    assert_eq!(a.told(&answered).await, "allow");
    let old = ann.clone().refreshed(clock.now());
    assert_eq!(a.told(&old).await, "allow", "the step-up that b saw counts here, with any token of the session");
    let stolen = Person { device: Some("other"), ..answered.clone() };
    assert_eq!(a.told(&stolen).await, "deny:session_ended");
    a.written().await;
    assert_eq!(b.told(&answered).await, "deny:session_ended");
}

#[tokio::test]
async fn what_two_issuers_call_by_one_name_shares_neither_step_up_nor_end() {
    let moved = SessionWhen { device_changed: true, ..SessionWhen::default() };
    let replica = one(Settings::default(), rules(rule(moved, SessionOutcome::EndSession))).await;
    let of = |issuer: &str, authenticated: UnixTime| {
        let mut ann = Person { device: Some("laptop"), ..Person::signed_in(START).from("NO", 1, true) };
        (ann.identity.issuer, ann.identity.auth_time) = (issuer.into(), Some(authenticated));
        ann.refreshed(replica.clock.now())
    };
    let (ours, theirs) = ("https://issuer.test", "https://partner.test");
    let keys = [ours, theirs].map(|issuer| super::SessionKey::of(&of(issuer, START).identity));
    assert_ne!(keys[0].subject_text(), keys[1].subject_text());
    assert_ne!(keys[0].session_text(), keys[1].session_text());

    replica.clock.advance(MINUTE);
    assert_eq!(replica.told(&of(ours, START)).await, "step-up:location_step_up");
    replica.clock.advance(MINUTE);
    assert_eq!(
        replica.told(&of(theirs, replica.clock.now())).await,
        "step-up:location_step_up",
        "a question of its own"
    );
    replica.clock.advance(MINUTE);
    assert_eq!(replica.told(&of(theirs, replica.clock.now())).await, "allow");
    assert_eq!(replica.told(&of(ours, START)).await, "step-up:location_step_up", "another's answer");
    replica.clock.advance(MINUTE);
    assert_eq!(replica.told(&of(ours, replica.clock.now())).await, "allow");
    let elsewhere = Person { device: Some("other"), ..of(theirs, replica.clock.now()) };
    assert_eq!(replica.told(&elsewhere).await, "deny:session_ended");
    assert_eq!(replica.told(&of(theirs, replica.clock.now())).await, "deny:session_ended");
    assert_eq!(replica.told(&of(ours, replica.clock.now())).await, "allow", "another's end");
}

#[tokio::test]
async fn a_store_that_lost_its_sessions_is_given_them_back() {
    let clock = Clock::manual(START);
    let now = clock.clone();
    let memory = Arc::new(Memory::new(move || now.now()));
    let store: Arc<dyn Store> = memory;
    let moved = SessionWhen { device_changed: true, ..SessionWhen::default() };
    let a = replica(&store, &clock, Settings::default(), rules(rule(moved, SessionOutcome::EndSession))).await;
    let ann = Person { device: Some("laptop"), ..Person::signed_in(START) };
    assert_eq!(a.told(&ann).await, "allow");
    assert_eq!(a.told(&Person { device: Some("other"), ..ann.clone() }).await, "deny:session_ended");
    a.written().await;
    let (found, _) = store.scan(crate::store::keys::SESSION, "", 100).await.unwrap();
    assert_eq!(store.delete(&found).await.unwrap(), 1);
    a.sessions.hear(&crate::store::FeedEvent::Flushed);
    assert_eq!(a.told(&ann).await, "deny:session_ended", "this replica has not forgotten");
    a.written().await;
    assert_eq!(store.scan(crate::store::keys::SESSION, "", 100).await.unwrap().0, found, "written back");
    let b = replica(&store, &clock, Settings::default(), rules(Vec::new())).await;
    assert_eq!(b.told(&ann).await, "deny:session_ended");
}

#[tokio::test]
async fn no_more_sessions_at_once_than_allowed() {
    let limited = |on_excess| Settings { max_concurrent: Some(2), on_excess, ..Settings::default() };
    let sign_in = |replica: &Replica, id: &str| Person::signed_in(replica.clock.now()).session(id);

    let replica = one(limited(OnExcess::EndOldest), rules(Vec::new())).await;
    let mut people = Vec::new();
    for id in ["s1", "s2", "s3"] {
        replica.clock.advance(MINUTE);
        people.push(sign_in(&replica, id));
        assert_eq!(replica.told(people.last().unwrap()).await, "allow", "{id}");
        replica.written().await;
    }
    assert_eq!(replica.told(&people[0]).await, "deny:session_ended", "the oldest made room");
    assert_eq!(replica.told(&people[1]).await, "allow");

    let replica = one(limited(OnExcess::Refuse), rules(Vec::new())).await;
    for (id, expected) in [("s1", "allow"), ("s2", "allow"), ("s3", "deny:too_many_sessions"), ("s1", "allow")] {
        replica.clock.advance(MINUTE);
        assert_eq!(replica.told(&sign_in(&replica, id)).await, expected, "{id}");
        replica.written().await;
    }
}

#[tokio::test]
async fn a_session_that_is_refused_or_challenged_has_no_place_until_it_is_allowed() {
    for (on_excess, newest, older) in
        [(OnExcess::EndOldest, "allow", "deny:session_ended"), (OnExcess::Refuse, "deny:too_many_sessions", "allow")]
    {
        let settings = Settings { max_concurrent: Some(1), on_excess, ..Settings::default() };
        let replica = one(settings, rules(Vec::new())).await;
        let person = |id: &str| Person::signed_in(START).session(id);
        let good = person("good");
        // Tokens that are bound to a device which is not there, and of a password alone.
        let (mut stolen, mut bare) = (person("stolen"), person("bare"));
        stolen.identity.device = Some("laptop".into());
        bare.identity.methods = crate::domain::AuthMethods::NONE.with(AuthMethod::Password);
        for _ in 0..2 {
            for (who, expected) in
                [(&stolen, "deny:device_untrusted"), (&bare, "step-up:mfa_required"), (&good, "allow")]
            {
                assert_eq!(replica.told(who).await, expected, "{on_excess:?}");
                replica.written().await;
            }
        }
        replica.clock.advance(MINUTE);
        let allowed = Person { device: Some("laptop"), ..stolen.clone() };
        for _ in 0..2 {
            assert_eq!(replica.told(&allowed).await, newest, "{on_excess:?}: it is known, and has no place yet");
            replica.written().await;
            assert_eq!(replica.told(&good).await, older, "{on_excess:?}");
        }
    }
}

#[tokio::test]
async fn the_order_of_sessions_is_the_store_s_and_no_clock_s() {
    for on_excess in [OnExcess::Refuse, OnExcess::EndOldest] {
        let settings = || Settings { max_concurrent: Some(2), on_excess, ..Settings::default() };
        let (ahead, behind) = (Clock::manual(START.plus(Duration::from_secs(5))), Clock::manual(START));
        let store: Arc<dyn Store> = Arc::new(Memory::new(|| START));
        let ahead = replica(&store, &ahead, settings(), rules(Vec::new())).await;
        let behind = replica(&store, &behind, settings(), rules(Vec::new())).await;
        let person = |id: &str| Person::signed_in(START).session(id);
        let mut told = Vec::new();
        for (replica, id) in [(&ahead, "s1"), (&ahead, "s2"), (&behind, "s3"), (&ahead, "s4")] {
            told.push(replica.told(&person(id)).await);
            replica.written().await;
        }
        let mut after = Vec::new();
        for id in ["s1", "s2", "s3", "s4"] {
            after.push(behind.told(&person(id)).await);
        }
        let (allow, refused, ended) = ("allow", "deny:too_many_sessions", "deny:session_ended");
        match on_excess {
            OnExcess::Refuse => {
                assert_eq!(told, [allow, allow, refused, refused]);
                assert_eq!(after, [allow, allow, refused, refused]);
            }
            OnExcess::EndOldest => {
                assert_eq!(told, [allow; 4]);
                assert_eq!(after, [ended, ended, allow, allow]);
            }
        }
    }
}

#[tokio::test]
async fn sessions_that_the_version_before_counted_are_counted() {
    let clock = Clock::manual(START);
    let store: Arc<dyn Store> = Arc::new(Memory::new(|| START));
    let settings = Settings { max_concurrent: Some(2), on_excess: OnExcess::Refuse, ..Settings::default() };
    let replica = replica(&store, &clock, settings, rules(Vec::new())).await;
    let person = |id: &str| Person::signed_in(START).session(id);
    let keys = ["old1", "old2"].map(|id| super::SessionKey::of(&person(id).identity));
    let index = crate::store::keys::session_index(&keys[0].subject_text());
    // In the order of the clock alone, and later than now: written by a replica that is ahead.
    for (key, began) in keys.iter().zip(["1800000001000", "1800000002000"]) {
        store.write_record(&index, &[(&key.session_text(), began)], &[]).await.unwrap();
    }
    store.add(&index, &[("count", 2)], None).await.unwrap();
    assert_eq!(replica.told(&person("new")).await, "deny:too_many_sessions");
    assert_eq!(replica.told(&person("old2")).await, "allow", "its place is kept");
}

#[tokio::test]
async fn a_session_that_was_here_long_ago_comes_back_as_the_newest() {
    let settings = Settings { max_concurrent: Some(1), on_excess: OnExcess::Refuse, ..Settings::default() };
    let replica = one(settings, rules(Vec::new())).await;
    let person = |id: &str| Person::signed_in(START).session(id);
    assert_eq!(replica.told(&person("s1")).await, "allow");
    replica.written().await;
    let key = super::SessionKey::of(&person("s1").identity);
    replica.sessions.store.delete(&[crate::store::keys::session(&key.text())]).await.unwrap();
    replica.sessions.known.invalidate(&key);
    replica.clock.advance(2 * MINUTE);
    assert_eq!(replica.told(&person("s2")).await, "allow", "nothing is left of the first");
    assert_eq!(replica.told(&person("s1")).await, "deny:too_many_sessions");
}
