use super::*;
use crate::testing::wire::{back, front, message};

const QUERY: &str = "select n, p from users where n = $1";

fn at(seconds: u64) -> Now {
    Now { tick: Tick::from_nanos(seconds * 1_000_000_000), ..Now::default() }
}

fn begin(user: &str) -> Lookup {
    Lookup::new(QUERY, user.into(), at(10).tick)
}

fn described(columns: i16) -> Vec<u8> {
    message(b'T', &columns.to_be_bytes())
}

fn row(values: &[Option<&[u8]>]) -> Vec<u8> {
    let mut body = u16::try_from(values.len()).unwrap().to_be_bytes().to_vec();
    for value in values {
        match value {
            None => body.extend((-1i32).to_be_bytes()),
            Some(value) => {
                body.extend(u32::try_from(value.len()).unwrap().to_be_bytes());
                body.extend_from_slice(value);
            }
        }
    }
    message(b'D', &body)
}

fn opening() -> Vec<u8> {
    [back::bare(b'1'), back::bare(b'2'), described(2)].concat()
}

fn end() -> Vec<u8> {
    [back::complete("SELECT 1"), back::ready(b'I')].concat()
}

/// The whole answer, with these rows.
fn answer(rows: &[Vec<u8>]) -> Vec<u8> {
    [opening(), rows.concat(), end()].concat()
}

/// In words: what is known at the end.
fn outcome(lookup: &mut Lookup) -> Option<String> {
    let mut found = None;
    while let Some(output) = lookup.poll_output() {
        let LookupOutput::Finished(outcome) = output else { continue };
        assert!(found.is_none(), "finished more than once");
        found = Some(match outcome {
            LookupOutcome::Found(secret, parameters) => {
                format!("found {} +{}", secret.expose().escape_ascii(), parameters.len())
            }
            LookupOutcome::Nobody(_) => "nobody".into(),
            LookupOutcome::SomebodyElse(_) => "somebody else".into(),
            LookupOutcome::Broken(fault) => format!("broken: {fault}"),
        });
    }
    found
}

fn after(bytes: &[u8]) -> Option<String> {
    let mut lookup = begin("ann");
    lookup.handle_input(bytes, at(1));
    outcome(&mut lookup)
}

fn ann(password: Option<&[u8]>) -> Vec<u8> {
    row(&[Some(b"ann"), password])
}

#[test]
fn the_name_travels_as_a_parameter() {
    let mut lookup = begin("x' or 'a'='a");
    let Some(LookupOutput::Send(bytes)) = lookup.poll_output() else { panic!("nothing is asked") };
    let bind = message(b'B', b"\0\0\0\0\0\x01\0\0\0\x0cx' or 'a'='a\0\0");
    let whole =
        [front::parse("", QUERY), bind, front::describe(b'P', ""), front::execute("", 2), front::sync()].concat();
    assert_eq!(bytes.escape_ascii().to_string(), whole.escape_ascii().to_string());
    for (query, user) in [("select\0", "ann"), (QUERY, "a\0nn")] {
        let mut lookup = Lookup::new(query, user.into(), at(10).tick);
        assert_eq!(outcome(&mut lookup).unwrap(), "broken: the query or the user name holds a zero byte");
    }
}

#[test]
fn one_row_no_row_and_no_password() {
    assert_eq!(after(&answer(&[ann(Some(b"md5x"))])).unwrap(), "found md5x +0");
    assert_eq!(after(&answer(&[ann(None)])).unwrap(), "found  +0", "there, and without a password");
    assert_eq!(after(&answer(&[])).unwrap(), "nobody");
    for password in [None, Some(&b"x"[..])] {
        assert_eq!(after(&answer(&[row(&[None, password])])).unwrap(), "nobody", "a function that found nobody");
    }
    assert_eq!(after(&answer(&[row(&[Some(b"anna"), Some(b"x")])])).unwrap(), "somebody else");
    let talkative = [
        back::notice("hello"),
        opening(),
        back::parameter("TimeZone", "UTC"),
        ann(Some(b"x")),
        back::notification(7, "channel", "payload"),
        end(),
    ];
    assert_eq!(after(&talkative.concat()).unwrap(), "found x +1");
}

#[test]
fn any_split_gives_the_same() {
    let bytes = answer(&[ann(Some(b"SCRAM-SHA-256$4096:c2FsdA==$c3RvcmVk:c2VydmVy"))]);
    let whole = after(&bytes);
    for at_byte in 0..bytes.len() {
        let mut lookup = begin("ann");
        lookup.handle_input(&bytes[..at_byte], at(1));
        assert!(outcome(&mut lookup).is_none(), "cut at {at_byte}");
        lookup.handle_input(&bytes[at_byte..], at(1));
        assert_eq!(outcome(&mut lookup), whole, "cut at {at_byte}");
    }
}

