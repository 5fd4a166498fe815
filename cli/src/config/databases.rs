//! `[databases.NAME]`: where they are, with libpq's rules for lists of hosts and ports.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use gprxy_proto::policy::{Account, Database, Endpoint, HostOrder, SslMode};
use gprxy_proto::pool::PoolSettings;
use gprxy_proto::secret::Secret;

use super::access::own_lookup;
use super::document::Value;
use super::draft::{Draft, toml_string};
use super::kinds::{Choice, Flag, Kind, List, Query, Span, Words};
use super::problem::{Problem, quoted};
use super::reader::{Entry, Reader};
use super::schema;
use super::server::{ANY_NUMBER, ISOLATION, POOL_MODE, POOL_SIZE, STATEMENTS, Usual};
use super::settings::{Access, Proof};
use super::terms;
use super::tls::certificates;
use super::url::is_loopback;

const SSLMODE: Choice<SslMode> = Choice(&[
    ("disable", SslMode::Disable),
    ("prefer", SslMode::Prefer),
    ("require", SslMode::Require),
    ("verify-ca", SslMode::VerifyCa),
    ("verify-full", SslMode::VerifyFull),
]);

const HOST_ORDER: Choice<HostOrder> =
    Choice(&[("listed", HostOrder::Listed), ("round-robin", HostOrder::RoundRobin), ("disable", HostOrder::LastGood)]);

const HOSTS: &str = "host names, addresses or socket directories, separated by commas, each with :port where needed";

/// Reads all databases.
pub(crate) fn databases(
    entries: Vec<(String, Entry)>,
    access: &Access,
    usual: &Usual,
    draft: &mut Draft,
) -> BTreeMap<Arc<str>, Database> {
    let mut databases: BTreeMap<Arc<str>, Database> = BTreeMap::new();
    for (name, entry) in entries {
        let place = format!("databases.{name}");
        if name.is_empty() || name.len() > 63 || name.contains('\0') {
            let expected = "a database name of 1 to 63 bytes, or * for all others";
            draft.problem(Problem {
                setting: place.clone(),
                origin: None,
                found: quoted(&name),
                expected: expected.into(),
            });
        }
        let header = format!("[databases.{}]", toml_string(&name));
        let mut reader = Reader::new(&schema::DATABASES, entry, &place, &header, draft);
        let database = database(&name, &mut reader, access, usual);
        reader.finish();
        databases.insert(name.into(), database);
    }
    for (name, database) in &databases {
        let place = database.auth_query.as_ref().and_then(|terms| terms.database.as_ref());
        if let Some(place) = place.filter(|place| !databases.contains_key(*place) && !databases.contains_key("*")) {
            let place = quoted(place);
            draft.warn(format!("databases.{name}: nobody can be looked up, because auth_dbname is {place}, which is not among [databases]"));
        }
    }
    databases
}

