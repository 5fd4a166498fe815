//! Every mistake has its line: which setting, where, what was found, what is expected.

use super::{Case, LEAST};

/// The least configuration and these lines give exactly this problem.
#[track_caller]
fn least_and(text: &str, expected: &str) {
    assert_eq!(Case::least_and(text).problem(), expected);
}

#[test]
fn nothing_at_all_names_what_is_needed() {
    let problems = Case::empty().problems();
    let expected = [
        "issuer: found nothing; expected at least one [[issuer]], or AUTH0_TENANT with AUDIENCE",
        "role: found nothing; expected at least one [[role]], or ROLE_MAPPING_<ROLE>=account:password",
    ];
    assert_eq!(problems, expected);
}

#[test]
fn all_mistakes_are_told_at_once() {
    let case =
        Case::least_and("[server]\nlisten_port = 70000\nlisten_prot = 1\n[pool]\nserver_lifetime = 'soon'\n[lgo]");
    assert_eq!(case.problems().len(), 4, "{:#?}", case.problems());
}

#[test]
fn unknown_names_come_with_the_nearest() {
    least_and(
        "[server]\nlisten_prot = 1",
        "server.listen_prot (gprxy.toml:12): found an unknown name; expected a setting of [server]; the nearest is listen_port",
    );
    least_and("[sever]", "sever (gprxy.toml:11): found an unknown name; expected the section server");
    least_and(
        "[server]\nquery_wait_timeout = 1",
        "server.query_wait_timeout (gprxy.toml:12): found an unknown name; expected query_wait_timeout inside [pool]",
    );
    let top_level = Case::file(&format!("listen_port = 1\n{LEAST}")).problem();
    assert!(top_level.contains("listen_port inside [server]"), "{top_level}");
    let other = Case::least_and("[server]\nqqq = 1").problem();
    assert!(other.contains("expected one of listen_addr, listen_port,"), "{other}");
}

#[test]
fn wrong_values_are_shown_with_what_is_expected() {
    least_and(
        "[server]\nlisten_port = 70000",
        "server.listen_port (gprxy.toml:12): found 70000; expected a port number from 0 to 65535",
    );
    least_and(
        "[log]\nlevel = 'debgu'",
        "log.level (gprxy.toml:12): found \"debgu\"; expected production, error, warn, info, debug or trace \
         (did you mean debug?)",
    );
    least_and(
        "[server]\npassword_fallback = 'yes'",
        "server.password_fallback (gprxy.toml:12): found \"yes\"; expected true or false",
    );
    for (text, setting) in [
        ("[server]\ndrain_timeout = '2d'", "server.drain_timeout"),
        ("[server]\nworkers = 0", "server.workers"),
        ("[server]\nlisten_addr = 'a b'", "server.listen_addr"),
        ("[server]\nunix_socket_dir = 'relative'", "server.unix_socket_dir"),
        ("[server]\nallow_plaintext = 'sometimes'", "server.allow_plaintext"),
        ("[tls]\nmin_version = 1.1", "tls.min_version"),
        ("[pool]\ndefault_pool_size = 0", "pool.default_pool_size"),
        ("[pool]\nserver_connect_timeout = 0", "pool.server_connect_timeout"),
        ("[limits]\nmax_password_bytes = '2MiB'", "limits.max_password_bytes"),
        ("[limits]\nmax_client_conn = 1979-05-27", "limits.max_client_conn"),
        ("[audit]\npath = '/nonexistent-dir/audit.jsonl'", "audit.path"),
        ("[audit]\npath = '/'", "audit.path"),
        ("[audit]\nstatement_bytes = [1]", "audit.statement_bytes"),
        ("[databases.app]\nhost = 'x?sslmode=disable'", "databases.app.host"),
        ("[databases.app]\nhost = 'a,b,c'\nport = '1,2'", "databases.app.port"),
        ("[databases.app]\nsslmode = 'allow'", "databases.app.sslmode"),
        ("[databases.app]\nsslmode = 'verify-ca'\nsslrootcert = '/nonexistent.pem'", "databases.app.sslrootcert"),
        ("[databases.app]\npool_size = -1", "databases.app.pool_size"),
        ("[databases]\napp = 'host=db'", "databases.app"),
        ("[[pool]]", "pool"),
        ("[issuers]", "issuers"),
    ] {
        let problem = Case::least_and(text).problem();
        assert!(problem.starts_with(&format!("{setting} (gprxy.toml:")), "{text}: {problem}");
    }
}

#[test]
fn never_without_a_certificate_would_let_nobody_in() {
    let problem = Case::least_and("[server]\nallow_plaintext = 'never'").problem();
    assert!(problem.starts_with("server.allow_plaintext (gprxy.toml:12): found \"never\" without a certificate"));
}

