//! Services with every default as it is: each instance on a node of its own, one that moves, pools of addresses, both stacks. A
//! service cannot answer a challenge, so none of these may come to one.

use crate::support::{
    stack::{Builder, Stack},
    tokens::{self, Token},
};

const RULES: &str = "resources: [{ id: work, match: { paths: [\"/work\"] }, access: authenticated }]\n";

fn start(model: &str) -> Stack {
    Builder::with_rules(RULES)
        .set("/risk/model", model)
        .set("/client", serde_json::json!({ "trusted_hops": 2 }))
        .start()
}

/// What an API client of a service sends from `address`, and the refusal, if it is one.
fn refusal(stack: &Stack, token: &str, address: &str) -> Option<String> {
    let request = stack.get("/work").bearer(token).header("X-Forwarded-For", address);
    let answer = request.header("User-Agent", "Go-http-client/1.1").send();
    (answer.status != 200).then(|| format!("{address}: {} {}", answer.status, answer.reason()))
}

/// One token from each of the addresses in turn; none is refused.
fn in_turn(stack: &Stack, token: &str, addresses: &[&str], turns: usize) {
    let asked = addresses.iter().cycle().take(turns);
    let refused: Vec<String> = asked.filter_map(|address| refusal(stack, token, address)).collect();
    assert!(refused.is_empty(), "{refused:#?}");
}

#[test]
fn a_service_is_let_through_wherever_its_instances_are() {
    for model in ["statistical", "fixed"] {
        let stack = start(model);
        // Inside, and where a cloud gives each node a public address.
        for (name, at) in [("pods", "10.244"), ("nodes", "198.51")] {
            let subject = tokens::unique(name);
            // New tokens half-way.
            for _ in 0..2 {
                let pods: Vec<(String, String)> =
                    (1..=12).map(|node| (Token::service(&subject).mint(), format!("{at}.{node}.7"))).collect();
                let asked = (0..4).flat_map(|_| &pods);
                let refused: Vec<String> = asked.filter_map(|(token, from)| refusal(&stack, token, from)).collect();
                assert!(refused.is_empty(), "{model}: {refused:#?}");
            }
        }
    }
}

#[test]
fn a_token_of_a_service_moves_with_it() {
    let stack = start("statistical");
    for (from, to) in [("10.8.1.5", "10.8.2.5"), ("203.0.113.4", "198.51.100.7"), ("10.8.1.5", "203.0.113.4")] {
        let token = Token::service(&tokens::unique("moving")).mint();
        in_turn(&stack, &token, &[from], 3);
        in_turn(&stack, &token, &[to], 12);
    }
}

#[test]
fn a_service_behind_a_pool_of_addresses_or_on_both_stacks_is_let_through() {
    let stack = start("statistical");
    for ways in [["198.51.100.7", "203.0.113.4"], ["198.51.100.7", "2001:db8:7::4"], ["10.8.1.5", "fd00:8::5"]] {
        let subject = tokens::unique("pool");
        for _ in 0..3 {
            in_turn(&stack, &Token::service(&subject).mint(), &ways, 24);
        }
    }
}
