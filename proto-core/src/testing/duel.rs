//! One session between a scripted client and a server, without socket, task or thread.
//!
//! ```text
//!   client(bytes) ──▶ [ in pieces ] ──▶ Session ──▶ sent()       what has gone to the server
//!   seen()  ◀──────────────────────────  Session ◀── [ in pieces ] ◀── server(bytes), or a Backend that answers
//! ```
//! The duel keeps the contract of [`Session`] to the letter and fails the test when the session does not. It answers
//! the session's actions itself, with the real key ring, pools and cancel registry, and logs in to its server by the
//! real [`crate::upstream::Login`].

mod host;

use std::sync::Arc;
use std::time::Duration;

pub use host::{PROVIDED, log_in};

use super::corp;
use super::dice::Dice;
use super::postgres::{Backend, Postgres};
use super::wire::front;
use crate::audit::Record;
use crate::auth::jwks::KeySets;
use crate::cancel::Registry;
use crate::codec::startup::PROTOCOL_3_0;
use crate::console::Errand;
use crate::fault::{Lost, Refusal};
use crate::pool::{Pools, Returned};
use crate::session::{
    Action, Encryption, Finish, Output, Peer, Profile, Reply, ReturnState, Session, Side, Verdict, Wish,
};
use crate::session_id::SessionId;
use crate::time::{Deadline, Now, Tick};

/// How a duel answers when the session asks for a place in the audit trail.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Permits {
    /// There is one.
    #[default]
    Grant,
    /// There is none.
    Refuse,
    /// Not yet: [`Duel::permit`] answers.
    Hold,
}

/// How a duel is set up.
pub struct Terms {
    /// The proxy's policy.
    pub profile: Profile,
    /// Whether the client comes from this machine.
    pub is_local: bool,
    /// The pieces in which bytes are shown to the session, and meaningless calls in between; `None`: all at once.
    pub chop: Option<u64>,
    /// Places in the audit trail.
    pub permits: Permits,
    /// Whether a server connection is there at once; otherwise [`Duel::lease`] brings it.
    pub lease_at_once: bool,
    /// Whether the server answers by itself; otherwise [`Duel::server`] speaks for it.
    pub server_answers: bool,
}

impl Default for Terms {
    /// [`corp::profile`], everything at once, a server that answers.
    fn default() -> Self {
        Self {
            profile: corp::profile(),
            is_local: true,
            chop: None,
            permits: Permits::Grant,
            lease_at_once: true,
            server_answers: true,
        }
    }
}

/// What has come from a side and was not used yet.
#[derive(Default)]
struct Lane {
    bytes: Vec<u8>,
    /// How much of it the session has been shown.
    shown: usize,
    waiting: bool,
}

/// A session with everything that it needs around it.
pub struct Duel {
    /// The session itself.
    pub session: Session,
    /// The clock. [`Duel::advance`] moves it and rings what is due.
    pub now: Now,
    /// The server.
    pub postgres: Postgres,
    /// The keys, as they are now.
    pub keys: KeySets,
    /// The pools that the lease comes from.
    pub pools: Pools,
    /// The cancel registry.
    pub cancels: Registry,
    /// Everything that was written down.
    pub records: Vec<Record>,
    /// What was said at the console and not answered.
    pub errands: Vec<Errand>,
    /// Cancel requests that the session wants passed on.
    pub cancel_requests: Vec<(u32, Box<[u8]>)>,
    /// The states in which server connections came back.
    pub returned: Vec<ReturnState>,
    /// How it ended.
    pub finish: Option<Finish>,
    /// Whether the session waits for the client's TLS.
    pub wants_tls: bool,
    /// Whether the session asks for a place in the audit trail ([`Permits::Hold`]).
    pub wants_permit: bool,
    terms_permits: Permits,
    lease_at_once: bool,
    server_answers: bool,
    wish: Option<Arc<Wish>>,
    /// For the next transaction.
    again: Option<Arc<Wish>>,
    backend: Option<Backend>,
    lanes: [Lane; 2],
    seen: Vec<u8>,
    sent: Vec<u8>,
    chop: Option<Dice>,
    entropy: Dice,
}

impl Duel {
    /// A client has connected.
    #[must_use]
    pub fn new(terms: Terms) -> Self {
        let now = corp::at(Tick::from_nanos(1_000_000_000));
        let id = SessionId(1);
        let peer = Peer { address: "192.0.2.7:50000".into(), is_local: terms.is_local, uid: None };
        Self {
            session: Session::new(id, terms.profile.into(), peer, now),
            now,
            postgres: Postgres::of_corp(7),
            keys: corp::keys(now),
            pools: Pools::new(),
            cancels: Registry::new(),
            records: Vec::new(),
            errands: Vec::new(),
            cancel_requests: Vec::new(),
            returned: Vec::new(),
            finish: None,
            wants_tls: false,
            wants_permit: false,
            terms_permits: terms.permits,
            lease_at_once: terms.lease_at_once,
            server_answers: terms.server_answers,
            wish: None,
            again: None,
            backend: None,
            lanes: [Lane::default(), Lane::default()],
            seen: Vec::new(),
            sent: Vec::new(),
            chop: terms.chop.map(Dice::new),
            entropy: Dice::new(99),
        }
    }

