//! Statement text with secrets in it, and choices for the pools.

use super::{Named, after};

pub(super) fn mask() -> Vec<Named> {
    let of = |text: &str| after(&[64], text);
    vec![
        ("alter-role", of("ALTER ROLE a PASSWORD 'hun''ter2' VALID UNTIL '2030-01-01'")),
        ("dollar", of("DO $a$begin execute $b$alter role a password 'hunter2'$b$; end$a$")),
        ("nested", of("DO 'begin execute ''alter role a password ''''hunter2''''''; end'")),
        ("template", of("select format('alter role %I password %L', 'bob', 'hunter2')")),
        ("uri", of("select dblink('postgresql://bob:hunt@er2@db:5432/x?password=a', 'q')")),
        ("conninfo", of(r"select dblink('host=h password=hun\ ter2 dbname=d')")),
        ("json", of(r#"select '{"name":"bob","password": "hun\"ter2"}'::json"#)),
        ("token", of("select 'Bearer eyJhbGci.eyJzdWIi.hunter2', 1")),
        ("comment", of("/* a /* b */ password 'x' */ -- password=y\nselect 1")),
        ("escapes", of(r"ALTER ROLE a PASSWORD E'a\'b' U&'\0041' x")),
        ("call", of("update t set user_password = crypt('hunter2', gen_salt('bf'))")),
        ("open", of("ALTER ROLE a PASSWORD 'never closed")),
        ("masks", of("select '***', password '***'")),
        ("deceptive", of("select '\u{202e}\u{2028}\u{85}\u{0}'")),
        ("no-utf8", after(&[3], b"password '\xff\xfe' \xc3")),
    ]
}

pub(super) fn pool() -> Vec<Named> {
    let walk = |seed: u64| {
        let mut rng = fastrand::Rng::with_seed(seed);
        (0..600).map(|_| rng.u8(..)).collect()
    };
    vec![("walk-1", walk(1)), ("walk-2", walk(2)), ("walk-3", walk(3)), ("walk-4", walk(4))]
}
