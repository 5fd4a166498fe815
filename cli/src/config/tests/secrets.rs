//! Secrets: where they may stand, and that they are never shown. Certificates and their keys.

use std::path::Path;

use super::{Case, LEAST, set_mode};
use crate::config::TlsVersion;

const NEEDLE: &str = "s3cret-needle";

fn reader_password(case: &Case) -> Option<String> {
    case.settings().roles.mappings[0].password.as_ref().map(|password| password.expose().clone())
}

fn with_password(value: &str) -> Case {
    Case::file(&LEAST.replace("${READER_PASSWORD}", value))
}

#[test]
fn a_secret_may_stand_in_the_file_in_a_variable_or_in_its_own_file() {
    assert_eq!(reader_password(&with_password(NEEDLE)).as_deref(), Some(NEEDLE));
    assert_eq!(reader_password(&with_password("a${READER_PASSWORD}b$${c}")).as_deref(), Some("as3cret-readerb${c}"));
    for (content, expected) in [("pw\n", "pw"), ("pw", "pw"), ("pw\r\n", "pw"), ("pw\n\n", "pw\n"), (" pw ", " pw ")] {
        let case = with_password("file:${DIR}/reader");
        case.write("reader", content);
        let dir = case.dir.path().display().to_string();
        let case = case.env(&[("DIR", &dir)]);
        assert_eq!(reader_password(&case).as_deref(), Some(expected), "{content:?}");
        assert_eq!(case.load().warnings.iter().filter(|warning| warning.contains("secret")).count(), 0);
    }
    let literal = Case::least_and("").env(&[("READER_PASSWORD", "file:/etc/passwd")]);
    assert_eq!(reader_password(&literal).as_deref(), Some("file:/etc/passwd"), "a variable's value is not read again");
}

#[test]
fn what_is_wrong_with_a_secret_is_told_without_it() {
    for (value, found) in [
        ("${NOT_THERE}", "found ${NOT_THERE}, which is not set or empty"),
        ("${NOT_THERE", "found \"${\" without its \"}\""),
        ("file:/nonexistent/secret", "found file:/nonexistent/secret (No such file or directory)"),
        ("(set)", "found the placeholder that `gprxy check` prints"),
        ("s3cret-needle\\u0000", "found text with a NUL character"),
    ] {
        let problem = with_password(value).problem();
        assert!(problem.starts_with(&format!("role[1].password (gprxy.toml:9): {found}")), "{value}: {problem}");
        assert!(!problem.contains(NEEDLE));
    }
    let case = with_password("file:${DIR}/empty");
    case.write("empty", "\n");
    let dir = case.dir.path().display().to_string();
    assert!(case.env(&[("DIR", &dir)]).problem().contains("which is empty"));
    let no_colon = Case::least_and("").env(&[("READER_PASSWORD", "x"), ("ROLE_MAPPING_x", NEEDLE)]).problem();
    assert!(no_colon.starts_with("ROLE_MAPPING_x (environment ROLE_MAPPING_x): found a value without ':'"));
    assert!(!no_colon.contains(NEEDLE));
}

#[cfg(unix)]
#[test]
fn secrets_that_everybody_may_read_give_a_warning() {
    let case = with_password("file:${DIR}/reader");
    let path = case.write("reader", "pw");
    let dir = case.dir.path().display().to_string();
    let case = case.env(&[("DIR", &dir)]).dotenv("GPRXY_USER=u\nGPRXY_PASS=x\n");
    let secrets = |case: &Case| case.load().warnings.iter().filter(|w| w.contains("readable by every")).count();
    assert_eq!(secrets(&case), 0);
    set_mode(&path, 0o644);
    assert_eq!(secrets(&case), 1);
    set_mode(&case.dir.path().join(".env"), 0o644);
    assert_eq!(secrets(&case), 2);
    let inline = with_password(NEEDLE);
    assert_eq!(secrets(&inline), 0);
    set_mode(&inline.dir.path().join("gprxy.toml"), 0o644);
    assert_eq!(secrets(&inline), 1);
    let variable = Case::least_and("");
    set_mode(&variable.dir.path().join("gprxy.toml"), 0o644);
    assert_eq!(secrets(&variable), 0, "the file itself holds no secret");
}

#[test]
fn no_secret_is_ever_shown() {
    let case = with_password(NEEDLE).env(&[
        ("ROLE_MAPPING_w", "app_writer:s3cret-needle-2"),
        ("GPRXY_USER", "pool"),
        ("GPRXY_PASS", "s3cret-needle-3"),
        ("PROXY_PORT", "wrong"),
    ]);
    let case = case.dotenv("ROLE_MAPPING_q=q:s3cret-needle-4\nbroken s3cret-needle-5\n");
    let loaded = case.load();
    let problems = loaded.settings.err().unwrap();
    let everything = format!("{}{problems:?}{:?}", loaded.effective, loaded.warnings);
    assert!(!everything.contains(NEEDLE), "{everything}");
    assert_eq!(everything.matches("password = \"(set)\"").count(), 2);
}

