//! Clients that prove themselves to the proxy's own gate.

use std::num::NonZeroU32;
use std::sync::Arc;

use super::{assert_refused, assert_violation, seen};
use crate::auth::gate::Gate;
use crate::auth::md5;
use crate::auth::scram::server::Verifier;
use crate::auth::scram::{Derivation, ScramChallenge, ScramClient};
use crate::auth::users::{StoredSecret, UserList};
use crate::codec::backend::{Authentication, split};
use crate::codec::frontend::{emit_sasl_initial, emit_sasl_response};
use crate::codec::startup::PROTOCOL_3_0;
use crate::fault::SqlState;
use crate::policy::{AllowPlaintext, AuthType};
use crate::secret::Secret;
use crate::session::Finish;
use crate::testing::corp;
use crate::testing::dice::Dice;
use crate::testing::duel::{Duel, PROVIDED, Terms};
use crate::testing::postgres::{Auth, Postgres};
use crate::testing::wire::{front, messages};

fn secret(bytes: &[u8]) -> Arc<Secret<Vec<u8>>> {
    Arc::new(Secret::new(bytes.to_vec()))
}

/// The verifier that the server of a duel keeps for a password.
fn verifier(password: &[u8]) -> StoredSecret {
    let rounds = NonZeroU32::new(16).unwrap();
    let keys = Derivation::new(&secret(password), b"a salt for tests", rounds).run();
    StoredSecret::Scram(Arc::new(Verifier::new(&keys)))
}

fn terms(gate: Gate) -> Terms {
    let mut terms = Terms::default();
    terms.profile.gate = Some(Arc::new(gate));
    terms
}

fn listed(auth_type: AuthType, secret: StoredSecret) -> Terms {
    let users = UserList::new([(corp::LOCAL_USER, secret)]);
    terms(Gate::listed(auth_type, users, &mut Dice::new(5)))
}

fn plain() -> StoredSecret {
    StoredSecret::parse(corp::LOCAL_PASSWORD)
}

fn start(terms: Terms, user: &str) -> Duel {
    let mut duel = Duel::new(terms);
    duel.client(&front::startup(PROTOCOL_3_0, &[("user", user), ("database", corp::DATABASE)]));
    duel
}

/// The only Authentication message that has come.
fn asked(duel: &mut Duel) -> Vec<u8> {
    let mut all = messages(&duel.seen());
    assert_eq!(all.len(), 1, "{all:?}");
    let message = all.remove(0);
    assert_eq!(message.tag, b'R');
    message.body
}

/// Goes through SCRAM up to the proof, which is given back unsent.
fn scram_up_to_proof(duel: &mut Duel, password: &[u8]) -> (Vec<u8>, crate::auth::scram::ScramProof) {
    assert_eq!(asked(duel), b"\0\0\0\x0aSCRAM-SHA-256\0\0");
    let client = ScramClient::new([4; 18]);
    let mut out = Vec::new();
    emit_sasl_initial(&mut out, b"SCRAM-SHA-256", &client.first_message());
    duel.client(&out);
    let body = asked(duel);
    let Ok(Authentication::SaslContinue(challenge)) = Authentication::parse(&body) else { panic!("{body:?}") };
    let challenge: ScramChallenge = client.handle_server_first(challenge).ok().unwrap();
    let keys = challenge.derivation(&secret(password)).run();
    let (answer, proof) = challenge.prove(&keys).ok().unwrap();
    let mut out = Vec::new();
    emit_sasl_response(&mut out, &answer);
    (out, proof)
}

#[test]
fn a_client_that_knows_the_password_runs_as_itself() {
    for (stored, server) in [
        (plain(), Auth::Scram),
        (plain(), Auth::Md5),
        (plain(), Auth::Cleartext),
        (verifier(corp::LOCAL_PASSWORD), Auth::Scram),
    ] {
        for chop in [None, Some(1), Some(2)] {
            let mut duel = start(Terms { chop, ..listed(AuthType::ScramSha256, stored.clone()) }, corp::LOCAL_USER);
            duel.postgres.set_auth(server);
            let (answer, proof) = scram_up_to_proof(&mut duel, corp::LOCAL_PASSWORD);
            duel.client(&answer);
            let all = duel.seen();
            let first = split(&all).unwrap()[0].1.clone();
            let Ok(Authentication::SaslFinal(last)) = Authentication::parse(&all[first]) else { panic!("no end") };
            assert_eq!(proof.handle_server_final(last), Ok(()), "the proxy proves itself, too");
            let words = crate::testing::wire::brief(&all);
            assert!(words.starts_with("R(12) R(0) K S(") && words.ends_with("Z(I)"), "{words}");
            duel.client(&front::query("whoami"));
            assert!(seen(&mut duel).contains(&format!("D({} ", corp::LOCAL_USER)));
            assert_eq!(duel.trail()[0], "start");
        }
    }
}

