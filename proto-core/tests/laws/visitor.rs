//! Clients that do anything a client may do, and check every byte of every answer.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use gprxy_proto::codec::startup::PROTOCOL_3_0;
use gprxy_proto::testing::corp;
use gprxy_proto::testing::dice::Dice;
use gprxy_proto::testing::postgres::{Auth, Backend, Postgres};
use gprxy_proto::testing::wire::{Message, Tape, brief, front};
use gprxy_proto::testing::world::{Client, Gone, World};
use gprxy_proto::time::{Now, Tick};

/// How unkind visitors are, each in percent of their operations.
#[derive(Clone, Copy, Default)]
pub(crate) struct Manners {
    /// They vanish.
    pub(crate) vanish: u64,
    /// Somebody cancels what they run.
    pub(crate) cancel: u64,
    /// They make their server connection fail.
    pub(crate) faults: u64,
}

/// What all visitors of a world write down.
#[derive(Default)]
pub(crate) struct Guestbook {
    /// Statements by their tag: how often each was sent.
    pub(crate) sent: BTreeMap<String, usize>,
    /// Everything that each visitor has received.
    pub(crate) received: Vec<(String, Vec<u8>)>,
    /// The account that each tagged statement is to run under.
    pub(crate) accounts: BTreeMap<String, &'static str>,
    /// The cancel keys of all sessions.
    pub(crate) keys: Vec<(u32, Vec<u8>)>,
    /// Every secret that a visitor has used.
    pub(crate) secrets: Vec<Vec<u8>>,
    /// Visits that came to their end in order.
    pub(crate) finished: usize,
    /// Visits that were begun.
    pub(crate) begun: usize,
    /// Cancel requests that were sent.
    pub(crate) cancels: usize,
    /// The tags of operations in the middle of which a visitor has left.
    pub(crate) abandoned: Vec<String>,
    /// Logins that were answered with an error: their SQLSTATEs.
    pub(crate) refused: Vec<String>,
    /// Sessions that ended with a FATAL error behind their login: its SQLSTATE.
    pub(crate) fatal: Vec<String>,
}

/// A statement that says nothing of anybody.
pub(crate) const EVERYBODYS: &str = "show application_name";

pub(crate) type Book = Arc<Mutex<Guestbook>>;

/// A server of one's own, to know what the right answer is.
struct Model {
    backend: Backend,
    now: Now,
}

impl Model {
    fn new(application: &str) -> Self {
        let postgres = Postgres::of_corp(1);
        postgres.set_auth(Auth::Trust);
        let mut model = Self { backend: Backend::new(&postgres), now: corp::at(Tick::default()) };
        let pairs = [("user", corp::READER), ("database", corp::DATABASE), ("application_name", application)];
        let pairs = if application.is_empty() { &pairs[..2] } else { &pairs[..] };
        model.answer(&front::startup(PROTOCOL_3_0, pairs));
        model
    }

    fn answer(&mut self, bytes: &[u8]) -> Vec<Message> {
        self.backend.handle_input(bytes, self.now);
        while let Some(at) = self.backend.poll_timeout() {
            self.now = corp::at(at.max(self.now.tick));
            self.backend.handle_timeout(self.now);
        }
        let mut tape = Tape::new();
        while let Some(bytes) = self.backend.poll_output() {
            tape.push(&bytes);
        }
        tape.collect()
    }
}

/// Somebody who visits again and again.
pub(crate) struct Visitor {
    pub(crate) name: String,
    pub(crate) dice: Dice,
    pub(crate) manners: Manners,
    pub(crate) book: Book,
    /// The longest answer that it asks for.
    pub(crate) longest: u64,
    /// Its sessions differ in nothing that a pool looks at.
    pub(crate) plain: bool,
    account: &'static str,
    serial: u32,
}

impl Visitor {
    pub(crate) fn new(name: String, dice: Dice, manners: Manners, book: &Book) -> Self {
        Self { name, dice, manners, book: book.clone(), longest: 3000, plain: false, account: corp::READER, serial: 0 }
    }

