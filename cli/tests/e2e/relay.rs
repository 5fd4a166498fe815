//! What travels through unchanged: queries of every kind, COPY, notifications, errors, and how a session starts.

use crate::support::promise::unchanged;
use crate::support::psql;
use crate::support::wire::{Message, Wire, bind, describe_and_execute, frame, parse, query, sync};

fn tags(messages: &[Message]) -> String {
    messages.iter().map(|message| message.tag).collect()
}

fn texts(messages: &[Message]) -> Vec<String> {
    let rows = messages.iter().filter(|message| message.tag == 'D');
    rows.map(|row| row.columns().swap_remove(0).unwrap_or_default()).collect()
}

fn log_in(target: &crate::support::target::Target) -> Wire {
    Wire::login(target).unwrap_or_else(|error| panic!("{error:?}"))
}

unchanged! {
    fn startup_parameters_are_applied(target) {
        let parameters = [
            ("client_encoding", "LATIN1"),
            ("application_name", "rig"),
            ("TimeZone", "Asia/Tokyo"),
            ("DateStyle", "German, DMY"),
            ("IntervalStyle", "iso_8601"),
            ("extra_float_digits", "-3"),
            ("work_mem", "5MB"),
            ("options", r"-c statement_timeout=43210 --search_path=pg_catalog,\ public -cenable_seqscan=off"),
        ];
        let mut wire = Wire::login_with(target, &parameters).unwrap_or_else(|error| panic!("{error:?}"));
        for (name, value) in [
            ("client_encoding", "LATIN1"),
            ("application_name", "rig"),
            ("timezone", "Asia/Tokyo"),
            ("datestyle", "German, DMY"),
            ("intervalstyle", "iso_8601"),
            ("extra_float_digits", "-3"),
            ("work_mem", "5MB"),
            ("statement_timeout", "43210ms"),
            ("search_path", "pg_catalog, public"),
            ("enable_seqscan", "off"),
        ] {
            assert_eq!(wire.value(&format!("show {name}")), value, "{name}");
        }
        for (name, value) in [
            ("client_encoding", "LATIN1"),
            ("application_name", "rig"),
            ("TimeZone", "Asia/Tokyo"),
            ("DateStyle", "German, DMY"),
            ("IntervalStyle", "iso_8601"),
        ] {
            assert_eq!(wire.parameters.get(name).map(String::as_str), Some(value), "as reported: {name}");
        }
        assert_eq!(wire.value("select '2026-02-03'::date::text"), "03.02.2026");
        wire.quit();
    }
}

unchanged! {
    fn a_session_is_told_what_drivers_look_for(target) {
        let wire = log_in(target);
        for name in [
            "application_name", "client_encoding", "DateStyle", "integer_datetimes", "IntervalStyle", "is_superuser",
            "server_encoding", "server_version", "session_authorization", "standard_conforming_strings", "TimeZone",
        ] {
            assert!(wire.parameters.contains_key(name), "{name} is missing from {:?}", wire.parameters);
        }
        let version = target.server.sql("show server_version");
        assert_eq!(wire.parameters["server_version"], version);
        assert_eq!(wire.parameters["session_authorization"], target.account);
        assert_ne!(wire.key.0, 0, "a process id for cancel requests");
        wire.quit();
    }
}

unchanged! {
    fn pgoptions_reach_the_session(target) {
        let mut command = psql::command(target);
        command.args(["-c", "show statement_timeout"]).env("PGOPTIONS", "-c statement_timeout=7s");
        assert_eq!(psql::finish(command).ok(), "7s");
    }
}

unchanged! {
    fn a_startup_parameter_that_does_not_exist_refuses_the_session(target) {
        let error = Wire::login_with(target, &[("no_such_setting", "1")]).err().expect("refused");
        assert_eq!((error.severity.as_str(), error.code.as_str()), ("FATAL", "42704"), "{error:?}");
        let error = Wire::login_with(target, &[("client_encoding", "KLINGON")]).err().expect("refused");
        assert_eq!((error.severity.as_str(), error.code.as_str()), ("FATAL", "22023"), "{error:?}");
    }
}

