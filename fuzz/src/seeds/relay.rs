//! What passes through an established session.

use gprxy_proto::testing::wire::{back, front, message};

use super::{LENGTHS, Named, header};

enum From {
    Client(Vec<u8>),
    Server(Vec<u8>),
}
use From::{Client, Server};

/// Settings, a seed for cuts, and turns with the side in the highest bit of their length.
fn turns(setup: u8, turns: Vec<From>) -> Vec<u8> {
    let mut out = vec![setup, 0x5a];
    for turn in turns {
        let (bit, bytes) = match turn {
            Client(bytes) => (0, bytes),
            Server(bytes) => (0x8000, bytes),
        };
        let length = u16::try_from(bytes.len()).unwrap_or(0x7fff).min(0x7fff);
        out.extend_from_slice(&(length | bit).to_be_bytes());
        out.extend_from_slice(&bytes);
    }
    out
}

/// No audit, best effort, required, required with every second statement refused.
const SETUPS: [u8; 4] = [0, 1, 3, 0x23];

fn extended() -> Vec<u8> {
    [
        front::parse("s", "select $1"),
        front::bind("", "s"),
        front::describe(b'P', ""),
        front::execute("", 0),
        front::sync(),
    ]
    .concat()
}

fn answers() -> Vec<u8> {
    let rows = [back::row_description(), back::row(b"1"), back::complete("SELECT 1")].concat();
    [back::bare(b'1'), back::bare(b'2'), rows, back::ready(b'I')].concat()
}

fn query_results() -> Vec<u8> {
    [back::row_description(), back::row(b"1"), back::row(b"2"), back::complete("SELECT 2"), back::ready(b'I')].concat()
}

pub(super) fn frames() -> Vec<Named> {
    let error = || back::error("ERROR", "42601", "syntax error");
    let asides =
        [back::notice("hello"), back::notification(7, "news", "x"), back::parameter("TimeZone", "UTC")].concat();
    let copy = vec![
        Client(front::query("copy t from stdin")),
        Server(back::copy_response(b'G')),
        Client([front::copy_data(b"a\tb\n"), front::copy_data(b"c\td\n"), front::copy_done()].concat()),
        Server([back::complete("COPY 2"), back::ready(b'I')].concat()),
    ];
    let copy_out =
        [back::copy_response(b'H'), front::copy_data(b"row\n"), front::copy_done(), back::complete("COPY 1")];
    let mut seeds = vec![
        ("query", turns(SETUPS[0], vec![Client(front::query("select 1")), Server(query_results())])),
        ("query-recorded", turns(SETUPS[1], vec![Client(front::query("select 1")), Server(query_results())])),
        ("query-required", turns(SETUPS[2], vec![Client(front::query("select 1")), Server(query_results())])),
        (
            "query-refused",
            turns(
                SETUPS[3],
                vec![
                    Client(front::query("select 1")),
                    Server(query_results()),
                    Client([front::query("select 2"), front::query("select 3")].concat()),
                    Server(query_results()),
                ],
            ),
        ),
        ("extended", turns(SETUPS[1], vec![Client(extended()), Server(answers())])),
        ("extended-refused", turns(SETUPS[3], vec![Client([extended(), extended()].concat()), Server(answers())])),
        (
            "error-skips-to-sync",
            turns(
                SETUPS[1],
                vec![
                    Client([extended(), extended()].concat()),
                    Server([error(), back::ready(b'I'), answers()].concat()),
                ],
            ),
        ),
        ("copy-in", turns(SETUPS[1], copy)),
        (
            "copy-out",
            turns(
                SETUPS[0],
                vec![
                    Client(front::query("copy t to stdout")),
                    Server([copy_out.concat(), back::ready(b'T')].concat()),
                    Client(front::query("rollback")),
                ],
            ),
        ),
        (
            "copy-with-sync-inside",
            turns(
                SETUPS[1],
                vec![
                    Client([front::query("copy t from stdin"), front::copy_data(b"bad\n"), front::sync()].concat()),
                    Server([back::copy_response(b'G'), error(), back::ready(b'I'), back::ready(b'I')].concat()),
                    Client(front::query("select 1")),
                ],
            ),
        ),
        ("asides", turns(SETUPS[1], vec![Server(asides.clone()), Client(front::query("x")), Server(asides)])),
        ("function-call", turns(SETUPS[1], vec![Client(front::function_call(1)), Server(back::function_result())])),
        ("fatal", turns(SETUPS[1], vec![Client(front::query("x")), Server(back::error("FATAL", "57P01", "bye"))])),
        (
            "error-without-sqlstate",
            turns(SETUPS[1], vec![Client(front::query("x")), Server(message(b'E', b"SERROR\0\0"))]),
        ),
        ("error-cut-off", turns(SETUPS[1], vec![Client(front::query("x")), Server(message(b'E', b"SERROR\0C4260"))])),
        ("an-answer-too-many", turns(SETUPS[1], vec![Server(query_results()), Client(front::query("x"))])),
        ("terminate", turns(SETUPS[1], vec![Client([front::query("x"), front::terminate()].concat())])),
        ("unknown-tags", turns(SETUPS[0], vec![Server(message(b'?', b"")), Client(message(b'p', b"x"))])),
        ("a-large-row", turns(SETUPS[0], vec![Client(front::query("x")), Server(back::row(&[b'x'; 2000]))])),
    ];
    for (name, length) in LENGTHS {
        seeds.push((name, turns(SETUPS[1], vec![Client(header(b'Q', length)), Server(header(b'D', length))])));
    }
    seeds
}

