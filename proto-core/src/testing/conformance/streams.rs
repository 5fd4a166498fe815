//! Bytes through sockets.

use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::net::{TcpListener, ToSocketAddrs as _};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use futures_io::{AsyncRead as _, AsyncWrite as _};

use super::{
    Dice, KINDS, Kind, Place, Queue, accept, both, close, connect, drain, loopback_port, pair, pattern, poll_fill,
    read, read_exact, run, task, write_all,
};
use crate::driver::host::{Bound, Host};
use crate::driver::runtime::Socket;
use crate::policy::{Endpoint, SocketOptions};

/// More than any socket buffer of a sane system holds.
const MOST: usize = 256 << 20;

async fn echo<S: Socket>(socket: &mut S, seed: u64) -> io::Result<usize> {
    let mut dice = Dice(seed);
    let mut bytes = vec![0; 4096];
    let mut total = 0;
    loop {
        let room = dice.between(1, bytes.len());
        let n = read(socket, &mut bytes[..room]).await?;
        if n == 0 {
            close(socket).await?;
            return Ok(total);
        }
        total += n;
        write_all(socket, &bytes[..n]).await?;
    }
}

/// Half of the writes are vectored.
async fn write_chopped<S: Socket>(socket: &mut S, mut bytes: &[u8], seed: u64) -> io::Result<()> {
    let mut dice = Dice(seed);
    while !bytes.is_empty() {
        let piece = dice.between(1, 2000).min(bytes.len());
        let n = if piece.is_multiple_of(2) {
            let (front, back) = bytes[..piece].split_at(piece / 3);
            let slices = [IoSlice::new(front), IoSlice::new(back)];
            poll_fn(|context| Pin::new(&mut *socket).poll_write_vectored(context, &slices)).await?
        } else {
            super::write(socket, &bytes[..piece]).await?
        };
        assert!(n > 0 && n <= piece, "a write of {piece} bytes wrote {n}");
        bytes = &bytes[n..];
    }
    close(socket).await
}

/// What is written in any pieces comes back unchanged and in order, also when both directions are busy.
pub fn echoes_chopped_bytes<H: Host>() {
    for (kind, seed) in [(Kind::Tcp, 11), (Kind::Tcp, 12), (Kind::Unix, 13), (Kind::Unix, 14)] {
        run::<H, _>(async {
            let (mut client, mut server) = pair::<H>(kind).await;
            let echoed = task::<H, _>(async move { echo(&mut server, seed).await.expect("the echo goes on") });
            let sent = pattern(300_000);
            // One socket, both directions at once, in one task: as a session uses it.
            let mut returned = Vec::with_capacity(sent.len());
            let mut buffer = vec![0; 1000];
            let mut dice = Dice(seed + 100);
            let mut left = &sent[..];
            let mut closed = false;
            poll_fn(|context| {
                loop {
                    let mut moved = false;
                    if !left.is_empty() {
                        let piece = dice.between(1, 3000).min(left.len());
                        if let Poll::Ready(n) = Pin::new(&mut client).poll_write(context, &left[..piece]) {
                            left = &left[n.expect("the server reads")..];
                            moved = true;
                        }
                    } else if !closed {
                        closed = Pin::new(&mut client).poll_close(context).is_ready();
                    }
                    match Pin::new(&mut client).poll_read(context, &mut buffer) {
                        Poll::Ready(Ok(0)) => return Poll::Ready(()),
                        Poll::Ready(n) => {
                            returned.extend_from_slice(&buffer[..n.expect("the server answers")]);
                            moved = true;
                        }
                        Poll::Pending => {}
                    }
                    if !moved {
                        return Poll::Pending;
                    }
                }
            })
            .await;
            assert_eq!(echoed.take().await, sent.len());
            assert!(returned == sent, "{kind:?}: what came back differs");
        });
        run::<H, _>(async {
            let (mut client, mut server) = pair::<H>(kind).await;
            let sent = pattern(200_000);
            let mut received = vec![0; sent.len()];
            let reading = async {
                read_exact(&mut server, &mut received).await.expect("all of it comes");
                assert_eq!(read(&mut server, &mut [0]).await.expect("an end"), 0);
            };
            both(async { write_chopped(&mut client, &sent, seed).await.expect("the server reads") }, reading).await;
            assert!(received == sent, "{kind:?}: what arrived differs");
        });
    }
}

/// A peer that does not read stops the writer, who goes on once it reads: nothing is lost, whatever the size.
pub fn a_full_peer_makes_the_writer_wait<H: Host>() {
    for kind in KINDS {
        run::<H, _>(async {
            let (mut client, mut server) = pair::<H>(kind).await;
            let held = poll_fn(|context| poll_fill(&mut client, context, MOST)).await.expect("the server is there");
            assert!(held > 0);
            // The waker of this write is the one that counts from now on.
            let rest = pattern(8 << 20);
            let writing = task::<H, _>(async move {
                write_all(&mut client, &rest).await.expect("the server reads");
                close(&mut client).await.expect("the server is there");
                rest.len()
            });
            let mut total = 0;
            let mut bytes = vec![0; 7000];
            loop {
                // A slow reader: everybody else has a turn between two reads.
                super::yield_now().await;
                match read(&mut server, &mut bytes).await.expect("the writer goes on") {
                    0 => break,
                    n => total += n,
                }
            }
            assert_eq!(total, held + writing.take().await);
        });
    }
}

