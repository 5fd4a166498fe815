//! A whole proxy on a runtime, between real sockets: scripted servers behind it, and scripted clients.

use std::future::poll_fn;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::thread::JoinHandle;
use std::time::Duration;

use futures_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName};
use futures_rustls::rustls::{ALL_VERSIONS, ClientConfig, RootCertStore, ServerConfig};
use futures_rustls::{TlsAcceptor, TlsConnector};

use super::super::corp;
use super::super::postgres::{Backend, Ending, Postgres};
use super::super::wire::front;
use super::{Kind, PATIENCE, Place, Queue, visitor::Visitor};
use crate::driver::entropy::SystemEntropy;
use crate::driver::host::Host;
use crate::driver::link::Link;
use crate::driver::runtime::{Alarm, Listener as _};
use crate::driver::serve::{pause, serve};
use crate::driver::shared::{Parts, Shared};
use crate::driver::tls;
use crate::hub::Hub;
use crate::policy::{Database, Databases, SslMode, TlsTerms};
use crate::session::Profile;

/// Sessions of one proxy are spread over two threads, as in a process.
const WORKERS: usize = 2;

/// What differs from test to test.
pub(super) struct Terms {
    pub(super) profile: Profile,
    /// TLS between proxy and server.
    pub(super) sslmode: SslMode,
    pub(super) pool_size: u32,
    pub(super) query_wait_timeout: Duration,
    /// The server reads and writes no more than so many bytes at once.
    pub(super) crumbs: usize,
}

impl Default for Terms {
    fn default() -> Self {
        let profile = Profile { tls: true, audit: None, ..corp::profile() };
        let sslmode = SslMode::Disable;
        Self { profile, sslmode, pool_size: 4, query_wait_timeout: PATIENCE, crumbs: 64 * 1024 }
    }
}

/// A proxy that serves.
pub(super) struct Rig<H: Host> {
    pub(super) postgres: Postgres,
    pub(super) shared: Arc<Shared<H>>,
    /// The scripted servers read nothing while it is closed.
    pub(super) gate: Arc<Gate>,
    front: Place,
    workers: Vec<JoinHandle<()>>,
}

/// Stops the servers from reading, and counts what they could write.
#[derive(Default)]
pub(super) struct Gate {
    closed: AtomicBool,
    written: AtomicUsize,
    opened: Queue<()>,
}

impl Gate {
    pub(super) fn close(&self) {
        self.closed.store(true, Ordering::SeqCst);
    }

    /// Lets one server go on that stands before the gate.
    pub(super) fn open(&self) {
        self.closed.store(false, Ordering::SeqCst);
        self.opened.put(());
    }

    pub(super) fn written(&self) -> usize {
        self.written.load(Ordering::SeqCst)
    }
}

/// Runs a story with a proxy; afterwards nobody is left and the pool is idle.
pub(super) fn with_proxy<H: Host>(terms: Terms, story: impl AsyncFnOnce(&Rig<H>)) {
    super::run::<H, _>(async {
        let rig = Rig::start(terms);
        story(&rig).await;
        rig.end().await;
    });
}

