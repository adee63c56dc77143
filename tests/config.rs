//! Configurations as people get them wrong: each is refused, and the right line is named.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that cannot go on fails")]

use std::{fs, process::Command};

use countersign::{
    config::{self, Environment},
    document::Severity,
};

/// The first lines of each file say what is expected: `# expect LINE PATH: MESSAGE`, by their beginnings.
#[test]
fn every_broken_configuration_is_refused_with_the_right_line_named() {
    let mut wrong = Vec::new();
    let mut count = 0;
    for entry in fs::read_dir("tests/config/broken").unwrap() {
        let path = entry.unwrap().path();
        let text = fs::read_to_string(&path).unwrap();
        let found = match config::load(&path, &Environment::new()) {
            Ok((config, _)) => config.load_rules().map(|_| ()).expect_err(&format!("{} loads", path.display())),
            Err(found) => found,
        };
        let told: Vec<String> = found
            .iter()
            .filter(|problem| problem.severity == Severity::Error)
            .map(|problem| format!("{} {}: {}", problem.line(), problem.path, problem.message))
            .collect();
        let expected: Vec<&str> = text.lines().map_while(|line| line.strip_prefix("# expect ")).collect();
        assert!(!expected.is_empty(), "{} expects nothing", path.display());
        for expected in &expected {
            if !told.iter().any(|told| told.starts_with(expected.trim_end())) {
                wrong.push(format!("{}\n  expected {expected}\n  told     {told:#?}", path.display()));
            }
        }
        if told.len() != expected.len() {
            wrong.push(format!("{}: {} told for {} expected: {told:#?}", path.display(), told.len(), expected.len()));
        }
        count += 1;
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(count >= 50, "{count}");
}

fn countersign(arguments: &[&str]) -> (Option<i32>, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_countersign"));
    let output = command.args(arguments).env_remove("COUNTERSIGN_CONFIG").output().unwrap();
    (output.status.code(), String::from_utf8([output.stdout, output.stderr].concat()).unwrap())
}

#[test]
fn a_standard_output_that_is_full_is_one_line_and_exit_1() {
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("c.yaml");
    fs::write(&config, "rules: [rules.yaml]\nstore: { url: \"memory://\" }\n").unwrap();
    let rules = "resources:\n  - id: a\n    match: { paths: [\"/a\"] }\n    access: public\n";
    fs::write(folder.path().join("rules.yaml"), rules).unwrap();
    for arguments in [&["check-config", "--config", config.to_str().unwrap()][..], &["--help"]] {
        let full = fs::File::options().write(true).open("/dev/full").unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_countersign"));
        let output = command.args(arguments).env_remove("COUNTERSIGN_CONFIG").stdout(full).output().unwrap();
        let told = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{arguments:?}: {told}");
        assert!(told.ends_with("standard output cannot be written: No space left on device (os error 28)\n"), "{told}");
        assert!(!told.contains("panicked"), "{told}");
    }
}

#[test]
fn serve_and_check_config_refuse_with_64_and_say_every_problem() {
    let file = "tests/config/broken/several_at_once.yaml";
    for command in ["check-config", "serve"] {
        let (code, text) = countersign(&[command, "--config", file]);
        assert_eq!(code, Some(64), "{command}: {text}");
        for word in ["htttp", "leeway", "store.url", "audit.queue"] {
            assert!(text.contains(word), "{command}: {word}: {text}");
        }
    }
    let (_, short) = countersign(&["check-config", "--short", "--config", file]);
    assert!(
        short.contains(&format!("{file}:6:3: error: listen.htttp: unknown key `htttp` (help: did you mean `http`?)")),
        "{short}"
    );
}

#[test]
fn check_config_tells_problems_of_rules_and_accepts_what_is_fine() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| fs::write(folder.path().join(name), text).unwrap();
    let path = folder.path().join("c.yaml");
    let config = path.to_str().unwrap();
    write("c.yaml", "rules: [rules.yaml]\nstore: { url: \"memory://\" }\n");
    write("rules.yaml", "resources:\n  - id: a\n    match: { paths: [\"a\"] }\n    colour: red\n");
    let (code, text) = countersign(&["check-config", "--config", config]);
    assert_eq!(code, Some(64), "{text}");
    assert!(text.contains("rules.yaml:4:5") && text.contains("colour"), "{text}");
    write("rules.yaml", "resources:\n  - id: a\n    match: { paths: [\"/a\"] }\n    access: public\n");
    let (code, text) = countersign(&["check-config", "--config", config]);
    assert_eq!(code, Some(0), "{text}");
    assert!(text.contains("forgets every revocation") && text.contains(": fine"), "{text}");
    assert_eq!(countersign(&["check-config", "--strict", "--config", config]).0, Some(64), "warnings count when asked");
}

