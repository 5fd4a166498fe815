//! The proxy of `blocking_proxy.rs` between a real driver and the fake PostgreSQL, over loopback sockets.

#[path = "../blocking_proxy.rs"]
#[expect(dead_code, reason = "it has a `main`, which only reads the command line")]
mod blocking_proxy;
mod server;

use std::net::TcpListener;
use std::thread;

#[tokio::test]
async fn the_blocking_proxy_serves_one_after_the_other() {
    let (postgres, address) = server::start();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let proxy = listener.local_addr().unwrap();
    thread::spawn(move || blocking_proxy::serve(&listener, &address.to_string()));
    server::serves_who_knows_the_password(&postgres, proxy).await;
}
