use postgres_protocol::authentication::sasl::{ChannelBinding, ScramSha256};

use super::super::MAX_MESSAGE;
use super::*;

/// The exchange of RFC 7677 section 3.
const CLIENT_FIRST: &str = "n,,n=user,r=rOprNGfwEbeRWgbNEkqO";
const SERVER_FIRST: &str = "r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096";
const CLIENT_FINAL: &str = "c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,\
                            p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=";
const SERVER_FINAL: &str = "v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=";

fn keys(password: &[u8], salt: &[u8], iterations: u32) -> ScramKeys {
    let password = Arc::new(Secret::new(password.to_vec()));
    Derivation::new(&password, salt, NonZeroU32::new(iterations).unwrap()).run()
}

fn rfc_verifier() -> Verifier {
    Verifier::new(&keys(b"pencil", &BASE64.decode("W22ZaJ0SNY7soEsUEjb6gQ==").unwrap(), 4096))
}

fn rfc_challenge() -> ServerChallenge {
    let server = ScramServer::with("%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0");
    let verifier = rfc_verifier();
    let (answer, challenge) =
        server.handle_client_first(CLIENT_FIRST.as_bytes(), verifier.salt(), verifier.iterations()).ok().unwrap();
    assert_eq!(answer, SERVER_FIRST.as_bytes());
    challenge
}

fn first_fault(message: &[u8]) -> ClientFault {
    ScramServer::new([1; NONCE_LEN]).handle_client_first(message, b"salt", DEFAULT_ITERATIONS).err().unwrap()
}

fn final_fault(message: &[u8]) -> ClientFault {
    rfc_challenge().handle_client_final(message).err().unwrap()
}

#[test]
fn speaks_the_test_vector_of_rfc_7677() {
    let proof = rfc_challenge().handle_client_final(CLIENT_FINAL.as_bytes()).ok().unwrap();
    let proven = proof.check(&rfc_verifier()).unwrap();
    assert_eq!(proven.server_final, SERVER_FINAL.as_bytes());
    // What the client has shown serves another server with the same verifier.
    assert!(rfc_verifier().is_of(&proven.keys));
    assert!(proven.keys.password.is_none());
}

#[test]
fn a_wrong_proof_of_any_bit_is_none() {
    let (front, proof) = CLIENT_FINAL.rsplit_once("p=").unwrap();
    let proof = BASE64.decode(proof).unwrap();
    for bit in 0..256 {
        let mut wrong = proof.clone();
        wrong[bit / 8] ^= 1 << (bit % 8);
        let message = format!("{front}p={}", BASE64.encode(wrong));
        let proof = rfc_challenge().handle_client_final(message.as_bytes()).ok().unwrap();
        assert!(proof.check(&rfc_verifier()).is_none(), "bit {bit}");
    }
    let other = Verifier::new(&keys(b"pencils", rfc_verifier().salt(), 4096));
    let proof = rfc_challenge().handle_client_final(CLIENT_FINAL.as_bytes()).ok().unwrap();
    assert!(proof.check(&other).is_none());
}

#[test]
fn agrees_with_another_implementation() {
    let mut random = fastrand::Rng::with_seed(11);
    for round in 0..60 {
        let password: Vec<u8> = match round % 3 {
            0 => (0..random.usize(1..60)).map(|_| random.u8(..)).collect(),
            1 => (0..random.usize(1..30)).map(|_| random.char(..)).collect::<String>().into_bytes(),
            // SASLprep changes these (RFC 4013).
            _ => "pass\u{a0}word Ⅸ I\u{ad}X".into(),
        };
        let salt: Vec<u8> = (0..random.usize(1..40)).map(|_| random.u8(..)).collect();
        let verifier = Verifier::new(&keys(&password, &salt, random.u32(1..50)));
        for (given, is_right) in [(password.clone(), true), ([&password[..], b"x"].concat(), false)] {
            let binding = if random.bool() { ChannelBinding::unsupported() } else { ChannelBinding::unrequested() };
            let mut client = ScramSha256::new(&given, binding);
            let server = ScramServer::new(std::array::from_fn(|_| random.u8(..)));
            let (first, challenge) =
                server.handle_client_first(client.message(), verifier.salt(), verifier.iterations()).ok().unwrap();
            client.update(&first).unwrap();
            let proof = challenge.handle_client_final(client.message()).ok().unwrap();
            match proof.check(&verifier) {
                Some(proven) => {
                    assert!(is_right);
                    client.finish(&proven.server_final).unwrap();
                }
                None => assert!(!is_right),
            }
        }
    }
}