unchanged! {
    fn copy_in_and_out_with_psql(target) {
        let script = "create temp table c (n int, t text);\ncopy c from stdin;\n1\tone\n2\ttwo\n\\.\n\
                      copy c to stdout;\nselect count(*) from c;\n";
        assert_eq!(psql::script(target, script).ok(), "1\tone\n2\ttwo\n2");
    }
}

unchanged! {
    fn copy_that_fails_leaves_the_session_usable(target) {
        let mut wire = log_in(target);
        wire.rows("create temp table c (n int)").unwrap();
        // The server rejects a row; the client only then learns of it and has sent more.
        wire.send(&query("copy c from stdin"));
        assert_eq!(wire.read().map(|message| message.tag), Some('G'));
        wire.send(&[frame('d', b"1\n"), frame('d', b"not a number\n"), frame('d', b"3\n"), frame('c', b"")].concat());
        let messages = wire.read_until_ready();
        assert_eq!((tags(&messages).as_str(), messages[0].complaint().code.as_str()), ("EZ", "22P02"));
        // The client gives up.
        wire.send(&[query("copy c from stdin"), frame('d', b"1\n"), frame('f', b"changed my mind\0")].concat());
        let messages = wire.read_until_ready();
        assert_eq!((tags(&messages).as_str(), messages[1].complaint().code.as_str()), ("GEZ", "57014"));
        assert_eq!(wire.value("select count(*) from c"), "0");
        wire.quit();
    }
}

unchanged! {
    fn copy_in_the_extended_protocol(target) {
        let mut wire = log_in(target);
        wire.rows("create temp table c (n int)").unwrap();
        wire.send(&[parse("", "copy c from stdin"), bind("", &[]), frame('E', b"\0\0\0\0\0")].concat());
        wire.send(&[frame('d', b"1\n2\n3\n"), frame('c', b""), sync()].concat());
        assert_eq!(tags(&wire.read_until_ready()), "12GCZ");
        wire.send(&[parse("", "copy c to stdout"), bind("", &[]), frame('E', b"\0\0\0\0\0"), sync()].concat());
        assert_eq!(tags(&wire.read_until_ready()), "12HdddcCZ");
        wire.quit();
    }
}

unchanged! {
    fn a_notification_reaches_an_idle_client(target) {
        let mut wire = log_in(target);
        wire.rows("listen rig_news").unwrap();
        target.server.sql("notify rig_news, 'while you were idle'");
        let message = wire.read().expect("a notification");
        assert_eq!(message.tag, 'A');
        assert!(message.body.ends_with(b"rig_news\0while you were idle\0"), "{message:?}");
        wire.quit();
    }
}

unchanged! {
    fn an_idle_client_learns_at_once_that_its_server_process_was_ended(target) {
        let mut wire = log_in(target);
        let pid = wire.value("select pg_backend_pid()");
        assert_eq!(target.server.sql(&format!("select pg_terminate_backend({pid})")), "t");
        assert_eq!(wire.expect_fatal().code, "57P01");
    }
}

unchanged! {
    fn extended_queries_with_flush_describe_and_close(target) {
        let mut wire = log_in(target);
        wire.send(&[parse("s1", "select $1::int + 1"), frame('H', b"")].concat());
        assert_eq!(wire.read().map(|message| message.tag), Some('1'), "Flush alone brings the answer");
        wire.send(&[frame('D', b"Ss1\0"), frame('H', b"")].concat());
        assert_eq!((wire.read().unwrap().tag, wire.read().unwrap().tag), ('t', 'T'));
        wire.send(&[bind("s1", &["41"]), describe_and_execute(), frame('C', b"Ss1\0"), sync()].concat());
        let messages = wire.read_until_ready();
        assert_eq!(tags(&messages), "2TDC3Z");
        assert_eq!(texts(&messages), ["42"]);
        wire.send(&[bind("s1", &["1"]), sync()].concat());
        let messages = wire.read_until_ready();
        assert_eq!(messages[0].complaint().code, "26000", "a closed statement is unknown");
        wire.quit();
    }
}

