//! The console's protocol, message by message.

use super::*;
use crate::audit::AuditProfile;
use crate::fault::SqlState;
use crate::testing::corp;
use crate::testing::wire::{brief, front};
use crate::time::{Now, Tick};

fn now() -> Now {
    corp::at(Tick::default())
}

struct Desk {
    console: Console,
    heard: Vec<u8>,
    errands: Vec<Errand>,
    records: Vec<(String, Option<SqlState>, bool)>,
    given_up: usize,
    reserving: usize,
}

impl Desk {
    fn new(standing: Standing) -> Self {
        Self::with_audit(standing, AuditProfile { statement_bytes: 100, required: false })
    }

    fn with_audit(standing: Standing, audit: AuditProfile) -> Self {
        let visitor =
            Visitor { standing, user: "ann".into(), database: "pgbouncer".into(), application: Some("psql".into()) };
        let mut desk = Self {
            console: Console::new(visitor, Some(audit)),
            heard: Vec::new(),
            errands: Vec::new(),
            records: Vec::new(),
            given_up: 0,
            reserving: 0,
        };
        desk.console.handle_enrolled(7);
        desk.settle();
        desk.heard.clear();
        desk
    }

    fn settle(&mut self) {
        while let Some(output) = self.console.poll_output() {
            match output {
                Output::Send(bytes) => self.heard.extend(bytes),
                Output::Ask(errand) => self.errands.push(errand),
                Output::Reserve => self.reserving += 1,
                Output::GiveUp => self.given_up += 1,
                Output::Record(statement, has_place) => {
                    let text = statement.text.as_ref().map(|text| String::from_utf8_lossy(text.bytes()).into_owned());
                    self.records.push((text.unwrap_or_default(), statement.sqlstate, has_place));
                }
            }
        }
    }

    /// Says all of it, in pieces of so many bytes; what has come back.
    fn say_in(&mut self, mut bytes: &[u8], piece: usize) -> String {
        while !bytes.is_empty() {
            let n = piece.min(bytes.len());
            match self.console.handle_input(&bytes[..n], now()) {
                Input::Took(n) => bytes = &bytes[n..],
                Input::Wait => break,
                Input::Left | Input::Broken(_) => panic!("it ended"),
            }
            self.settle();
        }
        self.hear()
    }

    fn say(&mut self, messages: &[Vec<u8>]) -> String {
        self.say_in(&messages.concat(), usize::MAX)
    }

    fn hear(&mut self) -> String {
        self.settle();
        brief(&std::mem::take(&mut self.heard))
    }

    fn find(&mut self, found: Found) -> String {
        self.console.handle_found(found, now());
        self.hear()
    }

    fn query(&mut self, text: &str) -> String {
        self.say(&[front::query(text)])
    }
}

#[test]
fn a_query_may_have_several_commands_or_none() {
    let mut desk = Desk::new(Standing::Stats);
    assert_eq!(desk.query("SHOW VERSION"), "T D(1) C(SHOW) Z(I)".replace("D(1)", &version_row()));
    assert_eq!(desk.query(" ; -- nothing"), "I Z(I)");
    assert_eq!(desk.query("SHOW DNS_HOSTS; SELECT 1; SHOW DNS_ZONES"), "T C(SHOW) T D(1) C(SELECT 1) T C(SHOW) Z(I)");
    assert!(desk.query("SHOW HELP").ends_with("C(SHOW) Z(I)"));
    assert_eq!(desk.records.len(), 5, "{:?}", desk.records);
}

fn version_row() -> String {
    format!("D({})", tables::version())
}

#[test]
fn bytes_may_come_in_any_pieces() {
    let text = [front::query("SHOW DNS_HOSTS"), front::query("SELECT 1"), front::sync()].concat();
    for piece in 1..12 {
        let mut desk = Desk::new(Standing::Stats);
        assert_eq!(desk.say_in(&text, piece), "T C(SHOW) Z(I) T D(1) C(SELECT 1) Z(I) Z(I)", "{piece}");
    }
}

