//! What a session wants of its driver, and what it is told in return.

use std::sync::Arc;

use super::Side;
use crate::audit::Record;
use crate::auth::Authenticated;
use crate::auth::scram::{Derivation, NONCE_LEN, ScramKeys};
use crate::cancel::CancelKey;
use crate::codec::backend::TransactionStatus;
use crate::console::{Errand, Found};
use crate::fault::{Lost, Refusal, Violation};
use crate::policy::Database;
use crate::pool::{Lease, Owner, PoolKey, PoolMode, PoolSettings, Request};
use crate::relay::OnServer;
use crate::secret::Secret;
use crate::session_id::SessionId;
use crate::upstream::{self, LoginSettings, Parameters, Reported};

/// What the machine wants to happen, in this order.
#[must_use]
#[non_exhaustive]
pub enum Output {
    /// These bytes go to that side, behind everything sent there before.
    Send(Side, Vec<u8>),
    /// The client's side is encrypted from here on; [`super::Session::handle_tls`] when it is.
    StartTls,
    /// A slow or outside decision.
    Do(Action),
    /// One line for the audit trail.
    Audit(Box<Record>),
    /// The line of a statement that was run: in a required trail it has the place that was set aside for it.
    AuditStatement(Box<Record>),
    /// Nothing comes after this: flush and close the client.
    Finished(Finish),
}

/// A decision or deed that is not the session's own; each but `Release`, `Cancel`, `GiveUp` and `Unreserve` is answered by a
/// [`Reply`].
#[must_use]
#[non_exhaustive]
pub enum Action {
    /// Is this token good? Answer: [`Reply::Verified`].
    Verify(Secret<Vec<u8>>),
    /// Fresh random bytes: [`Reply::Nonce`].
    Nonce,
    /// Run this where blocking is allowed: [`Reply::Derived`].
    Derive(Derivation),
    /// A cancel key first ([`Reply::Enrolled`]), then a server connection ([`Reply::Leased`]).
    Lease(Box<Wish>),
    /// A server connection for a question of the proxy's own, without a cancel key: [`Reply::Leased`] or a refusal.
    LookUp(Box<Wish>),
    /// A cancel key for a session that needs no server connection: [`Reply::Enrolled`].
    Enroll {
        /// Whether the client can be given one of more than four bytes.
        wide_key: bool,
    },
    /// For the admin console: [`Reply::Console`].
    Console(Errand),
    /// What was wished for, or asked at the console, is not wanted any more.
    GiveUp,
    /// A server connection for the next transaction, under the wish of before: [`Reply::Leased`] or a refusal.
    Borrow,
    /// What runs on the server connection is the client's own from here on, and may be cancelled.
    Cancellable,
    /// A place for the record of a statement: [`Reply::Reserved`].
    Reserve,
    /// So many places for records are not needed after all.
    Unreserve(u32),
    /// The server connection goes back.
    Release(Return),
    /// Cancel what the owner of this key runs.
    Cancel {
        /// From the CancelRequest.
        pid: u32,
        /// From the CancelRequest.
        key: Box<[u8]>,
    },
}

/// The server connection that a session needs.
#[non_exhaustive]
pub struct Wish {
    /// The PostgreSQL role that runs the session.
    pub account: Arc<str>,
    /// Its password; for a person's own password nothing is cached or pooled.
    pub credential: Credential,
    /// The database as the client names it.
    pub database: Arc<str>,
    /// Where that is.
    pub target: Arc<Database>,
    /// The role that the session runs in, or its user: whose settings hold.
    pub role: Arc<str>,
    /// What holds for its pool.
    pub settings: Arc<PoolSettings>,
    /// The verified identity in one canonical spelling; `None` while PostgreSQL has to check a password.
    pub identity: Option<Arc<str>>,
    /// Startup parameters for the server, encoded.
    pub parameters: Arc<[u8]>,
    /// The query that has their effect on a connection that was opened without them, where one has.
    pub startup_query: Option<Arc<str>>,
    /// When the connection goes back.
    pub mode: PoolMode,
    /// Whose state it may hold then.
    pub owner: Owner,
    /// Whether the client can be given a cancel key of more than four bytes.
    pub wide_key: bool,
    /// A user is to be looked up: the client is not proven, and must not take what those have who are.
    pub for_lookup: bool,
}

impl Wish {
    /// What to ask [`crate::pool::Pools`] for.
    #[must_use]
    pub fn request(&self, session: SessionId) -> Request {
        let key = self.pool();
        Request {
            session,
            parameters: self.parameters.clone(),
            owner: self.owner.clone(),
            reuse: self.credential.may_be_shared(),
            adapts: self.startup_query.is_some(),
            settings: self.settings.clone(),
            key,
        }
    }

    /// The pool that it is about.
    #[must_use]
    pub fn pool(&self) -> PoolKey {
        let own_password = self.for_lookup || matches!(self.credential, Credential::Own(_));
        PoolKey { account: self.account.clone(), database: self.database.clone(), own_password }
    }

