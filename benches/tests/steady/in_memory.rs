//! Between sockets that write down every call: what is read is written from where it lies, by one call.

use std::sync::atomic::{AtomicU64, Ordering};

use gprxy_proto::driver::serve::serve;
use gprxy_proto::policy::Endpoint;
use gprxy_proto::pool::PoolMode;

use crate::counting::{count_into, counter};
use crate::messages::{data_row, extended, message, prepared, simple, startup};
use crate::proxy;
use crate::world::{Call, End, InMemory, OneClient, Peer, abandon, connected, connection, run, take_calls};

const WARM_UP: usize = 100;
const ROUND_TRIPS: u64 = 10_000;

/// A session that is up: the client is logged in, the server has said that it is idle.
struct Established {
    client: End,
    server: End,
    received: Vec<u8>,
    calls: Vec<Call>,
    allocations: &'static AtomicU64,
}

impl Established {
    fn new() -> Self {
        Self::with_audit(false)
    }

    fn with_audit(audited: bool) -> Self {
        Self::in_mode(audited, PoolMode::Session)
    }

    fn in_mode(audited: bool, mode: PoolMode) -> Self {
        let allocations = counter();
        let shared = proxy::in_mode::<InMemory>(Endpoint::Unix("server".into()), audited, mode);
        let (socket, client) = connection(Peer::Client);
        <InMemory as gprxy_proto::driver::runtime::Runtime>::spawn(serve(shared, OneClient::new(socket)));
        let mut received = Vec::new();

        client.send(&startup());
        run(allocations);
        client.receive(&mut received);
        assert_eq!(received, message(b'R', &3_u32.to_be_bytes()), "a password is asked for");
        client.send(&message(b'p', b"secret\0"));
        run(allocations);

        let server = connected().expect("the proxy connects to the server");
        server.receive(&mut received);
        assert!(received.windows(4).any(|window| window == b"ann\0"), "a startup packet with the user");
        server.send(&message(b'R', &3_u32.to_be_bytes()));
        run(allocations);
        server.receive(&mut received);
        assert_eq!(received, message(b'p', b"secret\0"));
        let key = message(b'K', &[0, 0, 0, 7, 1, 2, 3, 4]);
        server.send(&[message(b'R', &[0; 4]), key, message(b'Z', b"I")].concat());
        run(allocations);
        client.receive(&mut received);
        assert!(received.ends_with(&message(b'Z', b"I")), "the session is up");

        let mut calls = Vec::with_capacity(4096);
        take_calls(&mut calls);
        received.reserve(8 * 1024 * 1024);
        Self { client, server, received, calls, allocations }
    }

    /// The client says something; the server gets it, from the very memory that it was read into.
    fn ask(&mut self, query: &[u8]) {
        self.client.send(query);
        self.arrives(query, Peer::Client);
    }

    fn answer(&mut self, answer: &[u8]) {
        self.server.send(answer);
        self.arrives(answer, Peer::Server);
    }

    fn arrives(&mut self, bytes: &[u8], source: Peer) {
        run(self.allocations);
        let (end, target) = match source {
            Peer::Client => (&self.server, Peer::Server),
            Peer::Server => (&self.client, Peer::Client),
        };
        end.receive(&mut self.received);
        assert!(self.received == bytes, "what was sent arrives as it is");
        take_calls(&mut self.calls);
        let [Call::Read { from, address: read, len: got }, Call::Write { to, address: written, len: gone }] =
            *self.calls.as_slice()
        else {
            panic!("one read and one write were expected: {:?}", self.calls);
        };
        assert_eq!((from, got, to, gone), (source, bytes.len(), target, bytes.len()));
        assert_eq!(read, written, "the bytes are written from where they were read to");
    }

    fn allocations(&self) -> u64 {
        self.allocations.load(Ordering::SeqCst)
    }

    fn steady(&mut self, query: &[u8], answer: &[u8]) {
        for _ in 0..WARM_UP {
            self.ask(query);
            self.answer(answer);
        }
        let before = self.allocations();
        for _ in 0..ROUND_TRIPS {
            self.ask(query);
            self.answer(answer);
        }
        assert_eq!(self.allocations() - before, 0, "allocations in {ROUND_TRIPS} round trips");
    }
}

/// Leaves in order: the proxy complains about server connections that nobody gave back.
impl Drop for Established {
    fn drop(&mut self) {
        if std::thread::panicking() {
            // What failed has been said; a complaint on top of it would end the process.
            return abandon();
        }
        self.client.send(&message(b'X', b""));
        run(self.allocations);
        self.client.close();
        self.server.close();
        run(self.allocations);
    }
}

#[test]
fn the_counter_counts() {
    let counter = counter();
    count_into(Some(counter));
    let boxed = std::hint::black_box(Box::new(7_u64));
    count_into(None);
    assert_eq!(counter.load(Ordering::SeqCst), 1, "{boxed}");
}