impl<H: Host> Rig<H> {
    fn start(terms: Terms) -> Self {
        let (front, back) = (Place::new(Kind::Tcp), Place::new(Kind::Tcp));
        let (postgres, gate) = (Postgres::of_corp(7), Arc::new(Gate::default()));
        let listener = back.listen::<H>();
        H::spawn(accept_servers::<H>(listener, postgres.clone(), gate.clone(), terms.crumbs));

        let mut profile = terms.profile;
        let mut database = Database { sslmode: terms.sslmode, ..named(&profile.databases) };
        database.endpoints = Arc::new([back.endpoint.clone()]);
        let pool = std::sync::Arc::make_mut(&mut database.pool);
        pool.default_pool_size = terms.pool_size;
        pool.query_wait_timeout = terms.query_wait_timeout;
        profile.databases = Databases::new([(corp::DATABASE.into(), database)]);
        let hub = Hub::new(corp::keys(H::now()), &profile.limits, Box::new(SystemEntropy::new()));
        let to_server = TlsTerms { sslmode: terms.sslmode, sslrootcert: None };
        let shared = Shared::<H>::new(Parts {
            profile: Arc::new(profile),
            hub,
            tls: Some(certificate()),
            server_tls: unverified(terms.sslmode).map(|config| (to_server, config)).into_iter().collect(),
            tokens: None,
            control: None,
            audit: None,
            http: ureq::Agent::new_with_defaults(),
        });
        H::spawn(shared.clone().keep());
        let start = |index| {
            let (shared, bound) = (shared.clone(), front.bound.share().expect("descriptors are left"));
            let worker = move || async move {
                serve(shared.clone(), H::listen(bound).expect("the socket can be watched")).await;
                shared.emptied().await;
            };
            H::start_worker(index, worker).expect("a thread can be started")
        };
        let workers = (0..WORKERS).map(start).collect();
        Self { postgres, shared, gate, front, workers }
    }

    /// Somebody connects, and says nothing yet.
    pub(super) async fn visitor(&self) -> Visitor<H> {
        Visitor::new(super::connect::<H>(&self.front.endpoint).await)
    }

    /// Somebody with a session.
    pub(super) async fn session(&self, subject: &str) -> Visitor<H> {
        let mut visitor = self.visitor().await;
        let last = visitor.log_in(subject).await;
        assert_eq!(last.tag, b'Z', "{subject}: {}", last.brief());
        visitor
    }

    /// Returns when it is so.
    pub(super) async fn until(&self, is_so: impl Fn(&Self) -> bool) {
        while !is_so(self) {
            pause::<H>(Duration::from_millis(1)).await;
        }
    }

    async fn end(mut self) {
        self.shared.drain();
        let workers = std::mem::take(&mut self.workers);
        H::blocking(move || workers.into_iter().for_each(|worker| worker.join().expect("the worker ends in order")))
            .await;
        assert_eq!(self.shared.sessions(), 0);
        self.shared.inspect(|hub| {
            assert_eq!((hub.clients(), hub.cancels.orders(), hub.cancels.enrolled()), (0, 0, 0));
            for pool in hub.pools.snapshot() {
                assert_eq!((pool.active, pool.opening, pool.waiting), (0, 0, 0), "{pool:?}");
            }
        });
        self.shared.close_idle();
        self.until(|rig| rig.postgres.backends().is_empty()).await;
    }
}

fn named(databases: &Databases) -> Database {
    let database = databases.find(corp::DATABASE).expect("the company has one");
    Database::clone(database)
}

/// For `localhost`, signed by itself: nobody verifies it here.
fn certificate() -> Arc<ServerConfig> {
    let chain = vec![CertificateDer::from(&include_bytes!("../keys/localhost.der")[..])];
    let key = PrivatePkcs8KeyDer::from(&include_bytes!("../keys/localhost-key.der")[..]);
    tls::server_config(chain, PrivateKeyDer::Pkcs8(key), ALL_VERSIONS).expect("the key fits the certificate")
}

fn unverified(mode: SslMode) -> Option<Arc<ClientConfig>> {
    tls::client_config(mode, RootCertStore::empty()).expect("nothing is verified")
}

/// A client's TLS.
pub(super) async fn encrypt<H: Host>(socket: H::Socket) -> Link<H::Socket> {
    let connector = TlsConnector::from(unverified(SslMode::Require).expect("that is TLS"));
    let name = ServerName::try_from("localhost").expect("a name");
    Link::Connected(Box::new(connector.connect(name, socket).await.expect("the handshake succeeds")))
}

