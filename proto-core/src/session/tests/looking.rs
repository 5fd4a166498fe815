//! Users whom the gate does not know: what is asked of a server about them, and what becomes of hostile answers.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use super::{assert_refused, seen};
use crate::auth::gate::Gate;
use crate::auth::md5;
use crate::auth::scram::Derivation;
use crate::auth::scram::server::Verifier;
use crate::auth::users::{StoredSecret, UserList};
use crate::codec::backend::Authentication;
use crate::codec::startup::PROTOCOL_3_0;
use crate::console::ConsoleAccess;
use crate::fault::{Lost, SqlState};
use crate::policy::{Account, AuthQuery, AuthType, Database, Databases, SessionTerms, Timeouts};
use crate::secret::Secret;
use crate::session::{Finish, ReturnState, Side};
use crate::testing::corp;
use crate::testing::dice::Dice;
use crate::testing::duel::{Duel, Terms};
use crate::testing::logs;
use crate::testing::postgres::Auth;
use crate::testing::wire::{back, front, message, messages};
use crate::time::Timer;

const QUERY: &str = "ask for $1";

/// The server's role that asks is the company's reader, whose password the list has. The test speaks for the server.
fn terms(auth_type: AuthType) -> Terms {
    let mut terms = Terms { server_answers: false, ..Terms::default() };
    let users = UserList::new([(corp::READER, StoredSecret::parse(corp::ACCOUNT_PASSWORD))]);
    terms.profile.gate = Some(Arc::new(Gate::listed(auth_type, users, &mut Dice::new(5))));
    look_in(&mut terms, None);
    terms
}

/// Lets users be looked up in that database, `None`: in the one that they want.
fn look_in(terms: &mut Terms, database: Option<&str>) {
    let auth_query = AuthQuery { user: corp::READER.into(), query: QUERY.into(), database: database.map(Arc::from) };
    let known = terms.profile.databases.find(corp::DATABASE).unwrap();
    let known = Database { auth_query: Some(auth_query.into()), ..(**known).clone() };
    terms.profile.databases = Databases::new([(corp::DATABASE.into(), known)]);
}

fn start(terms: Terms, user: &str) -> Duel {
    let mut duel = Duel::new(terms);
    duel.client(&front::startup(PROTOCOL_3_0, &[("user", user), ("database", corp::DATABASE), ("TimeZone", "UTC")]));
    duel
}

fn row(user: &str, password: Option<&[u8]>) -> Vec<u8> {
    let mut body = b"\0\x02".to_vec();
    for value in [Some(user.as_bytes()), password] {
        body.extend(value.map_or(-1, |value| i32::try_from(value.len()).unwrap()).to_be_bytes());
        body.extend_from_slice(value.unwrap_or_default());
    }
    message(b'D', &body)
}

fn answer(rows: &[Vec<u8>]) -> Vec<u8> {
    let opening = [back::bare(b'1'), back::bare(b'2'), message(b'T', b"\0\x02")].concat();
    [opening, rows.concat(), back::complete("SELECT 1"), back::ready(b'I')].concat()
}

/// A user who was found goes on by MD5.
fn log_in_by_md5(duel: &mut Duel, user: &str, password: &[u8]) {
    let question = messages(&duel.seen()).remove(0);
    let Ok(Authentication::Md5Password { salt }) = Authentication::parse(&question.body) else {
        panic!("{question:?}")
    };
    duel.client(&front::password(md5::answer(user.as_bytes(), password, salt).expose()));
}

#[test]
fn a_user_who_is_found_logs_in_as_one_of_the_list() {
    for chop in [None, Some(1), Some(2), Some(3)] {
        let mut duel = start(Terms { chop, ..terms(AuthType::Md5) }, corp::LOCAL_USER);
        assert!(duel.seen().is_empty(), "nothing is asked of the client before");
        assert_eq!(duel.postgres.logins(), 1);
        let sent = duel.sent();
        assert!(sent.windows(QUERY.len()).any(|part| part == QUERY.as_bytes()), "{}", sent.escape_ascii());
        let name = [&[0, 0, 0, corp::LOCAL_USER.len() as u8][..], corp::LOCAL_USER.as_bytes()].concat();
        assert!(sent.windows(name.len()).any(|part| part == name), "{}", sent.escape_ascii());
        let keeps = format!(
            "md5{}",
            std::str::from_utf8(md5::stored(corp::LOCAL_USER.as_bytes(), corp::LOCAL_PASSWORD).expose()).unwrap()
        );
        duel.server(&answer(&[row(corp::LOCAL_USER, Some(keeps.as_bytes()))]));
        assert_eq!(duel.returned, [ReturnState::Between], "the server connection has gone back before");
        duel.postgres.set_auth(Auth::Md5);
        log_in_by_md5(&mut duel, corp::LOCAL_USER, corp::LOCAL_PASSWORD);
        let words = seen(&mut duel);
        assert!(words.starts_with("R(0) K S(") && words.ends_with("Z(I)"), "{words}");
        assert_eq!(duel.postgres.logins(), 2, "as itself, and with nothing but the hash");
    }
}

