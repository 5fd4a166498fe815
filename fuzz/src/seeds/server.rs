//! Servers, while they let the proxy in and while they clean up behind somebody.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use gprxy_proto::testing::fuzz::login::{NONCE, PASSWORD};
use gprxy_proto::testing::fuzz::reset::PROOF;
use gprxy_proto::testing::wire::{back, message};
use ring::{digest, hmac, pbkdf2};

use super::{LENGTHS, Named, after, header, string};

/// The `sslmode` of the proxy, in the two lowest bits of the settings.
const DISABLE: u8 = 0;
const PREFER: u8 = 1;
const REQUIRE: u8 = 2;
/// The server keeps silent at last instead of going away.
const SILENT: u8 = 16;

fn played(setup: u8, turns: &[Vec<u8>]) -> Vec<u8> {
    after(&[setup, 0x33], turns.iter().map(string).collect::<Vec<_>>().concat())
}

fn welcome() -> Vec<u8> {
    [
        back::authentication(0, b""),
        back::parameter("server_version", "18.1"),
        back::notice("hello"),
        back::key_data(4711, b"abcd"),
        back::ready(b'I'),
    ]
    .concat()
}

/// Both messages of a server that knows the password (RFC 5802 section 3).
fn scram_server(password: &[u8], tail: &str) -> (String, String) {
    let sign = |key: &[u8], data: &[u8]| hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), data);
    let nonce = format!("{}{tail}", BASE64.encode(NONCE));
    let first = format!("r={nonce},s={},i=2", BASE64.encode("salt"));
    let auth_message = format!("n=,r={},{first},c=biws,r={nonce}", BASE64.encode(NONCE));
    let mut salted = [0; digest::SHA256_OUTPUT_LEN];
    pbkdf2::derive(
        pbkdf2::PBKDF2_HMAC_SHA256,
        std::num::NonZeroU32::MIN.saturating_add(1),
        b"salt",
        password,
        &mut salted,
    );
    let signature = sign(sign(&salted, b"Server Key").as_ref(), auth_message.as_bytes());
    (first, format!("v={}", BASE64.encode(signature)))
}

fn sasl() -> Vec<u8> {
    back::authentication(10, b"SCRAM-SHA-256-PLUS\0SCRAM-SHA-256\0\0")
}

fn challenge(text: &str) -> Vec<u8> {
    back::authentication(11, text.as_bytes())
}

fn last(text: &str) -> Vec<u8> {
    back::authentication(12, text.as_bytes())
}

fn ours() -> String {
    BASE64.encode(NONCE)
}

pub(super) fn login() -> Vec<Named> {
    let (first, signature) = scram_server(PASSWORD, "server");
    let (_, foreign) = scram_server(b"other", "server");
    let refusal = |body: &[u8]| message(b'E', body);
    let scram = |challenge_text: &str| vec![sasl(), challenge(challenge_text)];
    let many: Vec<u8> = (0..300).flat_map(|n| back::parameter(&format!("p{n}"), "v")).collect();
    let mut seeds = vec![
        ("trust", played(DISABLE, &[welcome()])),
        ("cleartext", played(DISABLE, &[back::authentication(3, b""), welcome()])),
        ("md5", played(DISABLE, &[back::authentication(5, b"salt"), welcome()])),
        ("scram", played(DISABLE, &[sasl(), challenge(&first), [last(&signature), welcome()].concat()])),
        ("scram-under-tls", played(REQUIRE, &[b"S".to_vec(), sasl(), challenge(&first), last(&signature), welcome()])),
        ("scram-unproven-server", played(DISABLE, &[sasl(), challenge(&first), last(&foreign), welcome()])),
        ("scram-cut-short", played(DISABLE, &[sasl(), challenge(&first), welcome()])),
        ("scram-refused", played(DISABLE, &[sasl(), challenge(&first), last("e=invalid-proof")])),
        ("scram-long-nonce", played(DISABLE, &scram(&format!("r={}{},s=AAAA,i=1", ours(), "x".repeat(4000))))),
        ("scram-too-long-nonce", played(DISABLE, &scram(&format!("r={}{},s=AAAA,i=1", ours(), "x".repeat(9000))))),
        ("scram-long-salt", played(DISABLE, &scram(&format!("r={}x,s={},i=1", ours(), "A".repeat(4000))))),
        ("scram-iterations", played(DISABLE, &scram(&format!("r={}x,s=AAAA,i=4294967297", ours())))),
        ("scram-most-iterations", played(SILENT, &scram(&format!("r={}x,s=AAAA,i=1000000", ours())))),
        ("scram-length-overflow", played(DISABLE, &[sasl(), header(b'R', 0x7fff_fff8)])),
        ("no-mechanism", played(DISABLE, &[back::authentication(10, b"OAUTHBEARER\0\0")])),
        ("mechanisms-without-end", played(DISABLE, &[back::authentication(10, b"SCRAM")])),
        ("kerberos", played(DISABLE, &[back::authentication(7, b"")])),
        ("tls-refused-prefer", played(PREFER, &[b"N".to_vec(), welcome()])),
        ("tls-refused-require", played(REQUIRE, &[b"N".to_vec(), welcome()])),
        ("data-before-tls", played(REQUIRE, &[[&b"S"[..], &welcome()].concat()])),
        ("error-before-tls", played(REQUIRE, &[b"Ecould not fork\n\0".to_vec()])),
        ("another-protocol", played(REQUIRE, &[b"HTTP/1.1 400 Bad Request\r\n".to_vec()])),
        ("error-without-fields", played(DISABLE, &[b"Ecould not fork new process\n\0".to_vec()])),
        ("error-without-sqlstate", played(DISABLE, &[refusal(b"SFATAL\0Mno\0\0")])),
        ("error-cut-off", played(DISABLE, &[refusal(b"SFATAL\0VFATAL\0C57P03\0Mstarting up\0\0")[..30].to_vec()])),
        (
            "error-repeats-the-password",
            played(DISABLE, &[back::authentication(3, b""), refusal(&[b"C28P01\0M", PASSWORD, b"\0\0"].concat())]),
        ),
        ("negotiation", played(DISABLE, &[message(b'v', b"\0\x03\0\0\0\0\0\0"), welcome()])),
        ("in-a-transaction", played(DISABLE, &[[back::authentication(0, b""), back::ready(b'T')].concat()])),
        ("many-parameters", played(DISABLE, &[many])),
        ("long-key", played(DISABLE, &[[back::authentication(0, b""), back::key_data(1, &[7; 256])].concat()])),
        ("too-long-key", played(DISABLE, &[[back::authentication(0, b""), back::key_data(1, &[7; 257])].concat()])),
        ("silence", played(SILENT, &[back::authentication(3, b"")])),
    ];
    for (name, length) in LENGTHS {
        seeds.push((name, played(DISABLE, &[[back::notice("x"), header(b'S', length)].concat()])));
    }
    seeds
}

