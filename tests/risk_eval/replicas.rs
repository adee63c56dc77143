//! Two replicas that hear from each other are as good as one: in memory, and through a real Redis.

use std::{sync::Arc, time::Duration};

use countersign::{
    behavior::{Behaviors, Observed, Settings},
    clock::Clock,
    domain::Fact,
    risk::statistical::{
        Action, Advice, Agent, Capacity, Engine, Event, Key, Learned, Model, Outcome,
        event::{Device, Place, Proof, Strength, roles_key},
    },
    store::{self, Store},
};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::{figures::figures, people::Random, redis::Redis, replay::own, stream::Request};

fn event(request: &Request) -> Event {
    let subject = Key::of(&request.user);
    let (method, path) = request.action.split_once(' ').unwrap_or(("GET", "/"));
    let town = request.net.town;
    let code: [u8; 2] = town.code().as_bytes().try_into().unwrap();
    Event {
        now: request.at,
        subject,
        session: subject.within(&request.session),
        ends: None,
        strength: if request.strong { Strength::Strong } else { Strength::Weak },
        address: Some(request.net.address.into()),
        place: Some(Place {
            country: code,
            position: Some((town.latitude as f32, town.longitude as f32)),
            radius_km: 0.0,
        }),
        asn: Some(request.net.asn),
        anonymous: request.net.anonymous,
        device: Device {
            id: request.gear.id.as_deref().map(Key::of),
            proof: Proof::Named,
            compliant: request.gear.compliant,
            ..Device::default()
        },
        agent: Agent::parse(&request.gear.agent),
        action: Action::of(method, path),
        roles: roles_key([request.role.as_str()]),
    }
}

/// Scores a stream on `count` replicas; each request goes to any of them, news arrive a second later.
fn scores(requests: &[Request], count: usize) -> Vec<f64> {
    let mut replicas = vec![Engine::new(Model::default(), Capacity { profiles: 5000, sessions: 100_000 }); count];
    let mut random = Random::new(77);
    let mut news: Vec<(usize, Learned)> = Vec::new();
    let mut second = 0.0;
    let mut found = Vec::with_capacity(requests.len());
    for request in requests {
        let event = event(request);
        if event.now - second >= 1.0 {
            for (from, learned) in news.drain(..) {
                replicas.iter_mut().enumerate().filter(|(to, _)| *to != from).for_each(|(_, to)| to.merge(&learned));
            }
            second = event.now;
        }
        let here = random.below(count);
        let engine = &mut replicas[here];
        let assessment = engine.assess(&event);
        let outcome = match engine.advise(&assessment) {
            Advice::Allow => Outcome::Allowed,
            Advice::Refuse => Outcome::Denied,
            Advice::Challenge if request.passes => Outcome::StepUpPassed,
            Advice::Challenge => Outcome::StepUpFailed,
        };
        let learned = engine.learn(&event, &assessment, outcome);
        if count > 1 {
            news.push((here, learned));
        }
        found.push(assessment.evidence.score());
    }
    found
}

#[test]
fn two_replicas_lose_less_than_a_hundredth_of_auc_against_one() {
    for seed in [5, 6] {
        let stream = own(seed);
        let truth = stream.truth();
        let of = |count| figures(&truth, &stream.after_warm_up(&scores(&stream.requests, count)));
        let (one, two) = (of(1), of(2));
        println!("seed {seed}: one {:.4} {:.4}, two {:.4} {:.4}", one.auc, one.campaigns, two.auc, two.campaigns);
        assert!(two.auc > one.auc - 0.01, "{:.4} against {:.4}", two.auc, one.auc);
    }
}

/// How many seconds of a stream pass between exchanges through Redis: rarer than in service, which only makes it harder.
const BETWEEN: f64 = 60.0;

/// As [`scores`], on two services that share a Redis. Each subject's first request on a replica reads what the other wrote.
async fn scores_through(redis: &Redis, requests: &[Request]) -> Vec<f64> {
    let cancelled = CancellationToken::new();
    let store: Arc<dyn Store> = store::redis::Redis::open(&redis.url(), &cancelled).unwrap();
    while store.read(&["cs:x".to_owned()]).await.is_err() {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    // Their own turns are cancelled: the stream's clock says when.
    let turns = CancellationToken::new();
    turns.cancel();
    let settings = Settings { profiles: 100_000, sessions: 400_000 };
    let start = || Behaviors::start(&settings, Some(Arc::clone(&store)), &Clock::system(), &turns);
    let replicas = [start(), start()];
    let lines = Model::default().calibration().initial;
    let mut random = Random::new(77);
    let (mut second, mut found) = (0.0, Vec::with_capacity(requests.len()));
    for request in requests {
        let event = event(request);
        if event.now - second >= BETWEEN {
            for replica in &replicas {
                while replica.exchange().await.is_err() {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
            }
            second = event.now;
        }
        let replica = &replicas[random.below(2)];
        let observed = patiently(replica, event).await;
        let score = observed.score();
        let outcome = match score {
            score if score >= lines.deny => Outcome::Denied,
            score if score >= lines.step && !observed.is_proven() => {
                if request.passes {
                    Outcome::StepUpPassed
                } else {
                    Outcome::StepUpFailed
                }
            }
            _ => Outcome::Allowed,
        };
        replica.settle(&observed, outcome);
        found.push(score);
    }
    found
}

/// On a busy machine the past may come later than an answer would wait for it; a test can.
async fn patiently(replica: &Behaviors, event: Event) -> Observed {
    for _ in 0..500 {
        if let Fact::Known { value, .. } = replica.observe(event, Instant::now() + Duration::from_secs(10)).await {
            return value;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("Redis does not answer");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_replicas_through_redis_lose_less_than_a_hundredth_of_auc_against_one() {
    let redis = Redis::start().await;
    let stream = own(5);
    let truth = stream.truth();
    let of = |scores: &[f64]| figures(&truth, &stream.after_warm_up(scores));
    let (one, two) = (of(&scores(&stream.requests, 1)), of(&scores_through(&redis, &stream.requests).await));
    println!("through Redis: one {:.4} {:.4}, two {:.4} {:.4}", one.auc, one.campaigns, two.auc, two.campaigns);
    assert!(two.auc > one.auc - 0.01, "{:.4} against {:.4}", two.auc, one.auc);
}
