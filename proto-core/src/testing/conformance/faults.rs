//! Peers that are not there, or no longer.

use std::future::poll_fn;
use std::io::ErrorKind;
use std::time::Duration;

use super::{
    KINDS, Kind, Place, accept, connect, drain, is_lost, pair, pattern, poll_fill, read, read_exact, run, task, write,
    write_all,
};
use crate::driver::host::Host;
use crate::driver::runtime::Socket;
use crate::driver::serve::within;
use crate::policy::Endpoint;

const MOST: usize = 256 << 20;

/// Closing a socket on bytes that nobody has read makes the kernel reset the connection. `front` bytes are read first.
async fn reset_after<S: Socket>(mut socket: S, front: usize) {
    read_exact(&mut socket, &mut vec![0; front]).await.expect("the peer has sent more than that");
}

/// Where nobody listens, connecting fails at once, and the error says why.
pub fn a_refused_connect_says_so<H: Host>() {
    run::<H, _>(async {
        let place = Place::new(Kind::Tcp);
        let endpoint = place.endpoint.clone();
        drop(place);
        let refused = H::connect(endpoint).await.err().map(|error| error.kind());
        assert_eq!(refused, Some(ErrorKind::ConnectionRefused));
        let missing = Endpoint::Unix(super::fresh_path().to_str().expect("the path is text").into());
        let refused = H::connect(missing).await.err().map(|error| error.kind());
        assert_eq!(refused, Some(ErrorKind::NotFound));
    });
}

/// A listener whose queue is full answers nobody: who waits there can give up, and others get through afterwards.
pub fn a_connect_that_is_given_up_leaves_nothing_behind<H: Host>() {
    run::<H, _>(async {
        let place = Place::new(Kind::Tcp);
        let mut waiting = Vec::new();
        loop {
            assert!(waiting.len() < 10_000, "a listener without accepts has no end");
            let limit = H::now().tick.after(Duration::from_millis(20));
            match within::<H, _>(limit, H::connect(place.endpoint.clone())).await {
                Some(socket) => waiting.push(socket.expect("the listener is there")),
                None => break,
            }
        }
        let listener = place.listen::<H>();
        let after = place.endpoint.clone();
        let after = task::<H, _>(async move {
            let mut socket = connect::<H>(&after).await;
            write_all(&mut socket, b"late").await.expect("the server is there");
        });
        loop {
            let (mut socket, _) = accept::<H>(&listener).await;
            // Those that only queued are silent and go first.
            waiting.pop();
            let mut word = [0; 4];
            let limit = H::now().tick.after(Duration::from_millis(20));
            if let Some(Ok(())) = within::<H, _>(limit, read_exact(&mut socket, &mut word)).await {
                assert_eq!(&word, b"late");
                break;
            }
        }
        after.take().await;
    });
}

/// Who waits for bytes learns that the peer is gone.
pub fn a_dead_peer_wakes_who_reads<H: Host>() {
    run::<H, _>(async {
        let (mut client, server) = pair::<H>(Kind::Tcp).await;
        write_all(&mut client, b"ab").await.expect("the server is there");
        let reading = task::<H, _>(async move {
            let first = read(&mut client, &mut [0; 16]).await;
            let again = write(&mut client, b"c").await;
            (first, again)
        });
        super::yield_now().await;
        reset_after(server, 1).await;
        let (first, again) = reading.take().await;
        assert!(is_lost(&first), "{first:?}");
        assert!(is_lost(&again), "{again:?}");
    });
    for kind in KINDS {
        run::<H, _>(async {
            let (mut client, server) = pair::<H>(kind).await;
            let reading = task::<H, _>(async move { read(&mut client, &mut [0; 16]).await });
            super::yield_now().await;
            drop(server);
            assert_eq!(reading.take().await.expect("an orderly end"), 0);
        });
    }
}

/// Who waits for room learns that the peer is gone.
pub fn a_dead_peer_wakes_who_writes<H: Host>() {
    for kind in KINDS {
        run::<H, _>(async {
            let (mut client, server) = pair::<H>(kind).await;
            poll_fn(|context| poll_fill(&mut client, context, MOST)).await.expect("the server is there");
            let writing = task::<H, _>(async move { write_all(&mut client, &pattern(4 << 20)).await });
            super::yield_now().await;
            reset_after(server, 1).await;
            let written = writing.take().await;
            assert!(is_lost(&written), "{kind:?}: {written:?}");
        });
    }
}

/// Wherever the peer breaks off, what comes is an error or the end, and never a hang.
pub fn resets_at_any_point_end_in_an_error_or_the_end<H: Host>() {
    for kind in KINDS {
        run::<H, _>(async {
            let place = Place::new(kind);
            let listener = place.listen::<H>();
            for front in (0..40).chain([1000, 20_000, 100_000]) {
                let endpoint = place.endpoint.clone();
                let client = task::<H, _>(async move {
                    let mut socket = connect::<H>(&endpoint).await;
                    let written = write_all(&mut socket, &pattern(200_000)).await;
                    let received = drain(&mut socket).await;
                    // Also what comes after is no panic.
                    let _ = super::close(&mut socket).await;
                    (written, received)
                });
                let (server, _) = accept::<H>(&listener).await;
                reset_after(server, front).await;
                let (written, received) = client.take().await;
                assert!(written.is_ok() || is_lost(&written), "after {front} bytes: {written:?}");
                assert!(matches!(received, Ok(0)) || is_lost(&received), "after {front} bytes: {received:?}");
            }
        });
    }
}
