//! Nothing outlives a test run: neither a server nor its directory, also when the run is killed.
//!
//! A small shell waits at the far end of a pipe that only this process holds. When the process is gone, however it
//! went, the pipe closes and the shell ends what it was told about. Statics are never dropped, so a `Drop` alone
//! would leave the shared servers behind.

use std::io::Write;
use std::net::{Ipv4Addr, SocketAddrV4, TcpListener};
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{SocketAddr, UnixListener};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::{Mutex, OnceLock};

use socket2::{Domain, Socket, Type};

const SCRIPT: &str = r#"
trap '' INT TERM HUP
pids= dirs=
while read -r verb what; do
  case $verb in
    end) pids="$pids $what" ;;
    spare) kept=; for pid in $pids; do [ "$pid" = "$what" ] || kept="$kept $pid"; done; pids=$kept ;;
    remove) dirs="$dirs $what" ;;
  esac
done
# QUIT is PostgreSQL's immediate shutdown: it takes its children and its shared memory along.
[ -z "$pids" ] || { kill -QUIT $pids; sleep 0.5; kill -KILL $pids; }
[ -z "$dirs" ] || rm -rf $dirs
"#;

#[expect(clippy::zombie_processes, reason = "the shell outlives this process on purpose")]
fn tell(verb: &str, what: &str) {
    static PIPE: OnceLock<Mutex<ChildStdin>> = OnceLock::new();
    let pipe = PIPE.get_or_init(|| {
        let mut shell = Command::new("sh")
            .args(["-c", SCRIPT])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("sh starts");
        Mutex::new(shell.stdin.take().expect("stdin is piped"))
    });
    // One short line is one atomic write.
    pipe.lock().unwrap().write_all(format!("{verb} {what}\n").as_bytes()).expect("the reaper reads");
}

/// The directory of this run, removed at its end. Others may pass through it: PostgreSQL does not run as root.
pub(crate) fn run_dir() -> &'static Path {
    static DIR: OnceLock<PathBuf> = OnceLock::new();
    DIR.get_or_init(|| {
        let dir = tempfile::Builder::new().prefix("gprxy-e2e-").tempdir().expect("a temporary directory").keep();
        std::fs::set_permissions(&dir, std::fs::Permissions::from_mode(0o711)).unwrap();
        if std::env::var_os("GPRXY_TEST_KEEP").is_none() {
            tell("remove", dir.to_str().expect("a temporary path is text"));
        }
        dir
    })
}

/// A path of this run that nobody else was given.
pub(crate) fn fresh_path(name: &str) -> PathBuf {
    use std::sync::atomic::{AtomicU32, Ordering};
    static NEXT: AtomicU32 = AtomicU32::new(0);
    run_dir().join(format!("{name}-{}", NEXT.fetch_add(1, Ordering::Relaxed)))
}

/// Writes a file that only its owner may read, as passwords and keys want it.
pub(crate) fn write_private(path: &Path, text: &str) {
    std::fs::write(path, text).unwrap();
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).unwrap();
}

/// A child process that ends with its owner, or with the run.
pub(crate) struct Leashed(pub(crate) Child);

impl Leashed {
    pub(crate) fn spawn(command: &mut Command) -> Self {
        let child = command.spawn().unwrap_or_else(|error| panic!("cannot start {command:?}: {error}"));
        tell("end", &child.id().to_string());
        Self(child)
    }

    pub(crate) fn pid(&self) -> u32 {
        self.0.id()
    }

    /// Sends a signal by name (`INT`, `TERM`, `QUIT` …).
    pub(crate) fn signal(&self, name: &str) {
        let status = Command::new("kill").args([&format!("-{name}"), &self.pid().to_string()]).status().unwrap();
        assert!(status.success(), "kill -{name} {}", self.pid());
    }

    /// Whether it has ended by itself.
    pub(crate) fn has_ended(&mut self) -> bool {
        self.0.try_wait().expect("a child can be asked").is_some()
    }
}

impl Drop for Leashed {
    fn drop(&mut self) {
        if !self.has_ended() {
            // PostgreSQL: immediate shutdown. Anything else: dead.
            self.signal("QUIT");
            let end = std::time::Instant::now() + std::time::Duration::from_secs(5);
            while !self.has_ended() && std::time::Instant::now() < end {
                std::thread::sleep(std::time::Duration::from_millis(5));
            }
            let _ = self.0.kill();
            let _ = self.0.wait();
        }
        tell("spare", &self.pid().to_string());
    }
}

/// A TCP port that nobody listens on, below the range that the kernel takes for outgoing connections. Until this process
/// ends it is nobody else's: between this and the time when something listens there, another run of the tests may look for
/// ports as well, and be given others.
pub(crate) fn free_port() -> u16 {
    use std::sync::atomic::{AtomicU32, Ordering};
    static NEXT: AtomicU32 = AtomicU32::new(0);
    static CLAIMS: Mutex<Vec<UnixListener>> = Mutex::new(Vec::new());
    loop {
        let step = NEXT.fetch_add(1, Ordering::Relaxed);
        assert!(step < 20_000, "no free port");
        let port = 12_000 + ((std::process::id().wrapping_mul(61) + step) % 18_000) as u16;
        let Some(claim) = claim(port) else { continue };
        if probe(port).is_ok() {
            CLAIMS.lock().unwrap().push(claim);
            return port;
        }
    }
}

/// A socket at any address of this machine, refused where somebody listens. It does not listen itself: a child that another
/// thread is starting just now holds a copy of it until its `exec`, and would keep the port from its owner for so long.
fn probe(port: u16) -> std::io::Result<Socket> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    socket.set_reuse_address(true)?;
    socket.bind(&SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, port).into())?;
    Ok(socket)
}

/// A name that the kernel gives to one process at a time, in the same namespace as its ports, and frees with it.
fn claim(port: u16) -> Option<UnixListener> {
    let name = SocketAddr::from_abstract_name(format!("gprxy-test-port-{port}")).unwrap();
    UnixListener::bind_addr(&name).ok()
}

#[test]
fn a_port_is_given_to_one_run_at_a_time() {
    let ports: Vec<u16> = (0..20).map(|_| free_port()).collect();
    for (at, port) in ports.iter().enumerate() {
        assert!(!ports[..at].contains(port));
        let copy = probe(*port).unwrap();
        let listener = TcpListener::bind(("127.0.0.1", *port)).expect("a copy of what looked is in nobody's way");
        assert!(probe(*port).is_err(), "somebody listens");
        drop((copy, listener));
        assert!(claim(*port).is_none(), "as another run would find it");
    }
}
