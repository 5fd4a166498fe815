//! What a proxy promises, on this runtime: sessions from their first byte to their last, with a server that plays its part.

use std::time::Duration;

use super::super::wire::front;
use super::proxy::{Rig, Terms, with_proxy};
use super::visitor::Visitor;
use super::{Queue, pattern, task};
use crate::driver::host::Host;
use crate::policy::{Limits, SslMode};
use crate::session::Profile;

/// More than all buffers between a client and its server hold together.
const MUCH: usize = 64 << 20;
const SOON: Duration = Duration::from_millis(50);

/// The SQLSTATE of the answer's error.
fn code(answer: &[super::super::wire::Message]) -> Option<String> {
    answer.iter().find(|message| message.tag == b'E').map(super::super::wire::Message::code)
}

/// As many sessions at once as the pool has places.
async fn assert_whole<H: Host>(rig: &Rig<H>, places: usize) {
    let mut all = Vec::new();
    for place in 0..places {
        all.push(rig.session(&format!("place-{place}")).await);
    }
    for (place, visitor) in all.iter_mut().enumerate() {
        assert_eq!(visitor.value(&format!("select 'mine-{place}'")).await, format!("mine-{place}").into_bytes());
    }
    for visitor in all {
        visitor.leave().await;
    }
}

/// A client over TLS, a server over TLS, and a connection that is used again; also behind a refused GSSENCRequest.
pub fn sessions_work_over_tls_on_both_sides<H: Host>() {
    with_proxy::<H>(Terms { sslmode: SslMode::Require, ..Terms::default() }, async |rig| {
        for round in 0..3 {
            let mut visitor = rig.visitor().await;
            if round > 0 {
                visitor.send(&front::gssenc_request()).await.expect("the proxy is there");
                assert_eq!(visitor.byte().await, Some(b'N'));
            }
            visitor.start_tls().await;
            assert_eq!(visitor.log_in("alice").await.tag, b'Z');
            assert_eq!(visitor.value(&format!("select 'round-{round}'")).await, format!("round-{round}").into_bytes());
            // Many records in one direction, then in the other.
            assert_eq!(visitor.value("big 1000000").await.len(), 1_000_000);
            visitor.send(&front::query("copy in")).await.expect("the proxy is there");
            for piece in pattern(1_000_000).chunks(9973) {
                visitor.send(&front::copy_data(piece)).await.expect("the proxy is there");
            }
            visitor.send(&front::copy_done()).await.expect("the proxy is there");
            assert_eq!(code(&visitor.answer().await), None);
            assert_eq!(rig.postgres.copied().pop().map(|(_, data)| data), Some(pattern(1_000_000)));
            visitor.leave().await;
            // It comes back behind its session.
            rig.until(|rig| rig.shared.inspect(|hub| hub.pools.snapshot().all(|pool| pool.idle == 1))).await;
        }
        assert_eq!(rig.postgres.logins(), 1, "the connection is used again");
    });
}

/// Bytes that come one at a time, and that are read a few at a time, on all four sides.
pub fn slow_readers_and_writers_get_the_same_answers<H: Host>() {
    for (crumbs, encrypted) in [(1, false), (3, false), (7, true)] {
        let sslmode = if encrypted { SslMode::Require } else { SslMode::Disable };
        with_proxy::<H>(Terms { sslmode, crumbs, ..Terms::default() }, async |rig| {
            let mut slow = rig.visitor().await;
            slow.crumbs = crumbs;
            if encrypted {
                slow.start_tls().await;
            }
            let (packet, password) = Visitor::<H>::introduction("alice");
            slow.send_slowly(&packet).await;
            slow.send_slowly(&password).await;
            assert_eq!(slow.finish_login().await.tag, b'Z');
            slow.send_slowly(&front::query("rows 20 abc")).await;
            let rows: Vec<_> = slow.answer().await.into_iter().filter(|message| message.tag == b'D').collect();
            assert_eq!(rows.len(), 20);
            for (number, row) in rows.iter().enumerate() {
                assert_eq!(row.value(), format!("abc/{number}").as_bytes());
            }
            let batch = [front::parse("", "rows 3 x"), front::bind("", ""), front::execute("", 0), front::sync()];
            slow.send_slowly(&batch.concat()).await;
            let tags: Vec<u8> = slow.answer().await.iter().map(|message| message.tag).collect();
            assert_eq!(tags, b"12DDDCZ");
            slow.leave().await;
        });
    }
}

