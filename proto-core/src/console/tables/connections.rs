//! SHOW CLIENTS, SHOW SERVERS, SHOW SOCKETS, SHOW ACTIVE_SOCKETS.

use std::net::SocketAddr;

use super::{Columns, Rows, time};
use crate::console::snapshot::{ClientFacts, ClientState, ServerFacts, ServerState, Snapshot};
use crate::console::table::{Kind, Value};
use crate::session_id::SessionId;
use crate::time::UnixMicros;

/// PgBouncer's. `id` is a bigint: sessions are numbered with more than 32 bits.
pub(super) const COLUMNS: Columns = &[
    ("type", Kind::Text),
    ("user", Kind::Text),
    ("database", Kind::Text),
    ("replication", Kind::Text),
    ("state", Kind::Text),
    ("addr", Kind::Text),
    ("port", Kind::Int4),
    ("local_addr", Kind::Text),
    ("local_port", Kind::Int4),
    ("connect_time", Kind::Text),
    ("request_time", Kind::Text),
    ("wait", Kind::Int4),
    ("wait_us", Kind::Int4),
    ("close_needed", Kind::Int4),
    ("ptr", Kind::Text),
    ("link", Kind::Text),
    ("remote_pid", Kind::Int4),
    ("tls", Kind::Text),
    ("application_name", Kind::Text),
    ("prepared_statements", Kind::Int4),
    ("id", Kind::Int8),
];

/// What SHOW SOCKETS has in front of ours. Buffers are borrowed while bytes are in flight and have no positions to show.
const BUFFERS: Columns = &[
    ("recv_pos", Kind::Int4),
    ("pkt_pos", Kind::Int4),
    ("pkt_remain", Kind::Int4),
    ("send_pos", Kind::Int4),
    ("send_remain", Kind::Int4),
    ("pkt_avail", Kind::Int4),
    ("send_avail", Kind::Int4),
];

/// Ours.
pub(super) const OURS: Columns = &[
    ("identity", Kind::Text),
    ("issuer", Kind::Text),
    ("roles", Kind::Text),
    ("account", Kind::Text),
    ("session_id", Kind::Text),
    ("token_expires", Kind::Text),
    ("pinned", Kind::Text),
];

pub(super) fn sockets() -> Vec<(&'static str, Kind)> {
    COLUMNS.iter().chain(BUFFERS).chain(OURS).copied().collect()
}

pub(super) fn client(client: &ClientFacts) -> Vec<Value> {
    let mut row = client_columns(client);
    row.extend(client_extras(client));
    row
}

pub(super) fn server(server: &ServerFacts) -> Vec<Value> {
    let mut row = server_columns(server);
    row.extend(server_extras(server));
    row
}

