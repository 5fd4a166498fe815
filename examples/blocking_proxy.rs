//! A proxy on plain blocking sockets, for one client at a time: the machines with little more than `std` around them.
//!
//! `cargo run -p gprxy-examples --example blocking_proxy -- 127.0.0.1:7777 127.0.0.1:5432`, then
//! `psql -h 127.0.0.1 -p 7777 -U somebody`: PostgreSQL itself checks the password, and has to ask for one.
//! The clock and the random bytes are the driver's, everything else that a driver does is below.

use std::io::{Read, Result, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::Duration;

use gprxy_proto::auth::Authenticated;
use gprxy_proto::driver::{clock::now, entropy::SystemEntropy};
use gprxy_proto::fault::{Lost, Refusal, SqlState};
use gprxy_proto::policy::{Database, Databases, SslMode};
use gprxy_proto::pool::{PoolKey, PoolOutput, Pools, Request, Returned};
use gprxy_proto::session::{
    Action, Credential, Finish, Leased, Output, Peer, Profile, Reply, Session, Side, Verdict, Wish,
};
use gprxy_proto::upstream::{self, Login, LoginOutput, LoginSettings};
use gprxy_proto::{cancel::Registry, entropy::Entropy, session_id::SessionId};

/// What a side has sent; `None` at its end.
type Event = (Side, Option<Vec<u8>>);

/// Reads a side on a thread of its own, and no further ahead than the channel has room.
fn listen_to(socket: &TcpStream, side: Side, events: SyncSender<Event>) -> Result<()> {
    let mut socket = socket.try_clone()?;
    std::thread::spawn(move || {
        let mut bytes = [0; 16 * 1024];
        while let Ok(n @ 1..) = socket.read(&mut bytes)
            && events.send((side, Some(bytes[..n].to_vec()))).is_ok()
        {}
        let _ = events.send((side, None));
    });
    Ok(())
}

struct Proxy<'a> {
    session: Session,
    pools: &'a mut Pools,
    server_address: &'a str,
    client: TcpStream,
    server: Option<TcpStream>,
    pending: [Vec<u8>; 2],
    events: SyncSender<Event>,
    finish: Option<Finish>,
}

