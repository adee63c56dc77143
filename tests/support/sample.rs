//! A sample of `envoy/` as it is, but for its ports and for the patience of a busy machine.

use std::{fs, net::SocketAddr, path::Path, process::Command};

use super::{
    http::Request,
    ports,
    process::{Process, eventually},
};

/// Runs `envoy/{name}.yaml` before an upstream, with `more` changes to its text, and waits until it asks Countersign.
pub fn start(
    folder: &Path,
    (name, version): (&str, &str),
    authz: SocketAddr,
    upstream: SocketAddr,
    more: &[(&str, &str)],
) -> (Process, SocketAddr) {
    let [http, admin] = [ports::free(), ports::free()];
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("envoy").join(format!("{name}.yaml"));
    let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let changes = [
        ("0.0.0.0, port_value: 10000", format!("127.0.0.1, port_value: {http}")),
        ("port_value: 9901", format!("port_value: {admin}")),
        ("port_value: 9191", format!("port_value: {}", authz.port())),
        ("port_value: 8080", format!("port_value: {}", upstream.port())),
        ("timeout: 0.2s", "timeout: 5s".to_owned()),
        ("max_interval: 0.2s", "max_interval: 5s".to_owned()),
        ("- timeout: 0.5s", "- timeout: 5s".to_owned()),
    ];
    let more = more.iter().map(|(from, to)| (*from, (*to).to_owned()));
    let text = changes.into_iter().chain(more).fold(text, |text, (from, to)| {
        assert!(text.contains(from), "{name} no longer says `{from}`");
        text.replace(from, &to)
    });
    let file = folder.join(format!("{name}-{version}.yaml"));
    fs::write(&file, text).expect("the folder is writable");
    let binary = super::tool(&format!("envoy-{version}/bin/envoy"));
    let mut command = Command::new(binary);
    command.arg("-c").arg(&file).args(["--disable-hot-restart", "--concurrency", "1", "-l", "warning"]);
    let process = Process::start(folder, &format!("{name}-{version}"), &mut command);
    eventually("Envoy reaches Countersign", || {
        let answer = Request::new(ports::local(http), "GET", "/nowhere").try_send().ok()?;
        answer.header("x-zt-decision").map(|_| ())
    });
    super::record_real(&format!("envoy-{version}"));
    (process, ports::local(http))
}
