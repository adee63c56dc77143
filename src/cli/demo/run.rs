//! The demo from start to stop: check what is needed, start the parts, wait for them, print, stay, stop.

use std::{
    env, fs, io,
    path::{Path, PathBuf},
    time::Duration,
};

use serde_json::json;
use tokio::process::Command;

use super::{
    Demo, DemoError, admin, announce,
    children::Children,
    echo,
    issuer::{AUDIENCE, Issuer},
    lines::{self, Line, Tokens},
    ports::local,
};
use crate::clock::Clock;

const ENVOY_TEMPLATE: &str = include_str!("envoy.yaml");
const COUNTERSIGN_TEMPLATE: &str = include_str!("countersign.yaml");
const RULES: &str = include_str!("rules.yaml");

/// How long everything may take to get ready.
const PATIENCE: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(50);

/// Runs the demo until a part of it ends; dropping it ends it too.
pub(super) async fn run(demo: &Demo, children: &mut Children) -> Result<(), DemoError> {
    let tools = Tools::find(&demo.tools)?;
    demo.ports.check_free().await?;
    let folder = std::path::absolute(&demo.dir)?;
    fs::create_dir_all(&folder)?;

    let issuer_url = format!("http://{}", local(demo.ports.issuer_port));
    let issuer = Issuer::open(&folder.join("issuer"), issuer_url.clone(), Clock::system())?;
    serve_here(demo, &issuer).await?;
    write_files(demo, &folder, &issuer_url)?;

    let countersign = env::current_exe()?;
    announce("starting Countersign");
    children.start(
        &folder,
        "countersign",
        Command::new(&countersign).args(["serve", "--config"]).arg(folder.join("countersign.yaml")),
    )?;
    announce("starting Envoy");
    children.start(
        &folder,
        "envoy",
        Command::new(&tools.envoy).arg("-c").arg(folder.join("envoy.yaml")).args([
            "--disable-hot-restart",
            "--concurrency",
            "2",
            "-l",
            "warning",
        ]),
    )?;
    ready(demo, children).await?;

    let tokens = Tokens::mint(&issuer)?;
    admin::prepare(demo.ports.admin_port, &folder.join("state"), &tokens).await?;
    let question = lines::check_request(&tokens.clerk);
    fs::write(folder.join("check.json"), format!("{question:#}\n"))?;
    fs::write(folder.join("explain.json"), format!("{:#}\n", json!({ "request": question })))?;
    let mut all = lines::curl(&demo.ports.base(), &tokens);
    all.extend(admin::lines([&countersign, &tools.grpcurl], &folder, &demo.ports, &tokens));
    print(&all, &folder);
    if demo.check {
        return check(&all).await;
    }
    announce("ready. Ctrl-C stops everything that was started here");
    Err(children.first_end().await)
}

/// The programs that the demo needs and does not build.
#[derive(Debug)]
struct Tools {
    envoy: PathBuf,
    grpcurl: PathBuf,
}

impl Tools {
    fn find(folder: &Path) -> Result<Self, DemoError> {
        let find = |name: &'static str, file: &str| {
            let path = std::path::absolute(folder.join(file))?;
            if path.exists() { Ok(path) } else { Err(DemoError::Tool { name, path }) }
        };
        Ok(Self { envoy: find("envoy-1.40.0", "envoy-1.40.0/bin/envoy")?, grpcurl: find("grpcurl", "bin/grpcurl")? })
    }
}

/// Starts the issuer and the upstream in this process.
async fn serve_here(demo: &Demo, issuer: &std::sync::Arc<Issuer>) -> Result<(), DemoError> {
    let listener = super::listen(local(demo.ports.issuer_port)).await?;
    let routes = issuer.clone().routes();
    tokio::spawn(async move { axum::serve(listener, routes).await });
    let listener = super::listen(local(demo.ports.upstream_port)).await?;
    tokio::spawn(echo::serve(listener, "upstream".to_owned()));
    Ok(())
}