    fn tag(&mut self) -> String {
        self.serial += 1;
        let tag = format!("own-{}-{}-", self.name, self.serial);
        let mut book = self.book.lock().unwrap();
        book.sent.insert(tag.clone(), 0);
        book.accounts.insert(tag.clone(), self.account);
        drop(book);
        tag
    }

    /// One visit, from the first byte to the last.
    pub(crate) async fn visit(&mut self) {
        self.book.lock().unwrap().begun += 1;
        let mut client = Client::dial(&self.name);
        let ended = self.stay(&mut client).await;
        self.sign(&client, ended);
        if ended == Ok(true) {
            client.leave().await;
        } else if self.dice.percent(50) {
            client.vanish();
        }
    }

    /// Writes down how a visit ended.
    fn sign(&self, client: &Client, ended: Result<bool, Gone>) {
        let mut book = self.book.lock().unwrap();
        book.received.push((self.name.clone(), client.received().to_vec()));
        match ended {
            Ok(true) => book.finished += 1,
            Ok(false) => {}
            Err(Gone) => {
                let all = client.received();
                assert!(
                    self.manners.faults > 0 || book.refused.last().is_some(),
                    "{} was thrown out: …{}",
                    self.name,
                    all[all.len().saturating_sub(300)..].escape_ascii()
                );
            }
        }
    }

    /// `Ok(true)`: to be ended in order; `Ok(false)`: to vanish.
    async fn stay(&mut self, client: &mut Client) -> Result<bool, Gone> {
        let application =
            if !self.plain && self.dice.percent(30) { format!("own-{}-app", self.name) } else { String::new() };
        let extra = [("application_name", &*application)];
        let extra = if application.is_empty() { &extra[..0] } else { &extra[..] };
        let now = world_now();
        let all: [&[&str]; 3] = [&["reader"], &["writer"], &["reader", "nobody", "writer"]];
        let roles = *self.dice.pick(&all);
        let roles = if self.plain { &["reader"] } else { roles };
        self.account = if roles.contains(&"writer") { corp::WRITER } else { corp::READER };
        let token = corp::token(&self.name, roles, now);
        self.book.lock().unwrap().secrets.push(token.clone());
        let login = client.log_in(&format!("{}@corp.example", self.name), &token, extra).await?;
        if let Some(error) = login.last().filter(|last| last.tag == b'E') {
            self.book.lock().unwrap().refused.push(error.code());
            return Err(Gone);
        }
        self.book.lock().unwrap().keys.extend(client.key.clone());
        let mut model = Model::new(&application);
        let mut exact = true;
        for _ in 0..self.dice.length(6) {
            if self.dice.percent(self.manners.vanish) {
                self.vanish(client).await?;
                return Ok(false);
            }
            if self.dice.percent(self.manners.faults) {
                return self.fault(client).await;
            }
            if self.dice.percent(5) {
                self.look_around(client, &mut model).await?;
            } else if self.dice.percent(self.manners.cancel) {
                exact = false;
                self.cancelled(client).await?;
            } else if exact {
                self.exact(client, &mut model).await?;
            } else {
                let tag = self.tag();
                self.loose(client, &format!("rows 2 {tag}"), &tag).await?;
            }
        }
        Ok(true)
    }

    /// An operation whose answer must be that of a server without a proxy.
    async fn exact(&mut self, client: &mut Client, model: &mut Model) -> Result<(), Gone> {
        let bytes = self.operation();
        let expected = model.answer(&bytes);
        client.send(&bytes).await?;
        for (n, wanted) in expected.iter().enumerate() {
            let message = self.next(client).await?;
            assert_eq!(
                (message.tag, &message.body),
                (wanted.tag, &wanted.body),
                "answer {n} to {} of {}; all: {expected:?}",
                bytes.escape_ascii(),
                self.name
            );
        }
        Ok(())
    }

