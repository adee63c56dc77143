use super::*;

/// Resources written as `id host|- methods|- path`.
fn routes(lines: &[&str]) -> (Vec<Resource>, Routes) {
    let mut resources = Vec::new();
    let mut routes = Routes::new();
    for (i, line) in lines.iter().enumerate() {
        let mut words = line.split_whitespace();
        let (id, host, methods, path) =
            (words.next().unwrap(), words.next().unwrap(), words.next().unwrap(), words.next().unwrap());
        let mut resource = Resource::new(id, path);
        if host != "-" {
            resource.hosts = host.split(',').map(Into::into).collect();
        }
        if methods != "-" {
            resource.methods = Some(methods.split(',').map(Method::parse).collect());
        }
        routes.insert(&Pattern::parse(path).unwrap(), &resource, (i, 0)).unwrap();
        resources.push(resource);
    }
    (resources, routes)
}

fn found(set: &(Vec<Resource>, Routes), host: &str, method: &str, path: &str) -> String {
    match set.1.find(&set.0, host, path, &Method::parse(method)) {
        Route::Resource(resource, _) => resource.id.to_string(),
        Route::MethodNotAllowed(resource) => format!("not allowed by {}", resource.id),
        Route::NotFound => "nothing".into(),
    }
}

#[test]
fn a_literal_beats_a_parameter_beats_everything_below() {
    let set = routes(&["all - - /**", "below - - /a/**", "any - - /a/{x}", "b - - /a/b", "deep - - /{x}/b/c"]);
    for (path, expected) in [
        ("/a/b", "b"),
        ("/a/c", "any"),
        ("/a/b/c", "below"),
        ("/x/b/c", "deep"),
        ("/x/b", "all"),
        ("/", "all"),
        ("/a", "all"),
        ("/a/", "below"),
    ] {
        assert_eq!(found(&set, "h", "GET", path), expected, "{path}");
    }
}

#[test]
fn the_path_of_the_resource_that_matched_is_told() {
    let mut resource = Resource::new("wiki", "/wiki/{title}");
    resource.paths.push("/wiki/{title}/history/**".into());
    let mut routes = Routes::new();
    for (i, path) in resource.paths.iter().enumerate() {
        routes.insert(&Pattern::parse(path).unwrap(), &resource, (0, i)).unwrap();
    }
    let resources = [resource];
    for (path, expected) in [("/wiki/Oslo", "/wiki/{title}"), ("/wiki/Oslo/history/3", "/wiki/{title}/history/**")] {
        let found = routes.find(&resources, "h", path, &Method::parse("GET"));
        assert!(matches!(found, Route::Resource(_, pattern) if pattern == expected), "{path}: {found:?}");
    }
}

#[test]
fn a_prefix_needs_its_slash_and_a_parameter_needs_a_value() {
    let set = routes(&["public - - /public/**", "order - - /orders/{id}", "orders - - /orders"]);
    for (path, expected) in [
        ("/public/", "public"),
        ("/public/a/b", "public"),
        ("/public", "nothing"),
        ("/publicity", "nothing"),
        ("/orders/", "nothing"),
        ("/orders/7", "order"),
        ("/orders/7/", "nothing"),
        ("/Orders", "nothing"),
    ] {
        assert_eq!(found(&set, "h", "GET", path), expected, "{path}");
    }
}

#[test]
fn a_named_host_comes_before_any_host_and_another_host_matches_nothing() {
    let set = routes(&["any - - /x", "shop shop.example - /x", "only shop.example - /only"]);
    assert_eq!(found(&set, "shop.example", "GET", "/x"), "shop");
    assert_eq!(found(&set, "other.example", "GET", "/x"), "any");
    assert_eq!(found(&set, "other.example", "GET", "/only"), "nothing");
}

#[test]
fn a_more_specific_path_of_another_host_does_not_hide_a_rule() {
    let set = routes(&["wide - - /a/**", "narrow shop.example - /a/b"]);
    assert_eq!(found(&set, "other.example", "GET", "/a/b"), "wide");
}

