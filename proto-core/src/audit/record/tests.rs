use super::*;
use crate::audit::{Sheet, Tls};
use crate::auth::{Identity, Method};
use crate::session_id::SessionId;

fn facts(sheet: &Sheet<'_>) -> Arc<SessionFacts> {
    let alice = Identity {
        issuer: "https://id.example/".into(),
        subject: "auth0|17".into(),
        user: "alice@example.com".into(),
        roles: ["reader".into(), "on \"call\"".into()].into(),
        expires: None,
        method: Method::Token,
    };
    Arc::new(SessionFacts::with_identity(SessionId(u64::MAX), sheet, Some(&alice)))
}

fn session() -> Arc<SessionFacts> {
    facts(&Sheet {
        account: Some("svc_reader"),
        database: Some(b"app"),
        client_addr: Some("[2001:db8::7]:50412"),
        application: Some(b"psql"),
        tls: Some(Tls { version: "TLSv1.3", cipher: "TLS13_AES_256_GCM_SHA384" }),
        ..Sheet::default()
    })
}

fn statement(text: &[u8]) -> Statement {
    Statement {
        id: 3,
        protocol: Protocol::Extended,
        text: Some(StatementText::new(text, text.len() as u64, 4096)),
        prepared: Some(b"s1"[..].into()),
        duration: Duration::from_nanos(1_234_999),
        rows: Some(5),
        command_tag: Some(CommandTag::new(b"SELECT 5")),
        sqlstate: Some(SqlState::SUCCESS),
        bytes_to_client: 310,
        bytes_to_server: 47,
    }
}

fn line(facts: Arc<SessionFacts>, event: Event) -> String {
    let mut out = Vec::new();
    Record { time: UnixMicros(1_767_225_599_000_007), facts, event }.write_line(&mut out);
    String::from_utf8(out).unwrap()
}

fn value(line: &str) -> serde_json::Value {
    serde_json::from_str(line).unwrap()
}

const COMMON: &str = concat!(
    r#""session_id":"ffffffffffffffff","subject":"auth0|17","issuer":"https://id.example/","#,
    r#""user":"alice@example.com","roles":["reader","on \"call\""],"auth":"token","account":"svc_reader","#,
    r#""database":"app","client_addr":"[2001:db8::7]:50412","application":"psql","#,
    r#""tls":{"version":"TLSv1.3","cipher":"TLS13_AES_256_GCM_SHA384"}"#
);

#[test]
fn names_and_order_of_the_fields_are_stable() {
    let time = r#""time":"2025-12-31T23:59:59.000007Z""#;
    assert_eq!(line(session(), Event::SessionStart), format!("{{{time},\"event\":\"session_start\",{COMMON}}}\n"));
    assert_eq!(
        line(session(), Event::Statement(statement(b"select 1"))),
        format!(
            "{{{time},\"event\":\"statement\",{COMMON},{}}}\n",
            concat!(
                r#""statement_id":3,"protocol":"extended","statement":"select 1","statement_length":8,"#,
                r#""statement_truncated":false,"prepared":"s1","duration_us":1234,"rows":5,"#,
                r#""command_tag":"SELECT 5","sqlstate":"00000","bytes_to_client":310,"bytes_to_server":47"#
            )
        )
    );
    let end = SessionEnd {
        statements: 9,
        duration: Duration::from_secs(60),
        reason: "the client closed the connection".into(),
        sqlstate: None,
        bytes_to_client: 1,
        bytes_to_server: 2,
    };
    assert_eq!(
        line(session(), Event::SessionEnd(end)),
        format!(
            "{{{time},\"event\":\"session_end\",{COMMON},{}}}\n",
            concat!(
                r#""statements":9,"duration_us":60000000,"reason":"the client closed the connection","#,
                r#""sqlstate":null,"bytes_to_client":1,"bytes_to_server":2"#
            )
        )
    );
}

#[test]
fn what_is_unknown_is_null() {
    let facts = Arc::new(SessionFacts::new(SessionId(1), &Sheet::default()));
    let refused = Refused {
        refusal: Refusal::new(SqlState::INVALID_PASSWORD, "the token has expired").hint("log in again"),
        claimed_user: Some(b"ceo@corp".as_slice().into()),
    };
    assert_eq!(
        line(facts.clone(), Event::Refusal(Box::new(refused))),
        concat!(
            r#"{"time":"2025-12-31T23:59:59.000007Z","event":"refusal","session_id":"0000000000000001","subject":null,"issuer":null,"#,
            r#""user":null,"roles":[],"auth":null,"account":null,"database":null,"client_addr":null,"#,
            r#""application":null,"tls":null,"claimed_user":"ceo@corp","reason":"the token has expired","#,
            r#""sqlstate":"28P01"}"#,
            "\n"
        )
    );
    let lost = Statement {
        text: None,
        prepared: Some(b""[..].into()),
        rows: None,
        command_tag: None,
        sqlstate: None,
        ..statement(b"")
    };
    let value = value(&line(facts, Event::Statement(lost)));
    for name in ["statement", "statement_length", "prepared", "rows", "command_tag", "sqlstate"] {
        assert!(value[name].is_null(), "{name}");
    }
}

