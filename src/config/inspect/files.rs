//! The files that a configuration names, read as `serve` reads them: an error where its start fails, else a warning.
//!
//! Makes nothing and writes nothing: what `serve` makes at its first start need not be there.

use std::{borrow::Cow, path::Path};

use rustix::fs::Access;

use crate::{
    admin,
    clock::Clock,
    config::{Config, Tls, reason},
    device::{self, Certificates, enroll::Authority},
    document::Problem,
    identity::key_file,
    store, telemetry,
    tls::{self, Files},
};

pub(super) fn unusable(config: &Config) -> Vec<Problem> {
    let mut found = tls(config);
    found.extend(store_files(config));
    found.extend(admin_files(config));
    found.extend(devices(config));
    found.extend(config.audit.unusable().into_iter().map(|(path, said)| Problem::error(path, said).under("audit")));
    found.extend(traces(config));
    found.extend(key_sets(config));
    found.extend(places(config));
    found
}

fn error(path: impl Into<String>) -> impl FnOnce(String) -> Problem {
    move |said| Problem::error(path, said)
}

pub(super) fn tls(config: &Config) -> Vec<Problem> {
    // A second installation in one process changes nothing.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let authz = config.listen.authz_tls.as_ref().map(|tls| ("listen.authz_tls", tls));
    let admin = config.listen.admin_tls.as_ref().map(|tls| ("listen.admin_tls", tls));
    authz.into_iter().chain(admin).flat_map(|(path, tls)| certificate(path, tls)).collect()
}

fn certificate(path: &str, tls: &Tls) -> Vec<Problem> {
    let mut named = vec![("certificate", &tls.certificate), ("key", &tls.key)];
    named.extend(tls.client_ca.as_ref().map(|file| ("client_ca", file)));
    let missing = named.iter().filter_map(|(name, file)| absent(file).map(error(format!("{path}.{name}"))));
    let missing: Vec<Problem> = missing.collect();
    if !missing.is_empty() {
        return missing;
    }
    let Tls { certificate, key, client_ca } = tls.clone();
    let tls::Problem { file, why } = match (Files { certificate, key, client_ca }).check() {
        Ok(None) => return Vec::new(),
        Ok(Some(odd)) => {
            let said = format!("{odd}: clients that look at its time refuse it");
            return vec![Problem::warning(format!("{path}.certificate"), said)];
        }
        Err(problem) => problem,
    };
    let of = |file: &Path| named.iter().find(|(_, known)| known.as_path() == file);
    let at = file.as_deref().and_then(of).map_or_else(|| path.to_owned(), |(name, _)| format!("{path}.{name}"));
    vec![Problem::error(at, why)]
}

fn store_files(config: &Config) -> Option<Problem> {
    let url = config.store.url.expose();
    let wrong = match config.store.folder() {
        Some(folder) => not_a_folder(&folder),
        None if url.starts_with("redis") && store::redis_url(url).is_ok() => {
            store::redis_files(url).err().map(Cow::into_owned)
        }
        None => None,
    };
    wrong.map(error("store.url"))
}

fn admin_files(config: &Config) -> Vec<Problem> {
    if config.admin.tokens.is_empty() {
        let none = || Some("there is no home folder to keep the token in".to_owned());
        let wrong = config.state_dir().map_or_else(none, |folder| unusable_token(config, &folder));
        return wrong.map(error("admin.state_dir")).into_iter().collect();
    }
    let mut found = Vec::new();
    for (i, file) in config.admin.tokens.iter().enumerate().filter_map(|(i, token)| Some((i, token.file.as_ref()?))) {
        let wrong = absent(file).or_else(|| admin::read_token(file).err().map(|error| error.to_string()));
        found.extend(wrong.map(error(format!("admin.tokens[{i}].file"))));
    }
    found
}

/// What to say of the folder of the token that is made.
fn unusable_token(config: &Config, folder: &Path) -> Option<String> {
    match not_a_folder(folder) {
        // Told of at `store.url`.
        Some(_) if config.store.folder().as_deref() == Some(folder) && config.admin.state_dir.is_none() => None,
        Some(said) => Some(said),
        None => match admin::find_token(folder) {
            Ok(Some(_)) => None,
            Ok(None) => not_ours(folder).map(|said| format!("no token can be made: {said}")),
            Err(error) => Some(error.to_string()),
        },
    }
}

