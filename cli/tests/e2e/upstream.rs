//! The way from gprxy to PostgreSQL: every authentication method, TLS that means it, and Unix sockets.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::thread;

use crate::support::fixtures::{CLEARTEXT, HOSTSSL, MD5, SCRAM, TRUST, WRITER};
use crate::support::gprxy::{Config, Gprxy};
use crate::support::postgres::Version;
use crate::support::reaper::free_port;
use crate::support::tls::pki;
use crate::support::wire::{Complaint, SSL_REQUEST, Wire};

/// `writer` mapped to another account.
fn mapped_to(version: Version, account: (&str, &str)) -> Config {
    Config::new(version).role("writer", account, 1)
}

#[track_caller]
fn session_user(gprxy: &Gprxy) -> String {
    Wire::login(&gprxy.target("bob")).unwrap_or_else(|error| panic!("{error:?}")).value("select session_user")
}

#[track_caller]
fn refusal(gprxy: &Gprxy) -> Complaint {
    Wire::login(&gprxy.target("bob")).err().expect("the login is refused")
}

/// Whether this session's server connection is encrypted.
fn encrypted(gprxy: &Gprxy) -> bool {
    let mut wire = Wire::login(&gprxy.target("bob")).unwrap();
    wire.value("select ssl from pg_stat_ssl where pid = pg_backend_pid()") == "t"
}

#[test]
fn every_authentication_method_of_postgresql() {
    for version in [Version::V15, Version::V18] {
        for account in [TRUST, CLEARTEXT, MD5, SCRAM, HOSTSSL] {
            let gprxy = mapped_to(version, account).start();
            assert_eq!(session_user(&gprxy), account.0, "{version:?}");
        }
    }
}

#[test]
fn a_wrong_password_of_an_account_is_told_without_the_password() {
    for (account, _) in [CLEARTEXT, MD5, SCRAM] {
        let gprxy = mapped_to(Version::V15, (account, "wrong-secret-4242")).start();
        let error = refusal(&gprxy);
        assert_eq!(error.code, "28P01", "PostgreSQL's own SQLSTATE: {error:?}");
        assert!(!error.message.contains("wrong-secret-4242") && !gprxy.log().contains("wrong-secret-4242"));
    }
}

#[test]
fn never_again_11_a_hostssl_only_server_is_reached_over_verified_tls() {
    for sslmode in ["verify-full", "verify-ca", "require", "prefer"] {
        let gprxy = mapped_to(Version::V15, HOSTSSL).set("databases.*.sslmode", sslmode).start();
        assert_eq!(session_user(&gprxy), HOSTSSL.0, "{sslmode}");
        assert!(encrypted(&gprxy), "{sslmode}");
    }
    let gprxy = mapped_to(Version::V15, HOSTSSL).set("databases.*.sslmode", "disable").start();
    let error = refusal(&gprxy);
    assert_eq!(error.code, "28000", "PostgreSQL's own refusal: {error:?}");
}

#[test]
fn never_again_11_a_server_with_the_wrong_certificate_is_refused() {
    let stranger = pki().stranger.to_str().unwrap();
    for sslmode in ["verify-ca", "verify-full"] {
        let gprxy = mapped_to(Version::V15, HOSTSSL)
            .set("databases.*.sslmode", sslmode)
            .set("databases.*.sslrootcert", stranger)
            .start();
        let error = refusal(&gprxy);
        assert!(error.code.starts_with("08"), "{sslmode}: {error:?}");
    }
    // The certificate names 127.0.0.1, and the server listens on 127.0.0.2 too.
    let elsewhere = mapped_to(Version::V15, HOSTSSL).set("databases.*.host", "127.0.0.2");
    assert!(refusal(&elsewhere.start()).code.starts_with("08"), "verify-full compares the name");
    let elsewhere = mapped_to(Version::V15, HOSTSSL).set("databases.*.host", "127.0.0.2");
    assert_eq!(session_user(&elsewhere.set("databases.*.sslmode", "verify-ca").start()), HOSTSSL.0);
}

#[test]
fn never_again_11_a_server_without_tls_gets_no_login_when_tls_is_required() {
    for sslmode in ["require", "verify-ca", "verify-full"] {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let server = thread::spawn(move || {
            let (mut socket, _) = listener.accept().unwrap();
            let mut request = [0; 8];
            socket.read_exact(&mut request).unwrap();
            socket.write_all(b"N").unwrap();
            let mut more = Vec::new();
            let _ = socket.read_to_end(&mut more);
            (request, more)
        });
        let gprxy =
            Config::new(Version::V15).set("databases.*.port", i64::from(port)).set("databases.*.sslmode", sslmode);
        let error = refusal(&gprxy.start());
        assert!(error.code.starts_with("08"), "{sslmode}: {error:?}");
        let (request, more) = server.join().unwrap();
        assert_eq!(request, SSL_REQUEST);
        assert_eq!(more, b"", "{sslmode}: neither user nor password in clear");
    }
}

#[test]
fn a_unix_socket() {
    for version in [Version::V15, Version::V18] {
        let gprxy = Config::new(version).over_unix_socket().start();
        let mut wire = Wire::login(&gprxy.target("bob")).unwrap();
        assert_eq!(wire.value("select session_user"), WRITER.0);
        assert_eq!(wire.value("select inet_server_addr() is null"), "t", "not over TCP");
    }
}

#[test]
fn a_server_that_cannot_be_reached_is_told_at_once_and_by_name() {
    let port = free_port();
    let gprxy = Config::new(Version::V15).set("databases.*.port", i64::from(port)).start();
    let error = refusal(&gprxy);
    assert!(["08001", "57P03"].contains(&error.code.as_str()), "{error:?}");
}