/// Writes what Countersign and Envoy are started with.
fn write_files(demo: &Demo, folder: &Path, issuer: &str) -> Result<(), DemoError> {
    let filled = |template: &str| {
        let text = template.replace("@ISSUER@", issuer).replace("@AUDIENCE@", AUDIENCE);
        demo.ports
            .all()
            .iter()
            .fold(text, |text, (port, name, _)| text.replace(&format!("@{name}@"), &port.to_string()))
    };
    fs::write(folder.join("envoy.yaml"), filled(ENVOY_TEMPLATE))?;
    fs::write(folder.join("countersign.yaml"), filled(COUNTERSIGN_TEMPLATE))?;
    if !write_rules(folder)? {
        let rules = folder.join("rules.yaml");
        announce(&format!("{} was changed and stays as it is; without it, it is made anew", shown(&rules)));
    }
    Ok(())
}

/// Writes our rules, and beside them what they were: by that the next start knows whether somebody changed them. Such rules
/// stay as they are: then `false`.
fn write_rules(folder: &Path) -> io::Result<bool> {
    let (rules, made) = (folder.join("rules.yaml"), folder.join("rules.yaml.orig"));
    let read = |path: &Path| match fs::read(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        read => read.map(Some),
    };
    if let Some(there) = read(&rules)?
        && there != RULES.as_bytes()
        && read(&made)?.is_none_or(|made| made != there)
    {
        return Ok(false);
    }
    fs::write(&rules, RULES)?;
    fs::write(&made, RULES)?;
    Ok(true)
}

/// Waits until Countersign says that it is ready and Envoy lets a public request through.
async fn ready(demo: &Demo, children: &mut Children) -> Result<(), DemoError> {
    announce("waiting until both are ready");
    let client = reqwest::Client::builder().no_proxy().timeout(PATIENCE).build()?;
    let wait = async {
        for (port, path) in [(demo.ports.http_port, "/readyz"), (demo.ports.envoy_port, "/public/ready")] {
            let url = format!("http://{}{path}", local(port));
            while !client.get(&url).send().await.is_ok_and(|answer| answer.status().is_success()) {
                tokio::time::sleep(POLL).await;
            }
        }
    };
    tokio::select! {
        waited = tokio::time::timeout(PATIENCE, wait) => waited.map_err(|_| DemoError::NotReady(PATIENCE)),
        ended = children.first_end() => Err(ended),
    }
}

fn print(all: &[Line], folder: &Path) {
    println!("\nConfiguration, rules and logs are in {}. Paste:\n", shown(folder));
    for line in all {
        println!("# {}: {}\n{}\n", line.title, line.expected, line.command);
    }
}

/// Runs every printed line and says what differs.
async fn check(all: &[Line]) -> Result<(), DemoError> {
    let mut wrong = 0;
    for line in all {
        match lines::run(line).await {
            Ok(()) => println!("as printed: {}", line.title),
            Err(difference) => {
                wrong += 1;
                println!("NOT as printed: {}: {difference}", line.title);
            }
        }
    }
    if wrong > 0 { Err(DemoError::NotAsPrinted { wrong, all: all.len() }) } else { Ok(()) }
}

/// A path as somebody would type it: from the working directory where it is below that.
pub(super) fn shown(path: &Path) -> String {
    let here = env::current_dir().unwrap_or_default();
    path.strip_prefix(&here).unwrap_or(path).display().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_that_somebody_changed_stay_and_those_of_an_earlier_version_do_not() {
        let folder = tempfile::tempdir().unwrap();
        let rules = folder.path().join("rules.yaml");
        let now = || fs::read_to_string(&rules).unwrap();
        assert!(write_rules(folder.path()).unwrap() && now() == RULES);
        fs::write(&rules, "resources: []\n").unwrap();
        assert!(!write_rules(folder.path()).unwrap() && now() == "resources: []\n");
        fs::write(folder.path().join("rules.yaml.orig"), "resources: []\n").unwrap();
        assert!(write_rules(folder.path()).unwrap() && now() == RULES);
        fs::remove_file(&rules).unwrap();
        assert!(write_rules(folder.path()).unwrap() && now() == RULES);
    }
}
