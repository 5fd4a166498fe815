//! People who come in crowds, to a proxy that has little room, and write down who was let in and why the others were not.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use gprxy_proto::policy::Limits;
use gprxy_proto::pool::{PoolMode, PoolSettings};
use gprxy_proto::testing::corp;
use gprxy_proto::testing::dice::Dice;
use gprxy_proto::testing::wire::{Message, front};
use gprxy_proto::testing::world::{Client, World, sleep};
use gprxy_proto::time::Tick;

/// A second database on the same server: accounts have pools in both.
pub(crate) const OTHER: &str = "other";

/// The proxy may notice this much later that somebody has left.
const NOTICED: Duration = Duration::from_secs(5);

/// What is counted of somebody.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Place {
    database: &'static str,
    user: &'static str,
    /// A person of the provider, or a user whose password PostgreSQL checks.
    identity: String,
}

/// When somebody was there.
struct Stay {
    place: Place,
    from: Tick,
    /// When the login succeeded.
    entered: Option<Tick>,
    /// When it began to leave, or learned that it was thrown out.
    left: Option<Tick>,
    /// Thrown out, or maybe: by then the proxy had known for a while.
    thrown: bool,
    to: Option<Tick>,
}

impl Stay {
    /// Whether it had a place then, for certain.
    fn is_inside(&self, at: Tick) -> bool {
        let grace = if self.thrown { NOTICED } else { Duration::ZERO };
        let is_still = |left: Tick| left > at && left.since(at) > grace;
        self.entered.is_some_and(|entered| entered <= at) && self.left.is_none_or(is_still)
    }
}

/// What all of them write down, and the limits that they hold it against.
pub(crate) struct Ledger {
    pub(crate) pool: PoolSettings,
    pub(crate) limits: Limits,
    /// The server may refuse, hang or die.
    pub(crate) troubled: bool,
    stays: Vec<Stay>,
    /// How often each reason was given.
    pub(crate) refused: BTreeMap<&'static str, usize>,
    /// Sessions that came to their end in order.
    pub(crate) served: usize,
}

pub(crate) type Book = Arc<Mutex<Ledger>>;

/// The limits over clients, as a refusal names them.
const LIMITS: [&str; 4] =
    ["max_client_conn", "max_db_client_connections", "max_user_client_connections", "max_client_conn_per_identity"];

impl Ledger {
    pub(crate) fn new(pool: PoolSettings, limits: Limits, troubled: bool) -> Book {
        let (stays, refused) = (Vec::new(), BTreeMap::new());
        Arc::new(Mutex::new(Self { pool, limits, troubled, stays, refused, served: 0 }))
    }

    /// The limit of this name, and whom it counts beside somebody at this place; `None`: it is off.
    fn limit(&self, name: &str, place: &Place) -> Option<(u32, impl Fn(&Place) -> bool + use<>)> {
        let (limit, mine) = match name {
            "max_client_conn" => (self.limits.max_client_conn - self.limits.reserved_for_admins, [false; 3]),
            "max_db_client_connections" => (self.pool.max_db_client_connections, [true, false, false]),
            "max_user_client_connections" => (self.pool.max_user_client_connections, [false, true, false]),
            _ => (self.limits.max_client_conn_per_identity, [false, false, true]),
        };
        let place = place.clone();
        let counts = move |other: &Place| {
            let same = [other.database == place.database, other.user == place.user, other.identity == place.identity];
            mine.iter().zip(same).all(|(mine, same)| !mine || same)
        };
        (limit > 0).then_some((limit, counts))
    }

    fn dial(&mut self, place: Place) -> usize {
        let from = World::time().tick;
        self.stays.push(Stay { place, from, entered: None, left: None, thrown: false, to: None });
        self.stays.len() - 1
    }

    fn leave(&mut self, who: usize, thrown: bool) {
        let stay = &mut self.stays[who];
        (stay.left, stay.thrown) = (Some(World::time().tick), thrown);
    }

