//! Judging a token for a session, which may have to wait for a key.

use super::connection::Connection;
use super::runtime::Runtime;
use crate::auth::jwks::Unknown;
use crate::auth::jwt::{IssuerId, Verdict};
use crate::secret::Secret;
use crate::session::Reply;
use crate::time::Now;

impl<R: Runtime> Connection<R> {
    pub(super) fn verify(&mut self, token: Secret<Vec<u8>>, now: Now) {
        let issuer = match self.shared.keyring().verify(token.expose(), now) {
            Verdict::NeedsKey(issuer) => issuer,
            verdict => return self.verified(verdict, now),
        };
        match self.ask_for_key(issuer) {
            Unknown::Fetching(awaited) => self.unverified = Some((token, awaited)),
            // The fetch that this cools down from may have brought the key since the keys were looked at.
            Unknown::CoolingDown => self.verify_finally(&token, now),
        }
    }

    fn ask_for_key(&self, issuer: IssuerId) -> Unknown {
        let session = self.session.id();
        self.shared.await_keys(session);
        let unknown = self.shared.with_hub(|hub, now| hub.keys.handle_unknown_key(issuer, now));
        if unknown == Unknown::CoolingDown {
            self.shared.forget_awaiting(session);
        }
        unknown
    }

    /// Judges by the keys that are there now, and asks for no others.
    fn verify_finally(&mut self, token: &Secret<Vec<u8>>, now: Now) {
        let verdict = self.shared.keyring().verify(token.expose(), now);
        self.verified(verdict, now);
    }

    fn verified(&mut self, verdict: Verdict, now: Now) {
        let result = match verdict {
            Verdict::Proven(who) => Ok(who),
            Verdict::Refused(refusal) => Err(refusal),
            Verdict::NeedsKey(issuer) => Err(self.shared.keyring().without_key(issuer)),
        };
        self.reply(Reply::Verified(result), now);
    }

    /// A fetch may have ended; if it was the awaited one, the keys decide this time.
    pub(super) fn verify_again(&mut self, now: Now) {
        let Some((token, awaited)) = self.unverified.take() else { return };
        let session = self.session.id();
        self.shared.await_keys(session);
        if !self.shared.with_hub(|hub, _| hub.keys.has_ended(awaited)) {
            self.unverified = Some((token, awaited));
            return;
        }
        self.shared.forget_awaiting(session);
        self.verify_finally(&token, now);
    }
}
