//! A text means what it means by the settings under which the server has read it: sessions with other settings do not
//! share it.

use super::pooled::{client, pooled_with, server, tags};
use super::*;
use crate::relay::OnServer;
use crate::upstream::Reported;

const TEXT: &str = "select '01/02/2020'::date";

fn style(value: &str) -> Reported {
    let mut reported = Reported::default();
    assert!(reported.set(b"DateStyle", value.as_bytes()) && reported.set(b"application_name", b"any"));
    reported
}

/// A session with this `DateStyle`, on a connection that has it as well.
fn on(value: &str, caches: bool, statements: Box<OnServer>) -> Relay {
    let mut relay = pooled_with(style(value), caches);
    assert!(relay.handle_connection(&style(value), None, Some(statements)).set.is_empty());
    relay
}

fn none() -> Box<OnServer> {
    Box::new(OnServer::new(200))
}

fn leave(relay: &mut Relay) -> Box<OnServer> {
    relay.take_statements().unwrap()
}

/// What goes to the server for a Parse of this name, which succeeds.
fn prepare(relay: &mut Relay, name: &str) -> String {
    let (sent, _) = client(relay, &[front::parse(name, TEXT), front::sync()].concat());
    let sent = tags(&sent);
    let answer = if sent.contains('P') { back::bare(b'1') } else { Vec::new() };
    assert!(server(relay, &[answer, back::ready(b'I')].concat()));
    sent
}

/// What goes to the server for a Bind of this name, which succeeds.
fn bind(relay: &mut Relay, name: &str) -> String {
    let (sent, _) = client(relay, &[front::bind("", name), front::sync()].concat());
    let tags = tags(&sent);
    let parsed = if tags.contains('P') { back::bare(b'1') } else { Vec::new() };
    assert!(server(relay, &[parsed, back::bare(b'2'), back::ready(b'I')].concat()));
    tags
}

#[test]
fn equal_texts_are_one_statement_only_under_equal_settings() {
    let mut dmy = on("ISO, DMY", false, none());
    assert_eq!(prepare(&mut dmy, "s"), "PS");
    let mut mdy = on("ISO, MDY", false, leave(&mut dmy));
    assert_eq!(prepare(&mut mdy, "s"), "PS", "the other one's is of another day");
    assert_eq!(bind(&mut mdy, "s"), "BS");
    // Each finds its own again, and who has the same settings shares it, whatever the application's name is.
    assert!(dmy.handle_connection(&style("ISO, DMY"), None, Some(leave(&mut mdy))).set.is_empty());
    assert_eq!(bind(&mut dmy, "s"), "BS");
    let mut same = style("ISO, MDY");
    assert!(same.set(b"application_name", b"other"));
    let mut third = pooled_with(same.clone(), false);
    let _ = third.handle_connection(&same, None, Some(leave(&mut dmy)));
    assert_eq!(prepare(&mut third, "s"), "S");
}

#[test]
fn a_setting_that_changes_on_the_way_counts_from_then_on() {
    let mut relay = on("ISO, MDY", false, none());
    assert_eq!(prepare(&mut relay, "before"), "PS");
    client(&mut relay, &front::query("set datestyle = 'DMY'"));
    let changed = back::parameter("DateStyle", "ISO, DMY");
    assert!(server(&mut relay, &[back::complete("SET"), changed, back::ready(b'I')].concat()));
    assert_eq!(prepare(&mut relay, "behind"), "PS");
    assert_eq!(prepare(&mut relay, "again"), "S");
    assert_eq!(bind(&mut relay, "before"), "BS", "it stays what it was where it is");
    let mut mdy = on("ISO, MDY", false, leave(&mut relay));
    assert_eq!(prepare(&mut mdy, "mine"), "S", "that is the first one");
    // Where nobody has it as it was, it is read as things are now.
    let _ = relay.handle_connection(&style("ISO, DMY"), None, Some(none()));
    assert_eq!(bind(&mut relay, "before"), "PBS");
    let mut dmy = on("ISO, DMY", false, leave(&mut relay));
    assert_eq!(prepare(&mut dmy, "mine"), "S");
    let mut mdy = on("ISO, MDY", false, leave(&mut dmy));
    assert_eq!(prepare(&mut mdy, "other"), "PS");
}

#[test]
fn what_is_prepared_behind_something_that_runs_is_shared_with_nobody() {
    // What runs in front may be the SET, and the server reports it behind all of this.
    for set in [
        [front::parse("", "set datestyle = 'DMY'"), front::bind("", ""), front::execute("", 0)].concat(),
        front::query("set datestyle = 'DMY'"),
    ] {
        let mut relay = on("ISO, MDY", false, none());
        let query = set[0] == b'Q';
        let (sent, _) = client(&mut relay, &[set, front::parse("s", TEXT), front::sync()].concat());
        assert_eq!(tags(&sent), if query { "QPS" } else { "PBEPS" });
        let changed = back::parameter("DateStyle", "ISO, DMY");
        let ran = if query {
            [back::complete("SET"), changed, back::ready(b'I'), back::bare(b'1'), back::ready(b'I')].concat()
        } else {
            let ran = [back::bare(b'1'), back::bare(b'2'), back::complete("SET"), back::bare(b'1')].concat();
            [ran, changed, back::ready(b'I')].concat()
        };
        assert!(server(&mut relay, &ran));
        assert_eq!(bind(&mut relay, "s"), "BS", "but it is the session's");
        let mut mdy = on("ISO, MDY", false, leave(&mut relay));
        assert_eq!(prepare(&mut mdy, "s"), "PS");
        let mut dmy = on("ISO, DMY", false, leave(&mut mdy));
        assert_eq!(prepare(&mut dmy, "s"), "PS");
    }
}

