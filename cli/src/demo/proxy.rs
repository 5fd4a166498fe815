//! gprxy itself, as a person would run it: certificates, a configuration file, `gprxy start`.

use std::fs::{self, File};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    KeyUsagePurpose,
};
use rustix::process::Signal;
use serde_json::{Value, json};

use super::DemoArgs;
use super::failure::{Doing, Failure, Result};
use super::issuer::Issuer;
use super::nursery::{Guarded, Nursery};
use super::postgres::{Cluster, READER, WRITER, free_port, write_private};
use crate::args::RuntimeArgs;

/// The host name in the certificate and in all commands.
pub(super) const HOST: &str = "localhost";
/// `aud` of the demo's tokens.
pub(super) const AUDIENCE: &str = "gprxy-demo";

/// From start to the first accepted connection; the keys of the issuer are fetched in between.
const START: Duration = Duration::from_secs(20);
const CONNECT: Duration = Duration::from_millis(500);
/// How much of the log a failure shows.
const LOG_LINES: usize = 15;

/// The running proxy.
pub(super) struct Proxy {
    process: Guarded,
    port: u16,
    files: Files,
}

/// What it reads and writes, below the demo's folder.
struct Files {
    authority: PathBuf,
    certificate: PathBuf,
    key: PathBuf,
    configuration: PathBuf,
    audit: PathBuf,
    log: PathBuf,
}

impl Proxy {
    /// Writes certificates and configuration below `home`, starts `gprxy start` and waits until it accepts.
    pub(super) fn start(
        args: &DemoArgs,
        cluster: &Cluster,
        issuer: &Issuer,
        home: &Path,
        nursery: &Nursery,
    ) -> Result<Self> {
        let port = chosen_port(args.port)?;
        let files = Files::below(home);
        write_certificates(&files)?;
        let configuration = toml::to_string(&configuration(port, &files, cluster, issuer))
            .map_err(|error| Failure::broken(format!("cannot write the proxy's configuration: {error}")))?;
        write_private(&files.configuration, &configuration)?;
        let process = spawn(&files, args.runtime, home, nursery)?;
        let mut proxy = Self { process, port, files };
        proxy.wait_until_it_accepts(nursery)?;
        Ok(proxy)
    }

    /// Where it listens.
    pub(super) const fn port(&self) -> u16 {
        self.port
    }

    /// The certificate authority that signed its certificate, for `sslrootcert`.
    pub(super) fn authority(&self) -> &Path {
        &self.files.authority
    }

    /// The audit trail.
    pub(super) fn audit(&self) -> &Path {
        &self.files.audit
    }

    /// Fails when it has ended, with the end of its log.
    pub(super) fn check(&mut self) -> Result<()> {
        match self.process.exited() {
            None => Ok(()),
            Some(status) => Err(Failure::broken(format!("gprxy start has ended ({status})\n{}", self.log_tail()))),
        }
    }

    /// The end of its log, headed by where it is.
    pub(super) fn log_tail(&self) -> String {
        let text = fs::read_to_string(&self.files.log).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        let tail = lines[lines.len().saturating_sub(LOG_LINES)..].join("\n");
        let said = if tail.is_empty() { "(nothing)" } else { &tail };
        format!("gprxy's log ends with:\n{said}")
    }

    fn wait_until_it_accepts(&mut self, nursery: &Nursery) -> Result<()> {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, self.port));
        let started = Instant::now();
        while started.elapsed() < START {
            if TcpStream::connect_timeout(&address, CONNECT).is_ok() {
                return Ok(());
            }
            self.check()?;
            nursery.pause()?;
        }
        let waited = START.as_secs();
        Err(Failure::broken(format!("gprxy did not listen on {address} within {waited} s\n{}", self.log_tail())))
    }
}

impl Files {
    fn below(home: &Path) -> Self {
        Self {
            authority: home.join("ca.pem"),
            certificate: home.join("server.pem"),
            key: home.join("server.key"),
            configuration: home.join("gprxy.toml"),
            audit: home.join("audit.jsonl"),
            log: home.join("gprxy.log"),
        }
    }
}

/// The port that was asked for, when it is free; else any.
fn chosen_port(asked: Option<u16>) -> Result<u16> {
    let Some(port) = asked else { return free_port() };
    TcpListener::bind((Ipv4Addr::LOCALHOST, port))
        .doing(format_args!("listen on --port {port} (without it the demo takes a free one)"))?;
    Ok(port)
}