/// The end of one direction leaves the other alone.
pub fn a_half_closed_socket_still_carries_the_other_way<H: Host>() {
    for kind in KINDS {
        run::<H, _>(async {
            let (mut client, mut server) = pair::<H>(kind).await;
            write_all(&mut client, b"last words").await.expect("the server is there");
            close(&mut client).await.expect("the server is there");
            close(&mut client).await.expect("closing twice is once");
            assert_eq!(drain(&mut server).await.expect("an end"), 10);
            assert_eq!(read(&mut server, &mut [0; 8]).await.expect("still the end"), 0);
            let answer = pattern(1 << 20);
            let sending = async {
                write_all(&mut server, &answer).await.expect("the client reads");
                drop(server);
            };
            let (received, ()) = both(drain(&mut client), sending).await;
            assert_eq!(received.expect("an end"), answer.len());
        });
    }
}

/// An accept that is given up loses nobody; thousands that come at once are all served.
pub fn accepts_thousands_of_sockets<H: Host>() {
    const SOCKETS: usize = 2000;
    run::<H, _>(async {
        let place = Place::new(Kind::Tcp);
        let listener = place.listen::<H>();
        assert!(super::once(&mut Box::pin(accept::<H>(&listener))).await.is_pending());
        let clients = Queue::new();
        for number in 0..SOCKETS {
            let (endpoint, clients) = (place.endpoint.clone(), clients.clone());
            H::spawn(async move {
                let mut socket = connect::<H>(&endpoint).await;
                let word = u64::try_from(number).expect("a number").to_be_bytes();
                write_all(&mut socket, &word).await.expect("the server is there");
                let mut answer = [0; 8];
                read_exact(&mut socket, &mut answer).await.expect("the server answers");
                assert_eq!(answer, word);
                clients.put(socket);
            });
        }
        let mut servers = Vec::new();
        for _ in 0..SOCKETS {
            let (mut socket, _) = accept::<H>(&listener).await;
            servers.push(task::<H, _>(async move {
                let mut word = [0; 8];
                read_exact(&mut socket, &mut word).await.expect("the client asks");
                write_all(&mut socket, &word).await.expect("the client is there");
                socket
            }));
        }
        // All are open until the last has been answered.
        let mut open = Vec::new();
        for server in servers {
            open.push((clients.take().await, server.take().await));
        }
        assert_eq!(open.len(), SOCKETS);
    });
}

/// Two workers on one bound socket: every client finds one of them.
pub fn listeners_share_a_bound_socket<H: Host>() {
    const SOCKETS: usize = 200;
    for kind in KINDS {
        let place = Place::new(kind);
        let served = Arc::new(AtomicUsize::new(0));
        let over = Queue::new();
        for index in 0..2 {
            let bound = place.bound.share().expect("descriptors are left");
            let (served, over) = (served.clone(), over.clone());
            let worker = move || async move {
                let listener = H::listen(bound).expect("the socket can be watched");
                H::spawn(async move {
                    loop {
                        let (mut socket, _) = accept::<H>(&listener).await;
                        served.fetch_add(1, Ordering::Relaxed);
                        H::spawn(async move { write_all(&mut socket, b"!").await.expect("the client waits") });
                    }
                });
                over.take().await;
            };
            H::start_worker(index, worker).expect("a thread can be started");
        }
        run::<H, _>(async {
            for _ in 0..SOCKETS {
                let mut socket = connect::<H>(&place.endpoint).await;
                assert_eq!(drain(&mut socket).await.expect("a word and the end"), 1);
            }
        });
        assert_eq!(served.load(Ordering::Relaxed), SOCKETS);
        over.put(());
    }
}

/// Who has connected is known.
pub fn callers_are_named<H: Host>() {
    run::<H, _>(async {
        let place = Place::new(Kind::Tcp);
        let listener = place.listen::<H>();
        let (client, (_server, caller)) = both(connect::<H>(&place.endpoint), accept::<H>(&listener)).await;
        let port = caller.address.strip_prefix("127.0.0.1:").map(str::parse::<u16>);
        assert!(matches!(port, Some(Ok(port)) if port != 0 && port != loopback_port(&place)), "{caller:?}");
        assert!(caller.is_local);
        drop(client);
        let place = Place::new(Kind::Unix);
        let listener = place.listen::<H>();
        let (_client, (_server, caller)) = both(connect::<H>(&place.endpoint), accept::<H>(&listener)).await;
        assert_eq!((&*caller.address, caller.is_local), ("unix", true));
        // Whoever made the socket file is the one who connects here.
        if cfg!(target_os = "linux") {
            assert_eq!(caller.uid, Some(place.owner()));
        }
    });
}

