//! Servers that are asked for a user.

use gprxy_proto::testing::wire::{back, message};

use super::{LENGTHS, Named, after, header, string};

const USER: &str = "ann";
/// The server keeps silent at last instead of going away.
const SILENT: u8 = 1;

fn of(setup: u8, user: &str, bytes: Vec<u8>) -> Vec<u8> {
    after(&[setup, 0x21], [string(user), bytes].concat())
}

fn row(values: &[Option<&[u8]>]) -> Vec<u8> {
    // Seeds are small.
    let mut body = u16::try_from(values.len()).unwrap_or(u16::MAX).to_be_bytes().to_vec();
    for value in values {
        let length = value.map_or(-1, |value| i32::try_from(value.len()).unwrap_or(i32::MAX));
        body.extend(length.to_be_bytes());
        body.extend_from_slice(value.unwrap_or_default());
    }
    message(b'D', &body)
}

fn ann(kept: &[u8]) -> Vec<u8> {
    row(&[Some(USER.as_bytes()), Some(kept)])
}

fn columns(count: i16) -> Vec<u8> {
    [back::bare(b'1'), back::bare(b'2'), message(b'T', &count.to_be_bytes())].concat()
}

fn end(status: u8) -> Vec<u8> {
    [back::complete("SELECT 1"), back::ready(status)].concat()
}

fn answer(rows: &[Vec<u8>]) -> Vec<u8> {
    [columns(2), rows.concat(), end(b'I')].concat()
}

pub(super) fn lookup() -> Vec<Named> {
    let said = |bytes: Vec<u8>| of(0, USER, bytes);
    let talkative = [
        back::notice("x"),
        columns(2),
        back::parameter("TimeZone", "UTC"),
        ann(b"x"),
        back::notification(1, "a", "b"),
        end(b'I'),
    ];
    let many: Vec<u8> = (0..300).flat_map(|n| back::parameter(&format!("p{n}"), "v")).collect();
    let mut seeds = vec![
        ("found", said(answer(&[ann(b"md5aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa")]))),
        ("found-verifier", said(answer(&[ann(b"SCRAM-SHA-256$4096:c2FsdA==$AAAA:AAAA")]))),
        ("found-without-a-password", said(answer(&[row(&[Some(USER.as_bytes()), None])]))),
        ("nobody", said(answer(&[]))),
        ("nobody-in-a-row", said(answer(&[row(&[None, None])]))),
        ("somebody-else", said(answer(&[row(&[Some(b"anna"), Some(b"x")])]))),
        ("two-rows", said(answer(&[ann(b"x"), ann(b"y")]))),
        ("one-column", said(columns(1))),
        ("a-row-with-three-values", said(answer(&[row(&[Some(USER.as_bytes()), None, None])]))),
        ("zero-byte-in-the-secret", said(answer(&[ann(b"a\0b")]))),
        ("bytes-behind", said([answer(&[ann(b"x")]), back::notice("late")].concat())),
        ("still-open", said([columns(2), ann(b"x"), end(b'T')].concat())),
        ("row-before-its-description", said([back::bare(b'1'), back::bare(b'2'), ann(b"x")].concat())),
        ("ready-without-an-answer", said(back::ready(b'I'))),
        ("value-longer-than-its-row", said([columns(2), message(b'D', b"\0\x02\x7f\xff\xff\xff")].concat())),
        ("refused", said(back::error("ERROR", "42501", "permission denied\nfor table pg_authid"))),
        (
            "refused-repeating-the-secret",
            said([columns(2), ann(b"key"), back::error("ERROR", "P0001", "key")].concat()),
        ),
        ("ended", said(back::error("FATAL", "57P01", "terminating connection"))),
        ("talkative", said(talkative.concat())),
        ("many-parameters", said(many)),
        ("quotes-in-the-name", of(0, "x' or 'a'='a", answer(&[row(&[Some(b"x' or 'a'='a"), Some(b"x")])]))),
        ("zero-byte-in-the-name", of(0, "a\0nn", Vec::new())),
        ("no-name", of(0, "", answer(&[row(&[Some(b""), Some(b"x")])]))),
        ("silence", of(SILENT, USER, columns(2))),
    ];
    for (name, length) in LENGTHS {
        seeds.push((name, said([columns(2), header(b'D', length)].concat())));
    }
    seeds
}
