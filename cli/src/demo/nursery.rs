//! Child processes that do not outlive the demo, however it ends.
//!
//! Three nets: [`Guarded`] stops its child when it is dropped (errors and panics unwind through it); Ctrl-C and
//! SIGTERM set a flag that every wait looks at, so they unwind too; and a small shell at the other end of a pipe
//! stops what is left when the demo is killed outright and the pipe closes.

use std::io::{Read, Write};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

use super::failure::{Doing, Failure, Result};

/// How often a wait looks at its child and at the flag.
const TICK: Duration = Duration::from_millis(10);
/// How long a server may take to stop when asked.
const GRACE: Duration = Duration::from_secs(4);
/// More of a program's output than this is read and dropped.
const OUTPUT_LIMIT: usize = 1024 * 1024;
/// Exit status after a signal that is not waited for, as shells report SIGINT.
const INTERRUPTED_STATUS: i32 = 130;

/// Reads lines `watch PID`, `forget PID` and `done`; at the end of input without `done` it stops all that is watched
/// and removes the directory in `$1`. It ignores the signals that a terminal sends to everybody.
const WATCHER: &str = r#"
trap '' INT TERM HUP
watched=
while read -r word pid; do
  case $word in
    watch) watched="$watched $pid" ;;
    forget) watched=$(for w in $watched; do [ "$w" = "$pid" ] || printf ' %s' "$w"; done) ;;
    done) exit 0 ;;
  esac
done
for pid in $watched; do kill -INT "$pid" 2>/dev/null; done
for round in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20; do
  left=
  for pid in $watched; do kill -0 "$pid" 2>/dev/null && left=yes; done
  [ -z "$left" ] && break
  sleep 0.2
done
for pid in $watched; do kill -KILL "$pid" 2>/dev/null; done
[ -n "$1" ] && rm -rf -- "$1"
"#;

/// Where all children of the demo are born.
pub(super) struct Nursery {
    stop: Arc<AtomicBool>,
    watcher: Arc<Watcher>,
}

/// What a program that ran to its end left behind.
pub(super) struct Finished {
    /// Exit status.
    pub(super) status: ExitStatus,
    /// Standard output.
    pub(super) stdout: String,
    /// Standard error.
    pub(super) stderr: String,
}

impl Finished {
    /// Both outputs, one after the other.
    pub(super) fn transcript(&self) -> String {
        let gap = if self.stdout.is_empty() || self.stdout.ends_with('\n') { "" } else { "\n" };
        format!("{}{gap}{}", self.stdout, self.stderr)
    }
}

impl Nursery {
    /// Takes over the signals and starts the watcher, which removes `home` when the demo is killed.
    pub(super) fn new(home: Option<&Path>) -> Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        for signal in [SIGINT, SIGTERM, SIGHUP] {
            // In this order: the first signal sets the flag, a second one finds it set and ends the demo at once.
            signal_hook::flag::register_conditional_shutdown(signal, INTERRUPTED_STATUS, Arc::clone(&stop))
                .and_then(|_| signal_hook::flag::register(signal, Arc::clone(&stop)))
                .doing("handle signals")?;
        }
        Ok(Self { stop, watcher: Arc::new(Watcher::start(home)?) })
    }

    /// Ends the demo when a person asked for it.
    pub(super) fn check(&self) -> Result<()> {
        if self.stop.load(Ordering::Relaxed) { Err(Failure::Interrupted) } else { Ok(()) }
    }

    /// One tick of a wait that the caller repeats.
    pub(super) fn pause(&self) -> Result<()> {
        self.check()?;
        thread::sleep(TICK);
        self.check()
    }

    /// Starts a server. Its process group is its own, so that Ctrl-C at the terminal reaches the demo alone and the
    /// parts are stopped in order.
    pub(super) fn start(&self, name: &'static str, mut command: Command, stop_with: Signal) -> Result<Guarded> {
        self.check()?;
        let child = command.stdin(Stdio::null()).process_group(0).spawn().doing(format_args!("start {name}"))?;
        self.watcher.tell("watch", &child);
        Ok(Guarded { child, stop_with, watcher: Arc::clone(&self.watcher) })
    }

    /// Runs a program to its end and keeps what it printed.
    pub(super) fn run(&self, command: Command, limit: Duration) -> Result<Finished> {
        self.begin(command)?.finish(self, limit)
    }

    /// Starts a program whose end is waited for later. Standard input is empty unless the caller set it before, by
    /// [`Command::stdin`] on a command for [`Self::begin_with_input`].
    pub(super) fn begin(&self, mut command: Command) -> Result<Running> {
        command.stdin(Stdio::null());
        self.begin_with_input(command)
    }

    /// The same, with the standard input that the caller chose.
    pub(super) fn begin_with_input(&self, mut command: Command) -> Result<Running> {
        self.check()?;
        let name = Path::new(command.get_program()).file_name().unwrap_or_default().to_string_lossy().into_owned();
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0);
        let mut child = command.spawn().doing(format_args!("run {name}"))?;
        let stdout = collect(child.stdout.take());
        let stderr = collect(child.stderr.take());
        let guarded = Guarded { child, stop_with: Signal::TERM, watcher: Arc::clone(&self.watcher) };
        self.watcher.tell("watch", &guarded.child);
        Ok(Running { name, guarded, stdout, stderr })
    }
}

/// A program that is expected to end by itself.
pub(super) struct Running {
    name: String,
    guarded: Guarded,
    stdout: thread::JoinHandle<String>,
    stderr: thread::JoinHandle<String>,
}

impl Running {
    /// Sends a signal, as the terminal does for Ctrl-C.
    pub(super) fn signal(&self, signal: Signal) {
        send(&self.guarded.child, signal);
    }