#[test]
fn who_is_listed_is_not_looked_up() {
    let duel = start(terms(AuthType::Md5), corp::READER);
    assert_eq!((duel.postgres.logins(), duel.returned.len()), (0, 0));
}

#[test]
fn who_is_not_found_is_told_what_a_wrong_password_is_told() {
    let mut told = Vec::new();
    let right = Some(&b"the right one"[..]);
    for rows in [vec![row("x", right)], vec![], vec![row("x", None)], vec![row("another", right)]] {
        let mut duel = start(terms(AuthType::Md5), "x");
        duel.server(&answer(&rows));
        log_in_by_md5(&mut duel, "x", b"wrong");
        assert_eq!(duel.returned, [ReturnState::Between]);
        let all = messages(&duel.seen());
        told.push(all.iter().map(|message| message.body.escape_ascii().to_string()).collect::<String>());
        assert_eq!(duel.trail(), ["refusal(28P01)"]);
    }
    assert!(told.iter().all(|one| *one == told[0]), "{told:?}");
}

#[test]
fn an_answer_that_is_none_closes_the_connection_and_tells_only_the_log() {
    let one = || row("x", Some(b"y"));
    let opening = [back::bare(b'1'), back::bare(b'2'), message(b'T', b"\0\x02")].concat();
    for (bytes, logged) in [
        (answer(&[one(), one()]), "more than one row"),
        (
            [back::bare(b'1'), back::error("ERROR", "42501", "permission denied for pg_authid")].concat(),
            "42501 permission denied",
        ),
        ([back::bare(b'1'), back::bare(b'2'), message(b'T', b"\0\x01")].concat(), "2 columns"),
        ([answer(&[one()]), back::ready(b'I')].concat(), "more than the answer"),
        ([opening, vec![b'D', 0x7f, 0xff, 0xff, 0xff]].concat(), "broke the protocol"),
    ] {
        logs::capture();
        let mut duel = start(terms(AuthType::ScramSha256), "x");
        duel.server(&bytes);
        let lines = logs::captured();
        assert_refused(&mut duel, SqlState::PROTOCOL_VIOLATION);
        assert_eq!(duel.returned, [ReturnState::Broken], "{logged}");
        let told = |line: &&logs::Line| line.level == log::Level::Warn && line.text.contains("user \"x\"");
        let line = lines.iter().find(told).unwrap_or_else(|| panic!("{lines:?}"));
        assert!(line.text.contains(logged) && !line.text.contains('\n'), "{line:?}");
    }
}

#[test]
fn a_server_that_is_lost_or_silent_ends_the_login() {
    let mut duel = start(terms(AuthType::Md5), "x");
    duel.close(Side::Server, Lost::Closed);
    assert_refused(&mut duel, SqlState::CANNOT_CONNECT_NOW);
    assert_eq!(duel.returned, [ReturnState::Broken]);

    let mut duel = start(terms(AuthType::Md5), "x");
    duel.advance(Duration::from_secs(61));
    assert_refused(&mut duel, SqlState::INVALID_AUTHORIZATION);
    assert_eq!(duel.returned, [ReturnState::Busy], "what still runs is cancelled");

    let mut brief = terms(AuthType::Md5);
    let timeouts = Timeouts { query: Duration::from_secs(3), ..Timeouts::default() };
    brief.profile.databases =
        corp::with_terms(&brief.profile.databases, SessionTerms { timeouts, ..SessionTerms::default() });
    let mut duel = start(brief, "x");
    assert_eq!(duel.deadline().unwrap().why, Timer::UserLookup);
    duel.advance(Duration::from_millis(2900));
    assert!(duel.finish.is_none());
    duel.advance(Duration::from_millis(200));
    assert_refused(&mut duel, SqlState::CANNOT_CONNECT_NOW);
    assert_eq!(duel.returned, [ReturnState::Busy]);
}

