//! The fake PostgreSQL over TCP, and a real client of it through somebody else's proxy.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::thread;

use gprxy_proto::driver::clock;
use gprxy_proto::testing::postgres::{Backend, Postgres};
use tokio_postgres::{Client, Error, NoTls};

pub(crate) const USER: &str = "ann";
pub(crate) const PASSWORD: &str = "s3cret";

/// A server on a port of its own, for as long as the process runs.
pub(crate) fn start() -> (Postgres, SocketAddr) {
    let postgres = Postgres::new(&[(USER, PASSWORD.as_bytes())], 1);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let (server, address) = (postgres.clone(), listener.local_addr().unwrap());
    thread::spawn(move || {
        for client in listener.incoming() {
            let server = server.clone();
            thread::spawn(move || serve(&server, client.unwrap()));
        }
    });
    (postgres, address)
}

/// One connection. Nobody here sleeps or is cancelled, so bytes are all that can happen.
fn serve(postgres: &Postgres, mut client: TcpStream) -> io::Result<()> {
    let (mut backend, mut bytes) = (Backend::new(postgres), [0; 4096]);
    while backend.ending().is_none() {
        match client.read(&mut bytes)? {
            0 => backend.handle_close(),
            n => backend.handle_input(&bytes[..n], clock::now()),
        }
        client.write_all(&backend.poll_output().unwrap_or_default())?;
    }
    Ok(())
}

/// Logs in through the proxy there.
pub(crate) async fn connect(proxy: SocketAddr, password: &str) -> Result<Client, Error> {
    let mut config = tokio_postgres::Config::new();
    config.host(proxy.ip().to_string()).port(proxy.port()).user(USER).password(password).dbname("app");
    let (client, connection) = config.connect(NoTls).await?;
    tokio::spawn(connection);
    Ok(client)
}
