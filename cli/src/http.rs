//! HTTP to identity providers: bounded in time, without redirects, verified with the system's authorities.

use std::sync::Arc;
use std::time::Duration;

use ureq::Agent;
use ureq::tls::{Certificate, RootCerts, TlsConfig};

/// All of one request.
const TIMEOUT: Duration = Duration::from_secs(10);

/// For a response's head, and for its body piece by piece. With the library's own 128 KiB for each direction, a
/// connection that idles between two fetches would be the largest thing in a small process.
const INPUT_BYTES: usize = 32 * 1024;
/// For a request, which is a line and a few headers.
const OUTPUT_BYTES: usize = 8 * 1024;

/// For discovery documents and key sets.
pub(crate) fn agent() -> Agent {
    let native = rustls_native_certs::load_native_certs().certs;
    let roots = if native.is_empty() {
        // A container without a certificate store.
        RootCerts::WebPki
    } else {
        // One by one: each is freed when it has been copied.
        let certificates = native.into_iter().map(|der| Certificate::from_der(&der).to_owned()).collect();
        RootCerts::Specific(Arc::new(certificates))
    };
    let config = Agent::config_builder()
        .timeout_global(Some(TIMEOUT))
        // A redirect could lead from https to http, and away from the issuer.
        .max_redirects(0)
        .input_buffer_size(INPUT_BYTES)
        .output_buffer_size(OUTPUT_BYTES)
        // Less than the buffer, so that a head without an end is an error and no wait.
        .max_response_header_size(INPUT_BYTES / 2)
        .http_status_as_error(false)
        .user_agent(concat!("gprxy/", env!("CARGO_PKG_VERSION")))
        .tls_config(TlsConfig::builder().root_certs(roots).build());
    config.build().new_agent()
}