    /// How to log in to the server, once there is a socket and a fresh random nonce. TLS goes by the target's `sslmode`:
    /// who has none, or stands at a Unix socket, clears `tls_possible`. For [`Credential::Provided`] the credential is still
    /// to be put in.
    #[must_use]
    pub fn login_settings(&self, nonce: [u8; NONCE_LEN]) -> LoginSettings {
        let credential = match &self.credential {
            Credential::Own(password) => upstream::Credential::of(Some(password.clone())),
            Credential::Account(account) => upstream::Credential::of(account.password.clone()),
            Credential::Passed(credential) => credential.clone(),
            Credential::Provided => upstream::Credential::None,
        };
        LoginSettings {
            user: self.account.clone(),
            database: self.target.dbname.clone().unwrap_or_else(|| self.database.clone()),
            parameters: self.parameters.clone(),
            credential,
            sslmode: self.target.sslmode,
            tls_possible: true,
            nonce,
            timeout: self.target.connect_timeout,
        }
    }
}

/// What the proxy shows to the server.
#[derive(Clone)]
#[non_exhaustive]
pub enum Credential {
    /// That of a mapped account.
    Account(Arc<crate::policy::Account>),
    /// A person's own, which PostgreSQL itself must check.
    Own(Arc<Secret<Vec<u8>>>),
    /// What somebody's login at the proxy's own gate left for an account of the same name.
    Passed(upstream::Credential),
    /// One that the driver asks its source of tokens for, anew for each server connection; that serves one session.
    Provided,
}

impl Credential {
    /// Whether server connections that were opened with it may serve one session after the other.
    #[must_use]
    pub const fn may_be_shared(&self) -> bool {
        match self {
            Self::Account(_) | Self::Passed(_) => true,
            Self::Own(_) | Self::Provided => false,
        }
    }
}

/// A server connection on its way back.
#[non_exhaustive]
pub struct Return {
    /// Whose it was.
    pub lease: Lease,
    /// In which state.
    pub state: ReturnState,
    /// Parameters that the session changed, as the server reported them.
    pub changed: Parameters,
    /// Which statements are prepared there, where that matters.
    pub statements: Option<Box<OnServer>>,
}

/// The state of a server connection that comes back.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum ReturnState {
    /// Between messages, nothing owed: it can be reset and used again.
    Quiet {
        /// An open or failed transaction block needs a ROLLBACK.
        status: TransactionStatus,
        /// Whether anything was ever sent on it.
        touched: bool,
    },
    /// Between transactions, nothing owed: as it is, it serves the same owner again.
    Between,
    /// The same, but it may have other prepared statements than are known: it serves nobody before it is reset.
    InDoubt,
    /// A statement may still run: it is cancelled, and the connection closed.
    Busy,
    /// The server is gone or its protocol state is not certain: it is closed.
    Broken,
}

/// The answer to an [`Action`].
#[non_exhaustive]
pub enum Reply {
    /// To [`Action::Verify`].
    Verified(Result<Authenticated, Refusal>),
    /// To [`Action::Nonce`].
    Nonce([u8; NONCE_LEN]),
    /// To [`Action::Derive`].
    Derived(ScramKeys),
    /// To [`Action::Lease`] and [`Action::Enroll`], at once.
    Enrolled(CancelKey),
    /// To [`Action::Lease`] of a pool whose connections come back after each transaction, before one is there: what its
    /// servers say of themselves.
    Welcome(Reported),
    /// To [`Action::Lease`], [`Action::LookUp`] and [`Action::Borrow`], when a server connection is there.
    Leased(Leased),
    /// To [`Action::Lease`], when there will be none.
    Refused(Refusal),
    /// To [`Action::Lease`], when the server refused: its ErrorResponse, and what it says.
    RefusedByServer(Box<[u8]>, Refusal),
    /// While [`Action::Lease`] is waiting: something to tell the person.
    Waiting(Refusal),
    /// To [`Action::Reserve`].
    Reserved(bool),
    /// To [`Action::Console`].
    Console(Found),
}

/// A server connection for this session alone.
pub struct Leased {
    /// The right to use it.
    pub lease: Lease,
    /// What the server says of itself.
    pub parameters: Reported,
    /// What a login without startup parameters reported, where those of this session were set behind it.
    pub bare: Option<Arc<Parameters>>,
    /// Which statements are prepared there, where that matters.
    pub statements: Option<Box<OnServer>>,
    /// The proof, where the server's own login is one.
    pub proof: Option<Authenticated>,
}

impl Leased {
    /// A connection whose prepared statements nobody else shares.
    #[must_use]
    pub fn new(lease: Lease, parameters: Parameters, proof: Option<Authenticated>) -> Self {
        Self { lease, parameters: parameters.into(), bare: None, statements: None, proof }
    }
}

/// How a session ended.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Finish {
    /// The client left before it said what it wants.
    Untouched,
    /// A cancel request was passed on.
    Cancel,
    /// The client left in order.
    Terminated,
    /// The transport of one side was lost.
    Lost(Side, Lost),
    /// One side broke the protocol.
    Broken(Side, Violation),
    /// Policy, pool or server said no.
    Refused(Refusal),
    /// The process is being stopped.
    Drained,
}
