//! The story: what each person does, what must come of it, and whether it did.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use super::failure::{Doing, Result};
use super::install::{Programs, on_path};
use super::issuer::Issuer;
use super::nursery::{Finished, Nursery, Running};
use super::people::{ALICE, BOB, MALLORY, Person, abbreviated, with_role};
use super::postgres::{ALL_ROWS, Cluster, DATABASE, READABLE_ROWS, READER, WRITER, client};
use super::proxy::{HOST, Proxy};
use super::terminal::{Terminal, Tone};
use super::trail::{self, Record, Trail};

/// A statement of the story, connecting included.
const STATEMENT: Duration = Duration::from_secs(30);
/// "Within moments": from Ctrl-C to the end of the client.
const MOMENTS: Duration = Duration::from_secs(5);
/// The audit trail is written by a thread of its own, a little behind.
const TRAIL: Duration = Duration::from_secs(5);

/// Everything that the story is played with.
pub(super) struct Stage<'a> {
    /// Where it is told.
    pub(super) terminal: &'a Terminal,
    /// Where psql runs.
    pub(super) nursery: &'a Nursery,
    /// Which psql.
    pub(super) programs: &'a Programs,
    /// What is really in the database.
    pub(super) cluster: &'a Cluster,
    /// Who gives tokens.
    pub(super) issuer: &'a Issuer,
    /// What it is about.
    pub(super) proxy: &'a mut Proxy,
    /// The demo's folder.
    pub(super) home: &'a Path,
}

/// The story while it is told.
pub(super) struct Story<'a> {
    stage: Stage<'a>,
    psqlrc: PathBuf,
    step: u32,
    held: u32,
    broken: u32,
}

/// How it went.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Tally {
    /// Expectations that held.
    pub(super) held: u32,
    /// Expectations that did not.
    pub(super) broken: u32,
}

impl<'a> Story<'a> {
    /// Sets the stage; psql is asked to name the SQLSTATE with every error.
    pub(super) fn new(stage: Stage<'a>) -> Result<Self> {
        let psqlrc = stage.home.join("psqlrc");
        fs::write(&psqlrc, "\\set VERBOSITY verbose\n").doing("write psql's settings")?;
        Ok(Self { stage, psqlrc, step: 0, held: 0, broken: 0 })
    }

    /// Tells it from beginning to end.
    pub(super) fn tell(mut self) -> Result<Tally> {
        self.show_settings();
        self.alice_logs_in()?;
        self.alice_reads()?;
        self.alice_may_not_write()?;
        self.bob_writes()?;
        self.a_long_query_is_cancelled()?;
        self.bad_tokens_are_refused()?;
        self.mallory_is_not_bob()?;
        self.the_trail_tells_it_all()?;
        Ok(Tally { held: self.held, broken: self.broken })
    }

    fn alice_logs_in(&mut self) -> Result<()> {
        self.heading("Alice logs in with the token of her identity provider");
        let token = ALICE.token(self.stage.issuer)?;
        let seen = self.psql(&ALICE, &token, "select session_user, current_user")?;
        let line = format!("{READER} | {READER}");
        self.expect(
            seen.status.success() && squeezed(&seen.stdout).contains(&line),
            &format!("her role \"reader\" runs as {READER}, and PostgreSQL itself says so"),
            &format!("session_user and current_user to be {READER}"),
        )
    }

    fn alice_reads(&mut self) -> Result<()> {
        self.heading("Alice reads, and row-level security decides what");
        let token = ALICE.token(self.stage.issuer)?;
        let seen = self.psql(&ALICE, &token, "select customer, amount, state from invoices")?;
        let all = self.stage.cluster.ask("select count(*) from invoices", self.stage.nursery)?;
        let rows = seen.stdout.matches("approved").count();
        let hidden = !seen.stdout.contains("draft");
        self.expect(
            seen.status.success() && rows == READABLE_ROWS && hidden && all == ALL_ROWS.to_string(),
            &format!("{READABLE_ROWS} of the {ALL_ROWS} rows: the policy for {READER} hides drafts"),
            &format!("the {READABLE_ROWS} approved invoices out of {ALL_ROWS}, and no draft"),
        )
    }

