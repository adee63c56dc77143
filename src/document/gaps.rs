//! Keys of rules and cases with nothing after them, refused. To serde such a key is not there; to whoever wrote it, or turned
//! what stood under it into comments, it may be a demand.

use super::{Diagnostic, Node, Problem};

impl Node {
    /// Every gap at or below this node, which stands at `path`.
    pub fn gaps(&self, path: &str) -> Vec<Diagnostic> {
        let mut found = Vec::new();
        collect(self, "", &mut found);
        let told = |gap: String| {
            let problem = Problem::error(gap, "nothing stands after it");
            self.diagnose(path, problem.hint("write what is meant, or leave it out"))
        };
        found.into_iter().map(told).collect()
    }
}

fn collect(node: &Node, path: &str, found: &mut Vec<String>) {
    if node.is_null() {
        found.push(path.to_owned());
    }
    for entry in node.entries() {
        let inner = if path.is_empty() { entry.key.to_string() } else { format!("{path}.{}", entry.key) };
        collect(&entry.node, &inner, found);
    }
    for (i, item) in node.items().iter().enumerate() {
        collect(item, &format!("{path}[{i}]"), found);
    }
}
