//! The proxy's own gate: lists of any content, and clients who do not know the password.

use std::num::NonZeroU32;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use ring::{digest, hmac, pbkdf2};

use super::cuts::Script;
use super::login::{NONCE, PASSWORD};
use crate::auth::gate::{Gate, Passage, Question, Step};
use crate::auth::md5;
use crate::auth::scram::Derivation;
use crate::auth::scram::server::Verifier;
use crate::auth::users::{StoredSecret, UserList};
use crate::fault::Refusal;
use crate::policy::AuthType;
use crate::secret::Secret;
use crate::testing::dice::Dice;

/// The salt of the verifier.
pub const SALT: &[u8] = b"0123456789abcdef";
/// Its rounds. The compiler unwraps them.
pub const ROUNDS: NonZeroU32 = NonZeroU32::new(8).unwrap();
/// Users with the password in clear, as a hash, as a verifier, and one who does not exist.
const USERS: [&str; 4] = ["plain", "hash", "scram", "nobody"];

/// Two bits of the first byte for how the gate asks and two for who is there, then the client's messages, each behind its
/// length in two bytes; with the highest bit, the rest is a list of users.
pub fn gate(data: &[u8]) {
    let mut script = Script::new(data);
    let setup = script.byte();
    if setup & 0x80 != 0 {
        return list(script.rest());
    }
    let auth_type = [AuthType::Plain, AuthType::Md5, AuthType::ScramSha256, AuthType::Trust][usize::from(setup & 3)];
    let user = USERS[usize::from(setup >> 2 & 3)];
    let mut client = Client { user, said: Vec::new(), heard: Vec::new(), admitted: false };
    let gate = Arc::new(Gate::listed(auth_type, users(), &mut Dice::new(1)));
    client.play(gate, script);
    if client.admitted {
        assert!(user != "nobody", "somebody who does not exist was let in");
        assert!(auth_type == AuthType::Trust || client.knew_the_password(), "without the password");
    }
}

fn users() -> UserList {
    let keys = Derivation::new(&Arc::new(Secret::new(PASSWORD.to_vec())), SALT, ROUNDS).run();
    UserList::new([
        ("plain", StoredSecret::parse(PASSWORD)),
        ("hash", StoredSecret::Md5(Arc::new(md5::stored(b"hash", PASSWORD)))),
        ("scram", StoredSecret::Scram(Arc::new(Verifier::new(&keys)))),
    ])
}

struct Client {
    user: &'static str,
    said: Vec<Vec<u8>>,
    heard: Vec<Question>,
    admitted: bool,
}

impl Client {
    fn play(&mut self, gate: Arc<Gate>, mut script: Script<'_>) {
        let (mut passage, mut step) = Passage::new(gate, self.user.into(), NONCE);
        loop {
            step = match step {
                Step::Ask(question) => {
                    self.heard.push(question);
                    if script.is_over() {
                        return;
                    }
                    let answer = Secret::new(script.string().to_vec());
                    self.said.push(answer.expose().clone());
                    let Ok(step) = passage.handle_answer(&answer) else { return };
                    step
                }
                Step::Derive(derivation) => passage.handle_derived(derivation.run()).expect("it was asked for"),
                Step::Admitted(_) => {
                    self.admitted = true;
                    return;
                }
                Step::Refused(refusal) => return sound(&refusal),
            };
        }
    }

    /// Worked out from what was said and heard alone.
    fn knew_the_password(&self) -> bool {
        match self.heard.first() {
            Some(Question::Cleartext) => self.said[0] == [PASSWORD, b"\0"].concat(),
            Some(Question::Md5 { salt }) => {
                let right = md5::answer(self.user.as_bytes(), PASSWORD, *salt);
                self.said[0] == [right.expose(), &b"\0"[..]].concat()
            }
            Some(_) => self.proved(),
            None => false,
        }
    }

    fn proved(&self) -> bool {
        let last = self.said.last().expect("something was said");
        // A mechanism without its first message is answered by an empty challenge.
        let (challenge, first) = match &self.heard[..] {
            [_, Question::SaslContinue(challenge)] => (challenge, &self.said[0][18..]),
            [_, _, Question::SaslContinue(challenge)] => (challenge, &self.said[1][..]),
            _ => return false,
        };
        let challenge = std::str::from_utf8(challenge).expect("ours");
        let attribute = |name| challenge.split(',').find_map(|part| part.strip_prefix(name)).expect("ours");
        let salt = BASE64.decode(attribute("s=")).expect("ours");
        let rounds = attribute("i=").parse().expect("ours");
        let mut salted = [0; 32];
        pbkdf2::derive(pbkdf2::PBKDF2_HMAC_SHA256, rounds, &salt, PASSWORD, &mut salted);
        let sign = |key: &[u8], data: &[u8]| hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), data);
        let client_key = sign(&salted, b"Client Key");
        let stored_key = digest::digest(&digest::SHA256, client_key.as_ref());
        let proof_at = memchr::memmem::rfind(last, b",p=").expect("it was accepted");
        let auth_message = [&first[3..], challenge.as_bytes(), &last[..proof_at]].join(&b","[..]);
        let signature = sign(stored_key.as_ref(), &auth_message);
        let right: Vec<u8> = client_key.as_ref().iter().zip(signature.as_ref()).map(|(a, b)| a ^ b).collect();
        BASE64.decode(&last[proof_at + 3..]).is_ok_and(|proof| proof == right)
    }
}

fn sound(refusal: &Refusal) {
    assert!(refusal.message.len() < 200 && !refusal.message.contains(char::is_control), "{refusal}");
}

fn list(text: &[u8]) {
    let lines = memchr::memchr_iter(b'\n', text).count() + 1;
    match UserList::parse(text) {
        Ok(list) => assert!(list.len() <= lines),
        Err(problems) => {
            assert!((1..=20).contains(&problems.len()));
            assert!(problems.windows(2).all(|pair| pair[0].line < pair[1].line));
            assert!(problems.iter().all(|problem| (1..=lines).contains(&problem.line)));
        }
    }
}
