//! The smallest issuer: one document with one key, and a token for the one person of the benchmark.

use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{SystemTime, UNIX_EPOCH};

use gprxy_proto::testing::tokens::{TestKey, claims, key_set};
use tiny_http::{Response, Server};

use crate::Result;

pub(crate) const AUDIENCE: &str = "gprxy-benches";
/// The role in the token.
pub(crate) const ROLE: &str = "reader";

/// It stops when dropped.
pub(crate) struct Issuer {
    pub(crate) url: String,
    pub(crate) token: String,
    server: Arc<Server>,
    thread: Option<JoinHandle<()>>,
}

impl Issuer {
    pub(crate) fn start() -> Result<Self> {
        let server = Server::http("127.0.0.1:0").map_err(|error| format!("the issuer cannot listen: {error}"))?;
        let address = server.server_addr().to_ip().ok_or("the issuer has no address")?;
        let url = format!("http://{address}");
        let key = TestKey::rsa("bench");
        let now = i64::try_from(SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs())?;
        let mut claims = claims(&url, AUDIENCE, "ann", now);
        // Longer than any run.
        claims["exp"] = (now + 24 * 3600).into();
        claims["roles"] = [ROLE].as_slice().into();
        let token = String::from_utf8(key.token(&claims))?;
        let keys = key_set(&[&key]);
        let server = Arc::new(server);
        let listener = server.clone();
        let thread = thread::spawn(move || {
            // Ends with `unblock`.
            while let Ok(request) = listener.recv() {
                let _ = request.respond(Response::from_data(keys.clone()));
            }
        });
        Ok(Self { url, token, server, thread: Some(thread) })
    }
}

impl Drop for Issuer {
    fn drop(&mut self) {
        self.server.unblock();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
