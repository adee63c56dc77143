use countersign::{
    decision::{Decision, Grant, decide},
    domain::*,
    policy::{Loaded, Options, Rules, SourceFile, load},
};

use serde_json::json;

use crate::world::*;

const RULES: &str = r#"
resources:
  - { id: orders, match: { paths: ["/orders/**"] }, permission: "orders:read" }
  - { id: secrets, match: { paths: ["/secrets"] }, permission: "secrets:read", data_classification: secret }
roles: { clerk: ["orders:read"] }
cedar: { policies: cedar/ }
"#;

fn load_with(cedar: &str) -> Result<Loaded, Vec<String>> {
    let files = [SourceFile::new("rules/rules.yaml", RULES), SourceFile::new("rules/cedar/access.cedar", cedar)];
    let options = Options { risk_model: RiskModel::Fixed, ..Options::default() };
    load(&files, options).map_err(|found| found.iter().map(ToString::to_string).collect())
}

fn rules(cedar: &str) -> Rules {
    load_with(cedar).unwrap().rules
}

#[test]
fn an_attribute_policy_grants_what_no_role_holds_and_is_the_grant() {
    let rules = rules(
        r#"@id("auditors-read-secrets")
permit (principal in Role::"auditor", action in Action::"read", resource == Resource::"secrets")
when { context.trust >= 40 && context has country && context.country == "DE" };"#,
    );
    let mut facts = Facts { place: known(place()), ..facts("GET", "/secrets") };
    assert_eq!(told(&decide(&facts, &rules)), "deny:permission_missing");
    with_identity(&mut facts, |identity| identity.roles = vec!["auditor".into()]);
    let decision = decide(&facts, &rules);
    assert_eq!(told(&decision), "allow");
    assert_eq!(decision.grant, Some(Grant::Attribute("auditors-read-secrets".into())));
    facts.place = known(Place { country: Some("FR".into()), ..place() });
    assert_eq!(told(&decide(&facts, &rules)), "deny:permission_missing");
    facts.place = Fact::NotAsked;
    assert_eq!(told(&decide(&facts, &rules)), "deny:permission_missing");
}

#[test]
fn a_forbid_bites_whoever_holds_the_permission_and_names_itself() {
    let rules = rules(
        r#"@id("not-at-night") forbid (principal, action, resource) when { context.hour < 6 };
permit (principal, action, resource);"#,
    );
    let at = |hour: u64| {
        let mut facts = facts("GET", "/orders/7");
        facts.now = UnixTime::from_secs(NOW.as_secs() / 86400 * 86400 + hour * 3600);
        with_identity(&mut facts, |identity| identity.auth_time = None);
        let now = facts.now;
        with_identity(&mut facts, |identity| {
            identity.issued_at = now;
            identity.expires_at = now.plus(std::time::Duration::from_secs(60));
        });
        decide(&facts, &rules)
    };
    assert_eq!(at(12).grant, Some(Grant::Role("clerk".into())));
    let night = at(3);
    assert_eq!((told(&night).as_str(), night.rule), ("deny:attribute_policy_forbids", Some("not-at-night".into())));
}

#[test]
fn a_policy_that_fails_to_evaluate_refuses() {
    let rules = rules(
        r#"permit (principal, action, resource);
@id("overflow") forbid (principal, action, resource) when { context.risk + 9223372036854775807 > 0 };"#,
    );
    let facts = Facts { device: Fact::Absent, ..facts("GET", "/orders/7") };
    let decision = decide(&facts, &rules);
    assert_eq!((told(&decision).as_str(), decision.rule), ("deny:attribute_policy_failed", Some("overflow".into())));
}