#[test]
fn the_other_ways_lead_in_as_well() {
    let hash = StoredSecret::Md5(Arc::new(md5::stored(corp::LOCAL_USER.as_bytes(), corp::LOCAL_PASSWORD)));
    for (stored, server) in [(plain(), Auth::Scram), (hash.clone(), Auth::Md5)] {
        let mut duel = start(listed(AuthType::Md5, stored), corp::LOCAL_USER);
        duel.postgres.set_auth(server);
        let body = asked(&mut duel);
        let Ok(Authentication::Md5Password { salt }) = Authentication::parse(&body) else { panic!("{body:?}") };
        let answer = md5::answer(corp::LOCAL_USER.as_bytes(), corp::LOCAL_PASSWORD, salt);
        duel.client(&front::password(answer.expose()));
        assert!(seen(&mut duel).ends_with("Z(I)"));
    }
    for (stored, server) in [(plain(), Auth::Scram), (verifier(corp::LOCAL_PASSWORD), Auth::Scram), (hash, Auth::Md5)] {
        let mut duel = start(listed(AuthType::Plain, stored), corp::LOCAL_USER);
        duel.postgres.set_auth(server);
        assert_eq!(asked(&mut duel), b"\0\0\0\x03");
        duel.client(&front::password(corp::LOCAL_PASSWORD));
        assert!(seen(&mut duel).ends_with("Z(I)"));
    }
    let mut duel = start(listed(AuthType::Trust, plain()), corp::LOCAL_USER);
    let words = seen(&mut duel);
    assert!(words.starts_with("R(0) K") && words.ends_with("Z(I)"), "{words}");
}

#[test]
fn a_wrong_password_and_an_unknown_user_are_refused_alike_and_written_down() {
    let mut told = Vec::new();
    for (user, password) in [(corp::LOCAL_USER, &b"wrong"[..]), ("nobody", corp::LOCAL_PASSWORD)] {
        let mut duel = start(listed(AuthType::ScramSha256, verifier(corp::LOCAL_PASSWORD)), user);
        let (answer, _) = scram_up_to_proof(&mut duel, password);
        duel.client(&answer);
        let message = messages(&duel.seen()).remove(0);
        told.push(String::from_utf8_lossy(&message.body).replace(user, "x"));
        assert!(matches!(&duel.finish, Some(Finish::Refused(refusal)) if refusal.code == SqlState::INVALID_PASSWORD));
        assert_eq!((duel.trail(), duel.postgres.logins()), (vec!["refusal(28P01)".into()], 0));
    }
    assert_eq!(told[0], told[1]);
}

#[test]
fn a_password_in_clear_is_asked_for_only_where_it_may_travel_and_a_proof_anywhere() {
    for (auth_type, is_asked) in [(AuthType::Plain, false), (AuthType::Md5, true), (AuthType::ScramSha256, true)] {
        let mut terms = Terms { is_local: false, ..listed(auth_type, plain()) };
        terms.profile.allow_plaintext = AllowPlaintext::Loopback;
        let mut duel = start(terms, corp::LOCAL_USER);
        if is_asked {
            asked(&mut duel);
        } else {
            assert_refused(&mut duel, SqlState::INVALID_AUTHORIZATION);
        }
    }
}

#[test]
fn tokens_do_not_count_where_there_is_a_gate() {
    let mut duel = start(listed(AuthType::Plain, plain()), "alice@corp.example");
    asked(&mut duel);
    let token = corp::token("alice", &["reader"], duel.now);
    duel.client(&front::password(&token));
    assert_refused(&mut duel, SqlState::INVALID_PASSWORD);
}

#[test]
fn one_secret_for_all_and_the_drivers_credentials_for_the_server() {
    let gate = Gate::with_secret(AuthType::ScramSha256, verifier(b"of this tunnel"), &mut Dice::new(1));
    let mut duel = start(terms(gate), "whoever");
    duel.postgres = Postgres::new(&[("whoever", PROVIDED)], 1);
    let (answer, _) = scram_up_to_proof(&mut duel, b"of this tunnel");
    duel.client(&answer);
    assert!(seen(&mut duel).ends_with("Z(I)"));
    duel.client(&front::query("whoami"));
    assert!(seen(&mut duel).contains("D(whoever "));
}

#[test]
fn what_is_no_answer_ends_the_session() {
    for bytes in [
        front::query("select 1"),
        front::password(b"not sasl"),
        vec![b'p', 0, 0, 0, 3],
        vec![b'p', 0x7f, 0xff, 0xff, 0xff],
    ] {
        let mut duel = start(listed(AuthType::ScramSha256, plain()), corp::LOCAL_USER);
        asked(&mut duel);
        duel.client(&bytes);
        assert!(duel.finish.is_some() && duel.postgres.logins() == 0);
    }
    let mut duel = start(listed(AuthType::ScramSha256, plain()), corp::LOCAL_USER);
    let (answer, _) = scram_up_to_proof(&mut duel, corp::LOCAL_PASSWORD);
    duel.client(&answer[..answer.len() - 1]);
    assert!(duel.seen().is_empty() && duel.finish.is_none(), "the rest of it is waited for");
    duel.client(&front::query("x"));
    assert!(duel.finish.is_some(), "and what comes in its place is no proof");
    let mut duel = start(listed(AuthType::Plain, plain()), corp::LOCAL_USER);
    asked(&mut duel);
    duel.client(&front::query("select 1"));
    assert_violation(&mut duel);
}
