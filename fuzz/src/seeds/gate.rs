//! Clients of the proxy's own gate, and lists of users.

use std::sync::Arc;

use gprxy_proto::auth::gate::{Gate, Passage, Question, Step};
use gprxy_proto::auth::md5;
use gprxy_proto::auth::scram::server::Verifier;
use gprxy_proto::auth::scram::{Derivation, ScramClient};
use gprxy_proto::auth::users::{StoredSecret, UserList};
use gprxy_proto::policy::AuthType;
use gprxy_proto::secret::Secret;
use gprxy_proto::testing::dice::Dice;
use gprxy_proto::testing::fuzz::gate::{ROUNDS, SALT};
use gprxy_proto::testing::fuzz::login::{NONCE, PASSWORD};

use super::{Named, after, string};

const PLAIN: u8 = 0;
const MD5: u8 = 1;
const SCRAM: u8 = 2;
const TRUST: u8 = 3;
const HASH_USER: u8 = 4;
const SCRAM_USER: u8 = 8;
const NOBODY: u8 = 12;
const LIST: u8 = 0x80;

pub(super) fn gate() -> Vec<Named> {
    let password = [PASSWORD, b"\0"].concat();
    let md5 = |user: &str| {
        let answer = md5::answer(user.as_bytes(), PASSWORD, [NONCE[0], NONCE[1], NONCE[2], NONCE[3]]);
        [answer.expose(), &b"\0"[..]].concat()
    };
    let said = |setup: u8, turns: &[&[u8]]| after(&[setup], turns.iter().flat_map(string).collect::<Vec<u8>>());
    let initial = sasl(b"n,,n=,r=abc");
    let [first, last] = exchange();
    vec![
        ("plain", said(PLAIN, &[&password])),
        ("plain-against-a-hash", said(PLAIN | HASH_USER, &[&password])),
        ("plain-against-a-verifier", said(PLAIN | SCRAM_USER, &[&password])),
        ("plain-wrong", said(PLAIN, &[b"guess\0"])),
        ("plain-empty", said(PLAIN, &[b"\0"])),
        ("plain-of-nobody", said(PLAIN | NOBODY, &[&password])),
        ("md5", said(MD5, &[&md5("plain")])),
        ("md5-against-a-hash", said(MD5 | HASH_USER, &[&md5("hash")])),
        ("md5-of-nobody", said(MD5 | NOBODY, &[&md5("nobody")])),
        ("trust", said(TRUST, &[])),
        ("trust-of-nobody", said(TRUST | NOBODY, &[])),
        ("scram", said(SCRAM | SCRAM_USER, &[&first, &last])),
        ("scram-empty-first", said(SCRAM | SCRAM_USER, &[b"SCRAM-SHA-256\0\xff\xff\xff\xff", &first[18..], &last])),
        ("scram-of-nobody", said(SCRAM | NOBODY, &[&first, &last])),
        ("scram-of-a-password", said(SCRAM, &[&first, &last])),
        ("scram-of-a-hash", said(SCRAM | HASH_USER, &[&first, &last])),
        ("scram-other-mechanism", said(SCRAM, &[b"SCRAM-SHA-256-PLUS\0\0\0\0\0"])),
        ("scram-channel-binding", said(SCRAM, &[&sasl(b"p=tls-server-end-point,,n=,r=abc")])),
        ("scram-other-identity", said(SCRAM, &[&sasl(b"n,a=postgres,n=,r=abc")])),
        ("scram-length-negative", said(SCRAM, &[b"SCRAM-SHA-256\0\xff\xff\xff\xfe"])),
        ("scram-length-huge", said(SCRAM, &[b"SCRAM-SHA-256\0\x7f\xff\xff\xff"])),
        ("scram-empty-proof", said(SCRAM, &[&initial, b"c=biws,r=abc,p="])),
        ("list", list(b"; users\n\"ann\" \"a\"\"b\"\n\"bob\" \"md5aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\" x\n")),
        ("list-open-quote", list(b"\"ann\n\"bob\" \"x")),
        ("list-bom-and-crlf", list(b"\xef\xbb\xbf\"ann\" \"x\"\r\n")),
        ("list-short-verifier", list(b"\"ann\" \"SCRAM-SHA-256$4096:AAAA$AAAA:AAAA\"")),
    ]
}

fn list(text: &[u8]) -> Vec<u8> {
    after(&[LIST], text)
}

fn sasl(message: &[u8]) -> Vec<u8> {
    // Seeds are small.
    let length = u32::try_from(message.len()).unwrap_or(u32::MAX).to_be_bytes();
    [b"SCRAM-SHA-256\0", &length[..], message].concat()
}

/// Both messages of somebody who knows the password behind the body's verifier.
fn exchange() -> [Vec<u8>; 2] {
    let password = Arc::new(Secret::new(PASSWORD.to_vec()));
    let verifier = Verifier::new(&Derivation::new(&password, SALT, ROUNDS).run());
    let users = UserList::new([("scram", StoredSecret::Scram(Arc::new(verifier)))]);
    let gate = Arc::new(Gate::listed(AuthType::ScramSha256, users, &mut Dice::new(1)));
    let (mut passage, _) = Passage::new(gate, "scram".into(), NONCE);
    let client = ScramClient::new([1; 18]);
    let first = sasl(&client.first_message());
    let step = passage.handle_answer(&Secret::new(first.clone()));
    let Ok(Step::Ask(Question::SaslContinue(challenge))) = step else { unreachable!("an honest first message") };
    let challenge = client.handle_server_first(&challenge);
    let Ok(challenge) = challenge else { unreachable!("an honest challenge") };
    let keys = challenge.derivation(&password).run();
    let Ok((last, _)) = challenge.prove(&keys) else { unreachable!("its own keys") };
    [first, last]
}
