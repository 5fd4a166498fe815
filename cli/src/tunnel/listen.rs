//! Where programs of this computer connect, and how it is made sure that they are their owner's.

use std::net::{SocketAddr, ToSocketAddrs};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::{fs, io};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use gprxy_proto::auth::gate::Gate;
use gprxy_proto::auth::scram::Derivation;
use gprxy_proto::auth::scram::server::{DEFAULT_ITERATIONS, SALT_LEN, Verifier};
use gprxy_proto::auth::users::StoredSecret;
use gprxy_proto::driver::entropy::SystemEntropy;
use gprxy_proto::entropy::Entropy as _;
use gprxy_proto::policy::AuthType;
use gprxy_proto::secret::Secret;

use crate::sso::failure::{Failure, Result};
use crate::start::{self, Listening};

/// Beside PostgreSQL's own, which may run here as well.
const PORT: u16 = 5433;
/// How libpq and others name a socket in a directory.
const SOCKET_PREFIX: &str = ".s.PGSQL.";
/// Random bytes of a password: nobody guesses 144 bits.
const PASSWORD_BYTES: usize = 18;

/// What `--listen` says.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Listen {
    /// Loopback addresses.
    Tcp(Vec<SocketAddr>),
    /// A directory, and the port in the socket's name.
    Unix(PathBuf, u16),
}

/// What somebody needs to connect.
pub(super) struct Place {
    /// An address, or a directory.
    pub(super) host: String,
    pub(super) port: u16,
    pub(super) password: Option<Secret<String>>,
}

/// A bound socket and who may come in.
pub(super) struct Door {
    listening: Listening,
    gate: Gate,
    place: Place,
}

impl Listen {
    /// `127.0.0.1:5433`, `[::1]:5433`, `localhost`, a port alone, `/a/directory` or `/a/directory/.s.PGSQL.5433`.
    pub(crate) fn parse(text: &str) -> std::result::Result<Self, String> {
        if text.contains('/') {
            let path = Path::new(text);
            let port =
                path.file_name().and_then(|name| name.to_str()).and_then(|name| name.strip_prefix(SOCKET_PREFIX));
            return match (port.map(str::parse), path.parent()) {
                (Some(Ok(port)), Some(directory)) => Ok(Self::Unix(directory.into(), port)),
                (Some(_), _) => Err("a socket's name ends with a port".into()),
                (None, _) => Ok(Self::Unix(path.into(), PORT)),
            };
        }
        let address = match text.parse::<u16>() {
            Ok(port) => format!("127.0.0.1:{port}"),
            Err(_) if text.parse::<std::net::Ipv6Addr>().is_ok() => format!("[{text}]:{PORT}"),
            Err(_) if text.ends_with(']') || !text.contains(':') => format!("{text}:{PORT}"),
            Err(_) => text.to_owned(),
        };
        let addresses: Vec<SocketAddr> = match address.to_socket_addrs() {
            Ok(addresses) => addresses.collect(),
            Err(_) => return Err("expected a loopback address such as 127.0.0.1:5433, or a directory".into()),
        };
        if addresses.is_empty() || addresses.iter().any(|address| !address.ip().is_loopback()) {
            return Err("a tunnel is for programs of this computer: expected a loopback address, or a directory".into());
        }
        Ok(Self::Tcp(addresses))
    }

    /// Binds it. Nobody is let in yet.
    pub(super) fn open(&self, no_password: bool) -> Result<Vec<Door>> {
        match self {
            Self::Tcp(addresses) => addresses.iter().map(|&address| open_tcp(address, no_password)).collect(),
            Self::Unix(directory, port) => open_unix(directory, *port).map(|door| vec![door]),
        }
    }
}

impl Door {
    pub(super) fn into_parts(self) -> (Listening, Gate, Place) {
        (self.listening, self.gate, self.place)
    }
}

/// Every user of this computer can connect to a loopback address, so a password is needed, and SCRAM, so that nobody
/// who listens there in our place learns it.
fn open_tcp(address: SocketAddr, no_password: bool) -> Result<Door> {
    let listening = start::listen_tcp(address).map_err(Failure::unavailable)?;
    let address = listening.address().unwrap_or(address);
    let mut entropy = SystemEntropy::new();
    let (gate, password) = if no_password {
        (Gate::open(&mut entropy), None)
    } else {
        let password = new_password(&mut entropy);
        let mut salt = [0; SALT_LEN];
        entropy.fill(&mut salt);
        let bytes = Arc::new(Secret::new(password.expose().clone().into_bytes()));
        let verifier = Verifier::new(&Derivation::new(&bytes, &salt, DEFAULT_ITERATIONS).run());
        let secret = StoredSecret::Scram(Arc::new(verifier));
        (Gate::with_secret(AuthType::ScramSha256, secret, &mut entropy), Some(password))
    };
    let place = Place { host: address.ip().to_string(), port: address.port(), password };
    Ok(Door { listening, gate, place })
}

