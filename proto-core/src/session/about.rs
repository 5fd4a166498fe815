//! What a session tells of itself to those who watch over it.

use std::sync::Arc;

use crate::auth::Identity;
use crate::codec::backend::TransactionStatus;
use crate::console::snapshot::ClientState;
use crate::relay::pins::Pins;

use super::relaying::Server;
use super::{Phase, Session};

/// What is known once it is decided what a client gets.
#[derive(Clone, Debug)]
pub struct About {
    /// The user of its startup packet.
    pub user: Arc<str>,
    /// The database of its startup packet.
    pub database: Arc<str>,
    /// `application_name` of its startup packet.
    pub application: Option<Arc<str>>,
    /// What it runs as.
    pub account: Option<Arc<str>>,
    /// Who it is; not known before PostgreSQL has said so of somebody with a password of their own.
    pub identity: Option<Arc<Identity>>,
    /// How it is encrypted.
    pub tls: Option<Arc<str>>,
}

/// How far a session has come.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Progress {
    /// What it is doing.
    pub state: ClientState,
    /// Whether its login has succeeded.
    pub logged_in: bool,
    /// Its queries that were answered; it begins again at zero behind the last number.
    pub answers: u32,
    /// Its transactions that have ended, the same way.
    pub transactions: u32,
    /// A server works for it.
    pub busy: bool,
    /// It has a transaction block open.
    pub in_block: bool,
    /// Statements that it has prepared.
    pub statements: u64,
    /// Messages that prepared a statement, those of them that went to a server, and those that bound one.
    pub prepared: (u64, u64, u64),
    /// What ties it to its server connection.
    pub pins: Pins,
    /// How often it has begun to keep that between transactions.
    pub times_pinned: u32,
}

impl Session {
    /// What is known of it; `None` before it is decided what it gets, and once it relays.
    #[must_use]
    pub fn about(&self) -> Option<About> {
        let (startup, who, account) = match &self.phase {
            Phase::Leasing(leasing) => (&leasing.startup, leasing.who.as_ref(), leasing.account.clone()),
            Phase::Console(console) => (&console.startup, Some(&console.who), None),
            _ => return None,
        };
        Some(About {
            user: startup.user.clone(),
            database: startup.database.clone(),
            application: startup.application.clone(),
            account,
            identity: who.map(|who| who.identity().clone()),
            tls: self.encryption(),
        })
    }

    /// Who it is, once it relays.
    #[must_use]
    pub fn identity(&self) -> Option<&Arc<Identity>> {
        match &self.phase {
            Phase::Relaying(relaying) => Some(relaying.who.identity()),
            Phase::Console(console) => Some(console.who.identity()),
            _ => None,
        }
    }

    /// How far it has come: cheap enough to be asked at every wake-up.
    #[must_use]
    pub fn progress(&self) -> Progress {
        let state = |state, logged_in| Progress { state, logged_in, ..Progress::default() };
        match &self.phase {
            Phase::Opening(_) | Phase::Proving(_) | Phase::Looking(_) => state(ClientState::Login, false),
            Phase::Leasing(_) => state(ClientState::Waiting, false),
            Phase::Closing(_) => {
                let last = self.last.as_deref().copied().unwrap_or_default();
                Progress { state: ClientState::Closing, busy: false, in_block: false, ..last }
            }
            Phase::Console(console) => {
                let (answers, transactions) = console.console.counts();
                Progress { answers, transactions, ..state(ClientState::Console, true) }
            }
            Phase::Relaying(relaying) => {
                let relay = &relaying.relay;
                let (answers, transactions) = relay.completed();
                let (doing, busy) = match relaying.server {
                    Server::Leased(_) => (ClientState::Active, !relay.is_quiet()),
                    Server::Away => (ClientState::Idle, false),
                    Server::Asked => (ClientState::Waiting, false),
                };
                Progress {
                    state: doing,
                    logged_in: true,
                    answers,
                    transactions,
                    busy,
                    in_block: relay.status() != TransactionStatus::Idle,
                    statements: relay.statements(),
                    prepared: relay.prepared(),
                    pins: relay.pins(),
                    times_pinned: relaying.times_held,
                }
            }
        }
    }
}