/// What a client does not read, its server cannot send; others do not notice, and in the end every byte arrives.
pub fn a_reader_that_does_not_read_stops_its_server<H: Host>() {
    for encrypted in [false, true] {
        with_proxy::<H>(Terms::default(), async |rig| {
            let mut slow = rig.visitor().await;
            if encrypted {
                slow.start_tls().await;
            }
            assert_eq!(slow.log_in("slow").await.tag, b'Z');
            slow.send(&front::query(&format!("big {MUCH}"))).await.expect("the proxy is there");
            // The server is at it.
            assert_eq!(slow.next().await.map(|message| message.tag), Some(b'T'));
            let mut other = rig.session("other").await;
            for number in 0..200 {
                assert_eq!(other.value(&format!("select '{number}'")).await, number.to_string().into_bytes());
            }
            assert!(rig.gate.written() < MUCH, "the server got rid of {} bytes", rig.gate.written());
            let answer = slow.answer().await;
            assert_eq!(answer.iter().map(|message| message.tag).collect::<Vec<_>>(), b"DCZ");
            assert_eq!(answer[0].value().len(), MUCH);
            other.leave().await;
            slow.leave().await;
        });
    }
}

/// What a server does not read, its client cannot send.
pub fn a_server_that_does_not_read_stops_its_client<H: Host>() {
    with_proxy::<H>(Terms::default(), async |rig| {
        let mut client = rig.session("alice").await;
        client.send(&front::query("copy in")).await.expect("the proxy is there");
        assert_eq!(client.next().await.map(|message| message.tag), Some(b'G'));
        rig.gate.close();
        let data = front::copy_data(&pattern(1 << 20));
        let sent = client.send_until_stuck(&data, MUCH).await;
        assert!(sent < MUCH, "{sent} bytes went to a server that does not read");
        rig.gate.open();
        // The rest of the message that was begun, and the end.
        client.send(&data[sent % data.len()..]).await.expect("the proxy is there");
        client.send(&front::copy_done()).await.expect("the proxy is there");
        assert_eq!(code(&client.answer().await), None);
        let copied = rig.postgres.copied().pop().map(|(_, copied)| copied).expect("the data has arrived");
        assert_eq!(copied, pattern(1 << 20).repeat(sent / data.len() + 1));
        client.leave().await;
    });
}

/// Who closes the sending half behind a query is gone for the proxy: nothing hangs, and the place is free.
pub fn a_half_closed_client_leaves_an_idle_pool<H: Host>() {
    with_proxy::<H>(Terms { pool_size: 1, ..Terms::default() }, async |rig| {
        for text in ["rows 5 half", "sleep 3600000 half", "copy in", "big 1000000"] {
            for encrypted in [false, true] {
                let mut client = rig.visitor().await;
                if encrypted {
                    client.start_tls().await;
                }
                assert_eq!(client.log_in("alice").await.tag, b'Z');
                client.send(&front::query(text)).await.expect("the proxy is there");
                client.half_close().await;
                // To its end, which has to come.
                while client.next().await.is_some() {}
                assert_whole(rig, 1).await;
            }
        }
    });
}

/// Clients that go away with bytes unread, which is a reset, at every point of a session.
pub fn clients_that_reset_anywhere_leave_an_idle_pool<H: Host>() {
    const PLACES: usize = 2;
    with_proxy::<H>(Terms { pool_size: 2, ..Terms::default() }, async |rig| {
        let (packet, password) = Visitor::<H>::introduction("mallory");
        let login = [packet, password].concat();
        for at in (0..=login.len()).step_by(23) {
            let mut client = rig.visitor().await;
            client.send(&login[..at]).await.expect("the proxy is there");
            drop(client);
        }
        for read in (0..6000).step_by(151) {
            let mut client = rig.session("mallory").await;
            client.send(&front::query("rows 500 stolen")).await.expect("the proxy is there");
            client.crumbs = 1;
            client.skip(read).await;
            drop(client);
        }
        assert_whole(rig, PLACES).await;
    });
}

