use postgres_protocol::authentication::md5_hash;
use postgres_protocol::authentication::sasl::{ChannelBinding, ScramSha256};

use super::*;
use crate::auth::md5;
use crate::auth::scram::server::Verifier;
use crate::auth::scram::{Derivation, NONCE_LEN};
use crate::fault::Violation;
use crate::testing::dice::Dice;

mod alike;

const PASSWORD: &str = "pencil";

fn verifier(password: &str) -> StoredSecret {
    let password = Arc::new(Secret::new(password.as_bytes().to_vec()));
    let keys = Derivation::new(&password, b"0123456789abcdef", NonZeroU32::new(ROUNDS).unwrap()).run();
    StoredSecret::Scram(Arc::new(Verifier::new(&keys)))
}

fn gate(auth_type: AuthType) -> Arc<Gate> {
    let plain = |password: &str| StoredSecret::parse(password.as_bytes());
    let hash = StoredSecret::Md5(Arc::new(md5::stored(b"hash", PASSWORD.as_bytes())));
    let users = [("plain", plain(PASSWORD)), ("hash", hash), ("scram", verifier(PASSWORD)), ("empty", plain(""))];
    Arc::new(Gate::listed(auth_type, UserList::new(users), &mut Dice::new(3)))
}

fn answer(bytes: &[u8]) -> Secret<Vec<u8>> {
    Secret::new(bytes.to_vec())
}

fn text(password: &str) -> Secret<Vec<u8>> {
    answer(&[password.as_bytes(), b"\0"].concat())
}

fn initial(message: &[u8]) -> Secret<Vec<u8>> {
    let length = u32::try_from(message.len()).unwrap().to_be_bytes();
    answer(&[b"SCRAM-SHA-256\0", &length[..], message].concat())
}

/// What a client saw, and how it ended: `Err` has the refusal.
type Seen = (Vec<String>, Result<Box<Admission>, Refusal>);

/// The rounds of verifiers.
const ROUNDS: u32 = 10;

/// An honest client with this password.
fn try_as(gate: &Arc<Gate>, user: &str, password: &str) -> Seen {
    go(Passage::new(gate.clone(), user.into(), [9; NONCE_LEN]), user, password)
}

fn go(begun: (Passage, Step), user: &str, password: &str) -> Seen {
    counted(begun, user, password).0
}

/// What a client saw, and how many rounds of derivations were done for that.
fn counted((mut passage, mut step): (Passage, Step), user: &str, password: &str) -> (Seen, u32) {
    let mut rounds = 0;
    let mut client = ScramSha256::new(password.as_bytes(), ChannelBinding::unsupported());
    let mut seen = Vec::new();
    loop {
        step = match step {
            Step::Ask(question) => {
                seen.push(match &question {
                    Question::SaslContinue(message) => {
                        let message = String::from_utf8_lossy(message).into_owned();
                        message.split(',').filter(|part| !part.starts_with("r=")).collect::<Vec<_>>().join(",")
                    }
                    question => format!("{question:?}"),
                });
                let given = match question {
                    Question::Cleartext => text(password),
                    Question::Md5 { salt } => text(&md5_hash(user.as_bytes(), password.as_bytes(), salt)),
                    Question::Sasl => initial(client.message()),
                    Question::SaslContinue(message) => {
                        client.update(&message).unwrap();
                        answer(client.message())
                    }
                };
                passage.handle_answer(&given).unwrap()
            }
            Step::Derive(derivation) => {
                assert!(passage.handle_answer(&text("early")).is_err(), "nothing is judged meanwhile");
                rounds += derivation.iterations();
                passage.handle_derived(derivation.run()).unwrap()
            }
            Step::Admitted(admission) => {
                if let Some(message) = &admission.sasl_final {
                    client.finish(message).unwrap();
                }
                return ((seen, Ok(admission)), rounds);
            }
            Step::Refused(refusal) => return ((seen, Err(refusal)), rounds),
        }
    }
}

fn is_in(gate: &Arc<Gate>, user: &str, password: &str) -> bool {
    try_as(gate, user, password).1.is_ok()
}

#[test]
fn each_way_takes_the_secrets_that_it_can_check() {
    for (auth_type, user, expected) in [
        (AuthType::Plain, "plain", true),
        (AuthType::Plain, "hash", true),
        (AuthType::Plain, "scram", true),
        (AuthType::Md5, "plain", true),
        (AuthType::Md5, "hash", true),
        (AuthType::Md5, "scram", true),
        (AuthType::ScramSha256, "plain", true),
        (AuthType::ScramSha256, "hash", false),
        (AuthType::ScramSha256, "scram", true),
    ] {
        let gate = gate(auth_type);
        // The second time, a verifier that was made for the first is there.
        for _ in 0..2 {
            assert_eq!(is_in(&gate, user, PASSWORD), expected, "{auth_type:?} {user}");
            for wrong in ["Pencil", "pencil ", "pencils", "x"] {
                assert!(!is_in(&gate, user, wrong), "{auth_type:?} {user} {wrong}");
            }
        }
        for user in ["empty", "nobody", "", "PLAIN"] {
            assert!(!is_in(&gate, user, PASSWORD) && !is_in(&gate, user, ""), "{auth_type:?} {user}");
        }
    }
}

