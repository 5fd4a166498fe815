//! What a client says, message by message: to be sent, to be shown, and to be taken apart again.

use std::fmt;

use crate::support::wire::frame;

/// A parameter or a type of one has this number in SQL.
const MOST_SHOWN: usize = 160;

/// One message of a client.
#[derive(Clone, Debug)]
pub(super) enum Say {
    Query(String),
    Parse { name: String, sql: String },
    Bind { portal: String, statement: String, values: Vec<Option<Vec<u8>>>, formats: Vec<i16>, results: Vec<i16> },
    Describe { kind: char, name: String },
    Execute { portal: String, rows: i32 },
    Close { kind: char, name: String },
    CopyData(Vec<u8>),
    CopyDone,
    CopyFail,
    Sync,
    Flush,
}

/// How one knows that the server has said all that a step makes it say.
#[derive(Clone, Debug)]
pub(super) enum End {
    /// By a ReadyForQuery for each Query and Sync.
    Ready,
    /// By the answers to each message in front of a Flush, or an error.
    Flushed,
    /// By the row of a last query: an error may have swallowed any number of others.
    Marker(String),
}

/// Messages that are sent together; then all answers are read.
#[derive(Clone, Debug)]
pub(super) struct Step {
    pub(super) says: Vec<Say>,
    pub(super) end: End,
    /// Where the bytes are cut on their way, in percent of their length.
    pub(super) cuts: Vec<u8>,
}

impl Step {
    pub(super) fn new(says: Vec<Say>) -> Self {
        let end = if matches!(says.last(), Some(Say::Flush)) { End::Flushed } else { End::Ready };
        Self { says, end, cuts: Vec::new() }
    }

    pub(super) fn bytes(&self) -> Vec<u8> {
        self.says.iter().flat_map(Say::bytes).collect()
    }

    /// Messages that are answered by a ReadyForQuery; while the server skips, those from the first Sync on.
    pub(super) fn readies(&self, skipping: bool) -> usize {
        let answered = self.says.iter().skip_while(|say| skipping && !matches!(say, Say::Sync));
        answered.filter(|say| matches!(say, Say::Query(_) | Say::Sync)).count()
    }

    /// Whether it ends as surely without one of its messages.
    pub(super) fn can_be_shortened(&self) -> bool {
        let copies = |say: &Say| matches!(say, Say::CopyData(_) | Say::CopyDone | Say::CopyFail);
        matches!(self.end, End::Ready) && !self.says.iter().any(copies)
    }

    /// Messages of the extended protocol that have an answer each.
    pub(super) fn answers(&self) -> usize {
        let answered = |say: &&Say| !matches!(say, Say::Flush | Say::CopyData(_) | Say::CopyDone | Say::CopyFail);
        self.says.iter().filter(answered).count()
    }
}

fn cstr(text: &str) -> Vec<u8> {
    [text.as_bytes(), &[0]].concat()
}

fn counted<T>(items: &[T], mut encode: impl FnMut(&T) -> Vec<u8>) -> Vec<u8> {
    // A count of parameters goes up to 65,535 (section 55.7): it is unsigned in all but its name.
    let mut bytes = u16::try_from(items.len()).expect("no more than there can be").to_be_bytes().to_vec();
    items.iter().for_each(|item| bytes.extend(encode(item)));
    bytes
}

fn value(value: &Option<Vec<u8>>) -> Vec<u8> {
    match value {
        None => (-1_i32).to_be_bytes().to_vec(),
        Some(bytes) => [&i32::try_from(bytes.len()).expect("short").to_be_bytes(), bytes.as_slice()].concat(),
    }
}

impl Say {
    pub(super) fn bytes(&self) -> Vec<u8> {
        match self {
            Self::Query(sql) => frame('Q', &cstr(sql)),
            Self::Parse { name, sql } => frame('P', &[cstr(name), cstr(sql), vec![0, 0]].concat()),
            Self::Bind { portal, statement, values, formats, results } => {
                let format = |format: &i16| format.to_be_bytes().to_vec();
                let (formats, results) = (counted(formats, format), counted(results, format));
                frame('B', &[cstr(portal), cstr(statement), formats, counted(values, value), results].concat())
            }
            Self::Describe { kind, name } => frame('D', &[vec![*kind as u8], cstr(name)].concat()),
            Self::Execute { portal, rows } => frame('E', &[cstr(portal), rows.to_be_bytes().to_vec()].concat()),
            Self::Close { kind, name } => frame('C', &[vec![*kind as u8], cstr(name)].concat()),
            Self::CopyData(bytes) => frame('d', bytes),
            Self::CopyDone => frame('c', b""),
            Self::CopyFail => frame('f', b"enough of this\0"),
            Self::Sync => frame('S', b""),
            Self::Flush => frame('H', b""),
        }
    }
}

fn short(text: &str) -> String {
    match text.char_indices().nth(MOST_SHOWN) {
        None => text.to_owned(),
        Some((at, _)) => format!("{} … ({} bytes)", &text[..at], text.len()),
    }
}

impl fmt::Display for Say {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Query(sql) => write!(f, "Query {:?}", short(sql)),
            Self::Parse { name, sql } => write!(f, "Parse {:?} {:?}", short(name), short(sql)),
            Self::Bind { portal, statement, values, formats, results } => {
                write!(f, "Bind portal {portal:?} of {:?}, {} values", short(statement), values.len())?;
                for value in values.iter().take(3) {
                    let text = value.as_deref().map_or("NULL".into(), String::from_utf8_lossy);
                    write!(f, " {:?}", short(&text))?;
                }
                write!(f, ", formats {:?} {results:?}", &formats[..formats.len().min(3)])
            }
            Self::Describe { kind, name } => write!(f, "Describe {kind} {:?}", short(name)),
            Self::Execute { portal, rows } => write!(f, "Execute {portal:?}, {rows} rows"),
            Self::Close { kind, name } => write!(f, "Close {kind} {:?}", short(name)),
            Self::CopyData(bytes) => write!(f, "CopyData {:?}", short(&String::from_utf8_lossy(bytes))),
            other => write!(f, "{other:?}"),
        }
    }
}
