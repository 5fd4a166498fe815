//! Scenarios 1 to 7: the first packets.

use super::{assert_refused, assert_violation, seen};
use crate::codec::startup::{PROTOCOL_3_0, PROTOCOL_3_2};
use crate::fault::{Lost, SqlState};
use crate::session::{Finish, Side};
use crate::testing::corp;
use crate::testing::duel::{Duel, Terms};
use crate::testing::wire::{front, message, messages};

fn with_tls() -> Duel {
    let mut terms = Terms::default();
    terms.profile.tls = true;
    Duel::new(terms)
}

fn startup(version: u32) -> Vec<u8> {
    front::startup(version, &[("user", "alice@corp.example"), ("database", corp::DATABASE)])
}

#[test]
fn encryption_is_refused_once_each_in_any_order() {
    let (ssl, gss) = (front::ssl_request(), front::gssenc_request());
    for requests in [&[&ssl][..], &[&gss], &[&ssl, &gss], &[&gss, &ssl]] {
        let mut duel = Duel::new(Terms::default());
        for request in requests {
            duel.client(request);
            assert_eq!(duel.seen(), b"N");
        }
        duel.client(&startup(PROTOCOL_3_0));
        assert_eq!(seen(&mut duel), "R(3)");
    }
}

#[test]
fn the_same_request_twice_is_an_error() {
    for request in [front::ssl_request(), front::gssenc_request()] {
        let mut duel = Duel::new(Terms::default());
        duel.client(&request);
        assert_eq!(duel.seen(), b"N");
        duel.client(&request);
        assert_violation(&mut duel);
    }
}

#[test]
fn bytes_behind_an_encryption_request_are_refused() {
    for mut duel in [with_tls(), Duel::new(Terms::default())] {
        duel.client(&[front::ssl_request(), startup(PROTOCOL_3_0)].concat());
        assert_violation(&mut duel);
        assert!(!duel.wants_tls, "what came in clear must never be read as if it had come encrypted");
    }
}

#[test]
fn tls_is_set_up_after_one_byte_and_the_startup_comes_inside_it() {
    let mut duel = with_tls();
    duel.client(&front::gssenc_request());
    assert_eq!(duel.seen(), b"N");
    duel.client(&front::ssl_request());
    assert_eq!(duel.seen(), b"S");
    assert!(duel.wants_tls);
    duel.establish_tls(None);
    duel.client(&startup(PROTOCOL_3_0));
    assert_eq!(seen(&mut duel), "R(3)");
}

#[test]
fn encryption_inside_of_encryption_is_an_error() {
    for request in [front::ssl_request(), front::gssenc_request()] {
        let mut duel = with_tls();
        duel.client(&front::ssl_request());
        duel.seen();
        duel.establish_tls(None);
        duel.client(&request);
        assert_violation(&mut duel);
    }
}

#[test]
fn direct_tls_needs_its_alpn() {
    for (alpn, is_good) in [(Some(&b"postgresql"[..]), true), (Some(&b"h2"[..]), false), (None, false)] {
        let mut duel = with_tls();
        duel.client(&[0x16, 3, 1, 0, 200]);
        assert!(duel.wants_tls && duel.seen().is_empty());
        duel.establish_tls(alpn);
        if is_good {
            // The driver gives the first record to the handshake, not to the session.
            assert_eq!(duel.finish, None);
        } else {
            assert_violation(&mut duel);
        }
    }
    let mut duel = Duel::new(Terms::default());
    duel.client(&[0x16, 3, 1, 0, 200]);
    assert_violation(&mut duel);
}

#[test]
fn newer_versions_and_options_are_negotiated_exactly_once() {
    let option = [("user", "alice@corp.example"), ("_pq_.shiny", "1"), ("database", corp::DATABASE)];
    for (version, pairs, expected) in [
        (PROTOCOL_3_0, &option[..], Some("_pq_.shiny")),
        (PROTOCOL_3_2, &option[..1], None),
        ((3 << 16) | 3, &option[..1], Some("")),
        ((3 << 16) | 9999, &option[..], Some("_pq_.shiny")),
        (PROTOCOL_3_0, &option[..1], None),
    ] {
        let mut duel = Duel::new(Terms::default());
        duel.client(&front::startup(version, pairs));
        let answers = messages(&duel.seen());
        let negotiations: Vec<_> = answers.iter().filter(|message| message.tag == b'v').collect();
        assert_eq!(negotiations.len(), usize::from(expected.is_some()), "{version:#x}");
        if let (Some(option), [negotiation]) = (expected, &negotiations[..]) {
            // Never newer than what was asked for: a client of 3.0 would not know what to do with 3.2.
            assert_eq!(&negotiation.body[..4], &version.min(PROTOCOL_3_2).to_be_bytes());
            assert_eq!(String::from_utf8_lossy(&negotiation.body[8..]).trim_end_matches('\0'), option);
        }
        assert_eq!(answers.last().map(|message| message.tag), Some(b'R'));
    }
}

#[test]
fn other_major_versions_are_told_so() {
    for major in [1, 2, 4] {
        let mut duel = Duel::new(Terms::default());
        duel.client(&startup(major << 16));
        assert_refused(&mut duel, SqlState::FEATURE_NOT_SUPPORTED);
    }
}

#[test]
fn a_startup_packet_may_come_a_byte_at_a_time() {
    let mut duel = Duel::new(Terms::default());
    let packet = startup(PROTOCOL_3_0);
    for (n, byte) in packet.iter().enumerate() {
        assert_eq!(duel.seen(), b"", "byte {n}");
        duel.client(&[*byte]);
    }
    assert_eq!(seen(&mut duel), "R(3)");
}