#[test]
fn check_config_tells_of_rules_and_missing_files_beside_errors_of_the_configuration() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| fs::write(folder.path().join(name), text).unwrap();
    let path = folder.path().join("c.yaml");
    write("rules.yaml", "resources:\n  - id: a\n    match: { paths: [\"/a\"] }\n    colour: red\n");
    write(
        "c.yaml",
        "listne: {}\n\
         listen: { authz_tls: { certificate: tls.crt, key: rules.yaml } }\n\
         identity: { issuers: [{ issuer: \"https://i.test\", audiences: [a], jwks: keys.json }] }\n\
         rules: [rules.yaml, more.yaml]\n\
         signals: { transmitters: [{ issuer: \"https://t.test\", audience: a, jwks: \"file://localhost/no%20where\" }],\n\
         \x20 logout: [{ issuer: \"https://o.test\", audience: a, jwks: \"file://keys.json\" },\n\
         \x20   { issuer: \"https://p.test\", audience: a, jwks: keys.json }] }\n",
    );
    let (code, text) = countersign(&["check-config", "--short", "--config", path.to_str().unwrap()]);
    assert_eq!(code, Some(64), "{text}");
    for said in [
        "c.yaml:1:1: error: listne",
        "c.yaml:2:37: error: listen.authz_tls.certificate: `",
        "c.yaml:3:73: warning: identity.issuers[0].jwks: `",
        "signals.transmitters[0].jwks: `/no where` cannot be read: ",
        "error: signals.logout[0].jwks: must name a file by its absolute path",
        "warning: signals.logout[1].jwks: `",
        "rules.yaml:4:5: error: resources[0].colour",
        "more.yaml: error: cannot be read",
    ] {
        assert!(text.contains(said), "{said}:\n{text}");
    }
    assert!(!text.contains("authz_tls.key"), "{text}");
}

