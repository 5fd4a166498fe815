use postgres_protocol::authentication::sasl::{ChannelBinding, ScramSha256};

use super::*;

const SERVER_FIRST: &str = "r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096";
const SERVER_FINAL: &str = "v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=";

fn password(bytes: &[u8]) -> Arc<Secret<Vec<u8>>> {
    Arc::new(Secret::new(bytes.to_vec()))
}

/// The client of RFC 7677 section 3.
fn rfc_client() -> ScramClient {
    ScramClient::with("user", "rOprNGfwEbeRWgbNEkqO")
}

fn rfc_proof() -> ScramProof {
    let challenge = rfc_client().handle_server_first(SERVER_FIRST.as_bytes()).ok().unwrap();
    let keys = challenge.derivation(&password(b"pencil")).run();
    challenge.prove(&keys).ok().unwrap().1
}

fn first_fault(message: &str) -> ScramFault {
    rfc_client().handle_server_first(message.as_bytes()).err().unwrap()
}

#[test]
fn speaks_the_test_vector_of_rfc_7677() {
    let client = rfc_client();
    assert_eq!(client.first_message(), b"n,,n=user,r=rOprNGfwEbeRWgbNEkqO");
    let challenge = client.handle_server_first(SERVER_FIRST.as_bytes()).ok().unwrap();
    let keys = challenge.derivation(&password(b"pencil")).run();
    let (message, proof) = challenge.prove(&keys).ok().unwrap();
    let expected = "c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,\
                    p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=";
    assert_eq!(message, expected.as_bytes());
    assert_eq!(proof.handle_server_final(SERVER_FINAL.as_bytes()), Ok(()));
}

#[test]
fn a_nonce_is_18_bytes_in_base64() {
    assert_eq!(ScramClient::new([0; NONCE_LEN]).first_message(), b"n,,n=,r=AAAAAAAAAAAAAAAAAAAAAAAA");
}

/// Another implementation gets the same nonce, salt, iterations and password, and must say and accept the same.
fn agree(password_bytes: &[u8], random: &mut fastrand::Rng) {
    let mut oracle = ScramSha256::new(password_bytes, ChannelBinding::unsupported());
    let first = String::from_utf8(oracle.message().to_vec()).unwrap();
    let nonce = first.strip_prefix("n,,n=,r=").unwrap();
    let client = ScramClient::with("", nonce);
    assert_eq!(client.first_message(), first.as_bytes());

    let salt: Vec<u8> = (0..random.usize(1..40)).map(|_| random.u8(..)).collect();
    let server_first = format!("r={nonce}server,s={},i={}", BASE64.encode(salt), random.u32(1..50));
    oracle.update(server_first.as_bytes()).unwrap();
    let challenge = client.handle_server_first(server_first.as_bytes()).ok().unwrap();
    let keys = challenge.derivation(&password(password_bytes)).run();
    let (message, proof) = challenge.prove(&keys).ok().unwrap();
    assert_eq!(String::from_utf8_lossy(&message), String::from_utf8_lossy(oracle.message()));

    let server_final = format!("v={}", BASE64.encode(proof.server_signature.as_ref()));
    oracle.finish(server_final.as_bytes()).unwrap();
    assert_eq!(proof.handle_server_final(server_final.as_bytes()), Ok(()));
}

#[test]
fn agrees_with_another_implementation() {
    let mut random = fastrand::Rng::with_seed(7);
    for _ in 0..60 {
        let password: Vec<u8> = (0..random.usize(1..60)).map(|_| random.u8(..)).collect();
        agree(&password, &mut random);
        let password: String = (0..random.usize(1..30)).map(|_| random.char(..)).collect();
        agree(password.as_bytes(), &mut random);
    }
    let odd: [&[u8]; 8] = [
        b"plain",
        b"with\ttab",
        "pass\u{a0}word".as_bytes(),
        "Ⅸ".as_bytes(),
        "I\u{ad}X".as_bytes(),
        "\u{627}1".as_bytes(),
        b"\xff\xfe",
        "x\u{e000}".as_bytes(),
    ];
    for password in odd {
        agree(password, &mut random);
    }
}

#[test]
fn prepares_only_what_postgresql_prepares() {
    assert!(prepare(b"ascii \x01 even with controls").is_none());
    assert_eq!(prepare("pass\u{a0}word".as_bytes()).unwrap().expose(), b"pass word");
    assert_eq!(prepare("Ⅸ".as_bytes()).unwrap().expose(), b"IX");
    assert!(prepare(b"\xffnot utf-8").is_none());
    assert!(prepare("private \u{e000}".as_bytes()).is_none(), "prohibited characters: the raw bytes");
    assert!(prepare("\u{ad}".as_bytes()).is_none(), "nothing would be left: the raw bytes");
}

#[test]
fn keys_serve_only_their_own_challenge_and_password() {
    let first = |salt: &str, iterations: u32| {
        let message = format!("r=rOprNGfwEbeRWgbNEkqOx,s={salt},i={iterations}");
        rfc_client().handle_server_first(message.as_bytes()).ok().unwrap()
    };
    let pencil = password(b"pencil");
    let keys = first("AAAA", 2).derivation(&pencil).run();
    assert!(first("AAAA", 2).fits(&keys, &pencil));
    assert!(first("AAAA", 2).fits(&keys, &password(b"pencil")), "the same text in another place");
    assert!(!first("AAAA", 2).fits(&keys, &password(b"pencils")));
    assert!(!first("AAAA", 3).fits(&keys, &pencil));
    assert!(!first("AAAB", 2).fits(&keys, &pencil));
    assert!(first("AAAB", 2).prove(&keys).is_err());
    assert!(first("AAAA", 2).prove(&keys).is_ok());
}

