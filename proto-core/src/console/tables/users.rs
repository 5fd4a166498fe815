//! SHOW USERS: who may log in, and whom server connections log in as.

use super::{Columns, mode};
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
    let own = |size: Option<u32>| Value::text(size.map_or_else(String::new, |size| size.to_string()));
    vec![
        Value::text(&*it.name),
        own(it.own.pool_size),
        own(it.own.reserve_pool_size),
        it.own.pool_mode.map_or(Value::Null, |own| Value::text(mode(own))),
        Value::count(it.max_connections),
        Value::count(it.connections),
        Value::count(it.max_clients),
        Value::count(it.clients),
    ]
}