fn new_password(entropy: &mut SystemEntropy) -> Secret<String> {
    let mut bytes = Secret::new([0; PASSWORD_BYTES]);
    entropy.fill(bytes.expose_mut());
    Secret::new(URL_SAFE_NO_PAD.encode(bytes.expose()))
}

/// The kernel says who connects to a Unix socket; the directory keeps the others from even trying, and from putting a
/// socket of their own in our place.
fn open_unix(directory: &Path, port: u16) -> Result<Door> {
    let uid = rustix::process::geteuid().as_raw();
    private_directory(directory, uid)?;
    let directory = fs::canonicalize(directory).map_err(|error| cannot_use(directory, &error))?;
    let path = directory.join(format!("{SOCKET_PREFIX}{port}"));
    let listening = start::listen_unix(&path).map_err(Failure::unavailable)?;
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).map_err(|error| cannot_use(&path, &error))?;
    let gate = Gate::for_peer(uid, &mut SystemEntropy::new());
    let place = Place { host: directory.to_string_lossy().into_owned(), port, password: None };
    Ok(Door { listening, gate, place })
}

/// Makes the directory if it is missing, and refuses one that others can look into.
fn private_directory(directory: &Path, uid: u32) -> Result<()> {
    match fs::DirBuilder::new().mode(0o700).create(directory) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(cannot_use(directory, &error)),
        _ => {}
    }
    let metadata = fs::metadata(directory).map_err(|error| cannot_use(directory, &error))?;
    let mode = metadata.mode() & 0o777;
    if metadata.is_dir() && metadata.uid() == uid && mode & 0o077 == 0 {
        return Ok(());
    }
    Err(Failure::settings(format!(
        "{} has mode {mode:03o} and belongs to user id {}; expected a directory of user id {uid} with mode 700: name \
         another one, which is made if it is missing",
        directory.display(),
        metadata.uid(),
    )))
}

fn cannot_use(path: &Path, error: &io::Error) -> Failure {
    Failure::unavailable(format!("{} cannot be used for a socket: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_this_computer_is_listened_to() {
        let tcp = |text: &str| match Listen::parse(text) {
            Ok(Listen::Tcp(addresses)) => addresses[0].to_string(),
            other => panic!("{text}: {other:?}"),
        };
        assert_eq!(tcp("127.0.0.1:5433"), "127.0.0.1:5433");
        assert_eq!(tcp("127.0.0.1"), "127.0.0.1:5433");
        assert_eq!(tcp("6000"), "127.0.0.1:6000");
        assert_eq!(tcp("[::1]:6000"), "[::1]:6000");
        assert_eq!(tcp("[::1]"), "[::1]:5433");
        assert_eq!(tcp("::1"), "[::1]:5433");
        for bad in ["0.0.0.0:5433", "192.0.2.1:5433", "[::]:5433", "127.0.0.1:99999", "x y", "", ":", "*"] {
            assert!(Listen::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_directory_holds_a_socket_by_the_name_that_clients_expect() {
        let unix = |text: &str| Listen::parse(text).unwrap();
        assert_eq!(unix("/run/user/1000/gprxy"), Listen::Unix("/run/user/1000/gprxy".into(), 5433));
        assert_eq!(unix("./here/.s.PGSQL.6000"), Listen::Unix("./here".into(), 6000));
        assert!(Listen::parse("/run/.s.PGSQL.x").is_err());
    }

    #[test]
    fn a_directory_is_ones_own_or_none() {
        let home = tempfile::tempdir().unwrap();
        let uid = rustix::process::geteuid().as_raw();
        let fresh = home.path().join("fresh");
        assert!(private_directory(&fresh, uid).is_ok());
        assert_eq!(fs::metadata(&fresh).unwrap().mode() & 0o777, 0o700);
        assert!(private_directory(&fresh, uid).is_ok(), "and again");
        for mode in [0o750, 0o701, 0o777] {
            fs::set_permissions(&fresh, fs::Permissions::from_mode(mode)).unwrap();
            let failure = private_directory(&fresh, uid).err().unwrap();
            assert!(failure.words.contains(&format!("{mode:o}")), "{}", failure.words);
        }
        fs::set_permissions(&fresh, fs::Permissions::from_mode(0o700)).unwrap();
        assert!(private_directory(&fresh, uid + 1).is_err(), "somebody else's");
        assert!(private_directory(&home.path().join("a/b"), uid).is_err(), "only the last directory is made");
        fs::write(home.path().join("file"), "").unwrap();
        assert!(private_directory(&home.path().join("file"), uid).is_err());
    }

    #[test]
    fn passwords_are_long_and_new() {
        let mut entropy = SystemEntropy::new();
        let (one, other) = (new_password(&mut entropy), new_password(&mut entropy));
        assert_eq!(one.expose().len(), 24);
        assert_ne!(one.expose(), other.expose());
    }
}