async fn accept_servers<H: Host>(listener: H::Listener, postgres: Postgres, gate: Arc<Gate>, crumbs: usize) {
    while let Ok((socket, _)) = listener.accept().await {
        let (backend, gate) = (Backend::new(&postgres), gate.clone());
        let postgres = postgres.clone();
        H::spawn(async move {
            let Ok(link) = welcome::<H>(socket).await else { return };
            let (out, alarm) = (Vec::new(), H::alarm());
            let mut server = Server::<H> { backend, link, out, alarm, gate, crumbs, cancel: None };
            if let Some((pid, key)) = server.run().await {
                postgres.cancel(pid, &key);
            }
        });
    }
}

/// Looks at the first packet: an SSLRequest is granted, anything else is given back to be read again.
async fn welcome<H: Host>(mut socket: H::Socket) -> io::Result<(Link<H::Socket>, Vec<u8>)> {
    let mut first = vec![0; 8];
    super::read_exact(&mut socket, &mut first).await?;
    if first != front::ssl_request() {
        return Ok((Link::Plain(socket), first));
    }
    super::write_all(&mut socket, b"S").await?;
    let stream = TlsAcceptor::from(certificate()).accept(socket).await?;
    Ok((Link::Accepted(Box::new(stream)), Vec::new()))
}

struct Server<H: Host> {
    backend: Backend,
    /// And what was read of it already.
    link: (Link<H::Socket>, Vec<u8>),
    out: Vec<u8>,
    alarm: H::Alarm,
    gate: Arc<Gate>,
    crumbs: usize,
    cancel: Option<(u32, Vec<u8>)>,
}

impl<H: Host> Server<H> {
    /// Serves to the end; the cancel request that it was, if it was one.
    async fn run(&mut self) -> Option<(u32, Vec<u8>)> {
        let first = std::mem::take(&mut self.link.1);
        self.backend.handle_input(&first, H::now());
        while poll_fn(|context| self.poll(context)).await.is_none() {
            if self.gate.closed.load(Ordering::SeqCst) {
                self.gate.opened.take().await;
            }
        }
        self.cancel.take()
    }

    /// One step. `Some` is the end.
    fn poll(&mut self, context: &mut Context<'_>) -> Poll<Option<Ending>> {
        self.backend.register(context.waker());
        self.backend.handle_timeout(H::now());
        self.out.extend(self.backend.poll_output().unwrap_or_default());
        let writing = self.poll_write(context);
        if writing.is_ready()
            && let Some(ending) = self.backend.ending()
        {
            return Poll::Ready(Some(ending));
        }
        self.backend.register(context.waker());
        self.alarm.set(self.backend.poll_timeout());
        if self.alarm.poll(context).is_ready() {
            return Poll::Ready(None);
        }
        // A server that cannot write does not read: its memory is bounded, too.
        if writing.is_pending() {
            return Poll::Pending;
        }
        let mut buffer = vec![0; self.crumbs];
        match self.link.0.poll_read(context, &mut buffer) {
            Poll::Pending => Poll::Pending,
            Poll::Ready(Ok(n)) if n > 0 => {
                self.backend.handle_input(&buffer[..n], H::now());
                self.cancel = self.backend.take_cancel();
                Poll::Ready(self.cancel.is_some().then_some(Ending::Close))
            }
            Poll::Ready(_) => {
                self.backend.handle_close();
                Poll::Ready(Some(Ending::Close))
            }
        }
    }

    fn poll_write(&mut self, context: &mut Context<'_>) -> Poll<()> {
        let mut at = 0;
        while at < self.out.len() {
            let end = self.out.len().min(at + self.crumbs);
            match self.link.0.poll_write(context, &self.out[at..end], &[]) {
                Poll::Pending => break,
                Poll::Ready(Ok(n)) => {
                    self.gate.written.fetch_add(n, Ordering::SeqCst);
                    at += n;
                }
                Poll::Ready(Err(_)) => at = self.out.len(),
            }
        }
        self.out.drain(..at);
        if !self.out.is_empty() {
            return Poll::Pending;
        }
        self.link.0.poll_flush(context).map(drop)
    }
}
