//! The rule files that the tests and the demo use are rules: they load, and nothing about them is odd.

use std::{
    collections::BTreeSet,
    fs,
    path::Path,
    process::{Command, Stdio},
};

use serde_json::Value;

use ::countersign::{
    decision::cases,
    domain::RiskModel,
    policy::{self, Options, SourceFile},
};

use crate::{
    spoofing::OVERRIDES,
    support::{self, countersign, envoy, http::Request, sample, stack::Builder, tokens::Token},
};

#[test]
fn the_rules_of_the_demo_and_of_the_tests_load_without_a_warning() {
    let ordinary: Value =
        serde_saphyr::from_str(include_str!("../ordinary/situations.yaml")).expect("the table is well-formed");
    let all = [
        ("src/cli/demo/rules.yaml", include_str!("../../src/cli/demo/rules.yaml")),
        ("tests/support/rules.yaml", include_str!("../support/rules.yaml")),
        ("tests/ordinary/situations.yaml", ordinary["rules"].as_str().expect("rules")),
    ];
    for (name, text) in all {
        match policy::load(&[SourceFile::new(name, text)], Options::default()) {
            Ok(loaded) => assert!(loaded.warnings.is_empty(), "{name}: {:#?}", loaded.warnings),
            Err(problems) => panic!("{name}: {problems:#?}"),
        }
    }
}

#[test]
fn the_rules_of_the_deployments_load_and_every_alert_has_its_line() {
    let samples = [
        ("deploy/compose/rules.yaml", include_str!("../../deploy/compose/rules.yaml").to_owned()),
        ("deploy/kubernetes/configmap.yaml", {
            let map: Value = serde_saphyr::from_str(include_str!("../../deploy/kubernetes/configmap.yaml"))
                .expect("the sample is well-formed");
            map["data"]["rules.yaml"].as_str().expect("rules").to_owned()
        }),
    ];
    for (name, text) in samples {
        match policy::load(&[SourceFile::new(name, text)], Options::default()) {
            Ok(loaded) => assert!(loaded.warnings.is_empty(), "{name}: {:#?}", loaded.warnings),
            Err(problems) => panic!("{name}: {problems:#?}"),
        }
    }
    let page = include_str!("../../docs/operating.md");
    let alerts = include_str!("../../deploy/compose/alerts.yml");
    let named = alerts.lines().filter_map(|line| line.trim().strip_prefix("- alert: "));
    let missing: Vec<_> = named.filter(|name| !page.contains(&format!("| `{name}` |"))).collect();
    assert_eq!(missing, [""; 0]);
}

#[test]
fn what_a_route_of_the_sample_names_is_asked_for_besides_what_its_path_leads_to() {
    let rules = include_str!("../../envoy/rules/per-route.yaml");
    let stack = Builder::with_rules(rules).no_envoy().start();
    let (authz, upstream) = (stack.countersign.authz, stack.upstream);
    let (clerk, nobody) = (Token::person("alice").roles(&["clerk"]), Token::person("eve").roles(&[]));
    for version in [envoy::NEW, envoy::OLD] {
        let (_envoy, door) = sample::start(&stack.folder, ("per-route", version), authz, upstream, &[]);
        let ask = |method: &str, path: &str, token: &Token| {
            let answer = Request::new(door, method, path).bearer(&token.mint()).send();
            (answer.status, if answer.status == 200 { String::new() } else { answer.reason() })
        };
        assert_eq!(ask("POST", "/graphql", &clerk), (200, String::new()), "Envoy {version}");
        assert_eq!(ask("POST", "/graphql", &nobody), (403, "permission_missing".into()), "Envoy {version}");
        assert_eq!(ask("GET", "/refunds/1", &clerk), (403, "permission_missing".into()), "Envoy {version}");
        let manager = Token::person("bob").roles(&["manager"]);
        assert_eq!(ask("GET", "/refunds/1", &manager), (401, "trust_too_low".into()), "Envoy {version}: step up");
    }
}

#[test]
fn the_cases_of_the_page_on_cases_come_out_as_written_and_it_has_every_word() {
    let page = include_str!("../../docs/policy-tests.md");
    let blocks = page.split("```yaml\n").skip(1).filter_map(|rest| rest.split_once("```"));
    let files: Vec<_> = blocks.map(|(text, _)| text.split_once('\n').expect("a name first")).collect();
    let files: Vec<_> =
        files.into_iter().map(|(name, text)| SourceFile::new(name.trim_start_matches("# "), text)).collect();
    let options = Options { risk_model: RiskModel::Fixed, ..Options::default() };
    let rules = policy::load(&files, options).expect("the rules load").rules;
    let report = cases::run(&files, &rules).expect("the cases are understood");
    let failed: Vec<_> = report.results.iter().filter(|case| !case.passed()).collect();
    assert!(failed.is_empty() && report.results.len() > 5, "{failed:#?}");

    let shapes = include_str!("../../src/decision/cases/shape.rs").lines();
    let (_, expected) =
        include_str!("../../src/decision/cases/expect.rs").split_once("struct Expect {").expect("there");
    let fields = shapes.filter_map(|line| line.trim().strip_prefix("pub(super) "));
    let fields = fields.chain(expected.lines().take_while(|line| *line != "}").map(str::trim));
    let names: Vec<_> = fields.filter(|line| !line.starts_with("struct") && !line.starts_with('/')).collect();
    let names = names.iter().filter_map(|line| line.split_once(':')).map(|(name, _)| name);
    let missing: Vec<_> = names.filter(|name| !page.contains(&format!("`{name}`"))).collect();
    assert_eq!(missing, [""; 0]);
}

