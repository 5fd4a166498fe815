//! The examples that are proxies, each between a real driver and the fake PostgreSQL, over loopback sockets.

#[path = "../blocking_proxy.rs"]
#[expect(dead_code, reason = "it has a `main`, which only reads the command line")]
mod blocking_proxy;
mod server;

use std::net::{SocketAddr, TcpListener};
use std::thread;

use tokio_postgres::SimpleQueryMessage;

/// One client after the other: who knows the password gets answers, who does not is told so.
async fn serves_who_knows_the_password(postgres: &gprxy_proto::testing::postgres::Postgres, proxy: SocketAddr) {
    for round in 0..2 {
        let client = server::connect(proxy, server::PASSWORD).await.unwrap();
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
    let error = server::connect(proxy, "guess").await.err().unwrap();
    assert_eq!(error.code().unwrap().code(), "28P01");
    let ran: Vec<String> = postgres.journal().into_iter().map(|run| run.text).collect();
    assert_eq!(ran, ["rows 2 round0", "fail 23505", "rows 2 round1", "fail 23505"]);
}

#[tokio::test]
async fn the_blocking_proxy_serves_one_after_the_other() {
    let (postgres, address) = server::start();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let proxy = listener.local_addr().unwrap();
    thread::spawn(move || blocking_proxy::serve(&listener, &address.to_string()));
    serves_who_knows_the_password(&postgres, proxy).await;
}