unchanged! {
    fn a_pipeline_of_500_with_an_error_in_the_middle(target) {
        let mut wire = log_in(target);
        let step = |divisor: &str| [bind("div", &[divisor]), describe_and_execute()].concat();
        let mut batch = parse("div", "select 100 / $1::int");
        for _ in 0..249 {
            batch.extend(step("1"));
        }
        batch.extend(step("0"));
        for _ in 0..250 {
            batch.extend(step("2"));
        }
        batch.extend(sync());
        // Already under way before the first answer is read: two more batches.
        batch.extend([step("4"), sync(), step("5"), sync()].concat());
        wire.send(&batch);

        let first = wire.read_until_ready();
        assert_eq!(first.iter().filter(|message| message.tag == 'D').count(), 249, "what comes after the error is skipped");
        assert_eq!(first[first.len() - 2].complaint().code, "22012");
        assert_eq!(texts(&wire.read_until_ready()), ["25"]);
        assert_eq!(texts(&wire.read_until_ready()), ["20"]);
        wire.quit();
    }
}

unchanged! {
    fn a_portal_is_suspended_and_resumed(target) {
        let mut wire = log_in(target);
        let three_rows = frame('E', b"\0\0\0\0\x03");
        wire.send(&[parse("", "select generate_series(1, 7)"), bind("", &[])].concat());
        wire.send(&[three_rows.clone(), three_rows.clone(), three_rows, sync()].concat());
        assert_eq!(tags(&wire.read_until_ready()), "12DDDsDDDsDCZ");
        wire.quit();
    }
}

unchanged! {
    fn a_function_call(target) {
        let mut wire = log_in(target);
        // int4pl(int4, int4) has had object id 177 since ever (pg_proc.dat); arguments and result as text.
        let mut body = 177_i32.to_be_bytes().to_vec();
        body.extend([0, 0, 0, 2]);
        for argument in [b"40", b"02"] {
            body.extend(2_i32.to_be_bytes());
            body.extend(argument);
        }
        body.extend([0, 0]);
        wire.send(&frame('F', &body));
        let messages = wire.read_until_ready();
        assert_eq!(tags(&messages), "VZ");
        assert!(messages[0].body.ends_with(b"42"), "{messages:?}");
        wire.quit();
    }
}

unchanged! {
    fn several_statements_in_one_query_and_an_empty_one(target) {
        let mut wire = log_in(target);
        wire.send(&query("select 1; create temp table e (n int); insert into e select 1; select 2 / 0; select 3"));
        let messages = wire.read_until_ready();
        assert_eq!(tags(&messages), "TDCCCEZ", "the last statement never runs");
        wire.send(&query(""));
        assert_eq!(tags(&wire.read_until_ready()), "IZ");
        wire.quit();
    }
}

unchanged! {
    fn notices_come_with_the_query_that_made_them(target) {
        let mut wire = log_in(target);
        wire.rows("do $$ begin raise notice 'look out'; end $$").unwrap();
        assert_eq!(wire.notices.last().map(|notice| notice.message.as_str()), Some("look out"));
        wire.quit();
    }
}

unchanged! {
    fn messages_larger_than_any_buffer(target) {
        let mut wire = log_in(target);
        let text = "x".repeat(20_000_000);
        assert_eq!(wire.value(&format!("select length('{text}')")), "20000000");
        assert_eq!(wire.value("select repeat('y', 30000000)").len(), 30_000_000);
        wire.send(&[parse("", "select length($1::text)"), bind("", &[&text]), describe_and_execute(), sync()].concat());
        assert_eq!(texts(&wire.read_until_ready()), ["20000000"]);
        wire.quit();
    }
}

unchanged! {
    fn as_many_parameters_as_the_protocol_counts(target) {
        let mut wire = log_in(target);
        let places: Vec<String> = (1..=65_535).map(|n| format!("${n}")).collect();
        let text = format!("select cardinality(array[{}]::int[])", places.join(","));
        let values = vec!["7"; 65_535];
        wire.send(&[parse("", &text), bind("", &values), describe_and_execute(), sync()].concat());
        assert_eq!(texts(&wire.read_until_ready()), ["65535"]);
        wire.quit();
    }
}

unchanged! {
    fn a_connection_that_closes_its_sending_half_behind_a_query_ends_cleanly(target) {
        let mut wire = log_in(&target.clone().in_plaintext());
        wire.send(&query("select 1"));
        wire.half_close();
        // Whether the answer still comes is open (a proxy may see a client that left); the connection must not linger.
        wire.drain();
    }
}