fn database(
    name: &str,
    reader: &mut Reader<'_>,
    access: &Access,
    Usual { pool, terms, connect_timeout, autodb_idle_timeout }: &Usual,
) -> Database {
    let by_star = if name == "*" { *autodb_idle_timeout } else { None };
    let hosts = reader.read("host", &List(HOSTS));
    let ports = reader.read("port", &Ports);
    let endpoints = endpoints(&hosts, &ports).unwrap_or_else(|fault| {
        let setting = if matches!(fault, Fault::Count) { "port" } else { "host" };
        let (found, expected) = match fault {
            Fault::Count => (
                format!("{} ports for {} hosts", ports.len(), hosts.len()),
                "one port, or one for each host".to_owned(),
            ),
            Fault::Host(host, expected) => (quoted(&host), expected.to_owned()),
        };
        reader.reject(setting, found, expected);
        Vec::new()
    });
    let dbname = match reader.is_set("dbname") {
        true => reader.optional("dbname", &Words("the name of the database on the server")),
        false => (name != "*").then(|| name.to_owned()),
    };
    let account = account(reader, &access.proof);
    let auth_query = own_lookup(reader, &access.lookup, &access.proof).auth_query();
    let (sslmode, sslrootcert) = tls(reader, &endpoints);
    Database {
        account,
        auth_query,
        dbname: dbname.map(Arc::from),
        endpoints: endpoints.into(),
        host_order: reader.read("load_balance_hosts", &HOST_ORDER),
        sslmode,
        sslrootcert,
        connect_timeout: reader.inherited("connect_timeout", &Span::SOME, *connect_timeout),
        pool: Arc::new(PoolSettings {
            pool_mode: reader.inherited("pool_mode", &POOL_MODE, pool.pool_mode),
            isolation: reader.inherited("isolation", &ISOLATION, pool.isolation),
            default_pool_size: reader.inherited("pool_size", &POOL_SIZE, pool.default_pool_size),
            min_pool_size: reader.inherited("min_pool_size", &ANY_NUMBER, pool.min_pool_size),
            reserve_pool_size: reader.inherited("reserve_pool_size", &ANY_NUMBER, pool.reserve_pool_size),
            reserve_pool_timeout: reader.inherited("reserve_pool_timeout", &Span::ANY, pool.reserve_pool_timeout),
            max_db_connections: reader.inherited("max_db_connections", &ANY_NUMBER, pool.max_db_connections),
            max_user_connections: pool.max_user_connections,
            max_db_client_connections: reader.inherited(
                "max_db_client_connections",
                &ANY_NUMBER,
                pool.max_db_client_connections,
            ),
            max_user_client_connections: pool.max_user_client_connections,
            server_round_robin: reader.inherited("server_round_robin", &Flag, pool.server_round_robin),
            max_prepared_statements: reader.inherited(
                "max_prepared_statements",
                &STATEMENTS,
                pool.max_prepared_statements,
            ),
            server_lifetime: reader.inherited("server_lifetime", &Span::ANY, pool.server_lifetime),
            server_idle_timeout: reader.inherited("server_idle_timeout", &Span::ANY, pool.server_idle_timeout),
            pool_idle_timeout: [pool.pool_idle_timeout, by_star].into_iter().flatten().min(),
            server_check_delay: reader.inherited("server_check_delay", &Span::ANY, pool.server_check_delay),
            server_check_query: reader
                .inherited("server_check_query", &Query, pool.server_check_query.to_string())
                .into(),
            server_reset_query: reader
                .inherited("server_reset_query", &Query, pool.server_reset_query.to_string())
                .into(),
            server_reset_query_always: reader.inherited(
                "server_reset_query_always",
                &Flag,
                pool.server_reset_query_always,
            ),
            track_extra_parameters: pool.track_extra_parameters.clone(),
            connect_query: reader.own("connect_query", &Query).filter(|it| !it.is_empty()).map(Into::into),
            query_wait_timeout: reader.inherited("query_wait_timeout", &Span::ANY, pool.query_wait_timeout),
            query_wait_notify: reader.inherited("query_wait_notify", &Span::ANY, pool.query_wait_notify),
            server_login_retry: reader.inherited("server_login_retry", &Span::ANY, pool.server_login_retry),
            wait_for_server: reader.inherited("wait_for_server", &Flag, pool.wait_for_server),
        }),
        session: Arc::new(terms::of_database(reader, terms)),
    }
}

