//! What a client has sent in one piece, looked at before any of it goes.

use super::{begins_statement, names_too_much};
use crate::codec::{HEADER_LEN, Header};

/// Messages that are looked at: drivers send about six for a statement, and the bound keeps a flood of tiny ones from
/// being looked at again and again.
const MESSAGES: usize = 16;

/// Statements that begin in the next few messages.
pub(super) fn statements(mut bytes: &[u8]) -> u32 {
    let mut statements = 0;
    for _ in 0..MESSAGES {
        let Ok(Some(header)) = Header::parse(bytes) else { break };
        if names_too_much(header) {
            break;
        }
        statements += u32::from(begins_statement(header.tag));
        let Some(rest) = bytes.get(HEADER_LEN + header.body as usize..) else { break };
        bytes = rest;
    }
    statements
}

#[cfg(test)]
mod tests {
    use super::super::{Ledger, Relay, Step};
    use super::*;
    use crate::audit::AuditProfile;
    use crate::time::Now;

    /// Messages of these types, without bodies that matter here.
    fn messages(tags: &str) -> Vec<u8> {
        tags.bytes().flat_map(|tag| [tag, 0, 0, 0, 6, 0, 0]).collect()
    }

    fn relay() -> Relay {
        let profile = AuditProfile { statement_bytes: 100, required: true };
        Relay::new(Some(Box::new(Ledger::new(profile))), None)
    }

    /// Asks until nothing more is needed, and says how often a place was.
    fn grant_all(relay: &mut Relay, bytes: &[u8]) -> (usize, Step) {
        for granted in 0..100 {
            match relay.handle_client(bytes, Now::default()) {
                Step::NeedPermit => relay.ledger_mut().unwrap().handle_permit(),
                step => return (granted, step),
            }
        }
        panic!("it asks for ever");
    }

    #[test]
    fn statements_are_counted_among_the_first_messages_only() {
        assert_eq!(statements(&messages("PBDES")), 1, "only what runs needs a place");
        assert_eq!(statements(&messages("SHc")), 0);
        assert_eq!(statements(&messages("QQ")[..8]), 1, "a header that is cut is no statement yet");
        assert_eq!(statements(&messages("QQ")[..12]), 2, "a body that is cut belongs to one");
        assert_eq!(statements(&messages(&"E".repeat(1000))), 16);
        assert_eq!(statements(&[b'Q', 0, 0, 0, 0, b'Q']), 0, "an impossible length ends the look");
        assert_eq!(statements(b""), 0);
    }

    #[test]
    fn a_pipeline_goes_in_one_piece_once_all_its_places_are_there() {
        let mut relay = relay();
        let bytes = messages("PBDESPBDES");
        assert_eq!(grant_all(&mut relay, &bytes), (2, Step::Forward(bytes.len())));
        assert_eq!(grant_all(&mut relay, &messages("BES")), (1, Step::Forward(21)));
    }

    #[test]
    fn what_needs_no_place_goes_before_a_statement_that_is_refused() {
        let mut relay = relay();
        let bytes = messages("SBE");
        assert_eq!(relay.handle_client(&bytes, Now::default()), Step::NeedPermit);
        // Nothing was granted: each message is decided on by itself.
        assert_eq!(relay.handle_client(&bytes, Now::default()), Step::Forward(14));
        assert_eq!(relay.handle_client(&bytes[14..], Now::default()), Step::NeedPermit);
        assert_eq!(relay.handle_client(&bytes[14..], Now::default()), Step::NeedPermit);
    }

    #[test]
    fn what_breaks_the_protocol_needs_no_place() {
        // However much is in sight, and whether or not there is a place: it is the name that ends the session.
        let mut relay = relay();
        let long = [&[b'E'][..], &1_000_000_u32.to_be_bytes(), b"x"].concat();
        assert_eq!(statements(&long), 0);
        let bytes = [messages("S"), long].concat();
        assert_eq!(relay.handle_client(&bytes, Now::default()), Step::Forward(7));
        let broken = Step::Broken(crate::fault::Violation::NameTooLong);
        assert_eq!(relay.handle_client(&bytes[7..], Now::default()), broken);
    }

    #[test]
    fn a_body_is_never_taken_for_messages() {
        let mut relay = relay();
        let query = [&[b'Q', 0, 0, 0, 50][..], &[b'x'; 20]].concat();
        assert_eq!(grant_all(&mut relay, &query), (1, Step::Forward(25)));
        // The rest of the text looks like a pipeline.
        let rest = [messages("EEE"), vec![0; 5]].concat();
        assert_eq!(relay.handle_client(&rest, Now::default()), Step::Forward(26));
    }

    #[test]
    fn a_flood_asks_for_a_bounded_number_of_places() {
        let mut relay = relay();
        let bytes = messages(&"E".repeat(1000));
        assert_eq!(grant_all(&mut relay, &bytes), (16, Step::Forward(16 * 7)));
    }
}
