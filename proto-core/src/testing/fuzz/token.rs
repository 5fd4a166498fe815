//! Tokens: garbage, well-signed nonsense, and good ones with a blemish.

use std::sync::OnceLock;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::Algorithm;

use super::cuts::Script;
use crate::auth::jwks::{Fetched, KeySetLimits, KeySets};
use crate::auth::jwt::{IssuerSettings, KeySource, Keyring, Verdict};
use crate::auth::{Authenticated, Identity, Method};
use crate::fault::{Refusal, SqlState};
use crate::testing::tokens::{TestKey, claims, key_set};
use crate::time::{Now, Tick, UnixMicros};

/// The issuer whose keys are known.
pub const ISSUER: &str = "https://idp.corp.example";
/// What its tokens for gprxy say in `aud`.
pub const AUDIENCE: &str = "pg";
/// The second that every token is judged in.
pub const NOW_SECS: i64 = 1_800_000_000;

/// One byte says how the rest becomes a token: 0 is one as it stands; 1 and 2 are a header behind its length in two bytes,
/// then claims, signed with Ed25519 or RSA; everything else is a good token, with changes at places (two bytes) and by
/// values (one byte).
pub fn token(data: &[u8]) {
    let company = Company::get();
    let mut script = Script::new(data);
    let how = script.byte();
    match how {
        0 => {
            let token = script.rest();
            let verdict = company.judge(token);
            if let Verdict::Proven(_) = verdict {
                company.is_signed(token);
            }
        }
        1 | 2 => {
            let (key, algorithm) =
                if how == 1 { (&company.ed25519, Algorithm::EdDSA) } else { (&company.rsa, Algorithm::RS256) };
            let (header, claims) = (script.string(), script.rest());
            let token = key.token_of(algorithm, header, claims);
            let _ = company.judge(&token);
        }
        _ => {
            let mut token = company.good.clone();
            while !script.is_over() {
                let place = usize::from(script.word()) % token.len();
                token[place] ^= script.byte();
            }
            let proven = matches!(company.judge(&token), Verdict::Proven(_));
            assert_eq!(proven, token == company.good, "{}", token.escape_ascii());
        }
    }
}

/// The proof of somebody with these roles.
pub(super) fn somebody(subject: &str, roles: &[&str]) -> Authenticated {
    let company = Company::get();
    let mut claims = claims(ISSUER, AUDIENCE, subject, NOW_SECS);
    claims["roles"] = roles.iter().copied().collect();
    match company.judge(&company.ed25519.token(&claims)) {
        Verdict::Proven(who) => who,
        other => panic!("a good token is refused: {other:?}"),
    }
}

struct Company {
    keyring: std::sync::Arc<Keyring>,
    ed25519: TestKey,
    rsa: TestKey,
    good: Vec<u8>,
}

fn now() -> Now {
    Now { tick: Tick::from_nanos(1), unix: UnixMicros::from_secs(NOW_SECS) }
}

impl Company {
    /// Made once: reading an RSA key costs more than all the rest.
    fn get() -> &'static Self {
        static COMPANY: OnceLock<Company> = OnceLock::new();
        COMPANY.get_or_init(|| {
            let (ed25519, rsa) = (TestKey::ed25519("ed"), TestKey::rsa("rsa"));
            let from = |issuer: &str, keys: &str| IssuerSettings {
                source: KeySource::Url(keys.into()),
                ..IssuerSettings::new(issuer, [AUDIENCE])
            };
            let issuers =
                vec![from(ISSUER, "https://idp.corp.example/keys"), from("https://new.example", "https://n/")];
            let mut sets = KeySets::new(issuers, KeySetLimits::default(), now()).expect("the settings are good");
            let first = sets.poll_output().expect("keys are asked for at once");
            let body = key_set(&[&ed25519, &rsa]);
            let answer = Fetched { status: 200, body, etag: None, max_age: None };
            sets.handle_fetched(first.request, Ok(answer), now());
            let good = ed25519.token(&claims(ISSUER, AUDIENCE, "ann", NOW_SECS));
            Self { keyring: sets.keyring().clone(), ed25519, rsa, good }
        })
    }

    fn judge(&self, token: &[u8]) -> Verdict {
        let verdict = self.keyring.verify(token, now());
        match &verdict {
            Verdict::Proven(who) => is_sound(who.identity()),
            Verdict::Refused(refusal) => is_fit_to_be_told(refusal),
            Verdict::NeedsKey(issuer) => is_fit_to_be_told(&self.keyring.without_key(*issuer)),
        }
        verdict
    }

    /// Ed25519 and PKCS #1 signatures have no randomness: the owner of the key would make the same again.
    fn is_signed(&self, token: &[u8]) {
        let last = memchr::memrchr(b'.', token).expect("it was accepted");
        let signature = URL_SAFE_NO_PAD.decode(&token[last + 1..]).expect("it was accepted");
        let again = [
            self.ed25519.sign(Algorithm::EdDSA, &token[..last]),
            self.rsa.sign(Algorithm::RS256, &token[..last]),
            self.rsa.sign(Algorithm::RS384, &token[..last]),
            self.rsa.sign(Algorithm::RS512, &token[..last]),
        ];
        assert!(again.contains(&signature), "accepted a token that nobody signed: {}", token.escape_ascii());
    }
}

fn is_sound(identity: &Identity) {
    assert_eq!((identity.method, &*identity.issuer), (Method::Token, ISSUER));
    // The leeway is a minute.
    assert!(identity.expires.is_some_and(|expires| expires.as_secs() + 60 >= NOW_SECS));
    let names = [&identity.subject, &identity.user].into_iter().chain(identity.roles.iter());
    for name in names {
        assert!(!name.trim().is_empty() && name.len() <= 1024 && !name.contains(char::is_control), "{name:?}");
    }
    assert!(identity.roles.len() <= 512);
}

fn is_fit_to_be_told(refusal: &Refusal) {
    assert!(matches!(refusal.code, SqlState::INVALID_PASSWORD | SqlState::CANNOT_CONNECT_NOW));
    assert!(refusal.message.len() < 500 && !refusal.message.contains(char::is_control), "{refusal}");
    assert!(refusal.hint.as_ref().is_some_and(|hint| !hint.contains(char::is_control)));
}