/// Servers that break off at their login, between and inside of messages: the client is told where that is possible, and
/// the next one is served.
pub fn servers_that_die_anywhere_leave_a_pool_that_works<H: Host>() {
    with_proxy::<H>(Terms { pool_size: 1, ..Terms::default() }, async |rig| {
        for (text, last) in [("crash", Some(b'E')), ("exit 57P01", Some(b'E')), ("tear", None)] {
            for _ in 0..10 {
                let mut client = rig.session("alice").await;
                let answer = client.query(text).await;
                if last.is_some() {
                    assert_eq!(answer.last().map(|message| message.tag), last, "{text}: {answer:?}");
                }
                assert_eq!(client.next().await, None, "{text}");
                assert_whole(rig, 1).await;
            }
        }
        // While nothing runs.
        let mut idle = rig.session("alice").await;
        for pid in rig.postgres.backends() {
            rig.postgres.terminate(pid);
        }
        assert_eq!(code(&idle.answer().await).as_deref(), Some("57P01"));
        assert_whole(rig, 1).await;
    });
}

/// A cancel ends the statement of its key's owner, also while it waits for its turn; a wrong key ends nothing.
pub fn cancels_reach_their_statement_only<H: Host>() {
    with_proxy::<H>(Terms { pool_size: 2, ..Terms::default() }, async |rig| {
        let mut victim = rig.session("victim").await;
        let mut other = rig.session("other").await;
        for round in 1..=10 {
            victim.send(&front::query("sleep 3600000 victim")).await.expect("the proxy is there");
            other.send(&front::query("sleep 200 other")).await.expect("the proxy is there");
            let sleeps =
                |rig: &Rig<H>| rig.postgres.journal().iter().filter(|run| run.text.starts_with("sleep")).count();
            rig.until(|rig| sleeps(rig) == 2 * round).await;
            let (pid, mut key) = victim.key.clone();
            key[0] ^= 1;
            cancel(rig, pid, &key).await;
            cancel(rig, pid, &victim.key.1).await;
            assert_eq!(code(&victim.answer().await).as_deref(), Some("57014"));
            assert_eq!(code(&other.answer().await), None, "somebody else's statement");
        }
        let mut waiting = rig.visitor().await;
        let (packet, password) = Visitor::<H>::introduction("waiting");
        waiting.send(&[packet, password].concat()).await.expect("the proxy is there");
        waiting.read_key().await;
        rig.until(|rig| rig.shared.inspect(|hub| hub.pools.snapshot().any(|pool| pool.waiting == 1))).await;
        let (pid, key) = waiting.key.clone();
        cancel(rig, pid, &key).await;
        assert_eq!(code(&waiting.answer().await).as_deref(), Some("57014"));
        victim.leave().await;
        other.leave().await;
    });
}

async fn cancel<H: Host>(rig: &Rig<H>, pid: u32, key: &[u8]) {
    let mut visitor = rig.visitor().await;
    visitor.send(&front::cancel_request(pid, key)).await.expect("the proxy is there");
    assert_eq!(visitor.next().await, None, "a cancel request is never answered");
}

/// Whoever is idle is told at once; a transaction comes to its end first.
pub fn a_drain_lets_work_end<H: Host>() {
    with_proxy::<H>(Terms::default(), async |rig| {
        let mut idle = rig.session("idle").await;
        let mut busy = rig.session("busy").await;
        busy.query("begin").await;
        let mut running = rig.session("running").await;
        running.send(&front::query("sleep 300 running")).await.expect("the proxy is there");
        rig.until(|rig| rig.postgres.journal().iter().any(|run| run.text.starts_with("sleep"))).await;
        rig.shared.drain();
        assert_eq!(code(&idle.answer().await).as_deref(), Some("57P01"));
        assert_eq!(busy.value("select 'still-here'").await, b"still-here");
        let answer = running.answer().await;
        assert!(answer.iter().any(|message| message.tag == b'D'), "{answer:?}");
        assert_eq!(code(&running.answer().await).as_deref(), Some("57P01"));
        assert_eq!(code(&busy.query("commit").await), None);
        assert_eq!(code(&busy.answer().await).as_deref(), Some("57P01"));
    });
}

