//! A connection before its first ReadyForQuery.

use std::collections::BTreeMap;
use std::num::NonZeroU32;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use ring::{digest, hmac, pbkdf2};

use super::super::wire::{Message, Tape, back};
use super::{Auth, Cluster};
use crate::auth::md5;
use crate::codec::startup::{self, StartupPacket};
use crate::entropy::Entropy as _;

/// Few, because tests log in often; PostgreSQL's own default is 4096.
const ITERATIONS: u32 = 16;

/// How far a login has come.
pub(super) enum Login {
    Opening,
    Password { asked: Asked },
}

pub(super) enum Asked {
    Cleartext,
    Md5([u8; 4]),
    ScramFirst,
    ScramFinal { auth_message: String, nonce: String, salted: [u8; 32] },
}

/// What a step of a login led to.
pub(super) enum Step {
    /// More bytes are needed.
    Wait,
    /// Something was answered.
    Again,
    /// A CancelRequest.
    Cancel(u32, Vec<u8>),
    /// In.
    Done,
    /// Out: what was answered says why.
    Refused,
}

pub(super) struct Entrance {
    pub(super) user: String,
    pub(super) parameters: BTreeMap<String, String>,
    login: Login,
}

impl Entrance {
    pub(super) const fn new() -> Self {
        Self { user: String::new(), parameters: BTreeMap::new(), login: Login::Opening }
    }

    pub(super) fn step(&mut self, tape: &mut Tape, cluster: &mut Cluster, out: &mut Vec<u8>) -> Step {
        match &self.login {
            Login::Opening => self.open(tape, cluster, out),
            Login::Password { .. } => match tape.next() {
                None => Step::Wait,
                Some(message) if message.tag == b'p' => self.answered(&message, cluster, out),
                Some(_) => refuse(out, "08P01", "expected password response"),
            },
        }
    }

    fn open(&mut self, tape: &mut Tape, cluster: &mut Cluster, out: &mut Vec<u8>) -> Step {
        let Some(&length) = tape.rest().first_chunk::<4>() else { return Step::Wait };
        let length = u32::from_be_bytes(length) as usize;
        if !(8..=startup::MAX_STARTUP_PACKET as usize).contains(&length) {
            return Step::Refused;
        }
        let Some(packet) = tape.cut(length) else { return Step::Wait };
        match startup::parse(&packet[4..]) {
            Ok(StartupPacket::Ssl | StartupPacket::GssEnc) => {
                out.push(b'N');
                Step::Again
            }
            Ok(StartupPacket::Cancel { pid, key }) => Step::Cancel(pid, key.to_vec()),
            Ok(StartupPacket::Startup { version: startup::PROTOCOL_3_0, body }) => {
                let Ok(pairs) = startup::parameters(body) else {
                    return refuse(out, "08P01", "invalid startup packet layout");
                };
                let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
                self.parameters = pairs.iter().map(|(name, value)| (text(name), text(value))).collect();
                self.user = self.parameters.remove("user").unwrap_or_default();
                self.parameters.remove("database");
                self.ask(cluster, out)
            }
            _ => refuse(out, "0A000", "unsupported frontend protocol"),
        }
    }

    fn ask(&mut self, cluster: &mut Cluster, out: &mut Vec<u8>) -> Step {
        if cluster.processes.len() >= cluster.max_connections {
            return refuse(out, "53300", "sorry, too many clients already");
        }
        let asked = match cluster.auth {
            Auth::Trust => return Step::Done,
            Auth::Cleartext => {
                out.extend(back::authentication(3, b""));
                Asked::Cleartext
            }
            Auth::Md5 => {
                let mut salt = [0; 4];
                cluster.dice.fill(&mut salt);
                out.extend(back::authentication(5, &salt));
                Asked::Md5(salt)
            }
            Auth::Scram => {
                out.extend(back::authentication(10, b"SCRAM-SHA-256\0\0"));
                Asked::ScramFirst
            }
        };
        self.login = Login::Password { asked };
        Step::Again
    }

