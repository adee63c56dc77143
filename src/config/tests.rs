//! Loading, overriding, refusing.

use std::time::Duration;

use super::*;

fn environment(pairs: &[(&str, &str)]) -> Environment {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

fn refused(text: &str, pairs: &[(&str, &str)]) -> Vec<String> {
    parse("c.yaml", text, &environment(pairs)).unwrap_err().iter().map(ToString::to_string).collect()
}

#[test]
fn an_empty_file_is_the_defaults_and_warns_that_memory_forgets() {
    let (config, warnings) = parse("c.yaml", "", &Environment::new()).unwrap();
    assert_eq!(config.listen, Listen::default());
    assert_eq!(config.listen.authz.to_string(), "0.0.0.0:9191");
    assert!(warnings.iter().any(|w| w.path == "store.url" && w.message.contains("forgets")), "{warnings:?}");
    assert!(warnings.iter().any(|w| w.path == "rules" && w.message.contains("everything is refused")));
}

#[test]
fn revocations_are_kept_as_long_as_any_issuers_tokens_may_live() {
    let issuer = "{ issuer: https://a.test, audiences: [a], leeway: 10s, max_lifetime: 7d }";
    let text = format!("identity: {{ issuers: [{issuer}] }}\nrevocation: {{ max_lifetime: 1d }}\n");
    let (mut config, _) = parse("c.yaml", &text, &Environment::new()).unwrap();
    assert_eq!(config.revocation_settings().max_lifetime.get(), Duration::from_secs(7 * 86_400 + 20));
    config.revocation.max_lifetime = Duration::from_secs(30 * 86_400).into();
    assert_eq!(config.revocation_settings(), config.revocation);
}

#[test]
fn the_environment_speaks_over_the_file() {
    let (config, _) = parse(
        "c.yaml",
        "listen: { http: 127.0.0.1:1 }\nrules: [a, b]\n",
        &environment(&[
            ("COUNTERSIGN__LISTEN__HTTP", "127.0.0.1:2"),
            ("COUNTERSIGN__LISTEN__AUTHZ", "unix:/run/c.sock"),
            ("COUNTERSIGN__RULES__1", "c"),
            ("COUNTERSIGN__RULES__2", "d"),
            ("COUNTERSIGN__AUDIT", "{ queue: 100 }"),
            ("COUNTERSIGN__AUDIT__ROTATE_BYTES", "2000000"),
            ("COUNTERSIGN__SESSION__REVERIFY", "off"),
            ("COUNTERSIGN_OTHER", "untouched"),
            ("PATH", "/bin"),
        ]),
    )
    .unwrap();
    assert_eq!(config.listen.http.to_string(), "127.0.0.1:2");
    assert_eq!(config.listen.authz, Address::Unix("/run/c.sock".into()));
    assert_eq!(config.rules, ["a", "c", "d"].map(PathBuf::from));
    assert_eq!((config.audit.queue, config.audit.rotate_bytes), (100, 2_000_000));
}

#[test]
fn a_wrong_variable_is_named_and_its_value_is_not_repeated() {
    let found = refused(
        "listen: {}\n",
        &[
            ("COUNTERSIGN__LISTEN__HTPP", "hunter2"),
            ("COUNTERSIGN__AUDIT__QUEUE", "hunter2"),
            ("COUNTERSIGN__RULES__4", "hunter2"),
            ("COUNTERSIGN__STORE__URL__X", "hunter2"),
            ("COUNTERSIGN__STORE__URL", "{"),
            ("COUNTERSIGN__", "hunter2"),
        ],
    );
    let all = found.join("\n");
    assert!(all.contains("environment variable COUNTERSIGN__LISTEN__HTPP: error: listen.htpp: unknown key `htpp` (help: did you mean `http`?)"), "{all}");
    assert!(
        all.contains("environment variable COUNTERSIGN__AUDIT__QUEUE: error: audit.queue: expected a whole number"),
        "{all}"
    );
    assert!(all.contains("names item 4 of a list of 0"), "{all}");
    assert!(all.contains("COUNTERSIGN__STORE__URL: error: is no YAML value"), "{all}");
    assert!(!all.contains("hunter2"), "{all}");
}

#[test]
fn relative_paths_are_relative_to_the_file() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("countersign.yaml");
    fs::write(&file, "rules: [policies/, /etc/rules.yaml]\naudit: { sink: file, directory: audit }\n").unwrap();
    let (config, _) = load(&file, &Environment::new()).unwrap();
    assert_eq!(config.rules, [folder.path().join("policies/"), PathBuf::from("/etc/rules.yaml")]);
    assert_eq!(config.audit.directory, Some(folder.path().join("audit")));
}

