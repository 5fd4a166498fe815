//! TLS to database servers and peers: the authorities of each one's configuration.

use std::path::Path;
use std::sync::Arc;

use gprxy_proto::driver::tls;
use gprxy_proto::policy::{SslMode, TlsTerms};
use rustls::{ClientConfig, RootCertStore};

use crate::config;

/// What `sslmode` and `sslrootcert` of a database or peer ask for; `None` where there is no TLS.
pub(crate) fn config_for(terms: &TlsTerms) -> Result<Option<Arc<ClientConfig>>, String> {
    let roots = match (terms.sslmode, &terms.sslrootcert) {
        (SslMode::VerifyCa | SslMode::VerifyFull, Some(path)) => roots_of(Path::new(&**path))?,
        (SslMode::VerifyCa | SslMode::VerifyFull, None) => system_roots(),
        _ => RootCertStore::empty(),
    };
    tls::client_config(terms.sslmode, roots)
}

fn roots_of(path: &Path) -> Result<RootCertStore, String> {
    let mut roots = RootCertStore::empty();
    for certificate in config::certificates(path).map_err(|found| format!("found {found}"))? {
        roots.add(certificate).map_err(|error| format!("{}: {error}", path.display()))?;
    }
    Ok(roots)
}

fn system_roots() -> RootCertStore {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    roots
}