/// Who waits in the queue of a full pool is refused when `query_wait_timeout` has passed; who has a place keeps it.
pub fn a_full_queue_is_refused_in_time<H: Host>() {
    const WAITING: usize = 50;
    with_proxy::<H>(Terms { pool_size: 1, query_wait_timeout: SOON, ..Terms::default() }, async |rig| {
        let mut holder = rig.session("holder").await;
        let mut queue = Vec::new();
        for number in 0..WAITING {
            let mut visitor = rig.visitor().await;
            let (packet, password) = Visitor::<H>::introduction(&format!("waiting-{number}"));
            visitor.send(&[packet, password].concat()).await.expect("the proxy is there");
            queue.push(visitor);
        }
        for visitor in &mut queue {
            assert_eq!(code(&visitor.answer().await).as_deref(), Some("53300"));
        }
        assert_eq!(holder.value("select 'mine'").await, b"mine");
        holder.leave().await;
        assert_whole(rig, 1).await;
    });
}

/// Who does not log in within `client_login_timeout` is told so and sent away, wherever they stopped.
pub fn silent_clients_are_sent_away<H: Host>() {
    let terms = Terms::default();
    let limits = Limits { client_login_timeout: SOON, ..Limits::default() };
    let profile = Profile { limits, ..terms.profile };
    with_proxy::<H>(Terms { profile, ..terms }, async |rig| {
        let (packet, password) = Visitor::<H>::introduction("silent");
        let login = [packet, password].concat();
        let mut silent = Vec::new();
        for at in (0..login.len()).step_by(17) {
            let mut visitor = rig.visitor().await;
            visitor.send(&login[..at]).await.expect("the proxy is there");
            silent.push(visitor);
        }
        let mut in_handshake = rig.visitor().await;
        in_handshake.send(&front::ssl_request()).await.expect("the proxy is there");
        assert_eq!(in_handshake.byte().await, Some(b'S'));
        for mut visitor in silent.into_iter().chain([in_handshake]) {
            while visitor.next().await.is_some() {}
        }
        rig.until(|rig| rig.shared.sessions() == 0).await;
    });
}

/// Thousands of sessions at the same time, with few connections: everybody gets their own answers.
pub fn thousands_of_sessions_share_a_pool<H: Host>() {
    const SESSIONS: usize = 2000;
    with_proxy::<H>(Terms { pool_size: 10, ..Terms::default() }, async |rig| {
        let arrived = Queue::new();
        let mut all = Vec::new();
        for number in 0..SESSIONS {
            let (mut visitor, arrived, go) = (rig.visitor().await, arrived.clone(), Queue::new());
            let may_go = go.clone();
            let session = task::<H, _>(async move {
                let (packet, password) = Visitor::<H>::introduction(&format!("person-{number}"));
                visitor.send(&[packet, password].concat()).await.expect("the proxy is there");
                // Authenticated; most of them wait for their turn.
                visitor.read_key().await;
                arrived.put(());
                may_go.take().await;
                assert_eq!(visitor.finish_login().await.tag, b'Z');
                for round in 0..3 {
                    let mine = format!("{number}-{round}");
                    assert_eq!(visitor.value(&format!("select '{mine}'")).await, mine.into_bytes());
                }
                visitor.leave().await;
            });
            all.push((go, session));
        }
        for _ in 0..SESSIONS {
            arrived.take().await;
        }
        assert_eq!(rig.shared.sessions(), SESSIONS);
        assert!(rig.postgres.backends().len() <= 10);
        for (go, _) in &all {
            go.put(());
        }
        for (_, session) in all {
            session.take().await;
        }
    });
}