#[test]
fn check_config_reads_files_as_the_start_does_and_makes_none() {
    use std::os::unix::fs::PermissionsExt as _;
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| fs::write(folder.path().join(name), text).unwrap();
    let mode =
        |name: &str, mode| fs::set_permissions(folder.path().join(name), fs::Permissions::from_mode(mode)).unwrap();
    let (key, other) = (rcgen::KeyPair::generate().unwrap(), rcgen::KeyPair::generate().unwrap());
    let certificate = rcgen::CertificateParams::new(["h.test".to_owned()]).unwrap().self_signed(&key).unwrap();
    write("tls.crt", &certificate.pem());
    write("tls.key", &key.serialize_pem());
    write("other.key", &other.serialize_pem());
    write("junk", "junk\n");
    mode("junk", 0o600);
    write("open.token", "a token of some length\n");
    mode("open.token", 0o644);
    let path = folder.path().join("c.yaml");
    let look = |lines: &str| {
        write("c.yaml", lines);
        countersign(&["check-config", "--short", "--config", path.to_str().unwrap()])
    };
    let here = folder.path().display();
    let tls = |key: &str, ca: &str| format!("{{ certificate: tls.crt, key: {key}, client_ca: {ca} }}");
    for (line, at) in [
        (format!("listen: {{ authz_tls: {} }}", tls("other.key", "tls.crt")), "listen.authz_tls: "),
        (format!("listen: {{ authz_tls: {} }}", tls("junk", "tls.crt")), "listen.authz_tls.key: "),
        (format!("listen: {{ admin_tls: {} }}", tls("tls.key", "junk")), "listen.admin_tls.client_ca: "),
        ("admin: { tokens: [{ name: a, role: admin, file: open.token }] }".into(), "admin.tokens[0].file: "),
        ("admin: { state_dir: junk }".into(), "admin.state_dir: "),
        ("admin: { state_dir: /proc/sys/countersign }".into(), "admin.state_dir: no token can be made: `/proc/sys` "),
        ("audit: { key: junk }".into(), "audit.key: "),
        ("audit: { key: tls.crt }".into(), "audit.key: "),
        ("audit: { key: nowhere/audit.key }".into(), "audit.key: "),
        ("audit: { sink: file, directory: junk }".into(), "audit.directory: "),
        ("devices: { authorities: [tls.crt, junk] }".into(), "devices.authorities[1]: "),
        (format!("store: {{ url: \"file://{here}/junk\" }}"), "store.url: "),
        (format!("store: {{ url: \"file://{here}/junk/below\" }}"), "store.url: "),
        (
            "telemetry: { traces: { endpoint: \"https://otel:4317\", ca: nowhere.pem } }".into(),
            "telemetry.traces.ca: `",
        ),
        ("telemetry: { traces: { endpoint: \"https://otel:4317\", ca: junk } }".into(), "telemetry.traces.ca: "),
        ("store: { url: \"rediss://localhost?ca=/nonexistent.pem\" }".into(), "store.url: "),
    ] {
        let (code, text) = look(&line);
        assert_eq!(code, Some(64), "{line}: {text}");
        assert!(text.contains("c.yaml:1:") && text.contains(&format!("error: {at}")), "{line}: {text}");
    }
    let fine = format!(
        "listen: {{ authz_tls: {} }}\naudit: {{ key: audit.key }}\nstore: {{ url: \"file://{here}/new\" }}\n\
         admin: {{ state_dir: state }}\nidentity: {{ key_sets: {{ ca_file: ca.pem }} }}\n",
        tls("tls.key", "tls.crt")
    );
    let (code, text) = look(&fine);
    assert_eq!(code, Some(0), "{text}");
    assert!(text.contains("warning: identity.key_sets.ca_file: "), "{text}");
    for made in ["audit.key", "new", "state"] {
        assert!(!folder.path().join(made).exists(), "{made}");
    }
}

#[test]
fn check_config_and_doctor_warn_of_a_certificate_that_is_out_of_its_time() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("c.yaml");
    let key = rcgen::KeyPair::generate().unwrap();
    fs::write(folder.path().join("tls.key"), key.serialize_pem()).unwrap();
    let lines =
        "listen:\n  authz_tls: { certificate: tls.crt, key: tls.key }\n  http: 127.0.0.1:1\n  admin: 127.0.0.1:2\n";
    fs::write(&path, lines).unwrap();
    let asked = |arguments: &[&str]| countersign(&[arguments, &["--config", path.to_str().unwrap()]].concat());
    for ((from, until), said) in [
        ((2001, 2002), Some("it was valid until 2002-01-01T00:00:00Z")),
        ((4001, 4002), Some("it is not valid before 4001-01-01T00:00:00Z")),
        ((2001, 4002), None),
    ] {
        let mut params = rcgen::CertificateParams::new(["h.test".to_owned()]).unwrap();
        params.not_before = rcgen::date_time_ymd(from, 1, 1);
        params.not_after = rcgen::date_time_ymd(until, 1, 1);
        fs::write(folder.path().join("tls.crt"), params.self_signed(&key).unwrap().pem()).unwrap();
        let (code, text) = asked(&["check-config", "--short"]);
        assert_eq!(code, Some(0), "{text}");
        let (_, doctor) = asked(&["doctor"]);
        match said {
            Some(said) => {
                assert!(text.contains("warning: listen.authz_tls.certificate: ") && text.contains(said), "{text}");
                assert!(doctor.contains("warn  certificate") && doctor.contains(said), "{doctor}");
            }
            None => assert!(!text.contains("certificate") && !doctor.contains("certificate"), "{text}{doctor}"),
        }
    }
}

