//! Other clients of the same pool, who say little things between the steps of the one that is compared.

use crate::support::gprxy::Gprxy;
use crate::support::target::Target;
use crate::support::wire::{Wire, bind, describe_and_execute, frame, parse, query, sync};

use super::grammar::Dice;
use crate::support::eventually_within;

/// Of so many seeds, one brings in a client whose startup parameters are others: each of its turns makes everything on the
/// connection anew.
const FOREIGN: u64 = 4;
/// What that one asks for.
const OTHERS: [(&str, &str); 2] = [("DateStyle", "SQL, DMY"), ("options", "-c geqo=off -c TimeZone=Asia/Kolkata")];

/// How long somebody is waited for who may have to wait for the one under observation.
const TURN: std::time::Duration = std::time::Duration::from_millis(15);

struct Neighbour {
    wire: Wire,
    /// Its answer has not come, and what it is to be.
    owed: Option<String>,
    in_transaction: bool,
}

pub(super) struct Noise {
    neighbours: Vec<Neighbour>,
    /// How many of them speak.
    company: usize,
    dice: Dice,
    /// Connections that there are: with a single one nobody may keep it.
    connections: usize,
    said: usize,
}

impl Noise {
    /// The same person as the one under observation, and somebody else; the first of them once more, who wants it otherwise.
    pub(super) fn new(people: &[Target], connections: usize) -> Self {
        let neighbour = |target: &Target, parameters: &[(&str, &str)]| Neighbour {
            wire: Wire::login_with(target, parameters).unwrap_or_else(|error| panic!("{error:?}")),
            owed: None,
            in_transaction: false,
        };
        let mut neighbours: Vec<_> = people.iter().map(|target| neighbour(target, &[])).collect();
        neighbours.push(neighbour(&people[0], &OTHERS));
        Self { neighbours, company: people.len(), dice: Dice::new(0), connections, said: 0 }
    }

    /// From here on the same things are said for the same seed.
    pub(super) fn reset(&mut self, seed: u64) {
        self.dice = Dice::new(!seed);
        self.company = self.neighbours.len() - usize::from(!seed.is_multiple_of(FOREIGN));
    }

    /// Somebody says something, unless they still wait for their turn.
    pub(super) fn speak(&mut self) {
        let n = self.dice.below(self.company);
        self.said += 1;
        let somebody_keeps_one = self.neighbours.iter().any(|one| one.in_transaction);
        let may_begin = self.connections > 1 && !somebody_keeps_one;
        let one = &mut self.neighbours[n];
        if one.owed.is_some() && !one.listen() {
            return;
        }
        one.say(&mut self.dice, self.said, may_begin);
        let _ = eventually_within(TURN, || one.wire.has_something().then_some(())).map(|()| one.listen());
    }

    /// Everybody ends what is begun.
    pub(super) fn finish(&mut self) {
        for one in &mut self.neighbours {
            if one.in_transaction {
                one.collect();
                one.rows("commit");
                one.in_transaction = false;
            }
        }
        self.neighbours.iter_mut().for_each(Neighbour::collect);
    }
}

impl Neighbour {
    fn rows(&mut self, sql: &str) {
        self.wire.rows(sql).unwrap_or_else(|error| panic!("a neighbour's {sql}: {error:?}"));
    }

    /// Reads the answer if it has come.
    fn listen(&mut self) -> bool {
        if self.owed.is_some() && !self.wire.has_something() {
            return false;
        }
        self.collect();
        true
    }

    fn collect(&mut self) {
        let Some(expected) = self.owed.take() else { return };
        let answer = self.wire.read_until_ready();
        let row = answer.iter().find(|message| message.tag == 'D');
        let value = row.and_then(|row| row.columns().swap_remove(0)).unwrap_or_default();
        assert_eq!(value, expected, "a neighbour got another answer: {answer:?}");
    }

    fn say(&mut self, dice: &mut Dice, n: usize, may_begin: bool) {
        let own = format!("select 'noise {n}'");
        let execute = || [describe_and_execute(), sync()].concat();
        let bytes = match dice.below(10) {
            0 => query(&format!("set timezone = 'Europe/Rome'; {own}")),
            1 => query(&format!("set datestyle = 'Postgres, MDY'; set application_name = 'noise'; {own}")),
            2 => query(&format!("reset all; {own}")),
            3 => query(&format!("deallocate all; {own}")),
            // The name of somebody else's, with another text and with the same.
            4 => [frame('C', b"Ss1\0"), parse("s1", &own), bind("s1", &[]), execute()].concat(),
            5 => [frame('C', b"Ss2\0"), parse("s2", "select 'bob s'"), bind("s2", &[]), execute()].concat(),
            6 => [parse("", &own), bind("", &[]), execute()].concat(),
            7 if may_begin && !self.in_transaction => {
                self.in_transaction = true;
                query(&format!("begin; {own}"))
            }
            _ if self.in_transaction => {
                self.in_transaction = false;
                query(&format!("commit; {own}"))
            }
            _ => query(&own),
        };
        let shared = bytes.windows(5).any(|part| part == b"bob s");
        self.owed = Some(if shared { "bob s".to_owned() } else { format!("noise {n}") });
        self.wire.send(&bytes);
    }
}

/// Somebody else with the same account.
pub(super) fn stranger(gprxy: &Gprxy) -> Target {
    let claims = serde_json::json!({ "sub": "eve", "email": "eve@corp.example", "roles": ["writer"] });
    let token = crate::support::provider::Provider::shared().mint(claims);
    gprxy.target("bob").with_user("eve@corp.example").with_password(&token)
}
