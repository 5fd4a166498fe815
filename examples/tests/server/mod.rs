//! The fake PostgreSQL over TCP, and a real client of it through somebody else's proxy.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::thread;

use gprxy_proto::driver::clock;
use gprxy_proto::testing::postgres::{Backend, Postgres};
use tokio_postgres::{Client, Error, NoTls, SimpleQueryMessage};

const USER: &str = "ann";
const PASSWORD: &str = "s3cret";

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
async fn connect(proxy: SocketAddr, password: &str) -> Result<Client, Error> {
    let mut config = tokio_postgres::Config::new();
    config.host(proxy.ip().to_string()).port(proxy.port()).user(USER).password(password).dbname("app");
    let (client, connection) = config.connect(NoTls).await?;
    tokio::spawn(connection);
    Ok(client)
}

/// One client after the other: who knows the password gets answers, who does not is told so.
pub(crate) async fn serves_who_knows_the_password(postgres: &Postgres, proxy: SocketAddr) {
    for round in 0..2 {
        let client = connect(proxy, PASSWORD).await.unwrap();
        let messages = client.simple_query(&format!("rows 2 round{round}")).await.unwrap();
        let rows: Vec<_> = messages
            .iter()
            .filter_map(|message| match message {
                SimpleQueryMessage::Row(row) => row.get(0),
                _ => None,
            })
            .collect();
        assert_eq!(rows, [format!("round{round}/0"), format!("round{round}/1")]);
        let error = client.batch_execute("fail 23505").await.unwrap_err();
        assert_eq!(error.code().unwrap().code(), "23505");
    }
    let error = connect(proxy, "guess").await.err().unwrap();
    assert_eq!(error.code().unwrap().code(), "28P01");
    // The whole proxy resets what comes back to its pool, in capitals.
    let asked = |text: &String| text.starts_with("rows") || text.starts_with("fail");
    let ran: Vec<String> = postgres.journal().into_iter().map(|run| run.text).filter(asked).collect();
    assert_eq!(ran, ["rows 2 round0", "fail 23505", "rows 2 round1", "fail 23505"]);
}
