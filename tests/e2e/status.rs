//! The status page in a real browser: what this replica does just now, and why it refused, one click away.

use serde_json::json;

use crate::support::{
    browser::Browser,
    stack::{Builder, Stack},
    tokens::Token,
};

/// A name that would be markup, where somebody took it for that.
const HOSTILE: &str = "<img src=x onerror=\"document.title='owned'\">";

fn open(stack: &Stack, size: (u32, u32)) -> Browser {
    Browser::open(&stack.folder, &format!("http://{}/status", stack.countersign.http), size)
}

fn text(browser: &mut Browser, selector: &str) -> String {
    let text = browser.evaluate(&format!("document.querySelector({selector:?}).innerText"));
    text.as_str().expect("an element with text").to_owned()
}

#[test]
fn the_page_shows_what_happens_and_explains_a_refusal_at_a_click() {
    let stack = Builder::new().start();
    let mut browser = open(&stack, (1280, 900));
    browser.wait("document.querySelector('#ready').textContent === 'ready'");
    assert_eq!(text(&mut browser, "#refusals .none"), "None so far.");
    assert!(text(&mut browser, "#feed").contains("live"), "{}", text(&mut browser, "#feed"));

    let token = Token::person(HOSTILE);
    assert_eq!(stack.get("/hello").bearer(&token.mint()).send().status, 200);
    stack.countersign.admin("Revoke", &json!({"kind": "KIND_SUBJECT", "id": HOSTILE})).expect("revoked");
    for _ in 0..3 {
        assert_eq!(stack.get("/hello").send().status, 401);
    }
    assert_eq!(
        stack.get("/payments").bearer(&Token::person("ann").claim("amr", vec!["pwd"]).mint()).send().status,
        401
    );
    assert_eq!(stack.get("/hello").bearer(&token.mint()).send().reason(), "subject_revoked");

    let listed = "document.querySelectorAll('#refusals tbody tr').length === 5";
    browser.wait(listed);
    let reasons = "[...document.querySelectorAll('#refusals tbody tr')].map((row) => row.cells[2].innerText)";
    let reasons = browser.evaluate(reasons);
    assert_eq!(
        (&reasons[0], &reasons[4]),
        (&json!("subject_revoked"), &json!("no_credentials")),
        "newest first: {reasons}"
    );
    let top = text(&mut browser, "#reasons .bars");
    assert!(top.starts_with("no_credentials\n3\n"), "{top}");
    browser.wait("document.querySelector('#verdicts .deny .total').textContent === '4 in all'");
    browser.wait("document.querySelector('#verdicts .step-up .total').textContent === '1 in all'");
    let sessions = text(&mut browser, "#sessions .bars");
    let first = sessions.lines().next().unwrap_or_default();
    assert!(["low", "medium", "high"].contains(&first), "a session at its level of trust: {sessions}");
    // A line appears as soon as there are two looks to compare.
    browser.wait("document.querySelector('#verdicts polyline.deny').getAttribute('points').split(' ').length > 1");

    let id = browser.evaluate("document.querySelector('#refusals tbody tr').dataset.id");
    browser.click("#refusals tbody tr button");
    browser.wait("document.querySelector('#explanation').open && document.querySelector('#explanation .facts dd')");
    let shown = text(&mut browser, "#explanation");
    for part in ["subject_revoked", "GET shop.example/hello", HOSTILE, "What would help", id.as_str().expect("an id")] {
        assert!(shown.contains(part), "`{part}` is not in:\n{shown}");
    }
    assert_eq!(browser.evaluate("[document.images.length, document.title]"), json!([0, "Countersign"]), "text is text");
    assert_eq!(browser.evaluate("location.hash.slice(1)"), id, "the address leads back to it");
    browser.click("#explanation form button");
    browser.wait("!document.querySelector('#explanation').open && location.hash === ''");

    // What is linked to opens at once; what is forgotten says so, also in the same breath as another is closed.
    browser.evaluate(&format!("location.hash = '#' + {id}"));
    browser.wait("document.querySelector('#explanation').open && document.querySelector('#explanation .facts dd')");
    browser.evaluate("document.querySelector('#explanation').close(); location.hash = '#' + '0'.repeat(32)");
    browser.wait("document.querySelector('#why').innerText.startsWith('No longer remembered')");
    let complaints: Vec<_> = browser.complaints.iter().filter(|said| !said.contains("404")).collect();
    assert!(complaints.is_empty(), "{complaints:?}");
    let elsewhere =
        "performance.getEntriesByType('resource').filter((one) => !one.name.startsWith(location.origin)).length";
    assert_eq!(browser.evaluate(elsewhere), json!(0), "nothing is fetched from elsewhere");
}

#[test]
fn the_page_fits_a_narrow_window_and_says_when_nobody_answers() {
    let mut stack = Builder::new().start();
    assert_eq!(stack.get("/hello").send().status, 401);
    let mut browser = open(&stack, (360, 740));
    browser.wait("document.querySelectorAll('#refusals tbody tr').length === 1");
    let wide = browser.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth");
    assert_eq!(wide, json!(0), "nothing hangs out at the side");
    stack.countersign.process.signal("KILL");
    stack.countersign.process.wait();
    browser.wait("document.querySelector('#ready').textContent.startsWith('no answer')");
    let rows = browser.evaluate("document.querySelectorAll('#refusals tbody tr').length");
    assert_eq!(rows, json!(1), "what was known stays on the page");
}