#[test]
fn a_hash_or_verifier_is_not_the_password() {
    let list = "\"hash\" \"md5123456789012345678901234567890ab\"";
    let gate = Gate::listed(AuthType::Plain, UserList::parse(list.as_bytes()).unwrap(), &mut Dice::new(1));
    assert!(!is_in(&Arc::new(gate), "hash", "md5123456789012345678901234567890ab"));
}

#[test]
fn trust_knows_its_users_and_asks_nothing() {
    let gate = gate(AuthType::Trust);
    for user in ["plain", "hash", "scram", "empty"] {
        let (seen, end) = try_as(&gate, user, "");
        assert!(seen.is_empty());
        let who = end.ok().unwrap().who;
        assert_eq!((&*who.identity().subject, who.identity().method), (user, Method::Trust));
    }
    assert_eq!(try_as(&gate, "nobody", "").1.err().unwrap().code, SqlState::INVALID_AUTHORIZATION);
}

#[test]
fn the_challenge_of_a_password_in_clear_does_not_change_when_its_verifier_is_made() {
    let gate = gate(AuthType::ScramSha256);
    let before = try_as(&gate, "plain", "wrong").0;
    assert!(is_in(&gate, "plain", PASSWORD));
    assert_eq!(try_as(&gate, "plain", "wrong").0, before);
}

#[test]
fn what_they_have_for_the_server_is_what_is_known_of_them() {
    let backing = |auth_type, user| match try_as(&gate(auth_type), user, PASSWORD).1.ok().unwrap().backing {
        Backing::Account(account) => {
            assert_eq!(&*account.name, user);
            if account.password.is_some() { "password" } else { "nothing" }
        }
        Backing::Passed(Credential::Keys(_)) => "keys",
        Backing::Passed(Credential::Md5(_)) => "hash",
        Backing::Passed(Credential::Verifier) => "a verifier without keys",
        Backing::Passed(_) => "something else",
        Backing::Provided => "provided",
    };
    for (auth_type, user, expected) in [
        (AuthType::ScramSha256, "plain", "password"),
        (AuthType::ScramSha256, "scram", "keys"),
        (AuthType::Md5, "scram", "keys"),
        (AuthType::Md5, "hash", "hash"),
        (AuthType::Plain, "scram", "keys"),
        (AuthType::Plain, "hash", "hash"),
        (AuthType::Trust, "plain", "password"),
        (AuthType::Trust, "hash", "hash"),
        (AuthType::Trust, "scram", "a verifier without keys"),
        (AuthType::Trust, "empty", "nothing"),
    ] {
        assert_eq!(backing(auth_type, user), expected, "{auth_type:?} {user}");
    }
}

#[test]
fn one_secret_for_any_name() {
    let gate = Arc::new(Gate::with_secret(AuthType::ScramSha256, verifier(PASSWORD), &mut Dice::new(1)));
    for user in ["ann@corp.example", "reader", "x"] {
        let admission = try_as(&gate, user, PASSWORD).1.ok().unwrap();
        assert!(matches!(admission.backing, Backing::Provided));
        assert_eq!(&*admission.who.identity().user, user);
        assert!(!is_in(&gate, user, "wrong"));
    }
    let open = Arc::new(Gate::open(&mut Dice::new(1)));
    assert!(matches!(try_as(&open, "anybody", "").1.ok().unwrap().backing, Backing::Provided));
}

#[test]
fn a_socket_of_one_user_is_for_nobody_else() {
    let gate = Gate::for_peer(1000, &mut Dice::new(1));
    assert!(gate.refuse_peer(Some(1000)).is_none());
    for other in [Some(0), Some(1001), None] {
        assert_eq!(gate.refuse_peer(other).unwrap().code, SqlState::INVALID_AUTHORIZATION, "{other:?}");
    }
    assert!(Gate::open(&mut Dice::new(1)).refuse_peer(None).is_none());
    assert!(is_in(&Arc::new(gate), "anybody", ""));
}

/// A passage that has asked this.
fn asked(auth_type: AuthType, user: &str) -> Passage {
    Passage::new(gate(auth_type), user.into(), [9; NONCE_LEN]).0
}

