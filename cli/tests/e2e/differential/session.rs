//! Plays a script and writes down what comes back, without what no two servers say alike.

use std::collections::BTreeMap;
use std::fmt;
use std::io::ErrorKind;
use std::time::Duration;

use crate::support::target::Target;
use crate::support::wire::{Message, Wire, frame};

use super::noise::Noise;
use super::script::{End, Step};

/// Nothing in these scripts takes long, but the machine may be busy.
const PATIENCE: Duration = Duration::from_secs(15);

/// What a client can tell apart.
#[derive(Clone, PartialEq, Eq)]
pub(super) enum Event {
    Said(Message),
    /// The reported settings, where they are others than at the ReadyForQuery before this one.
    Settings(BTreeMap<String, String>),
    Closed,
    Silent,
}

/// A script's answers, step by step.
pub(super) type Answers = Vec<Vec<Event>>;

/// One client under observation.
struct Session {
    wire: Wire,
    settings: BTreeMap<String, String>,
    /// An error of the extended protocol has come, and no ReadyForQuery since.
    skipping: bool,
    /// Notices of gprxy's own.
    pinned: usize,
}

/// Runs a script against PostgreSQL or gprxy; between the steps others may use the same connections.
pub(super) fn play(target: &Target, script: &[Step], mut noise: Option<&mut Noise>) -> Answers {
    let wire = Wire::login(target).unwrap_or_else(|error| panic!("{error:?}"));
    wire.set_patience(PATIENCE);
    let settings = wire.parameters.clone();
    let mut session = Session { wire, settings, skipping: false, pinned: 0 };
    let mut answers = Vec::new();
    for step in script {
        let events = session.step(step);
        let over = matches!(events.last(), Some(Event::Closed | Event::Silent));
        // The connection is the others' exactly when it is between transactions.
        let idle = matches!(events.iter().rev().find_map(said), Some(Message { tag: 'Z', body }) if body == b"I");
        answers.push(events);
        if over {
            break;
        }
        if let Some(noise) = noise.as_mut().filter(|_| idle) {
            noise.speak();
        }
    }
    assert!(session.pinned <= 1, "told {} times that it is pinned", session.pinned);
    let _ = session.wire.try_send(&frame('X', b""));
    answers
}

fn said(event: &Event) -> Option<&Message> {
    match event {
        Event::Said(message) => Some(message),
        _ => None,
    }
}

impl Session {
    fn step(&mut self, step: &Step) -> Vec<Event> {
        let was_skipping = self.skipping;
        let bytes = step.bytes();
        let mut from = 0;
        let cuts = step.cuts.iter().map(|&percent| bytes.len() * usize::from(percent) / 100).chain([bytes.len()]);
        for to in cuts {
            if self.wire.try_send(&bytes[from..to]).is_err() {
                break; // What it said before it closed is still to be read.
            }
            from = to;
        }
        match &step.end {
            End::Ready => self.read(step.readies(was_skipping), |message| message.tag == 'Z'),
            End::Flushed if was_skipping => Vec::new(),
            End::Flushed => self.flushed(step.answers()),
            End::Marker(text) => {
                let is_last = |message: &Message| {
                    message.tag == 'D' && message.body.windows(text.len()).any(|part| part == text.as_bytes())
                };
                let mut events = self.read(1, is_last);
                events.extend(self.read(1, |message| message.tag == 'Z'));
                events
            }
        }
    }

    /// Answers to messages in front of a Flush, up to the last or the first error.
    fn flushed(&mut self, answers: usize) -> Vec<Event> {
        let mut left = answers;
        let mut events = Vec::new();
        while left > 0 {
            let read = self.read(1, |message| "123TnCIsE".contains(message.tag));
            let end = match read.last() {
                Some(Event::Said(message)) => message.tag == 'E',
                _ => true,
            };
            events.extend(read);
            left = if end { 0 } else { left - 1 };
        }
        events
    }