#[test]
fn a_mistake_ends_the_query_and_not_the_session() {
    let mut desk = Desk::new(Standing::Admin);
    assert_eq!(desk.query("FOO"), "E(ERROR 42601) Z(I)");
    assert_eq!(desk.query("SELECT * FROM pg_class"), "E(ERROR 0A000) Z(I)");
    assert_eq!(desk.query("RELOAD; SHOW NOTHING"), "E(ERROR 42601) Z(I)");
    assert!(desk.errands.is_empty(), "a text with a mistake does nothing");
    assert_eq!(desk.query("SELECT 1"), "T D(1) C(SELECT 1) Z(I)");
    let codes: Vec<_> = desk.records.iter().map(|record| record.1.unwrap().to_string()).collect();
    assert_eq!(codes, ["42601", "0A000", "42601", "00000"]);
}

#[test]
fn whoever_may_look_may_not_touch() {
    let mut desk = Desk::new(Standing::Stats);
    for text in ["RELOAD", "SET a = 1", "PAUSE", "KILL_CLIENT 1", "SHUTDOWN", "SHOW FDS", "SUSPEND", "DISABLE a"] {
        assert_eq!(desk.query(text), "E(ERROR 42501) Z(I)", "{text}");
    }
    assert!(desk.errands.is_empty());
    assert_eq!(desk.query("SHOW POOLS"), "");
    assert_eq!(desk.errands, [Errand::Look(Show::Pools)]);
    assert_eq!(desk.find(Found::Snapshot(Box::default())), "T C(SHOW) Z(I)");
    assert!(desk.records.iter().all(|(text, code, _)| (*code == Some(SqlState::SUCCESS)) == (text == "SHOW POOLS")));
}

#[test]
fn nothing_is_looked_at_while_a_command_waits() {
    let mut desk = Desk::new(Standing::Admin);
    assert_eq!(desk.query("PAUSE app; RESUME app"), "");
    assert_eq!(desk.console.handle_input(&front::query("RELOAD"), now()), Input::Wait);
    assert_eq!(desk.errands, [Errand::Do(Verb::Pause(Some("app".into())))]);
    assert_eq!(desk.find(Found::Done), "C(PAUSE)");
    assert_eq!(desk.errands.len(), 2);
    assert_eq!(desk.find(Found::Refused(not_now("database app is not paused"))), "E(ERROR 08P01) Z(I)");
    // Late ones change nothing.
    assert_eq!(desk.find(Found::Done), "");
}

#[test]
fn a_wait_can_be_cancelled_and_a_change_cannot() {
    let mut desk = Desk::new(Standing::Admin);
    desk.query("PAUSE; SHOW DNS_HOSTS");
    desk.console.handle_cancel(now());
    assert_eq!(desk.hear(), "E(ERROR 57014) Z(I)");
    assert_eq!(desk.given_up, 1);
    assert_eq!(desk.find(Found::Done), "");
    desk.query("RELOAD");
    desk.console.handle_cancel(now());
    assert_eq!((desk.hear(), desk.given_up), (String::new(), 1));
    assert_eq!(desk.find(Found::Done), "C(RELOAD) Z(I)");
}

#[test]
fn where_the_trail_is_required_no_verb_runs_without_a_place() {
    let required = AuditProfile { statement_bytes: 100, required: true };
    let mut desk = Desk::with_audit(Standing::Admin, required);
    desk.query("RELOAD");
    assert!(desk.errands.is_empty() && desk.reserving == 1);
    desk.console.handle_reserved(false, now());
    assert_eq!(desk.hear(), "E(ERROR 58030) Z(I)");
    desk.query("RELOAD");
    desk.console.handle_reserved(true, now());
    desk.settle();
    assert_eq!(desk.errands, [Errand::Do(Verb::Reload)]);
    assert_eq!(desk.find(Found::Done), "C(RELOAD) Z(I)");
    let places: Vec<bool> = desk.records.iter().map(|record| record.2).collect();
    assert_eq!(places, [false, true], "a place that was never given is not used");
    // One may look nevertheless.
    assert_eq!(desk.query("SELECT 1"), "T D(1) C(SELECT 1) Z(I)");
}

