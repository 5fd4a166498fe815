//! SCRAM, the client's side, against servers that do not know the password.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use ring::{hmac, pbkdf2};

use super::cuts::Script;
use super::login::{MAX_ITERATIONS, NONCE, PASSWORD};
use crate::auth::scram::{MAX_MESSAGE, ScramClient};
use crate::secret::Secret;

/// The server's first message behind its length in two bytes, and then its last one.
pub fn scram(data: &[u8]) {
    let mut script = Script::new(data);
    let (first, last) = (script.string(), script.rest());
    let client = ScramClient::new(NONCE);
    let ours = client.first_message();
    let challenge = match client.handle_server_first(first) {
        Ok(challenge) => challenge,
        Err(fault) => {
            let told = fault.to_string();
            assert!(told.len() < 200 && !told.contains(char::is_control), "{told}");
            return;
        }
    };
    assert!(first.len() <= MAX_MESSAGE);
    let password = Arc::new(Secret::new(PASSWORD.to_vec()));
    let derivation = challenge.derivation(&password);
    if derivation.iterations() > MAX_ITERATIONS {
        return;
    }
    let keys = derivation.run();
    assert!(challenge.fits(&keys, &password) && !challenge.fits(&keys, &Arc::new(Secret::new(b"other".to_vec()))));
    let Ok((answer, proof)) = challenge.prove(&keys) else { panic!("its own keys do not fit") };
    assert!(answer.len() < first.len() + 100 && answer.starts_with(b"c=biws,r="));
    let signature = server_signature(&ours[3..], first, &answer);
    if proof.handle_server_final(last).is_ok() {
        let expected = format!("v={}", BASE64.encode(signature));
        assert!(last.starts_with(expected.as_bytes()), "believed a server that does not know the password");
    }
}

/// ServerSignature of RFC 5802 section 3, from the messages and the password alone.
fn server_signature(first_bare: &[u8], server_first: &[u8], client_final: &[u8]) -> hmac::Tag {
    let attribute = |name: &str| {
        let text = std::str::from_utf8(server_first).expect("it was accepted");
        text.split(',').find_map(|part| part.strip_prefix(name)).expect("it was accepted")
    };
    let salt = BASE64.decode(attribute("s=")).expect("it was accepted");
    let rounds = attribute("i=").parse().expect("it was accepted");
    let mut salted = [0; 32];
    pbkdf2::derive(pbkdf2::PBKDF2_HMAC_SHA256, rounds, &salt, PASSWORD, &mut salted);
    let sign = |key: &[u8], data: &[u8]| hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), data);
    let proof_at = memchr::memmem::rfind(client_final, b",p=").expect("it has a proof");
    let auth_message = [first_bare, server_first, &client_final[..proof_at]].join(&b","[..]);
    sign(sign(&salted, b"Server Key").as_ref(), &auth_message)
}
