//! Is the risk model measurably good? `make risk-eval` prints the tables of docs/risk.md.
//!
//! Streams are made here (see [`stream`]), scored by the `countersign risk replay` that ships, and compared with the
//! truth, which the scorer never sees. With `COUNTERSIGN_SIMULATOR` naming a simulator that writes the same lines with
//! labels (`--seed N --set NAME=VALUE --out FILE`), its streams are measured as well.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot read its files has failed")]

mod anchors;
mod figures;
mod people;
#[path = "../support/redis.rs"]
#[allow(clippy::expect_used, clippy::panic, reason = "shared with other test programs")]
mod redis;
mod replay;
mod replicas;
mod stream;

use figures::{Figures, figures};
use replay::{outside, own, score_own};

/// What the model has to reach on our own streams: far over both anchors, and no worse than when it was written.
#[test]
fn the_model_finds_what_the_anchors_miss() {
    println!("{}", Figures::HEAD);
    for seed in [1, 2] {
        let stream = own(seed);
        let truth = stream.truth();
        let name = format!("own, seed {seed}");
        let of = |scores: &[f64]| figures(&truth, &stream.after_warm_up(scores));
        let model = of(&score_own(&stream).scores);
        let (fixed, freeman) = (of(&anchors::fixed(&stream.requests)), of(&anchors::freeman(&stream.requests)));
        for (scorer, row) in [("fixed", &fixed), ("freeman", &freeman), ("statistical", &model)] {
            println!("{}", row.row(&name, scorer));
        }
        println!("  AUC {:.3?}\n  campaigns {:.3?}", model.auc_of, model.campaigns_of);
        let best = |of: fn(&Figures) -> f64| of(&fixed).max(of(&freeman));
        assert!(model.auc > best(|f| f.auc) && model.auc >= 0.95, "AUC {:.3}", model.auc);
        assert!(model.found >= best(|f| f.found) + 0.2 && model.found >= 0.75, "found {:.3}", model.found);
        assert!(model.campaigns >= best(|f| f.campaigns) + 0.2 && model.campaigns >= 0.85, "{:.3}", model.campaigns);
        assert_eq!(model.campaigns_of["poisoning"], 1.0, "an attacker taught the model");
    }
}

#[test]
fn the_same_file_gives_the_same_scores_to_the_byte() {
    let stream = own(3);
    assert_eq!(score_own(&stream).table, score_own(&stream).table);
}

#[test]
fn results_are_read_only_for_requests_that_were_challenged() {
    let stream = own(4);
    let honest = score_own(&stream);
    let challenged = |table: &str| -> Vec<bool> {
        table
            .lines()
            .skip(1)
            .map(|row| row.split(',').nth(2).and_then(|r| r.parse().ok()).unwrap_or(0.0_f64) >= 5.0)
            .collect()
    };
    let asked = challenged(&honest.table);
    let scrambled = replay::score(&stream, |id, passes| if asked[id] { passes } else { !passes });
    assert_eq!(honest.table, scrambled.table);
}

#[test]
#[ignore = "needs COUNTERSIGN_SIMULATOR"]
fn outside_streams_are_measured_where_a_simulator_is_given() {
    let simulator = std::env::var_os("COUNTERSIGN_SIMULATOR").unwrap();
    let streams: [(&str, &[&str]); 7] = [
        ("301", &[]),
        ("302", &["mfa_always=0.3"]),
        ("303", &["mobile_churn=0.25"]),
        ("304", &["token_copied_device=0.8"]),
        ("305", &["alt_vocab=3", "country_shift=5"]),
        ("306", &["insider_slow=0.8"]),
        ("307", &["targeted_otp=0.5", "vpn_feed_recall=0.2"]),
    ];
    println!("{}", Figures::HEAD);
    for (seed, settings) in streams {
        let (truth, scores) = outside(&simulator, seed, settings);
        let found = figures(&truth, &scores);
        println!("{}", found.row(&format!("seed {seed} {}", settings.join(" ")), "statistical"));
        println!("  AUC {:.3?}\n  campaigns {:.3?}", found.auc_of, found.campaigns_of);
        assert!(found.auc >= 0.95 && found.found >= 0.68 && found.campaigns >= 0.80 && found.services <= 0.0001);
    }
}
