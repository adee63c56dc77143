use std::{collections::HashSet, fs, path::Path, sync::Arc, time::Duration};

use countersign::{
    decision::decide,
    document::Diagnostic,
    domain::*,
    policy::{CEDAR_SCHEMA, Loaded, Options, RateScope, SourceFile, load, model::*},
};

pub(crate) fn folder(name: &str) -> Vec<SourceFile> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cases").join(name);
    let mut files: Vec<_> = fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    let read = |path: &std::path::PathBuf| {
        SourceFile::new(path.file_name().unwrap().to_str().unwrap(), fs::read_to_string(path).unwrap())
    };
    files.iter().map(read).collect()
}

pub(crate) fn loaded(text: &str) -> Result<Loaded, Vec<Diagnostic>> {
    load(&[SourceFile::new("rules.yaml", text)], Options::default())
}

fn errors(text: &str) -> Vec<String> {
    loaded(text).unwrap_err().iter().map(ToString::to_string).collect()
}

fn warnings(text: &str, options: Options) -> Vec<String> {
    let loaded = load(&[SourceFile::new("rules.yaml", text)], options).unwrap();
    loaded.warnings.iter().map(ToString::to_string).collect()
}

#[test]
fn the_shape_that_users_bring_loads_as_it_is() {
    let Loaded { rules, warnings } = load(&folder("three"), Options::default()).unwrap();
    assert_eq!(warnings, []);
    assert_eq!(rules.guards(), Guard::defaults());
    let privileged = rules.policy("privileged-access").unwrap();
    assert_eq!(privileged.constraints.session_duration, Some(Duration::from_secs(1800)));
    assert!(privileged.constraints.require_justification);
    assert_eq!(
        privileged.conditions.device_requirements,
        [
            DeviceRequirement::Managed(true),
            DeviceRequirement::Compliant(true),
            DeviceRequirement::PatchLevel(PatchRequirement::Current)
        ]
    );
    let sensitive = rules.policy("sensitive-data").unwrap();
    assert!(sensitive.constraints.encrypt_in_transit && sensitive.constraints.audit_all_access);
    assert_eq!(sensitive.constraints.restrictions.iter().collect::<Vec<_>>(), ["encrypt_at_rest", "prevent_download"]);
    let api = rules.policy("api-access").unwrap();
    assert_eq!(api.rate_limits[1].scope, RateScope::ApiScope("write:data".into()));
}

/// The blocks of `docs/rules.md`, each a file of its own, and the files for Cedar that the last of them names.
fn page() -> Vec<SourceFile> {
    let page = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/rules.md")).unwrap();
    let blocks = page.split("```yaml\n").skip(1).map(|rest| rest.split("```").next().unwrap());
    let mut files: Vec<_> = blocks.enumerate().map(|(i, block)| SourceFile::new(format!("{i}.yaml"), block)).collect();
    files.push(SourceFile::new(
        "cedar/p.cedar",
        "forbid(principal, action, resource) when { context.encrypted == false };",
    ));
    files.push(SourceFile::new("cedar/own.cedarschema", CEDAR_SCHEMA));
    files.push(SourceFile::new("cedar/entities.json", "[]"));
    files
}

#[test]
fn the_page_about_rules_loads_as_it_stands_and_leaves_no_key_out() {
    let files = page();
    let options = Options { known_networks: Some(["branch".into()].into()), ..Options::default() };
    let Loaded { rules, warnings } = load(&files, options).unwrap();
    assert_eq!(warnings, []);
    assert_eq!(rules.guards()[..4], Guard::defaults());
    assert_eq!(rules.sessions()[..1], SessionRule::defaults());
    let yaml = files.iter().filter(|file| file.name.ends_with(".yaml"));
    let words = yaml.flat_map(|file| file.text.split(|c: char| !c.is_alphanumeric() && !matches!(c, '_' | ':')));
    let keys: HashSet<&str> = words.filter_map(|word| word.strip_suffix(':')).collect();
    let raw = include_str!("../../src/policy/load/raw.rs");
    let renamed = |line: &'static str| line.split_once("#[serde(rename = \"")?.1.split('"').next();
    let mut word = None;
    let mut missing = Vec::new();
    for line in raw.lines() {
        word = renamed(line).or(word);
        let Some((field, _)) = line.trim().strip_prefix("pub(super) ").and_then(|rest| rest.split_once(": ")) else {
            continue;
        };
        missing.extend(Some(word.take().unwrap_or(field)).filter(|word| !keys.contains(word)));
    }
    assert_eq!(missing, [""; 0]);
}

