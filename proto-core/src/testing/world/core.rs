//! The one clock and the one network of a world.
//!
//! A connection is two pipes. What is written flies for a random time and arrives in order; pieces, refusals to read or
//! write at the moment, and the order of arrival between connections are the dice's.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::task::Waker;
use std::time::Duration;

use futures_rustls::rustls::ClientConfig;

use super::super::dice::Dice;
use super::super::law;
use crate::policy::Endpoint;
use crate::time::Tick;

/// How rough the network is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Weather {
    /// The longest flight of a piece.
    pub latency: Duration,
    /// The largest piece; 0: as large as it comes.
    pub piece: usize,
    /// In so many of a hundred tries a socket says "not now" although it could.
    pub reluctance: u64,
    /// Bytes that fit between a writer and a reader that does not read.
    pub window: usize,
}

impl Default for Weather {
    /// A local network that chops now and then.
    fn default() -> Self {
        Self { latency: Duration::from_micros(300), piece: 0, reluctance: 5, window: 64 * 1024 }
    }
}

impl Weather {
    /// Small pieces, long and very different flights.
    #[must_use]
    pub const fn storm() -> Self {
        Self { latency: Duration::from_millis(20), piece: 7, reluctance: 30, window: 512 }
    }
}

/// One direction of a connection.
pub(super) type PipeId = usize;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum End {
    Fin,
    Reset,
}

#[derive(Default)]
pub(super) struct Pipe {
    /// Bytes on their way.
    flying: usize,
    arrived: VecDeque<u8>,
    end: Option<End>,
    /// The writer has said that nothing more comes.
    pub(super) closed: bool,
    pub(super) reader_gone: bool,
    reader: Option<Waker>,
    writer: Option<Waker>,
    last_arrival: u64,
    label: String,
}

enum Event {
    Bytes(PipeId, Vec<u8>),
    End(PipeId, End),
}

/// What an endpoint does with those who connect.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Door {
    /// It lets them in.
    #[default]
    Open,
    /// It refuses.
    Shut,
    /// It does not answer at all.
    BlackHole,
}

/// A listening endpoint.
#[derive(Default)]
pub(super) struct Porch {
    pub(super) door: Door,
    backlog: VecDeque<Arrival>,
    waker: Option<Waker>,
}

/// Somebody who has connected.
pub(super) struct Arrival {
    pub(super) read: PipeId,
    pub(super) write: PipeId,
    pub(super) name: String,
}

pub(super) struct Core {
    pub(super) tick: Tick,
    pub(super) dice: Dice,
    pub(super) weather: Weather,
    /// With this, clients ask for TLS.
    pub(super) client_tls: Option<Arc<ClientConfig>>,
    alarms: BTreeMap<(Tick, u64), Waker>,
    events: BTreeMap<(u64, u64), Event>,
    serial: u64,
    pipes: Vec<Pipe>,
    porches: BTreeMap<String, Porch>,
    transcript: Option<Vec<String>>,
    /// Bytes of the line that is being written.
    writing: Option<(PipeId, Vec<u8>)>,
    /// A digest of everything that happened: two runs of one seed must agree.
    pub(super) digest: u64,
}

impl Core {
    pub(super) fn new(seed: u64, weather: Weather) -> Self {
        Self {
            tick: Tick::from_nanos(1_000_000_000),
            dice: Dice::new(seed),
            weather,
            client_tls: None,
            alarms: BTreeMap::new(),
            events: BTreeMap::new(),
            serial: 0,
            pipes: Vec::new(),
            porches: BTreeMap::new(),
            transcript: law::is_recording().then(Vec::new),
            writing: None,
            digest: 0,
        }
    }

    /// A line of the transcript.
    pub(super) fn note(&mut self, text: impl FnOnce() -> String) {
        if self.transcript.is_some() {
            self.end_line();
            self.push_line(&text());
        }
    }

    /// Bytes that were written. Those behind each other on one pipe make one line.
    fn note_bytes(&mut self, id: PipeId, bytes: &[u8]) {
        if self.transcript.is_none() {
            return;
        }
        if let Some((last, line)) = &mut self.writing
            && *last == id
        {
            return line.extend_from_slice(bytes);
        }
        self.end_line();
        self.writing = Some((id, bytes.to_vec()));
    }

    /// Writes down what was collected of one pipe.
    fn end_line(&mut self) {
        let Some((id, bytes)) = self.writing.take() else { return };
        let label = self.pipes[id].label.clone();
        self.push_line(&format!("{label}  {:>5} bytes  {}", bytes.len(), shown(&bytes)));
    }

