//! Writes small MaxMind-format databases (format 2.0), so that the tests need no file of anybody else.

use ipnet::IpNet;
use serde_json::{Value, json};

const MARKER: &[u8] = b"\xab\xcd\xefMaxMind.com";
/// Between the search tree and the data.
const SEPARATOR: usize = 16;

/// A database of `kind` for IPv6 and IPv4 with a row for each network.
pub(crate) fn database(kind: &str, rows: &[(&str, Value)]) -> Vec<u8> {
    let mut tree = vec![[Record::Nothing; 2]];
    let mut data = Vec::new();
    for (network, row) in rows {
        let offset = data.len();
        encode(row, &mut data);
        insert(&mut tree, network.parse().unwrap(), offset);
    }
    let mut octets = Vec::new();
    for record in tree.iter().flatten() {
        let value = match record {
            Record::Nothing => tree.len(),
            Record::Node(node) => *node,
            Record::Data(offset) => tree.len() + SEPARATOR + offset,
        };
        octets.extend_from_slice(&(value as u32).to_be_bytes()[1..]);
    }
    octets.extend_from_slice(&[0; SEPARATOR]);
    octets.extend_from_slice(&data);
    octets.extend_from_slice(MARKER);
    let metadata = json!({
        "node_count": tree.len(), "record_size": 24, "ip_version": 6, "database_type": kind, "languages": ["en"],
        "binary_format_major_version": 2, "binary_format_minor_version": 0, "build_epoch": 1_790_000_000,
        "description": {"en": "test"},
    });
    encode(&metadata, &mut octets);
    octets
}

#[derive(Clone, Copy)]
enum Record {
    Nothing,
    Node(usize),
    Data(usize),
}

/// Rows go in from wide to narrow: a narrower network inside a wider one splits it.
fn insert(tree: &mut Vec<[Record; 2]>, network: IpNet, offset: usize) {
    let (bits, length) = match network {
        IpNet::V4(v4) => (u128::from(u32::from(v4.network())), v4.prefix_len() + 96),
        IpNet::V6(v6) => (u128::from(v6.network()), v6.prefix_len()),
    };
    let mut node = 0;
    for depth in 0..length {
        let side = (bits >> (127 - depth) & 1) as usize;
        if depth + 1 == length {
            tree[node][side] = Record::Data(offset);
            return;
        }
        node = match tree[node][side] {
            Record::Node(next) => next,
            above => {
                tree.push([above; 2]);
                tree[node][side] = Record::Node(tree.len() - 1);
                tree.len() - 1
            }
        };
    }
}

fn encode(value: &Value, out: &mut Vec<u8>) {
    match value {
        Value::String(text) => {
            control(2, text.len(), out);
            out.extend_from_slice(text.as_bytes());
        }
        Value::Bool(value) => control(14, usize::from(*value), out),
        Value::Number(number) => {
            control(3, 8, out);
            out.extend_from_slice(&number.as_f64().unwrap().to_be_bytes());
        }
        Value::Object(members) => {
            control(7, members.len(), out);
            for (name, member) in members {
                encode(&Value::String(name.clone()), out);
                match (name.as_str(), member.as_u64()) {
                    ("build_epoch", Some(number)) => unsigned(9, &number.to_be_bytes(), out),
                    ("autonomous_system_number" | "node_count", Some(number)) => {
                        unsigned(6, &(number as u32).to_be_bytes(), out);
                    }
                    (_, Some(number)) => unsigned(5, &(number as u16).to_be_bytes(), out),
                    (_, None) => encode(member, out),
                }
            }
        }
        Value::Array(items) => {
            control(11, items.len(), out);
            items.iter().for_each(|item| encode(item, out));
        }
        Value::Null => panic!("the format has no null"),
    }
}

/// Readers insist on the width that the format's documentation gives each member.
fn unsigned(kind: u8, octets: &[u8], out: &mut Vec<u8>) {
    control(kind, octets.len(), out);
    out.extend_from_slice(octets);
}

fn control(kind: u8, size: usize, out: &mut Vec<u8>) {
    let short = size.min(29) as u8;
    if kind > 7 {
        out.extend_from_slice(&[short, kind - 7]);
    } else {
        out.push(kind << 5 | short);
    }
    if size >= 29 {
        out.push(u8::try_from(size - 29).unwrap());
    }
}
