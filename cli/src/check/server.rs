//! Tries a database server: it accepts a connection and answers an SSLRequest as PostgreSQL does.

use std::io::{Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::time::Duration;

use gprxy_proto::codec::startup::emit_ssl_request;
use gprxy_proto::policy::{Database, Endpoint, SslMode};

use super::Outcome;
use crate::config::io_words;

/// Connects and asks for TLS; nobody logs in.
pub(super) fn probe(database: &Database, endpoint: &Endpoint) -> Outcome {
    let limit = database.connect_timeout;
    match endpoint {
        Endpoint::Tcp { host, port } => {
            let mut stream = connect(host, *port, limit)?;
            stream.set_read_timeout(Some(limit)).map_err(|error| io_words(&error))?;
            stream.set_write_timeout(Some(limit)).map_err(|error| io_words(&error))?;
            verdict(ask_for_tls(&mut stream)?, database.sslmode)
        }
        Endpoint::Unix(path) => local(path, limit),
    }
}

/// The first address of the host that accepts.
fn connect(host: &str, port: u16, limit: Duration) -> Result<TcpStream, String> {
    let addresses = (host, port).to_socket_addrs().map_err(|error| format!("cannot resolve: {}", io_words(&error)))?;
    let mut last = "the name has no address".to_owned();
    for address in addresses {
        match TcpStream::connect_timeout(&address, limit) {
            Ok(stream) => return Ok(stream),
            Err(error) => last = format!("cannot connect: {}", io_words(&error)),
        }
    }
    Err(last)
}

#[cfg(unix)]
fn local(path: &str, limit: Duration) -> Outcome {
    use std::os::unix::net::UnixStream;
    let mut stream = UnixStream::connect(path).map_err(|error| format!("cannot connect: {}", io_words(&error)))?;
    stream.set_read_timeout(Some(limit)).map_err(|error| io_words(&error))?;
    // PostgreSQL offers no TLS on a Unix socket and libpq asks for none, whatever sslmode says.
    verdict(ask_for_tls(&mut stream)?, SslMode::Disable)
}

#[cfg(not(unix))]
fn local(_path: &str, _limit: Duration) -> Outcome {
    Err("Unix sockets do not exist on this system; set host to a name or an address".into())
}

fn ask_for_tls(stream: &mut (impl Read + Write)) -> Result<u8, String> {
    let mut request = Vec::new();
    emit_ssl_request(&mut request);
    let mut answer = [0];
    stream.write_all(&request).map_err(|error| io_words(&error))?;
    stream.read_exact(&mut answer).map_err(|error| match error.kind() {
        std::io::ErrorKind::UnexpectedEof => "it closed the connection; is this PostgreSQL?".to_owned(),
        std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut => {
            "it accepts connections and does not answer; is this PostgreSQL?".to_owned()
        }
        _ => io_words(&error),
    })?;
    Ok(answer[0])
}

/// What the answer means (PostgreSQL manual, section 54.2.11: `S`, `N`, or an ErrorResponse).
fn verdict(answer: u8, sslmode: SslMode) -> Outcome {
    let needs_tls = matches!(sslmode, SslMode::Require | SslMode::VerifyCa | SslMode::VerifyFull);
    match answer {
        b'S' if sslmode == SslMode::Disable => Ok("answers; it offers TLS, sslmode = \"disable\" leaves it".into()),
        b'S' => Ok("answers and offers TLS".into()),
        b'N' if needs_tls => Err("it offers no TLS, which sslmode asks for".into()),
        b'N' => Ok("answers, without TLS".into()),
        b'E' => Err("it refuses with an error; is it starting up or out of connections?".into()),
        other => Err(format!("it answers with byte 0x{other:02x}; is this PostgreSQL?")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;
    use std::thread;

    /// A server that reads an SSLRequest and says this.
    fn says(answer: &'static [u8], sslmode: SslMode) -> Outcome {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let server = thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut request = [0; 8];
            stream.read_exact(&mut request).unwrap();
            assert_eq!(request, [0, 0, 0, 8, 4, 210, 22, 47]);
            stream.write_all(answer).unwrap();
        });
        let endpoint = Endpoint::Tcp { host: "127.0.0.1".into(), port };
        let database = Database {
            account: None,
            auth_query: None,
            dbname: None,
            endpoints: [endpoint.clone()].into(),
            host_order: gprxy_proto::policy::HostOrder::default(),
            sslmode,
            sslrootcert: None,
            connect_timeout: Duration::from_secs(5),
            pool: std::sync::Arc::default(),
            session: std::sync::Arc::default(),
        };
        let outcome = probe(&database, &endpoint);
        server.join().unwrap();
        outcome
    }

    #[test]
    fn the_answer_is_judged_by_sslmode() {
        assert!(says(b"S", SslMode::VerifyFull).is_ok());
        assert!(says(b"S", SslMode::Disable).is_ok());
        assert!(says(b"N", SslMode::Prefer).is_ok());
        assert!(says(b"N", SslMode::Require).is_err_and(|why| why.contains("sslmode")));
    }

    #[test]
    fn what_is_no_postgresql_is_told() {
        assert!(says(b"H", SslMode::Prefer).is_err_and(|why| why.contains("0x48")));
        assert!(says(b"E", SslMode::Prefer).is_err());
        assert!(says(b"", SslMode::Prefer).is_err_and(|why| why.contains("closed")));
    }

    #[test]
    fn nobody_there_is_told() {
        let port = TcpListener::bind(("127.0.0.1", 0)).unwrap().local_addr().unwrap().port();
        let why = connect("127.0.0.1", port, Duration::from_secs(5)).unwrap_err();
        assert!(why.starts_with("cannot connect"), "{why}");
    }
}
