//! Keys of rules with nothing after them, refused. To serde such a key is not there; to whoever wrote it, or turned what
//! stood under it into comments, it may be a demand.

use crate::document::{Diagnostic, Node, Problem};

/// Every gap below `node`, which stands at `path`.
pub(super) fn of(node: &Node, path: &str) -> Vec<Diagnostic> {
    let mut found = Vec::new();
    collect(node, "", &mut found);
    let told = |gap: String| {
        let problem = Problem::error(gap, "nothing stands after it, so it would ask for nothing");
        node.diagnose(path, problem.hint("write what is meant, or leave it out"))
    };
    found.into_iter().map(told).collect()
}

fn collect(node: &Node, path: &str, found: &mut Vec<String>) {
    for entry in node.entries() {
        let inner = if path.is_empty() { entry.key.to_string() } else { format!("{path}.{}", entry.key) };
        if entry.node.is_null() {
            found.push(inner);
        } else {
            collect(&entry.node, &inner, found);
        }
    }
    for (i, item) in node.items().iter().enumerate() {
        collect(item, &format!("{path}[{i}]"), found);
    }
}
