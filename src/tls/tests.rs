//! Which files replace those in use.

use std::{fs, path::Path, sync::Arc};

use rcgen::{CertificateParams, KeyPair, date_time_ymd};
use rustls::ServerConfig;

use super::{Files, Tls};

/// Writes a certificate of those years with its key.
fn write(folder: &Path, from: i32, until: i32) -> Files {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(["h.test".to_owned()]).unwrap();
    params.not_before = date_time_ymd(from, 1, 1);
    params.not_after = date_time_ymd(until, 1, 1);
    let files = Files { certificate: folder.join("tls.crt"), key: folder.join("tls.key"), client_ca: None };
    fs::write(&files.certificate, params.self_signed(&key).unwrap().pem()).unwrap();
    fs::write(&files.key, key.serialize_pem()).unwrap();
    files
}

fn open(files: &Files) -> Arc<Tls> {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    Tls::open("authz", files.clone()).unwrap()
}

/// Whether the files were taken up in that year.
fn taken_up(tls: &Tls, year: i32) -> bool {
    let before = tls.config();
    tls.reload_at(date_time_ymd(year, 2, 1).unix_timestamp());
    !Arc::<ServerConfig>::ptr_eq(&before, &tls.config())
}

fn said(tls: &Tls) -> String {
    tls.known.lock().refused.clone().unwrap_or_default()
}

#[test]
fn a_certificate_out_of_its_time_does_not_replace_one_in_its_time() {
    let folder = tempfile::tempdir().unwrap();
    let tls = open(&write(folder.path(), 2001, 2050));
    write(folder.path(), 2001, 2010);
    assert!(!taken_up(&tls, 2030));
    assert!(said(&tls).ends_with("it was valid until 2010-01-01T00:00:00Z"), "{}", said(&tls));
    write(folder.path(), 2040, 2060);
    assert!(!taken_up(&tls, 2030));
    assert!(said(&tls).ends_with("it is not valid before 2040-01-01T00:00:00Z"), "{}", said(&tls));
    assert!(!taken_up(&tls, 2039));
    assert_eq!((tls.failed.get(), tls.reloaded.get()), (2, 0), "told once each");
    assert!(taken_up(&tls, 2040), "nothing but the time has changed");
    assert_eq!((said(&tls).as_str(), tls.reloaded.get()), ("", 1));
}

#[test]
fn a_process_starts_with_an_expired_certificate_and_takes_up_any_other() {
    let folder = tempfile::tempdir().unwrap();
    let files = write(folder.path(), 2001, 2010);
    let tls = open(&files);
    assert!(files.check().unwrap().unwrap().contains("it was valid until 2010-01-01T00:00:00Z"));
    write(folder.path(), 2001, 2011);
    assert!(taken_up(&tls, 2030), "clients refuse either");
    write(folder.path(), 2001, 2050);
    assert!(taken_up(&tls, 2030));
    assert_eq!(files.check().unwrap(), None);
}

#[test]
fn a_pipe_in_place_of_a_file_is_not_waited_for() {
    let folder = tempfile::tempdir().unwrap();
    let files = write(folder.path(), 2001, 2050);
    let tls = open(&files);
    fs::remove_file(&files.key).unwrap();
    assert!(std::process::Command::new("mkfifo").arg(&files.key).status().unwrap().success());
    assert!(!taken_up(&tls, 2030));
    assert!(said(&tls).ends_with("tls.key` cannot be used: it is no regular file"), "{}", said(&tls));
    fs::remove_file(&files.key).unwrap();
    write(folder.path(), 2001, 2050);
    assert!(taken_up(&tls, 2030));
}

#[test]
fn what_is_wrong_with_a_pem_file_is_said_in_words() {
    let folder = tempfile::tempdir().unwrap();
    let files = write(folder.path(), 2001, 2050);
    open(&files);
    let whole = fs::read_to_string(&files.key).unwrap();
    for (text, said) in [
        (&whole[..80], "it breaks off: the line `-----END PRIVATE KEY-----` is missing"),
        (&whole.replace("KEY-----\n", "KEY\n"), "a line `-----BEGIN …` does not end in `-----`"),
        (&whole.replacen('M', "!", 1), "what stands between two lines `-----…-----` is not Base64"),
        ("", "it holds no private key"),
    ] {
        fs::write(&files.key, text).unwrap();
        let why = files.check().unwrap_err().why;
        assert!(why.ends_with(&format!("tls.key` cannot be used: {said}")), "{why}");
    }
    fs::write(&files.certificate, &fs::read(&files.certificate).unwrap()[..100]).unwrap();
    let why = files.check().unwrap_err().why;
    assert!(why.ends_with("it breaks off: the line `-----END CERTIFICATE-----` is missing"), "{why}");
}