#[test]
fn a_server_that_ends_the_session_may_be_asked_later() {
    for (severity, code) in [("FATAL", "57P01"), ("ERROR", "53200"), ("ERROR", "57014")] {
        let mut duel = start(terms(AuthType::Md5), "x");
        duel.server(&back::error(severity, code, "not now"));
        assert_refused(&mut duel, SqlState::CANNOT_CONNECT_NOW);
        assert_eq!(duel.returned, [ReturnState::Broken], "{code}");
    }
}

#[test]
fn a_client_that_leaves_leaves_no_lease_behind() {
    let mut duel = start(terms(AuthType::Md5), "x");
    duel.close(Side::Client, Lost::Closed);
    assert_eq!(duel.returned, [ReturnState::Busy]);
    assert!(matches!(duel.finish, Some(Finish::Lost(Side::Client, _))));

    let mut duel = start(Terms { lease_at_once: false, ..terms(AuthType::Md5) }, "x");
    assert!(duel.is_waiting());
    duel.close(Side::Client, Lost::Broken);
    assert!(!duel.is_waiting() && duel.finish.is_some(), "it does not wait any more");
}

#[test]
fn a_process_that_is_stopped_does_not_wait_for_an_answer() {
    for at_once in [true, false] {
        let mut duel = start(Terms { lease_at_once: at_once, ..terms(AuthType::Md5) }, "x");
        duel.drain();
        assert_refused(&mut duel, SqlState::CANNOT_CONNECT_NOW);
        assert!(!duel.is_waiting());
        assert_eq!(duel.returned.len(), usize::from(at_once));
    }
}

#[test]
fn the_role_that_asks_is_refused_and_nobody_learns_why() {
    let mut terms = terms(AuthType::Md5);
    let users = UserList::new([(corp::READER, StoredSecret::parse(b"that of last year"))]);
    terms.profile.gate = Some(Arc::new(Gate::listed(AuthType::Md5, users, &mut Dice::new(5))));
    let mut duel = Duel::new(terms);
    logs::capture();
    duel.client(&front::startup(PROTOCOL_3_0, &[("user", "x"), ("database", corp::DATABASE)]));
    let lines = logs::captured();
    let told = duel.seen();
    let told = String::from_utf8_lossy(&told);
    assert!(told.contains("57P03") && !told.contains(corp::READER), "{told}");
    assert!(lines.iter().any(|line| line.text.contains("28P01")), "{lines:?}");
}

#[test]
fn a_place_that_is_not_there_is_told_in_the_log() {
    for (place, logged) in [
        ("nowhere", "authentication database \"nowhere\" is not configured"),
        ("pgbouncer", "cannot use the reserved \"pgbouncer\" database as an auth_dbname"),
    ] {
        let mut terms = terms(AuthType::Md5);
        terms.profile.console = Some(Arc::new(ConsoleAccess::default()));
        look_in(&mut terms, Some(place));
        logs::capture();
        let mut duel = start(terms, "x");
        let lines = logs::captured();
        assert_refused(&mut duel, SqlState::PROTOCOL_VIOLATION);
        assert!(lines.iter().any(|line| line.text.contains(logged)), "{lines:?}");
        assert_eq!(duel.postgres.logins(), 0);
    }
}

#[test]
fn users_of_the_console_are_looked_up_where_a_database_is_named_for_it() {
    for place in [Some(corp::DATABASE), None] {
        let mut terms = terms(AuthType::Md5);
        let access = ConsoleAccess { admin_users: ["x".into()].into(), ..ConsoleAccess::default() };
        terms.profile.console = Some(Arc::new(access));
        let auth_query = AuthQuery { user: corp::READER.into(), query: QUERY.into(), database: place.map(Arc::from) };
        terms.profile.auth_query = Some(auth_query.into());
        let mut duel = Duel::new(terms);
        duel.client(&front::startup(PROTOCOL_3_0, &[("user", "x"), ("database", "pgbouncer")]));
        assert_eq!(duel.postgres.logins(), usize::from(place.is_some()));
        if place.is_some() {
            duel.server(&answer(&[row("x", Some(b"secret"))]));
        }
        log_in_by_md5(&mut duel, "x", b"secret");
        assert_eq!(seen(&mut duel).starts_with("R(0) K"), place.is_some());
    }
}

