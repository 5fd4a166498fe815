//! The driver's part, as simple as it can be, with everything that a driver relies on asserted.

use std::sync::Arc;
use std::time::Duration;

use super::setting::{ACCOUNT_PASSWORD, Counter, LATE_PLACES, profile};
use crate::audit::Event;
use crate::auth::looks_like_token;
use crate::cancel::Registry;
use crate::codec::backend::{TransactionStatus, split};
use crate::fault::{Lost, Refusal, SqlState};
use crate::pool::{Lease, PoolOutput, Pools, Returned};
use crate::session::{
    Action, Credential, Encryption, Finish, Leased, Output, Peer, Reply, Return, ReturnState, Session, Side, Verdict,
    Wish,
};
use crate::session_id::SessionId;
use crate::testing::fuzz::{login, token};
use crate::time::{Now, Tick, UnixMicros};

const ID: SessionId = SessionId(7);

/// All that can be seen of a run.
#[derive(PartialEq, Eq, Debug, Default)]
pub(super) struct Seen {
    to_client: Vec<u8>,
    to_server: Vec<u8>,
    /// In their order, without what they carry.
    actions: Vec<&'static str>,
    audit: Vec<u8>,
    returned: Vec<ReturnState>,
    pub(super) finish: Option<Finish>,
}

/// Where a stream of messages stands.
#[derive(Default)]
struct Boundary {
    whole: usize,
}

impl Boundary {
    /// Whether `stream` ends between two messages.
    fn is_between(&mut self, stream: &[u8]) -> bool {
        let Ok(messages) = split(&stream[self.whole..]) else { return false };
        if let Some((_, last)) = messages.last() {
            self.whole += last.end;
        }
        self.whole == stream.len()
    }
}

pub(super) struct Stage {
    session: Session,
    pools: Pools,
    cancels: Registry,
    now: Now,
    /// What was read and not taken: the client's, the server's.
    pending: [Vec<u8>; 2],
    closed: [bool; 2],
    handshaking: bool,
    wished: bool,
    own_password: bool,
    account: Arc<str>,
    required: bool,
    /// Places in the audit trail that are set aside, and whether one more was asked for.
    places: usize,
    reserving: bool,
    /// Whether there are places at the moment, and they are given at once.
    vacant: bool,
    at_once: bool,
    /// An answer came while the session was shown something: it wants to see it again.
    answered: bool,
    /// A lease that the session does not have yet.
    in_hand: Option<Lease>,
    /// The session has a lease.
    holding: bool,
    from_server: Vec<u8>,
    boundary: Boundary,
    seen: Seen,
}

impl Stage {
    pub(super) fn new(setup: u8) -> Self {
        let now = Now { tick: Tick::from_nanos(1_000_000_000), unix: UnixMicros::from_secs(token::NOW_SECS) };
        let profile = Arc::new(profile(setup));
        let required = profile.audit.is_some_and(|audit| audit.required);
        let peer = Peer { address: "127.0.0.1:50000".into(), is_local: setup & 8 == 0, uid: None };
        Self {
            session: Session::new(ID, profile, peer, now),
            pools: Pools::new(),
            cancels: Registry::new(),
            now,
            pending: Default::default(),
            closed: [false; 2],
            handshaking: false,
            wished: false,
            own_password: false,
            account: "".into(),
            required,
            places: 0,
            reserving: false,
            vacant: true,
            at_once: setup & LATE_PLACES == 0,
            answered: false,
            in_hand: None,
            holding: false,
            from_server: Vec::new(),
            boundary: Boundary::default(),
            seen: Seen::default(),
        }
    }

    fn is_over(&self) -> bool {
        self.seen.finish.is_some()
    }

    pub(super) fn input(&mut self, side: Side, bytes: &[u8]) {
        // A server is only there with a lease, and TLS has its own use for what comes during a handshake.
        let nobody_reads = match side {
            Side::Client => self.handshaking,
            Side::Server => !self.holding,
        };
        if !nobody_reads && !self.closed[side as usize] {
            self.pending[side as usize].extend_from_slice(bytes);
            self.judge();
        }
    }

    /// Shows what is there until nothing more moves.
    fn judge(&mut self) {
        while self.judge_side(Side::Server) | self.judge_side(Side::Client) {}
    }

    fn judge_side(&mut self, side: Side) -> bool {
        let mut moved = false;
        while !self.pending[side as usize].is_empty() && !self.is_over() && !self.handshaking {
            if side == Side::Server && !self.holding {
                break;
            }
            let bytes = std::mem::take(&mut self.pending[side as usize]);
            let had_lease = self.holding;
            let verdict = self.session.handle_input(side, &bytes, self.now);
            self.carry_out();
            let used = match verdict {
                Verdict::Wait => 0,
                Verdict::Take(n) => n,
                Verdict::Forward(n) => {
                    assert!(had_lease && self.holding && !self.is_over(), "forwarded without a lease");
                    self.forward(side, &bytes[..n]);
                    n
                }
            };
            assert!(used <= bytes.len() && (used > 0 || verdict == Verdict::Wait), "{verdict:?} of {}", bytes.len());
            if !self.handshaking {
                self.pending[side as usize] = bytes[used..].to_vec();
            }
            if verdict == Verdict::Wait && !std::mem::take(&mut self.answered) {
                break;
            }
            moved = true;
        }
        moved
    }

