//! SHOW LISTS and SHOW MEM: how many there are of what.

use super::{Columns, Rows};
use crate::console::snapshot::{ClientState, MemoryFacts, Snapshot};
use crate::console::table::{Kind, Value};

pub(super) const COLUMNS: Columns = &[("list", Kind::Text), ("items", Kind::Int4)];

pub(super) const MEMORY: Columns =
    &[("name", Kind::Text), ("size", Kind::Int4), ("used", Kind::Int4), ("free", Kind::Int4), ("memtotal", Kind::Int8)];

pub(super) fn rows(snapshot: &Snapshot) -> Rows {
    let logging_in = snapshot.clients.iter().filter(|client| client.state == ClientState::Login).count();
    let pinned = snapshot.clients.iter().filter(|client| !client.pinned.is_empty()).count();
    [
        ("databases", snapshot.databases.len()),
        ("users", snapshot.users.len()),
        ("peers", snapshot.peers.len()),
        ("pools", snapshot.pools.len()),
        ("peer_pools", snapshot.peers.len()),
        // Nothing is kept of those who have left.
        ("free_clients", 0),
        ("used_clients", snapshot.clients.len()),
        ("login_clients", logging_in),
        ("free_servers", 0),
        ("used_servers", snapshot.servers.len()),
        ("dns_names", 0),
        ("dns_zones", 0),
        ("dns_queries", 0),
        ("dns_pending", 0),
        ("pinned_clients", pinned),
    ]
    .map(|(list, items)| vec![Value::text(list), Value::count(items)])
    .into()
}

pub(super) fn memory(it: &MemoryFacts) -> Vec<Value> {
    let total = it.size.saturating_mul(it.used.saturating_add(it.free));
    vec![Value::text(it.name), Value::count(it.size), Value::count(it.used), Value::count(it.free), Value::count(total)]
}