    fn answered(&mut self, message: &Message, cluster: &mut Cluster, out: &mut Vec<u8>) -> Step {
        let Login::Password { asked } = std::mem::replace(&mut self.login, Login::Opening) else {
            return Step::Refused;
        };
        let known = cluster.users.get(&self.user).cloned();
        let password = known.unwrap_or_default();
        let given = message.body.strip_suffix(&[0]).unwrap_or(&message.body);
        let good = match asked {
            Asked::Cleartext => !password.is_empty() && given == password,
            Asked::Md5(salt) => {
                !password.is_empty() && given == md5::answer(self.user.as_bytes(), &password, salt).expose().as_slice()
            }
            Asked::ScramFirst => {
                let Some((asked, answer)) = scram_first(&message.body, &password, cluster) else {
                    return refuse(out, "08P01", "malformed SCRAM message");
                };
                out.extend(back::authentication(11, answer.as_bytes()));
                self.login = Login::Password { asked };
                return Step::Again;
            }
            Asked::ScramFinal { auth_message, nonce, salted } => {
                match scram_final(&message.body, &auth_message, &nonce, &salted).filter(|_| !password.is_empty()) {
                    None => false,
                    Some(answer) => {
                        out.extend(back::authentication(12, answer.as_bytes()));
                        true
                    }
                }
            }
        };
        if good {
            return Step::Done;
        }
        refuse(out, "28P01", &format!("password authentication failed for user \"{}\"", self.user))
    }
}

fn refuse(out: &mut Vec<u8>, code: &str, text: &str) -> Step {
    out.extend(back::error("FATAL", code, text));
    Step::Refused
}

fn hmac_of(key: &[u8], data: &[u8]) -> [u8; 32] {
    let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), data);
    let mut bytes = [0; 32];
    bytes.copy_from_slice(tag.as_ref());
    bytes
}

/// RFC 5802, section 3: the server's side, with the password itself at hand.
fn scram_first(body: &[u8], password: &[u8], cluster: &mut Cluster) -> Option<(Asked, String)> {
    let bare = body.strip_prefix(b"SCRAM-SHA-256\0")?.get(4..)?.strip_prefix(b"n,,")?;
    let bare = std::str::from_utf8(bare).ok()?;
    let client_nonce = bare.split(',').find_map(|part| part.strip_prefix("r="))?;
    let mut random = [0; 18];
    cluster.dice.fill(&mut random);
    // PostgreSQL has one salt for each user; this server has one at all.
    let salt = b"a salt for tests";
    let nonce = format!("{client_nonce}{}", BASE64.encode(random));
    let first = format!("r={nonce},s={},i={ITERATIONS}", BASE64.encode(salt));
    let mut salted = [0; 32];
    let rounds = NonZeroU32::new(ITERATIONS)?;
    pbkdf2::derive(pbkdf2::PBKDF2_HMAC_SHA256, rounds, salt, password, &mut salted);
    let auth_message = format!("{bare},{first}");
    Some((Asked::ScramFinal { auth_message, nonce, salted }, first))
}

fn scram_final(body: &[u8], auth_message: &str, nonce: &str, salted: &[u8; 32]) -> Option<String> {
    let message = std::str::from_utf8(body).ok()?;
    let (without_proof, proof) = message.rsplit_once(",p=")?;
    if without_proof != format!("c=biws,r={nonce}") {
        return None;
    }
    let auth_message = format!("{auth_message},{without_proof}");
    let client_key = hmac_of(salted, b"Client Key");
    let stored_key = digest::digest(&digest::SHA256, &client_key);
    let signature = hmac_of(stored_key.as_ref(), auth_message.as_bytes());
    let expected: Vec<u8> = client_key.iter().zip(signature).map(|(a, b)| a ^ b).collect();
    if BASE64.decode(proof).ok()? != expected {
        return None;
    }
    let server_signature = hmac_of(&hmac_of(salted, b"Server Key"), auth_message.as_bytes());
    Some(format!("v={}", BASE64.encode(server_signature)))
}
