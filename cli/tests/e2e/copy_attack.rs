//! Statements hidden in COPY data: whatever a client mixes into a COPY to leave answers behind, the next person's
//! answers are their own, and every statement that ran has its audit record.
//!
//! While PostgreSQL reads COPY data it ignores Sync and Flush (manual, section 55.2.6). A proxy that counts one answer
//! too many or too few hands the difference to whoever gets the connection next.

use serde_json::json;

use crate::support::eventually;
use crate::support::fixtures::WRITER;
use crate::support::gprxy::{Config, Gprxy};
use crate::support::postgres::{Cluster, Version};
use crate::support::provider::Provider;
use crate::support::target::Target;
use crate::support::wire::{Wire, bind, frame, parse, query, sync};

/// Another person who shares the pool.
fn eve(gprxy: &Gprxy) -> Target {
    let claims = json!({ "sub": "eve", "email": "eve@corp.example", "roles": ["writer"] });
    let mut target = gprxy.target("bob").with_user("eve@corp.example").with_password(&Provider::shared().mint(claims));
    target.account = WRITER.0;
    target
}

/// A statement that leaves its tag where it can be found, if it runs.
fn trace(tag: &str) -> String {
    format!("insert into ran values ('{tag}')")
}

fn execute(sql: &str) -> Vec<u8> {
    [parse("", sql), bind("", &[]), frame('E', b"\0\0\0\0\0")].concat()
}

/// What an attacker sends: a name, and messages in which `{}` statements carry the tag given.
fn attacks(tag: &str) -> Vec<(&'static str, Vec<Vec<u8>>)> {
    let copy = || query("copy sink from stdin");
    let row = || frame('d', b"1\n");
    let bad_row = || frame('d', b"no number\n");
    let (done, fail, flush) = (|| frame('c', b""), || frame('f', b"no\0"), || frame('H', b""));
    let hidden = |number: u8| query(&trace(&format!("{tag}-{number}")));
    let extended = |number: u8| execute(&trace(&format!("{tag}-{number}")));
    let extended_copy = || execute("copy sink from stdin");
    vec![
        ("a Sync between data", vec![copy(), row(), sync(), row(), done(), hidden(1)]),
        ("a Sync before any data", vec![copy(), sync(), done(), hidden(1)]),
        ("many Syncs", vec![copy(), sync().repeat(50), row(), sync().repeat(50), done(), hidden(1), hidden(2)]),
        ("a Sync behind the end", vec![copy(), row(), done(), sync(), hidden(1), sync()]),
        ("a query in place of data", vec![copy(), hidden(1), done(), hidden(2)]),
        ("a query behind data", vec![copy(), row(), hidden(1), sync(), hidden(2)]),
        ("a pipeline in place of data", vec![copy(), extended(1), sync(), done(), hidden(2)]),
        ("a pipeline behind the end", vec![copy(), row(), done(), extended(1), sync(), extended(2), sync()]),
        ("a Sync and a row that fails", vec![copy(), sync(), bad_row(), sync(), done(), hidden(1), sync()]),
        ("a row that fails and a query", vec![copy(), bad_row(), hidden(1), done(), hidden(2)]),
        ("CopyFail and Syncs", vec![copy(), sync(), fail(), sync(), fail(), hidden(1)]),
        ("ends without a COPY", vec![done(), fail(), row(), hidden(1), done(), hidden(2)]),
        ("a flushed COPY", vec![copy(), flush(), row(), flush(), sync(), done(), hidden(1)]),
        ("an extended COPY, its Sync at once", vec![extended_copy(), sync(), row(), done(), sync(), hidden(1)]),
        ("an extended COPY without its Sync", vec![extended_copy(), row(), done(), hidden(1), sync()]),
        ("an extended COPY and a pipeline", vec![extended_copy(), sync(), done(), extended(1), sync(), sync()]),
        (
            "an extended COPY that fails",
            vec![extended_copy(), sync(), bad_row(), done(), extended(1), sync(), hidden(2)],
        ),
        ("two COPYs at once", vec![copy(), copy(), row(), sync(), done(), done(), hidden(1)]),
        (
            "COPYs in one query",
            vec![
                query(&format!("copy sink from stdin; {}; copy sink from stdin", trace(&format!("{tag}-1")))),
                row(),
                sync(),
                done(),
                sync(),
                row(),
                done(),
                hidden(2),
            ],
        ),
        ("a COPY that does not begin", vec![query("copy nowhere from stdin"), row(), sync(), done(), hidden(1)]),
    ]
}

