//! From a token's claims to an [`Identity`]: every check of RFC 7519 section 4.1 and of the configuration.
//!
//! Nothing here knows whether the signature is good; [`super::Keyring::verify`] does not let the result out before.

use std::sync::Arc;

use serde_json::{Map, Value};

use super::claim::{ClaimPath, Lookup, numeric_date};
use super::fault::TokenFault;
use super::json::type_name;
use super::settings::IssuerSettings;
use crate::auth::{Identity, Method};
use crate::time::{Now, UnixMicros};

/// OpenID Connect Core section 2 caps `sub` at 255 characters; some providers exceed that, none comes near this.
const MAX_NAME_BYTES: usize = 1024;
/// Paths of nested groups can be long.
const MAX_ROLE_BYTES: usize = 512;
/// Large directories put a person into hundreds of groups, and then leave the claim out altogether.
const MAX_ROLES: usize = 512;

type Claims = Map<String, Value>;

/// Whether a character has no place in a name that people read in logs and compare by eye: control characters and line
/// separators could forge lines; direction marks, blank letters, tags and whatever else is not seen (Unicode's
/// Default_Ignorable_Code_Point) disguise one name as another. The two joiners (U+200C, U+200D) and the variation selectors
/// of the basic plane stay: names in several scripts need them.
pub(crate) fn is_hidden(c: char) -> bool {
    const HIDDEN: [std::ops::RangeInclusive<char>; 15] = [
        '\u{ad}'..='\u{ad}',
        '\u{34f}'..='\u{34f}',
        '\u{61c}'..='\u{61c}',
        '\u{115f}'..='\u{1160}',
        '\u{17b4}'..='\u{17b5}',
        '\u{180e}'..='\u{180e}',
        '\u{200b}'..='\u{200b}',
        '\u{200e}'..='\u{200f}',
        '\u{2028}'..='\u{202e}',
        '\u{2060}'..='\u{206f}',
        '\u{3164}'..='\u{3164}',
        '\u{feff}'..='\u{feff}',
        '\u{ffa0}'..='\u{ffa0}',
        '\u{fff0}'..='\u{fffb}',
        '\u{e0000}'..='\u{e0fff}',
    ];
    c.is_control() || HIDDEN.iter().any(|range| range.contains(&c))
}

/// Checks all claims of a token whose `iss` is that of `settings`.
pub(crate) fn identity(claims: &Claims, settings: &IssuerSettings, now: Now) -> Result<Identity, TokenFault> {
    let expires = check_times(claims, settings, now)?;
    check_audience(claims, settings)?;
    for path in &settings.required_claims {
        match path.lookup(claims) {
            Lookup::Found(Value::Null) | Lookup::Absent | Lookup::NotAnObject => {
                return Err(TokenFault::Missing { claim: path.to_string() });
            }
            Lookup::Found(_) => {}
        }
    }
    let subject = name("sub", required(claims, "sub")?)?;
    Ok(Identity {
        issuer: settings.issuer.as_str().into(),
        user: user(claims, settings)?.into(),
        subject: subject.into(),
        roles: roles(claims, settings)?,
        expires: Some(expires),
        method: Method::Token,
    })
}

/// `exp`, `nbf` and `iat` against the injected clock. The answer is `exp` as it stands, without the leeway.
fn check_times(claims: &Claims, settings: &IssuerSettings, now: Now) -> Result<UnixMicros, TokenFault> {
    let leeway = i64::try_from(settings.leeway.as_micros()).unwrap_or(0);
    let date = |claim: &str, value: &Value| {
        numeric_date(value).ok_or_else(|| wrong_type(claim, "seconds since 1970 as a number", value))
    };
    let expires = date("exp", required(claims, "exp")?)?;
    for claim in ["nbf", "iat"] {
        if let Some(value) = claims.get(claim)
            && date(claim, value)? > now.unix.0.saturating_add(leeway)
        {
            return Err(TokenFault::NotYetValid);
        }
    }
    // RFC 7519 section 4.1.4: "on or after" `exp` the token must not be accepted; dates are bounded, so no overflow.
    if now.unix.0 >= expires + leeway {
        return Err(TokenFault::Expired);
    }
    Ok(UnixMicros(expires))
}

/// RFC 7519 section 4.1.3: one string, or an array of them, and one must be ours.
fn check_audience(claims: &Claims, settings: &IssuerSettings) -> Result<(), TokenFault> {
    const EXPECTED: &str = "a string or an array of strings";
    let ours = |audience: &str| settings.audiences.iter().any(|configured| configured == audience);
    let value = required(claims, "aud")?;
    let matches = match value {
        Value::String(one) => ours(one),
        Value::Array(several) => {
            let mut matches = false;
            for audience in several {
                matches |= ours(audience.as_str().ok_or_else(|| wrong_type("aud", EXPECTED, value))?);
            }
            matches
        }
        other => return Err(wrong_type("aud", EXPECTED, other)),
    };
    if matches { Ok(()) } else { Err(TokenFault::Audience { expected: either(&settings.audiences) }) }
}

