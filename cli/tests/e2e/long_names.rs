//! Prepared statements with names beyond every buffer.

use crate::support::bouncer::{Ini, Kind};
use crate::support::fixtures::{DATABASE, SCRAM};
use crate::support::postgres::{Cluster, Version};
use crate::support::target::Target;
use crate::support::wire::{Wire, frame, sync};

/// What is answered to each step of a statement's life, and to what comes behind it.
fn life(target: &Target, name: &str) -> Vec<String> {
    let mut wire = Wire::login(target).unwrap_or_else(|error| panic!("{error:?}"));
    let message = |tag, parts: &[&str]| frame(tag, parts.concat().as_bytes());
    let steps = [
        message('P', &[name, "\0select $1::text\0\0\0"]),
        message('D', &["S", name, "\0"]),
        [message('B', &["\0", name, "\0\0\0\0\x01\0\0\0\x03abc\0\0"]), message('E', &["\0\0\0\0\0"])].concat(),
        // The same name to PostgreSQL, which looks at 63 bytes.
        message('D', &["S", &name[..63], "\0"]),
        message('P', &[name, "\0select 2\0\0\0"]),
        message('C', &["S", name, "\0"]),
        message('D', &["S", name, "\0"]),
    ];
    let mut answers = Vec::new();
    for step in steps {
        wire.send(&[step, sync()].concat());
        let answer = wire.read_until_ready();
        // A notice says once that the session keeps its connection.
        let answer = answer.into_iter().filter(|message| message.tag != 'N');
        let shown = answer.map(|message| match message.tag {
            'E' => format!("E{}", message.complaint().code),
            tag => tag.to_string(),
        });
        answers.push(shown.collect());
    }
    assert_eq!(wire.value("select 'still there'"), "still there");
    wire.quit();
    answers
}

#[test]
fn a_statement_with_a_name_of_any_length_lives_as_with_postgresql() {
    for version in [Version::V15, Version::V18] {
        let server = Cluster::shared(version);
        for pool_mode in ["session", "transaction"] {
            let bouncer = Ini::new(server)
                .database(&format!("{DATABASE} = SERVER"))
                .user(SCRAM)
                .set("auth_type", "plain")
                .set("pool_mode", pool_mode)
                .start(Kind::Gprxy);
            let target = bouncer.target(DATABASE, SCRAM);
            // Over a longer Describe PostgreSQL itself ends the session; where statements are followed, it does not see it.
            let lengths =
                if pool_mode == "session" { &[100, 3_000][..] } else { &[100, 3_000, 11_000, 16_384, 200_000] };
            for &length in lengths {
                let name = "n".repeat(length);
                let expected = ["1Z", "tTZ", "2DCZ", "tTZ", "E42P05Z", "3Z", "E26000Z"];
                assert_eq!(life(&target, &name), expected, "{version:?} {pool_mode} {length}");
            }
        }
    }
}
