//! A PostgreSQL server for tests: the real wire format, a toy language, and no socket.
//!
//! [`Postgres`] is the server, [`Backend`] one connection to it, a machine like those of the proxy: bytes go in with
//! [`Backend::handle_input`], come out of [`Backend::poll_output`], and [`Backend::ending`] says when it is over. A test
//! over real sockets needs nothing but a loop around it.
//!
//! The language is words; a simple query may hold several statements with `;` between them:
//!
//! | statement | effect |
//! |---|---|
//! | `rows 3 text` | three rows `text/0`, `text/1`, `text/2` |
//! | `big 100000` | one row of so many bytes |
//! | `begin`, `commit`, `rollback` | transactions; a failed one refuses everything else with 25P02 |
//! | `set name value`, `show name`, `reset all` | a setting of this connection; `TimeZone`, `search_path` and `application_name` are reported |
//! | `temp name` | makes a temporary table; 42P07 when it exists |
//! | `discard all` | makes the connection as good as new; 25001 inside a transaction |
//! | `listen channel`, `notify channel text` | between all connections |
//! | `notice text` | a NOTICE |
//! | `sleep 250 text` | milliseconds, unless it is cancelled (57014) |
//! | `copy in`, `copy out 3 text` | COPY |
//! | `fail 23505` | an error with this SQLSTATE |
//! | `exit 57P01` | a FATAL error, then the connection closes |
//! | `crash` | the connection is reset |
//! | `tear` | half a row, then the connection is reset |
//! | `raw 5a0000000549` | these bytes, then the end of the statement |
//! | `select 'text'` | one row with this one word |
//! | `whoami` | one row: user and backend pid |
//! | `password of $1` | a user and their password, or no row; only in the extended protocol |
//!
//! `--` begins a comment up to the end of the statement. Everything else is a syntax error (42601). Every statement that began is in [`Postgres::journal`].

mod backend;
mod login;
mod serving;
mod sql;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Waker;
use std::time::Duration;

pub use backend::{Backend, Ending};

use super::dice::Dice;
use crate::entropy::Entropy as _;
use crate::time::Tick;

/// How the server asks who is there.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Auth {
    /// It does not ask.
    Trust,
    /// The password in clear.
    Cleartext,
    /// The password under MD5.
    Md5,
    /// SCRAM-SHA-256.
    #[default]
    Scram,
}

/// A statement that began to run.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Run {
    /// The backend that ran it.
    pub pid: u32,
    /// The account of that backend.
    pub user: String,
    /// The statement, as this server understood it: one of several for `a; b`.
    pub text: String,
    /// When.
    pub at: Tick,
    /// Whether a cancel request ended it.
    pub cancelled: bool,
    /// Its SQLSTATE, 00000 when it succeeded; `None` while it runs, and for ever when its connection ended under it.
    pub sqlstate: Option<String>,
}

/// A server. Clones are the same server.
#[derive(Clone)]
pub struct Postgres(Arc<Mutex<Cluster>>);

pub(super) struct Cluster {
    auth: Auth,
    users: BTreeMap<String, Vec<u8>>,
    dice: Dice,
    think: Duration,
    max_connections: usize,
    processes: BTreeMap<u32, Process>,
    journal: Vec<Run>,
    copied: Vec<(u32, Vec<u8>)>,
    secrets: Vec<Vec<u8>>,
    logins: usize,
    heard: Option<Vec<u8>>,
}

/// What one backend shows to the others.
struct Process {
    key: Vec<u8>,
    user: String,
    /// The place in the journal of the statement that runs now.
    running: Option<usize>,
    cancelled: bool,
    killed: bool,
    listening: BTreeSet<String>,
    mail: Vec<(u32, String, String)>,
    waker: Option<Waker>,
    clean: bool,
    /// It holds nothing that could not stay between two transactions.
    between: bool,
    idle: bool,
}

impl Postgres {
    /// A server that knows these users and passwords.
    #[must_use]
    pub fn new(users: &[(&str, &[u8])], seed: u64) -> Self {
        let users = users.iter().map(|(user, password)| ((*user).to_owned(), password.to_vec())).collect();
        Self(Arc::new(Mutex::new(Cluster {
            auth: Auth::default(),
            users,
            dice: Dice::new(seed),
            think: Duration::ZERO,
            max_connections: 100,
            processes: BTreeMap::new(),
            journal: Vec::new(),
            copied: Vec::new(),
            secrets: Vec::new(),
            logins: 0,
            heard: None,
        })))
    }

