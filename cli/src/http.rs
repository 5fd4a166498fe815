//! HTTP to identity providers: bounded in time, without redirects, verified with the system's authorities.

use std::sync::Arc;
use std::time::Duration;

use ureq::Agent;
use ureq::tls::{Certificate, RootCerts, TlsConfig};

/// All of one request.
const TIMEOUT: Duration = Duration::from_secs(10);

/// For discovery documents and key sets.
pub(crate) fn agent() -> Agent {
    let native = rustls_native_certs::load_native_certs().certs;
    let roots = if native.is_empty() {
        // A container without a certificate store.
        RootCerts::WebPki
    } else {
        let certificates = native.iter().map(|der| Certificate::from_der(der).to_owned()).collect();
        RootCerts::Specific(Arc::new(certificates))
    };
    let config = Agent::config_builder()
        .timeout_global(Some(TIMEOUT))
        // A redirect could lead from https to http, and away from the issuer.
        .max_redirects(0)
        .http_status_as_error(false)
        .user_agent(concat!("gprxy/", env!("CARGO_PKG_VERSION")))
        .tls_config(TlsConfig::builder().root_certs(roots).build());
    config.build().new_agent()
}