    fn alice_may_not_write(&mut self) -> Result<()> {
        self.heading("Alice tries to write");
        let token = ALICE.token(self.stage.issuer)?;
        let sql = "insert into invoices (customer, amount) values ('Alice', 9999)";
        let seen = self.psql(&ALICE, &token, sql)?;
        self.expect(
            !seen.status.success() && seen.stderr.contains("42501"),
            "refused by PostgreSQL's own privileges (42501): gprxy adds none and takes none away",
            "PostgreSQL's error 42501, permission denied",
        )
    }

    fn bob_writes(&mut self) -> Result<()> {
        self.heading("Bob, a writer, does the same");
        let token = BOB.token(self.stage.issuer)?;
        let sql = "insert into invoices (customer, amount) values ('Initech', 120) returning id, session_user";
        let seen = self.psql(&BOB, &token, sql)?;
        let written = self
            .stage
            .cluster
            .ask("select count(*) from invoices where customer in ('Alice', 'Initech')", self.stage.nursery)?;
        self.expect(
            seen.status.success() && seen.stdout.contains(WRITER) && written == "1",
            &format!("written as {WRITER}; the table has his row and not hers"),
            &format!("one new row, written as {WRITER}"),
        )
    }

    fn a_long_query_is_cancelled(&mut self) -> Result<()> {
        const SLEEPING: &str = "select count(*) from pg_stat_activity \
                                where state = 'active' and query = 'select pg_sleep(60)'";
        self.heading("Bob starts a query of a minute, and presses Ctrl-C");
        let token = BOB.token(self.stage.issuer)?;
        let mut running = self.begin_psql(&BOB, &token, "select pg_sleep(60)")?;
        let started = Instant::now();
        while self.stage.cluster.ask(SLEEPING, self.stage.nursery)? != "1" {
            if running.ended() || started.elapsed() > STATEMENT {
                let seen = running.finish(self.stage.nursery, MOMENTS)?;
                self.stage.terminal.output(&seen.transcript());
                return self.expect(false, "", "PostgreSQL to run the query until it is cancelled");
            }
            self.stage.nursery.pause()?;
        }
        self.stage.terminal.laid_out(Tone::Command, "^C");
        let pressed = Instant::now();
        running.signal(Signal::INT);
        let seen = running.finish(self.stage.nursery, STATEMENT)?;
        let took = pressed.elapsed();
        self.stage.terminal.output(&without_location(&seen.transcript()));
        let left = self.stage.cluster.ask(SLEEPING, self.stage.nursery)?;
        self.expect(
            seen.stderr.contains("57014") && took < MOMENTS && left == "0",
            &format!("cancelled in PostgreSQL (57014) after {} ms", took.as_millis()),
            &format!("error 57014 within {} s, and no such query left in PostgreSQL", MOMENTS.as_secs()),
        )
    }

    fn bad_tokens_are_refused(&mut self) -> Result<()> {
        self.heading("Tokens that prove nothing");
        let genuine = ALICE.token(self.stage.issuer)?;
        let edited = with_role(&genuine, "writer")?;
        self.stage.terminal.note("Alice makes herself a writer in her token's claims; the signature stays as it was.");
        self.expect_refusal(&ALICE, &edited, "28P01", "an edited token")?;
        self.stage.terminal.gap();
        self.stage.terminal.note("Alice comes with the token of an hour ago.");
        let expired = ALICE.expired_token(self.stage.issuer)?;
        self.expect_refusal(&ALICE, &expired, "28P01", "an expired token")
    }

    fn mallory_is_not_bob(&mut self) -> Result<()> {
        self.heading("Mallory has a good token of her own, and says that she is Bob");
        let token = MALLORY.token(self.stage.issuer)?;
        self.expect_refusal(&BOB, &token, "28000", "somebody else's name")
    }

