//! A PostgreSQL server for unit tests of your own: the real wire format, a scripted mind, and no socket.
//!
//! `cargo test -p gprxy-examples --example fake_server` runs the tests below; `cargo run …` shows what the server saw.
//!
//! The code under test here is any user of tokio-postgres, which takes any stream that can be read and written: one
//! half of a pipe in memory. At the other half sits [`Backend`], a machine that is shown bytes and says bytes; the loop
//! around it is all there is to write, and is as short for a blocking client.

use std::future::poll_fn;
use std::task::Poll;
use std::time::Duration;

use gprxy_proto::driver::clock;
use gprxy_proto::testing::postgres::{Auth, Backend, Postgres};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream};
use tokio_postgres::{Client, Config, NoTls, SimpleQueryMessage};

/// One connection to the fake server, for as long as the client keeps it.
async fn serve(postgres: Postgres, mut stream: DuplexStream) -> std::io::Result<()> {
    let mut backend = Backend::new(&postgres);
    let mut bytes = [0; 4096];
    loop {
        if let Some(answer) = backend.poll_output() {
            stream.write_all(&answer).await?;
        }
        if backend.ending().is_some() {
            return Ok(());
        }
        let now = clock::now().tick;
        let due = backend.poll_timeout().map_or(Duration::from_secs(3600), |due| due.since(now));
        tokio::select! {
            read = stream.read(&mut bytes) => match read? {
                0 => backend.handle_close(),
                n => backend.handle_input(&bytes[..n], clock::now()),
            },
            () = tokio::time::sleep(due) => backend.handle_timeout(clock::now()),
            () = woken(&backend) => backend.handle_timeout(clock::now()),
        }
    }
}

/// Something that another connection or the test did concerns this one: a terminate, a cancel, a notification.
async fn woken(backend: &Backend) {
    let mut asleep = true;
    poll_fn(|context| {
        if std::mem::take(&mut asleep) {
            backend.register(context.waker());
            return Poll::Pending;
        }
        Poll::Ready(())
    })
    .await;
}

/// A client that is logged in to it.
async fn connect(postgres: &Postgres, user: &str, password: &str) -> Result<Client, tokio_postgres::Error> {
    let (ours, theirs) = tokio::io::duplex(4096);
    tokio::spawn(serve(postgres.clone(), theirs));
    let (client, connection) = Config::new().user(user).password(password).connect_raw(ours, NoTls).await?;
    tokio::spawn(connection);
    Ok(client)
}

/// The code under test: an account moves, or nothing does.
async fn transfer(client: &Client) -> Result<u64, tokio_postgres::Error> {
    client.batch_execute("begin").await?;
    let moved = match client.simple_query("rows 2 moved").await {
        Ok(messages) => messages.iter().filter(|it| matches!(it, SimpleQueryMessage::Row(_))).count(),
        Err(error) => {
            client.batch_execute("rollback").await?;
            return Err(error);
        }
    };
    client.batch_execute("commit").await?;
    Ok(moved as u64)
}

fn server() -> Postgres {
    let postgres = Postgres::new(&[("app", b"s3cret")], 1);
    postgres.set_auth(Auth::Scram);
    postgres
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), tokio_postgres::Error> {
    let postgres = server();
    let client = connect(&postgres, "app", "s3cret").await?;
    println!("moved: {}", transfer(&client).await?);
    for run in postgres.journal() {
        println!("backend {} ran {:?} as {}", run.pid, run.text, run.user);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ran(postgres: &Postgres) -> Vec<String> {
        postgres.journal().into_iter().map(|run| run.text).collect()
    }

    #[tokio::test]
    async fn a_transfer_is_one_transaction() {
        let postgres = server();
        let client = connect(&postgres, "app", "s3cret").await.unwrap();
        assert_eq!(transfer(&client).await.unwrap(), 2);
        assert_eq!(ran(&postgres), ["begin", "rows 2 moved", "commit"]);
    }

    #[tokio::test]
    async fn a_wrong_password_is_refused_with_its_sqlstate() {
        let error = connect(&server(), "app", "guess").await.err().unwrap();
        assert_eq!(error.code().unwrap().code(), "28P01");
    }

    #[tokio::test]
    async fn a_terminated_backend_is_noticed() {
        let postgres = server();
        let client = connect(&postgres, "app", "s3cret").await.unwrap();
        let query = client.simple_query("sleep 60000 long");
        let kill = async {
            while ran(&postgres).is_empty() {
                tokio::task::yield_now().await;
            }
            postgres.backends().into_iter().for_each(|pid| postgres.terminate(pid));
        };
        let (answer, ()) = tokio::join!(query, kill);
        assert!(answer.is_err());
    }
}