#[test]
fn environment_values_are_named_by_their_variable() {
    let case = Case::least_and("").env(&[("READER_PASSWORD", "x"), ("PROXY_PORT", "http"), ("LOG_LEVEL", "loud")]);
    let problems = case.problems();
    assert_eq!(
        problems[0],
        "server.listen_port (environment PROXY_PORT): found \"http\"; expected a port number from 0 to 65535"
    );
    assert!(problems[1].starts_with("log.level (environment LOG_LEVEL): found \"loud\""), "{problems:?}");
}

#[test]
fn issuers_are_https_or_on_this_machine() {
    let with = |issuer: &str| Case::file(&LEAST.replace("https://idp.example/", issuer));
    for bad in ["http://idp.example", "idp.example", "https://idp.example/?a=b", "https://idp.example/#x", "ftp://x"] {
        assert!(with(bad).problem().starts_with("issuer[1].issuer (gprxy.toml:3): found"), "{bad}");
    }
    for good in ["https://idp.example", "http://localhost:9400", "http://127.0.0.1/realms/x", "http://[::1]:1"] {
        assert_eq!(with(good).problems(), [""; 0], "{good}");
    }
    let leaking = with("https://user:hunter2@idp.example/").problem();
    assert!(!leaking.contains("hunter2"), "{leaking}");
    least_and(
        "[[issuer]]\nissuer='https://b.example'\naudience='a'\njwks_url='http://b.example/keys'",
        "issuer[2].jwks_url (gprxy.toml:14): found \"http://b.example/keys\"; expected https, or http on this machine",
    );
}

#[test]
fn an_issuer_needs_a_name_and_an_audience_and_stands_once() {
    least_and(
        "[[issuer]]\naudience = 'a'",
        "issuer[2].issuer (gprxy.toml:11): found nothing; expected the issuer's URL, or auth0_tenant",
    );
    let no_audience = Case::least_and("[[issuer]]\nissuer = 'https://b.example'").problem();
    assert!(no_audience.starts_with("issuer[2].audience (gprxy.toml:11): found nothing"), "{no_audience}");
    let twice = Case::least_and("[[issuer]]\nissuer = 'https://idp.example/'\naudience = 'b'").problem();
    assert!(twice.starts_with("issuer[2].issuer (gprxy.toml:12): found \"https://idp.example/\" a second time"));
    for tenant in ["https://corp.auth0.com", "corp.auth0.com/", "a b", "x@y"] {
        let problem = Case::least_and(&format!("[[issuer]]\nauth0_tenant = '{tenant}'\naudience = 'b'")).problem();
        assert!(problem.starts_with("issuer[2].auth0_tenant (gprxy.toml:12): found"), "{problem}");
    }
    let alone = Case::least_and("").env(&[("READER_PASSWORD", "x"), ("AUTH0_TENANT", "corp.auth0.com")]).problem();
    assert!(alone.starts_with("issuer[2].audience (environment AUTH0_TENANT): found nothing"), "{alone}");
    assert!(alone.contains("environment AUDIENCE"));
}

#[test]
fn roles_need_names_and_accounts_and_stand_once() {
    least_and(
        "[[role]]\nname = 'x'",
        "role[2].account (gprxy.toml:11): found nothing; expected the name of a PostgreSQL role, 1 to 63 bytes",
    );
    least_and(
        "[[role]]\nname = ' '\naccount = 'a'",
        "role[2].name (gprxy.toml:12): found \" \"; expected the role as the tokens name it",
    );
    let long = Case::least_and(&format!("[[role]]\nname = 'x'\naccount = '{}'", "a".repeat(64))).problem();
    assert!(long.starts_with("role[2].account (gprxy.toml:13): found a longer name"), "{long}");
    least_and(
        "[[role]]\nname = 'READER '\naccount = 'a'",
        "role[2].name (gprxy.toml:12): found \"READER\" a second time (letter case does not count); expected each role once",
    );
    least_and(
        "[server]\ndefault_role = 'nobody'",
        "server.default_role (gprxy.toml:12): found \"nobody\"; expected a role that is mapped (reader)",
    );
    let env = |pairs: &[(&str, &str)]| {
        let all: Vec<_> = pairs.iter().copied().chain([("READER_PASSWORD", "x")]).collect();
        Case::least_and("").env(&all).problem()
    };
    let empty = env(&[("ROLE_MAPPING_x", ":password")]);
    assert!(empty.starts_with("role[2].account (environment ROLE_MAPPING_x): found \"\""), "{empty}");
    let unnamed = env(&[("ROLE_MAPPING_", "a:b")]);
    assert!(unnamed.starts_with("role[2].name (environment ROLE_MAPPING_): found \"\""), "{unnamed}");
    let twice = env(&[("ROLE_MAPPING_a", "a:b"), ("ROLE_MAPPING_A", "a:b")]);
    assert!(twice.contains("a second time"), "{twice}");
}

