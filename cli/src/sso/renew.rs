//! From what is kept to a token that counts: renewed when it has to be, by one process at a time.

use std::time::Duration;

use gprxy_proto::secret::Secret;
use jiff::Timestamp;

use super::claims::{UserClaims, unverified, user_info};
use super::failure::{Failure, Kind, Result};
use super::provider::Provider;
use super::tokens::{self, Tokens};
use super::{client_credentials, id_token};
use crate::credentials::{Credentials, Grant, Store};
use crate::interrupts;
use crate::profile::Profile;

/// What is kept, if it belongs to the profile's provider.
pub(crate) fn current(profile: &Profile, store: &Store) -> Result<Credentials> {
    let flag = profile.flag();
    let Some(credentials) = store.load()? else {
        return Err(Failure::refused(format!("not logged in: run gprxy login{flag}")));
    };
    let settings = &profile.provider;
    let is_other = |kept: &str, set: &Option<String>| !kept.is_empty() && set.as_deref().is_some_and(|set| set != kept);
    if is_other(&credentials.issuer, &settings.issuer) || is_other(&credentials.client_id, &settings.client_id) {
        let kept = &credentials.issuer;
        let set = settings.issuer.as_deref().unwrap_or_default();
        return Err(Failure::refused(format!(
            "you are logged in at {kept} as client {:?}, and the settings now say {set} with client {:?}: run gprxy login{flag}",
            credentials.client_id,
            settings.client_id.as_deref().unwrap_or_default(),
        )));
    }
    Ok(credentials)
}

/// A token that is good for some time yet.
pub(crate) fn fresh(profile: &Profile, store: &Store) -> Result<Credentials> {
    let credentials = current(profile, store)?;
    if credentials.is_fresh(Timestamp::now()) { Ok(credentials) } else { renew(profile, store, false) }
}

/// A new token, even if the old one is fresh: shows whether renewal works.
pub(crate) fn renewed(profile: &Profile, store: &Store) -> Result<Credentials> {
    renew(profile, store, true)
}

fn renew(profile: &Profile, store: &Store, anyway: bool) -> Result<Credentials> {
    let lock = store.lock()?;
    // Who waited for the lock finds the tokens of who held it. The old refresh token may be used up by now: sending it
    // again looks like theft to the provider, which then ends the whole login.
    let old = current(profile, store)?;
    if !anyway && old.is_fresh(Timestamp::now()) {
        return Ok(old);
    }
    // From here on a refresh token may be under way that exists nowhere else: Ctrl-C waits until it is on the disk.
    let finished = interrupts::hold();
    let (provider, tokens) = match ask(profile, &old) {
        Ok(asked) => asked,
        Err(failure) if !anyway => return still_good(old, failure),
        Err(failure) => return Err(failure),
    };
    check_same_person(&old, &tokens)?;
    let has_new_id = tokens.id.is_some();
    let mut new = merge(old, tokens);
    store.save(&new, &lock)?;
    drop(finished);
    // The new ID token is for show; a provider whose keys cannot be fetched now does not cost a login.
    if has_new_id && let Ok(claims) = id_token::verify(&provider, new.id_token.expose(), None) {
        new.user_info = user_info(Some(&claims), unverified(new.access_token.expose()).as_ref());
        let _finished = interrupts::hold();
        store.save(&new, &lock)?;
    }
    Ok(new)
}

/// Without a new token the old one is used to its end.
fn still_good(old: Credentials, failure: Failure) -> Result<Credentials> {
    let Some(left) = old.remaining(Timestamp::now()) else { return Err(failure) };
    eprintln!("gprxy: warning: {failure}");
    eprintln!("gprxy: warning: the token that is there counts for {} s more", left.as_secs());
    Ok(old)
}

/// One request for new tokens. Settings that are missing in this shell are those of the login.
fn ask<'p>(profile: &'p Profile, old: &Credentials) -> Result<(Provider<'p>, Tokens)> {
    if !old.is_renewable() {
        let words = format!(
            "the token expires or has expired, and the provider gave none to renew it with: run gprxy login{}",
            profile.flag()
        );
        return Err(Failure::refused(words));
    }
    let issuer = profile.provider.issuer.as_deref().or(Some(old.issuer.as_str()).filter(|issuer| !issuer.is_empty()));
    let client = profile.provider.client_id.as_deref().or(Some(old.client_id.as_str()).filter(|id| !id.is_empty()));
    let provider = match (issuer, client) {
        (Some(issuer), Some(client)) => Provider::discover_at(issuer, client, profile)?,
        _ => Provider::discover(profile)?,
    };
    let tokens = match old.grant {
        Grant::ClientCredentials => client_credentials::for_machine(&provider)?,
        Grant::AuthorizationCode | Grant::DeviceCode => refresh(&provider, old)?,
    };
    Ok((provider, tokens))
}

