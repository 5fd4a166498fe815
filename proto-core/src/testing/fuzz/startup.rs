//! What comes before a session: SSLRequest, GSSENCRequest, CancelRequest, StartupMessage.

use std::time::Duration;

use super::cuts::{Cut, Script};
use crate::codec::Reader;
use crate::codec::startup::{self, MAX_STARTUP_PACKET, StartupPacket};
use crate::fault::{Refusal, Violation};
use crate::policy::SslMode;
use crate::preamble::{Opening, Preamble, Startup};
use crate::time::Now;
use crate::upstream::{Credential, Login, LoginFailure, LoginOutput, LoginSettings};

/// Two bytes of settings, then what a client sends.
pub fn startup(data: &[u8]) {
    let mut script = Script::new(data);
    let (tls, cut) = (script.byte() & 1 != 0, Cut::seeded(script.byte()));
    let bytes = script.rest();
    let whole = open(bytes, tls, Cut::Whole);
    for cut in [Cut::Single, cut] {
        let pieces = open(bytes, tls, cut);
        if whole.refusal == Some(Violation::PlaintextBehindTlsRequest.into()) {
            // Only who sees both at once can tell.
            assert!(pieces.openings.starts_with(&whole.openings));
        } else {
            assert_eq!(pieces, whole);
        }
    }
    match whole.openings.last() {
        Some(Opening::Startup(startup)) => survives(startup),
        Some(Opening::Cancel { pid, key }) => {
            let mut out = Vec::new();
            startup::emit_cancel_request(&mut out, *pid, key);
            assert_eq!(startup::parse(&out[4..]), Ok(StartupPacket::Cancel { pid: *pid, key }));
        }
        _ => {}
    }
}

#[derive(PartialEq, Eq, Debug)]
struct Opened {
    openings: Vec<Opening>,
    refusal: Option<Refusal>,
}

fn open(bytes: &[u8], tls: bool, cut: Cut) -> Opened {
    let mut preamble = Preamble::default();
    let mut opened = Opened { openings: Vec::new(), refusal: None };
    for mut piece in cut.pieces(bytes) {
        while !piece.is_empty() {
            let (used, opening) = match preamble.handle_input(piece) {
                Ok(taken) => taken,
                Err(refusal) => {
                    opened.refusal = Some(refusal);
                    return opened;
                }
            };
            assert!(!preamble.is_untouched() || opening.is_some());
            piece = piece.get(used..).expect("no more than was shown");
            let Some(opening) = opening else {
                assert!(piece.is_empty(), "a packet that is not whole takes what there is");
                break;
            };
            let last = matches!(opening, Opening::Startup(_) | Opening::Cancel { .. } | Opening::DirectTls);
            if opening == Opening::SslRequest && tls {
                preamble.handle_encrypted();
            }
            opened.openings.push(opening);
            if last {
                return opened;
            }
        }
    }
    opened
}

fn pairs(mut encoded: Reader<'_>) -> Vec<startup::Parameter<'_>> {
    let mut pairs = Vec::new();
    while !encoded.is_empty() {
        pairs.push((encoded.cstr().expect("a name"), encoded.cstr().expect("a value")));
    }
    pairs
}

/// A startup that was accepted can be sent again and means the same, and cannot change whom the proxy logs in as.
fn survives(startup: &Startup) {
    assert!(!startup.user.is_empty() && !startup.database.is_empty());
    let parameters = pairs(Reader::new(&startup.parameters));
    let own = [(&b"user"[..], startup.user.as_bytes()), (b"database", startup.database.as_bytes())];
    let mut packet = Vec::new();
    startup::emit(&mut packet, startup.version, own.into_iter().chain(parameters.iter().copied()));
    if packet.len() <= MAX_STARTUP_PACKET as usize {
        let again = open(&packet, false, Cut::Whole);
        let [Opening::Startup(again)] = &again.openings[..] else { panic!("not accepted again: {again:?}") };
        let expected = Startup { negotiate: None, ..startup.clone() };
        assert_eq!(*again, expected);
    }
    let mut login = Login::new(
        LoginSettings {
            user: "app_reader".into(),
            database: "app".into(),
            parameters: startup.parameters.clone(),
            credential: Credential::None,
            sslmode: SslMode::Disable,
            tls_possible: false,
            nonce: [7; 18],
            timeout: Duration::from_secs(5),
        },
        Now::default(),
    );
    match login.poll_output() {
        Some(LoginOutput::Send(packet)) => {
            let packet = packet.expose();
            assert!(packet.len() <= MAX_STARTUP_PACKET as usize);
            let Ok(StartupPacket::Startup { body, .. }) = startup::parse(&packet[4..]) else { panic!("no startup") };
            let sent = startup::parameters(body).expect("it is well formed");
            assert_eq!(sent[..2], [(&b"user"[..], &b"app_reader"[..]), (b"database", b"app")]);
            assert_eq!(sent[2..], parameters);
        }
        Some(LoginOutput::Finished(Err(LoginFailure::Settings(what)))) => assert!(what.contains("longer"), "{what}"),
        _ => panic!("neither a packet nor a refusal"),
    }
}
