//! A proxy on plain blocking sockets, for one client at a time: the machines with little more than `std` around them.
//!
//! `cargo run -p gprxy-examples --example blocking_proxy -- 127.0.0.1:7777 127.0.0.1:5432`, then
//! `psql -h 127.0.0.1 -p 7777 -U somebody`: PostgreSQL itself checks the password, and has to ask for one.
//! The clock and the random bytes are the driver's, everything else that a driver does is below.

use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::ops::ControlFlow::{self, Break, Continue};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::Duration;

use gprxy_proto::driver::{clock::now, entropy::SystemEntropy, runtime::Caller};
use gprxy_proto::fault::{Lost, Refusal, SqlState};
use gprxy_proto::policy::{Database, Databases, SslMode};
use gprxy_proto::pool::{PoolOutput, Pools, Returned};
use gprxy_proto::session::{Action, Finish, Leased, Output, Profile, Reply, Session, Side, Verdict, Wish};
use gprxy_proto::upstream::{LoggedIn, Login, LoginOutput};
use gprxy_proto::{auth::Authenticated, cancel::Registry, entropy::Entropy, session_id::SessionId};

/// Reads a side on a thread of its own, no further ahead than the channel has room. An empty piece is the end.
fn listen_to(socket: Arc<TcpStream>, side: Side, events: SyncSender<(Side, Vec<u8>)>) {
    std::thread::spawn(move || {
        loop {
            let mut bytes = [0; 16 * 1024];
            let n = (&*socket).read(&mut bytes).unwrap_or(0);
            if events.send((side, bytes[..n].to_vec())).is_err() || n == 0 {
                return;
            }
        }
    });
}

struct Proxy<'a> {
    session: Session,
    pools: Pools,
    server_address: &'a str,
    /// The client's, and once there is one, the server's.
    sockets: [Option<Arc<TcpStream>>; 2],
    /// What has come from each and is not used yet.
    come: [Vec<u8>; 2],
    events: SyncSender<(Side, Vec<u8>)>,
}

impl Proxy<'_> {
    fn run(&mut self, events: &Receiver<(Side, Vec<u8>)>) -> ControlFlow<Finish> {
        loop {
            while self.show(Side::Server)? || self.show(Side::Client)? {}
            let due = self.session.poll_timeout().map_or(Duration::MAX, |due| due.at.since(now().tick));
            match events.recv_timeout(due) {
                Ok((side, bytes)) if bytes.is_empty() => self.session.handle_close(side, Lost::Closed, now()),
                Ok((side, bytes)) => self.come[side as usize].extend(bytes),
                Err(_) => self.session.handle_timeout(now()),
            }
        }
    }

    /// Shows the session what a side has sent, if anything; whether something came of it.
    fn show(&mut self, from: Side) -> ControlFlow<Finish, bool> {
        let verdict = self.session.handle_input(from, &self.come[from as usize], now());
        let mut busy = false;
        while let Some(output) = self.session.poll_output() {
            self.carry_out(output)?;
            busy = true;
        }
        let (Verdict::Take(n) | Verdict::Forward(n)) = verdict else { return Continue(busy) };
        let front: Vec<u8> = self.come[from as usize].drain(..n).collect();
        if verdict == Verdict::Forward(n) {
            self.write(from.other(), &front);
        }
        Continue(true)
    }

    fn carry_out(&mut self, output: Output) -> ControlFlow<Finish> {
        match output {
            Output::Send(side, bytes) => self.write(side, &bytes),
            Output::Do(Action::Lease(wish)) => {
                let key = Registry::new().enroll(self.session.id(), wish.wide_key, &mut SystemEntropy::new());
                self.session.handle_reply(Reply::Enrolled(key), now());
                let reply = self.lease(&wish).map_or_else(Reply::Refused, Reply::Leased);
                self.session.handle_reply(reply, now());
            }
            Output::Do(Action::Release(back)) => self.pools.handle_release(back.lease, Returned::Broken, now()),
            Output::Finished(finish) => return Break(finish),
            _ => {} // no tokens, TLS or audit trail; and while one client is served, no other one can cancel
        }
        Continue(())
    }

    /// A peer that does not take it is gone, as the thread that reads will notice.
    fn write(&self, to: Side, bytes: &[u8]) {
        let _ = self.sockets[to as usize].as_deref().map(|mut socket| socket.write_all(bytes));
    }

    fn lease(&mut self, wish: &Wish) -> Result<Leased, Refusal> {
        let (socket, welcome) = log_in(self.server_address, wish)?;
        listen_to(socket.clone(), Side::Server, self.events.clone());
        self.sockets[Side::Server as usize] = Some(socket);
        self.pools.handle_request(wish.request(self.session.id()), now());
        let Some(PoolOutput::Granted { lease, .. }) = self.pools.poll_output() else { unreachable!("it is empty") };
        self.pools.handle_opened(&lease, now());
        Ok(Leased::new(lease, welcome.parameters.clone(), Authenticated::by_server(&welcome)))
    }
}

/// Logs in to the server as the client, with the client's password.
fn log_in(address: &str, wish: &Wish) -> Result<(Arc<TcpStream>, LoggedIn), Refusal> {
    let lost = |error: io::Error| Refusal::new(SqlState::CONNECTION_FAILURE, error.to_string());
    let mut socket = TcpStream::connect(address).map_err(lost)?;
    // Byte by byte: what stands behind the last message is not the login's.
    let (mut login, mut byte) = (Login::new(wish.login_settings(SystemEntropy::new().bytes()), now()), [0]);
    loop {
        match login.poll_output() {
            Some(LoginOutput::Send(bytes)) => socket.write_all(bytes.expose()).map_err(lost)?,
            Some(LoginOutput::Derive(derivation)) => login.handle_derived(derivation.run(), now()),
            Some(LoginOutput::Finished(Ok(welcome))) => return Ok((socket.into(), welcome)),
            Some(LoginOutput::Finished(Err(failure))) => return Err(failure.refusal()),
            Some(_) => unreachable!("TLS is disabled"),
            None if socket.read(&mut byte).is_ok_and(|n| n == 1) => drop(login.handle_input(&byte, now())),
            None => login.handle_close(Lost::Closed, now()),
        }
    }
}

pub(crate) fn serve(listener: &TcpListener, server_address: &str) -> io::Result<()> {
    // Every database is at the one address of the command line.
    let database = Database { sslmode: SslMode::Disable, ..Database::new([]) };
    let databases = Databases::new([(Databases::ANY.into(), database)]);
    let profile = Arc::new(Profile { password_fallback: true, databases, ..Profile::default() });
    for id in 0.. {
        let (client, peer) = listener.accept()?;
        let (client, (events, pieces)) = (Arc::new(client), sync_channel(2));
        listen_to(client.clone(), Side::Client, events.clone());
        let session = Session::new(SessionId(id), profile.clone(), Caller::tcp(peer).into(), now());
        let (pools, sockets, come) = (Pools::new(), [Some(client), None], Default::default());
        let mut proxy = Proxy { session, pools, server_address, sockets, come, events };
        println!("{peer}: {:?}", proxy.run(&pieces));
        // Which ends the threads, too.
        proxy.sockets.iter().flatten().for_each(|socket| drop(socket.shutdown(Shutdown::Both)));
    }
    Ok(())
}

fn main() -> io::Result<()> {
    let addresses: Vec<String> = std::env::args().skip(1).collect();
    let [listen, server] = &addresses[..] else { panic!("usage: blocking_proxy LISTEN SERVER") };
    serve(&TcpListener::bind(listen)?, server)
}