    /// Whenever somebody was let in, no limit was exceeded by those who were inside.
    pub(crate) fn assert_limits(&self) {
        for stay in &self.stays {
            let Some(entered) = stay.entered else { continue };
            for name in LIMITS {
                let Some((limit, counts)) = self.limit(name, &stay.place) else { continue };
                let inside = self.stays.iter().filter(|it| it.is_inside(entered) && counts(&it.place)).count();
                assert!(inside <= limit as usize, "{inside} are inside, and {name} is {limit}");
            }
        }
    }

    /// A limit was in the way: there were as many.
    fn crowded_out(&mut self, who: usize, name: &'static str) {
        let (from, now) = (self.stays[who].from, World::time().tick);
        let (limit, counts) = self.limit(name, &self.stays[who].place).expect("this limit is set");
        let there = |stay: &Stay| stay.from <= now && stay.to.is_none_or(|to| to.after(NOTICED) >= from);
        let others = self.stays.iter().enumerate().filter(|(n, stay)| *n != who && there(stay) && counts(&stay.place));
        let others = others.count();
        assert!(others >= limit as usize, "refused by {name} = {limit} beside {others} others");
        *self.refused.entry(name).or_default() += 1;
    }

    fn gone(&mut self, who: usize) {
        self.stays[who].to = Some(World::time().tick);
    }

    /// Why somebody was refused or thrown out. Every reason is one that there is.
    fn told(&mut self, who: usize, error: &Message, asked: Tick) {
        let (code, text) = (error.code(), String::from_utf8_lossy(&error.body).replace('\0', " "));
        assert_eq!(error.severity(), "FATAL", "{code} {text}");
        let named = LIMITS.into_iter().find(|name| text.contains(&format!("({name})")));
        let reason = match (&*code, named) {
            ("53300", Some(name)) => return self.crowded_out(who, name),
            ("53300", None) if text.contains("became free within") => {
                let (limit, waited) = (self.pool.query_wait_timeout, World::time().tick.since(asked));
                assert!(!limit.is_zero() && waited >= limit, "refused after {waited:?} of {limit:?}: {text}");
                "query_wait_timeout"
            }
            ("53300", None) if text.contains("too many clients already") => "the server is full",
            ("08001" | "08006", None) => "the server is away",
            ("57P01", None) => "terminated",
            // Who is not proven before the server has let him in waits for as long as a login may take: even an idle
            // connection of other people makes no room for him.
            ("28000", None) if text.contains("client_login_timeout") => {
                assert!(self.stays[who].place.user == corp::LOCAL_USER && self.pool.max_db_connections > 0, "{text}");
                *self.refused.entry("client_login_timeout").or_default() += 1;
                return;
            }
            _ => panic!("nobody is told this: {code} {text}"),
        };
        assert!(self.troubled || reason == "query_wait_timeout", "{reason}, and nothing has happened to it: {text}");
        *self.refused.entry(reason).or_default() += 1;
    }
}

/// How a visit ends.
#[derive(PartialEq, Eq)]
enum End {
    Leave,
    Vanish,
    Thrown,
}

/// Somebody who comes again and again.
pub(crate) struct Guest {
    pub(crate) name: String,
    pub(crate) dice: Dice,
    pub(crate) book: Book,
    pub(crate) mode: PoolMode,
}

