use std::time::Duration;

use super::*;
use crate::console::snapshot::{ClientFacts, ClientState, DatabaseStatistics, Figures, Setting, State};
use crate::relay::pins::Pins;

fn names(show: Show) -> Vec<String> {
    columns(show).into_iter().flatten().map(|column| column.name.into_owned()).collect()
}

/// PgBouncer's columns, as its manual lists them (1.25).
const PGBOUNCER: &[(Show, &str)] = &[
    (Show::Clients, SOCKETS),
    (Show::Servers, SOCKETS),
    (Show::Sockets, SOCKETS),
    (Show::ActiveSockets, SOCKETS),
    (Show::Config, "key value default changeable"),
    (
        Show::Databases,
        "name host port database force_user pool_size min_pool_size reserve_pool_size server_lifetime pool_mode \
         load_balance_hosts max_connections current_connections max_client_connections current_client_connections \
         paused disabled",
    ),
    (Show::DnsHosts, "hostname ttl addrs"),
    (Show::DnsZones, "zonename serial count"),
    (
        Show::Fds,
        "fd task user database addr port cancel link client_encoding std_strings datestyle timezone password \
         scram_client_key scram_server_key",
    ),
    (Show::Help, ""),
    (Show::Lists, "list items"),
    (Show::Mem, "name size used free memtotal"),
    (Show::Peers, "peer_id host port pool_size"),
    (Show::PeerPools, "peer_id cl_active_cancel_req cl_waiting_cancel_req sv_active_cancel sv_login"),
    (
        Show::Pools,
        "database user cl_active cl_waiting cl_active_cancel_req cl_waiting_cancel_req sv_active sv_active_cancel \
         sv_being_canceled sv_idle sv_used sv_tested sv_login maxwait maxwait_us pool_mode load_balance_hosts",
    ),
    (Show::State, "key value"),
    (
        Show::Stats,
        "database total_server_assignment_count total_xact_count total_query_count total_received total_sent \
         total_xact_time total_query_time total_wait_time total_client_parse_count total_server_parse_count \
         total_bind_count total_client_login_count avg_server_assignment_count avg_xact_count avg_query_count avg_recv \
         avg_sent avg_xact_time avg_query_time avg_wait_time avg_client_parse_count avg_server_parse_count \
         avg_bind_count avg_client_login_count",
    ),
    (
        Show::StatsAverages,
        "database server_assignment_count xact_count query_count bytes_received bytes_sent xact_time query_time \
         wait_time avg_client_parse_count avg_server_parse_count avg_bind_count avg_client_login_count",
    ),
    (
        Show::StatsTotals,
        "database server_assignment_count xact_count query_count bytes_received bytes_sent xact_time query_time \
         wait_time client_parse_count server_parse_count bind_count client_login_count",
    ),
    (Show::Totals, "name value"),
    (
        Show::Users,
        "name pool_size reserve_pool_size pool_mode max_user_connections current_connections \
         max_user_client_connections current_client_connections",
    ),
    (Show::Version, "version"),
];

const SOCKETS: &str = "type user database replication state addr port local_addr local_port connect_time request_time \
                       wait wait_us close_needed ptr link remote_pid tls application_name prepared_statements id";

#[test]
fn every_table_begins_with_pgbouncers_columns_in_its_order() {
    assert_eq!(PGBOUNCER.len(), Show::ALL.len(), "every table is in the list");
    for (show, expected) in PGBOUNCER {
        let expected: Vec<&str> = expected.split_whitespace().collect();
        let found = names(*show);
        assert_eq!(found[..expected.len().min(found.len())], expected, "{show:?}");
    }
    assert_eq!(
        names(Show::Sockets)[21..28].join(" "),
        "recv_pos pkt_pos pkt_remain send_pos send_remain pkt_avail send_avail"
    );
    assert_eq!(names(Show::Clients)[21..].join(" "), "identity issuer roles account session_id token_expires pinned");
}

fn value<'a>(show: Show, row: &'a [Value], name: &str) -> &'a Value {
    &row[names(show).iter().position(|column| column == name).unwrap_or_else(|| panic!("{name}"))]
}

fn client() -> ClientFacts {
    ClientFacts {
        session: 0xc0ff_ee00_0000_0007,
        state: ClientState::Waiting,
        user: Some("ann".into()),
        database: Some("app".into()),
        address: Some("[2001:db8::1]:4711".into()),
        connected: UnixMicros::from_secs(1_700_000_000),
        waiting: Some(Duration::from_micros(2_000_003)),
        server: Some(31),
        identity: Some("ann@corp.example".into()),
        issuer: Some("https://idp.example".into()),
        roles: Some("reader,writer".into()),
        expires: Some(UnixMicros::from_secs(1_700_003_600)),
        pinned: Pins::from_bits(u32::MAX),
        ..ClientFacts::default()
    }
}