#[test]
fn the_effective_settings_are_toml_that_loads_to_the_same() {
    let case = Case::least_and(
        "[server]\ndefault_role = 'reader'\n[databases.\"a.b\"]\nhost = ['h1', '::1']\nport = [1, 2]\npool_size = 2\n",
    );
    let shown = case.effective();
    let again = Case::file(&shown.replace("\"(set)\"", "\"${READER_PASSWORD}\"").replace("(set)", ""));
    let values = |text: &str| -> Vec<String> {
        text.lines()
            .map(|line| line.split("  #").next().unwrap_or(line).to_owned())
            .filter(|l| !l.starts_with('#'))
            .collect()
    };
    assert_eq!(values(&shown), values(&again.effective()));
    assert!(shown.contains("[databases.\"a.b\"]"));
    assert!(shown.parse::<toml::Table>().is_ok());
}

fn pair(case: &Case, name: &str) -> (String, String) {
    let made = rcgen::generate_simple_self_signed(vec!["localhost".into()]).unwrap();
    let cert = case.write(&format!("{name}.pem"), &made.cert.pem());
    let key = case.write(&format!("{name}.key"), &made.signing_key.serialize_pem());
    (cert.display().to_string(), key.display().to_string())
}

fn tls(case: Case, cert: &str, key: &str) -> Case {
    case.env(&[("READER_PASSWORD", "x"), ("PROXY_CERT", cert), ("PROXY_KEY", key)])
}

#[test]
fn a_certificate_and_its_key_are_accepted() {
    let case = Case::least_and("[tls]\nmin_version = '1.3'");
    let (cert, key) = pair(&case, "a");
    let settings = tls(case, &cert, &key).settings().tls.unwrap();
    assert_eq!((settings.cert.as_path(), settings.key.as_path()), (Path::new(&cert), Path::new(&key)));
    assert_eq!(settings.min_version, TlsVersion::V1_3);
}

#[test]
fn a_certificate_needs_its_own_key() {
    let case = Case::least_and("");
    let (cert, key) = pair(&case, "a");
    let alone = tls(case, &cert, "");
    assert_eq!(alone.problem(), "tls.key: found nothing; expected the private key of tls.cert (environment PROXY_KEY)");
    let keyless = tls(alone, "", &key).problem();
    assert!(keyless.starts_with("tls.cert: found nothing"), "{keyless}");
}

#[test]
fn wrong_certificate_files_are_told() {
    let case = Case::least_and("");
    let ((cert, key), (_, other)) = (pair(&case, "a"), pair(&case, "b"));
    let empty = case.write("empty.pem", "no PEM at all").display().to_string();
    let mismatched = tls(case, &cert, &other);
    assert!(mismatched.problem().contains("which is not the key of tls.cert"), "{}", mismatched.problem());
    let none = tls(mismatched, &empty, &key);
    assert!(none.problem().contains("which holds no certificate in PEM form"), "{}", none.problem());
    let no_key = tls(none, &cert, &empty);
    assert!(no_key.problem().contains("which holds no private key in PEM form"), "{}", no_key.problem());
    let swapped = tls(no_key, &key, &cert);
    assert_eq!(swapped.problems().len(), 2);
    let missing = tls(swapped, "/nonexistent.pem", &key).problem();
    assert!(missing.starts_with("tls.cert (environment PROXY_CERT): found \"/nonexistent.pem\""), "{missing}");
}

#[cfg(unix)]
#[test]
fn a_private_key_that_everybody_may_read_gives_a_warning() {
    let case = Case::least_and("");
    let (cert, key) = pair(&case, "a");
    set_mode(Path::new(&key), 0o644);
    let loaded = tls(case, &cert, &key).load();
    assert!(loaded.settings.is_ok());
    assert!(loaded.warnings.iter().any(|warning| warning.contains("is a private key")), "{:?}", loaded.warnings);
}

#[test]
fn unsafe_choices_give_warnings() {
    let warnings = |text: &str| Case::least_and(text).load().warnings.join("\n");
    assert!(warnings("[server]\nallow_plaintext = 'always'").contains("unencrypted"));
    assert!(warnings("").contains("without [tls]"));
    assert!(!warnings("[server]\nlisten_addr = 'localhost,127.0.0.1,::1'").contains("without [tls]"));
    assert!(warnings("[databases.app]\nhost = 'db.example'").contains("not verified"));
    assert!(!warnings("[databases.app]\nhost = '127.0.0.1,/run/pg'").contains("not verified"));
    assert!(!warnings("[databases.app]\nhost = 'db.example'\nsslmode = 'verify-full'").contains("not verified"));
}
