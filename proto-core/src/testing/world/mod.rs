//! A whole proxy in one thread: the real driver, sessions and hub on virtual sockets and a virtual clock.
//!
//! ```
//! use gprxy_proto::testing::world::{Client, World};
//!
//! let mut world = World::new(4711);
//! world.script("alice", async {
//!     let mut alice = Client::dial("alice");
//!     alice.log_in_with_token("alice", &["reader"]).await.expect("the door is open");
//!     let answer = alice.query("rows 2 hello").await.expect("the session is up");
//!     assert_eq!(answer[1].value(), b"hello/0");
//!     alice.leave().await;
//! });
//! world.run();
//! world.end();
//! ```
//! Everything that can happen in more than one order happens in the order of the seed: which task runs next, how long
//! bytes fly, in which pieces they are read and written. Two runs of one seed are the same, see [`World::digest`]. In
//! a [`super::law`] a failing seed is run again and prints its transcript.

mod client;
mod core;
mod provider;
mod runtime;
mod server;
mod trail;

use std::collections::BTreeSet;
use std::future::Future;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_rustls::rustls::{ClientConfig, ServerConfig};

pub use self::core::{Door, Weather};
pub use client::{Client, Gone};
pub use provider::Provider;
pub use runtime::{Sim, SimAlarm, SimListener, SimSocket, sleep};

use super::corp;
use super::dice::Dice;
use super::law;
use super::postgres::Postgres;
use crate::auth::jwks::KeySets;
use crate::driver::audit_log::{AuditLog, Settings};
use crate::driver::serve::serve;
use crate::driver::shared::{Parts, ServerTls, Shared};
use crate::fault::{Refusal, SqlState};
use crate::hub::Hub;
use crate::policy::Endpoint;
use crate::pool::PoolMode;
use crate::session::Profile;
use crate::time::{Now, Tick};
use runtime::{Executor, Handle, lock};
use trail::Lines;

/// The proxy's name, also in its certificate.
pub const FRONT_HOST: &str = "gprxy.corp.example";

/// Where the proxy listens.
fn front_door() -> Endpoint {
    Endpoint::Tcp { host: FRONT_HOST.into(), port: 7777 }
}

/// TLS in a world. What it encrypts differs from run to run, its pieces do not.
#[derive(Default)]
pub struct WorldTls {
    /// The proxy's, for clients.
    pub clients: Option<Arc<ServerConfig>>,
    /// The clients': with it, each of them asks for TLS first.
    pub from_clients: Option<Arc<ClientConfig>>,
    /// The server's, for the proxy.
    pub server: Option<Arc<ServerConfig>>,
    /// The proxy's, for the server.
    pub to_server: ServerTls,
}

/// What a world is made of.
pub struct Setup {
    /// The proxy's policy.
    pub profile: Profile,
    /// The network.
    pub weather: Weather,
    /// Whether the provider's keys are known from the start.
    pub keys_known: bool,
    /// The audit log's bounds and behaviour.
    pub audit: Settings,
    /// The audit trail takes nothing before [`World::trail`] is read: room for `audit.max_records` is all there is.
    pub audit_blocked: bool,
    /// Where the server is: the databases of the profile name these.
    pub endpoints: Vec<Endpoint>,
    /// TLS, where there is to be any.
    pub tls: WorldTls,
}

impl Default for Setup {
    fn default() -> Self {
        // Written when somebody looks: a wake-up of the writer for each record would take longer than the rest.
        let audit = Settings { linger: Duration::from_secs(3600), ..Settings::default() };
        Self {
            profile: corp::profile(),
            weather: Weather::default(),
            keys_known: true,
            audit,
            audit_blocked: false,
            endpoints: vec![corp::endpoint()],
            tls: WorldTls::default(),
        }
    }
}

/// What looks at the hub after every step.
type Watch = Box<dyn FnMut(&Hub, Now)>;

/// A proxy, its server, its network and its clock.
pub struct World {
    /// The server behind the proxy.
    pub postgres: Postgres,
    /// The identity provider.
    pub provider: Provider,
    /// Draws for the test itself.
    pub dice: Dice,
    handle: Handle,
    executor: Executor,
    shared: Arc<Shared<Sim>>,
    audit: AuditLog,
    lines: Lines,
    scripts: Arc<Mutex<BTreeSet<String>>>,
    endpoints: Vec<Endpoint>,
    over: bool,
    /// Connections come back between transactions.
    pooled: bool,
    watch: Option<Watch>,
    _teller: Teller,
}

