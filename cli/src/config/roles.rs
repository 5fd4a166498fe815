//! `[[role]]`, `server.default_role` and the account of `GPRXY_USER`.

use std::collections::BTreeMap;
use std::sync::Arc;

use gprxy_proto::policy::{Account, OwnPool};
use gprxy_proto::secret::{Secret, equal_in_constant_time};

use super::draft::{Block, Draft};
use super::kinds::{Rank, Words};
use super::problem::{Origin, Problem, quoted};
use super::reader::{Entry, Reader};
use super::schema::{self, env};
use super::settings::{Proof, RoleConfig, Roles};
use super::sources::Variables;
use super::terms;
use crate::logging::one_line;

/// PostgreSQL cuts longer names (NAMEDATALEN - 1), so that another account than the one written would log in.
const MAX_NAME: usize = 63;

/// Reads all roles, and finds the default role among them.
pub(crate) fn roles(
    mut entries: Vec<Entry>,
    default_role: Option<(String, Origin)>,
    proof: &Proof,
    variables: &Variables<'_>,
    draft: &mut Draft,
) -> Roles {
    if let Some((name, _)) = &default_role {
        entries.extend(role_of_default_account(name, &entries, variables));
    }
    if entries.is_empty() && proof.is_token() {
        let expected = "at least one [[role]], or ROLE_MAPPING_<ROLE>=account:password";
        draft.problem(Problem::missing("role", expected));
    }
    let mut mappings: Vec<RoleConfig> = Vec::new();
    for (nth, entry) in entries.into_iter().enumerate() {
        let place = format!("role[{}]", nth + 1);
        let mut reader = Reader::new(&schema::ROLE, entry, &place, "[[role]]", draft);
        if let Some(role) = role(&mut reader) {
            if mappings.iter().any(|earlier| same_role(&earlier.role, &role.role)) {
                let found = format!("{} a second time (letter case does not count)", quoted(&role.role));
                reader.reject("name", found, "each role once");
            }
            mappings.push(role);
        }
        reader.finish();
    }
    one_password_each(&mappings, draft);
    one_pool_each(&mappings, draft);
    let default_role = default_role.and_then(|(name, origin)| {
        let found = mappings.iter().find(|mapping| same_role(&mapping.role, &name));
        if found.is_none() {
            let known: Vec<_> = mappings.iter().map(|mapping| &*mapping.role).collect();
            let expected = format!("a role that is mapped ({})", known.join(", "));
            draft.problem(Problem::at("server.default_role", &origin, quoted(&name), expected));
        }
        found.map(|mapping| mapping.role.clone())
    });
    Roles { mappings, default_role }
}

/// `GPRXY_USER` with `GPRXY_PASS`: an account for `gprxy check`, nobody's queries run as it.
pub(crate) fn check_account(variables: &Variables<'_>, draft: &mut Draft) -> Option<Account> {
    let password = variables.any(env::PASS);
    let Some((name, origin)) = variables.any(env::USER) else {
        if password.is_some() {
            draft.warn("GPRXY_PASS is not used, because GPRXY_USER is not set");
        }
        return None;
    };
    if name.len() > MAX_NAME || name.contains('\0') {
        draft.problem(Problem::at(env::USER, &origin, quoted(name), NAME));
    }
    let words = format!("# {} = {} ({origin}): for `gprxy check`, nobody's queries run as it", env::USER, quoted(name));
    draft.effective.push(Block::new(one_line(&words)));
    Some(Account {
        name: name.into(),
        password: password.map(|(text, _)| Arc::new(Secret::new(text.as_bytes().to_vec()))),
    })
}

/// `DEFAULT_ROLE` may name `GPRXY_USER`: the people without a role then run as the account of the first gprxy.
fn role_of_default_account(default_role: &str, known: &[Entry], variables: &Variables<'_>) -> Option<Entry> {
    let (user, origin) = variables.any(env::USER)?;
    let mapped = known.iter().filter_map(|entry| entry.text("name")).any(|name| same_role(name, default_role));
    if mapped || !same_role(user, default_role) {
        return None;
    }
    let mut entry = Entry { origin: Some(origin.clone()), ..Entry::default() };
    entry.set("name", user, origin.clone());
    entry.set("account", user, origin);
    if let Some((password, origin)) = variables.any(env::PASS) {
        entry.set("password", password, origin);
    }
    Some(entry)
}

const NAME: &str = "the name of a PostgreSQL role, 1 to 63 bytes";

fn role(reader: &mut Reader<'_>) -> Option<RoleConfig> {
    let role = required(reader, "name", "the role as the tokens name it");
    let account = required(reader, "account", NAME);
    if account.as_ref().is_some_and(|account| account.len() > MAX_NAME) {
        reader.reject("account", "a longer name", NAME);
    }
    let password = reader.secret("password");
    let priority = reader.optional("priority", &Rank);
    let (timeouts, pool) = (terms::own_timeouts(reader), terms::own_pool(reader));
    Some(RoleConfig { role: role?.trim().into(), account: account?.into(), password, priority, timeouts, pool })
}

fn required(reader: &mut Reader<'_>, name: &'static str, expected: &'static str) -> Option<String> {
    if !reader.is_set(name) {
        reader.require(name, expected);
        return None;
    }
    reader.optional(name, &Words(expected))
}

/// Two roles may share an account, but then they must agree on its password: the server connections are shared too.
fn one_password_each(mappings: &[RoleConfig], draft: &mut Draft) {
    let mut accounts: BTreeMap<&Arc<str>, (&Arc<str>, &[u8])> = BTreeMap::new();
    for mapping in mappings {
        let password = mapping.password.as_ref().map_or(&[][..], |password| password.expose().as_bytes());
        let (role, known) = accounts.entry(&mapping.account).or_insert((&mapping.role, password));
        if !equal_in_constant_time(known, password) {
            draft.problem(Problem {
                setting: "role".into(),
                origin: None,
                found: format!(
                    "two passwords for the account {}, in the roles {} and {}",
                    quoted(&mapping.account),
                    quoted(role),
                    quoted(&mapping.role)
                ),
                expected: "one password for each account".into(),
            });
        }
    }
}

/// The same for what holds for the pool of that account as a whole.
fn one_pool_each(mappings: &[RoleConfig], draft: &mut Draft) {
    let of_pool = |mapping: &RoleConfig| {
        let OwnPool { pool_mode, pool_size, reserve_pool_size, .. } = mapping.pool;
        let OwnPool { max_user_connections, max_user_client_connections, .. } = mapping.pool;
        (pool_mode, pool_size, reserve_pool_size, max_user_connections, max_user_client_connections)
    };
    for (nth, mapping) in mappings.iter().enumerate() {
        let shares = |earlier: &&RoleConfig| earlier.account == mapping.account && of_pool(earlier) != of_pool(mapping);
        if let Some(earlier) = mappings[..nth].iter().find(shares) {
            let (account, one, other) = (quoted(&mapping.account), quoted(&earlier.role), quoted(&mapping.role));
            draft.problem(Problem {
                setting: "role".into(),
                origin: None,
                found: format!("two kinds of pool for the account {account}, in the roles {one} and {other}"),
                expected: "the same pool_mode, pool_size, reserve_pool_size, max_user_connections and \
                           max_user_client_connections in both, since they share server connections"
                    .into(),
            });
        }
    }
}

fn same_role(a: &str, b: &str) -> bool {
    a.trim().to_lowercase() == b.trim().to_lowercase()
}