    /// The server of the [company](super::corp): both service accounts and one local user.
    #[must_use]
    pub fn of_corp(seed: u64) -> Self {
        use super::corp::{ACCOUNT_PASSWORD, LOCAL_PASSWORD, LOCAL_USER, READER, WRITER};
        Self::new(&[(READER, ACCOUNT_PASSWORD), (WRITER, ACCOUNT_PASSWORD), (LOCAL_USER, LOCAL_PASSWORD)], seed)
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Cluster> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How logins are checked from now on.
    pub fn set_auth(&self, auth: Auth) {
        self.lock().auth = auth;
    }

    /// Every statement takes a random time up to this, in which it can be cancelled.
    pub fn set_think(&self, most: Duration) {
        self.lock().think = most;
    }

    /// More connections than these are refused with 53300.
    pub fn set_max_connections(&self, most: usize) {
        self.lock().max_connections = most;
    }

    /// Everything that began to run, in order.
    #[must_use]
    pub fn journal(&self) -> Vec<Run> {
        self.lock().journal.clone()
    }

    /// What COPY has brought in, and through which backend.
    #[must_use]
    pub fn copied(&self) -> Vec<(u32, Vec<u8>)> {
        self.lock().copied.clone()
    }

    /// From now on every byte that comes is kept for [`Postgres::heard`].
    pub fn set_listening(&self) {
        self.lock().heard = Some(Vec::new());
    }

    /// Every byte that came, of all connections mixed.
    #[must_use]
    pub fn heard(&self) -> Vec<u8> {
        self.lock().heard.clone().unwrap_or_default()
    }

    /// The bodies of all BackendKeyData messages: process id and key.
    #[must_use]
    pub fn keys(&self) -> Vec<Vec<u8>> {
        self.lock().secrets.clone()
    }

    /// Logins that succeeded.
    #[must_use]
    pub fn logins(&self) -> usize {
        self.lock().logins
    }

    /// The backends that are logged in.
    #[must_use]
    pub fn backends(&self) -> Vec<u32> {
        self.lock().processes.keys().copied().collect()
    }

    /// Backends that hold something which a later user could notice: settings, tables, prepared statements, an open
    /// transaction, or a statement that still runs.
    #[must_use]
    pub fn unclean(&self) -> Vec<u32> {
        let cluster = self.lock();
        cluster.processes.iter().filter(|(_, it)| !it.clean || !it.idle).map(|(&pid, _)| pid).collect()
    }

    /// Backends that hold something which does not belong between two transactions of one session: all that is unclean,
    /// but for prepared statements and settings that are reported.
    #[must_use]
    pub fn in_between(&self) -> Vec<u32> {
        let cluster = self.lock();
        cluster.processes.iter().filter(|(_, it)| !it.between || !it.idle).map(|(&pid, _)| pid).collect()
    }

    /// `pg_terminate_backend`: its connection ends with FATAL 57P01.
    pub fn terminate(&self, pid: u32) {
        if let Some(process) = self.lock().processes.get_mut(&pid) {
            process.killed = true;
            process.wake();
        }
    }

    /// A cancel request: the statement that this backend runs now fails with 57014. A wrong key does nothing.
    pub fn cancel(&self, pid: u32, key: &[u8]) {
        let mut cluster = self.lock();
        let Some(process) = cluster.processes.get_mut(&pid).filter(|process| process.key == key) else { return };
        // As in PostgreSQL, a cancel that finds nothing running is forgotten.
        let Some(running) = process.running else { return };
        process.cancelled = true;
        process.wake();
        cluster.journal[running].cancelled = true;
    }
}

impl Process {
    fn wake(&mut self) {
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }
}

impl Cluster {
    fn enter(&mut self, user: &str) -> (u32, Vec<u8>) {
        let mut key = vec![0; 4];
        self.dice.fill(&mut key);
        let mut pid = 1000 + u32::try_from(self.dice.below(60_000)).unwrap_or(0);
        while self.processes.contains_key(&pid) {
            pid += 1;
        }
        self.logins += 1;
        self.secrets.push([&pid.to_be_bytes()[..], &key].concat());
        let process = Process {
            key: key.clone(),
            user: user.to_owned(),
            running: None,
            cancelled: false,
            killed: false,
            listening: BTreeSet::new(),
            mail: Vec::new(),
            waker: None,
            clean: true,
            between: true,
            idle: true,
        };
        self.processes.insert(pid, process);
        (pid, key)
    }

    fn notify(&mut self, from: u32, channel: &str, payload: &str) {
        for process in self.processes.values_mut().filter(|process| process.listening.contains(channel)) {
            process.mail.push((from, channel.to_owned(), payload.to_owned()));
            process.wake();
        }
    }
}
