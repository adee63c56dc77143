//! The decision against a second, slow, obvious implementation, on random rules and facts.
//!
//! 30,000 inputs by default; `COUNTERSIGN_ORACLE_INPUTS=1000000 cargo test --release --test decision_oracle` for more,
//! `COUNTERSIGN_ORACLE_SEED` for others.

#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

#[path = "oracle/oracle.rs"]
mod oracle;
#[path = "oracle/random.rs"]
mod random;

use std::collections::BTreeMap;

use countersign::{
    decision::{Decision, decide, evidence},
    domain::{Facts, RiskModel, RiskScore, SignalName},
    policy::{Options, Rules},
};
use rand::{SeedableRng, rngs::StdRng};

const FACTS_PER_RULES: u64 = 100;

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().map_or(default, |text| text.parse().unwrap())
}

fn decided(facts: &Facts, rules: &Rules) -> (oracle::Answer, Decision) {
    let decision = decide(facts, rules);
    let reason = decision.reason.map_or("", |reason| reason.code());
    let millionths = |value: f64| (value * 1e6).round() as i64;
    let kind = |asked: &countersign::decision::StepUp| asked.level.map_or("fresh", |level| level.as_str());
    let answer = oracle::Answer {
        verdict: decision.verdict.as_str(),
        reason,
        status: decision.status(),
        risk: millionths(decision.risk.score.get()),
        trust: millionths(decision.trust.score.get()),
        step_up: decision.step_up.as_ref().map(|asked| (kind(asked), asked.max_age)),
    };
    (answer, decision)
}

#[test]
fn the_product_and_the_oracle_agree() {
    let inputs = number("COUNTERSIGN_ORACLE_INPUTS", 30_000);
    let seed = number("COUNTERSIGN_ORACLE_SEED", 7);
    let mut rng = StdRng::seed_from_u64(seed);
    let options = Options { risk_model: RiskModel::Fixed, ..Options::default() };
    let mut seen: BTreeMap<String, u64> = BTreeMap::new();
    let mut done = 0;
    while done < inputs {
        let set = random::rules(&mut rng);
        // Ties are refused when rules are built; draw again.
        let Ok(rules) = Rules::build("random", set.clone(), None, options.clone()) else { continue };
        for _ in 0..FACTS_PER_RULES {
            let facts = random::facts(&mut rng);
            let (ours, decision) = decided(&facts, &rules);
            let theirs = oracle::answer(&facts, &set);
            assert_eq!(ours, theirs, "input {done}, seed {seed}\n{facts:#?}\n{set:#?}\n{decision:#?}");
            assert_eq!(decision, decide(&facts, &rules), "equal inputs, equal decisions");
            *seen.entry(format!("{} {}", ours.verdict, ours.reason)).or_default() += 1;
            done += 1;
        }
    }
    // A generator that reaches few answers proves little.
    assert!(seen.len() >= 35, "{seen:#?}");
    assert!(seen["allow "] > done / 50, "{seen:#?}");
    println!("{done} inputs, {} different answers: {seen:#?}", seen.len());
}

/// A record holds the points of the lines, rounded, and the facts: what each line rested on must follow from these.
#[test]
fn the_evidence_of_every_line_follows_from_recorded_facts() {
    let mut rng = StdRng::seed_from_u64(number("COUNTERSIGN_ORACLE_SEED", 7));
    let mut seen: BTreeMap<&str, u64> = BTreeMap::new();
    for risk_model in [RiskModel::Fixed, RiskModel::Statistical, RiskModel::None] {
        let options = Options { risk_model, ..Options::default() };
        for _ in 0..100 {
            let Ok(rules) = Rules::build("random", random::rules(&mut rng), None, options.clone()) else { continue };
            for _ in 0..50 {
                let facts = random::facts(&mut rng);
                let decision = decide(&facts, &rules);
                let recorded: Facts = serde_json::from_str(&serde_json::to_string(&facts).unwrap()).unwrap();
                assert_eq!(recorded, facts);
                let rounded = |score: f64| (score * 1e6).round() / 1e6;
                let device = decision.trust.lines.iter().find(|line| line.name == SignalName::Device);
                let device = device.map_or(0.0, |line| rounded(line.points));
                let again = evidence(&recorded, RiskScore::new(rounded(decision.risk.score.get())), device);
                for line in decision.risk.lines.iter().chain(&decision.trust.lines) {
                    let same = again.iter().find(|known| known.name == line.name);
                    let text = same.map_or("seen".to_owned(), |known| known.evidence.to_string());
                    // A device of no trust is worth as little as one that nobody asked for.
                    if line.points == 0.0 && text.starts_with("registry trust 0.00") {
                        continue;
                    }
                    assert_eq!(text, line.evidence.to_string(), "{line}\n{facts:#?}\n{decision:#?}");
                    *seen.entry(line.name.as_str()).or_default() += 1;
                }
            }
        }
    }
    assert!(seen.len() >= 15, "{seen:#?}");
}