impl Guest {
    pub(crate) async fn visit(&mut self) {
        sleep(Duration::from_micros(self.dice.below(40_000))).await;
        let database = *self.dice.pick(&[corp::DATABASE, corp::DATABASE, OTHER]);
        let own_password = self.dice.percent(10);
        let (role, account) = *self.dice.pick(&[("reader", corp::READER), ("writer", corp::WRITER)]);
        // Some come under the name of somebody else, who is there twice then.
        let person = if self.dice.percent(30) { "c0".to_owned() } else { self.name.clone() };
        let user = if own_password { corp::LOCAL_USER.to_owned() } else { format!("{person}@corp.example") };
        let secret = match own_password {
            true => corp::LOCAL_PASSWORD.to_vec(),
            false => corp::token(&person, &[role], World::time()),
        };
        let place =
            Place { database, user: if own_password { corp::LOCAL_USER } else { account }, identity: user.clone() };
        let who = self.book.lock().unwrap().dial(place);
        let mut client = Client::dial(&self.name);
        let asked = World::time().tick;
        let kind = if self.dice.percent(20) { &[("TimeZone", "UTC")][..] } else { &[] };
        let login = client.log_in_to(database, &user, &secret, kind).await.expect("everybody is answered");
        let last = login.last().expect("it ends with a message");
        if last.tag == b'E' {
            self.book.lock().unwrap().told(who, last, asked);
            assert_eq!(client.rest().await, [], "nothing comes behind the refusal");
            return self.book.lock().unwrap().gone(who);
        }
        self.book.lock().unwrap().stays[who].entered = Some(World::time().tick);
        let end = self.stay(&mut client, who).await;
        self.book.lock().unwrap().leave(who, end != End::Leave);
        match end {
            End::Leave => self.leave(client, who).await,
            End::Vanish => client.vanish(),
            End::Thrown => {}
        }
        self.book.lock().unwrap().gone(who);
    }

    /// In order, unless the proxy has said farewell already.
    async fn leave(&self, mut client: Client, who: usize) {
        let asked = World::time().tick;
        let _ = client.send(&front::terminate()).await;
        let rest = client.rest().await;
        let mut book = self.book.lock().unwrap();
        match rest.iter().find(|message| message.tag == b'E') {
            None => book.served += 1,
            Some(error) => {
                book.stays[who].thrown = true;
                book.told(who, error, asked);
            }
        }
    }

    /// Until it wants to leave, or has to.
    async fn stay(&mut self, client: &mut Client, who: usize) -> End {
        for _ in 0..self.dice.below(5) {
            sleep(Duration::from_micros(self.dice.below(30_000))).await;
            let n = self.dice.below(60);
            let texts = match self.dice.below(6) {
                0 if self.mode != PoolMode::Statement => {
                    vec!["begin".to_owned(), format!("sleep {n}"), "commit".to_owned()]
                }
                1 => vec![format!("sleep {n}")],
                2 => vec![format!("set owner {}", self.name)],
                _ => vec!["rows 2 x".to_owned()],
            };
            let vanishes = self.dice.percent(8);
            for text in texts {
                if vanishes && client.send(&front::query(&text)).await.is_ok() {
                    return End::Vanish;
                }
                if !self.answered(client, &text, who).await {
                    return End::Thrown;
                }
            }
        }
        End::Leave
    }

    /// One statement and its answer. Whether the session goes on.
    async fn answered(&mut self, client: &mut Client, text: &str, who: usize) -> bool {
        let asked = World::time().tick;
        if let Some((pid, key)) = client.key.clone().filter(|_| self.dice.percent(8)) {
            let (name, delay) = (format!("{} cancels", self.name), self.dice.below(40_000));
            let book = self.book.clone();
            World::aside(async move {
                sleep(Duration::from_micros(delay)).await;
                // It is a connection like others.
                let who = book.lock().unwrap().dial(Place { database: "", user: "", identity: String::new() });
                Client::cancel(&name, pid, &key).await;
                book.lock().unwrap().gone(who);
            });
        }
        let sent = client.send(&front::query(text)).await;
        loop {
            match client.next().await {
                Ok(message) if message.tag == b'Z' => return true,
                // It was cancelled while it waited or ran, or one before it in its transaction was.
                Ok(message) if matches!(&*message.code(), "57014" | "25P02") => {
                    assert_eq!(message.severity(), "ERROR");
                }
                Ok(message) if message.tag == b'E' => {
                    self.book.lock().unwrap().told(who, &message, asked);
                    assert_eq!(client.rest().await, [], "nothing comes behind a FATAL error");
                    return false;
                }
                Ok(_) => {}
                Err(_) => {
                    // Its server went while it said nothing; what it was told then is lost with the connection.
                    assert!(sent.is_err() || self.book.lock().unwrap().troubled, "{text}: no answer");
                    return false;
                }
            }
        }
    }
}
