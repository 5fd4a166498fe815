//! Which message may pass in which direction once a session is up, and how much of it must be seen.

use crate::codec::backend::tag as back;
use crate::codec::frontend::tag as front;

/// How much of an ErrorResponse is kept to read its severity and SQLSTATE: they are its first fields.
const ERROR_PREFIX: usize = 512;
/// How much of a ParameterStatus is kept: PostgreSQL's longest reported values are search paths.
const PARAMETER_PREFIX: usize = 8192;
/// PostgreSQL's longest command tag is far below (`COMPLETION_TAG_BUFSIZE` is 64).
const COMMAND_TAG: usize = 64;
/// Names of statements and portals are kept up to this length each for the audit trail's joins.
pub(super) const NAMES: usize = 2048;

/// What the relay does with a message.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Rule {
    /// It passes, and this much of its body is wanted.
    Pass(usize),
    /// It ends the session.
    Terminate,
    /// It must not come from this side now.
    Refuse,
}

/// For messages of the client; `audit` is the number of statement bytes that the audit trail keeps, if there is one.
pub(super) const fn from_client(tag: u8, audit: Option<usize>) -> Rule {
    match (tag, audit) {
        (front::QUERY, Some(text)) => Rule::Pass(text),
        (front::PARSE, Some(text)) => Rule::Pass(text + NAMES),
        (front::BIND | front::EXECUTE | front::CLOSE, Some(_)) => Rule::Pass(NAMES),
        (
            front::QUERY
            | front::PARSE
            | front::BIND
            | front::EXECUTE
            | front::CLOSE
            | front::DESCRIBE
            | front::SYNC
            | front::FLUSH
            | front::FUNCTION_CALL
            | front::COPY_DATA
            | front::COPY_DONE
            | front::COPY_FAIL,
            _,
        ) => Rule::Pass(0),
        (front::TERMINATE, _) => Rule::Terminate,
        _ => Rule::Refuse,
    }
}

/// For messages of the server; its counts of rows are for the audit trail, if there is one.
pub(super) const fn from_server(tag: u8, audited: bool) -> Rule {
    match tag {
        back::READY_FOR_QUERY => Rule::Pass(1),
        back::COMMAND_COMPLETE if audited => Rule::Pass(COMMAND_TAG),
        back::ERROR_RESPONSE => Rule::Pass(ERROR_PREFIX),
        back::PARAMETER_STATUS => Rule::Pass(PARAMETER_PREFIX),
        back::DATA_ROW
        | back::COPY_DATA
        | back::COMMAND_COMPLETE
        | back::ROW_DESCRIPTION
        | back::PARSE_COMPLETE
        | back::BIND_COMPLETE
        | back::CLOSE_COMPLETE
        | back::NO_DATA
        | back::PARAMETER_DESCRIPTION
        | back::PORTAL_SUSPENDED
        | back::EMPTY_QUERY_RESPONSE
        | back::COPY_IN_RESPONSE
        | back::COPY_OUT_RESPONSE
        | back::COPY_DONE
        | back::FUNCTION_CALL_RESPONSE
        | back::NOTICE_RESPONSE
        | back::NOTIFICATION_RESPONSE => Rule::Pass(0),
        _ => Rule::Refuse,
    }
}