#[test]
fn an_account_has_one_password() {
    let problem = Case::least_and("[[role]]\nname = 'b'\naccount = 'app_reader'\npassword = 'other'").problem();
    assert!(problem.starts_with("role: found two passwords for the account \"app_reader\""), "{problem}");
    assert!(!problem.contains("other\"") && !problem.contains("s3cret"), "{problem}");
}

#[test]
fn a_file_that_is_not_there_or_no_toml_is_told() {
    let case = Case::empty().with_file("x");
    std::fs::remove_file(case.dir.path().join("gprxy.toml")).unwrap();
    let problems = case.problems();
    assert_eq!(
        problems.join("; "),
        "configuration file: found gprxy.toml, which cannot be read (No such file or directory); expected a readable TOML file"
    );
    let broken = Case::least_and("a = \nb = s3cret s3cret\n[sever]").problems();
    assert!(broken[0].starts_with("configuration file (gprxy.toml:11): found "), "{broken:?}");
    assert!(broken[1].starts_with("configuration file (gprxy.toml:12): found "), "{broken:?}");
    assert!(broken.iter().all(|problem| problem.starts_with("configuration file") && !problem.contains("s3cret")));
}

#[test]
fn a_second_name_for_the_same_setting_is_told() {
    let problem = Case::least_and("[tls]\nmin_version = '1.3'\ncert = 'a'\nclient_tls_cert_file = 'b'").problems();
    assert!(problem[0].contains("found a second value for cert"), "{problem:?}");
}

#[test]
fn roles_that_share_an_account_share_its_pool() {
    let role =
        |name: &str, account: &str, more: &str| format!("[[role]]\nname = '{name}'\naccount = '{account}'\n{more}\n");
    let of = |a: &str, b: &str| Case::least_and(&format!("{}{}", role("one", "shared", a), role("two", "shared", b)));
    let problem = of("pool_size = 3", "").problem();
    assert!(
        problem.contains("two kinds of pool for the account \"shared\", in the roles \"one\" and \"two\""),
        "{problem}"
    );
    assert!(of("pool_mode = 'transaction'", "pool_mode = 'session'").problem().contains("pool_mode"));
    for same in ["pool_size = 3", "query_timeout = '1s'", ""] {
        assert_eq!(of(same, same).problems(), [""; 0], "{same}");
    }
    assert_eq!(of("query_wait_timeout = '1s'", "query_timeout = '1s'").problems(), [""; 0], "of each session");
}

#[test]
fn a_peer_has_a_number_and_a_place() {
    for (text, complaint) in [
        (
            "[peers.0]\nhost = 'a'",
            "peers.0 (gprxy.toml:13): found \"0\"; expected the number of a peer from 1 to 16383",
        ),
        (
            "[peers.01]\nhost = 'a'",
            "peers.01 (gprxy.toml:13): found \"01\"; expected the number of a peer from 1 to 16383",
        ),
        (
            "[peers.16384]\nhost = 'a'",
            "peers.16384 (gprxy.toml:13): found \"16384\"; expected the number of a peer from 1 to 16383",
        ),
        (
            "[peers.2]",
            "peers.2.host (gprxy.toml:13): found nothing; expected a host name, an address or the directory of a Unix socket",
        ),
        (
            "[peers.2]\nhost = 'a'\nport = 0",
            "peers.2.port (gprxy.toml:15): found 0; expected a port number from 1 to 65535",
        ),
        ("[peers]\n2 = 'a'", "peers.2 (gprxy.toml:14): found text; expected a table [peers.N]"),
        (
            "peers = 2",
            "server.peers (gprxy.toml:13): found an unknown name; expected a setting of [server]; the nearest is peer_id",
        ),
    ] {
        least_and(&format!("[server]\npeer_id = 1\n{text}"), complaint);
    }
    least_and(
        "[server]\npeer_id = 16384",
        "server.peer_id (gprxy.toml:12): found 16384; expected the number of this process among its peers, from 0 to 16383",
    );
    let peers = "[peers.1]\nhost = '/run/one/'\nport = 5\n[peers.2]\nhost = '::1'";
    let settings = Case::least_and(&format!("[server]\npeer_id = 1\n{peers}")).settings();
    let shown: Vec<_> = settings.peers.iter().map(|(id, peer)| format!("{id} {}", peer.endpoint)).collect();
    assert_eq!(shown, ["1 /run/one/.s.PGSQL.5", "2 [::1]:7777"]);
    let alone = Case::least_and(peers).load();
    assert!(alone.warnings.iter().any(|told| told.starts_with("[peers] has no effect without peer_id")));
}
