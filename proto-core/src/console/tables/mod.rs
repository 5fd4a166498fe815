//! One file for each kind of table: PgBouncer's columns in PgBouncer's order (1.25), and behind them what only gprxy knows.
//!
//! Where a thing does not exist here the table has its columns and no rows, so that a tool that reads it goes on.

mod connections;
mod databases;
mod empty;
mod lists;
mod peers;
mod pools;
mod statistics;
mod users;

use jiff::Timestamp;

use super::command::Show;
use super::snapshot::Snapshot;
use super::table::{Column, Kind, Value};
use crate::policy::HostOrder;
use crate::pool::PoolMode;
use crate::time::UnixMicros;

/// Columns by name and type.
type Columns = &'static [(&'static str, Kind)];

type Rows = Vec<Vec<Value>>;

/// The columns of a table; `None`: it has none, not even without rows.
#[must_use]
pub fn columns(show: Show) -> Option<Vec<Column>> {
    let columns = match show {
        Show::Help => return None,
        Show::Clients | Show::Servers => connections::COLUMNS.iter().chain(connections::OURS).copied().collect(),
        Show::Sockets | Show::ActiveSockets => connections::sockets(),
        Show::Config => CONFIG.to_vec(),
        Show::Databases => databases::COLUMNS.to_vec(),
        Show::DnsHosts => empty::DNS_HOSTS.to_vec(),
        Show::DnsZones => empty::DNS_ZONES.to_vec(),
        Show::Fds => empty::FDS.to_vec(),
        Show::Lists => lists::COLUMNS.to_vec(),
        Show::Mem => lists::MEMORY.to_vec(),
        Show::Peers => peers::COLUMNS.to_vec(),
        Show::PeerPools => peers::POOLS.to_vec(),
        Show::Pools => pools::COLUMNS.to_vec(),
        Show::State => STATE.to_vec(),
        Show::Stats => statistics::columns(),
        Show::StatsTotals => statistics::TOTALS.iter().chain(statistics::OURS).copied().collect(),
        Show::StatsAverages => statistics::AVERAGES.to_vec(),
        Show::Totals => statistics::ALL.to_vec(),
        Show::Users => users::COLUMNS.to_vec(),
        Show::Version => vec![("version", Kind::Text)],
    };
    Some(columns.into_iter().map(|(name, kind)| Column { name: name.into(), kind }).collect())
}

/// The rows of a table.
#[must_use]
pub fn rows(show: Show, snapshot: &Snapshot) -> Rows {
    match show {
        Show::Clients => snapshot.clients.iter().map(connections::client).collect(),
        Show::Servers => snapshot.servers.iter().map(connections::server).collect(),
        Show::Sockets => connections::socket_rows(snapshot, |_| true),
        Show::ActiveSockets => connections::socket_rows(snapshot, connections::is_active),
        Show::Config => snapshot.settings.iter().map(config).collect(),
        Show::Databases => snapshot.databases.iter().map(databases::row).collect(),
        Show::Lists => lists::rows(snapshot),
        Show::Mem => snapshot.memory.iter().map(lists::memory).collect(),
        Show::Peers => snapshot.peers.iter().map(peers::row).collect(),
        Show::PeerPools => snapshot.peers.iter().map(peers::pool).collect(),
        Show::Pools => snapshot.pools.iter().map(pools::row).collect(),
        Show::State => state(snapshot),
        Show::Stats => snapshot.statistics.iter().map(statistics::row).collect(),
        Show::StatsTotals => snapshot.statistics.iter().map(statistics::totals).collect(),
        Show::StatsAverages => snapshot.statistics.iter().map(statistics::averages).collect(),
        Show::Totals => statistics::all(&snapshot.statistics),
        Show::Users => snapshot.users.iter().map(users::row).collect(),
        Show::Version => vec![vec![Value::text(version())]],
        Show::DnsHosts | Show::DnsZones | Show::Fds | Show::Help => Vec::new(),
    }
}

const CONFIG: Columns =
    &[("key", Kind::Text), ("value", Kind::Text), ("default", Kind::Text), ("changeable", Kind::Text)];
const STATE: Columns = &[("key", Kind::Text), ("value", Kind::Text)];

fn config(setting: &super::snapshot::Setting) -> Vec<Value> {
    vec![
        Value::text(&*setting.key),
        Value::text(&*setting.value),
        Value::text(&*setting.default),
        yes(setting.changeable),
    ]
}

fn state(snapshot: &Snapshot) -> Rows {
    let state = snapshot.state;
    [
        ("active", !state.paused && !state.suspended),
        ("paused", state.paused),
        ("suspended", state.suspended),
        ("draining", state.draining),
    ]
    .map(|(key, is)| vec![Value::text(key), yes(is)])
    .into()
}

fn yes(is: bool) -> Value {
    Value::text(if is { "yes" } else { "no" })
}

/// What this is.
#[must_use]
pub fn version() -> String {
    concat!("gprxy ", env!("CARGO_PKG_VERSION")).into()
}

/// As PgBouncer writes it, in UTC.
fn time(at: UnixMicros) -> Value {
    match Timestamp::from_microsecond(at.0) {
        Ok(time) => Value::text(time.strftime("%Y-%m-%d %H:%M:%S UTC").to_string()),
        Err(_) => Value::Null,
    }
}

const fn mode(mode: PoolMode) -> &'static str {
    match mode {
        PoolMode::Session => "session",
        PoolMode::Transaction => "transaction",
        PoolMode::Statement => "statement",
    }
}

/// In PgBouncer's words, where it has one.
const fn host_order(order: HostOrder) -> &'static str {
    match order {
        HostOrder::RoundRobin => "round-robin",
        HostOrder::LastGood => "disable",
        HostOrder::Listed => "listed",
    }
}

#[cfg(test)]
mod tests;
