//! What a decision costs, by the number of rules: routing is a trie, so five thousand resources cost what five do.
//!
//! `cargo bench --bench decision`. Facts are those of a warm request: everything known, nothing looked up.

#![allow(missing_docs, clippy::unwrap_used, reason = "a bench")]

use std::{fmt::Write as _, hint::black_box};

#[path = "../tests/decision/world.rs"]
#[allow(dead_code, reason = "shared with the tests")]
mod world;

use countersign::{
    decision::{LiveFacts, Target, authorize, decide},
    domain::{AuthMethod, Fact, RiskModel},
    policy::{Options, Rules, SourceFile, load},
};
use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};

/// `size` resources in a tree of paths, each with a policy of its own.
fn yaml(size: usize) -> String {
    let mut yaml = String::from("roles: { clerk: [\"orders:read\"] }\nresources:\n");
    for i in 0..size {
        let policy = format!("policy: p{i}, permission: \"orders:read\", data_classification: confidential");
        writeln!(yaml, "  - {{ id: r{i}, match: {{ paths: [\"/s{}/v{i}/{{id}}\"] }}, {policy} }}", i % 70).unwrap();
    }
    yaml.push_str("policies:\n");
    for i in 0..size {
        let conditions = "min_trust_level: medium, data_classification: [confidential], api_scopes: [\"read:data\"]";
        let actions = "[{ type: allow, constraints: { encrypt_in_transit: true, monitor_usage: true } }]";
        writeln!(yaml, "  - {{ id: p{i}, conditions: {{ {conditions} }}, actions: {actions} }}").unwrap();
    }
    yaml
}

fn rules(size: usize, cedar: bool) -> Rules {
    let mut yaml = yaml(size);
    let mut files = vec![];
    if cedar {
        yaml.push_str("cedar: { policies: a.cedar }\n");
        let mut text = String::from("permit (principal in Role::\"clerk\", action in Action::\"read\", resource);\n");
        for i in 0..30 {
            writeln!(
                text,
                "forbid (principal, action, resource) when {{ context.risk > 8 && context.path like \"/x{i}/*\" }};"
            )
            .unwrap();
        }
        files.push(SourceFile::new("a.cedar", text));
    }
    files.push(SourceFile::new("rules.yaml", yaml));
    let options = Options { risk_model: RiskModel::Fixed, ..Options::default() };
    load(&files, options).unwrap().rules
}

fn decisions(bench: &mut Criterion) {
    let mut group = bench.benchmark_group("decide");
    for size in [5, 100, 5_000] {
        let rules = rules(size, false);
        let facts = world::facts("GET", &format!("/s{}/v{}/7", (size - 1) % 70, size - 1));
        assert!(decide(&facts, &rules).is_allow());
        group.bench_function(BenchmarkId::new("allow", size), |b| {
            b.iter(|| black_box(decide(black_box(&facts), &rules)));
        });
        group.bench_function(BenchmarkId::new("permit", size), |b| {
            b.iter(|| {
                black_box(authorize(LiveFacts::gathered(black_box(&facts), Target::of(&facts.request, &rules))).is_ok())
            });
        });
        let stranger = world::facts("GET", "/s1/nowhere/7");
        group.bench_function(BenchmarkId::new("no rule", size), |b| {
            b.iter(|| black_box(decide(black_box(&stranger), &rules)));
        });
    }
    let rules = rules(100, true);
    let facts = world::facts("GET", "/s29/v99/7");
    assert!(decide(&facts, &rules).is_allow());
    group.bench_function("allow, 31 attribute policies remembered", |b| {
        b.iter(|| black_box(decide(black_box(&facts), &rules)));
    });
    let mut weak = world::facts("GET", "/s29/v99/7");
    weak.device = Fact::Absent;
    world::with_identity(&mut weak, |who| who.methods = world::methods(&[AuthMethod::Password]));
    assert!(decide(&weak, &rules).step_up.is_some());
    group.bench_function("step-up, found by what-if", |b| b.iter(|| black_box(decide(black_box(&weak), &rules))));
    group.finish();
}

/// As many hosts as resources, one path: a gateway in front of many applications.
fn hosts(bench: &mut Criterion) {
    let mut group = bench.benchmark_group("decide by host");
    for size in [5, 5_000] {
        let mut yaml = String::from("resources:\n");
        for i in 0..size {
            writeln!(
                yaml,
                "  - {{ id: r{i}, access: authenticated, match: {{ hosts: [h{i}.example], paths: [\"/**\"] }} }}"
            )
            .unwrap();
        }
        let options = Options { risk_model: RiskModel::Fixed, ..Options::default() };
        let rules = load(&[SourceFile::new("rules.yaml", yaml)], options).unwrap().rules;
        let mut facts = world::facts("GET", "/a/b/c");
        facts.request.host = format!("h{}.example", size - 1).as_str().into();
        assert!(decide(&facts, &rules).is_allow());
        group.bench_function(BenchmarkId::new("allow", size), |b| {
            b.iter(|| black_box(decide(black_box(&facts), &rules)));
        });
    }
    group.finish();
}

/// Reading, checking and indexing the files: what a reload costs, off the hot path.
fn loading(bench: &mut Criterion) {
    let mut group = bench.benchmark_group("load");
    group.sample_size(10);
    for size in [100, 1_000, 5_000] {
        let files = [SourceFile::new("rules.yaml", yaml(size))];
        let options = Options { risk_model: RiskModel::Fixed, ..Options::default() };
        group.bench_function(BenchmarkId::new("resources and policies", size), |b| {
            b.iter(|| load(black_box(&files), options.clone()).unwrap().rules);
        });
    }
    group.finish();
}

criterion_group!(benches, decisions, hosts, loading);
criterion_main!(benches);