/// Whom everybody runs as there, whatever they are called.
fn account(reader: &mut Reader<'_>, proof: &Proof) -> Option<Arc<Account>> {
    let name = reader.optional("user", &Words("the name of a PostgreSQL role, 1 to 63 bytes"));
    let password = reader.secret("password");
    match (&name, proof) {
        (Some(_), Proof::Token) => {
            reader.warn("user has no effect with auth_type = \"oidc\": roles say who runs as what");
            return None;
        }
        (Some(name), _) if name.len() > 63 => reader.reject("user", "a longer name", "1 to 63 bytes"),
        (None, Proof::Anyone) => reader.require("user", "whom everybody runs as, because auth_type = \"any\""),
        (None, _) if password.is_some() => reader.reject("password", "the password of nobody", "user"),
        _ => {}
    }
    let listed = |name: &str| match proof {
        Proof::Listed(_, users) => users.password_of(name),
        Proof::Token | Proof::Anyone => None,
    };
    let password = password.map(|password| Arc::new(Secret::new(password.expose().as_bytes().to_vec())));
    name.map(|name| Arc::new(Account { password: password.or_else(|| listed(&name)), name: name.into() }))
}

pub(super) fn tls(reader: &mut Reader<'_>, endpoints: &[Endpoint]) -> (SslMode, Option<Arc<str>>) {
    let sslmode = reader.read("sslmode", &SSLMODE);
    let verifies = matches!(sslmode, SslMode::VerifyCa | SslMode::VerifyFull);
    let sslrootcert = reader.optional("sslrootcert", &Words("the path of a PEM file with authorities, or system"));
    // libpq's word for the authorities of the operating system.
    let sslrootcert = sslrootcert.filter(|path| path != "system");
    if let Some(path) = &sslrootcert {
        if let Err(found) = certificates(Path::new(path)) {
            reader.reject("sslrootcert", found, "a readable PEM file with certificates of authorities, or system");
        }
        if !verifies {
            reader.warn("sslrootcert has no effect without sslmode = \"verify-ca\" or \"verify-full\"");
        }
    }
    let is_remote = |endpoint: &Endpoint| matches!(endpoint, Endpoint::Tcp { host, .. } if !is_loopback(host));
    if !verifies && endpoints.iter().any(is_remote) {
        reader.warn("the server's certificate is not verified; sslmode = \"verify-full\" does that");
    }
    (sslmode, sslrootcert.map(Arc::from))
}

/// One port for all hosts or a list of as many; a number, text with commas, or a list of either.
struct Ports;

impl Kind for Ports {
    type Out = Vec<u16>;

    fn parse(&self, value: &Value) -> Option<Vec<u16>> {
        let port = |number: u32| u16::try_from(number).ok().filter(|&port| port != 0);
        match value {
            Value::Integer(number) => Some(vec![port(u32::try_from(*number).ok()?)?]),
            Value::Text(text) => text.expose().split(',').map(|part| port(part.trim().parse().ok()?)).collect(),
            Value::List(items) if !items.is_empty() => {
                let nested: Option<Vec<_>> = items.iter().map(|item| self.parse(item)).collect();
                nested.map(|ports| ports.concat())
            }
            _ => None,
        }
    }

    fn expected(&self) -> String {
        "a port number from 1 to 65535, or one for each host".into()
    }

    fn show(&self, out: &Vec<u16>) -> String {
        match out.as_slice() {
            [one] => one.to_string(),
            many => format!("{many:?}"),
        }
    }
}

