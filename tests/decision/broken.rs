use countersign::policy::{Options, SourceFile, load};

use crate::rules_files::folder;

/// The first line of each file says what is expected: `# expect 4: what the message says` (line 1: any line).
fn expectation(file: &SourceFile) -> (u32, &str) {
    let first = file.text.lines().next().unwrap().strip_prefix("# expect ").unwrap();
    let (line, says) = first.split_once(':').unwrap();
    (line.parse().unwrap(), says.trim())
}

#[test]
fn every_broken_file_is_refused_with_its_line() {
    let files = folder("broken");
    assert!(files.len() >= 60, "{}", files.len());
    let mut wrong = Vec::new();
    for file in &files {
        let (line, says) = expectation(file);
        match load(std::slice::from_ref(file), Options::default()) {
            Ok(_) => wrong.push(format!("{}: loaded", file.name)),
            Err(found) => {
                let fits = |one: &&countersign::document::Diagnostic| {
                    (line == 1 || one.line() == line) && one.message.contains(says) && one.is_error()
                };
                if found.iter().find(fits).is_none() || found.len() > 2 {
                    let told: Vec<_> = found.iter().map(ToString::to_string).collect();
                    wrong.push(format!("{}: expected line {line}, `{says}`, got {told:#?}", file.name));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{} of {}:\n{}", wrong.len(), files.len(), wrong.join("\n"));
}

#[test]
fn a_resource_is_not_blamed_for_a_policy_that_could_not_be_read() {
    let text = "resources: [{ id: a, match: { paths: [/a] }, policy: p }, { id: b, match: { paths: [/b] }, policy: q }]\n\
                policies: [{ id: p, actions: [{ type: alow }] }]\n";
    let found = load(&[SourceFile::new("rules.yaml", text)], Options::default()).unwrap_err();
    let told: Vec<_> = found.iter().map(|one| (one.line(), one.path.as_str())).collect();
    assert_eq!(told, [(1, "resources[1].policy"), (2, "policies[0].actions[0].type")], "{found:#?}");
}

#[test]
fn no_cut_and_no_swap_of_good_rules_panics() {
    let whole = folder("three").into_iter().map(|file| file.text.to_string()).collect::<Vec<_>>();
    for text in whole {
        let lines: Vec<&str> = text.lines().collect();
        for cut in 0..lines.len() {
            let without: Vec<&str> =
                lines.iter().enumerate().filter(|(i, _)| *i != cut).map(|(_, line)| *line).collect();
            let _ = load(&[SourceFile::new("cut.yaml", without.join("\n"))], Options::default());
            let _ = load(&[SourceFile::new("cut.yaml", lines[..cut].join("\n"))], Options::default());
            let _ = load(&[SourceFile::new("cut.yaml", lines[cut].to_owned())], Options::default());
        }
    }
}
