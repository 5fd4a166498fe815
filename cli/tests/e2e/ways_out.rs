//! Where the servers are: IPv6, lists of hosts, and what each sslmode accepts.

use std::net::TcpListener;

use crate::support::fault::FaultProxy;
use crate::support::fixtures::{HOSTSSL, WRITER};
use crate::support::gprxy::{Config, Gprxy};
use crate::support::postgres::{Cluster, Version};
use crate::support::reaper::free_port;
use crate::support::wire::{Complaint, Wire};

fn login(gprxy: &Gprxy) -> Wire {
    Wire::login(&gprxy.target("bob")).unwrap_or_else(|error| panic!("{error:?}\n{}", gprxy.log()))
}

fn refusal(gprxy: &Gprxy) -> Complaint {
    Wire::login(&gprxy.target("bob")).err().expect("the login is refused")
}

fn encrypted(wire: &mut Wire) -> bool {
    wire.value("select ssl from pg_stat_ssl where pid = pg_backend_pid()") == "t"
}

#[test]
fn a_server_on_ipv6() {
    for host in ["::1", "[::1]"] {
        let gprxy = Config::new(Version::V15).set("databases.*.host", host).start();
        let mut wire = login(&gprxy);
        assert_eq!(wire.value("select host(inet_server_addr())"), "::1");
        assert!(encrypted(&mut wire), "verify-full compares the certificate's IP address");
        assert_eq!(wire.value("select session_user"), WRITER.0);
    }
}

#[test]
fn a_list_of_hosts_with_a_dead_first_one_and_a_port_for_each() {
    let server = Cluster::shared(Version::V15);
    let dead = free_port();
    let silent = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let mute = silent.local_addr().unwrap().port();
    for (hosts, ports) in [
        (format!("127.0.0.1:{dead},127.0.0.1:{}", server.port), None),
        (format!("[::1]:{dead},[::1]:{}", server.port), None),
        ("127.0.0.1,127.0.0.1".to_owned(), Some(format!("{dead},{}", server.port))),
        // One that accepts and then says nothing.
        (format!("127.0.0.1:{mute},127.0.0.1:{}", server.port), None),
    ] {
        let mut config =
            Config::new(Version::V15).set("databases.*.host", hosts.as_str()).set("databases.*.connect_timeout", "1s");
        config = match &ports {
            Some(ports) => config.set("databases.*.port", ports.as_str()),
            None => config,
        };
        let gprxy = config.start();
        assert_eq!(login(&gprxy).value("select inet_server_port()"), server.port.to_string(), "{hosts} {ports:?}");
    }
    drop(silent);
}

#[test]
fn a_servers_own_refusal_is_not_taken_to_the_next_host() {
    // As with libpq: who got an answer knows where he stands.
    let server = Cluster::shared(Version::V15);
    let second = FaultProxy::before(server.port);
    let gprxy = Config::new(Version::V15)
        .role("writer", (WRITER.0, "wrong-secret"), 1)
        .set("databases.*.host", format!("127.0.0.1:{},127.0.0.1:{}", server.port, second.port))
        .start();
    assert_eq!(refusal(&gprxy).code, "28P01");
    assert_eq!(second.accepted(), 0, "the second host was never asked");
}

#[test]
fn verify_ca_accepts_a_certificate_for_another_name_and_verify_full_does_not() {
    // The certificate names localhost, 127.0.0.1 and ::1; the server listens on 127.0.0.2 too.
    let at_another_name =
        |sslmode| Config::new(Version::V15).set("databases.*.host", "127.0.0.2").set("databases.*.sslmode", sslmode);
    let gprxy = at_another_name("verify-ca").role("writer", HOSTSSL, 1).start();
    assert!(encrypted(&mut login(&gprxy)));
    let error = refusal(&at_another_name("verify-full").start());
    assert!(error.code.starts_with("08"), "{error:?}");
    assert!(error.message.contains("certificate"), "it says what is wrong: {error:?}");
}

#[test]
fn prefer_takes_tls_where_it_is_and_goes_without_where_it_is_not() {
    let server = Cluster::shared(Version::V15);
    let way = FaultProxy::before(server.port);
    let config = || {
        Config::new(Version::V15)
            .unset_in("databases", "*", "sslrootcert")
            .set("databases.*.sslmode", "prefer")
            .set("databases.*.port", i64::from(way.port))
    };
    let gprxy = config().start();
    assert!(encrypted(&mut login(&gprxy)));
    way.set_without_tls(true);
    let gprxy = config().start();
    let mut wire = login(&gprxy);
    assert!(!encrypted(&mut wire));
    assert_eq!(wire.value("select session_user"), WRITER.0, "SCRAM keeps the password from an eavesdropper");
}