/// The salt and the rounds that somebody is asked with.
fn scram_challenge(duel: &mut Duel) -> String {
    duel.seen();
    let first = b"n,,n=,r=abc";
    let length = u32::try_from(first.len()).unwrap().to_be_bytes();
    duel.client(&message(b'p', &[b"SCRAM-SHA-256\0", &length[..], first].concat()));
    let question = messages(&duel.seen()).remove(0);
    let Ok(Authentication::SaslContinue(challenge)) = Authentication::parse(&question.body) else {
        panic!("{question:?}")
    };
    let challenge = String::from_utf8_lossy(challenge).into_owned();
    challenge.split_once(",s=").unwrap().1.to_owned()
}

#[test]
fn a_database_that_does_not_exist_does_not_tell_who_does() {
    let kept = "SCRAM-SHA-256$4096:W22ZaJ0SNY7soEsUEjb6gQ==$WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY=:wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU=";
    assert!(matches!(StoredSecret::parse(kept.as_bytes()), StoredSecret::Scram(_)));
    let ask = |database: &str, rows: Option<Vec<Vec<u8>>>, place: Option<&str>| {
        let mut terms = terms(AuthType::ScramSha256);
        if place.is_some() {
            look_in(&mut terms, place);
            terms.profile.auth_query = Some(
                AuthQuery { user: corp::READER.into(), query: QUERY.into(), database: place.map(Arc::from) }.into(),
            );
        }
        let mut duel = Duel::new(terms);
        duel.client(&front::startup(PROTOCOL_3_0, &[("user", "x"), ("database", database)]));
        assert_eq!(duel.postgres.logins(), usize::from(rows.is_some()), "{database}");
        if let Some(rows) = rows {
            duel.server(&answer(&rows));
        }
        scram_challenge(&mut duel)
    };
    for rows in [vec![], vec![row("x", Some(kept.as_bytes()))]] {
        // Where one place is named for all, the answer is the same everywhere.
        let [here, there] =
            [corp::DATABASE, "no_such_database"].map(|it| ask(it, Some(rows.clone()), Some(corp::DATABASE)));
        assert_eq!(here, there);
        // Elsewhere it never is.
        assert_ne!(ask(corp::DATABASE, Some(rows), None), ask("no_such_database", None, None));
    }
}

#[test]
fn a_database_that_does_not_exist_has_nobody_to_look_up() {
    let mut duel = Duel::new(terms(AuthType::Md5));
    duel.client(&front::startup(PROTOCOL_3_0, &[("user", "x"), ("database", "no_such_database")]));
    assert_eq!(duel.postgres.logins(), 0);
    log_in_by_md5(&mut duel, "x", b"any");
    assert_refused(&mut duel, SqlState::INVALID_PASSWORD);
}

/// Whoever runs as the account of a database has of it what the list has, where the settings have no password.
#[test]
fn a_hash_of_the_list_logs_in_to_the_server_and_a_verifier_tells_what_it_lacks() {
    let stored = md5::stored(corp::READER.as_bytes(), corp::ACCOUNT_PASSWORD);
    let hash = StoredSecret::Md5(Arc::new(stored));
    let password = Arc::new(Secret::new(corp::ACCOUNT_PASSWORD.to_vec()));
    let keys = Derivation::new(&password, b"a salt for tests", NonZeroU32::new(16).unwrap()).run();
    let verifier = StoredSecret::Scram(Arc::new(Verifier::new(&keys)));
    let end = |secret: &StoredSecret, auth| {
        let mut terms = Terms::default();
        let users = UserList::new([("x", StoredSecret::parse(b"y")), (corp::READER, secret.clone())]);
        terms.profile.gate = Some(Arc::new(Gate::listed(AuthType::Trust, users, &mut Dice::new(5))));
        let account = Account { name: corp::READER.into(), password: None };
        let known = terms.profile.databases.find(corp::DATABASE).unwrap();
        let known = Database { account: Some(account.into()), ..(**known).clone() };
        terms.profile.databases = Databases::new([(corp::DATABASE.into(), known)]);
        let mut duel = Duel::new(terms);
        duel.postgres.set_auth(auth);
        duel.client(&front::startup(PROTOCOL_3_0, &[("user", "x"), ("database", corp::DATABASE)]));
        let all = messages(&duel.seen());
        let last = all.last().unwrap();
        if last.tag == b'E' { format!("{} {}", last.code(), last.body.escape_ascii()) } else { "in".into() }
    };
    assert_eq!(end(&hash, Auth::Md5), "in");
    assert_eq!(end(&verifier, Auth::Trust), "in");
    let told = end(&verifier, Auth::Scram);
    assert!(told.starts_with("08001") && told.contains("wrong password type"), "{told}");
}