impl Proxy<'_> {
    fn run(mut self, events: &Receiver<Event>) -> Finish {
        loop {
            while self.carry_out() || self.judge(Side::Server) || self.judge(Side::Client) {}
            if let Some(finish) = self.finish {
                let sockets = [Some(self.client), self.server].into_iter().flatten();
                sockets.for_each(|socket| drop(socket.shutdown(Shutdown::Both))); // which ends its thread, too
                return finish;
            }
            let due = self.session.poll_timeout().map_or(Duration::MAX, |due| due.at.since(now().tick));
            match events.recv_timeout(due) {
                Ok((side, Some(bytes))) => self.pending[side as usize].extend(bytes),
                Ok((side, None)) => self.session.handle_close(side, Lost::Closed, now()),
                Err(_) => self.session.handle_timeout(now()),
            }
        }
    }

    /// Shows the session what a side has sent. Whether anything came of it.
    fn judge(&mut self, side: Side) -> bool {
        if self.pending[side as usize].is_empty() || self.finish.is_some() {
            return false;
        }
        let verdict = self.session.handle_input(side, &self.pending[side as usize], now());
        let carried = self.carry_out();
        let (Verdict::Take(n) | Verdict::Forward(n)) = verdict else { return carried };
        let front: Vec<u8> = self.pending[side as usize].drain(..n).collect();
        let target = if side == Side::Server { Some(&mut self.client) } else { self.server.as_mut() };
        if let (Verdict::Forward(_), Some(target)) = (verdict, target) {
            let _ = target.write_all(&front); // who is gone is noticed by the thread that reads
        }
        true
    }

    fn carry_out(&mut self) -> bool {
        let mut carried = false;
        while let Some(output) = self.session.poll_output() {
            carried = true;
            match output {
                Output::Send(Side::Client, bytes) => drop(self.client.write_all(&bytes)),
                Output::Do(Action::Lease(wish)) => {
                    let key = Registry::new().enroll(self.session.id(), wish.wide_key, &mut SystemEntropy::new());
                    self.session.handle_reply(Reply::Enrolled(key), now());
                    let reply = self.lease(&wish).map_or_else(Reply::Refused, |leased| Reply::Leased(Box::new(leased)));
                    self.session.handle_reply(reply, now());
                }
                Output::Do(Action::Release(back)) => self.pools.handle_release(back.lease, Returned::Broken, now()),
                Output::Finished(finish) => self.finish = Some(finish),
                _ => {} // no tokens, TLS or audit trail; and while one client is served, no other one can cancel
            }
        }
        carried
    }

    /// Logs in to the server as the client, with the client's password.
    fn lease(&mut self, wish: &Wish) -> std::result::Result<Leased, Refusal> {
        let lost = |error: std::io::Error| Refusal::new(SqlState::CONNECTION_FAILURE, error.to_string());
        let mut socket = TcpStream::connect(self.server_address).map_err(lost)?;
        socket.set_read_timeout(Some(wish.target.connect_timeout)).map_err(lost)?;
        let mut nonce = [0; 18];
        SystemEntropy::new().fill(&mut nonce);
        // Byte by byte: what stands behind the last message is not the login's.
        let (mut login, mut byte) = (Login::new(wish.login_settings(nonce), now()), [0]);
        let welcome = loop {
            match login.poll_output() {
                Some(LoginOutput::Send(bytes)) => socket.write_all(bytes.expose()).map_err(lost)?,
                Some(LoginOutput::Derive(derivation)) => login.handle_derived(derivation.run(), now()),
                Some(LoginOutput::Finished(result)) => break result.map_err(|failure| failure.refusal())?,
                Some(_) => unreachable!("TLS is disabled"),
                None => match socket.read(&mut byte) {
                    Ok(1) => drop(login.handle_input(&byte, now())),
                    _ => login.handle_close(Lost::Closed, now()),
                },
            }
        };
        socket.set_read_timeout(None).map_err(lost)?;
        listen_to(&socket, Side::Server, self.events.clone()).map_err(lost)?;
        self.server = Some(socket);
        self.pools.handle_request(wish.request(self.session.id()), now());
        let Some(PoolOutput::Granted { lease, .. }) = self.pools.poll_output() else { unreachable!("there is room") };
        self.pools.handle_opened(&lease, now());
        Ok(Leased { lease, proof: Authenticated::by_server(&welcome), parameters: welcome.parameters })
    }
}

fn main() -> Result<()> {
    let addresses: Vec<String> = std::env::args().skip(1).collect();
    let [listen, server_address] = &addresses[..] else { panic!("usage: blocking_proxy LISTEN SERVER") };
    // Every database is at the one address of the command line.
    let databases = Databases::new([(Databases::ANY.into(), Database::new([]))]);
    let profile = Arc::new(Profile { password_fallback: true, databases, ..Profile::default() });
    let mut pools = Pools::new();
    for (id, client) in TcpListener::bind(listen)?.incoming().enumerate() {
        let (client, (events, mailbox)) = (client?, sync_channel(2));
        let peer = client.peer_addr()?;
        let who = Peer { address: peer.to_string().into(), is_local: peer.ip().is_loopback() };
        let session = Session::new(SessionId(id as u64), profile.clone(), who, now());
        listen_to(&client, Side::Client, events.clone())?;
        let (pools, server, pending, finish) = (&mut pools, None, Default::default(), None);
        let proxy = Proxy { session, pools, server_address, client, server, pending, events, finish };
        println!("{peer}: {:?}", proxy.run(&mailbox));
    }
    Ok(())
}