    /// A duel whose client is logged in as `alice`, with nothing seen or sent yet.
    #[must_use]
    pub fn logged_in(terms: Terms) -> Self {
        let mut duel = Self::new(terms);
        duel.log_in("alice", &["reader"]);
        duel.seen();
        duel
    }

    /// Startup packet and token of somebody with these roles.
    pub fn log_in(&mut self, who: &str, roles: &[&str]) {
        let user = format!("{who}@corp.example");
        self.client(&front::startup(PROTOCOL_3_0, &[("user", &user), ("database", corp::DATABASE)]));
        let token = corp::token(who, roles, self.now);
        self.client(&front::password(&token));
    }

    /// The client sends bytes.
    pub fn client(&mut self, bytes: &[u8]) {
        self.arrive(Side::Client, bytes);
    }

    /// The server sends bytes.
    pub fn server(&mut self, bytes: &[u8]) {
        self.arrive(Side::Server, bytes);
    }

    /// What the client has got since the last call.
    pub fn seen(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.seen)
    }

    /// What the server has got since the last call, behind its login.
    pub fn sent(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.sent)
    }

    /// One side closes or fails.
    pub fn close(&mut self, side: Side, how: Lost) {
        self.session.handle_close(side, how, self.now);
        self.pump();
    }

    /// The process is being stopped.
    pub fn drain(&mut self) {
        self.session.handle_drain(self.now);
        self.pump();
    }

    /// Somebody ends the session.
    pub fn kill(&mut self, refusal: Refusal) {
        self.session.handle_kill(refusal, self.now);
        self.pump();
    }

    /// The client's TLS is up.
    pub fn establish_tls(&mut self, alpn: Option<&[u8]>) {
        assert!(std::mem::take(&mut self.wants_tls), "nobody asked for TLS");
        let encryption = Encryption { version: "TLSv1.3".into(), cipher: "TLS_AES_256_GCM_SHA384".into() };
        // What has come already was the handshake's.
        self.lanes[0] = Lane::default();
        self.session.handle_tls(encryption, alpn, self.now);
        self.pump();
    }

    /// Time passes; every deadline in between is kept.
    pub fn advance(&mut self, span: Duration) {
        let end = self.now.tick.after(span);
        loop {
            let next = self.next_tick().filter(|&at| at <= end);
            self.now = corp::at(next.unwrap_or(end).max(self.now.tick));
            self.session.handle_timeout(self.now);
            self.pools.handle_timeout(self.now);
            self.poll_backend();
            self.pump();
            if next.is_none() || self.finish.is_some() {
                return;
            }
        }
    }

    fn next_tick(&self) -> Option<Tick> {
        let session = self.session.poll_timeout().map(|deadline| deadline.at);
        let pools = self.pools.poll_timeout().map(|deadline| deadline.at);
        let backend = self.backend.as_ref().and_then(Backend::poll_timeout);
        [session, pools, backend].into_iter().flatten().min()
    }

    /// What the session waits for.
    #[must_use]
    pub fn deadline(&self) -> Option<Deadline> {
        self.session.poll_timeout()
    }

    /// An answer from outside, such as a late or repeated one.
    pub fn reply(&mut self, reply: Reply) {
        self.session.handle_reply(reply, self.now);
        self.lanes[0].waiting = false;
        self.pump();
    }

    /// The answer to a place that was asked for.
    pub fn permit(&mut self, granted: bool) {
        assert!(std::mem::take(&mut self.wants_permit), "nobody asked for a place in the audit trail");
        self.reply(Reply::Reserved(granted));
    }

    /// The pool has a connection now, for the session that waits for one.
    pub fn lease(&mut self) {
        let wish = self.wish.take().expect("nobody waits for a server connection");
        self.open(&wish);
        self.pump();
    }

    /// Whether the server of this duel answers by itself.
    #[must_use]
    pub const fn answers_by_itself(&self) -> bool {
        self.server_answers
    }

    /// Whether the session waits for a server connection.
    #[must_use]
    pub const fn is_waiting(&self) -> bool {
        self.wish.is_some()
    }

    /// The events of the audit trail in words: `start`, `statement(select 1)=00000` (`none` without an outcome), `refusal(28000)`, `end(1)`.
    #[must_use]
    pub fn trail(&self) -> Vec<String> {
        self.records.iter().map(|record| host::describe(&record.event)).collect()
    }

    fn arrive(&mut self, side: Side, bytes: &[u8]) {
        let lane = side as usize;
        self.lanes[lane].bytes.extend_from_slice(bytes);
        while self.lanes[lane].shown < self.lanes[lane].bytes.len() && self.finish.is_none() && !self.wants_tls {
            let left = self.lanes[lane].bytes.len() - self.lanes[lane].shown;
            let piece = match &mut self.chop {
                None => left,
                Some(dice) => {
                    let most = if dice.percent(50) { left.min(6) } else { left };
                    dice.length(most)
                }
            };
            self.lanes[lane].shown += piece;
            self.lanes[lane].waiting = false;
            self.disturb();
            self.pump();
        }
    }

    /// Calls that must change nothing.
    fn disturb(&mut self) {
        let Some(dice) = &mut self.chop else { return };
        let draw = dice.below(8);
        match draw {
            0 => self.session.handle_timeout(self.now),
            1 => assert_eq!(self.session.handle_input(Side::Client, b"", self.now), Verdict::Wait),
            2 if self.session.facts().is_some() => {
                let late = Refusal::new(crate::fault::SqlState::INTERNAL_ERROR, "late");
                self.session.handle_reply(Reply::Verified(Err(late.clone())), self.now);
                self.session.handle_reply(Reply::Refused(late.clone()), self.now);
                self.session.handle_reply(Reply::Waiting(late), self.now);
                if !self.wants_permit {
                    self.session.handle_reply(Reply::Reserved(true), self.now);
                }
            }
            3 => assert_eq!(self.session.poll_timeout(), self.session.poll_timeout()),
            _ => {}
        }
    }

    fn pump(&mut self) {
        loop {
            self.carry_out();
            // Answers first: so a server that answers at once is always ahead of the client's next message.
            if !self.judge(Side::Server) && !self.judge(Side::Client) {
                if self.session.poll_timeout().is_some_and(|due| due.at <= self.now.tick) && self.finish.is_none() {
                    self.session.handle_timeout(self.now);
                    continue;
                }
                return;
            }
        }
    }

    /// Shows the front of a lane; whether the session did anything with it.
    fn judge(&mut self, side: Side) -> bool {
        let lane = &mut self.lanes[side as usize];
        if lane.waiting || lane.shown == 0 || self.finish.is_some() || self.wants_tls {
            return false;
        }
        if !self.session.wants_input(side) {
            return false;
        }
        let verdict = self.session.handle_input(side, &lane.bytes[..lane.shown], self.now);
        let used = match verdict {
            Verdict::Wait => {
                lane.waiting = true;
                0
            }
            Verdict::Take(n) | Verdict::Forward(n) => n,
        };
        assert!(used <= lane.shown, "more than was shown");
        assert!(used > 0 || verdict == Verdict::Wait, "{verdict:?} goes on for ever");
        let bytes: Vec<u8> = lane.bytes.drain(..used).collect();
        lane.shown -= used;
        self.carry_out();
        if side == Side::Server && used > 0 {
            self.lanes[0].waiting = false;
        }
        if matches!(verdict, Verdict::Forward(_)) {
            match side {
                Side::Client => self.forward_to_server(&bytes),
                Side::Server => {
                    self.seen.extend(bytes);
                }
            }
        }
        true
    }

    fn forward_to_server(&mut self, bytes: &[u8]) {
        self.sent.extend_from_slice(bytes);
        if self.server_answers
            && let Some(backend) = &mut self.backend
        {
            backend.handle_input(bytes, self.now);
            self.poll_backend();
        }
    }

    fn poll_backend(&mut self) {
        let Some(backend) = &mut self.backend else { return };
        backend.handle_timeout(self.now);
        let output = backend.poll_output();
        let ending = backend.ending();
        if let Some(bytes) = output {
            let lane = &mut self.lanes[1];
            lane.bytes.extend(bytes);
            lane.shown = lane.bytes.len();
            lane.waiting = false;
        }
        if ending.is_some() {
            self.backend = None;
            self.pump();
            self.close(Side::Server, Lost::Closed);
        }
    }
}

impl Drop for Duel {
    /// A lease that is dropped complains: the session gives it back first.
    fn drop(&mut self) {
        if std::thread::panicking() {
            return;
        }
        let refusal = Refusal::new(crate::fault::SqlState::ADMIN_SHUTDOWN, "the test is over");
        self.session.handle_kill(refusal, self.now);
        while let Some(output) = self.session.poll_output() {
            if let Output::Do(Action::Release(back)) = output {
                self.pools.handle_release(back.lease, Returned::Broken, self.now);
            }
        }
    }
}
