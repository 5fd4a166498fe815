//! Puts the parts on the stage in order, has the story told, and clears up.

use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::ExitCode;
use std::sync::mpsc;
use std::thread;
use std::time::Instant;

use tempfile::TempDir;

use super::DemoArgs;
use super::failure::{Doing, Failure, Result};
use super::install::{Programs, programs};
use super::issuer::Issuer;
use super::nursery::Nursery;
use super::people::{ALICE, BOB};
use super::postgres::{Cluster, write_private};
use super::proxy::{HOST, Proxy};
use super::story::{Stage, Story, Tally, login_command};
use super::terminal::Terminal;
use super::trail::{self, Trail};

/// As shells report a program that SIGINT ended.
const INTERRUPTED: u8 = 130;

/// Runs everything and says how it went.
pub(super) fn run(args: &DemoArgs) -> ExitCode {
    let terminal = Terminal::detect();
    terminal.title("gprxy demo", "PostgreSQL behind single sign-on");
    let outcome = on_a_stage(args, &terminal);
    terminal.gap();
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failure::Interrupted) => {
            terminal.notice("Interrupted. Everything that was started has been stopped.");
            ExitCode::from(INTERRUPTED)
        }
        Err(Failure::Broken(message)) => {
            eprintln!("gprxy demo: {message}");
            ExitCode::FAILURE
        }
    }
}

/// Everything below is dropped in reverse order: gprxy, issuer, PostgreSQL, the watcher, and the folder last.
fn on_a_stage(args: &DemoArgs, terminal: &Terminal) -> Result<()> {
    let started = Instant::now();
    let home = Home::create(args.keep)?;
    let nursery = Nursery::new((!args.keep).then(|| home.path()))?;
    let programs = programs(args.postgres_bin.as_deref(), !args.no_install, &nursery, terminal)?;
    let cluster = Cluster::start(&programs, home.path(), &nursery)?;
    let (version, port) = (&programs.version, cluster.port());
    terminal.ready("PostgreSQL", &format!("{version} on 127.0.0.1:{port}, from {}", programs.bin.display()));
    let issuer = Issuer::start()?;
    terminal.ready("Issuer", &format!("{}, for development only", issuer.url()));
    let mut proxy = Proxy::start(args, &cluster, &issuer, home.path(), &nursery)?;
    terminal.ready("gprxy", &format!("{HOST}:{}, with TLS", proxy.port()));
    say_when_in_clear(&programs, terminal);
    let stage = Stage {
        terminal,
        nursery: &nursery,
        programs: &programs,
        cluster: &cluster,
        issuer: &issuer,
        proxy: &mut proxy,
        home: home.path(),
    };
    let tally = Story::new(stage)?.tell()?;
    conclude(tally, &proxy, started, terminal)?;
    if terminal.interactive() {
        stay(&mut proxy, &issuer, &programs, home.path(), &nursery, terminal)?;
    }
    home.farewell(terminal);
    Ok(())
}

fn say_when_in_clear(programs: &Programs, terminal: &Terminal) {
    if !programs.psql_has_tls {
        terminal.notice(&format!(
            "{} was built without TLS, so it speaks to gprxy in clear. gprxy allows that on the loopback interface \
             only; elsewhere it asks for no token without TLS.",
            programs.psql.display()
        ));
    }
}

fn conclude(tally: Tally, proxy: &Proxy, started: Instant, terminal: &Terminal) -> Result<()> {
    terminal.gap();
    let Tally { held, broken } = tally;
    if broken == 0 {
        terminal.ready("Done", &format!("{held} of {held} as expected, in {:.1} s", started.elapsed().as_secs_f32()));
        return Ok(());
    }
    let all = held + broken;
    Err(Failure::broken(format!(
        "{broken} of {all} expectations did not hold; they are marked with ✗\n{}",
        proxy.log_tail()
    )))
}

/// Leaves everything running for a person to try, until Enter, Ctrl-C or the end of the input.
fn stay(
    proxy: &mut Proxy,
    issuer: &Issuer,
    programs: &Programs,
    home: &Path,
    nursery: &Nursery,
    terminal: &Terminal,
) -> Result<()> {
    terminal.chapter("Your turn: everything is still up. In another terminal, as Alice or as Bob:");
    for person in [ALICE, BOB] {
        let file = home.join(format!("{}.token", person.name));
        write_private(&file, &person.token(issuer)?)?;
        terminal.gap();
        terminal.command(&login_command(&person, &file, programs, proxy).each_ref().map(String::as_str));
    }
    terminal.gap();
    terminal.note(&format!("The audit trail grows in {}", proxy.audit().display()));
    terminal.note("Press Enter or Ctrl-C to stop and remove everything.");
    let before = Trail::read(proxy.audit())?.records.len();
    wait_for_enter(proxy, nursery)?;
    let records = Trail::read(proxy.audit())?.records;
    let new = records.get(before..).unwrap_or_default();
    if new.iter().any(|record| record.is_statement() || record.is_refusal()) {
        terminal.chapter("What you did");
        terminal.gap();
        trail::print(new, terminal);
    }
    Ok(())
}

/// A read of the terminal cannot be given up, so a thread makes it; it ends with the process.
fn wait_for_enter(proxy: &mut Proxy, nursery: &Nursery) -> Result<()> {
    let (pressed, enter) = mpsc::channel();
    thread::spawn(move || {
        // An error counts as the end of the input.
        let _ = io::stdin().read_line(&mut String::new());
        let _ = pressed.send(());
    });
    loop {
        match nursery.pause() {
            Err(Failure::Interrupted) => return Ok(()),
            other => other?,
        }
        if !matches!(enter.try_recv(), Err(mpsc::TryRecvError::Empty)) {
            return Ok(());
        }
        proxy.check()?;
    }
}

/// The demo's folder, removed at the end unless it is to be kept.
struct Home {
    folder: TempDir,
    keep: bool,
}

impl Home {
    /// Others may pass through (the server runs as another user when the demo runs as root) and not look around.
    fn create(keep: bool) -> Result<Self> {
        let mut builder = tempfile::Builder::new();
        let folder = builder
            .prefix("gprxy-demo-")
            .permissions(Permissions::from_mode(0o711))
            .disable_cleanup(keep)
            .tempdir()
            .doing(format_args!("create a folder in {}", std::env::temp_dir().display()))?;
        // The mode above went through the umask.
        fs::set_permissions(folder.path(), Permissions::from_mode(0o711)).doing("open the demo's folder")?;
        Ok(Self { folder, keep })
    }

    fn path(&self) -> &Path {
        self.folder.path()
    }

    fn farewell(&self, terminal: &Terminal) {
        if self.keep {
            terminal.ready("Kept", &self.path().display().to_string());
        }
    }
}