#[test]
fn anything_but_the_exact_replies_is_a_fault() {
    let broken = |bytes: Vec<u8>, why: &str| {
        let found = after(&bytes).unwrap_or_default();
        assert!(found.starts_with("broken") && found.contains(why), "{found:?} and not {why:?}");
    };
    let one = ann(Some(b"x"));
    broken(answer(&[one.clone(), one.clone()]), "more than one row");
    broken([opening(), one.clone(), one.clone(), back::bare(b's'), back::ready(b'I')].concat(), "more than one row");
    for columns in [0, 1, 3, -1] {
        let bytes = [back::bare(b'1'), back::bare(b'2'), described(columns)].concat();
        broken(bytes, &format!("2 columns from auth_query, name and password, not {columns}"));
    }
    broken([back::bare(b'1'), back::bare(b'2'), back::bare(b'n')].concat(), "not 0");
    broken([opening(), row(&[Some(b"ann")])].concat(), "not 1");
    broken([opening(), row(&[Some(b"ann"), None, None])].concat(), "not 3");
    broken([opening(), row(&[None, None]), one.clone()].concat(), "more than one row");
    broken([opening(), ann(Some(b"a\0b"))].concat(), "no password can be");
    let whole = answer(std::slice::from_ref(&one));
    broken([whole.clone(), back::ready(b'I')].concat(), "more than the answer");
    broken([whole, back::notice("late")].concat(), "more than the answer");
    broken([opening(), one.clone(), back::complete("SELECT 1"), back::ready(b'T')].concat(), "transaction open");
    broken([opening(), one.clone(), back::complete("SELECT 1"), message(b'Z', b"II")].concat(), "protocol");
    broken([opening(), one.clone(), back::bare(b's')].concat(), "protocol");
    broken([opening(), one.clone(), back::ready(b'I')].concat(), "protocol");
    broken([opening(), one.clone(), message(b'C', b"SELECT 1")].concat(), "protocol");
    broken(back::bare(b'2'), "protocol");
    broken(message(b'1', b"x"), "protocol");
    broken([back::bare(b'1'), back::bare(b'2'), one.clone()].concat(), "protocol");
    broken([back::bare(b'1'), back::bare(b'2'), back::bare(b'I')].concat(), "protocol");
    broken(message(b'R', &[0, 0, 0, 0]), "protocol");
    // Lengths that lie.
    broken([opening(), message(b'D', b"\0\x02\0\0\0\x03ann\0\0\0\x09short")].concat(), "protocol");
    broken([opening(), message(b'D', b"\0\x02\0\0\0\x03ann\x80\0\0\0")].concat(), "protocol");
    broken([opening(), message(b'D', b"\0\x02\0\0\0\x03ann\0\0\0\x01xy")].concat(), "protocol");
    broken([opening(), b"D\x7f\xff\xff\xff".to_vec()].concat(), "protocol");
    let error = back::error("ERROR", "42P01", "relation \"users\"\ndoes not exist");
    broken([back::bare(b'1'), error].concat(), "refused the query: 42P01 relation \"users\" does not exist");
}

#[test]
fn an_error_behind_the_row_does_not_repeat_the_secret() {
    let error = back::error("ERROR", "P0001", "cannot take 'pencil of ann' for an answer");
    let told = after(&[opening(), ann(Some(b"pencil of ann")), error].concat()).unwrap();
    assert!(told.starts_with("broken") && told.contains("P0001") && !told.contains("pencil"), "{told}");
}

#[test]
fn what_the_server_sends_is_bounded() {
    let most = ann(Some(&vec![b'x'; 65_000]));
    assert!(after(&answer(&[most])).unwrap().starts_with("found xxx"));
    assert!(after(&answer(&[ann(Some(&vec![b'x'; 65_536]))])).unwrap().starts_with("broken"));
    let flood = back::notice(&"x".repeat(1000)).repeat(300);
    assert_eq!(after(&flood).unwrap(), "broken: the server sent more than the answer");
    let parameters: Vec<u8> = (0..300).flat_map(|n| back::parameter(&format!("p{n}"), "v")).collect();
    assert_eq!(after(&parameters).unwrap(), "broken: the server sent more than the answer");
}

#[test]
fn the_end_of_the_connection_and_of_the_time() {
    let bytes = answer(&[ann(Some(b"x"))]);
    for cut in 0..bytes.len() {
        let mut lookup = begin("ann");
        lookup.handle_input(&bytes[..cut], at(1));
        lookup.handle_close(Lost::Closed, at(1));
        assert_eq!(outcome(&mut lookup).unwrap(), "broken: the server closed the connection", "cut at {cut}");
    }
    let mut lookup = begin("ann");
    assert_eq!(lookup.poll_timeout(), Some(Deadline { at: at(10).tick, why: Timer::UserLookup }));
    lookup.handle_timeout(at(9));
    assert!(outcome(&mut lookup).is_none(), "not yet");
    lookup.handle_timeout(at(10));
    assert_eq!(outcome(&mut lookup).unwrap(), "broken: the server did not answer in time");
    assert_eq!(lookup.poll_timeout(), None);
    lookup.handle_timeout(at(11));
    lookup.handle_close(Lost::Broken, at(11));
    lookup.handle_input(&bytes, at(11));
    assert!(outcome(&mut lookup).is_none(), "what comes behind the end changes nothing");
}