    fn the_trail_tells_it_all(&mut self) -> Result<()> {
        self.heading("And all of it stands in the audit trail, under verified names");
        let path = self.stage.proxy.audit().to_owned();
        let trail = self.trail_when(|trail| missing(&trail.records).is_empty())?;
        self.stage.terminal.gap();
        trail::print(&trail.records, self.stage.terminal);
        self.stage.terminal.gap();
        let missing = missing(&trail.records);
        self.expect(
            missing.is_empty(),
            &format!("one JSON line per statement and refusal, in {}", path.display()),
            &format!("the trail to hold {}", missing.join("; ")),
        )?;
        // Every token and every part of one that could be used begins with these letters: base64 of `{"`.
        let leaked = trail.text.contains("eyJ");
        self.expect(!leaked, "no token in it, not even a part of one", "no token in the audit trail")
    }

    /// A login that must fail: psql's status, its message, and the SQLSTATE in the trail (psql does not show the
    /// SQLSTATE of a failed connection).
    fn expect_refusal(&mut self, claimed: &Person, token: &str, code: &str, what: &str) -> Result<()> {
        let refusals = |trail: &Trail| {
            let records = trail.records.iter();
            records.filter(|record| record.is_refusal() && record.error() == Some(code)).count()
        };
        let before = refusals(&Trail::read(self.stage.proxy.audit())?);
        let seen = self.psql(claimed, token, "select 'in'")?;
        let recorded = refusals(&self.trail_when(|trail| refusals(trail) > before)?) > before;
        self.expect(
            seen.status.code() == Some(2) && seen.stderr.contains("FATAL") && recorded,
            &format!("{what} opens nothing ({code})"),
            &format!("psql to end with status 2 and a FATAL error, recorded as {code}"),
        )
    }

    /// Reads the trail until it is as it should be, or for as long as its writer may be behind.
    fn trail_when(&mut self, complete: impl Fn(&Trail) -> bool) -> Result<Trail> {
        let started = Instant::now();
        loop {
            let trail = Trail::read(self.stage.proxy.audit())?;
            if complete(&trail) || started.elapsed() > TRAIL {
                return Ok(trail);
            }
            self.stage.nursery.pause()?;
        }
    }

    fn heading(&mut self, text: &str) {
        self.step += 1;
        self.stage.terminal.heading(self.step, text);
    }

    /// Counts and prints an expectation. A proxy that has died ends the story here, with its log.
    fn expect(&mut self, held: bool, proven: &str, expected: &str) -> Result<()> {
        if held {
            self.held += 1;
            self.stage.terminal.held(proven);
            return Ok(());
        }
        self.broken += 1;
        self.stage.terminal.broken(&format!("expected {expected}"));
        self.stage.proxy.check()
    }

    /// Shows the command, runs it, shows what it printed.
    fn psql(&mut self, person: &Person, token: &str, sql: &str) -> Result<Finished> {
        let finished = self.begin_psql(person, token, sql)?.finish(self.stage.nursery, STATEMENT)?;
        self.stage.terminal.output(&without_location(&finished.transcript()));
        Ok(finished)
    }

    /// The token goes through the environment: the arguments of a process can be read by everybody.
    fn begin_psql(&mut self, person: &Person, token: &str, sql: &str) -> Result<Running> {
        let email = person.email;
        let shown = abbreviated(token);
        let parts = [&format!("PGPASSWORD={shown} psql -U {email}"), &format!("-c \"{sql}\"")];
        self.stage.terminal.command(&parts.map(String::as_str));
        let mut command: Command = client(&self.stage.programs.psql);
        command.args(["-U", email, "-c", sql]).env("PGPASSWORD", token);
        command.envs(self.settings());
        self.stage.nursery.begin(command)
    }