#[test]
fn the_most_specific_path_decides_alone_about_methods() {
    let set = routes(&["wide - - /a/**", "read - GET,HEAD /a/b", "write - PUT /a/b"]);
    assert_eq!(found(&set, "h", "GET", "/a/b"), "read");
    assert_eq!(found(&set, "h", "PUT", "/a/b"), "write");
    assert_eq!(found(&set, "h", "DELETE", "/a/b"), "not allowed by read");
}

#[test]
fn uncommon_methods_match_only_where_they_are_named() {
    let set = routes(&["common - - /a", "purge - PURGE /b"]);
    assert_eq!(found(&set, "h", "TRACE", "/a"), "not allowed by common");
    assert_eq!(found(&set, "h", "get", "/a"), "not allowed by common");
    assert_eq!(found(&set, "h", "PURGE", "/b"), "purge");
}

#[test]
fn two_rules_that_could_both_match_are_a_tie() {
    let mut set = routes(&["one - GET /a/{x}"]).1;
    let mut other = Resource::new("two", "/a/{y}");
    other.methods = Some(vec![Method::Get, Method::Put]);
    assert_eq!(set.insert(&Pattern::parse("/a/{y}").unwrap(), &other, (1, 0)), Err(0));
    other.methods = Some(vec![Method::Put]);
    assert_eq!(set.insert(&Pattern::parse("/a/{y}").unwrap(), &other, (1, 0)), Ok(()));
}

#[test]
fn patterns_that_cannot_be_say_why() {
    for (text, problem) in [
        ("a", "the path does not begin with a slash"),
        ("/a/**/b", "`**` stands only at the end"),
        ("/a/*", "`*` is no pattern"),
        ("/a/{x}y", "a parameter is a whole segment"),
        ("/a/{}", "a parameter is a whole segment"),
        ("/a//b", "the path holds an empty segment: no request could match"),
        ("/a/../b", "the path holds a dot segment: no request could match"),
    ] {
        assert!(Pattern::parse(text).unwrap_err().to_string().starts_with(problem), "{text}");
    }
    assert_eq!(Pattern::parse("/%61"), Pattern::parse("/a"));
}

#[test]
fn an_encoded_spelling_never_leaves_a_literal_rule_for_a_wider_one() {
    let set = routes(&[
        "public - - /files/**",
        "at - - /files/@secret",
        "encoded - - /files/a%2Bb",
        "braces - - /files/%7Bsecret%7D",
        "star - - /files/%2A",
        "stars - - /files/%2a%2A",
    ]);
    for (target, expected) in [
        ("/files/%40secret", "at"),
        ("/files/@secret", "at"),
        ("/files/a+b", "encoded"),
        ("/files/a%2bb", "encoded"),
        ("/files/{secret}", "braces"),
        ("/files/%7bsecret}", "braces"),
        ("/files/*", "star"),
        ("/files/%2A", "star"),
        ("/files/**", "stars"),
        ("/files/other", "public"),
        ("/%2A%2A", "nothing"),
    ] {
        assert_eq!(found(&set, "h", "GET", &canonical_path(target).unwrap()), expected, "{target}");
    }
}

#[test]
fn only_what_is_written_as_a_wildcard_in_a_rule_is_one() {
    let set = routes(&["literal - - /a/%2A%2A", "brace - - /b/%7Bx%7D", "any - - /c/{x}", "below - - /d/**"]);
    for (target, expected) in [
        ("/a/b", "nothing"),
        ("/a/b/c", "nothing"),
        ("/b/c", "nothing"),
        ("/b/{x}", "brace"),
        ("/c/{x}", "any"),
        ("/c/**", "any"),
        ("/d/x/y", "below"),
    ] {
        assert_eq!(found(&set, "h", "GET", &canonical_path(target).unwrap()), expected, "{target}");
    }
}