#[test]
fn a_file_that_is_not_there_is_one_clear_line() {
    let found = load(Path::new("/nowhere/c.yaml"), &Environment::new()).unwrap_err();
    assert_eq!(found[0].to_string(), "/nowhere/c.yaml: error: cannot be read: no such file or directory");
}

#[test]
fn an_admin_port_that_others_reach_needs_a_guard() {
    let found = refused("listen: { admin: 0.0.0.0:9192 }", &[]).join("\n");
    assert!(found.contains("c.yaml:1:18: error: listen.admin: "), "{found}");
    let guarded =
        "listen:\n  admin: 0.0.0.0:9192\n  admin_tls: { certificate: c.pem, key: k.pem, client_ca: ca.pem }\n";
    assert!(parse("c.yaml", guarded, &Environment::new()).is_ok());
}

#[test]
fn sizes_that_no_memory_holds_are_refused_by_name() {
    let issuer = "{ issuer: https://a.test, audiences: [a], introspection: { endpoint: https://a.test/i, client_id: c, \
                  client_secret: s, concurrency: 18446744073709551615 } }";
    let text = format!(
        "audit: {{ queue: 18446744073709551615 }}\nsession: {{ queue: 18446744073709551615 }}\n\
         check: {{ max_connections: 18446744073709551615, max_in_flight: 18446744073709551615, workers: 18446744073709551615 }}\n\
         ops: {{ max_connections: 18446744073709551615 }}\n\
         identity: {{ queue: 18446744073709551615, verifiers: 18446744073709551615, issuers: [{issuer}] }}\n"
    );
    let found = refused(&text, &[]);
    let paths = [
        "audit.queue",
        "session.queue",
        "check.max_connections",
        "check.max_in_flight",
        "check.workers",
        "ops.max_connections",
        "identity.queue",
        "identity.verifiers",
        "identity.issuers[0].introspection.concurrency",
    ];
    for path in paths {
        assert!(found.iter().any(|line| line.contains(&format!("error: {path}: must be"))), "{path}: {found:#?}");
    }
    assert_eq!(found.iter().filter(|line| line.contains(": error: ")).count(), paths.len(), "{found:#?}");
}

#[test]
fn who_vouches_for_callers_and_the_claims_handed_on_are_told_to_the_rules() {
    let issuer = |name: &str| format!("{{ issuer: https://{name}.test, audiences: [a], attributes: [{name}] }}");
    let workloads = "workloads: { trust_domains: [td.example] }";
    let text = format!("identity: {{ issuers: [{}, {}], {workloads} }}\n", issuer("department"), issuer("groups"));
    let (config, _) = parse("c.yaml", &text, &Environment::new()).unwrap();
    let options = config.rule_options();
    let told = |names: &[std::sync::Arc<str>]| names.join(" ");
    assert_eq!(told(&options.claims), "department groups");
    assert_eq!(told(&options.issuers), "https://department.test https://groups.test");
    assert_eq!(told(&options.trust_domains), "spiffe://td.example");
}

#[test]
fn rules_without_a_resource_are_warned_of() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("countersign.yaml");
    fs::create_dir(folder.path().join("rules")).unwrap();
    fs::write(&file, "rules: [rules]\n").unwrap();
    let warned = || {
        let found = inspect::inspect(&file, &Environment::new());
        assert!(!found.refused, "{:?}", found.found);
        found.found.iter().any(|found| found.message.contains("no resource in any file: everything is refused"))
    };
    assert!(warned(), "an empty folder");
    let config = load(&file, &Environment::new()).unwrap().0;
    assert_eq!(config.load_rules().unwrap().0.warnings.len(), 1);
    fs::write(folder.path().join("rules/r.yaml"), "guards: []\n").unwrap();
    assert!(warned(), "no resources");
    let rules = "resources: [{ id: a, access: public, match: { paths: [/a] } }]\n";
    fs::write(folder.path().join("rules/r.yaml"), rules).unwrap();
    assert!(!warned());
    fs::rename(folder.path().join("rules/r.yaml"), folder.path().join("rules/R.YAML")).unwrap();
    assert!(!warned(), "extensions are compared without case");
}

