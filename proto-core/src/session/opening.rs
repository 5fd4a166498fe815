//! From the first byte to the request for a secret.

use crate::codec::backend::{Severity, emit_cleartext_password, emit_error, emit_negotiate_protocol_version};
use crate::fault::{Refusal, SqlState, Violation};
use crate::preamble::{Opening, Preamble, Startup};
use crate::time::Now;

use super::proving::Proving;
use super::{Action, Finish, Output, Phase, Session, Verdict};

/// The ALPN protocol of PostgreSQL over TLS (section 54.2.10).
const ALPN: &[u8] = b"postgresql";

#[derive(Default)]
pub(super) struct Open {
    preamble: Preamble,
    /// The client began TLS without asking: ALPN is then required.
    direct_tls: bool,
    /// TLS is being set up: what the client sends belongs to it.
    in_handshake: bool,
}

impl Open {
    pub(super) const fn is_untouched(&self) -> bool {
        self.preamble.is_untouched()
    }

    pub(super) const fn in_handshake(&self) -> bool {
        self.in_handshake
    }
}

impl Session {
    pub(super) fn opening_input(&mut self, bytes: &[u8], now: Now) -> Verdict {
        let Phase::Opening(open) = &mut self.phase else { return Verdict::Wait };
        if open.in_handshake {
            return Verdict::Wait;
        }
        match open.preamble.handle_input(bytes) {
            Ok((used, None)) => Verdict::Take(used),
            Ok((used, Some(opening))) => {
                self.opened(opening, now);
                // Direct TLS leaves its first record for the handshake.
                if used == 0 { Verdict::Wait } else { Verdict::Take(used) }
            }
            Err(refusal) => {
                self.refuse(refusal, now);
                Verdict::Take(bytes.len())
            }
        }
    }

    fn opened(&mut self, opening: Opening, now: Now) {
        match opening {
            Opening::SslRequest if self.profile.tls => {
                self.send(b"S".to_vec());
                self.begin_tls(false);
            }
            Opening::DirectTls if self.profile.tls => self.begin_tls(true),
            Opening::DirectTls => self.violate(Violation::BadLength, now),
            Opening::SslRequest | Opening::GssEncRequest => self.send(b"N".to_vec()),
            Opening::Cancel { pid, key } => {
                self.out.push_back(Output::Do(Action::Cancel { pid, key }));
                self.finish(Finish::Cancel, now);
            }
            Opening::Startup(startup) => self.started(startup, now),
        }
    }

    fn begin_tls(&mut self, direct: bool) {
        if let Phase::Opening(open) = &mut self.phase {
            open.in_handshake = true;
            open.direct_tls = direct;
        }
        self.out.push_back(Output::StartTls);
    }

    pub(super) fn opening_encrypted(&mut self, alpn: Option<&[u8]>, now: Now) {
        let Phase::Opening(open) = &mut self.phase else { return };
        open.in_handshake = false;
        open.preamble.handle_encrypted();
        if open.direct_tls && alpn != Some(ALPN) {
            self.violate(Violation::WrongAlpn, now);
        }
    }

    /// A startup packet is there: the secret is asked for, but only where it may travel.
    fn started(&mut self, mut startup: Startup, now: Now) {
        self.asked = Some((startup.user.clone(), startup.database.clone()));
        super::startup::apply(&mut startup, &self.profile.startup, &self.peer.address);
        if !self.may_enter_crowded(&startup)
            && let Some(refusal) = self.crowded.take()
        {
            self.phase = Phase::Proving(Box::new(Proving::new(startup)));
            return self.refuse(*refusal, now);
        }
        if let Some(unknown) = &startup.negotiate {
            let unknown: Vec<&[u8]> = unknown.iter().map(|option| &**option).collect();
            let version = startup.version;
            self.write(|out| emit_negotiate_protocol_version(out, version, &unknown));
        }
        if self.console_without_password(&startup, now) {
            return;
        }
        let encrypted = self.tls.is_some();
        if self.profile.tls_required && !encrypted && !self.peer.is_unix() {
            self.phase = Phase::Proving(Box::new(Proving::new(startup)));
            return self.refuse(tls_required(), now);
        }
        // A gate that does not ask in clear does not need to know who reads along.
        let hidden = self.profile.gate.as_ref().is_some_and(|gate| !gate.asks_in_clear());
        let may_ask = hidden || encrypted || self.profile.allow_plaintext.allows(self.peer.is_local);
        self.phase = Phase::Proving(Box::new(Proving::new(startup)));
        if may_ask && self.profile.gate.is_some() {
            self.gate_opened();
        } else if may_ask {
            self.write(emit_cleartext_password);
        } else {
            let refusal = plaintext_refused(self.profile.tls);
            self.write(|out| emit_error(out, Severity::Fatal, &refusal));
            self.note_refusal(&refusal, now);
            self.finish(Finish::Refused(refusal), now);
        }
    }
}

fn tls_required() -> Refusal {
    Refusal::new(SqlState::INVALID_AUTHORIZATION, "this connection is not encrypted, and gprxy requires TLS")
        .hint("Connect with sslmode=require or, better, sslmode=verify-full.")
}

fn plaintext_refused(tls: bool) -> Refusal {
    let refusal = Refusal::new(
        SqlState::INVALID_AUTHORIZATION,
        "this connection is not encrypted, and gprxy asks for tokens and passwords only over TLS",
    );
    if tls {
        refusal.hint("Connect with sslmode=require or, better, sslmode=verify-full.")
    } else {
        refusal.hint("This gprxy has no certificate: its operator sets tls.cert and tls.key (PROXY_CERT, PROXY_KEY).")
    }
}
