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
    vec![
        Value::text(&*it.name),
        Value::text(""),
        Value::text(""),
        Value::Null,
        Value::Int(0),
        Value::count(it.connections),
        Value::Int(0),
        Value::count(it.clients),
    ]
}
