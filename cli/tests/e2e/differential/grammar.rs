//! Makes scripts by dice: what drivers do, what they never would, and what PostgreSQL refuses.

use fastrand::Rng;

use super::script::{End, Say, Step};

const STATEMENTS: [&str; 4] = ["", "s1", "s2", "S 3"];
const PORTALS: [&str; 3] = ["", "p1", "p2"];

/// Statements with as many parameters as given. What they leave behind shows in what a later one says.
const PREPARED: [(&str, usize); 43] = [
    ("select $1::int4 + 1", 1),
    ("select $1::text || 'x', $2::int8", 2),
    ("select 'bob s'", 0),
    ("select 1", 0),
    ("select generate_series(1, 7)", 0),
    ("select id, v from t order by id", 0),
    ("select v from t where id = $1", 1),
    ("insert into t values ($1, $2)", 2),
    ("insert into t values (1, 'twice')", 0),
    ("update t set v = $1::text || id returning id, v", 1),
    ("delete from t where id > $1", 1),
    ("insert into u values (100, 200)", 0),
    ("select $1::int4 / $2::int4", 2),
    ("selec", 0),
    ("select * from nowhere", 0),
    ("", 0),
    ("select 1; select 2", 0),
    ("begin", 0),
    ("commit", 0),
    ("rollback", 0),
    ("savepoint a", 0),
    ("rollback to a", 0),
    ("set timezone = 'Asia/Tokyo'", 0),
    ("set local datestyle = 'SQL, DMY'", 0),
    ("set application_name = 'it''s \\ mine'", 0),
    ("set default_transaction_read_only = off", 0),
    ("set work_mem = '5MB'", 0),
    ("reset timezone", 0),
    ("show timezone", 0),
    ("show datestyle", 0),
    ("show application_name", 0),
    ("show work_mem", 0),
    ("copy t to stdout", 0),
    ("declare c cursor for select * from t order by id", 0),
    ("fetch 2 from c", 0),
    ("close c", 0),
    ("prepare q as select 'by sql ' || $1::int4", 0),
    ("listen ch", 0),
    ("notify ch, 'heard'", 0),
    ("do $$ begin raise notice 'noted %', 1; end $$", 0),
    ("create temp table if not exists tt (n int)", 0),
    ("select count(*) from tt", 0),
    ("values (1, 'ä'), (2, null)", 0),
];

/// For simple queries, beside those above.
const SIMPLE: [&str; 70] = [
    "begin",
    "begin",
    "start transaction isolation level serializable, read only",
    "commit",
    "commit",
    "rollback",
    "end and chain",
    "savepoint a",
    "savepoint b",
    "rollback to savepoint a",
    "release savepoint a",
    "abort",
    "select 1/0",
    "select 1, null, 'x'",
    "select id, v from t order by id",
    "insert into t select n, 'row' from generate_series(10, 14) n on conflict do nothing",
    "insert into u values (7, 8)",
    "delete from t where id > 3",
    "update t set v = 'changed' where id = 1",
    "select repeat('large ', 4000)",
    "select * from nowhere",
    "selec",
    "",
    ";",
    " ; ; ",
    "-- nothing",
    "set timezone = 'Asia/Tokyo'",
    "set timezone to 'Europe/Rome'",
    "set time zone 3",
    "set datestyle = 'German, DMY'",
    "set local timezone = 'America/Lima'",
    "set local intervalstyle = 'iso_8601'",
    "set intervalstyle = 'sql_standard'",
    "set application_name = 'ours'",
    "set application_name to E'quo\\'ted \\\\ \"name\"'",
    "set application_name = ''",
    "set client_encoding = 'latin1'",
    "set names 'utf8'",
    "set standard_conforming_strings = off",
    "set default_transaction_read_only = on",
    "set default_transaction_read_only = off",
    "set session characteristics as transaction read write",
    "set search_path = pg_catalog, public",
    "set nonsense = 1",
    "set timezone = 'Nowhere/Land'",
    "select set_config('timezone', 'Asia/Kolkata', true)",
    "select set_config('my.own', 'x', false), current_setting('my.own', true)",
    "reset timezone",
    "reset datestyle",
    "reset all",
    "discard plans",
    "discard temp",
    "discard all",
    "deallocate all",
    "deallocate s1",
    "execute q(1)",
    "prepare q as select 'by sql ' || $1::int4",
    "deallocate \"S 3\"",
    "deallocate nobody",
    "close all",
    "unlisten *",
    "reset role",
    "set role app_writer",
    "select current_user, session_user",
    "declare h cursor with hold for select id from t order by id",
    "fetch 1 from h",
    "select pg_advisory_lock(5)",
    "select pg_advisory_unlock_all()",
    "drop table if exists u2; create table u2 (n int)",
    "do $$ begin raise warning 'careful'; raise notice 'noted'; end $$",
];

