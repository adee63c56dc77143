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
    decision::{Decision, decide},
    domain::{Facts, RiskModel},
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
        let Ok(rules) = Rules::build("random", set.clone(), None, options) else { continue };
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