/// RFC 6749 section 6.
fn refresh(provider: &Provider<'_>, old: &Credentials) -> Result<Tokens> {
    let form = [("grant_type", "refresh_token"), ("refresh_token", old.refresh_token.expose().as_str())];
    tokens::request(provider, &form)?.map_err(|error| {
        let login = format!("gprxy login{}", provider.profile.flag());
        let words = match error.code.as_str() {
            "invalid_grant" => format!("your login has ended, the provider says {error}: run {login}"),
            _ => format!("the provider does not renew the token: {error}; {}", error.advice()),
        };
        let is_passing = matches!(error.code.as_str(), "temporarily_unavailable" | "server_error" | "slow_down");
        Failure { kind: if is_passing { Kind::Unavailable } else { Kind::Refused }, words }
    })
}

/// What is new takes the place of what was; what the answer leaves out stays (section 6: a server may give a new refresh
/// token, and need not).
fn merge(mut kept: Credentials, tokens: Tokens) -> Credentials {
    let roles = unverified(tokens.access.expose()).map(|claims| claims.roles()).unwrap_or_default();
    if !roles.is_empty() {
        kept.user_info.roles = roles;
    }
    kept.access_token = tokens.access;
    kept.issued_at = tokens.issued;
    kept.expires_at = tokens.expires;
    if let Some(refresh) = tokens.refresh {
        kept.refresh_token = refresh;
    }
    if let Some(id) = tokens.id {
        kept.id_token = id;
    }
    kept
}

/// OpenID Connect Core section 12.2: a new ID token is about the same person. Looked at before anything is kept, so before
/// the signature is: a provider that answers otherwise is broken either way.
fn check_same_person(old: &Credentials, tokens: &Tokens) -> Result<()> {
    let claims = tokens.id.as_ref().and_then(|token| unverified(token.expose()));
    let known = &old.user_info.sub;
    match claims.as_ref().map(|claims| claims.text("sub").unwrap_or_default()) {
        Some(subject) if !known.is_empty() && subject != known => {
            Err(Failure::refused("the provider renewed the token with that of another person: run gprxy login --force"))
        }
        _ => Ok(()),
    }
}

/// Credentials of a new login.
pub(crate) fn first(provider: &Provider<'_>, grant: Grant, tokens: Tokens, claims: Option<&UserClaims>) -> Credentials {
    let access = unverified(tokens.access.expose());
    Credentials {
        user_info: user_info(claims, access.as_ref()),
        access_token: tokens.access,
        refresh_token: tokens.refresh.unwrap_or_else(|| Secret::new(String::new())),
        id_token: tokens.id.unwrap_or_else(|| Secret::new(String::new())),
        expires_at: tokens.expires,
        issued_at: tokens.issued,
        issuer: provider.metadata.issuer.clone(),
        client_id: provider.client_id.clone(),
        proxy: provider.profile.proxy.address.as_ref().map(ToString::to_string).unwrap_or_default(),
        grant,
    }
}

/// `59 minutes`.
pub(crate) fn shown(span: Duration) -> String {
    let seconds = span.as_secs();
    match seconds {
        0..120 => format!("{seconds} seconds"),
        120..7200 => format!("{} minutes", seconds / 60),
        7200..172_800 => format!("{} hours", seconds / 3600),
        _ => format!("{} days", seconds / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_answer_leaves_out_stays() {
        let old: Credentials = serde_json::from_value(serde_json::json!({
            "access_token": "a1", "refresh_token": "r1", "id_token": "i1", "issuer": "https://idp.example",
            "expires_at": "2026-01-01T01:00:00Z", "issued_at": "2026-01-01T00:00:00Z",
        }))
        .unwrap();
        let at = |text: &str| text.parse().unwrap();
        let tokens = |refresh: Option<&str>| Tokens {
            access: "a2".into(),
            refresh: refresh.map(Secret::from),
            id: None,
            issued: at("2026-01-01T01:00:00Z"),
            expires: at("2026-01-01T02:00:00Z"),
        };
        let kept = merge(old, tokens(None));
        assert_eq!((kept.access_token.expose().as_str(), kept.refresh_token.expose().as_str()), ("a2", "r1"));
        assert_eq!((kept.id_token.expose().as_str(), kept.expires_at), ("i1", at("2026-01-01T02:00:00Z")));
        assert_eq!(merge(kept, tokens(Some("r2"))).refresh_token.expose(), "r2");
    }

    #[test]
    fn spans_are_told_in_one_unit() {
        let told: Vec<String> = [59, 3599, 7200, 200_000].map(|s| shown(Duration::from_secs(s))).into();
        assert_eq!(told, ["59 seconds", "59 minutes", "2 hours", "2 days"]);
    }
}
