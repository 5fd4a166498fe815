//! The same with TLS on both sides: rustls in the middle of chopped bytes, resets and vanishing clients.

use std::sync::{Arc, LazyLock};

use futures_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use futures_rustls::rustls::{ALL_VERSIONS, ClientConfig, RootCertStore, ServerConfig};
use gprxy_proto::driver::tls;
use gprxy_proto::policy::{AllowPlaintext, Endpoint, SslMode, TlsTerms};
use gprxy_proto::pool::PoolSettings;
use gprxy_proto::testing::corp;
use gprxy_proto::testing::law::check;
use gprxy_proto::testing::world::{FRONT_HOST, Setup, WorldTls};

use crate::isolation::{bustle, setup};
use crate::visitor::{Manners, assert_isolated};

/// One certificate for the proxy and the server, and what trusts it.
struct Identity {
    server: Arc<ServerConfig>,
    client: Arc<ClientConfig>,
}

static IDENTITY: LazyLock<Identity> = LazyLock::new(|| {
    let Endpoint::Tcp { host, .. } = corp::endpoint() else { panic!("the server is reached over TCP") };
    let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap();
    let names = vec![FRONT_HOST.to_owned(), host.to_string()];
    let certificate = rcgen::CertificateParams::new(names).unwrap().self_signed(&key).unwrap();
    let certificate: CertificateDer<'static> = certificate.der().clone();
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let mut roots = RootCertStore::empty();
    roots.add(certificate.clone()).unwrap();
    Identity {
        server: tls::server_config(vec![certificate], key, ALL_VERSIONS).unwrap(),
        client: tls::client_config(SslMode::VerifyFull, roots).unwrap().unwrap(),
    }
});

fn encrypted(seed: u64) -> Setup {
    let mut setup = setup(seed);
    setup.profile.tls = true;
    setup.profile.allow_plaintext = AllowPlaintext::Never;
    let pool = PoolSettings { default_pool_size: 2, ..PoolSettings::default() };
    setup.profile.databases = corp::databases_at(&[corp::endpoint()], SslMode::VerifyFull, pool);
    let terms = TlsTerms { sslmode: SslMode::VerifyFull, sslrootcert: None };
    setup.tls = WorldTls {
        clients: Some(IDENTITY.server.clone()),
        from_clients: Some(IDENTITY.client.clone()),
        server: Some(IDENTITY.server.clone()),
        to_server: [(terms, IDENTITY.client.clone())].into(),
    };
    setup
}

#[test]
fn law_encrypted_order_and_isolation() {
    check("law_encrypted", 200, |seed| {
        let manners = match seed % 3 {
            0 => Manners::default(),
            _ => Manners { vanish: 15, cancel: 15, faults: 5 },
        };
        let (mut world, book) = bustle(seed, manners, encrypted(seed));
        assert_isolated(&book);
        world.assert_quiet();
        for line in world.trail() {
            assert!(line["tls"].is_object(), "{line}");
        }
    });
}