/// The one place that knows how the proxy is started: this same program, as a child, with the environment of a fresh
/// login. The caller's may hold settings of another gprxy, and those win over a configuration file.
fn spawn(files: &Files, runtime: RuntimeArgs, home: &Path, nursery: &Nursery) -> Result<Guarded> {
    let program = std::env::current_exe().doing("find this program's own file")?;
    let output = File::create(&files.log).doing(format_args!("create {}", files.log.display()))?;
    let mut command = Command::new(program);
    command.args(["start", "--config"]).arg(&files.configuration).arg("--allow-demo-issuer");
    command.args(runtime.arguments());
    command.env_clear().current_dir(home);
    command
        .envs(std::env::vars_os().filter(|(name, _)| name == "PATH" || name == "TMPDIR" || name == "RUST_BACKTRACE"));
    command.stdout(output.try_clone().doing("share the proxy's log")?).stderr(output);
    nursery.start("gprxy", command, Signal::TERM)
}

fn configuration(port: u16, files: &Files, cluster: &Cluster, issuer: &Issuer) -> Value {
    let (reader, writer) = cluster.passwords();
    json!({
        "server": { "listen_addr": "127.0.0.1", "listen_port": port },
        "tls": { "cert": files.certificate, "key": files.key },
        "issuer": [{
            "issuer": issuer.url(),
            "audience": AUDIENCE,
            "user_claims": ["email"],
            "roles_claims": ["roles"],
        }],
        "role": [
            { "name": "writer", "account": WRITER, "password": writer },
            { "name": "reader", "account": READER, "password": reader },
        ],
        // On the loopback interface, and the demo's server may have been built without TLS.
        "databases": { "*": { "host": "127.0.0.1", "port": cluster.port(), "sslmode": "disable" } },
        "audit": { "path": files.audit },
    })
}

/// An authority that signs one certificate and is then forgotten: its key is never written.
fn write_certificates(files: &Files) -> Result<()> {
    let (authority, certificate, key) =
        certificates().map_err(|error| Failure::broken(format!("cannot make certificates: {error}")))?;
    fs::write(&files.authority, authority).doing(format_args!("write {}", files.authority.display()))?;
    fs::write(&files.certificate, certificate).doing(format_args!("write {}", files.certificate.display()))?;
    write_private(&files.key, &key)
}

fn certificates() -> std::result::Result<(String, String, String), rcgen::Error> {
    let mut authority = CertificateParams::new(Vec::new())?;
    authority.distinguished_name.push(DnType::CommonName, "gprxy demo authority");
    authority.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    authority.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let authority = CertifiedIssuer::self_signed(authority, KeyPair::generate()?)?;
    let mut server = CertificateParams::new(vec![HOST.to_owned(), Ipv4Addr::LOCALHOST.to_string()])?;
    server.distinguished_name.push(DnType::CommonName, HOST);
    server.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    server.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    let key = KeyPair::generate()?;
    let certificate = server.signed_by(&key, &authority)?;
    Ok((authority.pem(), certificate.pem(), key.serialize_pem()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn certificates_verify_for_the_host() {
        use rustls::pki_types::pem::PemObject;
        use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
        let (authority, certificate, key) = certificates().unwrap();
        assert!(key.contains("PRIVATE KEY"));
        let der = |pem: &str| CertificateDer::from_pem_slice(pem.as_bytes()).unwrap();
        let mut roots = rustls::RootCertStore::empty();
        roots.add(der(&authority)).unwrap();
        let provider = std::sync::Arc::new(rustls::crypto::ring::default_provider());
        let verifier =
            rustls::client::WebPkiServerVerifier::builder_with_provider(std::sync::Arc::new(roots), provider)
                .build()
                .unwrap();
        let verify = |host: &'static str| {
            let name = ServerName::try_from(host).unwrap();
            use rustls::client::danger::ServerCertVerifier;
            verifier.verify_server_cert(&der(&certificate), &[], &name, &[], UnixTime::now()).is_ok()
        };
        assert!(verify("localhost") && verify("127.0.0.1"));
        assert!(!verify("example.com"));
    }

    #[test]
    fn a_port_that_is_taken_is_refused_with_what_to_do() {
        let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = taken.local_addr().unwrap().port();
        let message = chosen_port(Some(port)).unwrap_err().to_string();
        assert!(message.contains(&format!("--port {port} (without it")), "{message}");
    }
}