pub(super) enum Fault {
    Count,
    Host(String, &'static str),
}

/// Pairs hosts with ports as libpq does: one port serves all, otherwise there must be as many as hosts.
fn endpoints(hosts: &[String], ports: &[u16]) -> Result<Vec<Endpoint>, Fault> {
    if ports.len() != 1 && ports.len() != hosts.len() {
        return Err(Fault::Count);
    }
    let ports = ports.iter().cycle();
    hosts.iter().zip(ports).map(|(host, &port)| endpoint(host.trim(), port)).collect()
}

/// `host`, `host:port`, `1.2.3.4`, `::1`, `[::1]:port`, or the absolute path of a socket directory.
pub(super) fn endpoint(text: &str, port: u16) -> Result<Endpoint, Fault> {
    let wrong = |expected| Err(Fault::Host(text.to_owned(), expected));
    if text.starts_with('/') {
        return Ok(Endpoint::Unix(format!("{}/.s.PGSQL.{port}", text.trim_end_matches('/')).into()));
    }
    if text.starts_with('@') {
        return wrong("a socket directory that begins with / (abstract sockets are not supported)");
    }
    let (host, stated) = match text.strip_prefix('[') {
        Some(inside) => match inside.split_once(']') {
            Some((host, tail)) if host.parse::<std::net::Ipv6Addr>().is_ok() => (
                host,
                tail.strip_prefix(':').or(
                    // Anything but a port behind the bracket fails below as an empty port.
                    (!tail.is_empty()).then_some(""),
                ),
            ),
            _ => return wrong("an IPv6 address in brackets"),
        },
        None if text.parse::<std::net::Ipv6Addr>().is_ok() => (text, None),
        None => match text.split_once(':') {
            Some((host, stated)) => (host, Some(stated)),
            None => (text, None),
        },
    };
    let port = match stated.map(str::parse::<u16>) {
        None => port,
        Some(Ok(stated)) if stated != 0 => stated,
        Some(_) => return wrong("a port number from 1 to 65535 behind the host"),
    };
    // What is no part of a host name is most likely a connection string, which has no place here.
    let sound = !host.is_empty() && host.chars().all(|c| c.is_ascii_alphanumeric() || "-._:%".contains(c));
    if !sound {
        return wrong(HOSTS);
    }
    Ok(Endpoint::Tcp { host: host.into(), port })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(hosts: &[&str], ports: &[u16]) -> Option<Vec<String>> {
        let hosts: Vec<_> = hosts.iter().map(|host| (*host).to_owned()).collect();
        endpoints(&hosts, ports).ok().map(|list| list.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn hosts_and_ports_are_paired_as_libpq_does() {
        assert_eq!(shown(&["a", "b"], &[5432]).unwrap(), ["a:5432", "b:5432"]);
        assert_eq!(shown(&["a", "b"], &[1, 2]).unwrap(), ["a:1", "b:2"]);
        assert_eq!(shown(&["a", "b:9"], &[1]).unwrap(), ["a:1", "b:9"]);
        assert!(shown(&["a", "b", "c"], &[1, 2]).is_none());
        assert!(shown(&["a"], &[1, 2]).is_none());
    }

    #[test]
    fn addresses_and_sockets() {
        assert_eq!(
            shown(&["::1", "[::1]:9", "[fe80::1]", "10.0.0.1:7"], &[5]).unwrap(),
            ["[::1]:5", "[::1]:9", "[fe80::1]:5", "10.0.0.1:7"]
        );
        assert_eq!(
            shown(&["/run/postgresql/", "/"], &[5433]).unwrap(),
            ["/run/postgresql/.s.PGSQL.5433", "/.s.PGSQL.5433"]
        );
    }

    #[test]
    fn what_is_no_host_is_refused() {
        for bad in [
            "",
            "a b",
            "a:0",
            "a:x",
            "a:70000",
            "a:1:2",
            "[::1",
            "[::1]x",
            "[zz]:1",
            "@abstract",
            "host=evil",
            "postgres://u:p@h/db",
            "a/b",
            "x?sslmode=disable",
        ] {
            assert!(shown(&[bad], &[1]).is_none(), "{bad:?}");
        }
    }

    #[test]
    fn ports_are_numbers_texts_and_lists() {
        assert_eq!(Ports.parse(&Value::Integer(5432)), Some(vec![5432]));
        assert_eq!(Ports.parse(&Value::text("1, 2")), Some(vec![1, 2]));
        assert_eq!(Ports.parse(&Value::List(vec![Value::Integer(1), Value::text("2")])), Some(vec![1, 2]));
        for bad in [Value::Integer(0), Value::Integer(65_536), Value::text("1,,2"), Value::List(Vec::new())] {
            assert_eq!(Ports.parse(&bad), None);
        }
    }
}
