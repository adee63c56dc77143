//! Positions are right, every problem is told, and nothing secret is.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::*;

#[derive(Debug, Deserialize, PartialEq)]
struct Shop {
    name: String,
    #[serde(default)]
    open: bool,
    #[serde(default)]
    port: u16,
    #[serde(default)]
    shelves: Vec<Shelf>,
    #[serde(default)]
    prices: BTreeMap<String, f64>,
    #[serde(default)]
    guard: Option<String>,
    #[serde(default)]
    hours: Hours,
}

#[derive(Debug, Default, Deserialize, PartialEq)]
#[serde(default)]
struct Hours {
    from: u8,
}

#[derive(Debug, Deserialize, PartialEq)]
struct Shelf {
    id: String,
    kind: Kind,
}

#[derive(Debug, Deserialize, PartialEq)]
#[serde(rename_all = "snake_case")]
enum Kind {
    Fruit,
    Bread,
    Other { note: String },
    Count(u8),
}

fn parse(text: &str) -> Node {
    Document::parse("shop.yaml", text).unwrap().root
}

fn problems(text: &str) -> Vec<String> {
    parse(text).read::<Shop>("").unwrap_err().iter().map(ToString::to_string).collect()
}

#[test]
fn a_whole_document_is_read() {
    let text = "name: a\nopen: true\nport: 80\nshelves:\n  - { id: x, kind: fruit }\n  - id: y\n    kind: { count: 3 }\n  \
                - { id: z, kind: { other: { note: n } } }\nprices: { apple: 1, pear: 2.5 }\n";
    let shop: Shop = parse(text).read("").unwrap();
    assert_eq!(shop.shelves[1].kind, Kind::Count(3));
    assert_eq!(shop.shelves[2].kind, Kind::Other { note: "n".to_owned() });
    assert_eq!(shop.prices["pear"], 2.5);
    assert_eq!(shop.prices["apple"], 1.0);
}

#[test]
fn every_problem_is_told_with_its_line_column_and_path() {
    let text = "name: a\nopn: true\nport: 70000\nshelves:\n  - { id: 7, kind: fruit }\n  - id: y\n    kind: braed\n  - kind: \
                bread\nprices:\n  apple: cheap\n";
    assert_eq!(
        problems(text),
        [
            "shop.yaml:2:1: error: opn: unknown key `opn` (help: did you mean `open`?)",
            "shop.yaml:3:7: error: port: expected a whole number from 0 to 65535, found `70000`",
            "shop.yaml:5:11: error: shelves[0].id: expected text, found a whole number (help: put it in quotes)",
            "shop.yaml:7:11: error: shelves[1].kind: `braed` is not one of `fruit`, `bread`, `other`, `count` (help: did \
             you mean `bread`?)",
            "shop.yaml:8:5: error: shelves[2]: `id` is missing",
            "shop.yaml:10:10: error: prices.apple: expected a number, found text",
        ]
    );
}

#[test]
fn a_misspelt_key_is_told_once_not_also_as_missing() {
    assert_eq!(problems("nmae: a\n"), ["shop.yaml:1:1: error: nmae: unknown key `nmae` (help: did you mean `name`?)"]);
    assert_eq!(problems("name: [1]\n"), ["shop.yaml:1:7: error: name: expected text, found a list"]);
    assert_eq!(problems("port: 1\n"), ["shop.yaml:1:1: error: `name` is missing"]);
}

#[test]
fn nothing_is_not_an_empty_list() {
    let found = problems("name: a\nshelves:\n");
    assert_eq!(found.len(), 1);
    assert!(found[0].contains("shelves: expected a list, found nothing (help: write `[]`"), "{found:?}");
}

#[test]
fn what_may_be_left_out_may_not_be_left_blank_but_for_a_section_of_defaults() {
    let blank = "nothing stands after it (help: write what is meant, or leave it out)";
    assert_eq!(
        problems("name: a\nguard:\nprices: ~\n"),
        [format!("shop.yaml:2:1: error: guard: {blank}"), format!("shop.yaml:3:1: error: prices: {blank}")]
    );
    let shop: Shop = parse("name: a\nhours:\n  # from: 8\n").read("").unwrap();
    assert_eq!((shop.guard, shop.hours), (None, Hours::default()));
}

#[test]
fn words_that_look_like_booleans_are_text() {
    let found = problems("name: a\nopen: yes\n");
    assert_eq!(
        found,
        ["shop.yaml:2:7: error: open: expected true or false, found text (help: write `true` or `false`)"]
    );
}

#[test]
fn what_is_no_yaml_is_refused_with_its_place() {
    for (text, line) in [
        ("a: 1\nb: [1, 2\nc: 3\n", 3),
        ("a: 1\na: 2\n", 2),
        ("a: 1\n\tb: 2\n", 2),
        ("a: *nobody\n", 1),
        ("a: \"open\nb: 1\n", 1),
    ] {
        let found = Document::parse("x.yaml", text).unwrap_err();
        assert!(found.line().abs_diff(line) <= 1 && found.line() > 0, "{text:?}: {found}");
        assert!(!found.message.is_empty() && !found.message.contains("line "), "{found}");
    }
    let bomb = format!(
        "a0: &a0 [x]\n{}",
        (1..30).map(|i| format!("a{i}: &a{i} [*a{0}, *a{0}, *a{0}]\n", i - 1)).collect::<String>()
    );
    let bomb = Document::parse("x.yaml", bomb).unwrap_err();
    assert!(bomb.message.contains("larger than a file of this kind"), "{bomb}");
    let itself = Document::parse("x.yaml", "a: &a [*a]\n").unwrap_err();
    assert!(itself.message.contains("refers to itself"), "{itself}");
    assert!(Document::parse("x.yaml", "[".repeat(100_000)).is_err());
}