#[test]
fn messages_that_are_none_end_it() {
    for auth_type in [AuthType::Plain, AuthType::Md5] {
        for body in [&b""[..], b"no end", b"two\0ends\0"] {
            assert_eq!(asked(auth_type, "plain").handle_answer(&answer(body)).err(), Some(Violation::Malformed));
        }
    }
    for body in [
        &b""[..],
        b"SCRAM-SHA-256",
        b"SCRAM-SHA-256\0",
        b"SCRAM-SHA-256\0\0\0\0",
        b"SCRAM-SHA-256\0\0\0\0\x05n,,",
        b"SCRAM-SHA-256\0\0\0\0\x01n,,",
        b"SCRAM-SHA-256\0\xff\xff\xff\xffn,,n=,r=x",
        b"SCRAM-SHA-256\0\xff\xff\xff\xfe",
        b"SCRAM-SHA-256\0\x7f\xff\xff\xff",
    ] {
        let end = asked(AuthType::ScramSha256, "plain").handle_answer(&answer(body));
        assert_eq!(end.err(), Some(Violation::Malformed), "{}", body.escape_ascii());
    }
    for mechanism in [&b"SCRAM-SHA-256-PLUS\0\0\0\0\0"[..], b"PLAIN\0\0\0\0\0", b"\0\0\0\0\0"] {
        let end = asked(AuthType::ScramSha256, "plain").handle_answer(&answer(mechanism));
        assert!(matches!(end, Ok(Step::Refused(refusal)) if refusal.code == SqlState::PROTOCOL_VIOLATION));
    }
    let end = asked(AuthType::ScramSha256, "plain").handle_answer(&initial(b"n,a=root,n=,r=x"));
    assert!(matches!(end, Ok(Step::Refused(refusal)) if refusal.code == SqlState::FEATURE_NOT_SUPPORTED));
}

#[test]
fn a_first_message_may_come_one_later() {
    let mut passage = asked(AuthType::ScramSha256, "scram");
    let step = passage.handle_answer(&answer(b"SCRAM-SHA-256\0\xff\xff\xff\xff")).unwrap();
    assert!(matches!(step, Step::Ask(Question::SaslContinue(empty)) if empty.is_empty()));
    let step = passage.handle_answer(&answer(b"n,,n=,r=abc")).unwrap();
    assert!(matches!(step, Step::Ask(Question::SaslContinue(message)) if message.starts_with(b"r=abc")));
}

#[test]
fn answers_are_bounded_and_late_derivations_change_nothing() {
    assert_eq!(asked(AuthType::Plain, "plain").max_answer(100), 101);
    assert!(asked(AuthType::ScramSha256, "plain").max_answer(1 << 20) < 5000);
    let keys = || Derivation::new(&Arc::new(Secret::new(b"x".to_vec())), b"s", NonZeroU32::MIN).run();
    let mut passage = asked(AuthType::Plain, "plain");
    assert!(passage.handle_derived(keys()).is_none());
    assert!(matches!(passage.handle_answer(&text(PASSWORD)), Ok(Step::Admitted(_))));
    assert!(passage.handle_derived(keys()).is_none());
    assert_eq!(passage.handle_answer(&text(PASSWORD)).err(), Some(Violation::OutOfStep));
}

/// For somebody who was looked up: with `secret`, or (`None`) without being found.
fn found(gate: &Arc<Gate>, user: &str, secret: Option<StoredSecret>) -> (Passage, Step) {
    Passage::of_looked_up(gate.clone(), user.into(), secret, [3; NONCE_LEN])
}

/// What is asked of them, and whether they get in.
fn try_found(gate: &Arc<Gate>, user: &str, secret: Option<StoredSecret>, password: &str) -> (Vec<String>, bool) {
    let (asked, end) = go(found(gate, user, secret), user, password);
    (asked, end.is_ok())
}

#[test]
fn who_was_looked_up_is_asked_as_one_of_the_list() {
    let hash = StoredSecret::Md5(Arc::new(md5::stored(b"found", PASSWORD.as_bytes())));
    let plain = StoredSecret::parse(PASSWORD.as_bytes());
    for (auth_type, secret) in [
        (AuthType::Plain, plain.clone()),
        (AuthType::Plain, hash.clone()),
        (AuthType::Plain, verifier(PASSWORD)),
        (AuthType::Md5, plain.clone()),
        (AuthType::Md5, hash),
        (AuthType::Md5, verifier(PASSWORD)),
        (AuthType::ScramSha256, plain),
        (AuthType::ScramSha256, verifier(PASSWORD)),
    ] {
        let gate = gate(auth_type);
        assert!(!gate.knows("found") && gate.knows("plain"));
        assert!(try_found(&gate, "found", Some(secret.clone()), PASSWORD).1, "{auth_type:?}");
        assert!(!try_found(&gate, "found", Some(secret), "wrong").1, "{auth_type:?}");
        assert!(!is_in(&gate, "found", PASSWORD), "the gate keeps nothing of it");
    }
    let trusting = gate(AuthType::Trust);
    assert!(try_found(&trusting, "found", Some(StoredSecret::parse(b"")), "").1);
    assert!(!try_found(&trusting, "found", None, "").1);
}