#[test]
fn every_metric_of_the_code_stands_on_the_page_of_metrics_and_no_other() {
    let mut code = BTreeSet::new();
    let mut folders = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join("src")];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).expect("readable") {
            let path = entry.expect("readable").path();
            match path.extension() {
                None => folders.push(path),
                // What writes numbers as text tries it on names of its own.
                Some(kind) if kind == "rs" && !path.ends_with("ops/metrics.rs") => {
                    let text = fs::read_to_string(&path).expect("readable");
                    code.extend(text.split('"').filter(|word| is_metric(word)).map(str::to_owned));
                }
                Some(_) => {}
            }
        }
    }
    let page = include_str!("../../docs/metrics.md");
    let named = page.lines().filter_map(|line| line.strip_prefix("| `")?.split_once('`')).map(|(name, _)| name);
    let page: BTreeSet<_> = named.map(|name| name.strip_suffix("_total").unwrap_or(name).to_owned()).collect();
    assert!(page.len() > 80, "{page:?}");
    assert_eq!(code, page);
}

fn is_metric(word: &str) -> bool {
    let rest = word.strip_prefix("countersign_").or_else(|| word.strip_prefix("revocation_lag_"));
    rest.is_some_and(|rest| rest.len() > 1 && rest.bytes().all(|octet| octet.is_ascii_lowercase() || octet == b'_'))
}

#[test]
fn every_bound_of_a_memory_has_a_row_in_the_table_of_sizes() {
    let settings = include_str!("../../docs/configuration.md");
    let names = settings.lines().filter_map(|line| line.strip_prefix("| `")?.split_once('`')).map(|(name, _)| name);
    let bounds: Vec<_> = names.filter(|name| name.ends_with("_entries") || name.ends_with(".size_mib")).collect();
    assert!(bounds.len() >= 5, "{bounds:?}");
    let page = include_str!("../../docs/operating.md");
    let missing: Vec<_> = bounds.iter().filter(|name| !page.contains(&format!("| `{name}` |"))).collect();
    assert!(missing.is_empty(), "{missing:?}");
    assert!(page.contains("`check.max_connections`"), "what a mesh needs most");
}

#[test]
fn envoy_accepts_every_sample_and_the_edge_fails_closed() {
    for version in [envoy::NEW, envoy::OLD] {
        support::tool(&format!("envoy-{version}/bin/envoy"));
        support::record_real(&format!("envoy-{version}"));
    }
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/envoy-samples.sh");
    let output = Command::new(script).stdin(Stdio::null()).output().expect("the script runs");
    let text = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    assert!(output.status.success(), "{text}");
}

#[test]
fn no_sample_hands_on_another_host_path_or_method_or_refuses_for_one() {
    let stack = Builder::new().no_envoy().start();
    let (authz, upstream) = (stack.countersign.authz, stack.upstream);
    for name in ["edge-http", "per-route", "raw-headers", "streams"] {
        let grpc = [("port_value: 8081", "port_value: 1")];
        let more = if name == "streams" { &grpc[..] } else { &[] };
        for version in [envoy::NEW, envoy::OLD] {
            let (_envoy, door) = sample::start(&stack.folder, (name, version), authz, upstream, more);
            let others = ["x-forwarded-host", "forwarded"].into_iter().chain(OVERRIDES);
            let ask = Request::new(door, "GET", "/hello").bearer(&Token::person("alice").mint());
            let ask = others.clone().fold(ask, |ask, other| ask.header(other, "host=b.example"));
            let answer = ask.send();
            assert_eq!(answer.status, 200, "{name}, Envoy {version}: {answer:?}");
            let seen = answer.upstream().expect("it reached the upstream");
            for other in others {
                assert_eq!(seen.all(other), Vec::<&str>::new(), "{name}, Envoy {version}: {other}");
            }
            assert_eq!(seen.header("host"), "shop.example");
        }
    }
}

#[test]
fn the_pages_that_are_made_from_the_code_are_what_the_code_says() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let status = countersign::binary().arg("docs").arg("--out").arg(folder.path()).status().expect("it runs");
    assert!(status.success());
    for entry in fs::read_dir(folder.path()).expect("readable") {
        let made = entry.expect("readable").path();
        let kept = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs").join(made.file_name().expect("a name"));
        let same = fs::read(&made).expect("readable") == fs::read(&kept).unwrap_or_default();
        assert!(same, "{} is not what the code says: run `make docs`", kept.display());
    }
}
