//! SHOW POOLS.

use super::{Columns, host_order, mode};
use crate::console::snapshot::PoolFacts;
use crate::console::table::{Kind, Value};

pub(super) const COLUMNS: Columns = &[
    ("database", Kind::Text),
    ("user", Kind::Text),
    ("cl_active", Kind::Int4),
    ("cl_waiting", Kind::Int4),
    ("cl_active_cancel_req", Kind::Int4),
    ("cl_waiting_cancel_req", Kind::Int4),
    ("sv_active", Kind::Int4),
    ("sv_active_cancel", Kind::Int4),
    ("sv_being_canceled", Kind::Int4),
    ("sv_idle", Kind::Int4),
    ("sv_used", Kind::Int4),
    ("sv_tested", Kind::Int4),
    ("sv_login", Kind::Int4),
    ("maxwait", Kind::Int4),
    ("maxwait_us", Kind::Int4),
    ("pool_mode", Kind::Text),
    ("load_balance_hosts", Kind::Text),
    ("own_password", Kind::Int4),
    ("paused", Kind::Int4),
    ("replaced", Kind::Int8),
];

pub(super) fn row(it: &PoolFacts) -> Vec<Value> {
    vec![
        Value::text(&*it.key.database),
        Value::text(&*it.key.account),
        Value::count(it.clients),
        Value::count(it.waiting),
        Value::count(it.cancels),
        Value::Int(0),
        Value::count(it.active),
        Value::count(it.cancels),
        Value::Int(0),
        Value::count(it.idle),
        Value::Int(0),
        Value::count(it.tested),
        Value::count(it.opening),
        Value::count(it.oldest_wait.as_secs()),
        Value::count(it.oldest_wait.subsec_micros()),
        Value::text(mode(it.mode)),
        Value::or_null(it.host_order.map(host_order)),
        Value::count(it.key.own_password),
        Value::count(it.paused),
        Value::count(it.replaced),
    ]
}