    /// Everything up to the `count`th message of a kind.
    fn read(&mut self, mut count: usize, is_one: impl Fn(&Message) -> bool) -> Vec<Event> {
        let mut events = Vec::new();
        while count > 0 {
            let message = match self.wire.try_read() {
                Ok(message) => message,
                Err(error) => {
                    let silent = matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut);
                    events.push(if silent { Event::Silent } else { Event::Closed });
                    break;
                }
            };
            count -= usize::from(is_one(&message));
            self.note(message, &mut events);
        }
        events
    }

    fn note(&mut self, mut message: Message, events: &mut Vec<Event>) {
        match message.tag {
            // Compared at ReadyForQuery: how often and in which order they are told does not matter.
            'S' => return,
            'N' if message.complaint().message.starts_with("this session keeps its server connection") => {
                self.pinned += 1;
                return;
            }
            'E' => {
                self.skipping = true;
                without_names(&mut message);
            }
            'Z' => {
                self.skipping = false;
                if self.wire.parameters != self.settings {
                    self.settings.clone_from(&self.wire.parameters);
                    events.push(Event::Settings(self.settings.clone()));
                }
            }
            'T' => without_objects(&mut message.body),
            // The process that notifies.
            'A' => message.body[..4].fill(0),
            _ => {}
        }
        events.push(Event::Said(message));
    }
}

/// What docs/compatibility.md says of errors: the name of a statement that was bound with too many or too few values is
/// the server's; and in a failed transaction other mistakes may be passed over.
fn without_names(message: &mut Message) {
    let text = String::from_utf8_lossy(&message.body);
    if let Some(from) = text.find("parameters, but prepared statement \"") {
        let quoted = text[from..].split('"').nth(1).unwrap_or_default();
        message.body = text.replace(&format!("\"{quoted}\""), "\"\"").into_bytes();
    } else if message.complaint().code == "25P02" {
        message.body = b"C25P02\0\0".to_vec();
    }
}

/// Whether two lists of answers say the same. A statement that has to be parsed again may be refused then: in a failed
/// transaction, or where what it names is gone. PostgreSQL says what it knows of it first.
pub(super) fn agree(mut direct: &[Event], mut proxied: &[Event]) -> bool {
    loop {
        let same = direct.iter().zip(proxied).take_while(|(direct, proxied)| direct == proxied).count();
        (direct, proxied) = (&direct[same..], &proxied[same..]);
        let Some(error) = proxied.first().filter(|event| is_error(event)) else {
            return direct.is_empty() && proxied.is_empty();
        };
        let failed = said(error).is_some_and(|message| message.body == b"C25P02\0\0");
        let ends = |event: &Event| is_error(event) || said(event).is_none_or(|message| message.tag == 'Z');
        let end = direct.iter().position(ends).unwrap_or(direct.len());
        match direct.get(end) {
            Some(event) if is_error(event) && (failed || event == error) => direct = &direct[end + 1..],
            _ if failed => direct = &direct[end..],
            _ => return false,
        }
        proxied = &proxied[1..];
    }
}

fn is_error(event: &Event) -> bool {
    said(event).is_some_and(|message| message.tag == 'E')
}

/// A table has another number in each database (section 55.7, RowDescription).
fn without_objects(body: &mut [u8]) {
    let mut at = 2;
    while at < body.len() {
        at += body[at..].iter().position(|&byte| byte == 0).expect("a name ends") + 1;
        body[at..at + 4].fill(0);
        at += 18;
    }
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Said(message) => {
                let body = String::from_utf8_lossy(&message.body[..message.body.len().min(200)]).replace('\0', "·");
                write!(f, "{} {body:?}", message.tag)
            }
            Self::Settings(settings) => write!(f, "settings {settings:?}"),
            Self::Closed => f.write_str("closed"),
            Self::Silent => f.write_str("silence"),
        }
    }
}
