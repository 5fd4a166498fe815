//! A provider that answers what a test wants: for what no honest one says.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::thread;

use serde_json::{Value, json};

/// Listens on 127.0.0.1 for the rest of the run. `answer` gets the issuer, the path, and how often it was asked for before.
pub(crate) fn serve(answer: impl Fn(&str, &str, usize) -> (u16, String) + Send + 'static) -> String {
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let issuer = format!("http://{}", listener.local_addr().unwrap());
    let own = issuer.clone();
    thread::spawn(move || {
        let mut asked: Vec<String> = Vec::new();
        for stream in listener.incoming().flatten() {
            let mut stream = BufReader::new(stream);
            let (mut line, mut length) = (String::new(), 0);
            let _ = stream.read_line(&mut line);
            let path = line.split(' ').nth(1).unwrap_or_default().to_owned();
            loop {
                let mut header = String::new();
                if stream.read_line(&mut header).unwrap_or(0) <= 2 {
                    break;
                }
                if let Some(value) = header.to_ascii_lowercase().strip_prefix("content-length:") {
                    length = value.trim().parse().unwrap_or(0);
                }
            }
            let _ = std::io::copy(&mut (&mut stream).take(length), &mut std::io::sink());
            let before = asked.iter().filter(|known| **known == path).count();
            let (status, body) = answer(&own, &path, before);
            asked.push(path);
            let head = format!("HTTP/1.1 {status} x\r\nconnection: close\r\nlocation: https://evil.example/\r\n");
            let _ = write!(stream.get_mut(), "{head}content-length: {}\r\n\r\n{body}", body.len());
        }
    });
    issuer
}

/// A sound discovery document with these changes.
pub(crate) fn discovery(issuer: &str, changes: Value) -> String {
    let mut document = json!({
        "issuer": issuer,
        "authorization_endpoint": format!("{issuer}/auth"),
        "token_endpoint": format!("{issuer}/token"),
        "device_authorization_endpoint": format!("{issuer}/device"),
        "jwks_uri": format!("{issuer}/jwks"),
    });
    document.as_object_mut().unwrap().extend(changes.as_object().cloned().unwrap_or_default());
    document.to_string()
}
