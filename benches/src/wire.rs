//! The least of a client: connects, logs in with a password, asks, and throws away what comes.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::time::Duration;

use gprxy_proto::codec::{frontend, startup};

use crate::Result;
use crate::cluster::{ACCOUNT, DATABASE};
use crate::peers::Peer;

/// Nothing here takes longer.
const PATIENCE: Duration = Duration::from_secs(120);

/// A session.
pub(crate) struct Client {
    socket: TcpStream,
    scratch: Vec<u8>,
}

impl Client {
    /// Connects and sends the password; returns when the proxy has let it in, which is before its turn comes.
    pub(crate) fn authenticate(peer: &Peer) -> Result<Self> {
        let socket = TcpStream::connect((Ipv4Addr::LOCALHOST, peer.port))?;
        socket.set_nodelay(true)?;
        socket.set_read_timeout(Some(PATIENCE))?;
        let mut client = Self { socket, scratch: Vec::new() };
        let mut bytes = Vec::new();
        let pairs = [("user", ACCOUNT), ("database", DATABASE)];
        startup::emit(
            &mut bytes,
            startup::PROTOCOL_3_0,
            pairs.map(|(name, value)| (name.as_bytes(), value.as_bytes())),
        );
        client.socket.write_all(&bytes)?;
        client.skip_to(b'R')?;
        bytes.clear();
        frontend::emit_password(&mut bytes, peer.password.as_bytes());
        client.socket.write_all(&bytes)?;
        client.skip_to(b'R')?;
        Ok(client)
    }

    /// The same, and waits until the session can be used.
    pub(crate) fn connect(peer: &Peer) -> Result<Self> {
        let mut client = Self::authenticate(peer)?;
        client.skip_to(b'Z')?;
        Ok(client)
    }

    /// Runs a statement to its end. Gives back the bytes of the answer.
    pub(crate) fn query(&mut self, text: &str) -> Result<u64> {
        let mut bytes = Vec::new();
        frontend::emit_query(&mut bytes, text.as_bytes());
        self.socket.write_all(&bytes)?;
        self.skip_to(b'Z')
    }

    /// Reads up to and including the next message of this type; how many bytes that was.
    fn skip_to(&mut self, wanted: u8) -> Result<u64> {
        let mut read = 0;
        loop {
            let mut header = [0; 5];
            self.socket.read_exact(&mut header)?;
            let length = u64::from(u32::from_be_bytes([header[1], header[2], header[3], header[4]]));
            let body = length.checked_sub(4).ok_or("a message with an impossible length")?;
            if header[0] == b'E' {
                self.scratch.clear();
                (&mut self.socket).take(body).read_to_end(&mut self.scratch)?;
                return Err(String::from_utf8_lossy(&self.scratch).replace('\0', " ").into());
            }
            let skipped = std::io::copy(&mut (&mut self.socket).take(body), &mut std::io::sink())?;
            if skipped < body {
                return Err("the connection ended inside of a message".into());
            }
            read += length + 1;
            if header[0] == wanted {
                return Ok(read);
            }
        }
    }
}
