//! The real psql.

use std::io::Write;
use std::process::{Command, Stdio};

use super::deps;
use super::reaper::Leashed;
use super::target::Target;

/// What a run of psql left behind.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) out: String,
    pub(crate) err: String,
    /// 0 well, 1 fatal, 2 connection failed or lost, 3 error in a script.
    pub(crate) code: i32,
}

impl Ran {
    /// The output of a run that went well.
    #[track_caller]
    pub(crate) fn ok(self) -> String {
        assert_eq!(self.code, 0, "psql failed: {}\n{}", self.err, self.out);
        self.out.trim_end().to_owned()
    }

    /// The complaint of a run that did not.
    #[track_caller]
    pub(crate) fn failed(self) -> String {
        assert_ne!(self.code, 0, "psql should have failed but printed: {}", self.out);
        self.err
    }
}

/// psql as a script would call it: no rc file, unaligned rows, SQLSTATE in front of an error, stop at the first.
pub(crate) fn command(target: &Target) -> Command {
    let mut command = Command::new(deps::psql());
    command.args(["-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-v", "VERBOSITY=verbose"]);
    command.env_clear().env("PATH", "/usr/bin:/bin").env("LC_ALL", "C.UTF-8").envs(target.environment());
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// Another program of PostgreSQL's, which connects like psql.
pub(crate) fn tool(target: &Target, program: &str) -> Command {
    let mut command = Command::new(deps::postgres_tool(program));
    command.env_clear().env("PATH", "/usr/bin:/bin").env("LC_ALL", "C.UTF-8").envs(target.environment());
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// Runs the statements, each as a message of its own, in one session.
pub(crate) fn run(target: &Target, statements: &[&str]) -> Ran {
    let mut command = command(target);
    for statement in statements {
        command.args(["-c", statement]);
    }
    finish(command)
}

/// Feeds a script, with its COPY data, to standard input.
pub(crate) fn script(target: &Target, script: &str) -> Ran {
    let mut command = command(target);
    command.stdin(Stdio::piped());
    let mut child = command.spawn().expect("psql starts");
    child.stdin.take().expect("piped").write_all(script.as_bytes()).expect("psql reads its script");
    ran(child.wait_with_output().expect("psql ends"))
}

/// Waits for a prepared command.
pub(crate) fn finish(mut command: Command) -> Ran {
    ran(command.output().expect("psql starts"))
}

/// A psql that goes on by itself; for signals.
pub(crate) fn background(target: &Target, statement: &str) -> Leashed {
    Leashed::spawn(command(target).args(["-c", statement]))
}

/// The rest of a background run.
pub(crate) fn join(mut psql: Leashed) -> Ran {
    let read = |pipe: &mut dyn std::io::Read| {
        let mut text = String::new();
        pipe.read_to_string(&mut text).expect("psql writes UTF-8");
        text
    };
    let out = read(&mut psql.0.stdout.take().expect("piped"));
    let err = read(&mut psql.0.stderr.take().expect("piped"));
    let status = psql.0.wait().expect("psql ends");
    Ran { out, err, code: status.code().unwrap_or(-1) }
}

fn ran(output: std::process::Output) -> Ran {
    Ran {
        out: String::from_utf8(output.stdout).expect("UTF-8"),
        err: String::from_utf8_lossy(&output.stderr).into_owned(),
        code: output.status.code().unwrap_or(-1),
    }
}
