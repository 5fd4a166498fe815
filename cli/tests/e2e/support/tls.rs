//! A certificate authority for one test run, a stranger's, and what they signed.

use std::path::PathBuf;
use std::sync::OnceLock;

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};

use super::reaper::{run_dir, write_private};

/// PEM files on disk.
pub(crate) struct Pki {
    /// The authority that signed `cert`.
    pub(crate) ca: PathBuf,
    /// For `localhost`, `127.0.0.1` and `::1`.
    pub(crate) cert: PathBuf,
    pub(crate) key: PathBuf,
    /// An authority that signed nothing here.
    pub(crate) stranger: PathBuf,
}

fn authority(name: &str) -> (Issuer<'static, KeyPair>, String) {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let pem = params.self_signed(&key).unwrap().pem();
    (Issuer::new(params, key), pem)
}

fn leaf(issuer: &Issuer<'static, KeyPair>, names: &[&str]) -> (String, String) {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>()).unwrap();
    params.distinguished_name.push(DnType::CommonName, names[0]);
    (params.signed_by(&key, issuer).unwrap().pem(), key.serialize_pem())
}

/// The certificates of this run.
pub(crate) fn pki() -> &'static Pki {
    static PKI: OnceLock<Pki> = OnceLock::new();
    PKI.get_or_init(|| {
        let dir = run_dir().join("pki");
        std::fs::create_dir(&dir).unwrap();
        let write = |name: &str, pem: String| {
            let path = dir.join(name);
            write_private(&path, &pem);
            path
        };
        let (issuer, ca) = authority("gprxy test authority");
        let (cert, key) = leaf(&issuer, &["localhost", "127.0.0.1", "::1"]);
        Pki {
            ca: write("ca.pem", ca),
            cert: write("server.pem", cert),
            key: write("server.key", key),
            stranger: write("stranger.pem", authority("nobody you know").1),
        }
    })
}