#[test]
fn a_scope_is_what_is_counted_and_a_misspelt_one_is_refused() {
    let text = |scope: &str| {
        format!(
            "policies: [{{ id: p, conditions: {{ api_scopes: [read] }}, actions: [{{ type: allow }}], \
             rate_limits: [{{ scope: {scope}, limit: 9, window: 1h }}] }}]"
        )
    };
    for (word, scope) in [
        ("user", RateScope::User),
        ("per_user", RateScope::User),
        ("per_ip", RateScope::Ip),
        ("global", RateScope::Global),
        ("read", RateScope::ApiScope("read".into())),
    ] {
        let rules = loaded(&text(word)).unwrap().rules;
        assert_eq!(rules.policy("p").unwrap().rate_limits[0].scope, scope, "{word}");
    }
    assert!(errors(&text("per_usr"))[0].contains("unknown scope `per_usr`"));
}

#[test]
fn the_example_of_the_design_loads() {
    let rules = loaded(
        r#"
defaults: { min_trust_level: low, device: when_present }
guards:
  - { id: high_risk_block,  when: { risk_at_least: 8 },    action: deny }
  - { id: untrusted_device, when: { device: untrusted },   action: deny }
  - { id: require_mfa,      when: { risk_at_least: 5 },    action: step_up }
  - { id: unusual_location, when: { location: unusual },   action: step_up }
resources:
  - id: static
    match: { paths: ["/public/**"], methods: [GET, HEAD] }
    access: public
  - id: orders-read
    match: { hosts: [Shop.example], paths: ["/orders", "/orders/{id}"], methods: [GET] }
    permission: orders:read
    policy: api-access-policy
    data_classification: confidential
    min_trust_level: medium
    device: always
roles: { clerk: ["orders:read"], admin: ["*"] }
policies:
  - { id: api-access-policy, actions: [{ type: allow }] }
"#,
    )
    .unwrap()
    .rules;
    assert_eq!(rules.guards(), Guard::defaults());
    assert_eq!(&*rules.resource("orders-read").unwrap().hosts[0], "shop.example");
    assert!(rules.role_grants("admin", "orders:read"));
}

#[test]
fn guards_may_be_switched_off_and_are_the_four_where_nobody_says() {
    assert_eq!(loaded("guards: []").unwrap().rules.guards(), []);
    assert_eq!(loaded("# nothing yet\n").unwrap().rules.guards().len(), 4);
}

#[test]
fn a_section_that_holds_nothing_says_so_or_is_refused() {
    for section in ["guards", "sessions", "resources", "policies"] {
        let hint = format!("{section}: expected a list, found nothing (help: write `[]` where nothing is meant");
        for nothing in ["", " ~", "\n  # - { id: g, when: { risk_at_least: 8 }, action: deny }"] {
            let found = errors(&format!("{section}:{nothing}\n"));
            assert!(found.len() == 1 && found[0].contains(&hint), "{found:?}");
        }
    }
    assert!(errors("roles:\n")[0].contains("roles: expected a map of roles, found nothing (help: write `{}`"));
}

#[test]
fn a_file_caught_before_it_was_written_is_refused_and_named() {
    for (name, text) in [("guards.yaml", ""), ("guards.yml", "\n  \n"), ("access.cedar", "")] {
        let files = [SourceFile::new("rules.yaml", "guards: []"), SourceFile::new(name, text)];
        let found: Vec<_> = load(&files, Options::default()).unwrap_err().iter().map(ToString::to_string).collect();
        assert!(found.len() == 1 && found[0].starts_with(&format!("{name}: error: the file is empty")), "{found:?}");
    }
}

/// The block of YAML in a page that holds `word`.
fn example(page: &str, word: &str) -> String {
    let text = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(page)).unwrap();
    let mut blocks = text.split("```yaml\n").skip(1).filter_map(|rest| rest.split("```").next());
    blocks.find(|block| block.contains(word)).unwrap().to_owned()
}

