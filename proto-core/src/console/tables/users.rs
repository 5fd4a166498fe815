//! SHOW USERS: the PostgreSQL roles that sessions run as.

use super::Columns;
use crate::console::snapshot::UserFacts;
use crate::console::table::{Kind, Value};

pub(super) const COLUMNS: Columns = &[
    ("name", Kind::Text),
    ("pool_size", Kind::Text),
    ("reserve_pool_size", Kind::Text),
    ("pool_mode", Kind::Text),
    ("max_user_connections", Kind::Int4),
    ("current_connections", Kind::Int4),
    ("max_user_client_connections", Kind::Int4),
    ("current_client_connections", Kind::Int4),
];

pub(super) fn row(it: &UserFacts) -> Vec<Value> {
    let limits = it.settings.as_deref();
    vec![
        Value::text(&*it.name),
        Value::text(""),
        Value::text(""),
        Value::Null,
        Value::count(limits.map_or(0, |limits| limits.max_user_connections)),
        Value::count(it.connections),
        Value::count(limits.map_or(0, |limits| limits.max_user_client_connections)),
        Value::count(it.clients),
    ]
}