#[test]
fn a_simple_query_costs_two_calls_each_way_and_no_memory() {
    let (query, answer) = simple();
    Established::new().steady(&query, &answer);
}

#[test]
fn an_extended_query_costs_two_calls_each_way_and_no_memory() {
    let (query, answer) = extended();
    Established::new().steady(&query, &answer);
}

#[test]
fn a_prepared_statement_costs_two_calls_each_way_and_no_memory() {
    let (query, answer) = prepared();
    let mut session = Established::new();
    session.ask(&[message(b'P', b"P0_1\0SELECT 1\0\0\0"), message(b'S', b"")].concat());
    session.answer(&[message(b'1', b""), message(b'Z', b"I")].concat());
    session.steady(&query, &answer);
}

/// A lease that needs nothing: the connection comes and goes without a call and without memory.
#[test]
fn a_lease_for_each_transaction_costs_neither_calls_nor_memory() {
    for (query, answer) in [simple(), extended()] {
        Established::in_mode(false, PoolMode::Transaction).steady(&query, &answer);
    }
}

#[test]
fn a_lease_for_a_prepared_statement_costs_neither_calls_nor_memory() {
    let (query, answer) = prepared();
    let mut session = Established::in_mode(false, PoolMode::Transaction);
    session.ask(&[message(b'P', b"P0_1\0SELECT 1\0\0\0"), message(b'S', b"")].concat());
    session.answer(&[message(b'1', b""), message(b'Z', b"I")].concat());
    session.steady(&query, &answer);
}

/// A place in the trail for each of its statements is there before any of it goes.
#[test]
fn an_audited_pipeline_costs_two_calls_each_way() {
    let (query, answer) = extended();
    let (queries, answers) = (query.repeat(3), answer.repeat(3));
    let mut session = Established::with_audit(true);
    for _ in 0..WARM_UP {
        session.ask(&query);
        session.answer(&answer);
        session.ask(&queries);
        session.answer(&answers);
    }
}

/// Rows of 100 bytes up to far beyond one buffer, so that reads cut messages wherever they like.
#[test]
fn a_large_result_is_never_copied_and_needs_no_memory() {
    let row = data_row(&[b'x'; 93]);
    let mut answer: Vec<u8> = row.iter().copied().cycle().take(row.len() * 20_000).collect();
    answer.extend(message(b'C', b"SELECT 20000\0"));
    answer.extend(message(b'Z', b"I"));
    let query = message(b'Q', b"select * from t\0");
    let mut session = Established::new();
    let mut before = 0;
    for round in 0..30 {
        if round == 10 {
            before = session.allocations();
        }
        session.ask(&query);
        session.server.send(&answer);
        run(session.allocations);
        session.client.receive(&mut session.received);
        assert!(session.received == answer, "round {round}");
        take_calls(&mut session.calls);
        assert_forwarded_in_place(&session.calls);
    }
    assert_eq!(session.allocations() - before, 0);
}

/// A result whose every read ends somewhere else, one byte at a time at its end: what decides (`C`, `Z`) comes in pieces.
#[test]
fn messages_that_arrive_in_pieces_need_no_memory() {
    let (query, answer) = simple();
    let mut session = Established::new();
    let mut before = 0;
    for round in 0..2_000 {
        if round == WARM_UP {
            before = session.allocations();
        }
        session.ask(&query);
        let mut arrived = 0;
        for byte in &answer {
            session.server.send(std::slice::from_ref(byte));
            run(session.allocations);
            session.client.receive(&mut session.received);
            assert!(answer[arrived..].starts_with(&session.received));
            arrived += session.received.len();
            take_calls(&mut session.calls);
        }
        assert_eq!(arrived, answer.len(), "round {round}");
    }
    assert_eq!(session.allocations() - before, 0);
}

/// Every byte written must lie where the last reads put it, in the same order and without a gap.
fn assert_forwarded_in_place(calls: &[Call]) {
    let mut unread: Option<(usize, usize)> = None;
    for call in calls {
        match *call {
            Call::Read { address, len, .. } => {
                unread = match unread {
                    // The few bytes of a cut header are still in front of what comes now.
                    Some((start, end)) if end == address => Some((start, address + len)),
                    Some((start, end)) if start == end => Some((address, address + len)),
                    None => Some((address, address + len)),
                    Some(rest) => panic!("read to {address:#x} while {rest:x?} was not written"),
                };
            }
            Call::Write { address, len, .. } => {
                let (start, end) = unread.expect("something was read before");
                assert!(address == start && address + len <= end, "written from {address:#x}, read to {start:#x}");
                unread = Some((start + len, end));
            }
            Call::Empty { from } => panic!("a read of {from:?} that found nothing"),
        }
    }
    assert!(unread.is_some_and(|(start, end)| start == end), "everything was written");
}