#[test]
fn the_recipe_for_preflights_works_beside_the_rules_of_the_readme() {
    let files = [
        SourceFile::new("rules.yaml", example("README.md", "id: orders,")),
        SourceFile::new("preflights.yaml", example("docs/decision.md", "id: orders-preflight")),
    ];
    let Loaded { rules, warnings } = load(&files, Options::default()).unwrap();
    assert_eq!(warnings, []);
    for path in ["/orders", "/orders/7"] {
        let mut preflight = crate::world::facts("OPTIONS", path);
        preflight.credential = Fact::Absent;
        assert_eq!(crate::world::told(&decide(&preflight, &rules)), "allow", "{path}");
        let mut read = crate::world::facts("GET", path);
        assert_eq!(crate::world::told(&decide(&read, &rules)), "allow", "{path}");
        read.credential = Fact::Absent;
        assert_eq!(crate::world::told(&decide(&read, &rules)), "deny:no_credentials", "{path}");
    }
}

#[test]
fn every_problem_is_told_at_once_with_its_place() {
    let text = "\
guards:
  - { id: a, when: { risk_at_lest: 5 }, action: deny }
  - { id: b, when: { device: odd }, action: deny }
resources:
  - id: x
    match: { paths: [\"/a/*\", \"/b\"], methods: [get] }
    policy: nowhere
  - id: x
    match: { paths: [\"/b\"] }
rules: {}
";
    assert_eq!(
        errors(text),
        [
            "rules.yaml:2:22: error: guards[0].when.risk_at_lest: unknown key `risk_at_lest` (help: did you mean `risk_at_least`?)",
            "rules.yaml:3:30: error: guards[1].when.device: `odd` is not one of `untrusted`, `unregistered`, `not_compliant`",
            "rules.yaml:6:22: error: resources[0].match.paths[0]: `*` is no pattern: `{name}` stands for one segment, `**` at the end for everything below",
            "rules.yaml:6:47: error: resources[0].match.methods[0]: `get` is no method (help: methods are compared exactly: `GET`)",
            "rules.yaml:7:13: error: resources[0].policy: there is no policy `nowhere`",
            "rules.yaml:8:9: error: resources[1].id: the id `x` is taken",
            "rules.yaml:10:1: error: rules: unknown key `rules` (help: did you mean `roles`?)",
        ]
    );
}

#[test]
fn a_tie_names_the_other_resource() {
    let text = "resources:\n- { id: a, access: authenticated, match: { paths: [\"/x/{a}\"] } }\n- { id: b, access: authenticated, match: { paths: [\"/x/{b}\"] } }\n";
    assert_eq!(
        errors(text),
        [
            "rules.yaml:3:52: error: resources[1].match.paths[0]: `/x/{b}` ties with the resource `a`: same path, host and a common method"
        ]
    );
}

#[test]
fn rules_that_cannot_do_what_they_seem_to_say_are_warned_of() {
    let nowhere = Options { location: false, ..Options::default() };
    let text = "\
guards:
  - { id: g, when: { network: tor }, action: deny }
resources:
  - { id: a, match: { paths: [\"/a\"] } }
  - { id: b, match: { paths: [\"/b\"] }, policy: p, data_classification: public }
  - { id: wide, access: authenticated, match: { paths: [\"/c\"], hosts: [h.example], methods: [GET] } }
policies:
  - id: p
    conditions: { data_classification: [secret], allowed_locations: [{ type: country, country: de }] }
    actions: [{ type: conditional_allow }]
  - { id: q, actions: [{ type: allow }, { type: deny }] }
";
    let found = warnings(text, nowhere);
    let starts = [
        "rules.yaml:2:14: warning: guards[0].when: never applies: places",
        "rules.yaml:4:5: warning: resources[0]: nothing can ever grant access",
        "rules.yaml:5:48: warning: resources[1].policy: can never be met",
        "rules.yaml:9:50: warning: policies[0].conditions.allowed_locations: can never be met",
        "rules.yaml:10:5: warning: policies[0].actions: `conditional_allow` without",
        "rules.yaml:11:11: warning: policies[1].id: unbound",
        "rules.yaml:11:14: warning: policies[1].actions: `deny` is always the answer",
    ];
    assert_eq!(found.len(), starts.len(), "{found:#?}");
    for (found, start) in found.iter().zip(starts) {
        assert!(found.starts_with(start), "{found}\n{start}");
    }
    let hidden = "resources:\n- { id: a, access: authenticated, match: { paths: [\"/x\"], methods: [GET] } }\n- { id: b, access: authenticated, match: { paths: [\"/x\"], methods: [GET], hosts: [h.example] } }\n";
    assert_eq!(warnings(hidden, Options::default()), Vec::<String>::new());
}

#[test]
fn what_the_configuration_makes_impossible_is_warned_of() {
    let text = "\
resources:
  - { id: w, access: authenticated, match: { paths: [\"/w\"] }, authenticated_by: workload }
  - { id: b, match: { paths: [\"/b\"] }, policy: p, authenticated_by: both }
  - { id: u, access: authenticated, match: { paths: [\"/u\"] }, authenticated_by: user }
policies:
  - { id: p, actions: [{ type: allow, constraints: { audit_all_access: true } }] }
";
    let issuers: Arc<[Arc<str>]> = ["https://i".into()].into();
    let found = warnings(text, Options { audit: false, issuers: Arc::clone(&issuers), ..Options::default() });
    let starts = [
        "rules.yaml:2:81: warning: resources[0].authenticated_by: can never be met: nobody is known as a workload",
        "rules.yaml:3:69: warning: resources[1].authenticated_by: can never be met: nobody is known as a workload",
        "rules.yaml:6:14: warning: policies[0].actions: can never be met: `audit_all_access`",
    ];
    assert_eq!(found.len(), starts.len(), "{found:#?}");
    for (found, start) in found.iter().zip(starts) {
        assert!(found.starts_with(start), "{found}\n{start}");
    }
    let trust_domains = ["spiffe://mesh.test".into()].into();
    let met = warnings(text, Options { issuers, trust_domains, ..Options::default() });
    assert_eq!(met, Vec::<String>::new());
    assert_eq!(warnings(text, Options::default()), met, "who vouches is not known");
}

#[test]
fn places_that_no_request_can_come_from_are_warned_of() {
    let text = "\
resources: [{ id: a, match: { paths: [\"/a\"] }, policy: p }]
policies:
  - id: p
    actions: [{ type: allow }]
    conditions:
      allowed_locations:
        - { type: country, countries: [uk, DE, XK] }
        - { type: country, country: XX }
        - { type: known_secure_location, names: [branch, brnch] }
        - { type: known_secure_location }
";
    let of = |known: &[&str]| {
        let known_networks = Some(known.iter().map(|name| (*name).into()).collect());
        warnings(text, Options { known_networks, ..Options::default() })
    };
    let at = "warning: policies[0].conditions.allowed_locations";
    let countries = [
        format!(
            "rules.yaml:7:11: {at}[0]: can never match: ISO 3166-1 assigns `UK` to no country (help: did you mean `GB`?)"
        ),
        format!("rules.yaml:8:11: {at}[1]: can never match: ISO 3166-1 assigns `XX` to no country"),
    ];
    let unknown = "can never match: `location.known_networks` of the configuration has no `brnch`";
    let network = format!("rules.yaml:9:11: {at}[2]: {unknown} (help: did you mean `branch`?)");
    assert_eq!(of(&["branch", "home"]), [&countries[..], &[network]].concat());
    let none = of(&[]);
    assert_eq!(none.len(), 5, "{none:#?}");
    assert!(
        none[4].contains("[3]: can never match: `location.known_networks` of the configuration is empty"),
        "{none:#?}"
    );
    assert_eq!(warnings(text, Options::default()), countries, "the configuration is not known");
}

#[test]
fn files_are_merged_and_named() {
    let one = SourceFile::new(
        "one.yaml",
        "roles: { clerk: [\"a:b\"] }\nresources: [{ id: x, match: { paths: [\"/x\"] }, permission: \"a:b\" }]",
    );
    let two = SourceFile::new("two.yaml", "roles: { clerk: [\"c:d\"] }\ndefaults: {}");
    let three = SourceFile::new("three.yml", "defaults: { device: sometimes }");
    let cases = SourceFile::new("x.cases.yaml", "cases: [nonsense]");
    let found = load(&[one.clone(), two, three, cases], Options::default()).unwrap_err();
    let told: Vec<_> = found.iter().map(ToString::to_string).collect();
    assert_eq!(told.len(), 3, "{told:#?}");
    assert!(
        told[0].starts_with("three.yml:1:11: error: defaults: `defaults` are given in two.yaml:2:11"),
        "{}",
        told[0]
    );
    assert!(told[1].starts_with("three.yml:1:21: error: defaults.device: `sometimes` is not one of"), "{}", told[1]);
    assert!(
        told[2].starts_with("two.yaml:1:10: error: roles.clerk: the role `clerk` is defined in one.yaml"),
        "{}",
        told[2]
    );
    let version = |files: &[SourceFile]| load(files, Options::default()).unwrap().rules.version().clone();
    let changed = SourceFile::new("one.yaml", format!("{}\n", one.text));
    let same = std::slice::from_ref(&one);
    assert_eq!(version(same), version(same));
    assert_ne!(version(&[one]), version(&[changed]));
}

#[test]
fn rules_beside_cases_are_refused_and_not_left_out() {
    let text = "\
description: mixed
given: {}
cases: []
guards: [{ id: g, when: { risk_at_least: 1 }, action: deny }]
resourses: []
";
    assert_eq!(
        errors(text),
        [
            "rules.yaml:4:1: error: guards: `guards` beside `cases`: rules and cases may not stand in one file (help: move \
             the cases to a file of their own)",
            "rules.yaml:5:1: error: resourses: `resourses` beside `cases`: rules and cases may not stand in one file (help: \
             move the cases to a file of their own)",
        ]
    );
    let alone = SourceFile::new("x.yml", "description: d\ngiven: {}\ncases: []\n");
    assert!(!alone.holds_rules() && load(&[alone], Options::default()).is_ok());
    for text in ["", "cases: []\nguards: []", "guards: ["] {
        assert!(SourceFile::new("x.YML", text).holds_rules(), "{text}");
    }
}

#[test]
fn what_lies_deeper_or_ends_in_a_slash_reaches_a_folder_too() {
    let unreachable = |paths: &[&str]| {
        let resource = |(i, path): (usize, &&str)| {
            format!("- {{ id: r{i}, access: authenticated, match: {{ paths: [\"{path}\"] }} }}\n")
        };
        let resources: String = paths.iter().enumerate().map(resource).collect();
        warnings(&format!("resources:\n{resources}"), Options::default())
    };
    let nobody = Vec::<String>::new();
    assert_eq!(unreachable(&["/a/**", "/a/{x}"]), nobody);
    assert_eq!(unreachable(&["/a/**", "/a/{x}", "/a/"]), nobody);
    assert_eq!(unreachable(&["/a/**", "/a/", "/a/{x}", "/a/{x}/{y}", "/a/{x}/{y}/**"]), nobody);
    assert_eq!(unreachable(&["/a/**", "/a/{x}", "/a/{x}/**"]), nobody);
    assert_eq!(unreachable(&["/**", "/{x}", "/{x}/{y}", "/{x}/{y}/{z}"]), nobody);
    let hidden = unreachable(&["/a/**", "/a/", "/a/{x}", "/a/{x}/**"]);
    assert_eq!(hidden.len(), 1, "{hidden:#?}");
    assert!(hidden[0].contains("resources[0].match.paths[0]: unreachable"), "{hidden:#?}");
}

#[test]
fn locations_are_read_in_every_shape() {
    let text = "\
resources: [{ id: x, match: { paths: [\"/x\"] }, policy: p }]
policies:
  - id: p
    conditions:
      allowed_locations:
        - { type: country, countries: [de, FR] }
        - { type: country, value: AT }
        - { type: cidr, cidr: 10.0.0.0/8 }
        - { type: cidr, values: [\"::1\"] }
        - { type: known_secure_location, name: hq }
    actions: [{ type: allow }]
";
    let rules = loaded(text).unwrap().rules;
    let places = &rules.policy("p").unwrap().conditions.allowed_locations;
    assert_eq!(places[0], AllowedLocation::Country(vec!["DE".into(), "FR".into()]));
    assert_eq!(places[1], AllowedLocation::Country(vec!["AT".into()]));
    assert_eq!(places[4], AllowedLocation::KnownSecureLocation(vec!["hq".into()]));
    assert!(places[2].contains_address(Some("10.1.2.3".parse().unwrap())));
    assert!(places[3].contains_address(Some("::1".parse().unwrap())));
    assert_eq!(Method::parse("GET"), Method::Get);
}