    /// What all commands of the story share. The address saves psql a try on `::1`, where gprxy does not listen.
    fn settings(&self) -> Vec<(&'static str, String)> {
        let mut settings = vec![
            ("PGHOST", HOST.to_owned()),
            ("PGHOSTADDR", "127.0.0.1".to_owned()),
            ("PGPORT", self.stage.proxy.port().to_string()),
            ("PGDATABASE", DATABASE.to_owned()),
            ("PSQLRC", self.psqlrc.display().to_string()),
        ];
        if self.stage.programs.psql_has_tls {
            settings.push(("PGSSLMODE", "verify-full".to_owned()));
            settings.push(("PGSSLROOTCERT", self.stage.proxy.authority().display().to_string()));
        }
        settings
    }

    fn show_settings(&self) {
        self.stage.terminal.chapter("The client: psql, as it is");
        let settings = self.settings().into_iter().map(|(name, value)| format!("{name}={value}"));
        let mut words: Vec<String> = std::iter::once("export".to_owned()).chain(settings).collect();
        if on_path("psql").is_none_or(|found| !same_file(&found, &self.stage.programs.psql)) {
            let folder = self.stage.programs.psql.parent().unwrap_or(Path::new("/"));
            words.push(format!("PATH={}:$PATH", folder.display()));
        }
        self.stage.terminal.command(&words.iter().map(String::as_str).collect::<Vec<_>>());
    }
}

/// How to log in from another terminal: the parts of a command that can be copied.
pub(super) fn login_command(person: &Person, token_file: &Path, programs: &Programs, proxy: &Proxy) -> [String; 2] {
    let on_path = on_path("psql").is_some_and(|found| same_file(&found, &programs.psql));
    let psql = if on_path { "psql".to_owned() } else { programs.psql.display().to_string() };
    let tls = if programs.psql_has_tls {
        format!(" sslmode=verify-full sslrootcert={}", proxy.authority().display())
    } else {
        String::new()
    };
    let (port, email) = (proxy.port(), person.email);
    [
        format!("PGPASSWORD=$(cat {}) {psql}", token_file.display()),
        format!("\"host={HOST} port={port} dbname={DATABASE} user={email}{tls}\""),
    ]
}

/// What the trail does not hold and should.
fn missing(records: &[Record]) -> Vec<&'static str> {
    let statement = |person: &Person, account: &str, text: &str, error: Option<&str>| {
        records.iter().any(|record| {
            record.user.as_deref() == Some(person.email)
                && record.account.as_deref() == Some(account)
                && record.statement.as_deref().is_some_and(|statement| statement.starts_with(text))
                && record.error() == error
        })
    };
    let refused = |code: &str, times: usize| {
        records.iter().filter(|record| record.is_refusal() && record.error() == Some(code)).count() >= times
    };
    let mut missing = Vec::new();
    let mut want = |there: bool, what| {
        if !there {
            missing.push(what);
        }
    };
    want(statement(&ALICE, READER, "select session_user", None), "Alice's first query");
    want(statement(&ALICE, READER, "select customer", None), "what Alice read");
    want(statement(&ALICE, READER, "insert", Some("42501")), "Alice's refused write");
    want(statement(&BOB, WRITER, "insert", None), "Bob's write");
    want(statement(&BOB, WRITER, "select pg_sleep", Some("57014")), "Bob's cancelled query");
    want(refused("28P01", 2), "two refused tokens (28P01)");
    want(refused("28000", 1), "Mallory's refused login (28000)");
    missing
}

/// psql's verbose errors name the line of PostgreSQL's source too, which is nothing to show.
fn without_location(text: &str) -> String {
    let lines = text.lines().filter(|line| !line.starts_with("LOCATION:"));
    lines.map(|line| format!("{line}\n")).collect()
}

fn squeezed(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

fn same_file(one: &Path, other: &Path) -> bool {
    matches!((one.canonicalize(), other.canonicalize()), (Ok(one), Ok(other)) if one == other)
}
