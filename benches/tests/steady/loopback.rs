//! Real runtimes between real sockets: what the worker's thread allocates, the executor included. On tokio that is
//! nothing. On smol the reactor of `async-io` makes a list of who is to be woken each time that it has waited, which is
//! once for each direction of a round trip, and the queue of `async-executor` takes a block for each 31 wakes.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::sync::atomic::Ordering;
use std::thread;

use gprxy_proto::driver::host::{Bound, Host};
use gprxy_proto::driver::serve::serve;
use gprxy_proto::policy::Endpoint;

use crate::counting::{count_into, counter};
use crate::messages::{extended, message, prepared, simple, startup};
use crate::proxy;

const WARM_UP: usize = 200;
const ROUND_TRIPS: usize = 10_000;

#[test]
fn tokio_needs_no_memory_for_simple_queries() {
    assert_eq!(allocations::<gprxy_tokio::Tokio>(&simple()), 0);
}

#[test]
fn tokio_needs_no_memory_for_extended_queries() {
    assert_eq!(allocations::<gprxy_tokio::Tokio>(&extended()), 0);
}

#[test]
fn tokio_needs_no_memory_for_prepared_statements() {
    assert_eq!(allocations::<gprxy_tokio::Tokio>(&prepared()), 0);
}

#[test]
fn smol_needs_memory_for_its_reactor_and_queue_only() {
    for messages in [simple(), extended(), prepared()] {
        let all = allocations::<gprxy_smol::Smol>(&messages);
        println!("smol: {} allocations per round trip", all as f64 / ROUND_TRIPS as f64);
        // Two lists and two wakes: 2.065.
        assert!(10 * all <= 21 * ROUND_TRIPS as u64, "{all} allocations in {ROUND_TRIPS} round trips");
    }
}

/// Allocations of the worker's thread in [`ROUND_TRIPS`].
fn allocations<H: Host>((query, answer): &(Vec<u8>, Vec<u8>)) -> u64 {
    let server = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("loopback works");
    let port = server.local_addr().expect("it is bound").port();
    let (asked, answered) = (query.len(), answer.clone());
    let server = thread::spawn(move || serve_one(&server, asked, &answered));

    let shared = proxy::shared::<H>(Endpoint::Tcp { host: "127.0.0.1".into(), port }, false);
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("loopback works");
    let address = listener.local_addr().expect("it is bound");
    let allocations = counter();
    let worker = {
        let shared = shared.clone();
        H::start_worker(0, move || async move {
            count_into(Some(allocations));
            let listener = H::listen(Bound::Tcp(listener)).expect("it listens");
            serve(shared.clone(), listener).await;
            shared.emptied().await;
        })
    };
    let worker = worker.expect("threads can be started");

    let mut client = log_in(TcpStream::connect(address).expect("the proxy accepts"));
    let mut received = vec![0; answer.len()];
    let mut before = 0;
    for round in 0..WARM_UP + ROUND_TRIPS {
        if round == WARM_UP {
            before = allocations.load(Ordering::SeqCst);
        }
        client.write_all(query).expect("the proxy reads");
        client.read_exact(&mut received).expect("the proxy answers");
        assert!(received == *answer, "round {round}");
    }
    let after = allocations.load(Ordering::SeqCst);
    assert!(before > 0, "the login at least was counted");

    client.write_all(&message(b'X', b"")).expect("the proxy reads");
    drop(client);
    shared.drain();
    worker.join().expect("the worker ends in order");
    server.join().expect("the server ends in order");
    after - before
}

fn log_in(mut client: TcpStream) -> TcpStream {
    client.set_nodelay(true).expect("a TCP socket");
    client.write_all(&startup()).expect("the proxy reads");
    skip_to(&mut client, b'R');
    client.write_all(&message(b'p', b"secret\0")).expect("the proxy reads");
    skip_to(&mut client, b'Z');
    client
}

/// A server that asks for a password, takes any, and has one answer to everything.
fn serve_one(listener: &TcpListener, asked: usize, answer: &[u8]) {
    let (mut socket, _) = listener.accept().expect("the proxy connects");
    socket.set_nodelay(true).expect("a TCP socket");
    let mut length = [0; 4];
    socket.read_exact(&mut length).expect("a startup packet");
    let rest = u32::from_be_bytes(length) as usize - 4;
    socket.read_exact(&mut vec![0; rest]).expect("a startup packet");
    socket.write_all(&message(b'R', &3_u32.to_be_bytes())).expect("the proxy reads");
    skip_to(&mut socket, b'p');
    let key = message(b'K', &[0, 0, 0, 7, 1, 2, 3, 4]);
    let welcome = [message(b'R', &[0; 4]), key, message(b'Z', b"I")].concat();
    socket.write_all(&welcome).expect("the proxy reads");
    let mut query = vec![0; asked];
    for _ in 0..WARM_UP + ROUND_TRIPS {
        socket.read_exact(&mut query).expect("a query");
        socket.write_all(answer).expect("the proxy reads");
    }
    // Closing is noticed and answered: not before the counting is over and the client has left.
    let _ = socket.read(&mut query);
}

/// Reads up to and including the next message of this type.
fn skip_to(socket: &mut TcpStream, wanted: u8) {
    loop {
        let mut header = [0; 5];
        socket.read_exact(&mut header).expect("a message");
        let length = u32::from_be_bytes([header[1], header[2], header[3], header[4]]) as usize;
        socket.read_exact(&mut vec![0; length - 4]).expect("a body");
        if header[0] == wanted {
            return;
        }
    }
}
