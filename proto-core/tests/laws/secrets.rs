//! No token, password, key or verifier is in a log line, an audit line, an error, a `Debug` text, or on a wire where it
//! does not belong.

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use gprxy_proto::testing::law::check;
use gprxy_proto::testing::postgres::Auth;
use gprxy_proto::testing::world::{Client, World};
use gprxy_proto::testing::{corp, logs};
use gprxy_proto::time::Tick;
use ring::{digest, hmac, pbkdf2};

use crate::isolation::{any_mode, bustle_with};
use crate::visitor::{Book, Manners, find};

/// The ways in which bytes may be printed.
fn spellings(secret: &[u8]) -> Vec<Vec<u8>> {
    let hex: String = secret.iter().map(|byte| format!("{byte:02x}")).collect();
    let list = format!("{secret:?}");
    let list = list.trim_matches(['[', ']']).to_owned();
    let coded = [STANDARD.encode(secret), URL_SAFE_NO_PAD.encode(secret)];
    let mut all = vec![secret.to_vec(), hex.to_uppercase().into_bytes(), hex.into_bytes(), list.into_bytes()];
    // Padding depends on what follows.
    all.extend(coded.map(|text| text.trim_end_matches('=').as_bytes().to_vec()));
    all.dedup();
    all
}

/// What is not to hold any secret, each place with its name.
struct Places(Vec<(&'static str, Vec<u8>)>);

impl Places {
    fn assert_without(&self, secret: &[u8]) {
        for spelling in spellings(secret) {
            for (place, text) in &self.0 {
                assert_absent(&spelling, place, text);
            }
        }
    }
}

fn assert_absent(secret: &[u8], place: &str, text: &[u8]) {
    if let Some(at) = find(text, secret) {
        let from = at.saturating_sub(80);
        panic!("a secret is in {place}: …{}…", text[from..text.len().min(at + 80)].escape_ascii());
    }
}

/// A token's signature alone is as bad as the whole: whoever sees it in a log has found the place.
fn tail(token: &[u8]) -> &[u8] {
    token.rsplit(|&byte| byte == b'.').next().unwrap_or(token)
}

/// What SCRAM makes of a password for the server of these tests (RFC 5802, section 3).
fn verifiers(password: &[u8]) -> [Vec<u8>; 4] {
    let rounds = std::num::NonZeroU32::new(16).expect("16 is not 0");
    let mut salted = [0; 32];
    pbkdf2::derive(pbkdf2::PBKDF2_HMAC_SHA256, rounds, b"a salt for tests", password, &mut salted);
    let key = hmac::Key::new(hmac::HMAC_SHA256, &salted);
    let client_key = hmac::sign(&key, b"Client Key").as_ref().to_vec();
    let server_key = hmac::sign(&key, b"Server Key").as_ref().to_vec();
    let stored_key = digest::digest(&digest::SHA256, &client_key).as_ref().to_vec();
    [salted.to_vec(), client_key, server_key, stored_key]
}

/// Logins that go wrong in every way.
fn strangers(world: &World, book: &Book) -> Vec<Vec<u8>> {
    let mut expired = corp::token("eve", &["reader"], corp::at(Tick::default()));
    expired.truncate(expired.len() - 5);
    let bad: Vec<(&str, Vec<u8>)> = vec![
        ("eve@corp.example", expired),
        ("mallory@corp.example", corp::token("mallory", &["stranger"], world.now())),
        ("somebody else", corp::token("mallory", &["reader"], world.now())),
        (corp::LOCAL_USER, b"a wrong password of somebody".to_vec()),
        (corp::LOCAL_USER, [&b"eyJ"[..], &b"A".repeat(3000)].concat()),
        (corp::LOCAL_USER, corp::LOCAL_PASSWORD.to_vec()),
    ];
    for (n, (user, secret)) in bad.iter().cloned().enumerate() {
        let book = book.clone();
        world.script(&format!("bad {n}"), async move {
            let mut client = Client::dial("bad");
            let _ = client.log_in(user, &secret, &[]).await;
            book.lock().unwrap().received.push((format!("bad{n}"), client.received().to_vec()));
            client.leave().await;
        });
    }
    bad.into_iter().map(|(_, secret)| secret).collect()
}

/// What prints itself for people who look for a mistake.
fn debug_of(world: &World, tokens: &[Vec<u8>]) -> Vec<u8> {
    let mut all = format!("{:?} {:?}", any_mode(0).profile.databases, world.provider);
    world.shared().inspect(|hub| {
        let keyring = hub.keyring();
        all += &format!("{keyring:?} {:?}", hub.pools.snapshot().collect::<Vec<_>>());
        for token in tokens {
            all += &format!("{:?}", keyring.verify(token, world.now()));
        }
    });
    all.into_bytes()
}

#[test]
fn law_secrets_are_nowhere() {
    check("law_secrets", 1000, |seed| {
        logs::capture();
        let auth = [Auth::Scram, Auth::Md5, Auth::Cleartext][usize::try_from(seed % 3).unwrap()];
        let mut setup = any_mode(seed);
        setup.profile.limits.max_password_bytes = 2000;
        let manners = Manners { vanish: 15, cancel: 15, faults: 10 };
        let (mut world, book) = bustle_with(seed, manners, setup, |world| {
            world.postgres.set_auth(auth);
            world.postgres.set_listening();
        });
        let mut tokens = strangers(&world, &book);
        world.run();
        world.assert_quiet();
        let book = book.lock().unwrap();
        tokens.extend(book.secrets.iter().cloned());
        let debug = debug_of(&world, &tokens);
        let trail: Vec<u8> = world.trail().iter().flat_map(|line| format!("{line}\n").into_bytes()).collect();
        let (heard, server_keys) = (world.postgres.heard(), world.postgres.keys());
        world.end();
        let lines: Vec<u8> = logs::captured().iter().flat_map(|line| format!("{}\n", line.text).into_bytes()).collect();
        assert!(!lines.is_empty(), "something was logged");
        let received: Vec<u8> = book.received.iter().flat_map(|(_, bytes)| bytes.iter().copied()).collect();

        for token in tokens.iter().filter(|token| token.starts_with(b"eyJ")) {
            assert_absent(tail(token), "what the server received", &heard);
        }
        if auth == Auth::Scram {
            // A password is never sent to a server that asks for a proof of it.
            assert_absent(corp::ACCOUNT_PASSWORD, "what the server received", &heard);
        }
        let hidden = Places(vec![("the log", lines), ("the audit trail", trail), ("a Debug text", debug)]);
        // A client's own key has reached that client, so only the other places must not have it.
        for (_, key) in &book.keys {
            hidden.assert_without(key);
        }
        let Places(mut places) = hidden;
        places.push(("what a client received", received));
        let nowhere = Places(places);
        tokens.iter().for_each(|token| nowhere.assert_without(tail(token)));
        // The whole of a server's key: its process id is no secret.
        server_keys.iter().for_each(|key| nowhere.assert_without(&key[4..]));
        for password in [corp::ACCOUNT_PASSWORD, corp::LOCAL_PASSWORD] {
            nowhere.assert_without(password);
            verifiers(password).iter().for_each(|verifier| nowhere.assert_without(verifier));
        }
    });
}
