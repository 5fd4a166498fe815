//! No token, password or key is in a log line, an audit line, or on a wire where it does not belong.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use gprxy_proto::testing::law::check;
use gprxy_proto::testing::postgres::Auth;
use gprxy_proto::testing::world::Client;
use gprxy_proto::testing::{corp, logs};

use crate::isolation::{bustle, setup};
use crate::visitor::{Manners, find};

/// The ways in which bytes may be printed.
fn spellings(secret: &[u8]) -> Vec<Vec<u8>> {
    let hex: String = secret.iter().map(|byte| format!("{byte:02x}")).collect();
    let list = format!("{secret:?}");
    let list = list.trim_matches(['[', ']']).to_owned();
    vec![secret.to_vec(), hex.into_bytes(), list.into_bytes(), BASE64.encode(secret).into_bytes()]
}

fn assert_absent(secret: &[u8], place: &str, text: &[u8]) {
    for spelling in spellings(secret) {
        if let Some(at) = find(text, &spelling) {
            let from = at.saturating_sub(80);
            panic!("a secret is in {place}: …{}…", text[from..text.len().min(at + 80)].escape_ascii());
        }
    }
}

#[test]
fn law_secrets_are_nowhere() {
    check("law_secrets", 1000, |seed| {
        logs::capture();
        let auth = [Auth::Scram, Auth::Md5, Auth::Cleartext][usize::try_from(seed % 3).unwrap()];
        let mut setup = setup(seed);
        setup.profile.limits.max_password_bytes = 2000;
        let (mut world, book) = {
            let manners = Manners { vanish: 15, cancel: 15, faults: 10 };
            bustle(seed, manners, setup)
        };
        world.postgres.set_auth(auth);
        world.postgres.set_listening();
        // Some more, whose logins go wrong in every way.
        let now = world.now();
        let mut expired = corp::token("eve", &["reader"], corp::at(gprxy_proto::time::Tick::default()));
        expired.truncate(expired.len() - 5);
        let stranger = corp::token("mallory", &["stranger"], now);
        let long = [&b"eyJ"[..], &b"A".repeat(3000)].concat();
        let bad: Vec<(&str, Vec<u8>)> = vec![
            ("eve@corp.example", expired),
            ("mallory@corp.example", stranger),
            (corp::LOCAL_USER, b"a wrong password of somebody".to_vec()),
            (corp::LOCAL_USER, long),
            (corp::LOCAL_USER, corp::LOCAL_PASSWORD.to_vec()),
        ];
        for (n, (user, secret)) in bad.iter().cloned().enumerate() {
            let book = book.clone();
            world.script(&format!("bad {n}"), async move {
                let mut client = Client::dial("bad");
                let _ = client.log_in(user, &secret, &[]).await;
                book.lock().unwrap().received.push((format!("bad{n}"), client.received().to_vec()));
            });
        }
        world.run();
        world.assert_quiet();
        let trail: Vec<u8> = world.trail().iter().flat_map(|line| format!("{line}\n").into_bytes()).collect();
        let (heard, keys) = (world.postgres.heard(), world.postgres.keys());
        world.end();
        let lines: Vec<u8> = logs::captured().iter().flat_map(|line| format!("{}\n", line.text).into_bytes()).collect();
        let book = book.lock().unwrap();
        let tokens = book.secrets.iter().chain(bad.iter().map(|(_, secret)| secret));
        // A token's signature alone is as bad as the whole: whoever sees it in a log has found the place.
        for token in tokens {
            let tail = token.rsplit(|&byte| byte == b'.').next().unwrap();
            assert_absent(tail, "the log", &lines);
            assert_absent(tail, "the audit trail", &trail);
            for (_, bytes) in &book.received {
                assert_absent(tail, "what a client received", bytes);
            }
            if token.starts_with(b"eyJ") {
                assert_absent(tail, "what the server received", &heard);
            }
        }
        for secret in keys.iter().map(Vec::as_slice).chain([corp::ACCOUNT_PASSWORD]) {
            assert_absent(secret, "the log", &lines);
            assert_absent(secret, "the audit trail", &trail);
            for (_, bytes) in &book.received {
                assert_absent(secret, "what a client received", bytes);
            }
        }
        assert!(!lines.is_empty(), "something was logged");
    });
}