    /// Whether it ended already.
    pub(super) fn ended(&mut self) -> bool {
        self.guarded.exited().is_some()
    }

    /// Waits for the end; a program that takes longer than `limit` is stopped.
    pub(super) fn finish(mut self, nursery: &Nursery, limit: Duration) -> Result<Finished> {
        let started = Instant::now();
        let status = loop {
            if let Some(status) = self.guarded.exited() {
                break status;
            }
            if started.elapsed() > limit {
                let name = &self.name;
                return Err(Failure::broken(format!(
                    "{name} did not end within {} s and was stopped",
                    limit.as_secs()
                )));
            }
            nursery.pause()?;
        };
        // A reader that panicked has nothing to tell; it does not panic on any input.
        Ok(Finished {
            status,
            stdout: self.stdout.join().unwrap_or_default(),
            stderr: self.stderr.join().unwrap_or_default(),
        })
    }
}

/// A child that is stopped when this is dropped.
pub(super) struct Guarded {
    child: Child,
    stop_with: Signal,
    watcher: Arc<Watcher>,
}

impl Guarded {
    /// The exit status once it has ended.
    pub(super) fn exited(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().ok().flatten()
    }
}

impl Drop for Guarded {
    fn drop(&mut self) {
        if self.exited().is_none() {
            send(&self.child, self.stop_with);
            let asked = Instant::now();
            while self.exited().is_none() && asked.elapsed() < GRACE {
                thread::sleep(TICK);
            }
            // Harmless for a child that has been waited for: std remembers that and sends nothing.
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
        self.watcher.tell("forget", &self.child);
    }
}

/// The shell that cleans up after a demo that could not do it itself.
struct Watcher {
    shell: Child,
}

impl Watcher {
    fn start(home: Option<&Path>) -> Result<Self> {
        let mut command = Command::new("/bin/sh");
        command.args(["-c", WATCHER, "gprxy-demo-watcher"]).arg(home.unwrap_or(Path::new("")));
        command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).process_group(0).current_dir("/");
        Ok(Self { shell: command.spawn().doing("start /bin/sh")? })
    }

    /// Without the watcher the demo still cleans up after itself in all cases but SIGKILL, so a broken pipe is no error.
    fn tell(&self, word: &str, child: &Child) {
        self.write(&format!("{word} {}\n", child.id()));
    }

    fn write(&self, line: &str) {
        if let Some(mut pipe) = self.shell.stdin.as_ref() {
            let _ = pipe.write_all(line.as_bytes());
        }
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        self.write("done\n");
        drop(self.shell.stdin.take());
        let _ = self.shell.wait();
    }
}

/// Signals a child that has not been waited for, so its id cannot have been given to another process.
fn send(child: &Child, signal: Signal) {
    // No such process: it has just ended, which is what most callers want.
    let _ = rustix::process::kill_process(Pid::from_child(child), signal);
}

fn collect(pipe: Option<impl Read + Send + 'static>) -> thread::JoinHandle<String> {
    thread::spawn(move || {
        let mut kept = Vec::new();
        if let Some(mut pipe) = pipe {
            let mut chunk = [0; 8192];
            while let Ok(length @ 1..) = pipe.read(&mut chunk) {
                let room = OUTPUT_LIMIT.saturating_sub(kept.len());
                kept.extend_from_slice(&chunk[..length.min(room)]);
            }
        }
        String::from_utf8_lossy(&kept).into_owned()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Command {
        let mut command = Command::new("/bin/sh");
        command.args(["-c", script]);
        command
    }

    #[test]
    fn run_keeps_status_and_both_outputs() {
        let nursery = Nursery::new(None).unwrap();
        let finished = nursery.run(shell("echo out; echo err >&2; exit 3"), Duration::from_secs(20)).unwrap();
        assert_eq!(finished.status.code(), Some(3));
        assert_eq!(finished.stdout, "out\n");
        assert_eq!(finished.transcript(), "out\nerr\n");
    }

    #[test]
    fn output_beyond_the_limit_is_dropped_and_does_not_block() {
        let nursery = Nursery::new(None).unwrap();
        let script = "head -c 3000000 /dev/zero | tr '\\0' x";
        let finished = nursery.run(shell(script), Duration::from_secs(20)).unwrap();
        assert_eq!(finished.stdout.len(), OUTPUT_LIMIT);
    }

    #[test]
    fn a_program_that_takes_too_long_is_stopped() {
        let nursery = Nursery::new(None).unwrap();
        let error = nursery.run(shell("exec sleep 600"), Duration::from_millis(50)).err().unwrap();
        assert!(error.to_string().starts_with("sh did not end within"), "{error}");
    }

    #[test]
    fn a_dropped_guard_leaves_no_process() {
        let nursery = Nursery::new(None).unwrap();
        let guarded = nursery.start("sleep", shell("exec sleep 600"), Signal::TERM).unwrap();
        let pid = Pid::from_child(&guarded.child);
        drop(guarded);
        assert!(rustix::process::test_kill_process(pid).is_err(), "the child is gone and reaped");
    }

    #[test]
    fn the_watcher_stops_children_of_a_demo_that_was_killed() {
        let home = tempfile::tempdir().unwrap().keep();
        let mut watcher = Watcher::start(Some(&home)).unwrap();
        let mut orphan = shell("exec sleep 600").process_group(0).spawn().unwrap();
        watcher.tell("watch", &orphan);
        // What the kernel does when the demo dies: the pipe closes without a word.
        drop(watcher.shell.stdin.take());
        assert!(!orphan.wait().unwrap().success(), "ended by the watcher's signal");
        watcher.shell.wait().unwrap();
        assert!(!home.exists());
    }
}