#[test]
fn unnamed_statements_that_are_kept_are_kept_for_their_settings() {
    let mut mdy = on("ISO, MDY", true, none());
    assert_eq!([prepare(&mut mdy, ""), prepare(&mut mdy, ""), prepare(&mut mdy, "")], ["PS", "PS", "S"]);
    let mut dmy = on("ISO, DMY", true, leave(&mut mdy));
    assert_eq!([prepare(&mut dmy, ""), prepare(&mut dmy, ""), prepare(&mut dmy, "")], ["PS", "PS", "S"]);
    assert_eq!(bind(&mut dmy, ""), "BS");
    // On a connection that has it for others alone.
    let mut other = on("ISO, MDY", true, none());
    assert_eq!([prepare(&mut other, ""), prepare(&mut other, ""), prepare(&mut other, "")], ["PS", "PS", "S"]);
    drop(leave(&mut dmy));
    let _ = dmy.handle_connection(&style("ISO, DMY"), None, Some(leave(&mut other)));
    assert_eq!(bind(&mut dmy, ""), "PBS");
    assert_eq!(bind(&mut dmy, ""), "BS");
    // Behind something that runs, nothing is looked up and nothing is kept.
    let (sent, _) = client(&mut dmy, &[front::execute("", 0), front::parse("", TEXT), front::sync()].concat());
    assert_eq!(tags(&sent), "EPS");
}

#[test]
fn a_value_that_is_too_long_to_be_followed_stays_where_it_is() {
    let mut relay = on("ISO, MDY", false, none());
    client(&mut relay, &front::query("set search_path = many"));
    let many = back::parameter("search_path", &"schema, ".repeat(1500));
    let set = [back::complete("SET"), many, back::ready(b'I')].concat();
    // In pieces, as nothing is judged whole that is longer than a buffer.
    for piece in set.chunks(4096) {
        assert!(server(&mut relay, piece));
    }
    assert!(!relay.pins().is_empty() && relay.is_in_doubt(), "nobody may find it there");
    client(&mut relay, &front::query("discard all"));
    let reset = [back::complete("DISCARD ALL"), back::parameter("search_path", "public"), back::ready(b'I')].concat();
    assert!(server(&mut relay, &reset));
    assert!(relay.pins().is_empty());
}

/// A session that began as `psql` in Tokyo, on a connection whose login said otherwise.
fn began_elsewhere(bare: bool) -> (Relay, Reported) {
    let login = Reported::from(vec![
        (b"TimeZone"[..].into(), b"UTC"[..].into()),
        (b"application_name"[..].into(), b""[..].into()),
    ]);
    let mut connection =
        if bare { Reported::from(vec![(b"TimeZone"[..].into(), b"Asia/Tokyo"[..].into())]) } else { login.clone() };
    assert!(connection.set(b"application_name", b"psql"));
    let mut relay = pooled_with(connection.clone(), false);
    let _ = relay.handle_connection(&connection, bare.then(|| login.base_values().clone()), Some(none()));
    (relay, connection)
}

#[test]
fn reset_leads_back_to_the_name_that_the_client_began_with() {
    for reset in ["RESET", "DISCARD ALL"] {
        let (mut relay, mut connection) = began_elsewhere(false);
        client(&mut relay, &front::query("reset it"));
        let reported = back::parameter("application_name", "");
        assert!(server(&mut relay, &[back::complete(reset), reported, back::ready(b'I')].concat()));
        assert!(!relay.is_in_doubt());
        assert!(connection.set(b"application_name", b""));
        let differences = relay.handle_connection(&connection, None, Some(none()));
        assert_eq!(differences.tell, back::parameter("application_name", "psql"), "{reset}");
        assert_eq!(differences.set, front::query("SET application_name TO E'psql';"));
    }
}

#[test]
fn what_was_set_to_another_value_behind_a_reset_counts() {
    let (mut relay, connection) = began_elsewhere(false);
    client(&mut relay, &front::query("reset all; set application_name = 'mine'"));
    let reported = back::parameter("application_name", "mine");
    let done = [back::complete("RESET"), back::complete("SET"), reported, back::ready(b'I')].concat();
    assert!(server(&mut relay, &done));
    let differences = relay.handle_connection(&connection, None, None);
    assert_eq!((differences.tell.len(), differences.set), (0, front::query("SET application_name TO E'mine';")));
    // And a value that was set is one, even where the login had the same.
    let (mut relay, mut connection) = began_elsewhere(false);
    client(&mut relay, &front::query("set application_name = ''"));
    let reported = back::parameter("application_name", "");
    assert!(server(&mut relay, &[back::complete("SET"), reported, back::ready(b'I')].concat()));
    assert!(connection.set(b"application_name", b""));
    assert!(relay.handle_connection(&connection, None, None).set.is_empty());
}

#[test]
fn a_reset_on_a_bare_connection_leads_to_the_startup_parameters_and_leaves_it_to_nobody() {
    let (mut relay, connection) = began_elsewhere(true);
    client(&mut relay, &front::query("reset timezone"));
    let reported = back::parameter("TimeZone", "UTC");
    assert!(server(&mut relay, &[back::complete("RESET"), reported, back::ready(b'I')].concat()));
    assert!(relay.is_in_doubt(), "its startup parameters are set again before anybody gets it");
    drop(relay.take_statements());
    let differences = relay.handle_connection(&connection, None, Some(none()));
    assert_eq!((differences.tell, differences.set), (back::parameter("TimeZone", "Asia/Tokyo"), Vec::new()));
}
