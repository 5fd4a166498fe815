//! Child processes on one core, and what the kernel says about their work and memory.

use std::fs;
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Resource, Signal, getrlimit, kill_process, setrlimit};

use crate::Result;

/// How long a server may take to accept its first connection.
const START: Duration = Duration::from_secs(30);
const TICK: Duration = Duration::from_millis(20);

/// Where everything happens: one core, one folder that is removed at the end.
pub(crate) struct Stage {
    pub(crate) core: usize,
    folder: PathBuf,
    /// PostgreSQL and PgBouncer refuse to run as root.
    demoted: bool,
}

impl Stage {
    pub(crate) fn new(core: Option<usize>) -> Result<Self> {
        let cores = std::thread::available_parallelism()?.get();
        let folder = std::env::temp_dir().join(format!("gprxy-benches-{}", std::process::id()));
        fs::create_dir(&folder)?;
        let stage = Self { core: core.unwrap_or(cores - 1), folder, demoted: rustix::process::geteuid().is_root() };
        stage.hand_over(&stage.folder)?;
        Ok(stage)
    }

    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// Writes a file that servers of another account can read.
    pub(crate) fn write(&self, name: &str, text: &str) -> Result<PathBuf> {
        let path = self.file(name);
        fs::write(&path, text)?;
        self.hand_over(&path)?;
        Ok(path)
    }

    fn hand_over(&self, path: &Path) -> Result<()> {
        if self.demoted {
            expect_success(Command::new("chown").arg("postgres:").arg(path))?;
        }
        Ok(())
    }

    /// A program on the core, which ends when this process does.
    pub(crate) fn command(&self, program: impl AsRef<Path>) -> Command {
        self.command_with(program, &[])
    }

    /// The same as the account `postgres` where this process is root.
    pub(crate) fn demoted(&self, program: impl AsRef<Path>) -> Command {
        if self.demoted {
            self.command_with(program, &["--reuid=postgres", "--regid=postgres", "--clear-groups"])
        } else {
            self.command(program)
        }
    }

    fn command_with(&self, program: impl AsRef<Path>, options: &[&str]) -> Command {
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "INT"]).args(options).args(["taskset", "-c", &self.core.to_string()]);
        command.arg(program.as_ref()).current_dir(&self.folder).stdin(Stdio::null());
        command
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.folder);
    }
}

/// A server; it is stopped when dropped.
pub(crate) struct Server {
    child: Child,
    pub(crate) port: u16,
}

impl Server {
    /// Starts it and waits until it accepts connections.
    pub(crate) fn start(mut command: Command, port: u16, log: &Path) -> Result<Self> {
        let output = fs::File::create(log)?;
        command.stdout(output.try_clone()?).stderr(output);
        let mut server = Self { child: command.spawn()?, port };
        let began = Instant::now();
        while began.elapsed() < START {
            if TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_ok() {
                return Ok(server);
            }
            if server.child.try_wait()?.is_some() {
                break;
            }
            sleep(TICK);
        }
        let said = fs::read_to_string(log).unwrap_or_default();
        Err(format!("a server did not start; its log, {}:\n{said}", log.display()).into())
    }

    /// `setpriv` and `taskset` have become the server itself.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(pid) = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw) {
            let _ = kill_process(pid, Signal::INT);
        }
        let began = Instant::now();
        while began.elapsed() < Duration::from_secs(5) {
            if !matches!(self.child.try_wait(), Ok(None)) {
                return;
            }
            sleep(TICK);
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A port that nobody listens on.
pub(crate) fn free_port() -> Result<u16> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port())
}

/// Runs a program to its end and gives its standard output.
pub(crate) fn expect_success(command: &mut Command) -> Result<String> {
    let output = command.output().map_err(|error| format!("{:?}: {error}", command.get_program()))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let words = String::from_utf8_lossy(&output.stderr);
    Err(format!("{:?} failed ({}): {words}", command.get_program(), output.status).into())
}

/// Thousands of connections need as many descriptors; children inherit the limit.
pub(crate) fn raise_open_files() -> Result<()> {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    Ok(setrlimit(Resource::Nofile, limit)?)
}

/// CPU time of all threads so far, in nanoseconds: the scheduler's own account, far finer than the ticks of `stat`.
pub(crate) fn cpu_nanos(pid: u32) -> Result<u64> {
    let mut sum = 0;
    for thread in fs::read_dir(format!("/proc/{pid}/task"))? {
        let line = fs::read_to_string(thread?.path().join("schedstat"))?;
        sum += line.split(' ').next().unwrap_or_default().parse::<u64>()?;
    }
    Ok(sum)
}

/// The part of the CPU time so far that was spent in user space, as far as the kernel's ticks tell.
pub(crate) fn user_share(pid: u32) -> Result<(u64, u64)> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let (_, fields) = stat.rsplit_once(") ").ok_or("/proc/PID/stat has another form")?;
    let mut fields = fields.split(' ').skip(11);
    let mut next = || -> Result<u64> { Ok(fields.next().ok_or("/proc/PID/stat is too short")?.parse()?) };
    Ok((next()?, next()?))
}

/// A field of `/proc/PID/status` in KiB.
fn status_kib(pid: u32, name: &str) -> Result<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line =
        status.lines().find_map(|line| line.strip_prefix(name)).ok_or("a field of /proc/PID/status is missing")?;
    Ok(line.trim_matches([':', ' ', '\t']).trim_end_matches(" kB").parse()?)
}

/// Resident memory now, in KiB.
pub(crate) fn resident_kib(pid: u32) -> Result<u64> {
    status_kib(pid, "VmRSS")
}

/// The most that was resident since [`forget_peak`], in KiB.
pub(crate) fn peak_kib(pid: u32) -> Result<u64> {
    status_kib(pid, "VmHWM")
}

/// The peak starts from what is resident now (`proc_pid_clear_refs(5)`).
pub(crate) fn forget_peak(pid: u32) -> Result<()> {
    Ok(fs::write(format!("/proc/{pid}/clear_refs"), "5")?)
}
