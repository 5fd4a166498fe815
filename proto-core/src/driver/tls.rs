//! TLS on both sides, by rustls over ring.

use std::io;
use std::sync::Arc;

use futures_rustls::rustls;
use futures_rustls::{TlsAcceptor, TlsConnector};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{WebPkiServerVerifier, verify_server_cert_signed_by_trust_anchor};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, ServerConfig, SignatureScheme};

use super::link::Link;
use super::runtime::Socket;
use crate::policy::{Endpoint, SslMode};
use crate::session::Encryption;

/// The ALPN protocol of PostgreSQL over TLS.
const ALPN: &[u8] = b"postgresql";

fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

/// TLS for clients.
///
/// # Errors
/// When the key does not fit the certificate.
pub fn server_config(
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
    versions: &[&'static rustls::SupportedProtocolVersion],
) -> Result<Arc<ServerConfig>, rustls::Error> {
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(versions)?
        .with_no_client_auth()
        .with_single_cert(chain, key)?;
    config.alpn_protocols = vec![ALPN.to_vec()];
    Ok(Arc::new(config))
}

/// TLS to servers, verified as far as `mode` says. `None` for [`SslMode::Disable`].
///
/// # Errors
/// When no authority is there to verify with.
pub fn client_config(mode: SslMode, roots: RootCertStore) -> Result<Option<Arc<ClientConfig>>, String> {
    let builder = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?;
    let roots = Arc::new(roots);
    let builder = match mode {
        SslMode::Disable => return Ok(None),
        SslMode::Prefer | SslMode::Require => {
            builder.dangerous().with_custom_certificate_verifier(Arc::new(Unverified(provider())))
        }
        SslMode::VerifyCa => {
            if roots.is_empty() {
                return Err("there is no certificate authority to verify the server with".into());
            }
            builder.dangerous().with_custom_certificate_verifier(Arc::new(AnyName { roots, provider: provider() }))
        }
        SslMode::VerifyFull => {
            let verifier = WebPkiServerVerifier::builder_with_provider(roots, provider())
                .build()
                .map_err(|error| format!("the certificate authorities cannot be used: {error}"))?;
            builder.with_webpki_verifier(verifier)
        }
    };
    Ok(Some(Arc::new(builder.with_no_client_auth())))
}

/// Any certificate: libpq's `prefer` and `require` encrypt, and say nothing about who is there.
#[derive(Debug)]
struct Unverified(Arc<CryptoProvider>);

/// A certificate signed by a known authority, whatever host it names: libpq's `verify-ca`.
#[derive(Debug)]
struct AnyName {
    roots: Arc<RootCertStore>,
    provider: Arc<CryptoProvider>,
}

macro_rules! signatures {
    ($($provider:tt)+) => {
        fn verify_tls12_signature(
            &self,
            message: &[u8],
            cert: &CertificateDer<'_>,
            dss: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, rustls::Error> {
            rustls::crypto::verify_tls12_signature(message, cert, dss, &self.$($provider)+.signature_verification_algorithms)
        }

        fn verify_tls13_signature(
            &self,
            message: &[u8],
            cert: &CertificateDer<'_>,
            dss: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, rustls::Error> {
            rustls::crypto::verify_tls13_signature(message, cert, dss, &self.$($provider)+.signature_verification_algorithms)
        }

        fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
            self.$($provider)+.signature_verification_algorithms.supported_schemes()
        }
    };
}

impl ServerCertVerifier for Unverified {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    signatures!(0);
}

impl ServerCertVerifier for AnyName {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let certificate = ParsedCertificate::try_from(end_entity)?;
        let algorithms = self.provider.signature_verification_algorithms.all;
        verify_server_cert_signed_by_trust_anchor(&certificate, &self.roots, intermediates, now, algorithms)?;
        Ok(ServerCertVerified::assertion())
    }

    signatures!(provider);
}

/// Encrypts the client's side.
pub(super) async fn accept<S: Socket>(
    config: Arc<ServerConfig>,
    socket: S,
) -> io::Result<(Link<S>, Encryption, Option<Vec<u8>>)> {
    let stream = TlsAcceptor::from(config).accept(socket).await?;
    let (_, session) = stream.get_ref();
    let alpn = session.alpn_protocol().map(<[u8]>::to_vec);
    let description = describe(session.protocol_version(), session.negotiated_cipher_suite());
    Ok((Link::Accepted(Box::new(stream)), description, alpn))
}

/// Encrypts the server's side.
pub(super) async fn connect<S: Socket>(
    config: Arc<ClientConfig>,
    endpoint: &Endpoint,
    socket: S,
) -> io::Result<Link<S>> {
    let name = match endpoint {
        Endpoint::Tcp { host, .. } => ServerName::try_from(host.to_string()),
        Endpoint::Unix(_) => ServerName::try_from("localhost".to_owned()),
    };
    let name = name.map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))?;
    let stream = TlsConnector::from(config).connect(name, socket).await?;
    Ok(Link::Connected(Box::new(stream)))
}

fn describe(version: Option<rustls::ProtocolVersion>, suite: Option<rustls::SupportedCipherSuite>) -> Encryption {
    let version = match version {
        Some(rustls::ProtocolVersion::TLSv1_3) => "TLSv1.3",
        Some(rustls::ProtocolVersion::TLSv1_2) => "TLSv1.2",
        _ => "TLS",
    };
    // The registered names of the TLS 1.3 suites have no 13 in them.
    let cipher = suite.map_or_else(String::new, |suite| format!("{:?}", suite.suite()).replace("TLS13_", "TLS_"));
    Encryption { version: version.into(), cipher: cipher.into() }
}