#[test]
fn a_client_is_shown_with_who_it_is() {
    let snapshot = Snapshot { clients: vec![client()], ..Snapshot::default() };
    for show in [Show::Clients, Show::Sockets, Show::ActiveSockets] {
        let rows = rows(show, &snapshot);
        let [row] = &rows[..] else { panic!("one row of {show:?}") };
        assert_eq!(row.len(), names(show).len());
        let value = |name| value(show, row, name);
        assert_eq!(*value("state"), Value::text("waiting"));
        assert_eq!((value("addr"), value("port")), (&Value::text("2001:db8::1"), &Value::Int(4711)));
        assert_eq!((value("wait"), value("wait_us")), (&Value::Int(2), &Value::Int(3)));
        assert_eq!(*value("connect_time"), Value::text("2023-11-14 22:13:20 UTC"));
        assert_eq!((value("id"), value("session_id")), (&Value::Int(7), &Value::text("c0ffee0000000007")));
        assert_eq!((value("ptr"), value("link")), (&Value::text("0xc0ffee0000000007"), &Value::text("0x1f")));
        assert_eq!(*value("identity"), Value::text("ann@corp.example"));
        assert_eq!(*value("token_expires"), Value::text("2023-11-14 23:13:20 UTC"));
        assert!(matches!(value("pinned"), Value::Text(text) if text.contains(", ")));
    }
    let unknown = Snapshot { clients: vec![ClientFacts::default()], ..Snapshot::default() };
    let row = rows(Show::Clients, &unknown).remove(0);
    assert_eq!(row[1..3], [Value::text("(nouser)"), Value::text("(nodb)")]);
    assert_eq!(
        (value(Show::Clients, &row, "identity"), value(Show::Clients, &row, "pinned")),
        (&Value::Null, &Value::Null)
    );
}

#[test]
fn every_row_has_as_many_values_as_its_table_has_columns() {
    let statistics = DatabaseStatistics {
        name: "app".into(),
        now: Figures::default(),
        before: Figures::default(),
        period: Duration::ZERO,
    };
    let setting = Setting { key: "a".into(), value: "b".into(), default: "c".into(), changeable: true };
    let snapshot = Snapshot {
        clients: vec![client()],
        statistics: vec![statistics],
        settings: vec![setting],
        ..Snapshot::default()
    };
    for (word, show) in Show::ALL {
        for row in rows(*show, &snapshot) {
            assert_eq!(row.len(), names(*show).len(), "{word}");
        }
    }
}

#[test]
fn averages_are_per_second_and_times_per_event() {
    let before = Figures { queries: 100, transactions: 10, query_time: Duration::from_secs(1), ..Figures::default() };
    let now = Figures {
        queries: 300,
        transactions: 10,
        query_time: Duration::from_secs(3),
        received: 4000,
        pins: 5,
        ..before
    };
    let period = Duration::from_secs(20);
    let database = DatabaseStatistics { name: "app".into(), now, before, period };
    let snapshot = Snapshot { statistics: vec![database.clone(), database], ..Snapshot::default() };
    let row = rows(Show::Stats, &snapshot).remove(0);
    let of = |name| value(Show::Stats, &row, name).clone();
    assert_eq!((of("total_query_count"), of("avg_query_count")), (Value::Int(300), Value::Int(10)));
    assert_eq!((of("total_query_time"), of("avg_query_time")), (Value::Int(3_000_000), Value::Int(10_000)));
    assert_eq!(
        (of("avg_recv"), of("avg_xact_count"), of("avg_xact_time")),
        (Value::Int(200), Value::Int(0), Value::Int(0))
    );
    let totals = rows(Show::Totals, &snapshot);
    assert!(totals.contains(&vec![Value::text("total_query_count"), Value::Int(600)]));
    assert!(totals.contains(&vec![Value::text("avg_query_count"), Value::Int(20)]));
    assert_eq!((of("total_pin_count"), totals.len()), (Value::Int(5), 25));
    assert!(totals.contains(&vec![Value::text("total_pin_count"), Value::Int(10)]));
}

#[test]
fn the_state_says_what_is_switched_off() {
    let say = |state| {
        let snapshot = Snapshot { state, ..Snapshot::default() };
        let yes = rows(Show::State, &snapshot).into_iter().filter(|row| row[1] == Value::text("yes"));
        yes.map(|row| row[0].clone()).collect::<Vec<_>>()
    };
    assert_eq!(say(State::default()), [Value::text("active")]);
    assert_eq!(say(State { paused: true, ..State::default() }), [Value::text("paused")]);
    assert_eq!(
        say(State { suspended: true, draining: true, paused: false }),
        [Value::text("suspended"), Value::text("draining")]
    );
}
