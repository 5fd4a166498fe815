//! Startup parameters of clients that share a pool which is too small for one connection of each kind.

use crate::support::gprxy::{Config, Gprxy};
use crate::support::postgres::Version;
use crate::support::target::Target;
use crate::support::wire::Wire;

const BOTH: [Version; 2] = [Version::V15, Version::V18];

type Kind = &'static [(&'static str, &'static str)];

const TOKYO: Kind = &[
    ("TimeZone", "Asia/Tokyo"),
    ("application_name", "tokyo"),
    ("options", r"-c statement_timeout=5s --search-path=public,\ pg_catalog"),
];
const BERLIN: Kind = &[("timezone", "europe/berlin"), ("DateStyle", "German"), ("extra_float_digits", "3")];
const PLAIN: Kind = &[("application_name", "plain")];
const KINDS: [Kind; 3] = [TOKYO, BERLIN, PLAIN];

/// What a session sees of all this.
const SETTINGS: &str = "select concat_ws('|', current_setting('TimeZone'), current_setting('DateStyle'), \
     current_setting('search_path'), current_setting('statement_timeout'), current_setting('extra_float_digits'), \
     current_setting('application_name'))";

fn pool_of_one(version: Version) -> Gprxy {
    Config::new(version).set("pool.pool_mode", "transaction").set("pool.query_wait_notify", 0).pool_of(1).start()
}

fn log_in(target: &Target, kind: Kind) -> Wire {
    Wire::login_with(target, kind).unwrap_or_else(|error| panic!("{kind:?}: {error:?}"))
}

/// The settings of sessions of each kind on PostgreSQL itself, and what they are told.
fn direct(version: Version) -> Vec<(String, Vec<Option<String>>)> {
    let target = Target::direct(version).in_plaintext();
    KINDS.map(|kind| log_in(&target, kind)).iter_mut().map(|wire| (wire.value(SETTINGS), told(wire))).collect()
}

fn told(wire: &Wire) -> Vec<Option<String>> {
    let names = ["TimeZone", "DateStyle", "application_name", "client_encoding", "search_path"];
    names.map(|name| wire.parameters.get(name).cloned()).into()
}

#[test]
fn every_client_finds_its_own_on_the_one_connection_that_there_is() {
    for version in BOTH {
        let expected = direct(version);
        let gprxy = pool_of_one(version);
        let target = gprxy.target("bob").in_plaintext();
        let mut clients: Vec<Wire> = KINDS.iter().map(|kind| log_in(&target, kind)).collect();
        let mut pids = Vec::new();
        for round in 0..4 {
            for (n, wire) in clients.iter_mut().enumerate() {
                assert_eq!((wire.value(SETTINGS), told(wire)), expected[n], "round {round}, {:?}", KINDS[n]);
                pids.push(wire.value("select pg_backend_pid()"));
            }
        }
        // The first ones may have been opened for a single kind.
        pids.drain(..KINDS.len());
        pids.dedup();
        assert_eq!(pids.len(), 1, "no login any more");
    }
}

#[test]
fn reset_leads_back_to_what_the_client_asked_for_at_its_login() {
    for version in BOTH {
        let expected = direct(version);
        let gprxy = pool_of_one(version);
        let target = gprxy.target("bob").in_plaintext();
        let mut clients: Vec<Wire> = KINDS.iter().map(|kind| log_in(&target, kind)).collect();
        for reset in ["reset all", "discard all", "reset timezone", "reset application_name"] {
            for (n, wire) in clients.iter_mut().enumerate() {
                wire.rows("set timezone = 'America/New_York'").unwrap();
                wire.rows("set application_name = 'mine'").unwrap();
                assert!(wire.value(SETTINGS).starts_with("America/New_York|"));
                wire.rows(reset).unwrap();
                if reset == "reset timezone" {
                    wire.rows("reset application_name").unwrap();
                } else if reset == "reset application_name" {
                    wire.rows("reset timezone").unwrap();
                }
                assert_eq!((wire.value(SETTINGS), told(wire)), expected[n], "{reset}, {:?}", KINDS[n]);
            }
        }
    }
}

#[test]
fn what_the_server_refuses_at_a_login_it_refuses_here_in_its_own_words() {
    for version in BOTH {
        let direct = Target::direct(version).in_plaintext();
        let gprxy = pool_of_one(version);
        let target = gprxy.target("bob").in_plaintext();
        let mut clients: Vec<Wire> = [TOKYO, BERLIN].iter().map(|kind| log_in(&target, kind)).collect();
        clients.iter_mut().for_each(|wire| drop(wire.value(SETTINGS)));
        for wrong in [&[("TimeZone", "nowhere")][..], &[("options", "-c no_such_setting=1")], &[("work_mem", "x")]] {
            let expected = Wire::login_with(&direct, wrong).err().expect("PostgreSQL takes it");
            let refused = Wire::login_with(&target, wrong).err().expect("gprxy takes it");
            assert_eq!((refused.code, refused.message), (expected.code, expected.message), "{wrong:?}");
        }
        // What only a login can give, a login gives, as often as it takes.
        let mut odd = log_in(&target, &[("options", "-c ignore_system_indexes=on")]);
        for _ in 0..2 {
            assert_eq!(odd.value("show ignore_system_indexes"), "on");
            assert!(clients[0].value(SETTINGS).starts_with("Asia/Tokyo|"));
            assert_eq!(clients[0].value("show ignore_system_indexes"), "off");
        }
    }
}

#[test]
fn a_session_begins_with_its_own_settings_behind_a_reload_too() {
    for version in BOTH {
        let mut gprxy = pool_of_one(version);
        let target = gprxy.target("bob").in_plaintext();
        let mut before = log_in(&target, PLAIN);
        before.rows("set timezone = 'Asia/Tokyo'").unwrap();
        let zone = log_in(&target, PLAIN).value("show timezone");
        assert_ne!(zone, "Asia/Tokyo");
        gprxy.reload(|config| config.set("pool.query_wait_timeout", 60));
        // What servers say of themselves is asked for anew, of a connection that holds somebody's settings.
        assert_eq!(before.value("show timezone"), "Asia/Tokyo");
        let mut behind = log_in(&target, PLAIN);
        assert_eq!((behind.parameters["TimeZone"].clone(), behind.value("show timezone")), (zone.clone(), zone));
    }
}