/// A row and whether it is in use.
pub(super) fn socket_rows(snapshot: &Snapshot, wanted: impl Fn(&Socket<'_>) -> bool) -> Rows {
    let clients = snapshot.clients.iter().map(Socket::Client);
    let servers = snapshot.servers.iter().map(Socket::Server);
    clients
        .chain(servers)
        .filter(|socket| wanted(socket))
        .map(|socket| {
            let (mut row, extras) = match socket {
                Socket::Client(it) => (client_columns(it), client_extras(it)),
                Socket::Server(it) => (server_columns(it), server_extras(it)),
            };
            row.extend(BUFFERS.iter().map(|_| Value::Int(0)));
            row.extend(extras);
            row
        })
        .collect()
}

pub(super) enum Socket<'a> {
    Client(&'a ClientFacts),
    Server(&'a ServerFacts),
}

pub(super) fn is_active(socket: &Socket<'_>) -> bool {
    match socket {
        Socket::Client(it) => !matches!(it.state, ClientState::Idle),
        Socket::Server(it) => it.state != ServerState::Idle,
    }
}

fn client_columns(it: &ClientFacts) -> Vec<Value> {
    let (addr, port) = split(it.address.as_deref().unwrap_or(""));
    let wait = it.waiting.unwrap_or_default();
    vec![
        Value::text("C"),
        Value::text(it.user.as_deref().unwrap_or("(nouser)")),
        Value::text(it.database.as_deref().unwrap_or("(nodb)")),
        Value::text("none"),
        Value::text(client_state(it.state)),
        Value::text(addr),
        Value::count(port),
        local_address(it.local),
        Value::count(it.local.map_or(0, |local| local.port())),
        time(it.connected),
        it.requested.map_or_else(|| time(it.connected), time),
        Value::count(wait.as_secs()),
        Value::count(wait.subsec_micros()),
        Value::Int(0),
        Value::text(format!("0x{:x}", it.session)),
        Value::text(it.server.map_or_else(String::new, |server| format!("0x{server:x}"))),
        Value::Int(i64::from(it.pid.cast_signed())),
        Value::text(it.tls.as_deref().unwrap_or("")),
        Value::text(it.application.as_deref().unwrap_or("")),
        Value::count(it.prepared),
        Value::count(SessionId(it.session).short()),
    ]
}

fn client_extras(it: &ClientFacts) -> Vec<Value> {
    vec![
        Value::or_null(it.identity.as_deref()),
        Value::or_null(it.issuer.as_deref().filter(|issuer| !issuer.is_empty())),
        Value::or_null(it.roles.as_deref()),
        Value::or_null(it.account.as_deref()),
        Value::text(format!("{:016x}", it.session)),
        it.expires.map_or(Value::Null, time),
        Value::or_null((!it.pinned.is_empty()).then(|| it.pinned.to_string())),
    ]
}

/// PgBouncer's words where it has them.
const fn client_state(state: ClientState) -> &'static str {
    match state {
        ClientState::Login => "login",
        ClientState::Idle => "idle",
        ClientState::Active | ClientState::Console => "active",
        ClientState::Waiting => "waiting",
        ClientState::Cancelling => "active_cancel_req",
        ClientState::Closing => "closing",
    }
}

fn server_columns(it: &ServerFacts) -> Vec<Value> {
    let (addr, port) = split(it.address.as_deref().unwrap_or(""));
    let at = |at: UnixMicros| time(at);
    vec![
        Value::text("S"),
        Value::text(&*it.key.account),
        Value::text(&*it.key.database),
        Value::text("none"),
        Value::text(match it.state {
            ServerState::New => "new",
            ServerState::Active => "active",
            ServerState::Idle => "idle",
            ServerState::Tested => "tested",
        }),
        Value::text(addr),
        Value::count(port),
        local_address(it.local),
        Value::count(it.local.map_or(0, |local| local.port())),
        at(it.connected),
        at(it.requested),
        Value::Int(0),
        Value::Int(0),
        Value::count(it.stale),
        Value::text(format!("0x{:x}", it.number)),
        Value::text(it.session.map_or_else(String::new, |session| format!("0x{:x}", session.0))),
        Value::Int(i64::from(it.pid.cast_signed())),
        Value::text(it.tls.as_deref().unwrap_or("")),
        Value::text(it.application.as_deref().unwrap_or("")),
        Value::count(it.prepared),
        Value::count(it.id),
    ]
}

fn server_extras(it: &ServerFacts) -> Vec<Value> {
    vec![
        Value::or_null(it.identity.as_deref()),
        Value::Null,
        Value::Null,
        Value::text(&*it.key.account),
        it.session.map_or(Value::Null, |session| Value::text(session.to_string())),
        Value::Null,
        Value::Null,
    ]
}

fn local_address(local: Option<SocketAddr>) -> Value {
    Value::text(local.map_or_else(String::new, |local| local.ip().to_canonical().to_string()))
}

/// Address and port. An address in brackets loses them; a path has no port.
fn split(address: &str) -> (&str, u16) {
    match address.rsplit_once(':') {
        Some((host, port)) if !host.contains('/') => match port.parse() {
            Ok(port) => (host.trim_start_matches('[').trim_end_matches(']'), port),
            Err(_) => (address, 0),
        },
        _ => (address, 0),
    }
}