    fn forward(&mut self, side: Side, bytes: &[u8]) {
        match side {
            Side::Client => {
                assert!(!self.required || self.places > 0 || !begins_statement(bytes), "no place for its record");
                self.seen.to_server.extend_from_slice(bytes);
            }
            Side::Server => {
                self.from_server.extend_from_slice(bytes);
                self.seen.to_client.extend_from_slice(bytes);
            }
        }
    }

    fn carry_out(&mut self) {
        while let Some(output) = self.session.poll_output() {
            let late_lease = matches!(&output, Output::Do(Action::Release(_)));
            assert!(!self.is_over() || late_lease, "something comes after the end");
            match output {
                Output::Send(Side::Client, bytes) => {
                    assert!(self.boundary.is_between(&self.from_server), "own bytes inside a server's message");
                    self.seen.to_client.extend_from_slice(&bytes);
                }
                Output::Send(Side::Server, bytes) => self.seen.to_server.extend_from_slice(&bytes),
                Output::StartTls => {
                    self.handshaking = true;
                    self.pending[Side::Client as usize].clear();
                    self.seen.actions.push("tls");
                }
                Output::Do(action) => self.perform(action),
                Output::Audit(record) => {
                    let starts = matches!(record.event, Event::SessionStart);
                    assert!(!starts || !self.seen.audit.windows(15).any(|text| text == b"\"session_start\""));
                    record.write_line(&mut self.seen.audit);
                }
                Output::AuditStatement(record) => {
                    assert!(matches!(record.event, Event::Statement(_)));
                    assert!(!self.required || self.places > 0, "a record without a place");
                    self.places = self.places.saturating_sub(1);
                    record.write_line(&mut self.seen.audit);
                }
                Output::Finished(finish) => {
                    assert!(!self.holding, "finished with a lease");
                    self.seen.finish = Some(finish);
                }
            }
        }
    }

    fn perform(&mut self, action: Action) {
        let name = match action {
            Action::Verify(secret) => {
                assert!(looks_like_token(secret.expose()) && secret.expose().len() <= 2048);
                "verify"
            }
            Action::Enroll { .. } | Action::Console(_) => unreachable!("there is no console"),
            Action::Nonce | Action::Derive(_) | Action::LookUp(_) => unreachable!("there is no gate"),
            Action::Lease(wish) => {
                self.wish(&wish);
                "lease"
            }
            Action::Cancellable | Action::Borrow => unreachable!("these sessions keep their server connection"),
            Action::GiveUp => {
                self.pools.handle_gave_up(ID, self.now);
                "give up"
            }
            // How often depends on how much is in sight.
            Action::Reserve => {
                assert!(self.required && !std::mem::replace(&mut self.reserving, true), "asked twice");
                if self.at_once {
                    self.answered = true;
                    self.reserved(self.vacant);
                }
                return;
            }
            Action::Unreserve(spare) => {
                let left = self.places.checked_sub(spare as usize);
                self.places = left.expect("no more places come back than there were");
                return;
            }
            Action::Release(back) => {
                self.give_back(back);
                "release"
            }
            Action::Cancel { .. } => "cancel",
        };
        self.seen.actions.push(name);
    }

    fn wish(&mut self, wish: &Wish) {
        assert!(!std::mem::replace(&mut self.wished, true), "a second wish");
        self.own_password = match &wish.credential {
            Credential::Own(password) => {
                assert!(!looks_like_token(password.expose()));
                true
            }
            Credential::Account(account) => {
                assert!(account.name == wish.account && ["app_reader", "app_writer"].contains(&&*wish.account));
                false
            }
            Credential::Passed(_) | Credential::Provided => unreachable!("there is no gate"),
        };
        self.account = wish.account.clone();
        let request = wish.request(ID);
        assert_eq!((request.key.own_password, request.reuse), (self.own_password, !self.own_password));
        self.pools.handle_request(request, self.now);
        let Some(PoolOutput::Granted { lease, .. }) = self.pools.poll_output() else { panic!("the pool is empty") };
        self.pools.handle_opened(&lease, self.now);
        self.in_hand = Some(lease);
    }

    fn give_back(&mut self, back: Return) {
        assert!(std::mem::take(&mut self.holding), "a lease that it did not have");
        if let ReturnState::Quiet { touched, .. } = back.state {
            let whole = Boundary::default().is_between(&self.seen.to_server);
            assert!(whole && self.boundary.is_between(&self.from_server), "half a message, and quiet");
            assert_eq!(touched, !self.seen.to_server.is_empty());
        }
        self.seen.returned.push(back.state);
        let clean = matches!(back.state, ReturnState::Quiet { status: TransactionStatus::Idle, .. });
        let returned = if clean { Returned::Clean } else { Returned::Broken };
        self.pools.handle_release(back.lease, returned, self.now);
        self.pending[Side::Server as usize].clear();
    }