pub(super) fn messages() -> Vec<Named> {
    let frontend = [
        extended(),
        front::query("select 1"),
        front::close(b'S', "s"),
        front::flush(),
        front::function_call(1),
        front::copy_data(b"x"),
        front::copy_done(),
        front::copy_fail("no"),
        front::password(b"secret"),
        front::terminate(),
    ];
    let backend = [
        back::authentication(0, b""),
        back::authentication(3, b""),
        back::authentication(5, b"salt"),
        back::authentication(7, b""),
        back::authentication(10, b"SCRAM-SHA-256-PLUS\0SCRAM-SHA-256\0\0"),
        back::authentication(11, b"r=abc,s=AAAA,i=4096"),
        back::authentication(12, b"v=AAAA"),
        back::key_data(4711, b"abcd"),
        back::key_data(4711, &[7; 256]),
        back::parameter("server_version", "18.1"),
        answers(),
        back::error("FATAL", "28P01", "no"),
        back::notice("hello"),
        message(b'v', b"\0\x03\0\x02\0\0\0\x01_pq_.x\0"),
    ];
    // SASLInitialResponse whose own length says more than the message has.
    let overflow =
        |length: u32| message(b'p', &[&b"SCRAM-SHA-256\0"[..], &length.to_be_bytes(), b"n,,n=,r=x"].concat());
    let mut seeds = vec![
        ("frontend", frontend.concat()),
        ("backend", backend.concat()),
        ("sasl-length-overflow", overflow(0xffff_fff0)),
        ("sasl-length-negative", overflow(0xffff_ffff)),
        ("error-without-sqlstate", message(b'E', b"SFATAL\0Mno code\0\0")),
        ("error-with-two-sqlstates", message(b'E', b"SFATAL\0C28P01\0Cxx\0Mx\0\0")),
        ("error-without-end", message(b'E', b"SFATAL\0VFATAL\0C53300\0Mtoo many")),
        ("error-endless", message(b'E', &[b'M'; 9000])),
        ("control-characters", message(b'E', b"C28000\0Mone\ntwo\x1b[31m\xc2\x9b\0\0")),
        ("key-too-long", message(b'K', &[7; 261])),
        ("rows-overflow", message(b'C', b"SELECT 99999999999999999999999\0")),
        ("zero-inside", message(b'Q', b"select 1\0; drop table t\0")),
    ];
    for (name, length) in LENGTHS {
        seeds.push((name, [front::sync(), header(b'Q', length)].concat()));
    }
    seeds
}

/// Steps of the walk; see `gprxy_proto::testing::fuzz::statements`.
fn walk(setup: u8, steps: &str) -> Vec<u8> {
    let mut out = vec![setup];
    for step in steps.split_whitespace() {
        let (what, with) = step.split_at(1);
        let what = match what {
            "P" => 0,
            "B" => 2,
            "D" => 4,
            "E" => 5,
            "C" => 7,
            "Q" => 8,
            "F" => 9,
            "d" => 10,
            "c" => 11,
            "S" => 12,
            "w" => 13,
            _ => 18,
        };
        out.extend([what, with.parse().unwrap_or(1)]);
    }
    out
}

pub(super) fn statements() -> Vec<Named> {
    vec![
        ("pipeline", walk(0, "P1 B5 D1 E1 S w1 w1 w1 w1 w1 h3 h3 h3")),
        ("required", walk(1, "P1 B5 E1 S w1 w1 w1 w1 h3 h3 B5 E1 S w1 w1 w1 h3")),
        ("names-are-replaced", walk(0, "P0 P5 B1 E1 P4 B0 E0 C5 P1 B5 E1 S w1 w1 w1 w1 w1 w1 w1 w1 w1 w1 w1 w1 h3")),
        ("errors-skip", walk(1, "P1 B5 E1 P2 Q1 S Q2 w1 w0 w1 w1 w1 w1 w1 h3 h3 E1 S w1 w1 h3")),
        ("copy-simple", walk(0, "Q5 w1 h0 d1 d1 c0 w1 w1 w1 h3 Q0 w1 h3")),
        ("copy-simple-with-sync", walk(1, "Q5 S w1 c0 w1 w1 B6 w1 h3 h3 S w1")),
        ("copy-extended", walk(0, "P20 B0 E0 S w1 w1 w1 h3 d1 d1 c0 S w1 w1 w1 w1 w1 h3")),
        ("copy-fails", walk(0, "Q5 w1 h0 d1 d1 w0 c0 w1 h3 Q0 w1 h3")),
        ("copy-doubtful", walk(1, "P20 B0 E0 w1 w1 w1 h3 d1 S Q0 w0 w1 w1 h3 h3 Q1")),
        ("copy-broken-off", walk(0, "Q5 w1 h0 Q0 w1 h3")),
        ("function-calls", walk(1, "P1 F w1 w1 h3 F F w0 w1 h3")),
        ("deferred-error", walk(0, "P1 B5 E1 S w1 w1 w1 w8 h3 h3")),
        ("transactions", walk(0, "Q2 P1 B5 E1 S w1 w1 w1 w1 w1 h3 h3 E1 S w1 w1 Q3 w1 h3 h3 E1 S w1 w1 h3")),
        ("deallocate", walk(0, "P1 S Q4 B5 E1 S w1 w1 w1 w1 w1 w1 h3 h3")),
    ]
}