#[test]
fn verdicts_are_remembered_by_what_is_read_and_nothing_else() {
    let rules = rules(r#"@id("ada") permit (principal == User::"ada", action, resource == Resource::"secrets");"#);
    let mut facts = facts("GET", "/secrets");
    for (subject, expected) in [("ada", "allow"), ("eve", "deny:permission_missing"), ("ada", "allow")] {
        with_identity(&mut facts, |identity| identity.subject = subject.into());
        facts.device = Fact::Absent;
        assert_eq!(told(&decide(&facts, &rules)), expected, "{subject}");
    }
    with_identity(&mut facts, |identity| identity.kind = SubjectKind::Service);
    assert_eq!(told(&decide(&facts, &rules)), "deny:permission_missing");
}

/// With a schema whose resources have an owner and readers; of `secrets` both are `ada`, who is no entity herself.
fn rules_with_readers(cedar: &str) -> Rules {
    let schema = countersign::policy::CEDAR_SCHEMA
        .replace("policy?: String,", "policy?: String,\n  owner?: User,\n  readers?: Set<User>,");
    let ada = json!({ "type": "User", "id": "ada" });
    let uid = json!({ "type": "Resource", "id": "secrets" });
    let entities = json!([{ "uid": uid, "attrs": { "owner": ada, "readers": [ada] }, "parents": [] }]);
    let files = [
        SourceFile::new("r.yaml", RULES.replace("cedar/ }", "c.cedar, schema: s.cedarschema, entities: e.json }")),
        SourceFile::new("c.cedar", cedar),
        SourceFile::new("s.cedarschema", schema),
        SourceFile::new("e.json", entities.to_string()),
    ];
    load(&files, Options { risk_model: RiskModel::Fixed, ..Options::default() }).unwrap().rules
}

#[test]
fn a_verdict_on_one_caller_is_no_verdict_on_another_however_policies_tell_them_apart() {
    let whole = "principal, action, resource";
    for (scope, condition) in [
        (r#"principal in User::"ada", action, resource"#, "true"),
        (r#"principal is User in User::"ada", action, resource"#, "true"),
        (whole, r#"principal == User::"ada""#),
        (whole, r#"principal in User::"ada""#),
        (whole, r#"principal in [User::"ada", User::"bob"]"#),
        (whole, r#"principal is User in User::"ada""#),
        (whole, r#"principal is User && [User::"ada"].contains(principal)"#),
        (whole, r#"(if context.encrypted then principal else principal) == User::"ada""#),
        // Nobody but who asks has attributes and roles: it is `ada` alone who is a clerk here when she asks.
        (whole, r#"User::"ada" in Role::"clerk""#),
        (whole, "resource has owner && resource.owner == principal"),
        (whole, r#"resource has owner && resource.owner in Role::"clerk""#),
        (whole, "resource has readers && principal in resource.readers"),
        (whole, "resource has readers && principal is User in resource.readers"),
        (whole, "principal is User && resource has readers && resource.readers.contains(principal)"),
    ] {
        for (effect, ada, eve) in
            [("permit", "allow", "deny:permission_missing"), ("forbid", "deny:attribute_policy_forbids", "allow")]
        {
            let permit = if effect == "forbid" { "permit (principal, action, resource);" } else { "" };
            let cedar = format!("{effect} ({scope}) when {{ {condition} }};\n{permit}");
            for order in [["ada", "eve", "ada"], ["eve", "ada", "eve"]] {
                // Callers among the entities are reason enough: those that a policy names must be so by themselves.
                let rules = if condition.contains("resource has") { rules_with_readers(&cedar) } else { rules(&cedar) };
                let mut facts = Facts { device: Fact::Absent, ..facts("GET", "/secrets") };
                for subject in order {
                    with_identity(&mut facts, |identity| identity.subject = subject.into());
                    let expected = if subject == "ada" { ada } else { eve };
                    assert_eq!(told(&decide(&facts, &rules)), expected, "{subject} of {order:?}: {cedar}");
                }
            }
        }
    }
}

#[test]
fn every_input_that_is_read_tells_verdicts_apart() {
    let rules = rules(
        r#"permit (principal, action, resource) when {
  principal.scopes.contains("a") && !principal.permissions.contains("b") && principal.multi_factor &&
  context.path like "/secrets*" && context.device == "registered" && context.encrypted };"#,
    );
    let fine = || {
        let mut facts = facts("GET", "/secrets");
        with_identity(&mut facts, |identity| identity.scopes = vec!["a".into()]);
        facts
    };
    let told_of = |facts: &Facts| told(&decide(facts, &rules));
    assert_eq!(told_of(&fine()), "allow");
    let mut plain = fine();
    plain.request.encrypted = false;
    assert_eq!(told_of(&plain), "deny:permission_missing");
    let mut unknown = fine();
    unknown.device = Fact::Absent;
    assert_eq!(told_of(&unknown), "deny:permission_missing");
    let mut held = fine();
    with_identity(&mut held, |identity| identity.permissions = vec!["b".into()]);
    assert_eq!(told_of(&held), "deny:permission_missing");
    let mut scopes = fine();
    with_identity(&mut scopes, |identity| identity.scopes = vec!["ab".into(), "".into()]);
    assert_eq!(told_of(&scopes), "deny:permission_missing");
    assert_eq!(told_of(&fine()), "allow");
}

#[test]
fn cedar_files_are_validated_with_their_lines() {
    for (cedar, expected) in [
        ("permit (principal, action, resource)", "rules/cedar/access.cedar:1:37: error: "),
        (
            "permit (principal, action, resource)\nwhen { context.contry == \"DE\" };",
            "rules/cedar/access.cedar:2:8: error: ",
        ),
        (
            "permit (principal, action, resource)\nwhen { context.country == \"DE\" };",
            "rules/cedar/access.cedar:2:8: error: ",
        ),
        ("permit (principal == Usr::\"a\", action, resource);", "rules/cedar/access.cedar:1:22: error: "),
        (
            "@id(\"a\") permit (principal, action, resource);\n@id(\"a\") permit (principal, action, resource);",
            "rules/cedar/access.cedar:2:5: error: the attribute policy id `a` is taken",
        ),
        ("permit (principal == ?principal, action, resource);", "rules/cedar/access.cedar:1:1: error: templates"),
    ] {
        let found = load_with(cedar).unwrap_err();
        assert_eq!(found.len(), 1, "{found:#?}");
        assert!(found[0].starts_with(expected), "{found:#?}\n{expected}");
    }
    let missing = load(&[SourceFile::new("rules.yaml", RULES)], Options::default()).unwrap_err();
    assert_eq!(
        missing[0].to_string(),
        "rules.yaml:6:20: error: cedar.policies: `cedar/` is not among the files that are read: `rules` must list it, or its folder"
    );
}

#[test]
fn a_policy_that_asks_for_a_configured_claim_is_not_warned_of() {
    let asks = |claim: &str| {
        format!("permit (principal, action, resource) when {{ principal has {claim} && principal.{claim} == \"it\" }};")
    };
    let warned = |cedar: &str, schema: Option<String>| {
        let named = if schema.is_some() { "cedar/, schema: s.cedarschema }" } else { "cedar/ }" };
        let yaml = SourceFile::new("rules.yaml", RULES.replace("cedar/ }", named));
        let files = [yaml, SourceFile::new("cedar/a.cedar", cedar)];
        let schema = schema.map(|text| SourceFile::new("s.cedarschema", text));
        let files: Vec<_> = files.into_iter().chain(schema).collect();
        let options = Options { claims: ["department".into()].into(), ..Options::default() };
        load(&files, options).unwrap().warnings.iter().filter(|one| one.message.contains("impossible")).count()
    };
    assert_eq!(warned(&asks("department"), None), 0);
    assert_eq!(warned(&asks("departmnt"), None), 1, "nobody hands it on");
    assert_eq!(warned("permit (principal, action, resource) when { context.hour < 3 && false };", None), 1);
    let own = countersign::policy::CEDAR_SCHEMA
        .replace("permissions: Set<String>,", "permissions: Set<String>,\n  department?: String,");
    assert_eq!(warned(&asks("department"), Some(own.clone())), 0);
    assert_eq!(warned(&asks("department").replace(" }", " && false }"), Some(own)), 1, "the schema knows the claim");
}

#[test]
fn hierarchies_and_schemas_of_ones_own_are_used() {
    let yaml = RULES.replace("cedar/ }", "c.cedar, schema: s.cedarschema, entities: e.json }");
    let schema = countersign::policy::CEDAR_SCHEMA
        .replace("permissions: Set<String>,", "permissions: Set<String>,\n  department?: String,");
    let entities = r#"[{ "uid": { "type": "Resource", "id": "secrets" }, "attrs": {}, "parents": [{ "type": "ResourceGroup", "id": "vault" }] },
        { "uid": { "type": "ResourceGroup", "id": "vault" }, "attrs": {}, "parents": [] }]"#;
    let cedar = r#"permit (principal, action, resource in ResourceGroup::"vault") when { principal has department && principal.department == "it" };"#;
    let files = [
        SourceFile::new("rules.yaml", yaml),
        SourceFile::new("c.cedar", cedar),
        SourceFile::new("s.cedarschema", schema),
        SourceFile::new("e.json", entities),
    ];
    let rules = load(&files, Options::default()).unwrap().rules;
    let mut facts = facts("GET", "/secrets");
    assert_eq!(told(&decide(&facts, &rules)), "deny:permission_missing");
    with_identity(&mut facts, |identity| {
        identity.attributes.insert("department".into(), "it".into());
    });
    assert_eq!(told(&decide(&facts, &rules)), "allow");
}

#[test]
fn tags_of_entities_are_handed_on() {
    let schema =
        countersign::policy::CEDAR_SCHEMA.replace("  policy?: String,\n};", "  policy?: String,\n} tags String;");
    let uid = json!({ "type": "Resource", "id": "orders" });
    let entities = json!([{ "uid": uid, "attrs": {}, "parents": [], "tags": { "state": "frozen" } }]);
    let cedar = r#"forbid (principal, action, resource)
when { resource.hasTag("state") && resource.getTag("state") == "frozen" && resource has permission };"#;
    let files = [
        SourceFile::new("r.yaml", RULES.replace("cedar/ }", "c.cedar, schema: s.cedarschema, entities: e.json }")),
        SourceFile::new("c.cedar", cedar),
        SourceFile::new("s.cedarschema", schema),
        SourceFile::new("e.json", entities.to_string()),
    ];
    let rules = load(&files, Options::default()).unwrap().rules;
    assert_eq!(told(&decide(&facts("GET", "/orders/7"), &rules)), "deny:attribute_policy_forbids");
}

#[test]
fn a_method_that_no_schema_knows_is_a_write() {
    let yaml = RULES.replace(r#"["/secrets"] }"#, r#"["/secrets"], methods: [GET, POST, PURGE] }"#);
    let cedar = r#"permit (principal, action, resource);
forbid (principal, action in Action::"write", resource);"#;
    let files = [SourceFile::new("r/rules.yaml", yaml), SourceFile::new("r/cedar/access.cedar", cedar)];
    let rules = load(&files, Options { risk_model: RiskModel::Fixed, ..Options::default() }).unwrap().rules;
    for (method, expected) in
        [("GET", "allow"), ("POST", "deny:attribute_policy_forbids"), ("PURGE", "deny:attribute_policy_forbids")]
    {
        assert_eq!(told(&decide(&facts(method, "/secrets"), &rules)), expected, "{method}");
    }
}

/// `cedar` and a schema of one's own.
fn load_with_schema(cedar: &str, schema: String) -> Result<Loaded, Vec<String>> {
    let files = [
        SourceFile::new("r.yaml", RULES.replace("cedar/ }", "c.cedar, schema: s.cedarschema }")),
        SourceFile::new("c.cedar", cedar),
        SourceFile::new("s.cedarschema", schema),
    ];
    load(&files, Options::default()).map_err(|found| found.iter().map(ToString::to_string).collect())
}

#[test]
fn a_schema_without_the_names_that_requests_have_is_refused() {
    let own = countersign::policy::CEDAR_SCHEMA;
    let shop = load_with_schema(
        r#"forbid (principal, action == Shop::Action::"DELETE", resource);"#,
        format!("namespace Shop {{\n{own}\n}}"),
    );
    let found = shop.unwrap_err();
    let lacks = "s.cedarschema:1:1: error: the schema lacks what requests are asked about with: ";
    assert!(
        found[0].starts_with(&format!("{lacks}`User`, `Service`, `Role`, `Resource`, Action::\"read\", ")),
        "{found:?}"
    );
    assert!(found[0].contains(r#"Action::"DELETE" for `Service` and `Resource`"#), "{found:?}");
    for (from, to, what) in [
        (
            "PATCH, DELETE in",
            "PATCH in",
            r#"Action::"DELETE" for `User` and `Resource`, Action::"DELETE" for `Service`"#,
        ),
        (
            "DELETE in [write] appliesTo {\n  principal: [User, Service]",
            "DELETE in [write] appliesTo {\n  principal: [User]",
            r#"Action::"POST" for `Service`"#,
        ),
        ("action read, write;", "action read, write2;", r#"Action::"write""#),
    ] {
        let schema = own.replace(from, to);
        assert_ne!(schema, own, "{from}");
        let schema = if to.contains("write2") { schema.replace("in [write]", "in [write2]") } else { schema };
        let found = load_with_schema("permit (principal, action, resource);", schema).unwrap_err();
        assert!(found[0].starts_with(lacks) && found[0].contains(what), "{found:?}");
    }
    let more = own.replace("DELETE in", "DELETE, PURGE in");
    assert!(load_with_schema(r#"forbid (principal, action == Action::"PURGE", resource);"#, more).is_ok());
}

const SHOP: &str = "https://idp.example/shop";

/// Users are vouched for by `issuers`; services by those and a trust domain. Of `orders` somebody is the owner.
fn load_with_issuers(cedar: &str, issuers: &[&str], entities: &str) -> Result<Rules, Vec<String>> {
    let schema = countersign::policy::CEDAR_SCHEMA.replace("policy?: String,", "policy?: String,\n  owner?: User,");
    let files = [
        SourceFile::new("r.yaml", RULES.replace("cedar/ }", "c.cedar, schema: s.cedarschema, entities: e.json }")),
        SourceFile::new("c.cedar", cedar),
        SourceFile::new("s.cedarschema", schema),
        SourceFile::new("e.json", entities),
    ];
    let options = Options {
        risk_model: RiskModel::Fixed,
        issuers: issuers.iter().map(|issuer| (*issuer).into()).collect(),
        trust_domains: ["spiffe://td".into()].into(),
        ..Options::default()
    };
    let told = |found: Vec<countersign::document::Diagnostic>| found.iter().map(ToString::to_string).collect();
    load(&files, options).map(|loaded| loaded.rules).map_err(told)
}

#[test]
fn a_caller_by_name_alone_is_refused_where_several_issuers_may_vouch_for_the_name() {
    let owned = r#"[{ "uid": { "type": "Resource", "id": "orders" }, "parents": [],
        "attrs": { "owner": { "type": "User", "id": "ada" } } }]"#;
    let two = [SHOP, "https://partner.example"];
    let refused = |condition: &str, issuers: &[&str], entities: &str| {
        let cedar = format!("permit (principal, action, resource);\n{condition}");
        let found = load_with_issuers(&cedar, issuers, entities).err().unwrap_or_default();
        assert!(found.iter().all(|one| one.starts_with("c.cedar:2:1: error: tells callers by")), "{found:?}");
        !found.is_empty()
    };
    for (policy, entities, among_one, among_two) in [
        (r#"permit (principal == User::"ada", action, resource);"#, "[]", false, true),
        (r#"permit (principal in User::"ada", action, resource);"#, "[]", false, true),
        (r#"permit (principal == Service::"spiffe://td/billing", action, resource);"#, "[]", true, true),
        (r#"permit (principal, action, resource) when { principal == User::"ada" };"#, "[]", false, true),
        (r#"permit (principal, action, resource) when { principal in [User::"ada"] };"#, "[]", false, true),
        (r#"forbid (principal, action, resource) unless { principal == User::"ada" };"#, "[]", false, true),
        (
            "permit (principal, action, resource) when { resource has owner && resource.owner == principal };",
            owned,
            false,
            true,
        ),
        // Nobody is named, nobody could be meant, or whoever has the name is meant.
        (
            "permit (principal, action, resource) when { resource has owner && resource.owner == principal };",
            "[]",
            false,
            false,
        ),
        (r#"permit (principal in Role::"clerk", action, resource);"#, owned, false, false),
        (r#"permit (principal is User, action, resource) when { principal in Role::"clerk" };"#, owned, false, false),
        (r#"forbid (principal == User::"eve", action, resource);"#, "[]", false, false),
        (
            r#"permit (principal == User::"ada", action, resource) when { principal.issuer == "https://idp" };"#,
            "[]",
            false,
            false,
        ),
    ] {
        assert_eq!(refused(policy, &two[..1], entities), among_one, "one issuer: {policy}");
        assert_eq!(refused(policy, &two, entities), among_two, "two issuers: {policy}");
    }
}

#[test]
fn a_caller_among_the_entities_is_the_one_of_its_issuer() {
    let ada = |issuer: &str| {
        json!([{
            "uid": { "type": "User", "id": "ada" }, "parents": [{ "type": "Role", "id": "auditor" }],
            "attrs": { "issuer": issuer, "methods": [], "multi_factor": false, "scopes": [], "permissions": [] },
        }])
        .to_string()
    };
    let cedar = r#"permit (principal in Role::"auditor", action, resource == Resource::"secrets");"#;
    let two = [SHOP, "https://partner.example"];
    let asked = |rules: &Rules, issuer: &str| {
        let mut facts = facts("GET", "/secrets");
        with_identity(&mut facts, |identity| (identity.subject, identity.issuer) = ("ada".into(), issuer.into()));
        facts.device = Fact::Absent;
        told(&decide(&facts, rules))
    };
    let rules = load_with_issuers(cedar, &two, &ada(SHOP)).unwrap();
    assert_eq!(asked(&rules, SHOP), "allow");
    assert_eq!(asked(&rules, two[1]), "deny:permission_missing");
    assert_eq!(asked(&rules, SHOP), "allow");
    for strange in ["", "https://idp.example/shp", "spiffe://td"] {
        let found = load_with_issuers(cedar, &two, &ada(strange)).unwrap_err();
        assert!(
            found[0].starts_with("e.json:1:") && found[0].contains(r#"`issuer` of User::"ada" is none"#),
            "{found:?}"
        );
    }
    let rules = load_with_issuers(cedar, &two[..1], &ada("")).unwrap();
    assert_eq!(asked(&rules, SHOP), "allow", "nobody else could be meant");
}

#[test]
fn a_request_is_signed_by_a_dpop_proof_alone() {
    let rules = rules("permit (principal, action, resource) when { context.signed };");
    for (proof, expected) in [
        (None, "deny:permission_missing"),
        (Some(Possession::Certificate), "deny:permission_missing"),
        (Some(Possession::Dpop), "allow"),
    ] {
        let mut facts = facts("GET", "/secrets");
        facts.credential = known(Credential::Verified { identity: identity().into(), proof });
        assert_eq!(told(&decide(&facts, &rules)), expected, "{proof:?}");
    }
}

/// `orders` is held by a role; `secrets` by nobody.
fn asked(rules: &Rules, path: &str, change: impl FnOnce(&mut Facts)) -> Decision {
    let mut facts = Facts { place: known(place()), ..facts("GET", path) };
    change(&mut facts);
    decide(&facts, rules)
}

#[test]
fn a_forbid_that_reads_a_place_or_device_that_cannot_be_looked_up_is_no_pass() {
    for (condition, reason) in [
        (r#"context has country && context.country == "KP""#, "deny:location_unknown"),
        (r#"context.network == "tor""#, "deny:location_unknown"),
        (r#"["tor", "vpn"].contains(context.network)"#, "deny:location_unknown"),
        (r#"!(context has country)"#, "deny:location_unknown"),
        ("context has device_compliant && !context.device_compliant", "deny:device_unknown"),
        ("context has device_managed && !context.device_managed", "deny:device_unknown"),
        (r#"context.device == "untrusted""#, "deny:device_unknown"),
        ("context.hour > 24", "allow"),
    ] {
        let cedar = format!(
            r#"@id("reads") forbid (principal, action, resource == Resource::"orders") when {{ {condition} }};"#
        );
        // Without guards: the default ones want to know the device by themselves.
        let yaml = SourceFile::new("rules/rules.yaml", format!("{RULES}guards: []\n"));
        let files = [yaml, SourceFile::new("rules/cedar/access.cedar", cedar)];
        let options = Options { risk_model: RiskModel::Fixed, ..Options::default() };
        let rules = load(&files, options).unwrap().rules;
        assert_eq!(told(&asked(&rules, "/orders/7", |_| {})), "allow", "{condition}");
        let decision = asked(&rules, "/orders/7", |facts| {
            facts.place = Fact::Unavailable(Unavailable::Stale);
            facts.device = Fact::Unavailable(Unavailable::Store);
        });
        assert_eq!(told(&decision), reason, "{condition}");
        assert_eq!(decision.rule, (reason != "allow").then(|| "reads".into()), "{condition}");
        assert_eq!(decision.status(), if reason == "allow" { 200 } else { 503 });
        // What nobody looks for is as it was.
        let nothing = asked(&rules, "/orders/7", |facts| (facts.place, facts.device) = (Fact::NotAsked, Fact::Absent));
        let none = if condition.starts_with('!') { "deny:attribute_policy_forbids" } else { "allow" };
        assert_eq!(told(&nothing), none, "{condition}");
        with_secrets_permitted(&rules);
    }
}

/// A policy whose scope is elsewhere is not asked, whatever it reads.
fn with_secrets_permitted(rules: &Rules) {
    let decision = asked(rules, "/secrets", |facts| {
        facts.place = Fact::Unavailable(Unavailable::Stale);
        with_identity(facts, |identity| identity.permissions = vec!["secrets:read".into()]);
    });
    assert_eq!(told(&decision), "allow");
}

#[test]
fn a_permit_that_reads_a_place_that_cannot_be_looked_up_is_missed_only_where_nothing_else_permits() {
    let rules = rules(
        r#"@id("at-home") permit (principal, action, resource) when { context has country && context.country == "DE" };
@id("auditors") permit (principal in Role::"auditor", action, resource);
@id("closed") forbid (principal in Role::"guest", action, resource);
@id("others") forbid (principal == User::"eve", action, resource)
when { context has country && context.country == "KP" && principal has groups };"#,
    );
    let of = |path: &str, role: &str| {
        asked(&rules, path, |facts| {
            facts.place = Fact::Unavailable(Unavailable::NotReady);
            with_identity(facts, |identity| identity.roles = vec![role.into()]);
        })
    };
    assert_eq!(told(&of("/orders/7", "clerk")), "allow", "held by a role");
    assert_eq!(of("/secrets", "auditor").grant, Some(Grant::Attribute("auditors".into())));
    let open = of("/secrets", "clerk");
    assert_eq!((told(&open).as_str(), open.rule), ("deny:location_unknown", Some("at-home".into())));
    assert_eq!(told(&of("/secrets", "guest")), "deny:attribute_policy_forbids", "what is known answers first");
}

#[test]
fn a_claim_that_cedar_has_no_word_for_refuses_where_a_policy_reads_it() {
    let rules = rules(
        r#"permit (principal, action, resource);
@id("contractors") forbid (principal, action, resource == Resource::"secrets")
when { principal has groups && principal.groups.contains("contractors") };"#,
    );
    let of = |path: &str, name: &str, claim: serde_json::Value| {
        let decision = asked(&rules, path, |facts| {
            with_identity(facts, |identity| {
                identity.attributes.insert(name.into(), claim);
            });
        });
        (told(&decision), decision.rule)
    };
    let failed = ("deny:attribute_policy_failed".to_owned(), Some("contractors".into()));
    let allowed = ("allow".to_owned(), None);
    for claim in [
        json!(["contractors", null]),
        json!(["contractors", 1.5]),
        json!([["contractors"], {}]),
        json!({ "contractors": true }),
        json!(1.5),
        json!(u64::MAX),
    ] {
        assert_eq!(of("/secrets", "groups", claim.clone()), failed, "{claim}");
        assert_eq!(of("/orders/7", "groups", claim.clone()), allowed, "{claim}: nobody reads it of this resource");
        assert_eq!(of("/secrets", "address", claim.clone()), allowed, "{claim}: nobody reads it");
    }
    assert_eq!(of("/secrets", "groups", json!(null)), allowed, "nothing is no group");
    assert_eq!(of("/secrets", "groups", json!(["staff"])), allowed);
    let forbidden = ("deny:attribute_policy_forbids".to_owned(), Some("contractors".into()));
    assert_eq!(of("/secrets", "groups", json!(["contractors"])), forbidden);
}

#[test]
fn a_public_resource_that_its_route_tightens_is_forbidden_like_any_other() {
    let yaml = RULES
        .replace("resources:", "resources:\n  - { id: pages, match: { paths: [\"/pages\"] }, access: public }")
        + "policies: [{ id: calm, actions: [{ type: allow }] }]\n";
    let cedar = r#"@id("not-eve") forbid (principal == User::"eve", action, resource);"#;
    let files = [SourceFile::new("r/rules.yaml", yaml), SourceFile::new("r/cedar/access.cedar", cedar)];
    let rules = load(&files, Options { risk_model: RiskModel::Fixed, ..Options::default() }).unwrap().rules;
    let of = |subject: &str, extensions: &RouteExtensions| {
        asked(&rules, "/pages", |facts| {
            with_identity(facts, |identity| identity.subject = subject.into());
            facts.device = Fact::Absent;
            facts.request.extensions = extensions.clone();
        })
    };
    assert_eq!(of("eve", &RouteExtensions::default()).grant, Some(Grant::Public));
    for extensions in [
        RouteExtensions { policy: Some("calm".into()), ..Default::default() },
        RouteExtensions { min_trust_level: Some(TrustLevel::Low), ..Default::default() },
        RouteExtensions { resource: Some("orders".into()), ..Default::default() },
    ] {
        assert_eq!(told(&of("eve", &extensions)), "deny:attribute_policy_forbids", "{extensions:?}");
        let ada = of("ada", &extensions);
        assert_eq!((told(&ada).as_str(), ada.grant), ("allow", Some(Grant::Authenticated)), "{extensions:?}");
    }
}

#[test]
fn a_cedar_file_that_no_section_reaches_is_refused() {
    let forbid = "forbid (principal, action, resource);";
    let beside = |rules: String, names: &[&str]| {
        let cedar = names.iter().map(|name| SourceFile::new(*name, forbid));
        let files: Vec<_> = [SourceFile::new("policies/rules.yaml", rules)].into_iter().chain(cedar).collect();
        let found = load(&files, Options::default()).err().unwrap_or_default();
        found.iter().map(|one| (one.at.source.name.to_string(), one.message.contains("reaches"))).collect::<Vec<_>>()
    };
    let told = |name: &str| vec![(name.to_owned(), true)];
    assert_eq!(beside(RULES.to_owned(), &["policies/cedar/a.cedar"]), []);
    assert_eq!(
        beside(RULES.to_owned(), &["policies/cedar/a.cedar", "policies/extra.cedar"]),
        told("policies/extra.cedar")
    );
    let without = RULES.replace("cedar: { policies: cedar/ }", "");
    assert_eq!(beside(without.clone(), &["policies/cedar/a.cedar"]), told("policies/cedar/a.cedar"));
    assert_eq!(beside(without, &[]), []);
}