impl World {
    /// The usual world of a seed.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self::with(seed, Setup::default())
    }

    /// A world of a seed.
    ///
    /// # Panics
    /// When the audit log's thread cannot be started.
    #[must_use]
    pub fn with(seed: u64, setup: Setup) -> Self {
        let mut dice = Dice::new(seed);
        let handle = Handle::new(self::core::Core::new(dice.next(), setup.weather));
        handle.core().client_tls = setup.tls.from_clients;
        handle.enter();
        let now = corp::at(handle.core().tick);
        let keys: KeySets = if setup.keys_known { corp::keys(now) } else { corp::unfetched_keys(now) };
        let hub = Hub::new(keys, &setup.profile.limits, Box::new(dice.fork()));
        let lines = Lines::default();
        lines.set_blocked(setup.audit_blocked);
        let audit = AuditLog::start(lines.clone(), setup.audit).expect("the audit log starts");
        let provider = Provider::new();
        let pooled =
            setup.profile.databases.entries().any(|(_, database)| database.pool.pool_mode != PoolMode::Session);
        let shared = Shared::<Sim>::new(Parts {
            profile: Arc::new(setup.profile),
            hub,
            tls: setup.tls.clients,
            server_tls: setup.tls.to_server,
            tokens: None,
            control: None,
            audit: Some(audit.clone()),
            http: provider.agent(),
        });
        let postgres = Postgres::of_corp(dice.next());
        for endpoint in &setup.endpoints {
            handle.spawn(server::serve(postgres.clone(), endpoint.clone(), setup.tls.server.clone()));
        }
        handle.spawn(shared.clone().keep());
        handle.spawn(serve(shared.clone(), SimListener::new(handle.clone(), front_door())));
        let executor = Executor::new(handle.clone());
        let scripts = Arc::default();
        let (endpoints, _teller) = (setup.endpoints, Teller(handle.clone()));
        Self {
            postgres,
            provider,
            dice,
            handle,
            executor,
            shared,
            audit,
            lines,
            scripts,
            endpoints,
            over: false,
            pooled,
            watch: None,
            _teller,
        }
    }

    /// What all sessions share: drain it, kill it, look into it.
    #[must_use]
    pub const fn shared(&self) -> &Arc<Shared<Sim>> {
        &self.shared
    }

    /// The time.
    #[must_use]
    pub fn now(&self) -> Now {
        corp::at(self.handle.core().tick)
    }

    /// The time in the world of this thread, for scripts.
    #[must_use]
    pub fn time() -> Now {
        corp::at(Handle::time())
    }

    /// Something that goes on beside a script; [`World::run`] does not wait for it.
    pub fn aside(future: impl Future<Output = ()> + Send + 'static) {
        Handle::current().spawn(future);
    }

    /// Changes the network.
    pub fn set_weather(&self, weather: Weather) {
        self.handle.core().weather = weather;
    }

    /// What the server does with new connections, everywhere.
    pub fn set_door(&self, door: Door) {
        for endpoint in &self.endpoints {
            self.set_door_of(endpoint, door);
        }
    }

    /// What the server does with new connections at this endpoint.
    pub fn set_door_of(&self, endpoint: &Endpoint, door: Door) {
        self.handle.core().porch(endpoint).door = door;
    }

    /// The audit trail's file takes all that waits, then nothing more until the next time.
    ///
    /// # Panics
    /// When it is not written within ten seconds.
    pub fn write_trail(&self) {
        self.lines.set_blocked(false);
        assert!(self.audit.flush(Duration::from_secs(10)), "the audit trail is not written");
        self.lines.set_blocked(true);
    }

    /// A line of one's own in the transcript.
    pub fn note(&self, text: &str) {
        self.handle.core().note(|| text.to_owned());
    }

    /// A script that has to come to its end before [`World::run`] returns.
    pub fn script(&self, name: &str, script: impl Future<Output = ()> + Send + 'static) {
        let name = name.to_owned();
        assert!(lock(&self.scripts).insert(name.clone()), "two scripts are called {name}");
        let scripts = self.scripts.clone();
        self.handle.spawn(async move {
            script.await;
            lock(&scripts).remove(&name);
        });
    }

    /// Runs until all scripts are over.
    ///
    /// # Panics
    /// When that is not the case after an hour of virtual time, when nothing moves any more, or when a script panics.
    pub fn run(&mut self) {
        let limit = self.now().tick.after(Duration::from_secs(3600));
        while !lock(&self.scripts).is_empty() {
            if !self.step() && !self.pass_time(limit) {
                let left = lock(&self.scripts).clone();
                panic!("nothing moves any more, and these scripts are not over: {left:?}");
            }
        }
    }

    /// Lets so much time pass.
    pub fn advance(&mut self, span: Duration) {
        let limit = self.now().tick.after(span);
        while self.step() || (self.now().tick < limit && self.pass_time(limit)) {}
        let mut core = self.handle.core();
        core.tick = core.tick.max(limit);
    }

    /// Looks at the hub after everything that happens from now on.
    pub fn set_watch(&mut self, watch: impl FnMut(&Hub, Now) + 'static) {
        self.watch = Some(Box::new(watch));
    }

    fn step(&mut self) -> bool {
        let any = self.executor.step();
        if let Some(watch) = self.watch.as_mut().filter(|_| any) {
            let now = corp::at(self.handle.core().tick);
            self.shared.inspect(|hub| watch(hub, now));
        }
        any
    }

    fn pass_time(&self, limit: Tick) -> bool {
        self.handle.core().pass_time(limit)
    }

    /// The audit trail so far, one JSON object a line.
    ///
    /// # Panics
    /// When it is not written within ten seconds, or not JSON.
    #[must_use]
    pub fn trail(&self) -> Vec<serde_json::Value> {
        self.lines.set_blocked(false);
        assert!(self.audit.flush(Duration::from_secs(10)), "the audit trail is not written");
        let bytes = self.lines.bytes();
        let lines = bytes.split(|&byte| byte == b'\n').filter(|line| !line.is_empty());
        lines.map(|line| serde_json::from_slice(line).expect("a line of JSON")).collect()
    }

    /// The audit log itself.
    #[must_use]
    pub const fn audit(&self) -> &AuditLog {
        &self.audit
    }

    /// A number that two runs of the same seed share.
    #[must_use]
    pub fn digest(&self) -> u64 {
        self.handle.core().digest
    }

    /// Nobody is connected any more: every counter is at zero, no cancel is on its way, every connection that the pools
    /// keep is there and clean, and the server has no others.
    ///
    /// # Panics
    /// When one of these is not so.
    pub fn assert_quiet(&mut self) {
        let idle = self.assert_deserted();
        assert_eq!(self.postgres.backends().len(), idle, "the server has as many connections as the pools keep");
        let unfit = if self.pooled { self.postgres.in_between() } else { self.postgres.unclean() };
        assert_eq!(unfit, Vec::<u32>::new(), "kept connections are clean");
    }

    /// Nobody is connected any more: every counter is at zero, no cancel is on its way. How many connections the pools keep;
    /// the server may have ended some of them, unless they were used since.
    ///
    /// # Panics
    /// When one of these is not so.
    pub fn assert_deserted(&mut self) -> usize {
        self.advance(Duration::from_secs(30));
        assert_eq!(self.shared.sessions(), 0, "sessions are left");
        let (clients, orders, enrolled, counts) = self.shared.inspect(|hub| {
            let pools = hub.pools.snapshot();
            let counts: Vec<_> = pools.map(|it| (it.key.to_string(), hub.pools.counts(it.key))).collect();
            (hub.clients(), hub.cancels.orders(), hub.cancels.enrolled(), counts)
        });
        assert_eq!((clients, orders, enrolled), (0, 0, 0), "clients, cancels on their way, cancel keys");
        assert!(self.shared.inspect(crate::hub::Hub::is_deserted), "places of clients are left");
        for (key, counts) in &counts {
            let busy = (counts.active, counts.opening, counts.waiting);
            assert_eq!(busy, (0, 0, 0), "{key} has active, opening, waiting left");
        }
        counts.iter().map(|(_, counts)| counts.idle).sum()
    }

    /// Ends the proxy and the world.
    pub fn end(mut self) {
        self.wind_down();
    }

    fn wind_down(&mut self) {
        if std::mem::replace(&mut self.over, true) {
            return;
        }
        let name = "the world is ending".to_owned();
        lock(&self.scripts).insert(name);
        self.set_door(Door::Shut);
        self.shared.kill_all();
        self.advance(Duration::from_secs(60));
        self.shared.close_idle();
        self.advance(Duration::from_secs(10));
        let left = self.shared.sessions();
        assert_eq!(left, 0, "sessions that do not end");
    }
}

impl Drop for World {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            self.wind_down();
        }
        self.executor.clear();
        self.lines.set_blocked(false);
        Handle::leave();
    }
}

/// Prints the transcript of a world that fails, be it in its last moments.
struct Teller(Handle);

impl Drop for Teller {
    fn drop(&mut self) {
        if std::thread::panicking() && law::is_recording() {
            let lines = self.0.core().take_transcript();
            eprintln!("{} lines of transcript:\n{}", lines.len(), lines.join("\n"));
        }
    }
}

/// The refusal of a test that ends sessions.
#[must_use]
pub fn test_refusal() -> Refusal {
    Refusal::new(SqlState::ADMIN_SHUTDOWN, "ended by the test")
}