#[derive(Clone, Copy, Debug)]
enum Way {
    /// Everything and Terminate in one packet.
    OnePacketAndTerminate,
    /// Everything in one packet, then gone when the first answers are there.
    OnePacketAndVanish,
    /// A write for each message, then closed.
    PieceByPiece,
}

fn replay(version: Version) {
    let server = Cluster::shared(version);
    server.sql("create table ran (tag text); create table sink (n int); grant all on ran, sink to app_writer");
    let mut gprxy = Config::new(version).pool_of(1).queue_wait("30s").start();
    let (bob, eve) = (gprxy.target("bob").in_plaintext(), eve(&gprxy).in_plaintext());
    for (round, way) in [Way::OnePacketAndTerminate, Way::OnePacketAndVanish, Way::PieceByPiece].into_iter().enumerate()
    {
        for number in 0..attacks("").len() {
            let (name, messages) = attacks(&format!("hidden-{round}-{number}")).swap_remove(number);
            let mut wire = Wire::login(&bob).unwrap_or_else(|error| panic!("{name}: {error:?}"));
            match way {
                Way::OnePacketAndTerminate => {
                    wire.send(&[messages.concat(), frame('X', b"")].concat());
                    wire.rest();
                }
                Way::OnePacketAndVanish => {
                    wire.send(&messages.concat());
                    wire.read();
                    wire.vanish();
                }
                Way::PieceByPiece => {
                    // A proxy that has seen enough may have closed already.
                    let _ = messages.iter().try_for_each(|message| wire.try_send(message));
                    drop(wire);
                }
            }
            let mut next = Wire::login(&eve).unwrap_or_else(|error| panic!("after {name}, {way:?}: {error:?}"));
            for mine in 0..3 {
                let mine = format!("eve-{number}-{mine}");
                assert_eq!(next.value(&format!("select '{mine}'")), mine, "after {name}, {way:?}");
            }
            next.quit();
        }
    }
    assert_all_audited(&gprxy, server);
    gprxy.assert_alive();
}

/// One record for each statement that left its trace, under the name of who sent it.
fn assert_all_audited(gprxy: &Gprxy, server: &Cluster) {
    let ran = server.sql("select tag from ran order by tag");
    let ran: Vec<&str> = ran.lines().collect();
    assert!(ran.len() > 20, "some attacks run their statements: {ran:?}");
    for (at, tag) in ran.iter().enumerate() {
        assert!(at == 0 || ran[at - 1] != *tag, "{tag} ran twice");
        let line = gprxy.await_audited(&format!("'{tag}'"));
        assert_eq!(line.user(), Some("bob@corp.example"), "{line:?}");
    }
    // Once each, also when an answer came too late to be told.
    eventually("one record for each", || {
        let lines = gprxy.audit();
        let of = |tag: &str| {
            let marker = format!("'{tag}'");
            let done = |line: &&crate::support::audit::Line| matches!(line.sqlstate(), None | Some("00000"));
            let text = |line: &&crate::support::audit::Line| line.statement().is_some_and(|it| it.contains(&marker));
            lines.iter().filter(text).filter(done).count()
        };
        ran.iter().all(|tag| of(tag) == 1).then_some(())
    });
}

#[test]
fn statements_hidden_in_copy_data_shift_nobodys_answers_on_15() {
    replay(Version::V15);
}

#[test]
fn statements_hidden_in_copy_data_shift_nobodys_answers_on_18() {
    replay(Version::V18);
}
