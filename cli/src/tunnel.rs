//! `gprxy tunnel`: a port of this computer that leads to a remote gprxy, for programs that cannot get tokens.
//!
//! ```text
//!  GUI, driver ──SCRAM, or a Unix socket of one's own──▶ Session ──TLS verify-full, a fresh token──▶ remote gprxy
//! ```
//! It is the proxy itself with another profile: a gate in place of tokens, one database `*` at the remote gprxy, and a
//! source of tokens for each new connection. A connection to the remote belongs to the one client that it was opened for.

mod greeting;
mod listen;
mod tokens;
mod way;

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::process::ExitCode;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use gprxy_proto::auth::gate::Gate;
use gprxy_proto::auth::jwks::{KeySetLimits, KeySets};
use gprxy_proto::driver::entropy::SystemEntropy;
use gprxy_proto::driver::host::{Host, Signals as _};
use gprxy_proto::driver::serve;
use gprxy_proto::driver::shared::{Parts, ServerTls, Shared};
use gprxy_proto::driver::tokens::TokenSource;
use gprxy_proto::hub::Hub;
use gprxy_proto::policy::{Database, Databases, HostOrder, Limits, LogTerms};
use gprxy_proto::pool::PoolSettings;
use gprxy_proto::session;
use gprxy_proto::time::Now;

use crate::args::DefaultHost;
use crate::commands::Connection;
use crate::config::{LogFormat, LogSettings};
use crate::profile::{Profile, ProfileArgs};
use crate::sso::failure::{Failure, Result};
use crate::{interrupts, logging, server_tls, start};

pub(crate) use listen::Listen;
use tokens::Login;
use way::Way;

/// What a shell says of a command that Ctrl-C has ended.
const EX_INTERRUPTED: u8 = 130;
/// Clients of one computer; each may have its own connection to the remote.
const MAX_CLIENTS: u32 = 1000;
/// Opening a connection to the remote, its login to PostgreSQL included: that may wait for a place in a pool there.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(150);
/// How long running statements may take when the tunnel is closed.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(30);

/// `gprxy tunnel`
#[derive(clap::Args)]
pub(crate) struct TunnelArgs {
    #[command(flatten)]
    profile: ProfileArgs,

    /// Where to listen: a loopback address, or a directory for a Unix socket; may be given several times
    #[arg(long, value_name = "ADDRESS", value_parser = Listen::parse, default_value = "127.0.0.1:5433")]
    listen: Vec<Listen>,

    /// Let every program and user of this computer in at the loopback address, without a password
    #[arg(long)]
    no_password: bool,

    /// How TLS to the proxy is verified: libpq's sslmode [default: verify-full]
    #[arg(long, value_name = "MODE")]
    sslmode: Option<String>,

    /// Database for the connection string; any other can be used as well [default: the profile's]
    #[arg(short, long, value_name = "NAME")]
    database: Option<String>,

    /// Say where it listens as one line of JSON
    #[arg(long)]
    json: bool,
}

/// Runs the tunnel until it is told to end.
pub(crate) fn run(args: TunnelArgs) -> ExitCode {
    // Nothing is written to a file, so nothing can fail.
    let _ = logging::install(&LogSettings {
        level: log::LevelFilter::Warn,
        format: LogFormat::Text,
        file: None,
        quiet: false,
        told: LogTerms::default(),
    });
    start::guard_process();
    let ended = DefaultHost::block_on(tunnel::<DefaultHost>(args));
    // A token may just be being renewed, for a client that has gone: what the provider has given is kept first, and
    // nothing new begins.
    std::mem::forget(interrupts::hold());
    match ended {
        Ok(Ok(code)) => code,
        Ok(Err(failure)) => failure.report(),
        Err(error) => Failure::unavailable(format!("the runtime cannot be set up: {error}")).report(),
    }
}

async fn tunnel<H: Host>(args: TunnelArgs) -> Result<ExitCode> {
    // Installed before anything can be seen from outside: who sees the tunnel can end it.
    let signals = H::Signals::install();
    let mut signals = signals.map_err(|error| Failure::unavailable(format!("signals cannot be caught: {error}")))?;
    let as_json = args.json;
    let opening = H::blocking(move || Tunnel::open(&args));
    match either(opening, signals.next()).await {
        Either::First(tunnel) => serve::<H>(tunnel?, &mut signals, as_json).await.map(|()| ExitCode::SUCCESS),
        Either::Second(_) => Ok(ExitCode::from(EX_INTERRUPTED)),
    }
}

/// Everything that is there before anybody can connect.
struct Tunnel {
    way: Way,
    tokens: Arc<dyn TokenSource>,
    doors: Vec<listen::Door>,
}