#[test]
fn check_config_warns_of_an_authority_for_devices_that_ends_soon() {
    use std::os::unix::fs::PermissionsExt as _;
    let folder = tempfile::tempdir().unwrap();
    let (path, authority) = (folder.path().join("c.yaml"), folder.path().join("ca.pem"));
    let key = rcgen::KeyPair::generate().unwrap();
    let mut params = rcgen::CertificateParams::default();
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Constrained(0));
    params.not_after = rcgen::date_time_ymd(3999, 1, 1);
    fs::write(&authority, format!("{}{}", params.self_signed(&key).unwrap().pem(), key.serialize_pem())).unwrap();
    fs::set_permissions(&authority, fs::Permissions::from_mode(0o600)).unwrap();
    let listen = "listen: { http: 127.0.0.1:1, admin: 127.0.0.1:2 }\n";
    let devices = "devices: { enrollment: { enabled: true, authority: ca.pem } }\n";
    let asked = || countersign(&["check-config", "--short", "--config", path.to_str().unwrap()]);
    fs::write(&path, format!("{listen}{devices}")).unwrap();
    assert!(!asked().1.contains("devices"), "{}", asked().1);
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    params.not_after = rcgen::date_time_ymd(1970, 1, 1) + now + std::time::Duration::from_secs(3600);
    fs::write(&authority, format!("{}{}", params.self_signed(&key).unwrap().pem(), key.serialize_pem())).unwrap();
    let (code, text) = asked();
    assert!(code == Some(0) && text.contains("warning: devices.enrollment.authority: its certificate ends"), "{text}");
}

#[test]
fn replay_of_files_without_a_decision_fails() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| {
        let path = folder.path().join(name);
        fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let rules = write("rules.yaml", "resources: []\n");
    for records in [write("a.csv", "id,verdict\n1,allow\n"), write("empty", "")] {
        for style in [&[][..], &["--json"]] {
            let (code, text) = countersign(&[&["replay", &records, "--rules", &rules], style].concat());
            assert_eq!(code, Some(1), "{records}: {text}");
            assert!(text.contains("no decisions: name files of audit records"), "{records}: {text}");
        }
    }
}

#[test]
fn replay_without_the_configuration_says_that_flips_may_come_from_that() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let (rules, config) = (path("rules.yaml"), path("c.yaml"));
    fs::write(&rules, "resources: []\n").unwrap();
    fs::write(&config, "risk: { model: none }\nrules: [rules.yaml]\n").unwrap();
    let told = |arguments: &[&str]| countersign(arguments).1.contains("without `--config`");
    assert!(told(&["replay", "/dev/null", "--rules", &rules]));
    assert!(!told(&["replay", "/dev/null", "--rules", &rules, "--config", &config]));
    assert!(!told(&["replay", "/dev/null", "--config", &config]));
}

#[test]
fn serve_says_why_the_audit_cannot_be_begun() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("c.yaml");
    let serve = |audit: &str| {
        let listen = "{ authz: \"127.0.0.1:0\", admin: \"127.0.0.1:0\", http: \"127.0.0.1:0\" }";
        fs::write(&path, format!("listen: {listen}\naudit: {audit}\n")).unwrap();
        let (code, text) = countersign(&["serve", "--config", path.to_str().unwrap()]);
        assert_eq!(code, Some(1), "{text}");
        text.to_lowercase()
    };
    let said = serve("{ key: nowhere/audit.pem }");
    assert!(said.contains("nowhere/audit.pem`: no such file or directory"), "{said}");
    let said = serve("{ sink: file, directory: nowhere }");
    assert!(said.contains("cannot write records: `") && said.contains("nowhere`: no such file or directory"), "{said}");
}

#[test]
fn serve_names_the_setting_where_no_token_can_be_made() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("c.yaml");
    let listen = "{ authz: \"127.0.0.1:0\", admin: \"127.0.0.1:0\", http: \"127.0.0.1:0\" }";
    fs::write(&path, format!("listen: {listen}\nadmin: {{ state_dir: /proc/sys/countersign }}\n")).unwrap();
    let (code, text) = countersign(&["serve", "--config", path.to_str().unwrap()]);
    assert_eq!(code, Some(1), "{text}");
    assert!(
        text.contains("cannot make a token in /proc/sys/countersign: ") && text.contains("`admin.state_dir`"),
        "{text}"
    );
}