#[test]
fn bad_startup_packets_are_refused() {
    let packet = |body: &[u8]| [&u32::try_from(body.len() + 4).unwrap().to_be_bytes()[..], body].concat();
    let version = PROTOCOL_3_0.to_be_bytes();
    for (what, bytes) in [
        ("too long", [&10_001u32.to_be_bytes()[..], &[0; 100]].concat()),
        ("a negative length", vec![0xff; 4]),
        ("too short", vec![0, 0, 0, 7]),
        ("no terminator", packet(&[&version[..], b"user\0alice\0"].concat())),
        ("nothing", packet(&version)),
        ("bytes behind the terminator", packet(&[&version[..], b"user\0alice\0\0x"].concat())),
        ("an HTTP request", b"GET / HTTP/1.1\r\n\r\n".to_vec()),
    ] {
        let mut duel = Duel::new(Terms::default());
        duel.client(&bytes);
        let error = super::the_error(&mut duel);
        assert_eq!((error.severity(), error.code()), ("FATAL".into(), "08P01".into()), "{what}");
        assert!(duel.finish.is_some(), "{what}");
    }
    let mut duel = Duel::new(Terms::default());
    duel.client(&front::startup(PROTOCOL_3_0, &[("database", "app")]));
    assert_refused(&mut duel, SqlState::INVALID_AUTHORIZATION);
}

#[test]
fn the_largest_startup_packet_is_taken() {
    let mut value = String::new();
    let fill = 10_000 - startup(PROTOCOL_3_0).len() - "application_name\0\0".len();
    value.extend(std::iter::repeat_n('x', fill));
    let pairs = [("user", "alice@corp.example"), ("database", corp::DATABASE), ("application_name", &*value)];
    let packet = front::startup(PROTOCOL_3_0, &pairs);
    assert_eq!(packet.len(), 10_000);
    let mut duel = Duel::new(Terms::default());
    duel.client(&packet);
    assert_eq!(seen(&mut duel), "R(3)");
}

#[test]
fn without_a_database_the_user_names_it() {
    let mut duel = Duel::new(Terms::default());
    duel.client(&front::startup(PROTOCOL_3_0, &[("user", "alice@corp.example")]));
    duel.client(&front::password(&corp::token("alice", &["reader"], duel.now)));
    let words = seen(&mut duel);
    assert!(words.ends_with("E(FATAL 3D000)"), "there is no database called like alice: {words}");
}

#[test]
fn startup_parameters_reach_the_server_as_they_are() {
    let mut duel = Duel::new(Terms::default());
    let options = r"-c a=b --c=d -c e=f\ g";
    let pairs = [
        ("user", "alice@corp.example"),
        ("database", corp::DATABASE),
        ("options", options),
        ("application_name", "it's me"),
    ];
    duel.client(&front::startup(PROTOCOL_3_0, &pairs));
    duel.client(&front::password(&corp::token("alice", &["reader"], duel.now)));
    duel.seen();
    duel.client(&front::query("show options"));
    assert_eq!(seen(&mut duel), format!("T D({}) C(SHOW) Z(I)", options.as_bytes().escape_ascii()));
    duel.client(&front::query("show application_name"));
    assert!(seen(&mut duel).contains("D(it\\'s me)"));
}

#[test]
fn who_comes_and_goes_without_a_byte_is_nobodys_concern() {
    let mut duel = Duel::new(Terms::default());
    duel.close(Side::Client, Lost::Closed);
    assert_eq!(duel.finish, Some(Finish::Untouched));
    assert!(duel.records.is_empty() && duel.seen().is_empty());
    // A port scanner that waits is sent away without a word, too.
    let mut duel = Duel::new(Terms::default());
    duel.advance(std::time::Duration::from_secs(60));
    assert_eq!(duel.finish, Some(Finish::Untouched));
    assert!(duel.seen().is_empty());
}

#[test]
fn a_login_that_is_not_finished_in_time_is_ended() {
    let mut duel = Duel::new(Terms::default());
    duel.client(&startup(PROTOCOL_3_0)[..7]);
    duel.advance(std::time::Duration::from_secs(59));
    assert_eq!(duel.finish, None);
    duel.advance(std::time::Duration::from_secs(2));
    assert_refused(&mut duel, SqlState::INVALID_AUTHORIZATION);
}

#[test]
fn a_cancel_request_is_passed_on_and_never_answered() {
    let mut duel = Duel::new(Terms::default());
    duel.client(&front::cancel_request(4711, &[1, 2, 3, 4]));
    assert_eq!(duel.cancel_requests, [(4711, Box::from([1, 2, 3, 4]))]);
    assert_eq!((duel.finish.clone(), duel.seen()), (Some(Finish::Cancel), vec![]));
    let mut duel = Duel::new(Terms::default());
    duel.client(&front::cancel_request(4711, &[7; 256]));
    assert_eq!(duel.cancel_requests[0].1.len(), 256);
    // A key that nobody was ever given is passed on like any other, and found to be nobody's.
    let mut duel = Duel::new(Terms::default());
    duel.client(&front::cancel_request(4711, &[7; 257]));
    assert_eq!((duel.cancel_requests[0].1.len(), duel.seen()), (257, vec![]));
    // One that is not well formed names nobody, and is told nothing either.
    let mut duel = Duel::new(Terms::default());
    duel.client(&front::cancel_request(4711, b""));
    assert_eq!((duel.finish.clone(), duel.seen()), (Some(Finish::Cancel), vec![]));
}

#[test]
fn messages_before_a_startup_are_no_startup() {
    let mut duel = Duel::new(Terms::default());
    duel.client(&message(b'Q', b"select 1\0"));
    let error = super::the_error(&mut duel);
    assert_eq!(error.severity(), "FATAL");
}