#[test]
fn names_and_codes_that_match_nothing_are_warned_of_at_their_place() {
    let folder = tempfile::tempdir().unwrap();
    let (file, rules) = (folder.path().join("c.yaml"), folder.path().join("r.yaml"));
    let text = "\
rules: [r.yaml]
location:
  databases: { city: c.mmdb }
  allowed_countries: [DE, UK]
  expected_countries: [XX]
  known_networks: { branch: { cidrs: [203.0.113.0/24] } }
identity:
  workloads:
    trust_domains: [td.example]
    roles: { spiffe://td.example/web: [clerk, clrk], spiffe://*/db: [clerk] }
";
    fs::write(&file, text).unwrap();
    let warned = |of_rules: &str| -> Vec<String> {
        fs::write(&rules, of_rules).unwrap();
        let inspection = inspect::inspect(&file, &Environment::new());
        assert!(!inspection.refused, "{:?}", inspection.found);
        let odd =
            |found: &&Diagnostic| ["can never match", "grants nothing"].iter().any(|text| found.message.contains(text));
        let line = |found: &Diagnostic| found.to_string().replace(&format!("{}/", folder.path().display()), "");
        inspection.found.iter().filter(odd).map(line).collect()
    };
    let resource = "resources: [{ id: a, match: { paths: [/a] }, permission: x, policy: p }]\n";
    let policy = "policies: [{ id: p, actions: [{ type: allow }], conditions: { allowed_locations: [\
                  { type: known_secure_location, name: office }, { type: known_secure_location, name: branch }] } }]\n";
    let [uk, xx, role, network] = [
        "c.yaml:4:27: warning: location.allowed_countries[1]: can never match: ISO 3166-1 assigns `UK` to no country (help: did you mean `GB`?)",
        "c.yaml:5:24: warning: location.expected_countries[0]: can never match: ISO 3166-1 assigns `XX` to no country",
        "c.yaml:10:47: warning: identity.workloads.roles[\"spiffe://td.example/web\"][1]: grants nothing here: the rules have no role `clrk` (help: did you mean `clerk`?)",
        "r.yaml:3:83: warning: policies[0].conditions.allowed_locations[0]: can never match: `location.known_networks` of the configuration has no `office`",
    ];
    assert_eq!(warned(&format!("{resource}roles: {{ clerk: [x] }}\n{policy}")), [uk, xx, role, network]);
    assert_eq!(
        warned("resources: [{ id: a, access: public, match: { paths: [/a] } }]"),
        [uk, xx],
        "nothing asks for roles"
    );
}

#[test]
fn what_a_variable_put_there_is_the_variables_fault() {
    let text = "identity:\n  issuers: [{ issuer: https://i, audiences: [a], jwks: https://i/jwks }]\n";
    let all = refused(text, &[("COUNTERSIGN__IDENTITY__ISSUERS__0__AUDIENCES", "[]")]).join("\n");
    let place =
        "environment variable COUNTERSIGN__IDENTITY__ISSUERS__0__AUDIENCES: error: identity.issuers[0].audiences:";
    assert!(all.contains(place), "{all}");
}

#[test]
fn a_variable_that_holds_nothing_takes_nothing_away() {
    let tls = "listen:\n  authz_tls: { certificate: c.pem, key: k.pem, client_ca: ca.pem }\n";
    for value in ["", " ", "~", "null", "# a comment"] {
        let found = refused(tls, &[("COUNTERSIGN__LISTEN__AUTHZ_TLS__CLIENT_CA", value)]).join("\n");
        let told = "environment variable COUNTERSIGN__LISTEN__AUTHZ_TLS__CLIENT_CA: error: holds nothing, which would \
                    take away what the file says (help: give it a value, or remove the variable)";
        assert!(found.contains(told), "{value:?}: {found}");
    }
    let inside =
        refused("", &[("COUNTERSIGN__LISTEN__AUTHZ_TLS", "{ certificate: c, key: k, client_ca: }")]).join("\n");
    let told = "environment variable COUNTERSIGN__LISTEN__AUTHZ_TLS: error: listen.authz_tls.client_ca: nothing stands";
    assert!(inside.contains(told), "{inside}");
}

#[test]
fn a_section_whose_lines_are_comments_is_its_defaults() {
    let text = "risk:\n  # model: fixed\nsession:\ntelemetry:\n  traces:\n    # endpoint: http://c:4317\n";
    let (config, _) = parse("c.yaml", text, &Environment::new()).unwrap();
    assert_eq!((config.risk, config.session), (Risk::default(), session::Settings::default()));
}

#[test]
fn an_address_that_is_none_is_answered_with_one_that_is() {
    for key in ["http", "admin"] {
        let all = refused(&format!("listen: {{ {key}: \"localhost:9193\" }}\n"), &[]).join("\n");
        assert!(all.contains(&format!("listen.{key}: not an address such as `127.0.0.1:9192`")), "{all}");
    }
}

#[test]
fn a_long_blindness_to_revocations_is_warned_of() {
    let warned = |staleness: &str| {
        let text = format!("revocation: {{ max_staleness: {staleness} }}\n");
        let (_, warnings) = parse("c.yaml", &text, &Environment::new()).unwrap();
        warnings.iter().any(|warning| warning.path == "revocation.max_staleness")
    };
    assert!(warned("10m") && !warned("60s"));
}

#[test]
fn keys_that_lie_in_a_shared_store_in_clear_deserve_a_warning() {
    let warned = |text: &str| {
        let (_, warnings) = parse("c.yaml", text, &Environment::new()).unwrap();
        warnings.iter().any(|warning| warning.path == "assertion.secret")
    };
    let redis = "store: { url: 'redis://127.0.0.1:6379/0' }\n";
    assert!(warned(redis));
    assert!(!warned(""));
    assert!(!warned(&format!("{redis}assertion: {{ enabled: false }}\n")));
    assert!(!warned(&format!("{redis}assertion: {{ secret: {} }}\n", "s".repeat(32))));
}

#[test]
fn the_page_names_what_a_choice_holds() {
    let page = reference::page();
    assert!(page.contains("| `signals.transmitters[].stream.delivery.push.url` | text | **required** |"), "{page}");
}

#[test]
fn a_file_store_is_in_the_folder_that_its_url_means() {
    let folder = |url: &str| Store { url: crate::domain::Secret::new(url) }.folder();
    let named = |path: &str| Some(Path::new(path).to_owned());
    assert_eq!(folder("file:///var/lib/countersign"), named("/var/lib/countersign"));
    assert_eq!(folder("file://localhost/var/x"), named("/var/x"));
    assert_eq!(folder("file:///var/a%20b"), named("/var/a b"));
    for other in ["file://var/x", "file://./x", "file:///", "file:///x?y", "file:///x#y", "memory://", "redis://h"] {
        assert_eq!(folder(other), None, "{other}");
        let text = format!("store: {{ url: \"{other}\" }}");
        let refused = parse("c.yaml", &text, &Environment::new()).is_err();
        assert_eq!(refused, other.starts_with("file"), "{other}");
    }
}

#[test]
fn no_secret_of_a_configuration_is_seen_in_what_is_written_of_it() {
    let text = r#"
store: { url: "redis://:needle-01-password@127.0.0.1:6379/0" }
identity:
  issuers:
    - { issuer: https://a.test, audiences: [a], introspection: { endpoint: https://a.test/i, client_id: c, client_secret: needle-02-client } }
  dpop: { nonce: true, nonce_secret: needle-03-of-nonces }
ops: { status_token: needle-04-of-the-status-page-and-long-enough }
assertion: { secret: needle-05-that-is-long-enough-for-a-key, other_secrets: [needle-06-that-is-long-enough-for-a-key] }
signals:
  issuer: https://us.test
  transmitters:
    - issuer: https://t.test
      audience: us
      authorization_header: needle-07-of-push
      poll: { url: https://t.test/poll, authorization_header: needle-08-of-poll }
  receivers:
    - { url: https://r.test/events, audience: them, authorization_header: needle-09-of-a-receiver }
"#;
    let (config, _) = parse("c.yaml", text, &Environment::new()).unwrap();
    for written in [format!("{config:?}"), format!("{config:#?}"), serde_json::to_string(&config).unwrap()] {
        assert!(!written.contains("needle"), "{written}");
        assert_eq!(written.matches("***").count(), 9, "{written}");
    }
}