    fn push_line(&mut self, text: &str) {
        let micros = self.tick.as_nanos() / 1000;
        if let Some(lines) = &mut self.transcript {
            lines.push(format!("{:>12}.{:03} ms  {text}", micros / 1000, micros % 1000));
        }
    }

    pub(super) fn take_transcript(&mut self) -> Vec<String> {
        self.end_line();
        self.transcript.as_mut().map(std::mem::take).unwrap_or_default()
    }

    fn mix(&mut self, word: u64) {
        self.digest = (self.digest.rotate_left(5) ^ word).wrapping_mul(0x517c_c1b7_2722_0a95);
    }

    pub(super) fn next_serial(&mut self) -> u64 {
        self.serial += 1;
        self.serial
    }

    /// Rings at this tick.
    pub(super) fn set_alarm(&mut self, at: Tick, id: u64, waker: &Waker) {
        self.alarms.insert((at, id), waker.clone());
    }

    pub(super) fn unset_alarm(&mut self, at: Tick, id: u64) {
        self.alarms.remove(&(at, id));
    }

    /// Lets the next thing happen that time brings, not behind `limit`. Whether there was one.
    pub(super) fn pass_time(&mut self, limit: Tick) -> bool {
        let alarm = self.alarms.keys().next().map(|(at, _)| at.as_nanos());
        let event = self.events.keys().next().map(|(at, _)| *at);
        let Some(next) = [alarm, event].into_iter().flatten().min().filter(|&at| at <= limit.as_nanos()) else {
            return false;
        };
        self.tick = self.tick.max(Tick::from_nanos(next));
        while let Some(entry) = self.events.first_entry().filter(|entry| entry.key().0 <= next) {
            let event = entry.remove();
            self.happen(event);
        }
        while let Some(entry) = self.alarms.first_entry().filter(|entry| entry.key().0.as_nanos() <= next) {
            entry.remove().wake();
        }
        true
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Bytes(id, bytes) => {
                self.mix(self.tick.as_nanos() ^ ((id as u64) << 48) ^ bytes.len() as u64);
                let pipe = &mut self.pipes[id];
                pipe.flying -= bytes.len();
                if pipe.reader_gone {
                    // As TCP does: data for a socket that nobody has any more is answered by a reset.
                    self.send_end(id ^ 1, End::Reset);
                    return;
                }
                if pipe.end.is_none() {
                    pipe.arrived.extend(bytes);
                }
                wake(&mut pipe.reader);
            }
            Event::End(id, end) => {
                let pipe = &mut self.pipes[id];
                if pipe.end != Some(End::Reset) {
                    pipe.end = Some(end);
                }
                wake(&mut pipe.reader);
                if end == End::Reset {
                    // What was not read yet may be lost: Linux keeps it, others do not.
                    if self.dice.percent(50) {
                        self.pipes[id].arrived.clear();
                    }
                    wake(&mut self.pipes[id ^ 1].writer);
                }
                let label = self.pipes[id].label.clone();
                self.note(|| format!("{label}  {end:?} arrives"));
            }
        }
    }

    fn flight(&mut self, id: PipeId) -> u64 {
        let most = u64::try_from(self.weather.latency.as_nanos()).unwrap_or(u64::MAX);
        let span = self.dice.below(most);
        let at = self.tick.after(Duration::from_nanos(span)).as_nanos();
        // In order, and never at once: whoever wrote goes on first.
        let pipe = &mut self.pipes[id];
        let at = at.max(self.tick.as_nanos() + 1).max(pipe.last_arrival);
        pipe.last_arrival = at;
        at
    }

    pub(super) fn send_end(&mut self, id: PipeId, end: End) {
        let at = self.flight(id);
        let serial = self.next_serial();
        self.events.insert((at, serial), Event::End(id, end));
        self.pipes[id].closed = true;
    }

    /// A new connection: both ends, each with the pipe that it reads and the one that it writes.
    pub(super) fn connect(&mut self, name: &str, from: &str, to: &str) -> [Arrival; 2] {
        let there = self.pipes.len();
        for label in [format!("{name}: {from} → {to}"), format!("{name}: {to} → {from}")] {
            self.pipes.push(Pipe { label, ..Pipe::default() });
        }
        let end = |read, write| Arrival { read, write, name: name.to_owned() };
        [end(there + 1, there), end(there, there + 1)]
    }

    pub(super) fn porch(&mut self, endpoint: &Endpoint) -> &mut Porch {
        self.porches.entry(endpoint.to_string()).or_default()
    }

    /// Nobody listens any more: who stands before the door is sent away, and so is who comes later.
    pub(super) fn close_porch(&mut self, endpoint: &Endpoint) {
        let porch = self.porch(endpoint);
        porch.door = Door::Shut;
        for arrival in std::mem::take(&mut porch.backlog) {
            self.send_end(arrival.write, End::Reset);
        }
    }

    /// Somebody stands before the door.
    pub(super) fn knock(&mut self, endpoint: &Endpoint, arrival: Arrival) {
        let porch = self.porch(endpoint);
        if porch.door == Door::Shut {
            return self.send_end(arrival.write, End::Reset);
        }
        porch.backlog.push_back(arrival);
        wake(&mut porch.waker);
    }

    pub(super) fn accept(&mut self, endpoint: &Endpoint, waker: &Waker) -> Option<Arrival> {
        let porch = self.porch(endpoint);
        let arrival = porch.backlog.pop_front();
        if arrival.is_none() {
            porch.waker = Some(waker.clone());
        }
        arrival
    }

    pub(super) fn is_closed(&self, id: PipeId) -> bool {
        self.pipes[id].closed
    }

    fn is_reluctant(&mut self) -> bool {
        let chance = self.weather.reluctance;
        chance > 0 && self.dice.percent(chance)
    }

    fn piece(&mut self, most: usize) -> usize {
        let limit = match self.weather.piece {
            0 => most,
            piece => most.min(piece),
        };
        // Half of all pieces are whole: streams that are always chopped hide what whole ones do.
        if self.dice.percent(50) { limit } else { self.dice.length(limit) }
    }

    /// What a socket reads: bytes, `Ok(0)` at the end, `Err(true)` for "ask again", `Err(false)` for "wait".
    pub(super) fn read(&mut self, id: PipeId, buffer: &mut [u8], waker: &Waker) -> Result<Result<usize, End>, bool> {
        if self.is_reluctant() {
            return Err(true);
        }
        let ready = self.pipes[id].arrived.len().min(buffer.len());
        if ready == 0 {
            let pipe = &mut self.pipes[id];
            return match pipe.end {
                Some(End::Fin) => Ok(Ok(0)),
                Some(End::Reset) => Ok(Err(End::Reset)),
                None => {
                    pipe.reader = Some(waker.clone());
                    Err(false)
                }
            };
        }
        let n = self.piece(ready);
        let pipe = &mut self.pipes[id];
        for (slot, byte) in buffer.iter_mut().zip(pipe.arrived.drain(..n)) {
            *slot = byte;
        }
        wake(&mut pipe.writer);
        Ok(Ok(n))
    }

    /// What a socket writes; the results are those of [`Self::read`].
    pub(super) fn write(&mut self, id: PipeId, bytes: &[u8], waker: &Waker) -> Result<Result<usize, End>, bool> {
        if self.pipes[id].closed || self.pipes[id ^ 1].end == Some(End::Reset) {
            return Ok(Err(End::Reset));
        }
        if self.is_reluctant() {
            return Err(true);
        }
        let pipe = &mut self.pipes[id];
        let used = pipe.flying + pipe.arrived.len();
        let room = if pipe.reader_gone { bytes.len() } else { self.weather.window.saturating_sub(used) };
        if room == 0 {
            pipe.writer = Some(waker.clone());
            return Err(false);
        }
        let n = self.piece(bytes.len().min(room));
        self.note_bytes(id, &bytes[..n]);
        let at = self.flight(id);
        let serial = self.next_serial();
        self.pipes[id].flying += n;
        self.events.insert((at, serial), Event::Bytes(id, bytes[..n].to_vec()));
        Ok(Ok(n))
    }

    /// A socket is dropped: unread bytes make it a reset, as in TCP.
    pub(super) fn drop_end(&mut self, read: PipeId, write: PipeId) {
        let pipe = &mut self.pipes[read];
        pipe.reader_gone = true;
        let unread = !pipe.arrived.is_empty();
        wake(&mut pipe.writer);
        if unread {
            self.send_end(write, End::Reset);
        } else if !self.pipes[write].closed {
            self.send_end(write, End::Fin);
        }
    }
}

fn wake(waker: &mut Option<Waker>) {
    if let Some(waker) = waker.take() {
        waker.wake();
    }
}

/// The beginning of some bytes, for people.
fn shown(bytes: &[u8]) -> String {
    const MOST: usize = 160;
    let text = bytes[..bytes.len().min(MOST)].escape_ascii().to_string();
    if bytes.len() > MOST { format!("{text} …") } else { text }
}
