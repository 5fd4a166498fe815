//! Tasks, threads, signals.

use std::future::pending;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::thread;

use super::{KINDS, Kind, Queue, pair, read, read_exact, run, task, write_all, yield_now};
use crate::driver::host::{Host, Signal, Signals as _};

/// Says when it is dropped, and whether that was in a panic.
struct Farewell(Queue<bool>);

impl Drop for Farewell {
    fn drop(&mut self) {
        self.0.put(thread::panicking());
    }
}

/// Tasks run beside each other, on the thread that spawned them, and may spawn others.
pub fn tasks_spawn_tasks<H: Host>() {
    fn grow<H: Host>(depth: usize, leaves: Queue<thread::ThreadId>) {
        if depth == 0 {
            return leaves.put(thread::current().id());
        }
        for _ in 0..2 {
            let leaves = leaves.clone();
            H::spawn(async move { grow::<H>(depth - 1, leaves) });
        }
    }
    let test = || async {
        let leaves = Queue::new();
        grow::<H>(8, leaves.clone());
        for _ in 0..256 {
            assert_eq!(leaves.take().await, thread::current().id());
        }
    };
    run::<H, _>(test());
    let worker = H::start_worker(0, test).expect("a thread can be started");
    worker.join().expect("the same on a worker");
}

/// What a runtime was still running is dropped when its future has ended.
pub fn tasks_end_with_their_runtime<H: Host>() {
    let gone = Queue::new();
    let farewell = Farewell(gone.clone());
    run::<H, _>(async {
        H::spawn(async move {
            let _farewell = farewell;
            pending::<()>().await;
        });
        yield_now().await;
    });
    assert!(!run::<H, _>(gone.take()));
}

/// One session's defect is not everybody's end.
pub fn a_panic_ends_one_task<H: Host>() {
    let test = || async {
        let gone = Queue::new();
        let farewell = Farewell(gone.clone());
        H::spawn(async move {
            let _farewell = farewell;
            yield_now().await;
            panic!("a planted panic, which has to stay in its task");
        });
        assert!(gone.take().await);
        assert_eq!(task::<H, _>(async { 7 }).take().await, 7);
    };
    run::<H, _>(test());
    let worker = H::start_worker(0, test).expect("a thread can be started");
    worker.join().expect("the worker lives on");
}

/// A blocking call runs elsewhere; its result, or its panic, comes back.
pub fn blocking_calls_block_nobody<H: Host>() {
    run::<H, _>(async {
        let here = thread::current().id();
        assert_ne!(H::blocking(move || thread::current().id()).await, here);

        // The call waits for a task of the thread that waits for the call.
        let (sender, receiver) = mpsc::channel();
        let call = task::<H, _>(H::blocking(move || receiver.recv().expect("somebody sends")));
        yield_now().await;
        H::spawn(async move { sender.send(42).expect("somebody receives") });
        assert_eq!(call.take().await, 42);

        // More calls than threads.
        let calls: Vec<_> = (0..200_u64).map(|n| task::<H, _>(H::blocking(move || n * n))).collect();
        for (n, call) in (0..).zip(calls) {
            assert_eq!(call.take().await, n * n);
        }

        let gone = Queue::new();
        let farewell = Farewell(gone.clone());
        H::spawn(async move {
            let _farewell = farewell;
            H::blocking(|| panic!("a planted panic, which has to come out of the call")).await;
        });
        assert!(gone.take().await);
        assert_eq!(H::blocking(|| 1).await, 1);
    });
}

/// A task that always has something to do leaves time for sockets and alarms.
pub fn busy_tasks_starve_nobody<H: Host>() {
    run::<H, _>(async {
        let (mut client, mut server) = pair::<H>(Kind::Tcp).await;
        let over = Arc::new(AtomicBool::new(false));
        for _ in 0..3 {
            let over = over.clone();
            H::spawn(async move {
                while !over.load(Ordering::Relaxed) {
                    yield_now().await;
                }
            });
        }
        let reading = task::<H, _>(async move { read(&mut server, &mut [0; 8]).await });
        crate::driver::serve::pause::<H>(std::time::Duration::from_millis(20)).await;
        write_all(&mut client, b"through").await.expect("the server is there");
        assert_eq!(reading.take().await.expect("the bytes arrive"), 7);
        over.store(true, Ordering::Relaxed);
    });
}

/// A task sleeps until another thread wakes it, thousands of times.
pub fn wakes_cross_threads<H: Host>() {
    const ROUNDS: u32 = 5000;
    let (there, back) = (Queue::new(), Queue::new());
    let (inbox, outbox) = (there.clone(), back.clone());
    let worker = move || async move {
        for _ in 0..ROUNDS {
            let number: u32 = inbox.take().await;
            outbox.put(number + 1);
        }
    };
    let worker = H::start_worker(0, worker).expect("a thread can be started");
    run::<H, _>(async {
        for round in 0..ROUNDS {
            there.put(round);
            assert_eq!(back.take().await, round + 1);
        }
        // A thread that is no worker at all wakes, too.
        let (queue, sender) = (back.clone(), thread::Builder::new());
        let sender = sender.spawn(move || queue.put(0)).expect("a thread can be started");
        assert_eq!(back.take().await, 0);
        sender.join().expect("it has only put");
    });
    worker.join().expect("the worker has come to its end");
}

/// A pooled connection is used by whichever worker needs it, not only by the one that opened it.
pub fn a_socket_moves_between_workers<H: Host>() {
    const ROUNDS: u32 = 500;
    for kind in KINDS {
        let sockets = Queue::new();
        let over = Queue::new();
        let (mailbox, done) = (sockets.clone(), over.clone());
        let opener = move || async move {
            mailbox.put(pair::<H>(kind).await);
            // Stays, as workers do.
            done.take().await;
        };
        let opener = H::start_worker(0, opener).expect("a thread can be started");
        run::<H, _>(async {
            let (mut client, mut server) = sockets.take().await;
            let echoing = task::<H, _>(async move {
                let mut word = [0; 4];
                for _ in 0..ROUNDS {
                    read_exact(&mut server, &mut word).await.expect("the client asks");
                    write_all(&mut server, &word).await.expect("the client is there");
                }
            });
            for round in 0..ROUNDS {
                let mut word = [0; 4];
                write_all(&mut client, &round.to_be_bytes()).await.expect("the server is there");
                read_exact(&mut client, &mut word).await.expect("the server answers");
                assert_eq!(u32::from_be_bytes(word), round);
            }
            echoing.take().await;
        });
        over.put(());
        opener.join().expect("the opener has come to its end");
    }
}

/// Signals are caught, told apart, and not lost while nobody waits.
pub fn signals_arrive<H: Host>() {
    run::<H, _>(async {
        let mut signals = H::Signals::install().expect("handlers can be installed");
        for (name, signal) in [
            ("-HUP", Signal::Hangup),
            ("-TERM", Signal::Terminate),
            ("-INT", Signal::Interrupt),
            ("-QUIT", Signal::Quit),
            ("-USR1", Signal::User1),
            ("-USR2", Signal::User2),
            ("-HUP", Signal::Hangup),
        ] {
            let kill = H::blocking(move || Command::new("kill").arg(name).arg(std::process::id().to_string()).status());
            assert!(kill.await.expect("kill is installed").success());
            assert_eq!(signals.next().await, signal);
        }
    });
}
