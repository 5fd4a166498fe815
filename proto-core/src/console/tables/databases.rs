//! SHOW DATABASES.

use super::{Columns, host_order, mode};
use crate::console::snapshot::DatabaseFacts;
use crate::console::table::{Kind, Value};

pub(super) const COLUMNS: Columns = &[
    ("name", Kind::Text),
    ("host", Kind::Text),
    ("port", Kind::Int4),
    ("database", Kind::Text),
    ("force_user", Kind::Text),
    ("pool_size", Kind::Int4),
    ("min_pool_size", Kind::Int4),
    ("reserve_pool_size", Kind::Int4),
    ("server_lifetime", Kind::Int4),
    ("pool_mode", Kind::Text),
    ("load_balance_hosts", Kind::Text),
    ("max_connections", Kind::Int4),
    ("current_connections", Kind::Int4),
    ("max_client_connections", Kind::Int4),
    ("current_client_connections", Kind::Int4),
    ("paused", Kind::Int4),
    ("disabled", Kind::Int4),
];

pub(super) fn row(it: &DatabaseFacts) -> Vec<Value> {
    vec![
        Value::text(&*it.name),
        Value::text(&*it.host),
        Value::count(it.port),
        Value::text(&*it.dbname),
        Value::or_null(it.user.as_deref()),
        Value::count(it.settings.default_pool_size),
        Value::count(it.settings.min_pool_size),
        Value::count(it.settings.reserve_pool_size),
        Value::count(it.settings.server_lifetime.as_secs()),
        Value::text(mode(it.settings.pool_mode)),
        Value::or_null(it.host_order.map(host_order)),
        Value::count(it.settings.max_db_connections),
        Value::count(it.connections),
        Value::count(it.settings.max_db_client_connections),
        Value::count(it.clients),
        Value::count(it.paused),
        Value::count(it.disabled),
    ]
}