#[test]
fn reads_verifiers_as_postgresql_writes_them() {
    let keys = keys(b"pencil", b"0123456789abcdef", 4096);
    let text = |iterations: &str, salt: &[u8], stored: &[u8], server: &[u8]| {
        let [salt, stored, server] = [salt, stored, server].map(|bytes| BASE64.encode(bytes));
        format!("SCRAM-SHA-256${iterations}:{salt}${stored}:{server}")
    };
    let stored = hash(keys.client_key.expose());
    let good = text("4096", b"0123456789abcdef", stored.expose(), keys.server_key.expose());
    let verifier = Verifier::parse(good.as_bytes()).unwrap();
    assert!(verifier.is_of(&keys));
    assert!(verifier.is_of(&verifier.derivation(&Arc::new(Secret::new(b"pencil".to_vec()))).run()));
    assert!(!verifier.is_of(&verifier.derivation(&Arc::new(Secret::new(b"pen".to_vec()))).run()));
    for end in 0..good.len() {
        assert!(Verifier::parse(&good.as_bytes()[..end]).is_none(), "{}", &good[..end]);
    }
    for bad in [
        text("0", b"salt", &[1; 32], &[1; 32]),
        text("-1", b"salt", &[1; 32], &[1; 32]),
        text("1000001", b"salt", &[1; 32], &[1; 32]),
        text("1", b"", &[1; 32], &[1; 32]),
        text("1", &[1; 1025], &[1; 32], &[1; 32]),
        text("1", b"salt", &[1; 31], &[1; 32]),
        text("1", b"salt", &[1; 32], &[1; 33]),
        text("1", b"salt", &[1; 32], &[1; 32]).to_lowercase(),
        format!("{good}:AA=="),
        format!(" {good}"),
    ] {
        assert!(Verifier::parse(bad.as_bytes()).is_none(), "{bad}");
    }
    assert!(Verifier::parse(b"\xff").is_none());
}

#[test]
fn a_first_message_must_be_one() {
    for (message, fault) in [
        (&b""[..], ClientFault::Malformed("gs2 header")),
        (b"n", ClientFault::Malformed("gs2 header")),
        (b"n,", ClientFault::Malformed("gs2 header")),
        (b"x,,n=,r=abc", ClientFault::Malformed("gs2 header")),
        (b"n,x,n=,r=abc", ClientFault::Malformed("gs2 header")),
        (b"p=tls-server-end-point,,n=,r=abc", ClientFault::ChannelBinding),
        (b"n,a=admin,n=,r=abc", ClientFault::AuthorizationIdentity),
        (b"n,,", ClientFault::Malformed("user name (n=)")),
        (b"n,,r=abc", ClientFault::Malformed("user name (n=)")),
        (b"n,,m=x,n=,r=abc", ClientFault::MandatoryExtension),
        (b"n,,n=ann", ClientFault::Malformed("nonce (r=)")),
        (b"n,,n=,r=", ClientFault::Malformed("nonce (r=)")),
        (b"n,,n=,r=a b", ClientFault::Malformed("nonce (r=)")),
        ("n,,n=,r=ä".as_bytes(), ClientFault::Malformed("nonce (r=)")),
        (b"n,,n=,r=abc,", ClientFault::Malformed("extension")),
        (b"n,,n=,r=abc,1=x", ClientFault::Malformed("extension")),
        (b"n,,n=,r=\xff", ClientFault::Malformed("UTF-8")),
        (&[b'n'; MAX_MESSAGE + 1], ClientFault::TooLong),
    ] {
        assert_eq!(first_fault(message), fault, "{}", message.escape_ascii());
    }
    let accepted = |message: &str| {
        ScramServer::new([1; NONCE_LEN]).handle_client_first(message.as_bytes(), b"s", DEFAULT_ITERATIONS).is_ok()
    };
    assert!(accepted("y,,n=,r=abc") && accepted("n,,n=whoever=2Cit=3Dis,r=abc,x=ignored"));
}

#[test]
fn a_final_message_must_belong_to_the_first() {
    for (message, fault) in [
        (String::new(), ClientFault::Malformed("proof (p=)")),
        (CLIENT_FINAL.replace("biws", "eSws"), ClientFault::Malformed("channel binding (c=)")),
        (CLIENT_FINAL.replace("biws", "cD10bHM"), ClientFault::Malformed("channel binding (c=)")),
        (CLIENT_FINAL.replace("k0,", "k1,"), ClientFault::Nonce),
        (CLIENT_FINAL.replace("r=rOpr", "r="), ClientFault::Nonce),
        (CLIENT_FINAL.replace("r=", "x="), ClientFault::Malformed("nonce (r=)")),
        (CLIENT_FINAL.replace("p=dHzb", "p="), ClientFault::Malformed("proof (p=)")),
        (CLIENT_FINAL.replace(",p=", ",q="), ClientFault::Malformed("proof (p=)")),
        (format!("{CLIENT_FINAL},x=behind"), ClientFault::Malformed("proof (p=)")),
    ] {
        assert_eq!(final_fault(message.as_bytes()), fault, "{message}");
    }
    // An extension behind the nonce is part of what is signed: the proof would be another one.
    let extended = CLIENT_FINAL.replace(",p=", ",x=more,p=");
    let proof = rfc_challenge().handle_client_final(extended.as_bytes()).ok().unwrap();
    assert!(proof.check(&rfc_verifier()).is_none());
    for end in 0..CLIENT_FINAL.len() {
        assert!(rfc_challenge().handle_client_final(&CLIENT_FINAL.as_bytes()[..end]).is_err(), "{end}");
    }
    assert_eq!(final_fault(&[b'c'; MAX_MESSAGE + 1]), ClientFault::TooLong);
}

#[test]
fn salts_of_users_who_do_not_exist_are_their_own_and_stay() {
    let (secret, other) = (Secret::new([1; 32]), Secret::new([2; 32]));
    assert_eq!(salt_for(b"ann", &secret), salt_for(b"ann", &secret));
    assert_ne!(salt_for(b"ann", &secret), salt_for(b"bob", &secret));
    assert_ne!(salt_for(b"ann", &secret), salt_for(b"ann", &other));
}