impl Tunnel {
    fn open(args: &TunnelArgs) -> Result<Self> {
        let (login, credentials) = Login::open(Profile::load(&args.profile)?)?;
        let profile = login.profile();
        let connection = Connection::new(profile, &credentials, args.database.as_deref(), args.sslmode.as_deref())?;
        let way = Way::new(connection, profile)?;
        let doors = args.listen.iter().map(|listen| listen.open(args.no_password)).collect::<Result<Vec<_>>>()?;
        Ok(Self { way, tokens: Arc::new(login), doors: doors.into_iter().flatten().collect() })
    }
}

/// The parts of a proxy with this gate in front of the way to the remote.
fn assemble(way: &Way, gate: Gate, tokens: &Arc<dyn TokenSource>, now: Now) -> Result<Parts> {
    let limits = Limits { max_client_conn: MAX_CLIENTS, drain_timeout: DRAIN_TIMEOUT, ..Limits::default() };
    let database = Database {
        account: None,
        auth_query: None,
        dbname: None,
        endpoints: [way.endpoint.clone()].into(),
        host_order: HostOrder::default(),
        sslmode: way.sslmode,
        sslrootcert: way.ca.clone(),
        connect_timeout: CONNECT_TIMEOUT,
        pool: Arc::new(PoolSettings {
            // A connection for each client, and nobody waits for another's failure.
            default_pool_size: MAX_CLIENTS,
            server_login_retry: Duration::ZERO,
            ..PoolSettings::default()
        }),
        session: Arc::default(),
    };
    let mut server_tls = ServerTls::new();
    if let Some(config) =
        server_tls::config_for(&database.tls_terms()).map_err(|why| Failure::settings(format!("proxy_ca: {why}")))?
    {
        server_tls.insert(database.tls_terms(), config);
    }
    let keys = KeySets::new(Vec::new(), KeySetLimits::default(), now);
    let keys = keys.map_err(|error| Failure::settings(error.to_string()))?;
    let hub = Hub::new(keys, &limits, Box::new(SystemEntropy::new()));
    let profile = session::Profile {
        gate: Some(Arc::new(gate)),
        databases: Databases::new([(Databases::ANY.into(), database)]),
        limits,
        ..session::Profile::default()
    };
    Ok(Parts {
        profile: Arc::new(profile),
        hub,
        tls: None,
        server_tls,
        tokens: Some(tokens.clone()),
        control: None,
        audit: None,
        http: crate::http::agent(),
    })
}

async fn serve<H: Host>(tunnel: Tunnel, signals: &mut H::Signals, as_json: bool) -> Result<()> {
    let (mut all, mut places) = (Vec::new(), Vec::new());
    for door in tunnel.doors {
        let (listening, gate, place) = door.into_parts();
        // A hub for each: a cancel comes in where its session did.
        let shared = Shared::<H>::new(assemble(&tunnel.way, gate, &tunnel.tokens, H::now())?);
        H::spawn(shared.clone().keep());
        let bound = listening.share().map_err(Failure::unavailable)?;
        let listener = H::listen(bound).map_err(|error| Failure::unavailable(format!("cannot listen: {error}")))?;
        H::spawn(serve::serve(shared.clone(), listener));
        all.push((shared, listening));
        places.push(place);
    }
    greeting::print(&tunnel.way, &places, as_json);
    drop(places);
    signals.next().await;
    drain::<H>(signals, all).await;
    Ok(())
}

/// Lets running transactions end, up to the limit or a second signal.
async fn drain<H: Host>(signals: &mut H::Signals, doors: Vec<(Arc<Shared<H>>, start::Listening)>) {
    let shared: Vec<Arc<Shared<H>>> = doors.into_iter().map(|(shared, _)| shared).collect();
    shared.iter().for_each(|shared| shared.drain());
    let open: usize = shared.iter().map(|shared| shared.sessions()).sum();
    if open > 0 {
        eprintln!("gprxy: {open} connections are closed as soon as nothing runs in them; Ctrl-C again closes them now");
    }
    let until = H::now().tick.after(DRAIN_TIMEOUT);
    let _ = serve::within::<H, _>(until, either(emptied(&shared), signals.next())).await;
    shared.iter().for_each(|shared| shared.kill_all());
    let _ = serve::within::<H, _>(H::now().tick.after(start::LAST_WORDS), emptied(&shared)).await;
}

async fn emptied<H: Host>(shared: &[Arc<Shared<H>>]) {
    for shared in shared {
        shared.emptied().await;
    }
}

/// Which of two came first.
enum Either<A, B> {
    First(A),
    Second(B),
}

async fn either<A, B>(first: impl Future<Output = A>, second: impl Future<Output = B>) -> Either<A, B> {
    let (mut first, mut second) = (pin!(first), pin!(second));
    poll_fn(|context| match first.as_mut().poll(context) {
        Poll::Ready(output) => Poll::Ready(Either::First(output)),
        Poll::Pending => second.as_mut().poll(context).map(Either::Second),
    })
    .await
}
