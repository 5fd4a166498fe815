//! The runtime of `third_runtime/`: the suite that every runtime has to pass, and a proxy on it under a real driver.

mod server;
#[path = "../third_runtime/main.rs"]
#[expect(dead_code, reason = "its `main` only reads the command line")]
mod third_runtime;

use std::net::TcpListener;
use std::thread;

use gprxy_proto::policy::Endpoint;
use rustix::process::{Resource, getrlimit, setrlimit};

gprxy_proto::conformance!(third_runtime::Polled, before each: raise_descriptor_limit);

fn raise_descriptor_limit() {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    setrlimit(Resource::Nofile, limit).expect("the limit can be raised up to its maximum");
}

#[tokio::test]
async fn a_proxy_on_it_serves_who_knows_the_password() {
    let (postgres, address) = server::start();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let proxy = listener.local_addr().unwrap();
    let endpoint = Endpoint::Tcp { host: address.ip().to_string().into(), port: address.port() };
    thread::spawn(move || third_runtime::run(listener, endpoint).map_err(|error| error.to_string()));
    server::serves_who_knows_the_password(&postgres, proxy).await;
}