#[test]
fn a_password_user_has_no_issuer() {
    let bob = Identity {
        issuer: "".into(),
        subject: "bob".into(),
        user: "bob".into(),
        roles: [].into(),
        expires: None,
        method: Method::Password,
    };
    let facts = SessionFacts::with_identity(SessionId(1), &Sheet::default(), Some(&bob));
    let value = value(&line(Arc::new(facts), Event::SessionStart));
    assert_eq!((&value["subject"], &value["auth"]), (&"bob".into(), &"password".into()));
    assert!(value["issuer"].is_null());
}

#[test]
fn no_text_can_forge_a_line() {
    let hostile = "select 1\"}\r\n{\"event\":\"statement\",\"user\":\"bob\"}\n\u{85}\u{2028}\u{2029}\u{0}\u{1b}[2J\u{9b}2J\u{202e}\u{61c}";
    let facts = facts(&Sheet {
        database: Some(hostile.as_bytes()),
        application: Some(hostile.as_bytes()),
        client_addr: Some(hostile),
        ..Sheet::default()
    });
    let line = line(facts, Event::Statement(statement(hostile.as_bytes())));
    assert_eq!(line.chars().filter(|c| c.is_control()).collect::<String>(), "\n");
    assert!(line.is_ascii() && line.ends_with("}\n"));
    let value = value(&line);
    for name in ["statement", "database", "application", "client_addr"] {
        assert_eq!(value[name], hostile, "{name}");
    }
    assert_eq!(value["user"], "alice@example.com");
}

#[test]
fn text_of_any_encoding_gives_valid_json() {
    let value = value(&line(session(), Event::Statement(statement(b"select '\xe9\xff\xc3\xa9'"))));
    assert_eq!(value["statement"], "select '\u{fffd}\u{fffd}\u{e9}'");
    assert_eq!(value["statement_length"], 13);
}

#[test]
fn secrets_do_not_reach_the_line() {
    let text = b"alter role a password 'hunter2'; select 'eyJh.eyJz.hunter2'";
    assert!(!line(session(), Event::Statement(statement(text))).contains("hunter2"));
    assert!(!format!("{:?}", statement(text)).contains("hunter2"));
    let refused = Refused {
        refusal: Refusal::new(SqlState::CANNOT_CONNECT, "postgres://a:hunter2@db did not answer"),
        claimed_user: None,
    };
    assert!(!line(session(), Event::Refusal(Box::new(refused))).contains("hunter2"));
}

#[test]
fn times_at_the_ends_of_the_clock_stay_times() {
    for (time, expected) in [
        (0, "1970-01-01T00:00:00.000000Z"),
        (-1, "1969-12-31T23:59:59.999999Z"),
        (i64::MAX, "9999-12-30T22:00:00.999999Z"),
    ] {
        let mut out = Vec::new();
        write_time(&mut out, UnixMicros(time));
        assert_eq!(String::from_utf8(out).unwrap(), format!("\"{expected}\""));
    }
    let mut out = Vec::new();
    write_time(&mut out, UnixMicros(i64::MIN));
    assert!(out.starts_with(b"\"-009999-"));
}

#[test]
fn long_command_tags_are_cut() {
    assert_eq!(CommandTag::new(&[b'x'; 200]).bytes(), [b'x'; MAX_COMMAND_TAG]);
    assert_eq!(CommandTag::new(b"").bytes(), b"");
}

#[test]
fn only_what_deceives_is_escaped() {
    // A control that JSON leaves alone, in a text that is plain otherwise; and letters that are no control.
    let plain = line(session(), Event::Statement(statement("select '\u{7f}'".as_bytes())));
    assert!(plain.contains(r"select '\u007f'"), "{plain}");
    let letters = line(session(), Event::Statement(statement("select 'Zo\u{eb} \u{2026}\u{85}'".as_bytes())));
    assert!(letters.contains("select 'Zo\u{eb} \u{2026}\\u0085'"), "{letters}");
}

#[test]
fn a_records_size_counts_what_it_holds_alone() {
    let size = |event| Record { time: UnixMicros(0), facts: session(), event }.size();
    let empty = size(Event::SessionStart);
    assert_eq!(empty, size_of::<Record>());
    assert_eq!(size(Event::Statement(statement(&[b'x'; 1000]))), empty + 1000);
    let end = SessionEnd {
        statements: 0,
        duration: Duration::ZERO,
        reason: "bye".into(),
        sqlstate: None,
        bytes_to_client: 0,
        bytes_to_server: 0,
    };
    assert_eq!(size(Event::SessionEnd(end)), empty + 3);
    // A refused client has no session that would hold its facts.
    let refusal = Refusal::new(SqlState::INVALID_PASSWORD, "x".repeat(50));
    let refused = Event::Refusal(Box::new(Refused { refusal, claimed_user: None }));
    assert_eq!(size(refused), empty + 50 + session().members().len());
}
