//! Who is let in, and by which proof: the part of `[server]` that is about clients.

use std::path::Path;
use std::sync::Arc;

use gprxy_proto::auth::users::UserList;
use gprxy_proto::console::ConsoleAccess;
use gprxy_proto::policy::{AllowPlaintext, AuthType};

use super::files;
use super::kinds::{Choice, Flag, Query, Words};
use super::problem::quoted;
use super::reader::Reader;
use super::settings::{Access, Listen, Lookup, Proof};
use super::url::is_loopback;

const PLAINTEXT: Choice<AllowPlaintext> = Choice(&[
    ("never", AllowPlaintext::Never),
    ("loopback", AllowPlaintext::Loopback),
    ("always", AllowPlaintext::Always),
]);

/// `auth_type` as it is written.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    Token,
    Listed(AuthType),
    Anyone,
}

const WAYS: Choice<Way> = Choice(&[
    ("oidc", Way::Token),
    ("scram-sha-256", Way::Listed(AuthType::ScramSha256)),
    ("md5", Way::Listed(AuthType::Md5)),
    ("plain", Way::Listed(AuthType::Plain)),
    ("trust", Way::Listed(AuthType::Trust)),
    ("any", Way::Anyone),
]);

const ROLE: Words = Words("the name of a PostgreSQL role");
const DATABASE: Words = Words("the name of one of [databases]");
const QUERY: &str = "SQL that gives the name and the password of the user $1";

/// Reads it. `has_tls`: whether a certificate is set, which decides who can log in at all.
pub(crate) fn access(reader: &mut Reader<'_>, has_tls: bool, listen: &Listen) -> Access {
    let way = reader.read("auth_type", &WAYS);
    let users = users(reader, way);
    let allow_plaintext = reader.read("allow_plaintext", &PLAINTEXT);
    let password_fallback = reader.read("password_fallback", &Flag);
    let asks_in_clear = matches!(way, Way::Token | Way::Listed(AuthType::Plain));
    match allow_plaintext {
        AllowPlaintext::Never if !has_tls && asks_in_clear => {
            reader.reject("allow_plaintext", "\"never\" without a certificate, so that nobody could log in", "[tls]");
        }
        AllowPlaintext::Loopback
            if !has_tls && asks_in_clear && !listen.addresses.iter().all(|address| is_loopback(address)) =>
        {
            reader.warn("without [tls], tokens are accepted from this machine only (allow_plaintext = \"loopback\")");
        }
        AllowPlaintext::Always if asks_in_clear => {
            reader.warn("allow_plaintext = \"always\" lets tokens and passwords travel unencrypted");
        }
        AllowPlaintext::Never | AllowPlaintext::Loopback | AllowPlaintext::Always => {}
    }
    if matches!(way, Way::Listed(AuthType::Trust) | Way::Anyone) {
        reader.warn("auth_type lets in everybody who can connect, without any proof");
    }
    let proof = match way {
        Way::Token => Proof::Token,
        Way::Listed(auth_type) => Proof::Listed(auth_type, users.unwrap_or_default()),
        Way::Anyone => Proof::Anyone,
    };
    let lookup = lookup(reader, matches!(way, Way::Listed(_)));
    Access { allow_plaintext, password_fallback, proof, lookup }
}

/// How users are looked up whom `auth_file` does not have.
fn lookup(reader: &mut Reader<'_>, has_list: bool) -> Lookup {
    let (user, query) = (reader.optional("auth_user", &ROLE), reader.read("auth_query", &Query));
    let database = reader.optional("auth_dbname", &DATABASE);
    if query.is_empty() {
        reader.reject("auth_query", "nothing", QUERY);
    }
    if user.is_some() && !has_list {
        reader.warn("auth_user has no effect with this auth_type: nobody is looked up");
    }
    if let Some(name) = database.as_ref().filter(|name| ConsoleAccess::is_console(name)) {
        let found = format!("{0}: cannot use the reserved {0} database as an auth_dbname", quoted(name));
        reader.reject("auth_dbname", found, "another of [databases]: the admin console has no users of its own");
    }
    Lookup { user: user.filter(|_| has_list).map(Arc::from), query: query.into(), database: database.map(Arc::from) }
}

/// The same for one database.
pub(crate) fn own_lookup(reader: &mut Reader<'_>, usual: &Lookup, proof: &Proof) -> Lookup {
    let (user, query) = (reader.own("auth_user", &ROLE), reader.own("auth_query", &Query));
    let database = reader.own("auth_dbname", &DATABASE);
    if query.as_ref().is_some_and(String::is_empty) {
        reader.reject("auth_query", "nothing", QUERY);
    }
    let has_list = matches!(proof, Proof::Listed(..));
    if user.is_some() && !has_list {
        reader.warn("auth_user has no effect with this auth_type: nobody is looked up");
    }
    let lookup = Lookup {
        user: user.filter(|_| has_list).map(Arc::from).or_else(|| usual.user.clone()),
        query: query.map_or_else(|| usual.query.clone(), Arc::from),
        database: database.map(Arc::from).or_else(|| usual.database.clone()),
    };
    if lookup.user.is_none() && has_list && ["auth_query", "auth_dbname"].iter().any(|name| reader.is_set(name)) {
        reader.warn("auth_query and auth_dbname have no effect without auth_user: nobody is looked up");
    }
    lookup
}

fn users(reader: &mut Reader<'_>, way: Way) -> Option<UserList> {
    const EXPECTED: &str = "a file with lines of \"user\" \"password, MD5 hash or SCRAM verifier\"";
    let path = reader.optional("auth_file", &Words(EXPECTED));
    match (way, &path) {
        (Way::Token, Some(_)) => reader.warn("auth_file has no effect with auth_type = \"oidc\""),
        (Way::Listed(_), None) if !reader.is_set("auth_file") && !reader.is_set("auth_user") => {
            reader.require("auth_file", EXPECTED);
        }
        _ => {}
    }
    let path = path.filter(|_| way != Way::Token)?;
    let text = match files::read(Path::new(&path)) {
        Ok(text) => text,
        Err(why) => {
            reader.reject("auth_file", format!("{}, which cannot be read ({why})", quoted(&path)), EXPECTED);
            return None;
        }
    };
    if files::readable_by_all(Path::new(&path)) {
        reader.warn(&format!("{path} holds passwords and is readable by every user of this machine: chmod 600 {path}"));
    }
    UserList::parse(text.expose())
        .map_err(|problems| {
            for problem in problems {
                reader.reject("auth_file", format!("{}, {problem}", quoted(&path)), EXPECTED);
            }
        })
        .ok()
}