#[test]
fn the_servers_nonce_must_extend_ours() {
    for nonce in [
        "",
        "other",
        "rOprNGfwEbeRWgbNEkqO",
        "rOprNGfwEbeRWgbNEkqoX",
        "rOprNGfwEbeRWgbNEkqO x",
        "rOprNGfwEbeRWgbNEkqOä",
    ] {
        assert_eq!(first_fault(&format!("r={nonce},s=AAAA,i=1")), ScramFault::Nonce, "{nonce:?}");
    }
}

#[test]
fn iterations_are_bounded() {
    let with = |count: &str| format!("r=rOprNGfwEbeRWgbNEkqOx,s=AAAA,i={count}");
    for count in ["0", "000", "1000001", "4294967295", "4294967296", "99999999999999999999999999"] {
        assert_eq!(first_fault(&with(count)), ScramFault::Iterations, "{count}");
    }
    for count in ["", "+1", "-1", "1 ", "01", "0x10", "1.5", "٣"] {
        assert_eq!(first_fault(&with(count)), ScramFault::Malformed("iteration count (i=)"), "{count}");
    }
    for count in ["1", "1000000"] {
        assert!(rfc_client().handle_server_first(with(count).as_bytes()).is_ok(), "{count}");
    }
}

#[test]
fn a_first_message_that_is_cut_off_anywhere_is_refused() {
    let whole = "r=rOprNGfwEbeRWgbNEkqOx,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4";
    assert!(rfc_client().handle_server_first(whole.as_bytes()).is_ok());
    for end in 0..whole.len() {
        assert!(rfc_client().handle_server_first(&whole.as_bytes()[..end]).is_err(), "{}", &whole[..end]);
    }
}

#[test]
fn odd_first_messages_are_refused_by_name() {
    let salt = ScramFault::Malformed("salt (s=)");
    assert_eq!(first_fault("r=rOprNGfwEbeRWgbNEkqOx,s=,i=1"), salt);
    assert_eq!(first_fault("r=rOprNGfwEbeRWgbNEkqOx,s=A*AA,i=1"), salt);
    assert_eq!(first_fault("r=rOprNGfwEbeRWgbNEkqOx,i=1,s=AAAA"), salt);
    assert_eq!(first_fault("m=x,r=rOprNGfwEbeRWgbNEkqOx,s=AAAA,i=1"), ScramFault::MandatoryExtension);
    assert_eq!(first_fault("r=rOprNGfwEbeRWgbNEkqOx,s=AAAA,i=1,"), ScramFault::Malformed("extension"));
    assert_eq!(first_fault("r=rOprNGfwEbeRWgbNEkqOx,s=AAAA,i=1,x"), ScramFault::Malformed("extension"));
    assert_eq!(rfc_client().handle_server_first(b"r=\xff").err(), Some(ScramFault::Malformed("UTF-8")));
    let long = format!("r=rOprNGfwEbeRWgbNEkqO{},s=AAAA,i=1", "x".repeat(MAX_MESSAGE));
    assert_eq!(first_fault(&long), ScramFault::TooLong);
    assert!(rfc_client().handle_server_first(b"r=rOprNGfwEbeRWgbNEkqOx,s=AAAA,i=1,z=later,y=").is_ok());
}

#[test]
fn the_server_must_prove_itself() {
    assert_eq!(rfc_proof().handle_server_final(SERVER_FINAL.as_bytes()), Ok(()));
    let verifier = Err(ScramFault::Malformed("verifier (v=)"));
    assert_eq!(rfc_proof().handle_server_final(b""), verifier);
    assert_eq!(rfc_proof().handle_server_final(b"p=AAAA"), verifier);
    assert_eq!(rfc_proof().handle_server_final(b"v=*"), verifier);
    assert_eq!(rfc_proof().handle_server_final(b"v="), Err(ScramFault::ServerSignature));
    let other = SERVER_FINAL.replace("6rri", "7rri");
    assert_eq!(rfc_proof().handle_server_final(other.as_bytes()), Err(ScramFault::ServerSignature));
    let longer = format!("v={}", BASE64.encode([0; 33]));
    assert_eq!(rfc_proof().handle_server_final(longer.as_bytes()), Err(ScramFault::ServerSignature));
}

#[test]
fn a_servers_reason_is_kept_on_one_bounded_line() {
    let refused = |reason: &str| rfc_proof().handle_server_final(format!("e={reason}").as_bytes());
    assert_eq!(refused("invalid-proof"), Err(ScramFault::Refused("invalid-proof".into())));
    assert_eq!(refused("a\nb\x1b[0m"), Err(ScramFault::Refused("ab[0m".into())));
    assert_eq!(refused(&"x".repeat(1000)), Err(ScramFault::Refused("x".repeat(MAX_REASON).into())));
}