/// Who reads without anybody to wake asks what has come by now, also behind a read that took all there was: so a parked
/// connection is looked at before it serves again.
pub fn a_look_finds_what_has_come<H: Host>() {
    run::<H, _>(async {
        for kind in KINDS {
            let (mut ours, mut theirs) = pair::<H>(kind).await;
            let mut buffer = [0; 64];
            write_all(&mut theirs, b"first").await.expect("written");
            assert_eq!(read(&mut ours, &mut buffer).await.expect("read"), 5);
            // Nobody waits for this one.
            write_all(&mut theirs, b"x").await.expect("written");
            crate::driver::serve::pause::<H>(Duration::from_millis(20)).await;
            let context = &mut Context::from_waker(Waker::noop());
            let look = Pin::new(&mut ours).poll_read(context, &mut buffer);
            assert!(matches!(look, Poll::Ready(Ok(1))), "{look:?}");
        }
    });
}

/// What the kernel is asked for on a TCP connection, it does; a Unix socket has none of it.
pub fn sockets_are_tuned<H: Host>() {
    run::<H, _>(async {
        let place = Place::new(Kind::Tcp);
        let listener = place.listen::<H>();
        let (client, (server, caller)) = both(connect::<H>(&place.endpoint), accept::<H>(&listener)).await;
        let (port, listening) = (caller.address.rsplit_once(':').expect("a port").1, loopback_port(&place));
        let port = port.parse().expect("a number");
        let idle = Some(Duration::from_secs(1000));
        let options = SocketOptions {
            keepidle: idle,
            keepcnt: Some(3),
            user_timeout: Some(Duration::from_secs(30)),
            buffer: Some(100_000),
            ..SocketOptions::default()
        };
        for socket in [&client, &server] {
            H::tune(socket, &options).expect("the kernel takes it");
        }
        // Hundredths of a second; the other one has the ports the other way round.
        for (local, remote) in [(port, listening), (listening, port)] {
            let left = keepalive_timer(local, remote);
            assert!(left.is_none_or(|left| (90_000..=100_100).contains(&left)), "{left:?}");
        }
        let off = SocketOptions { keepalive: false, ..SocketOptions::default() };
        H::tune(&client, &off).expect("the kernel takes it");
        assert_eq!(keepalive_timer(port, listening).filter(|&left| left > 0), None);
        let (client, _server) = pair::<H>(Kind::Unix).await;
        H::tune(&client, &options).expect("it is passed over");
    });
}

/// When the kernel asks the peer for a sign of life, as far as the system tells: `None` elsewhere than on Linux.
#[expect(clippy::disallowed_methods, reason = "what the kernel was told stands in no other place")]
fn keepalive_timer(local: u16, remote: u16) -> Option<u64> {
    let table = std::fs::read_to_string("/proc/self/net/tcp").ok()?;
    let (local, remote) = (format!(":{local:04X}"), format!(":{remote:04X}"));
    let columns = |line: &str| line.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
    let row =
        table.lines().map(columns).find(|row| row.len() > 5 && row[1].ends_with(&local) && row[2].ends_with(&remote));
    let row = row.expect("the connection is in the kernel's table");
    let (timer, left) = row[5].split_once(':').expect("a timer and its time");
    let left = u64::from_str_radix(left, 16).expect("a number");
    Some(if timer == "02" { left } else { 0 })
}

/// A host may be a name; of its addresses, those where nobody listens are passed over.
pub fn names_are_looked_up<H: Host>() {
    run::<H, _>(async {
        let addresses = ("localhost", 0).to_socket_addrs().expect("every system knows its own name");
        let last = addresses.last().expect("the name has an address");
        let bound = Bound::Tcp(TcpListener::bind(last).expect("loopback can be bound"));
        let port = bound.address().expect("a bound socket has an address").port();
        let listener = H::listen(bound).expect("the socket can be watched");
        let endpoint = Endpoint::Tcp { host: "localhost".into(), port };
        let (mut client, (mut server, _)) = both(connect::<H>(&endpoint), accept::<H>(&listener)).await;
        write_all(&mut client, b"found").await.expect("the server is there");
        drop(client);
        assert_eq!(drain(&mut server).await.expect("an end"), 5);
        let nowhere = Endpoint::Tcp { host: "no such..name".into(), port: 5432 };
        assert!(H::connect(nowhere).await.is_err());
    });
}

struct Counted(AtomicUsize);

impl Wake for Counted {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

/// A socket that was polled by one task and is then used by another wakes the other, as pooled connections need it.
pub fn the_last_waker_is_the_one_that_is_woken<H: Host>() {
    for kind in KINDS {
        run::<H, _>(async {
            let (mut client, mut server) = pair::<H>(kind).await;
            let stranger = Arc::new(Counted(AtomicUsize::new(0)));
            let waker = Waker::from(stranger);
            let looked = Pin::new(&mut client).poll_read(&mut Context::from_waker(&waker), &mut [0]);
            assert!(looked.is_pending());
            let reading = task::<H, _>(async move {
                let mut byte = [0];
                read_exact(&mut client, &mut byte).await.expect("the server speaks");
                byte
            });
            super::yield_now().await;
            write_all(&mut server, b"x").await.expect("the client is there");
            assert_eq!(reading.take().await, *b"x");
        });
    }
}