pub(super) fn scram() -> Vec<Named> {
    let both = |first: &str, last: &str| [string(first), last.as_bytes().to_vec()].concat();
    let (first, signature) = scram_server(PASSWORD, "server");
    let (_, foreign) = scram_server(b"other", "server");
    let of = |text: &str| both(&text.replace("OURS", &ours()), "v=AAAA");
    vec![
        ("good", both(&first, &signature)),
        ("good-with-extension", both(&first, &format!("{signature},x=y"))),
        ("unproven", both(&first, &foreign)),
        ("refused", both(&first, "e=other-error")),
        ("nothing-new-in-the-nonce", of("r=OURS,s=AAAA,i=1")),
        ("foreign-nonce", of("r=AAAA,s=AAAA,i=1")),
        ("long-nonce", both(&format!("r={}{},s=AAAA,i=1", ours(), "x".repeat(4000)), &signature)),
        ("too-long", both(&format!("r={}{}", ours(), "x".repeat(8000)), "")),
        ("no-salt", of("r=OURSx,s=,i=1")),
        ("no-iterations", of("r=OURSx,s=AAAA,i=0")),
        ("signed-iterations", of("r=OURSx,s=AAAA,i=+1")),
        ("iterations-overflow", of("r=OURSx,s=AAAA,i=18446744073709551617")),
        ("mandatory-extension", of("m=x,r=OURSx,s=AAAA,i=1")),
        ("error-first", of("e=unknown-user\u{1b}[31m")),
        ("no-utf8", [string(b"r=\xff\xfe,s=AAAA,i=1"), Vec::new()].concat()),
    ]
}

pub(super) fn reset() -> Vec<Named> {
    let done = |tag: &str| [back::complete(tag), back::ready(b'I')].concat();
    let proof = |text: &str| [back::row_description(), back::row(text.as_bytes()), done("SELECT 1")].concat();
    let proven = || proof(&"07".repeat(PROOF.len()));
    // In a transaction; idle; failed without a ROLLBACK in the plan.
    let (open, idle, stuck) = (0, 2, 5);
    let of = |setup: u8, bytes: Vec<u8>| after(&[setup, 0x21], bytes);
    let mut seeds = vec![
        ("rollback-and-discard", of(open, [done("ROLLBACK"), done("DISCARD ALL"), proven()].concat())),
        ("discard", of(idle, [done("DISCARD ALL"), proven()].concat())),
        ("unproven", of(idle, [done("DISCARD ALL"), proof("DISCARD ALL")].concat())),
        ("proof-without-a-row", of(idle, [done("DISCARD ALL"), back::row_description(), done("SELECT 0")].concat())),
        (
            "notices",
            of(idle, [back::notice("x"), back::parameter("TimeZone", "UTC"), done("DISCARD ALL"), proven()].concat()),
        ),
        ("notifications", of(idle, [back::notification(1, "a", "b"), done("DISCARD ALL"), proven()].concat())),
        ("bytes-behind", of(idle, [done("DISCARD ALL"), proven(), back::notice("late")].concat())),
        ("somebody-elses-answer", of(idle, done("SELECT 1"))),
        ("one-answer-too-many", of(idle, [done("SELECT 1"), done("DISCARD ALL")].concat())),
        ("still-open", of(open, [back::complete("ROLLBACK"), back::ready(b'T')].concat())),
        ("refused", of(idle, back::error("ERROR", "25001", "cannot run inside a transaction block"))),
        ("stuck", of(stuck, Vec::new())),
        ("silence", of(idle | SILENT, Vec::new())),
    ];
    for (name, length) in LENGTHS {
        seeds.push((name, of(idle, header(b'C', length))));
    }
    seeds
}