#[test]
fn a_log_variable_that_serve_cannot_read_is_named_by_check_config_too() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("c.yaml");
    fs::write(&path, "listen: { authz: \"127.0.0.1:0\", admin: \"127.0.0.1:0\", http: \"127.0.0.1:0\" }\n").unwrap();
    let asked = |command: &str, level: &str| {
        let mut asked = Command::new(env!("CARGO_BIN_EXE_countersign"));
        let output = asked.args([command, "--config"]).arg(&path).env("RUST_LOG", level).output().unwrap();
        (output.status.code(), String::from_utf8([output.stdout, output.stderr].concat()).unwrap())
    };
    for (command, code) in [("check-config", 64), ("serve", 1)] {
        let (ended, text) = asked(command, "info,h2=loud");
        assert_eq!(ended, Some(code), "{text}");
        assert!(text.contains("the variable RUST_LOG says `info,h2=loud`"), "{text}");
    }
    assert_eq!(asked("check-config", "countersign").0, Some(0));
}

#[test]
fn the_image_keeps_its_state_in_a_folder_of_its_user() {
    let dockerfile = fs::read_to_string("Dockerfile").unwrap();
    let stage = dockerfile.split(" AS countersign\n").nth(1).unwrap();
    let state = stage.lines().find_map(|line| line.strip_prefix("ENV XDG_STATE_HOME=")).unwrap();
    let user = stage.lines().find_map(|line| line.strip_prefix("USER ")).unwrap().split(':').next().unwrap();
    let made = format!("install -d -o {user} -g {user} -m 0700 {state}/countersign");
    assert!(stage.contains(&made), "{stage}");
}

#[test]
fn bad_usage_is_64_and_every_command_has_help() {
    for arguments in
        [&["nothing"][..], &["serve"], &["revoke"], &["revoke", "planet", "x"], &["check-config", "--colour"]]
    {
        assert_eq!(countersign(arguments).0, Some(64), "{arguments:?}");
    }
    for command in
        ["serve", "demo", "check-config", "explain", "replay", "policy", "risk", "doctor", "revoke", "device", "audit"]
    {
        let (code, text) = countersign(&[command, "--help"]);
        assert_eq!(code, Some(0), "{command}: {text}");
        assert!(text.contains("Usage:") && text.len() > 200, "{command}: {text}");
    }
}

#[test]
fn a_password_of_a_store_is_never_repeated() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("c.yaml");
    let text = "store: { url: \"redis://user:hunter2@redis.example:6379\", urll: \"redis://u:hunter2@h\" }\nassertion: { secret: hunter2 }\n";
    fs::write(&path, text).unwrap();
    for style in ["--short", "--strict"] {
        let (code, text) = countersign(&["check-config", style, "--config", path.to_str().unwrap()]);
        assert_eq!(code, Some(64));
        assert!(text.contains("urll") && !text.contains("hunter2"), "{text}");
    }
    for url in ["redis://u:hun@ter2/s?s@w@h:port", "redis://hunter2@h:port", "redis://u:p?hunter2=hunter2@h"] {
        fs::write(&path, format!("store: {{ url: \"{url}\" }}\n")).unwrap();
        let (code, text) = countersign(&["check-config", "--config", path.to_str().unwrap()]);
        assert_eq!(code, Some(64));
        assert!(text.contains("store.url") && !text.contains("ter2"), "{text}");
    }
}

#[test]
fn the_schema_knows_every_section_and_no_other() {
    let schema: serde_json::Value = serde_json::from_str(&config::reference::schema()).unwrap();
    assert_eq!(schema["additionalProperties"], false);
    let sections = schema["properties"].as_object().unwrap();
    for section in
        ["listen", "store", "identity", "rules", "risk", "location", "session", "audit", "telemetry", "admin"]
    {
        assert!(sections.contains_key(section), "{section}");
    }
    let text = schema.to_string();
    assert!(!text.contains("\"null\"") && !text.contains(":null"), "a key with nothing after it is refused");
    assert!(text.contains("COUNTERSIGN") || text.contains("Envoy asks"), "doc comments are descriptions");
}
