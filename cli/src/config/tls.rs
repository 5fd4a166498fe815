//! `[tls]`: the certificate is read and tried when the settings are loaded, not when the first client comes.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;

use super::draft::Draft;
use super::files;
use super::kinds::{Choice, Flag, Words};
use super::problem::quoted;
use super::reader::{Entry, Reader};
use super::schema;
use super::settings::{TlsSettings, TlsVersion};

const VERSION: Choice<TlsVersion> = Choice(&[("1.2", TlsVersion::V1_2), ("1.3", TlsVersion::V1_3)]);

/// Reads `[tls]`.
pub(crate) fn tls(entry: Entry, draft: &mut Draft) -> Option<TlsSettings> {
    let mut reader = Reader::of_section(&schema::TLS, entry, draft);
    let cert = reader.optional("cert", &Words("the path of a PEM file with the certificate")).map(PathBuf::from);
    let key = reader.optional("key", &Words("the path of a PEM file with the private key")).map(PathBuf::from);
    let min_version = reader.read("min_version", &VERSION);
    let required = reader.read("required", &Flag);
    if required && cert.is_none() {
        reader.reject("required", "true without a certificate, so that nobody could connect", "tls.cert and tls.key");
    }
    if cert.is_some() && !reader.is_set("key") {
        reader.require("key", "the private key of tls.cert (environment PROXY_KEY)");
    }
    if key.is_some() && !reader.is_set("cert") {
        reader.require("cert", "the certificate of tls.key (environment PROXY_CERT)");
    }
    let chain = cert.as_deref().and_then(|cert| chain(cert, &mut reader));
    let private = key.as_deref().and_then(|key| private(key, &mut reader));
    let settings = match (cert, key) {
        (Some(cert), Some(key)) => {
            if let (Some(chain), Some(private)) = (chain, private) {
                try_pair((&cert, chain), (&key, private), &mut reader);
            }
            Some(TlsSettings { cert, key, required, min_version })
        }
        _ => None,
    };
    reader.finish();
    settings
}

fn chain(path: &Path, reader: &mut Reader<'_>) -> Option<Vec<CertificateDer<'static>>> {
    const EXPECTED: &str = "a readable PEM file with the certificate chain, the server's own first";
    certificates(path).map_err(|found| reader.reject("cert", found, EXPECTED)).ok()
}

fn private(path: &Path, reader: &mut Reader<'_>) -> Option<PrivateKeyDer<'static>> {
    const EXPECTED: &str = "a readable PEM file with an unencrypted private key";
    if files::readable_by_all(path) {
        let shown = path.display();
        reader.warn(&format!("{shown} is a private key and readable by every user of this machine: chmod 600 {shown}"));
    }
    private_key(path).map_err(|found| reader.reject("key", found, EXPECTED)).ok()
}

/// Notes when the two files do not fit together, or when one of them is of no use.
fn try_pair(
    (cert, chain): (&Path, Vec<CertificateDer<'static>>),
    (key, private): (&Path, PrivateKeyDer<'static>),
    reader: &mut Reader<'_>,
) {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let Err(error) = CertifiedKey::from_der(chain, private, &provider) else { return };
    let (cert, key) = (quoted(&cert.display().to_string()), quoted(&key.display().to_string()));
    match error {
        rustls::Error::InconsistentKeys(_) => {
            reader.reject("key", format!("{key}, which is not the key of tls.cert"), "the key of the certificate");
        }
        rustls::Error::InvalidCertificate(why) => {
            let found = format!("{cert}, whose first certificate is invalid ({why:?})");
            reader.reject("cert", found, "an X.509 certificate");
        }
        other => {
            reader.reject("key", format!("{key}, which is no usable key ({other})"), "an RSA, ECDSA or Ed25519 key");
        }
    }
}

/// The certificates of a PEM file, at least one; the error says what was found instead.
pub(crate) fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let shown = quoted(&path.display().to_string());
    let pem = files::read(path).map_err(|why| format!("{shown}, which cannot be read ({why})"))?;
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem.expose()).collect();
    match chain {
        Ok(chain) if chain.is_empty() => Err(format!("{shown}, which holds no certificate in PEM form")),
        Ok(chain) => Ok(chain),
        Err(why) => Err(format!("{shown}, which is broken PEM ({why})")),
    }
}

pub(crate) fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>, String> {
    let shown = quoted(&path.display().to_string());
    let pem = files::read(path).map_err(|why| format!("{shown}, which cannot be read ({why})"))?;
    // The parser's own words are left out: they may quote the file.
    PrivateKeyDer::from_pem_slice(pem.expose()).map_err(|_| format!("{shown}, which holds no private key in PEM form"))
}
