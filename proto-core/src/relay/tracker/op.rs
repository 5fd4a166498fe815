//! What is waited for, one by one.

use crate::relay::pins::Pins;

/// A frontend message that waits for its answer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Op {
    /// Simple query: any number of results, then ReadyForQuery.
    Query,
    /// ParseComplete.
    Parse,
    /// BindComplete.
    Bind,
    /// RowDescription or NoData.
    Describe,
    /// CommandComplete, EmptyQueryResponse or PortalSuspended.
    Execute,
    /// CloseComplete.
    Close,
    /// FunctionCallResponse, then ReadyForQuery.
    FunctionCall,
    /// ReadyForQuery.
    Sync,
    /// A simple query or Sync of gprxy itself: nothing of its answer is for the client.
    Own,
    /// A Parse of gprxy itself: its ParseComplete is not for the client.
    OwnParse,
    /// A Close of gprxy itself: its CloseComplete is not for the client.
    OwnClose,
    /// A Parse of the client that the server never sees: gprxy says ParseComplete in its turn.
    AnsweredParse,
    /// The same for Close and CloseComplete.
    AnsweredClose,
    /// A query in the place of one of the client's that is refused: its error is told in gprxy's words.
    Refused(Pins),
    /// The same for a Parse.
    RefusedParse(Pins),
    /// No answer: it marks where the client sent COPY data before the server had asked for any.
    CopyData,
    /// No answer: it marks where the client ended its COPY data.
    CopyEnd,
}

impl Op {
    /// Whether it changes which prepared statements there are.
    pub const fn prepares(self) -> bool {
        matches!(self, Self::Parse | Self::Close | Self::OwnParse | Self::OwnClose)
            || matches!(self, Self::AnsweredParse | Self::AnsweredClose | Self::RefusedParse(_))
    }

    /// Whether it is gprxy's own and goes so that the next message finds what it names.
    pub const fn goes_for_another(self) -> bool {
        matches!(self, Self::OwnParse | Self::OwnClose)
    }

    /// Whether it waits for no answer.
    pub(super) const fn is_marker(self) -> bool {
        matches!(self, Self::CopyData | Self::CopyEnd)
    }
}