#[test]
fn the_extended_protocol_describes_what_it_will_send() {
    let mut desk = Desk::new(Standing::Stats);
    let answer = desk.say(&[
        front::parse("s", "SHOW LISTS;"),
        front::describe(b'S', "s"),
        front::bind("", "s"),
        front::describe(b'P', ""),
        front::execute("", 0),
        front::sync(),
    ]);
    assert_eq!(answer, "1 t T 2 T");
    let answer = desk.find(Found::Snapshot(Box::default()));
    assert!(answer.starts_with("D(") && answer.ends_with("C(SHOW)"), "{answer}");
    assert_eq!(desk.say(&[front::sync()]), "Z(I)");
    assert_eq!(desk.say(&[front::bind("", "s"), front::close(b'S', "s"), front::sync()]), "2 3 Z(I)");
    assert_eq!(
        desk.say(&[front::bind("", "s"), front::parse("t", "SHOW DNS_HOSTS"), front::sync()]),
        "E(ERROR 26000) Z(I)"
    );
}

#[test]
fn behind_a_mistake_everything_is_skipped_up_to_the_sync() {
    let mut desk = Desk::new(Standing::Stats);
    let answer = desk.say(&[
        front::parse("", "SELECT * FROM pg_type WHERE oid = $1"),
        front::bind("", ""),
        front::execute("", 0),
        front::sync(),
        front::parse("", "SELECT 1; SELECT 2"),
        front::sync(),
        front::execute("nowhere", 0),
        front::sync(),
        front::parse("", ""),
        front::bind("", ""),
        front::describe(b'S', ""),
        front::execute("", 0),
        front::sync(),
    ]);
    assert_eq!(answer, "E(ERROR 0A000) Z(I) E(ERROR 42601) Z(I) E(ERROR 34000) Z(I) 1 2 t n I Z(I)");
}

#[test]
fn rows_come_in_portions_where_a_driver_asks_for_them() {
    let mut desk = Desk::new(Standing::Stats);
    desk.say(&[front::query("BEGIN"), front::parse("", "SHOW STATE"), front::bind("p", ""), front::execute("p", 2)]);
    assert_eq!(
        desk.find(Found::Snapshot(Box::default())),
        r"D(active\x00\x00\x00\x03yes) D(paused\x00\x00\x00\x02no) s"
    );
    assert_eq!(
        desk.say(&[front::execute("p", 0)]),
        r"D(suspended\x00\x00\x00\x02no) D(draining\x00\x00\x00\x02no) C(SHOW)"
    );
    assert_eq!(desk.say(&[front::sync(), front::query("COMMIT")]), "Z(T) C(COMMIT) Z(I)");
}

#[test]
fn a_transaction_block_is_kept_up_as_drivers_expect_it() {
    let mut desk = Desk::new(Standing::Admin);
    assert_eq!(desk.query("BEGIN"), "C(BEGIN) Z(T)");
    assert_eq!(desk.query("NONSENSE"), "E(ERROR 42601) Z(E)");
    assert_eq!(desk.query("RELOAD"), "E(ERROR 25P02) Z(E)");
    assert!(desk.errands.is_empty());
    assert_eq!(desk.query("COMMIT"), "C(ROLLBACK) Z(I)");
}

#[test]
fn what_is_no_message_ends_the_session() {
    let console = |bytes: &[u8]| Desk::new(Standing::Admin).console.handle_input(bytes, now());
    assert_eq!(console(&front::terminate()), Input::Left);
    for bytes in [&b"?\0\0\0\x04"[..], b"Q\0\0\0\x03", b"Q\0\x02\0\0", b"Q\0\0\0\x05x", b"P\0\0\0\x06ab"] {
        assert!(matches!(console(bytes), Input::Broken(_)), "{bytes:?}");
    }
}

#[test]
fn a_flood_of_commands_and_statements_is_bounded() {
    let mut desk = Desk::new(Standing::Admin);
    let many = desk.query(&"END;".repeat(16_000));
    assert_eq!(many.matches("C(COMMIT)").count(), 16_000);
    let mut refused = 0;
    for n in 0..400 {
        refused +=
            usize::from(desk.say(&[front::parse(&format!("s{n}"), "SELECT 1"), front::sync()]).contains("53400"));
    }
    assert_eq!(refused, 400 - 256);
    assert_eq!(desk.query("DEALLOCATE ALL"), "C(DEALLOCATE ALL) Z(I)");
    assert_eq!(desk.say(&[front::parse("x", "SELECT 1"), front::sync()]), "1 Z(I)");
}
