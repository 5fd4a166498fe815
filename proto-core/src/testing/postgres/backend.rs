//! One connection to the server.

use std::task::Waker;

use super::super::wire::{Tape, back};
use super::Postgres;
use super::login::{Entrance, Step};
use super::serving::{Desk, Serving, Task};
use super::sql::State;
use crate::time::{Now, Tick};

/// How a backend leaves.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Ending {
    /// In order.
    Close,
    /// By a reset.
    Reset,
}

/// One server process.
pub struct Backend {
    postgres: Postgres,
    tape: Tape,
    out: Vec<u8>,
    pid: u32,
    phase: Phase,
    ending: Option<Ending>,
    cancel_wish: Option<(u32, Vec<u8>)>,
}

enum Phase {
    Entering(Entrance),
    Serving(Box<Serving>),
}

impl Backend {
    /// A client has connected.
    #[must_use]
    pub fn new(postgres: &Postgres) -> Self {
        Self {
            postgres: postgres.clone(),
            tape: Tape::new(),
            out: Vec::new(),
            pid: 0,
            phase: Phase::Entering(Entrance::new()),
            ending: None,
            cancel_wish: None,
        }
    }

    /// Its process id, once it is logged in; 0 before.
    #[must_use]
    pub const fn pid(&self) -> u32 {
        self.pid
    }

    /// Bytes from the client.
    pub fn handle_input(&mut self, bytes: &[u8], now: Now) {
        if let Some(heard) = &mut self.postgres.lock().heard {
            heard.extend_from_slice(bytes);
        }
        self.tape.push(bytes);
        self.go_on(now);
    }

    /// The client is gone.
    pub fn handle_close(&mut self) {
        self.ending.get_or_insert(Ending::Close);
        self.postgres.lock().processes.remove(&self.pid);
    }

    /// Time has passed, or another backend wants something of this one.
    pub fn handle_timeout(&mut self, now: Now) {
        self.go_on(now);
    }

    /// When [`Backend::handle_timeout`] will have something to do.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Tick> {
        match &self.phase {
            Phase::Serving(serving) => match &serving.task {
                Task::Waiting { until, .. } => Some(*until),
                _ => None,
            },
            Phase::Entering(_) => None,
        }
    }

    /// What goes to the client.
    pub fn poll_output(&mut self) -> Option<Vec<u8>> {
        (!self.out.is_empty()).then(|| std::mem::take(&mut self.out))
    }

    /// How it ends, once everything it had to say is said.
    #[must_use]
    pub fn ending(&self) -> Option<Ending> {
        self.ending.filter(|_| self.out.is_empty())
    }

    /// The cancel request that this connection brought: to be carried out, after any delay, by [`Postgres::cancel`],
    /// and the connection closed behind it.
    pub fn take_cancel(&mut self) -> Option<(u32, Vec<u8>)> {
        self.cancel_wish.take()
    }

    /// Woken when another backend wants something of this one; then [`Backend::handle_timeout`] is due.
    pub fn register(&self, waker: &Waker) {
        if let Some(process) = self.postgres.lock().processes.get_mut(&self.pid) {
            process.waker = Some(waker.clone());
        }
    }

    fn go_on(&mut self, now: Now) {
        while self.ending.is_none() && self.step(now) {}
        if let Phase::Serving(serving) = &self.phase {
            let mut cluster = self.postgres.lock();
            if self.ending.is_some() {
                cluster.processes.remove(&self.pid);
            } else if let Some(process) = cluster.processes.get_mut(&self.pid) {
                process.clean = serving.state.is_clean() && process.listening.is_empty();
                process.between = serving.state.is_between() && process.listening.is_empty();
                process.idle = matches!(serving.task, Task::Nothing) && !serving.skipping;
            }
        }
    }

    /// One step; whether there may be another.
    fn step(&mut self, now: Now) -> bool {
        let Self { postgres, tape, out, pid, phase, ending, cancel_wish } = self;
        match phase {
            Phase::Entering(entrance) => {
                let step = entrance.step(tape, &mut postgres.lock(), out);
                match step {
                    Step::Wait => false,
                    Step::Again => true,
                    Step::Refused => {
                        *ending = Some(Ending::Close);
                        false
                    }
                    Step::Cancel(pid, key) => {
                        *cancel_wish = Some((pid, key));
                        false
                    }
                    Step::Done => {
                        let (new_pid, key) = postgres.lock().enter(&entrance.user);
                        *pid = new_pid;
                        let state = State::new(std::mem::take(&mut entrance.parameters));
                        out.extend(back::authentication(0, b""));
                        state.report(out);
                        out.extend(back::key_data(new_pid, &key));
                        out.extend(back::ready(b'I'));
                        *phase = Phase::Serving(Box::new(Serving { state, task: Task::Nothing, skipping: false }));
                        true
                    }
                }
            }
            Phase::Serving(serving) => {
                let mut desk = Desk { postgres, out, pid: *pid, ending, now };
                serving.step(tape, &mut desk)
            }
        }
    }
}

impl Drop for Backend {
    fn drop(&mut self) {
        self.postgres.lock().processes.remove(&self.pid);
    }
}