    /// The next message that belongs to an operation; a notification belongs to none.
    async fn next(&self, client: &mut Client) -> Result<Message, Gone> {
        let mut message = client.next().await?;
        while message.tag == b'N' && memchr::memmem::find(&message.body, b"keeps its server connection").is_some() {
            message = client.next().await?;
        }
        if message.tag == b'E' && message.severity() == "FATAL" {
            self.book.lock().unwrap().fatal.push(message.code());
            let rest = client.rest().await;
            assert!(rest.is_empty(), "{}: behind a FATAL error came {rest:?}", self.name);
            return Err(Gone);
        }
        Ok(message)
    }

    fn note(&self, tag: &str) {
        *self.book.lock().unwrap().sent.get_mut(tag).expect("every tag is noted") += 1;
    }

    /// An operation of any kind, as bytes.
    fn operation(&mut self) -> Vec<u8> {
        let tag = self.tag();
        self.note(&tag);
        let n = self.dice.below(4);
        let simple = |text: &str| front::query(text);
        match self.dice.below(26) {
            0 => simple(&format!("rows {n} {tag}")),
            1 => simple(&format!("rows 1 {tag}; notice {tag}; rows 2 {tag}")),
            2 => simple(&format!("rows 1 {tag}; fail 23505 {tag}; rows 2 {tag}")),
            3 => simple(""),
            4 => simple(&format!("begin -- {tag}")),
            5 => simple(&format!("{} -- {tag}", self.dice.pick(&["commit", "rollback"]))),
            6 => simple(&format!("set owner {tag}")),
            7 => simple(&format!("show owner -- {tag}")),
            8 => simple(&format!("set application_name {tag}")),
            9 => simple(&format!("create temp table t -- {tag}")),
            10 => simple(&format!("nonsense -- {tag}")),
            11 => simple(&format!("sleep {} {tag}", n * 10)),
            12 => simple(&format!("copy out {n} {tag}")),
            13 => {
                let most = if self.dice.percent(10) { self.longest } else { 500 };
                simple(&format!("big {} -- {tag}", self.dice.below(most)))
            }
            14 => {
                let end = if self.dice.percent(30) { front::copy_fail("no") } else { front::copy_done() };
                let data: Vec<u8> = (0..n).flat_map(|i| front::copy_data(format!("{tag}{i}\n").as_bytes())).collect();
                [simple(&format!("copy in -- {tag}")), data, end].concat()
            }
            15 => {
                let data = front::copy_data(format!("{tag}\n").as_bytes());
                let early = if self.dice.percent(50) { front::sync() } else { front::flush() };
                let open = [front::parse("", &format!("copy in -- {tag}")), front::bind("", ""), front::execute("", 0)]
                    .concat();
                [open, early, data, front::copy_done(), front::sync()].concat()
            }
            16 => {
                let name = *self.dice.pick(&["s1", "s2"]);
                [front::parse(name, &format!("rows 2 {tag}")), front::describe(b'S', name), front::sync()].concat()
            }
            17 => {
                let name = *self.dice.pick(&["s1", "s2", "s3"]);
                [front::bind("", name), front::describe(b'P', ""), front::execute("", 0), front::sync()].concat()
            }
            18 => [front::close(b'S', "s1"), front::sync()].concat(),
            19 => [
                front::parse("", &format!("rows 5 {tag}")),
                front::bind("p", ""),
                front::execute("p", 2),
                front::flush(),
                front::execute("p", 2),
                front::execute("p", 0),
                front::sync(),
            ]
            .concat(),
            20 => {
                ["begin -- ", "set owner ", "rollback -- "].map(|text| front::query(&format!("{text}{tag}"))).concat()
            }
            // A name whose first Parse fails, and what is sent behind that one's Sync before it has.
            21 => {
                let name = *self.dice.pick(&["s1", "s2"]);
                let again = [front::parse(name, &format!("rows 2 {tag}")), front::sync()].concat();
                let run = [front::bind("", name), front::execute("", 0), front::sync()].concat();
                [front::parse(name, "bad parse"), front::sync(), again, run].concat()
            }
            // What is prepared again and again, and bound once more.
            22 => {
                let text = format!("values rows {n} {tag}");
                let bound = [front::bind("", ""), front::execute("", 0)].concat();
                let end = if self.dice.percent(50) { front::sync() } else { front::flush() };
                let describe = if self.dice.percent(30) { front::describe(b'S', "") } else { Vec::new() };
                let once = [front::parse("", &text), describe, bound.clone(), end].concat();
                let again = match self.dice.below(4) {
                    0 => front::close(b'S', ""),
                    1 => front::parse("", "bad parse"),
                    2 => [front::parse("", &text), front::parse("", &format!("values rows 1 {tag}"))].concat(),
                    _ => Vec::new(),
                };
                [once.repeat(2 + usize::try_from(n).unwrap()), again, bound, front::sync()].concat()
            }
            23 => {
                let bound = [front::bind("", ""), front::describe(b'P', ""), front::execute("", 0), front::sync()];
                let text = format!("values rows {n} {tag}");
                [[front::parse("", &text), front::sync()].concat(), bound.concat().repeat(3)].concat()
            }
            // What says nothing of anybody, and may be everybody's.
            24 => {
                let name = *self.dice.pick(&["s4", "s5"]);
                let parse = front::parse(name, EVERYBODYS);
                let run = [front::bind("", "s4"), front::describe(b'P', ""), front::execute("", 0), front::sync()];
                [parse, front::sync(), run.concat()].concat()
            }
            _ => self.pipeline(&tag),
        }
    }