fn devices(config: &Config) -> Vec<Problem> {
    let settings = &config.devices;
    let mut found = Vec::new();
    for (i, file) in settings.authorities.iter().enumerate() {
        let read = || Certificates::new(std::slice::from_ref(file), None, None);
        let wrong = absent(file).or_else(|| read().err().map(|error| error.to_string()));
        found.extend(wrong.map(error(format!("devices.authorities[{i}]"))));
    }
    let enrollment = &settings.enrollment;
    let made = |file: &Path| enrollment.generate_authority && !file.exists();
    if let Some(file) = enrollment.authority.as_deref().filter(|file| enrollment.enabled && !made(file)) {
        found.extend(authority(settings, file));
    }
    found
}

fn authority(settings: &device::Settings, file: &Path) -> Option<Problem> {
    const PATH: &str = "devices.enrollment.authority";
    let (enrollment, now) = (&settings.enrollment, Clock::system().now());
    let opened = match absent(file) {
        Some(said) => return Some(Problem::error(PATH, said)),
        None => Authority::open(enrollment, &settings.trust_domain, now),
    };
    match opened {
        Err(error) => Some(Problem::error(PATH, error.to_string())),
        Ok(authority) if authority.ends() < now.plus(enrollment.certificate_life.get()) => Some(Problem::warning(
            PATH,
            "its certificate ends before one that is signed now would: replace it, devices get none after that",
        )),
        Ok(_) => None,
    }
}

fn traces(config: &Config) -> Option<Problem> {
    let traces = &config.telemetry.traces;
    let file = traces.ca.as_deref().filter(|_| traces.endpoint.is_some())?;
    let wrong = absent(file).or_else(|| telemetry::trace::read_ca(file).err().map(|error| reason(&error)));
    wrong.map(error("telemetry.traces.ca"))
}

/// Key sets are read again and again: the start does not wait for them.
fn key_sets(config: &Config) -> Vec<Problem> {
    let mut found = Vec::new();
    let mut look = |path: String, jwks: &Option<String>, until: &str| {
        let file = jwks.as_deref().and_then(|jwks| key_file(jwks).ok().flatten());
        let said = file.as_deref().and_then(absent).map(|said| format!("{said}: {until} until it is"));
        found.extend(said.map(|said| Problem::warning(path, said)));
    };
    for (i, issuer) in config.identity.issuers.iter().enumerate() {
        look(format!("identity.issuers[{i}].jwks"), &issuer.jwks, "not ready");
    }
    for (i, transmitter) in config.signals.transmitters.iter().enumerate() {
        look(format!("signals.transmitters[{i}].jwks"), &transmitter.jwks, "its events are not taken");
    }
    for (i, provider) in config.signals.logout.iter().enumerate() {
        look(format!("signals.logout[{i}].jwks"), &provider.jwks, "its logouts are not taken");
    }
    let ca = config.identity.key_sets.ca_file.as_deref().and_then(absent);
    found.extend(
        ca.map(|said| {
            Problem::warning("identity.key_sets.ca_file", format!("{said}: no keys are fetched until it is"))
        }),
    );
    found
}

fn places(config: &Config) -> Vec<Problem> {
    let location = &config.location;
    let databases = [
        ("city", &location.databases.city),
        ("asn", &location.databases.asn),
        ("anonymous", &location.databases.anonymous),
    ];
    let mut found = Vec::new();
    let mut place = |path: String, file: &Path| {
        let said = absent(file).map(|said| format!("{said}: places are unknown until it is"));
        found.extend(said.map(|said| Problem::warning(path, said)));
    };
    for (name, file) in databases {
        file.iter().for_each(|file| place(format!("location.databases.{name}"), file));
    }
    let lists = &location.lists;
    for (name, files) in [("vpn", &lists.vpn), ("hosting", &lists.hosting), ("tor", &lists.tor)] {
        for (i, file) in files.iter().enumerate() {
            place(format!("location.lists.{name}[{i}]"), file);
        }
    }
    found
}

/// What to say of a file that is not there.
fn absent(file: &Path) -> Option<String> {
    file.metadata().err().map(|error| format!("`{}` cannot be read: {}", file.display(), reason(&error)))
}

/// What to say of a folder that is none, and cannot be made one.
fn not_a_folder(folder: &Path) -> Option<String> {
    let there = folder.ancestors().find(|path| path.exists())?;
    (!there.is_dir()).then(|| format!("`{}` is not a folder", there.display()))
}

/// What to say of a folder in which, or above which, we can make nothing.
fn not_ours(folder: &Path) -> Option<String> {
    let there = folder.ancestors().find(|path| path.exists())?;
    let error: std::io::Error = rustix::fs::access(there, Access::WRITE_OK | Access::EXEC_OK).err()?.into();
    let user = rustix::process::geteuid().as_raw();
    Some(format!("`{}` cannot be written by user {user}: {}", there.display(), reason(&error)))
}