#[test]
fn what_the_yaml_reader_says_of_itself_is_said_of_the_file() {
    let refused = |text: String| Document::parse("x.yaml", text).unwrap_err().to_string();
    assert_eq!(
        refused("a: 1\nb: 2\na: 3\n".into()),
        "x.yaml:3:1: error: the key `a` is given twice (help: keep one of the two)"
    );
    let second = refused("a: 1\n---\nb: 2\n".into());
    assert!(second.contains("error: one file holds one YAML document, and here a second begins (help: "), "{second}");
    let long = refused("- { id: a, access: public }\n".repeat(60_000));
    assert!(long.contains("at most 250000 keys, values, lists and maps") && !long.contains("alias"), "{long}");
    let deep = move || refused(format!("{}{}", "[".repeat(70), "]".repeat(70)));
    // So many levels take more than a test's stack where nothing is optimised.
    let deep = std::thread::Builder::new().stack_size(64 << 20).spawn(deep).unwrap().join().unwrap();
    assert!(deep.contains("nested more than 64 levels deep"), "{deep}");
}

#[test]
fn an_empty_file_is_nothing() {
    assert!(Document::parse("x.yaml", "").unwrap().root.is_null());
    assert!(Document::parse("x.yaml", "# only a comment\n").unwrap().root.is_null());
}

#[test]
fn a_problem_of_a_typed_value_finds_its_place_again() {
    let root = parse("name: a\nshelves:\n  - id: x\n    kind: fruit\nprices: { a.b: 1 }\n");
    let at = |path: &str| root.diagnose("", Problem::error(path, "m")).at.to_string();
    assert_eq!(at("shelves[0].kind"), "shop.yaml:4:11");
    assert_eq!(at("shelves[0].nowhere.deeper"), "shop.yaml:3:5");
    assert_eq!(at("prices[\"a.b\"]"), "shop.yaml:5:16");
    assert_eq!(at("nowhere"), "shop.yaml:1:1");
    let under = root.get("shelves").unwrap().diagnose("shop.shelves", Problem::warning("[0].id", "m").hint("h"));
    assert_eq!(under.to_string(), "shop.yaml:3:9: warning: shop.shelves[0].id: m (help: h)");
}

#[test]
fn a_drawing_shows_the_line_and_hides_secrets() {
    let text = "store: { url: redis://user:hunter2@h:6379 }\nclient_secret: hunter3\nport: x\n";
    let root = parse(text);
    let drawn = render(&root.diagnose("", Problem::error("port", "bad").hint("good")), false);
    assert!(drawn.contains("shop.yaml:3:7") && drawn.contains("^") && drawn.contains("good"), "{drawn}");
    for path in ["store.url", "client_secret", "port"] {
        let drawn = render(&root.diagnose("", Problem::error(path, "bad")), false);
        assert!(!drawn.contains("hunter"), "{drawn}");
    }
    let line = "ops: { status_token: hunter5, max_connections: x }\n";
    let drawn = render(&parse(line).diagnose("", Problem::error("ops.max_connections", "bad")), false);
    assert!(!drawn.contains("hunter") && drawn.contains("max_connections: x"), "{drawn}");
    let all = render_all(
        &[root.diagnose("", Problem::error("port", "a")), root.diagnose("", Problem::warning("", "b"))],
        false,
    );
    assert!(all.ends_with("1 error, 1 warning\n"), "{all}");
}

#[test]
fn of_a_url_nothing_before_its_last_at_is_drawn() {
    for (line, shown) in [
        ("store: { url: \"redis://we%40ird:p:a/s?s@w%rd#1@host:6379\" }", "@host:6379"),
        ("store: { url: redis://we%40ird:p, a/s?s@w%rd #1@host:6379 }", "@host:6379"),
        ("store: { url: 'redis://:p a@s@host' }", "@host"),
        ("url: redis-sentinel://pass@a,b/m", "@a,b/m"),
        ("url: https://u:pass@h/x", "@h/x"),
        ("url: https://h:1/x # ask s@host", "https://h:1/x # ask s@host"),
        ("{ url: https://h:1/x, to: s@host }", "https://h:1/x, to: s@host"),
    ] {
        let at = Mark::at(&Source::new("x.yaml", line), 0..3);
        let drawn = render(&Diagnostic::error(at, "store.url", "bad"), false);
        assert!(drawn.contains(shown), "{drawn}");
        for part in ["ird", "p:a", "s?s", "rd#", "pass", "p a", "p, a"] {
            assert!(!drawn.contains(part), "{part}: {drawn}");
        }
    }
}

#[test]
fn suggestions_are_near_or_none() {
    let words = ["audiences", "issuer", "jwks", "max_lifetime"];
    assert_eq!(closest("audience", words), Some("audiences"));
    assert_eq!(closest("max-lifetime", words), Some("max_lifetime"));
    assert_eq!(closest("JWKS", words), Some("jwks"));
    assert_eq!(closest("colour", words), None);
}

proptest::proptest! {
    #[test]
    fn any_text_is_read_or_refused_and_never_a_panic(text in "[ -~\n\u{e9}\u{4e2d}]{0,200}") {
        match Document::parse("x.yaml", text) {
            Ok(document) => {
                if let Err(found) = document.root.read::<Shop>("") {
                    proptest::prop_assert!(!found.is_empty());
                    let _ = render_all(&found, false);
                }
            }
            Err(found) => drop(render(&found, false)),
        }
    }
}
