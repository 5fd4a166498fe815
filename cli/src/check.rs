//! `gprxy check`: what holds, where it comes from, and whether everything that is named there answers.

use std::collections::BTreeSet;
use std::io::Write;
use std::process::ExitCode;
use std::thread;

use gprxy_proto::policy::{Account, Database, Endpoint};

use crate::config::{self, IssuerConfig, Settings, Sources};
use crate::{EX_UNAVAILABLE, logging, refuse};

mod issuer;
mod login;
mod server;

/// Runs the command. Standard output is TOML all through: what was tried stands in comments.
pub(crate) fn run(sources: &Sources, offline: bool) -> ExitCode {
    let loaded = config::load(sources);
    // A closed pipe (`| head`) is no reason to fail.
    let _ = write!(std::io::stdout(), "{}", loaded.effective);
    for warning in &loaded.warnings {
        eprintln!("gprxy: warning: {warning}");
    }
    match loaded.settings {
        Err(problems) => refuse(&problems),
        Ok(_) if offline => ExitCode::SUCCESS,
        Ok(settings) => report(&try_all(&probes(&settings))),
    }
}

/// One thing that is tried. A new kind of trial is one more variant with its words and its function.
enum Probe<'s> {
    /// Discovery and keys of an issuer.
    Issuer(&'s IssuerConfig),
    /// A database server accepts connections and speaks PostgreSQL.
    Server { name: &'s str, database: &'s Database, endpoint: &'s Endpoint },
    /// A database lets an account in.
    Login { name: &'s str, database: &'s Database, account: Account },
}

/// What came of a trial: what was seen, or why it failed.
type Outcome = Result<String, String>;

impl Probe<'_> {
    fn subject(&self) -> String {
        match self {
            Self::Issuer(issuer) => format!("issuer {}", issuer.issuer),
            Self::Server { name, endpoint, .. } => format!("database {name} at {endpoint}"),
            Self::Login { name, account, .. } => format!("database {name} as {}", account.name),
        }
    }

    fn attempt(&self) -> Outcome {
        match self {
            Self::Issuer(issuer) => issuer::probe(issuer),
            Self::Server { database, endpoint, .. } => server::probe(database, endpoint),
            Self::Login { name, database, account } => login::probe(name, database, account),
        }
    }
}

/// The accounts that are tried: `GPRXY_USER` where it is set, else all that roles run as.
fn accounts(settings: &Settings) -> Vec<Account> {
    if let Some(account) = &settings.check_account {
        return vec![Account { name: account.name.clone(), password: account.password.clone() }];
    }
    // Users of a list log in themselves; not of every one of them a password is known.
    if !settings.access.proof.is_token() {
        return Vec::new();
    }
    let mut seen = BTreeSet::new();
    let mapped = settings.roles.mappings.iter().filter(|mapping| seen.insert(mapping.account.clone()));
    mapped.map(Into::into).collect()
}

fn probes(settings: &Settings) -> Vec<Probe<'_>> {
    let issuers = settings.issuers.iter().map(Probe::Issuer);
    let servers = settings.databases.iter().flat_map(|(name, database)| {
        database.endpoints.iter().map(move |endpoint| Probe::Server { name, database, endpoint })
    });
    let logins = settings.databases.iter().flat_map(|(name, database)| {
        let forced =
            database.account.as_ref().map(|it| Account { name: it.name.clone(), password: it.password.clone() });
        let accounts = forced.map_or_else(|| accounts(settings), |forced| vec![forced]);
        accounts.into_iter().map(move |account| Probe::Login { name, database, account })
    });
    issuers.chain(servers).chain(logins).collect()
}

/// All at once, so that the slowest decides and not the sum; the order stays.
fn try_all(probes: &[Probe<'_>]) -> Vec<(String, Outcome)> {
    // Enough for any sane configuration at once, and no thousand threads for a long one.
    const AT_ONCE: usize = 16;
    let mut outcomes = Vec::with_capacity(probes.len());
    for batch in probes.chunks(AT_ONCE) {
        thread::scope(|scope| {
            let trials: Vec<_> = batch.iter().map(|probe| scope.spawn(|| probe.attempt())).collect();
            for (probe, trial) in batch.iter().zip(trials) {
                let outcome = trial.join().unwrap_or_else(|_| Err("the trial itself failed".into()));
                outcomes.push((probe.subject(), outcome));
            }
        });
    }
    outcomes
}

fn report(outcomes: &[(String, Outcome)]) -> ExitCode {
    let mut out = std::io::stdout().lock();
    let _ = writeln!(out);
    for (subject, outcome) in outcomes {
        let (verdict, words) = match outcome {
            Ok(words) => ("ok", words),
            Err(words) => ("failed", words),
        };
        let line = format!("# {verdict:6} {subject}: {words}");
        let _ = writeln!(out, "{}", logging::one_line(&line));
    }
    let all_well = outcomes.iter().all(|(_, outcome)| outcome.is_ok());
    if all_well { ExitCode::SUCCESS } else { ExitCode::from(EX_UNAVAILABLE) }
}