    pub(super) fn tls(&mut self, good: bool) {
        if std::mem::take(&mut self.handshaking) && !self.is_over() {
            let encryption = Encryption { version: "TLSv1.3".into(), cipher: "TLS_AES_256_GCM_SHA384".into() };
            self.session.handle_tls(encryption, good.then_some(b"postgresql"), self.now);
        }
    }

    pub(super) fn verified(&mut self, how: u8) {
        let verdict = match how & 3 {
            0 => Err(Refusal::new(SqlState::INVALID_PASSWORD, "the token has expired")),
            1 => Ok(token::somebody("ann", &[])),
            _ => Ok(token::somebody("ann", &["writer", "reader"])),
        };
        self.reply(Reply::Verified(verdict));
    }

    pub(super) fn enrolled(&mut self) {
        let key = self.cancels.enroll(ID, self.places.is_multiple_of(2), &mut Counter(1));
        self.reply(Reply::Enrolled(key));
    }

    pub(super) fn leased(&mut self, how: u8) {
        let Some(lease) = self.in_hand.take() else { return };
        self.holding = true;
        let parameters = vec![((*b"server_version").into(), (*b"18.1").into())];
        let proof = (self.own_password && how & 1 == 0).then(|| login::proof(&self.account));
        self.reply(Reply::Leased(Leased::new(lease, parameters, proof)));
    }

    /// The audit trail has room from now on, or has none.
    pub(super) fn vacate(&mut self, vacant: bool) {
        self.vacant = vacant;
        // Where nobody asked, this is a late or repeated answer.
        self.reserved(vacant);
    }

    fn reserved(&mut self, granted: bool) {
        let asked = std::mem::take(&mut self.reserving);
        self.places += usize::from(granted && asked);
        self.reply(Reply::Reserved(granted));
    }

    pub(super) fn reply(&mut self, reply: Reply) {
        self.session.handle_reply(reply, self.now);
    }

    pub(super) fn close(&mut self, side: Side, how: Lost) {
        if (side == Side::Server && !self.holding) || std::mem::replace(&mut self.closed[side as usize], true) {
            return;
        }
        self.session.handle_close(side, how, self.now);
    }

    pub(super) fn drain(&mut self) {
        self.session.handle_drain(self.now);
    }

    pub(super) fn kill(&mut self, refusal: Refusal) {
        self.session.handle_kill(refusal, self.now);
    }

    pub(super) fn pass(&mut self, span: Duration) {
        self.now.tick = self.now.tick.after(span);
        self.now.unix.0 += i64::try_from(span.as_micros()).unwrap_or(0);
    }

    pub(super) fn early_timeout(&mut self) {
        if self.session.poll_timeout().is_none_or(|due| due.at > self.now.tick) {
            self.session.handle_timeout(self.now);
            self.session.handle_timeout(self.now);
        }
    }

    /// What a driver does before it sleeps.
    pub(super) fn settle(&mut self) {
        self.carry_out();
        self.judge();
        for _ in 0..3 {
            let due = self.session.poll_timeout().is_some_and(|due| due.at <= self.now.tick);
            if !due || self.is_over() {
                return;
            }
            self.session.handle_timeout(self.now);
            self.carry_out();
        }
        panic!("a deadline that has passed and does not go away: {:?}", self.session.poll_timeout());
    }

    /// The client goes, and everything must come to its end.
    pub(super) fn end(mut self) -> Seen {
        self.close(Side::Client, Lost::Closed);
        self.settle();
        assert!(self.is_over(), "it outlives its client");
        assert!(!self.session.wants_input(Side::Client) && !self.session.wants_input(Side::Server));
        for side in [Side::Client, Side::Server] {
            assert_eq!(self.session.handle_input(side, b"Q\0\0\0", self.now), Verdict::Take(4));
            self.session.handle_close(side, Lost::Broken, self.now);
        }
        self.reserving = false;
        self.pass(Duration::from_secs(1000));
        self.session.handle_timeout(self.now);
        self.session.handle_drain(self.now);
        self.reply(Reply::Reserved(true));
        self.carry_out();
        // A lease that is late goes back at once.
        self.leased(0);
        self.carry_out();
        assert!(!self.holding);
        self.pools.close_idle(None);
        while self.pools.poll_output().is_some() {}
        assert!(self.pools.is_empty(), "a lease is lost");
        for told in [&self.seen.to_client, &self.seen.audit] {
            assert!(memchr::memmem::find(told, ACCOUNT_PASSWORD).is_none(), "the account's password is out");
        }
        self.seen
    }
}

fn begins_statement(bytes: &[u8]) -> bool {
    let messages = split(bytes).unwrap_or_default();
    messages.iter().any(|(tag, _)| b"QEF".contains(tag))
}
