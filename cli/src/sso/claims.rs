//! What tokens say about a person, for people to read.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Map, Value};

use crate::credentials::UserInfo;

/// Names and roles are shown in one line each; more is a mistake or an attack.
const MAX_TEXT: usize = 512;
const MAX_ROLES: usize = 512;

/// The claims of one token.
pub(crate) struct UserClaims(Map<String, Value>);

/// The claims of a token whose signature nobody has looked at: good for hints, never for decisions. `None` for a token
/// that is no JWT.
pub(crate) fn unverified(token: &str) -> Option<UserClaims> {
    let mut parts = token.split('.');
    let (Some(_), Some(claims), Some(_), None) = (parts.next(), parts.next(), parts.next(), parts.next()) else {
        return None;
    };
    let json = URL_SAFE_NO_PAD.decode(claims).ok()?;
    serde_json::from_slice(&json).ok().map(UserClaims)
}

impl UserClaims {
    /// A claim that is a text and is not empty.
    pub(crate) fn text(&self, name: &str) -> Option<&str> {
        self.0.get(name)?.as_str().filter(|text| !text.is_empty() && text.len() <= MAX_TEXT)
    }

    /// A claim of any type.
    pub(crate) fn value(&self, name: &str) -> Option<&Value> {
        self.0.get(name)
    }

    /// `role` and `roles`, and those under a namespace (`https://…/roles`), which Auth0 asks for. The proxy has its own
    /// setting for it; these are for people.
    pub(crate) fn roles(&self) -> Vec<String> {
        let is_roles = |name: &str| {
            let last = name.rsplit(['/', ':']).next().unwrap_or_default();
            last == "role" || last == "roles"
        };
        let mut roles: Vec<String> = Vec::new();
        for value in self.0.iter().filter(|(name, _)| is_roles(name)).map(|(_, value)| value) {
            let listed = match value {
                Value::Array(listed) => listed.as_slice(),
                one => std::slice::from_ref(one),
            };
            for role in listed.iter().filter_map(Value::as_str).take(MAX_ROLES) {
                if role.len() <= MAX_TEXT && !roles.iter().any(|known| known == role) {
                    roles.push(role.to_owned());
                }
            }
        }
        roles
    }
}

/// Who it is: the names from the ID token, or from the access token where there is none; the roles from the access token,
/// which is what the proxy will see, or from the ID token where that cannot be read.
pub(super) fn user_info(id: Option<&UserClaims>, access: Option<&UserClaims>) -> UserInfo {
    let text = |name: &str| {
        let found = id.and_then(|claims| claims.text(name)).or_else(|| access.and_then(|claims| claims.text(name)));
        found.unwrap_or_default().to_owned()
    };
    let mut roles = access.map(UserClaims::roles).unwrap_or_default();
    if roles.is_empty() {
        roles = id.map(UserClaims::roles).unwrap_or_default();
    }
    UserInfo { sub: text("sub"), email: text("email"), name: text("name"), roles }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn token(claims: &Value) -> String {
        format!("eyJ9.{}.sig", URL_SAFE_NO_PAD.encode(claims.to_string()))
    }

    fn claims(value: Value) -> UserClaims {
        unverified(&token(&value)).unwrap()
    }

    #[test]
    fn what_is_no_jwt_has_no_claims() {
        for odd in ["", "opaque", "a.b", "a.b.c", "a.b.c.d", "eyJ9.W10.x"] {
            assert!(unverified(odd).is_none(), "{odd}");
        }
    }

    #[test]
    fn roles_are_found_in_the_shapes_that_providers_send() {
        for (value, expected) in [
            (json!({"role": "reader"}), &["reader"][..]),
            (json!({"roles": ["reader", "writer", "reader"]}), &["reader", "writer"]),
            (json!({"https://db.example/roles": ["x"], "roles": ["y"]}), &["x", "y"]),
            (json!({"roles": [1, null, {"a": 1}]}), &[]),
            (json!({"enroles": ["x"], "roles_old": ["y"]}), &[]),
        ] {
            assert_eq!(claims(value.clone()).roles(), expected, "{value}");
        }
    }

    #[test]
    fn names_come_from_the_id_token_and_roles_from_the_access_token() {
        let id = claims(json!({"sub": "1", "name": "Alice", "email": 5, "roles": ["old"]}));
        let access = claims(json!({"sub": "2", "email": "alice@corp.example", "roles": ["reader"]}));
        let both = user_info(Some(&id), Some(&access));
        assert_eq!((both.sub.as_str(), both.email.as_str()), ("1", "alice@corp.example"));
        assert_eq!(both.roles, ["reader"]);
        assert_eq!(user_info(Some(&id), None).roles, ["old"]);
        assert_eq!(user_info(None, Some(&access)).sub, "2");
        assert_eq!(user_info(None, None), UserInfo::default());
    }
}
