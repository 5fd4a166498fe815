//! What the console says no with. SQLSTATEs are PostgreSQL's where it has one, and PgBouncer's otherwise: its scripts look at
//! them.

use crate::fault::{Refusal, SqlState};

/// How much of a text from outside a message repeats.
const MAX_SHOWN: usize = 120;

/// 42601.
pub(super) fn syntax(message: String) -> Refusal {
    Refusal::new(SqlState::SYNTAX_ERROR, message).hint("SHOW HELP lists what the admin console understands.")
}

/// The text is no command.
pub(super) fn no_command(text: &str) -> Refusal {
    syntax(format!("invalid command '{}', use SHOW HELP", shown(text)))
}

/// SQL is for a server.
pub(super) fn no_sql(text: &str) -> Refusal {
    Refusal::new(
        SqlState::FEATURE_NOT_SUPPORTED,
        format!("the admin console has commands, and runs no SQL: '{}'", shown(text)),
    )
    .hint("SHOW HELP lists the commands; for SQL, connect to one of the databases (SHOW DATABASES).")
}

/// The same with PgBouncer's SQLSTATE, for a client that knows its console by it.
pub(super) fn no_sql_here(text: &str) -> Refusal {
    Refusal { code: SqlState::PROTOCOL_VIOLATION, ..no_sql(text) }
}

/// Somebody may look and not touch.
pub(super) fn admin_only() -> Refusal {
    Refusal::new(SqlState::INSUFFICIENT_PRIVILEGE, "admin access needed")
        .hint("This session may only use SHOW. admin.admin_roles and admin.admin_users say who may do more.")
}

/// There is no such database, in PgBouncer's words and with its SQLSTATE.
#[must_use]
pub fn no_such_database(name: &str) -> Refusal {
    Refusal::new(SqlState::PROTOCOL_VIOLATION, format!("no such database: {}", shown(name)))
}

/// Something does not fit the state that things are in, with PgBouncer's SQLSTATE.
#[must_use]
pub fn not_now(message: impl Into<String>) -> Refusal {
    Refusal::new(SqlState::PROTOCOL_VIOLATION, message)
}

/// A transaction block in which something has failed.
pub(super) fn in_failed_transaction() -> Refusal {
    Refusal::new(
        SqlState::IN_FAILED_TRANSACTION,
        "current transaction is aborted, commands ignored until end of transaction block",
    )
}

/// Its own cancel key was used, or it left, while it waited.
pub(super) fn cancelled() -> Refusal {
    Refusal::new(SqlState::QUERY_CANCELED, "canceling the wait due to user request")
        .hint("What was begun stays so: RESUME ends a PAUSE.")
}

/// The name of a statement or portal that there is not.
pub(super) fn unknown(kind: &str, name: &[u8], code: SqlState) -> Refusal {
    Refusal::new(code, format!("{kind} \"{}\" does not exist", shown(&String::from_utf8_lossy(name))))
}

/// A text from outside, fit for one line.
pub(super) fn shown(text: &str) -> String {
    let mut shown: String = text.chars().take(MAX_SHOWN).map(|c| if c.is_control() { ' ' } else { c }).collect();
    if text.chars().nth(MAX_SHOWN).is_some() {
        shown.push('…');
    }
    shown
}