pub(super) struct Dice(Rng);

impl Dice {
    pub(super) fn new(seed: u64) -> Self {
        Self(Rng::with_seed(seed))
    }

    pub(super) fn one_in(&mut self, n: u32) -> bool {
        self.0.u32(..n) == 0
    }

    pub(super) fn of<'a, T: ?Sized>(&mut self, all: &[&'a T]) -> &'a T {
        all[self.0.usize(..all.len())]
    }

    pub(super) fn below(&mut self, n: usize) -> usize {
        self.0.usize(..n)
    }

    /// A whole session.
    pub(super) fn script(&mut self) -> Vec<Step> {
        let mut steps: Vec<Step> = (0..4 + self.below(14)).map(|_| self.step()).collect();
        for step in &mut steps {
            if self.one_in(4) {
                step.cuts = (0..1 + self.below(3)).map(|_| self.0.u8(..100)).collect();
                step.cuts.sort_unstable();
            }
        }
        steps.extend(epilogue());
        steps
    }

    fn step(&mut self) -> Step {
        match self.below(20) {
            0..=5 => Step::new(vec![self.simple()]),
            6..=14 => self.extended(),
            15 => self.copy_simple(),
            16 => self.copy_extended(),
            17 => self.several(),
            18 if self.one_in(3) => self.freeing(),
            18 => self.mixed(),
            _ => self.large(),
        }
    }

    fn sql(&mut self) -> String {
        if self.one_in(3) {
            PREPARED[self.below(PREPARED.len())].0.replace("$1", "4").replace("$2", "5")
        } else {
            self.of(&SIMPLE).to_owned()
        }
    }

    fn simple(&mut self) -> Say {
        let all: Vec<String> = (0..[1, 1, 1, 2, 3][self.below(5)]).map(|_| self.sql()).collect();
        let comment = if self.one_in(20) { "/* why */ " } else { "" };
        Say::Query(comment.to_owned() + &all.join("; "))
    }

    fn statement(&mut self) -> String {
        if self.one_in(40) { "x".repeat(70) } else { self.of(&STATEMENTS).to_owned() }
    }

    fn portal(&mut self) -> String {
        if self.one_in(40) { "unknown".to_owned() } else { self.of(&PORTALS).to_owned() }
    }

    fn parse(&mut self, name: String) -> (Say, usize) {
        let (sql, parameters) = PREPARED[self.below(PREPARED.len())];
        (Say::Parse { name, sql: sql.to_owned() }, parameters)
    }

    fn bind(&mut self, portal: String, statement: String, parameters: usize) -> Say {
        let parameters = if self.one_in(15) { self.below(4) } else { parameters };
        let values: Vec<_> = (0..parameters).map(|_| self.value()).collect();
        let formats = match self.below(12) {
            0 => vec![1; parameters],
            1 => vec![0; parameters],
            2 => vec![7],
            3 => vec![0, 1, 0],
            _ => Vec::new(),
        };
        let results = if self.one_in(5) { vec![1] } else { Vec::new() };
        Say::Bind { portal, statement, values, formats, results }
    }

    fn value(&mut self) -> Option<Vec<u8>> {
        let text: &[u8] =
            self.of(&[b"1" as &[u8], b"2", b"3", b"0", b"-7", b"word", b"", b"\0\0\0\x05", "ü".as_bytes()]);
        (!self.one_in(12)).then(|| text.to_vec())
    }

    /// Parse, Bind, Describe, Execute and Close of one statement, or some of them.
    fn unit(&mut self, says: &mut Vec<Say>) {
        let (statement, portal) = (self.statement(), self.portal());
        let mut parameters = self.below(3);
        let again = statement.is_empty() && has_unnamed(says);
        if !again && !self.one_in(3) {
            if !statement.is_empty() && self.one_in(3) {
                says.push(Say::Close { kind: 'S', name: statement.clone() });
            }
            let (parse, of_it) = self.parse(statement.clone());
            parameters = of_it;
            says.push(parse);
        }
        if self.one_in(4) {
            says.push(Say::Describe { kind: 'S', name: statement.clone() });
        }
        if self.one_in(8) {
            return;
        }
        says.push(self.bind(portal.clone(), statement.clone(), parameters));
        if self.one_in(2) {
            says.push(Say::Describe { kind: 'P', name: portal.clone() });
        }
        if self.one_in(12) {
            return;
        }
        let rows = [0, 0, 0, 1, 3][self.below(5)];
        says.push(Say::Execute { portal: portal.clone(), rows });
        if rows > 0 && self.one_in(2) {
            says.push(Say::Execute { portal: portal.clone(), rows: [0, 2][self.below(2)] });
        }
        if self.one_in(5) {
            says.push(Say::Close { kind: 'P', name: portal });
        }
        if self.one_in(6) {
            says.push(Say::Close { kind: 'S', name: statement });
        }
    }

    fn extended(&mut self) -> Step {
        let mut says = Vec::new();
        for _ in 0..1 + self.below(4) {
            self.unit(&mut says);
        }
        says.push(if self.one_in(5) { Say::Flush } else { Say::Sync });
        Step::new(says)
    }

    /// Several transactions in flight.
    fn several(&mut self) -> Step {
        let mut says = Vec::new();
        for _ in 0..2 + self.below(4) {
            if self.one_in(3) {
                // Behind an error without a Sync it would be swallowed, and its ReadyForQuery.
                says.push(Say::Sync);
                says.push(self.simple());
            } else {
                self.unit(&mut says);
                says.push(Say::Sync);
            }
        }
        says.push(Say::Sync);
        Step::new(says)
    }

    /// Simple queries in the middle of what has no Sync yet.
    fn mixed(&mut self) -> Step {
        let mut says = Vec::new();
        for _ in 0..2 + self.below(3) {
            self.unit(&mut says);
            if self.one_in(2) {
                says.push(self.simple());
            }
        }
        says.push(Say::Sync);
        let marker = format!("the end {}", self.0.u32(..));
        says.push(Say::Query("rollback".to_owned()));
        says.push(Say::Query(format!("select '{marker}'")));
        Step { says, end: End::Marker(marker), cuts: Vec::new() }
    }

    /// Names are free again behind this, in the same pipeline.
    fn freeing(&mut self) -> Step {
        let sql =
            self.of(&["deallocate all", "deallocate s1", "/* all */ discard all", "deallocate \"S 3\""]).to_owned();
        let (portal, statement) = (String::new(), String::new());
        let mut says = vec![
            Say::Sync,
            Say::Parse { name: String::new(), sql },
            Say::Bind { portal, statement, values: Vec::new(), formats: Vec::new(), results: Vec::new() },
            Say::Execute { portal: String::new(), rows: 0 },
        ];
        let (parse, parameters) = self.parse("s1".to_owned());
        says.push(parse);
        says.push(self.bind("p1".to_owned(), "s1".to_owned(), parameters));
        says.push(Say::Sync);
        Step::new(says)
    }

    fn copy_rows(&mut self, says: &mut Vec<Say>) {
        for n in 0..self.below(4) {
            let row = if self.one_in(8) { "no number\tx\n".to_owned() } else { format!("{}\tcopied\n", 20 + n) };
            says.push(Say::CopyData(row.into_bytes()));
        }
        says.push(if self.one_in(3) { Say::CopyFail } else { Say::CopyDone });
    }

    fn copy_simple(&mut self) -> Step {
        let sql = self.of(&[
            "copy t from stdin",
            "copy nowhere from stdin",
            "copy t (id) from stdin with (format csv)",
            "begin; copy t from stdin; commit",
        ]);
        let mut says = vec![Say::Sync, Say::Query(sql.to_owned())];
        self.copy_rows(&mut says);
        Step::new(says)
    }

    fn copy_extended(&mut self) -> Step {
        // A name of its own: bound by chance, it would swallow the Sync of a step that has no data for it.
        let statement = "copier".to_owned();
        let mut says = vec![
            Say::Sync,
            Say::Close { kind: 'S', name: statement.clone() },
            Say::Parse { name: statement.clone(), sql: "copy t from stdin".to_owned() },
            self.bind(String::new(), statement, 0),
            Say::Execute { portal: String::new(), rows: 0 },
        ];
        self.copy_rows(&mut says);
        says.push(Say::Sync);
        Step::new(says)
    }

    /// Parse, Bind and rows that are larger than any buffer.
    fn large(&mut self) -> Step {
        let name = self.statement();
        let (sql, values) = match self.below(16) {
            0 => {
                let all: Vec<String> = (1..=65_535).map(|n| format!("${n}")).collect();
                (format!("select array_length(array[{}]::int4[], 1)", all.join(",")), vec![Some(b"1".to_vec()); 65_535])
            }
            1..=5 => (format!("select length('{}')", "l".repeat(13_000 + self.below(60_000))), Vec::new()),
            6..=10 => ("select $1::text".to_owned(), vec![Some(vec![b'v'; 70_000])]),
            _ => ("select n, repeat('r', n) from generate_series(1000, 1040) n".to_owned(), Vec::new()),
        };
        // Without a name and too long to be kept, it is gone with the transaction.
        let lasts = !name.is_empty() || sql.len() < 12_000;
        let (portal, statement, rows) = (String::new(), name.clone(), [0, 5][self.below(2)]);
        let mut says = vec![
            Say::Close { kind: 'S', name: name.clone() },
            Say::Parse { name: name.clone(), sql },
            Say::Describe { kind: 'S', name: name.clone() },
            Say::Bind { portal, statement, values, formats: Vec::new(), results: Vec::new() },
            Say::Execute { portal: String::new(), rows },
        ];
        if !lasts {
            says.push(Say::Close { kind: 'S', name });
        }
        says.push(Say::Sync);
        Step::new(says)
    }
}

/// Whether the unnamed statement is made anew since the last Sync: of several in one pipeline, gprxy knows the last.
fn has_unnamed(says: &[Say]) -> bool {
    let open = says.iter().rev().take_while(|say| !matches!(say, Say::Sync));
    open.into_iter().any(|say| matches!(say, Say::Parse { name, .. } if name.is_empty()))
}

/// What every session ends with: all that it may have left is asked for.
fn epilogue() -> Vec<Step> {
    let mut steps = vec![Step::new(vec![Say::Sync]), Step::new(vec![Say::Query("rollback".to_owned())])];
    for name in STATEMENTS.iter().rev() {
        steps.push(Step::new(vec![Say::Describe { kind: 'S', name: (*name).to_owned() }, Say::Sync]));
    }
    for setting in ["timezone", "datestyle", "intervalstyle", "application_name", "client_encoding", "work_mem"] {
        steps.push(Step::new(vec![Say::Query(format!("show {setting}"))]));
    }
    for sql in ["select current_user", "select count(*) from tt", "select id, v from t order by id", "execute q(2)"] {
        steps.push(Step::new(vec![Say::Query(sql.to_owned())]));
    }
    steps
}