    /// Several extended queries in one piece, some of which fail in one way or another.
    fn pipeline(&mut self, tag: &str) -> Vec<u8> {
        let mut bytes = Vec::new();
        for i in 0..self.dice.length(5) {
            let text = match self.dice.below(8) {
                0 => "bad parse".to_owned(),
                1 => format!("fail 22012 {tag}{i}"),
                _ => format!("rows {i} {tag}"),
            };
            let statement = if self.dice.percent(10) { "unknown" } else { "" };
            bytes.extend(front::parse("", &text));
            bytes.extend(front::bind("", statement));
            bytes.extend(front::execute("", 0));
            if self.dice.percent(60) {
                bytes.extend(front::sync());
            }
        }
        bytes.extend(front::sync());
        bytes
    }

    /// Leaves something where no text shows it, and looks for what others have left there. It may be gone, and it may be the
    /// visitor's own of any time: what it says has a tag.
    async fn look_around(&mut self, client: &mut Client, model: &mut Model) -> Result<(), Gone> {
        let tag = self.tag();
        self.note(&tag);
        let leave = if self.dice.percent(50) { format!("remember {tag}; ") } else { String::new() };
        let bytes = front::query(&format!("{leave}recall -- {tag}"));
        model.answer(&bytes);
        client.send(&bytes).await?;
        loop {
            let message = self.next(client).await?;
            match message.tag {
                b'E' => assert!(matches!(&*message.code(), "57014" | "25P02"), "{} got {message:?}", self.name),
                b'Z' => return Ok(()),
                _ => {}
            }
        }
    }

    /// A query that may be cancelled at any time. Nothing in its answer may be anybody else's.
    async fn loose(&mut self, client: &mut Client, text: &str, tag: &str) -> Result<(), Gone> {
        self.note(tag);
        client.send(&front::query(text)).await?;
        loop {
            let message = self.next(client).await?;
            match message.tag {
                b'D' => assert!(
                    message.value().starts_with(tag.as_bytes()) || message.value() == b"slept",
                    "{} got {message:?}",
                    self.name
                ),
                b'E' => assert!(matches!(&*message.code(), "57014" | "25P02"), "{} got {message:?}", self.name),
                b'Z' => return Ok(()),
                _ => {}
            }
        }
    }

