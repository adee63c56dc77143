//! Roles that the configuration gives to workloads and the rules do not know: probably misspelt, they grant nothing.

use std::collections::HashSet;

use crate::{
    config::Config,
    document::{Problem, closest, key_step},
    policy::Rules,
};

pub(super) fn unknown(config: &Config, rules: &Rules) -> Vec<Problem> {
    let known: HashSet<&str> = rules.role_names().collect();
    // Attribute policies may ask for roles that are defined nowhere; where nothing asks for a permission, roles are for the
    // upstream alone.
    let asked = !known.is_empty() || rules.resources().iter().any(|resource| resource.permission.is_some());
    if !asked || rules.attribute_policies().is_some() {
        return Vec::new();
    }
    let mut found = Vec::new();
    for (pattern, roles) in &config.identity.workloads.roles {
        for (i, role) in roles.iter().enumerate().filter(|(_, role)| !known.contains(role.as_str())) {
            let message = format!("grants nothing here: the rules have no role `{role}`");
            let mut problem = Problem::warning(format!("[{i}]"), message);
            if let Some(near) = closest(role, known.iter().copied()) {
                problem = problem.hint(format!("did you mean `{near}`?"));
            }
            found.push(problem.under(&key_step(pattern)).under("identity.workloads.roles"));
        }
    }
    found
}
