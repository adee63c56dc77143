//! The demo as somebody who tries it meets it: its printed lines answer as printed, and it leaves nothing behind.

use std::{
    fs,
    net::TcpListener,
    path::Path,
    process::{Command, Stdio},
};

use crate::support::{
    self,
    countersign::binary,
    ports,
    process::{Process, eventually},
};

const OPTIONS: [&str; 7] = [
    "--envoy-port",
    "--authz-port",
    "--admin-port",
    "--http-port",
    "--issuer-port",
    "--upstream-port",
    "--envoy-admin-port",
];

/// `countersign demo` on free ports with its files in `folder`, and the port of each option.
fn demo(folder: &Path) -> (Command, Vec<u16>) {
    let ports: Vec<u16> = OPTIONS.iter().map(|_| ports::free()).collect();
    let mut command = binary();
    command.arg("demo").arg("--dir").arg(folder.join("demo")).arg("--tools").arg(tools()).env("HOME", folder);
    for (option, port) in OPTIONS.iter().zip(&ports) {
        command.args([option, port.to_string().as_str()]);
    }
    (command, ports)
}

fn tools() -> std::path::PathBuf {
    let envoy = support::tool("envoy-1.40.0/bin/envoy");
    envoy.ancestors().nth(3).expect("below .tools").to_owned()
}

/// Programs that run with something of `folder` on their command line.
fn left_behind(folder: &Path) -> Vec<String> {
    let folder = folder.display().to_string();
    fs::read_dir("/proc")
        .expect("/proc")
        .flatten()
        .filter_map(|entry| fs::read(entry.path().join("cmdline")).ok())
        .map(|line| String::from_utf8_lossy(&line).replace('\0', " "))
        .filter(|line| line.contains(&folder))
        .collect()
}

#[test]
fn the_printed_lines_answer_as_printed_and_nothing_is_left_behind() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let (mut command, _) = demo(folder.path());
    let output = command.arg("--check").stdin(Stdio::null()).output().expect("the demo runs");
    let text = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    assert_eq!(output.status.code(), Some(0), "{text}");
    assert!(!text.contains("NOT as printed"), "{text}");
    for title in ["allow", "no token", "expired token", "revoked token", "unknown device", "step-up by policy"] {
        assert!(text.contains(&format!("as printed: {title}")), "`{title}` was not tried: {text}");
    }
    support::record_real("envoy-1.40.0");
    assert_eq!(left_behind(folder.path()), Vec::<String>::new());
}

#[test]
fn sigterm_and_ctrl_c_stop_everything_it_started() {
    for signal in ["TERM", "INT"] {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let (mut command, _) = demo(folder.path());
        let mut process = Process::start(folder.path(), "demo", &mut command);
        process.wait_for_output("Ctrl-C stops everything");
        assert!(left_behind(folder.path()).len() >= 3, "the demo, Countersign and Envoy run");
        process.signal(signal);
        let status = process.wait();
        assert_eq!(status.code(), Some(0), "{signal}: {}", process.output());
        assert_eq!(left_behind(folder.path()), Vec::<String>::new(), "{signal}");
    }
}

#[test]
fn when_a_part_of_it_dies_it_says_so_and_stops_the_others() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let (mut command, _) = demo(folder.path());
    let mut process = Process::start(folder.path(), "demo", &mut command);
    process.wait_for_output("Ctrl-C stops everything");
    let envoy = eventually("Envoy is found", || child_of(process.id(), "envoy"));
    let killed = Command::new("kill").args(["-KILL", &envoy.to_string()]).status();
    assert!(killed.is_ok_and(|status| status.success()));
    assert_eq!(process.wait().code(), Some(1));
    assert!(process.stderr().contains("envoy ended"), "{}", process.output());
    assert_eq!(left_behind(folder.path()), Vec::<String>::new());
}

#[test]
fn a_taken_port_is_one_line_that_says_what_to_do() {
    for number in 0..OPTIONS.len() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let (mut command, ports) = demo(folder.path());
        let _taken = TcpListener::bind(ports::local(ports[number])).expect("the port is free");
        let output = command.output().expect("the demo runs");
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1), "{text}");
        assert_eq!(text.lines().count(), 1, "{text}");
        assert!(text.contains(&ports[number].to_string()) && text.contains(OPTIONS[number]), "{text}");
    }
}

#[test]
fn a_missing_tool_is_one_line_that_says_what_to_do() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let mut command = binary();
    command.arg("demo").arg("--dir").arg(folder.path().join("demo")).arg("--tools").arg(folder.path());
    let output = command.output().expect("the demo runs");
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert_eq!(text.lines().count(), 1, "{text}");
    assert!(text.contains("tests/tools.sh envoy-1.40.0"), "{text}");
}

#[test]
fn a_system_that_the_tools_are_not_made_for_is_named_in_one_line() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let uname = folder.path().join("uname");
    fs::write(&uname, "#!/bin/sh\n[ \"$1\" = -s ] && echo Darwin || echo arm64\n").expect("writable");
    let executable = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    fs::set_permissions(&uname, executable).expect("ours");
    let path = format!("{}:{}", folder.path().display(), std::env::var("PATH").expect("a path"));
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/tools.sh");
    let output = Command::new(script).arg("grpcurl").env("PATH", path).output().expect("the script runs");
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(text.lines().count() == 1 && text.contains("Linux") && text.contains("Darwin on arm64"), "{text}");
}

/// The process that `parent` started under this name.
fn child_of(parent: u32, name: &str) -> Option<u32> {
    fs::read_dir("/proc").expect("/proc").flatten().find_map(|entry| {
        let id: u32 = entry.file_name().to_str()?.parse().ok()?;
        let stat = fs::read_to_string(entry.path().join("stat")).ok()?;
        let (head, tail) = stat.rsplit_once(") ")?;
        let is_child = tail.split(' ').nth(1)?.parse() == Ok(parent) && head.ends_with(&format!("({name}"));
        is_child.then_some(id)
    })
}