    async fn cancelled(&mut self, client: &mut Client) -> Result<(), Gone> {
        let tag = self.tag();
        let (pid, key) = client.key.clone().expect("every session has a key");
        let delay = Duration::from_micros(self.dice.below(30_000));
        let (name, book) = (format!("{} cancels", self.name), self.book.clone());
        let hits = self.dice.length(3);
        for _ in 0..hits {
            book.lock().unwrap().cancels += 1;
            let (name, key) = (name.clone(), key.clone());
            World::aside(async move {
                gprxy_proto::testing::world::sleep(delay).await;
                Client::cancel(&name, pid, &key).await;
            });
        }
        let text = if self.dice.percent(70) { format!("sleep 20 {tag}") } else { format!("rows 1 {tag}") };
        self.loose(client, &text, &tag).await
    }

    /// Leaves in the middle of something.
    async fn vanish(&mut self, client: &mut Client) -> Result<(), Gone> {
        let bytes = self.operation();
        self.book.lock().unwrap().abandoned.push(format!("own-{}-{}-", self.name, self.serial));
        let most = self.dice.length(bytes.len());
        client.send(&bytes[..most]).await?;
        if self.dice.percent(50) {
            client.pause(Duration::from_micros(self.dice.below(20_000))).await;
        }
        if self.dice.percent(30) {
            client.read_within(Duration::from_millis(self.dice.below(50))).await;
        }
        Ok(())
    }

    /// Ends the server connection: an ErrorResponse comes exactly once, or nothing behind half a message.
    async fn fault(&mut self, client: &mut Client) -> Result<bool, Gone> {
        let tag = self.tag();
        self.note(&tag);
        let text = match self.dice.below(5) {
            0 => format!("exit 57P01 {tag}"),
            1 => format!("crash {tag}"),
            2 => format!("tear {tag}"),
            // An unknown message; a length of -1.
            3 => format!("raw 7a00000004 {tag}"),
            _ => format!("raw 44ffffffff {tag}"),
        };
        let text = if self.dice.percent(50) { format!("rows 1 {tag}; {text}") } else { text };
        client.send(&front::query(&text)).await?;
        let mut messages = Vec::new();
        while let Ok(message) = client.next().await {
            let is_over = message.tag == b'Z';
            messages.push(message);
            if is_over {
                // It did not come to its fault: a cancel that came late has hit it, or the transaction had failed.
                let is_excused = |message: &Message| matches!(&*message.code(), "57014" | "25P02");
                assert!(messages.iter().any(is_excused), "{}: {messages:?}", self.name);
                return Ok(true);
            }
        }
        let fatal = messages.iter().filter(|message| message.tag == b'E' && message.severity() == "FATAL").count();
        // Behind half a message an ErrorResponse would be read as the rest of it.
        let expected = usize::from(!client.is_inside_message());
        assert_eq!(fatal, expected, "{}: {text}: {messages:?}", self.name);
        self.book.lock().unwrap().fatal.extend(messages.last().map(Message::code));
        Err(Gone)
    }
}

/// Nothing that one visitor has received has another's tag on it.
pub(crate) fn assert_isolated(book: &Book) {
    for (name, bytes) in &book.lock().unwrap().received {
        let own = format!("own-{name}-");
        let mut at = 0;
        while let Some(next) = find(&bytes[at..], b"own-") {
            at += next;
            // A stream may end anywhere.
            let seen = own.len().min(bytes.len() - at);
            assert!(
                bytes[at..at + seen] == own.as_bytes()[..seen],
                "{name} received …{}…",
                bytes[at..bytes.len().min(at + 60)].escape_ascii()
            );
            at += 4;
        }
    }
}

pub(crate) fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    memchr::memmem::find(haystack, needle)
}

fn world_now() -> Now {
    World::time()
}

#[test]
fn the_model_answers_like_a_server() {
    let mut model = Model::new("");
    let bytes: Vec<u8> = model.answer(&front::query("rows 1 a")).iter().flat_map(Message::emit).collect();
    assert_eq!(brief(&bytes), "T D(a/0) C(SELECT 1) Z(I)");
}
