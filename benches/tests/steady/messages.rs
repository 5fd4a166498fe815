//! Messages of both peers, written by hand so that no code under test makes its own test data.

/// A message with a tag.
pub(crate) fn message(tag: u8, body: &[u8]) -> Vec<u8> {
    let mut out = vec![tag];
    let length = u32::try_from(body.len() + 4).expect("test messages are small");
    out.extend_from_slice(&length.to_be_bytes());
    out.extend_from_slice(body);
    out
}

/// Several messages in one piece, as drivers send them.
pub(crate) fn pipeline(messages: &[(u8, &[u8])]) -> Vec<u8> {
    messages.iter().flat_map(|(tag, body)| message(*tag, body)).collect()
}

/// A StartupMessage of protocol 3.0.
pub(crate) fn startup() -> Vec<u8> {
    let parameters = b"user\0ann\0database\0app\0\0";
    let length = u32::try_from(parameters.len() + 8).expect("short");
    [&length.to_be_bytes()[..], &(3_u32 << 16).to_be_bytes(), parameters].concat()
}

/// One row with one text column.
pub(crate) fn data_row(value: &[u8]) -> Vec<u8> {
    let length = u32::try_from(value.len()).expect("test values are small");
    message(b'D', &[&1_u16.to_be_bytes()[..], &length.to_be_bytes(), value].concat())
}

/// A simple query, and what a server says to it.
pub(crate) fn simple() -> (Vec<u8>, Vec<u8>) {
    let query = message(b'Q', b"SELECT abalance FROM pgbench_accounts WHERE aid = 4711;\0");
    let answer = [row_description(), data_row(b"-2417"), message(b'C', b"SELECT 1\0"), message(b'Z', b"I")].concat();
    (query, answer)
}

/// The same through the extended protocol, parsed anew each time.
pub(crate) fn extended() -> (Vec<u8>, Vec<u8>) {
    let query = pipeline(&[
        (b'P', b"\0SELECT abalance FROM pgbench_accounts WHERE aid = $1\0\0\0"),
        (b'B', b"\0\0\0\0\0\x01\0\0\0\x044711\0\0"),
        (b'D', b"P\0"),
        (b'E', b"\0\0\0\0\0"),
        (b'S', b""),
    ]);
    let begin = pipeline(&[(b'1', b""), (b'2', b"")]);
    let end = pipeline(&[(b'C', b"SELECT 1\0"), (b'Z', b"I")]);
    (query, [begin, row_description(), data_row(b"-2417"), end].concat())
}

/// The same with a statement that was prepared before.
pub(crate) fn prepared() -> (Vec<u8>, Vec<u8>) {
    let query = pipeline(&[
        (b'B', b"\0P0_1\0\0\0\0\x01\0\0\0\x044711\0\0"),
        (b'D', b"P\0"),
        (b'E', b"\0\0\0\0\0"),
        (b'S', b""),
    ]);
    let end = pipeline(&[(b'C', b"SELECT 1\0"), (b'Z', b"I")]);
    (query, [message(b'2', b""), row_description(), data_row(b"-2417"), end].concat())
}

fn row_description() -> Vec<u8> {
    message(b'T', b"\0\x01abalance\0\0\0\x40\0\0\x03\0\0\0\x17\0\x04\xff\xff\xff\xff\0\0")
}
