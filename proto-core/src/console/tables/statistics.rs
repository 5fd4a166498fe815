//! SHOW STATS, STATS_TOTALS, STATS_AVERAGES, TOTALS.

use std::time::Duration;

use super::{Columns, Rows};
use crate::console::snapshot::{DatabaseStatistics, Figures};
use crate::console::table::{Kind, Value};

const N: Kind = Kind::Numeric;

pub(super) const TOTALS: Columns = &[
    ("database", Kind::Text),
    ("server_assignment_count", N),
    ("xact_count", N),
    ("query_count", N),
    ("bytes_received", N),
    ("bytes_sent", N),
    ("xact_time", N),
    ("query_time", N),
    ("wait_time", N),
    ("client_parse_count", N),
    ("server_parse_count", N),
    ("bind_count", N),
    ("client_login_count", N),
];

/// What is counted besides, behind PgBouncer's columns.
pub(super) const OURS: Columns = &[("pin_count", N)];

/// PgBouncer says `avg_` in front of some of them only.
pub(super) const AVERAGES: Columns = &[
    ("database", Kind::Text),
    ("server_assignment_count", N),
    ("xact_count", N),
    ("query_count", N),
    ("bytes_received", N),
    ("bytes_sent", N),
    ("xact_time", N),
    ("query_time", N),
    ("wait_time", N),
    ("avg_client_parse_count", N),
    ("avg_server_parse_count", N),
    ("avg_bind_count", N),
    ("avg_client_login_count", N),
];

pub(super) const ALL: Columns = &[("name", Kind::Text), ("value", N)];

/// As SHOW STATS names them, without `total_` or `avg_`.
const IN_STATS: [(&str, &str); 12] = [
    ("total_server_assignment_count", "avg_server_assignment_count"),
    ("total_xact_count", "avg_xact_count"),
    ("total_query_count", "avg_query_count"),
    ("total_received", "avg_recv"),
    ("total_sent", "avg_sent"),
    ("total_xact_time", "avg_xact_time"),
    ("total_query_time", "avg_query_time"),
    ("total_wait_time", "avg_wait_time"),
    ("total_client_parse_count", "avg_client_parse_count"),
    ("total_server_parse_count", "avg_server_parse_count"),
    ("total_bind_count", "avg_bind_count"),
    ("total_client_login_count", "avg_client_login_count"),
];

/// As SHOW TOTALS names them.
const IN_TOTALS: [&str; 12] = [
    "server_assignment_count",
    "xact_count",
    "query_count",
    "client_bytes",
    "server_bytes",
    "xact_time",
    "query_time",
    "wait_time",
    "ps_client_parse_count",
    "ps_server_parse_count",
    "ps_bind_count",
    "client_login_count",
];

/// As SHOW STATS and SHOW TOTALS name it.
const TOTAL_PINS: &str = "total_pin_count";

pub(super) fn columns() -> Vec<(&'static str, Kind)> {
    let names = IN_STATS.iter().map(|names| names.0).chain(IN_STATS.iter().map(|names| names.1));
    std::iter::once(("database", Kind::Text)).chain(names.map(|name| (name, N))).chain([(TOTAL_PINS, N)]).collect()
}

pub(super) fn row(it: &DatabaseStatistics) -> Vec<Value> {
    named(it, figures(&it.now).into_iter().chain(average(it)).chain([it.now.pins.into()]))
}

pub(super) fn totals(it: &DatabaseStatistics) -> Vec<Value> {
    named(it, figures(&it.now).into_iter().chain([it.now.pins.into()]))
}

pub(super) fn averages(it: &DatabaseStatistics) -> Vec<Value> {
    named(it, average(it))
}

pub(super) fn all(databases: &[DatabaseStatistics]) -> Rows {
    let mut sum = DatabaseStatistics {
        name: "".into(),
        now: Figures::default(),
        before: Figures::default(),
        period: databases.first().map_or(Duration::ZERO, |database| database.period),
    };
    for database in databases {
        sum.now.add(&database.now);
        sum.before.add(&database.before);
    }
    let rows = |prefix: &'static str, values: [u128; 12]| {
        IN_TOTALS
            .into_iter()
            .zip(values)
            .map(move |(name, value)| vec![Value::text(format!("{prefix}{name}")), Value::count(value)])
    };
    let pins = vec![Value::text(TOTAL_PINS), Value::count(sum.now.pins)];
    rows("total_", figures(&sum.now)).chain(rows("avg_", average(&sum))).chain([pins]).collect()
}

fn named(it: &DatabaseStatistics, values: impl IntoIterator<Item = u128>) -> Vec<Value> {
    std::iter::once(Value::text(&*it.name)).chain(values.into_iter().map(Value::count)).collect()
}

/// In the order of the columns, times in microseconds.
fn figures(it: &Figures) -> [u128; 12] {
    [
        it.assignments.into(),
        it.transactions.into(),
        it.queries.into(),
        it.received.into(),
        it.sent.into(),
        it.transaction_time.as_micros(),
        it.query_time.as_micros(),
        it.wait_time.as_micros(),
        it.client_parses.into(),
        it.server_parses.into(),
        it.binds.into(),
        it.logins.into(),
    ]
}

/// Counts per second, and times per transaction, query and assignment.
fn average(it: &DatabaseStatistics) -> [u128; 12] {
    let (now, before) = (figures(&it.now), figures(&it.before));
    let mut grown = [0; 12];
    for (place, value) in grown.iter_mut().enumerate() {
        *value = now[place].saturating_sub(before[place]);
    }
    let micros = it.period.as_micros();
    if micros == 0 {
        return [0; 12];
    }
    let [assignments, transactions, queries, ..] = grown;
    let mut averages = grown.map(|value| value * 1_000_000 / micros);
    for (place, count) in [(5, transactions), (6, queries), (7, assignments)] {
        averages[place] = grown[place].checked_div(count).unwrap_or(0);
    }
    averages
}
