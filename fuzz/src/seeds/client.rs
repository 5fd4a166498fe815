//! Clients, from their first byte on.

use gprxy_proto::testing::fuzz::token::{AUDIENCE, ISSUER, NOW_SECS};
use gprxy_proto::testing::tokens::{TestKey, claims};
use gprxy_proto::testing::wire::{back, front, message};

use super::{LENGTHS, Named, after, header, string};

const V3_0: u32 = 3 << 16;
const V3_2: u32 = (3 << 16) | 2;

fn hello() -> Vec<u8> {
    front::startup(V3_0, &[("user", "ann"), ("database", "app"), ("application_name", "psql")])
}

pub(super) fn startup() -> Vec<Named> {
    let of = |bytes: Vec<u8>| after(&[0, 0x47], bytes);
    let tls = |bytes: Vec<u8>| after(&[1, 0x47], bytes);
    let packet = |length: u32, rest: &[u8]| [&length.to_be_bytes()[..], rest].concat();
    let many: Vec<(String, String)> = (0..300).map(|n| (format!("p{n}"), "v".into())).collect();
    let many: Vec<(&str, &str)> = many.iter().map(|(name, value)| (&**name, &**value)).collect();
    vec![
        ("v3-0", of(hello())),
        ("v3-2", of(front::startup(V3_2, &[("user", "ann"), ("options", "-c a=b")]))),
        ("options-of-the-protocol", of(front::startup(V3_2, &[("user", "ann"), ("_pq_.x", "1"), ("_pq_.y", "")]))),
        ("v3-9999", of(front::startup(V3_0 | 9999, &[("user", "ann")]))),
        ("v2", of(front::startup(2 << 16, &[("user", "ann")]))),
        ("ssl-then-startup", tls([front::ssl_request(), hello()].concat())),
        ("data-before-tls", tls([front::ssl_request(), hello(), front::password(b"x")].concat())),
        ("ssl-twice", of([front::ssl_request(), front::ssl_request()].concat())),
        ("gssenc-then-anything", of([front::gssenc_request(), hello()].concat())),
        ("ssl-and-gssenc", of([front::gssenc_request(), front::ssl_request(), hello()].concat())),
        ("direct-tls", tls(vec![0x16, 3, 1, 0, 5, 1])),
        ("cancel", of(front::cancel_request(4711, b"abcd"))),
        ("cancel-v3-2", of(front::cancel_request(4711, &[7; 256]))),
        ("cancel-without-key", of(front::cancel_request(4711, b"")[..10].to_vec())),
        ("cancel-endless-key", of(front::cancel_request(4711, &[7; 9000]))),
        ("length-7", of(packet(7, b"abc"))),
        ("length-10000", of(packet(10_000, b"\0\x03\0\0user\0a\0"))),
        ("length-10001", of(packet(10_001, b"\0\x03\0\0"))),
        ("length-negative", of(packet(0xffff_ffff, b"\0\x03\0\0"))),
        ("length-huge", of(packet(0x7fff_ffff, b"\0\x03\0\0"))),
        ("no-user", of(front::startup(V3_0, &[("database", "app")]))),
        ("two-users", of(front::startup(V3_0, &[("user", "ann"), ("user", "postgres"), ("database", "")]))),
        (
            "injected-parameters",
            of(front::startup(V3_0, &[("user", "a"), ("database", "x?host=evil&sslmode=disable")])),
        ),
        ("control-characters", of(front::startup(V3_0, &[("user", "a\nb")]))),
        ("replication", of(front::startup(V3_0, &[("user", "a"), ("replication", "database")]))),
        ("unterminated", of(packet(14, b"\0\x03\0\0user\0a"))),
        ("no-end", of(packet(16, b"\0\x03\0\0user\0an\0"))),
        ("many-parameters", of(front::startup(V3_0, &[&[("user", "a")][..], &many].concat()))),
        ("another-protocol", of(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n".to_vec())),
    ]
}

fn client(bytes: impl AsRef<[u8]>) -> Vec<u8> {
    after(&[0], string(bytes))
}

fn server(bytes: impl AsRef<[u8]>) -> Vec<u8> {
    after(&[6], string(bytes))
}

/// Steps of one and two bytes.
const TLS: &[u8] = &[11, 0];
const WRONG_ALPN: &[u8] = &[11, 1];
const PROVEN: &[u8] = &[12, 2];
const NO_ROLES: &[u8] = &[12, 1];
const NOT_PROVEN: &[u8] = &[12, 0];
const ENROLLED: &[u8] = &[13];
const LEASED: &[u8] = &[14, 0];
const REFUSED: &[u8] = &[15, 0];
const REFUSED_BY_SERVER: &[u8] = &[15, 1];
const WAITING: &[u8] = &[16];
const RECORDED: &[u8] = &[17, 0];
const UNRECORDED: &[u8] = &[17, 1];
const CLIENT_CLOSES: &[u8] = &[19, 0];
const SERVER_BREAKS: &[u8] = &[19, 3];
const DRAIN: &[u8] = &[21];
const KILL: &[u8] = &[22];
const MINUTES: &[u8] = &[23, 200];

/// Everything allowed and written down; with places required; without any audit.
const PLAIN: u8 = 0;
const WITH_TLS: u8 = 1;
const REQUIRED: u8 = 32;
const LATE: u8 = 32 | 64;
const SILENT: u8 = 16;

fn told(setup: u8, steps: &[&[u8]]) -> Vec<u8> {
    after(&[setup, 0x6d], steps.concat())
}

pub(super) fn session() -> Vec<Named> {
    let token = TestKey::ed25519("ed").token(&claims(ISSUER, AUDIENCE, "ann", NOW_SECS));
    let (hi, token) = (&client(hello())[..], &client(front::password(&token))[..]);
    let own = &client(front::password(b"hunter2"))[..];
    let query = &client(front::query("select 1"))[..];
    let rows = [back::row_description(), back::row(b"1"), back::complete("SELECT 1"), back::ready(b'I')].concat();
    let rows = &server(&rows)[..];
    let begun = &server([back::complete("BEGIN"), back::ready(b'T')].concat())[..];
    let bye = &client(front::terminate())[..];
    let ssl = &client(front::ssl_request())[..];
    let open = [hi, token, PROVEN, ENROLLED, LEASED].concat();
    let open = &open[..];
    let early = client([hello(), front::password(b"hunter2"), front::query("select 1")].concat());
    let extended = [front::parse("", "select $1"), front::bind("", ""), front::execute("", 0), front::sync()].concat();
    let doubtful =
        [front::query("copy t from stdin"), front::copy_data(b"bad\n"), front::sync(), front::query("x")].concat();
    let failed =
        [back::copy_response(b'G'), back::error("ERROR", "22P04", "bad"), back::ready(b'I'), back::ready(b'I')];
    let mut seeds = vec![
        ("by-token", told(PLAIN, &[open, query, rows, bye])),
        ("by-password", told(PLAIN, &[hi, own, ENROLLED, LEASED, query, rows, CLIENT_CLOSES])),
        ("by-token-under-tls", told(WITH_TLS, &[ssl, TLS, open, query, rows, bye])),
        ("direct-tls", told(WITH_TLS, &[&client([0x16, 3, 1]), TLS, open, bye])),
        ("wrong-alpn", told(WITH_TLS, &[&client([0x16, 3, 1]), WRONG_ALPN])),
        ("data-before-tls", told(WITH_TLS, &[&client([front::ssl_request(), hello()].concat())])),
        ("gssenc-then-anything", told(PLAIN, &[&client(front::gssenc_request()), query])),
        ("cancel", told(PLAIN, &[&client(front::cancel_request(4711, b"abcd"))])),
        ("not-proven", told(PLAIN, &[hi, token, NOT_PROVEN])),
        ("no-roles", told(PLAIN, &[hi, token, NO_ROLES])),
        ("waits-and-is-refused", told(PLAIN, &[hi, token, PROVEN, ENROLLED, WAITING, REFUSED])),
        ("refused-by-server", told(PLAIN, &[hi, own, ENROLLED, REFUSED_BY_SERVER])),
        ("late-lease", told(PLAIN, &[hi, token, PROVEN, ENROLLED, CLIENT_CLOSES, LEASED])),
        ("everything-at-once", told(PLAIN, &[&early, ENROLLED, LEASED, rows])),
        ("silence", told(PLAIN, &[hi, MINUTES])),
        ("required", told(REQUIRED, &[open, query, rows, UNRECORDED, query, query, RECORDED, query, rows])),
        ("required-late", told(LATE, &[open, query, RECORDED, rows, query, UNRECORDED, query, RECORDED, rows])),
        ("extended", told(REQUIRED, &[open, &client(&extended), bye])),
        ("extended-late", told(LATE, &[open, &client(&extended), RECORDED, bye])),
        ("extended-unrecorded", told(REQUIRED, &[open, UNRECORDED, &client(&extended), query])),
        ("drained-idle", told(PLAIN, &[open, DRAIN])),
        ("drained-in-a-transaction", told(PLAIN, &[open, &client(front::query("begin")), begun, DRAIN, query, rows])),
        ("killed", told(PLAIN, &[open, query, KILL])),
        ("server-lost", told(PLAIN, &[open, query, &server(&back::row(b"1")[..5]), SERVER_BREAKS])),
        ("server-dies", told(PLAIN, &[open, &server(back::error("FATAL", "57P01", "bye")), SERVER_BREAKS])),
        ("server-lies", told(PLAIN, &[open, rows, query])),
        ("server-babbles", told(SILENT, &[open, &server([0xff; 64])])),
        ("doubtful-copy", told(PLAIN, &[open, &client(doubtful), &server(failed.concat()), query])),
        ("asides", told(PLAIN, &[open, &server([back::notice("x"), back::parameter("TimeZone", "UTC")].concat())])),
        ("empty-password", told(PLAIN, &[hi, &client(front::password(b""))])),
        ("zero-in-password", told(PLAIN, &[hi, &client(message(b'p', b"a\0b\0"))])),
        ("long-password", told(PLAIN, &[hi, &client(front::password(&[b'x'; 2048]))])),
        ("too-long-password", told(PLAIN, &[hi, &client(front::password(&[b'x'; 2049]))])),
        (
            "sasl-length-overflow",
            told(PLAIN, &[hi, &client(message(b'p', b"SCRAM-SHA-256\0\xff\xff\xff\xf0n,,n=,r=x"))]),
        ),
    ];
    for (name, length) in LENGTHS {
        seeds.push((name, told(PLAIN, &[hi, &client(header(b'p', length))])));
    }
    for (name, length) in LENGTHS {
        let name = match name {
            "length-zero" => "relayed-length-zero",
            "length-below-itself" => "relayed-length-below-itself",
            "length-largest" => "relayed-length-largest",
            "length-too-large" => "relayed-length-too-large",
            "length-huge" => "relayed-length-huge",
            _ => "relayed-length-negative",
        };
        let broken = [&client(header(b'Q', length))[..], &server(header(b'D', length))].concat();
        seeds.push((name, told(PLAIN, &[open, &broken])));
    }
    seeds
}