/// The readable name: the first configured claim that is there.
fn user<'a>(claims: &'a Claims, settings: &IssuerSettings) -> Result<&'a str, TokenFault> {
    // Both are checked even where another claim names the user: a token with a malformed one is not to be trusted.
    if let Some(email) = claims.get("email")
        && !email.is_string()
    {
        return Err(wrong_type("email", "a string", email));
    }
    let email_is_verified = match claims.get("email_verified") {
        None => true,
        Some(Value::Bool(verified)) => *verified,
        Some(other) => return Err(wrong_type("email_verified", "a boolean", other)),
    };
    for path in &settings.user_claims {
        match path.lookup(claims) {
            Lookup::Found(value) => {
                if path.as_str() == "email" && !email_is_verified {
                    return Err(TokenFault::EmailNotVerified);
                }
                return name(path.as_str(), value);
            }
            Lookup::NotAnObject => return Err(not_an_object(path, "a string")),
            Lookup::Absent => {}
        }
    }
    Err(TokenFault::NoUser { claims: either(&settings.user_claims) })
}

/// The roles of all configured claims in order, each once. Blank ones say nothing and are left out.
fn roles(claims: &Claims, settings: &IssuerSettings) -> Result<Arc<[Arc<str>]>, TokenFault> {
    const EXPECTED: &str = "a string or an array of strings";
    let mut roles: Vec<Arc<str>> = Vec::new();
    for path in &settings.roles_claims {
        let value = match path.lookup(claims) {
            Lookup::Found(value) => value,
            Lookup::Absent => continue,
            Lookup::NotAnObject => return Err(not_an_object(path, EXPECTED)),
        };
        let listed = match value {
            Value::String(_) => std::slice::from_ref(value),
            Value::Array(several) => several.as_slice(),
            other => return Err(wrong_type(path.as_str(), EXPECTED, other)),
        };
        // Before the loop: it compares each role with those before it, and this may run on an unsigned token.
        if listed.len() + roles.len() > MAX_ROLES {
            return Err(TokenFault::Unfit { claim: path.to_string(), expected: "at most 512 roles" });
        }
        for role in listed {
            let role = role.as_str().ok_or_else(|| wrong_type(path.as_str(), EXPECTED, value))?;
            if role.len() > MAX_ROLE_BYTES || role.contains(is_hidden) {
                let expected = "roles of at most 512 bytes without control characters";
                return Err(TokenFault::Unfit { claim: path.to_string(), expected });
            }
            if !role.trim().is_empty() && !roles.iter().any(|known| **known == *role) {
                roles.push(role.into());
            }
        }
    }
    Ok(roles.into())
}

fn required<'a>(claims: &'a Claims, claim: &str) -> Result<&'a Value, TokenFault> {
    claims.get(claim).ok_or_else(|| TokenFault::Missing { claim: claim.into() })
}

/// A name fit to stand in an audit record and to be compared with the startup user.
fn name<'a>(claim: &str, value: &'a Value) -> Result<&'a str, TokenFault> {
    let text = value.as_str().ok_or_else(|| wrong_type(claim, "a string", value))?;
    if text.trim().is_empty() || text.len() > MAX_NAME_BYTES || text.contains(is_hidden) {
        let expected = "1 to 1024 bytes without control characters";
        return Err(TokenFault::Unfit { claim: claim.into(), expected });
    }
    Ok(text)
}

fn wrong_type(claim: &str, expected: &'static str, value: &Value) -> TokenFault {
    let found = match value {
        // The type may be right and the content not: an array with a number inside, a date that is none.
        Value::Array(_) if expected.contains("array") => "an array with something else inside",
        Value::Number(_) if expected.contains("number") => "out of range",
        other => type_name(other),
    };
    TokenFault::WrongType { claim: claim.into(), expected, found }
}

fn not_an_object(path: &ClaimPath, expected: &'static str) -> TokenFault {
    TokenFault::WrongType { claim: path.to_string(), expected, found: "inside something that is no object" }
}

/// `"a"`, `"a" or "b"`, `"a", "b" or "c"`.
fn either<T: ToString>(names: &[T]) -> String {
    let quoted: Vec<String> = names.iter().map(|name| format!("\"{}\"", name.to_string())).collect();
    match quoted.split_last() {
        Some((last, [])) => last.clone(),
        Some((last, rest)) => format!("{} or {last}", rest.join(", ")),
        None => String::new(),
    }
}
