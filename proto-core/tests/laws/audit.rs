//! Every statement that ran is written down exactly once, with the right person; in refuse mode nothing else runs.

use std::collections::BTreeMap;
use std::time::Duration;

use gprxy_proto::audit::AuditProfile;
use gprxy_proto::audit::OnFailure;
use gprxy_proto::driver::audit_log::Settings;
use gprxy_proto::testing::dice::Dice;
use gprxy_proto::testing::law::check;
use gprxy_proto::testing::postgres::Run;
use gprxy_proto::testing::wire::front;
use gprxy_proto::testing::world::{Client, Setup, World, sleep};
use serde_json::Value;

use crate::isolation::{any_mode, bustle, tag_of};
use crate::visitor::{Book, Manners};

/// How often each tagged text was written down, and by whom.
fn statements(trail: &[Value]) -> BTreeMap<String, Vec<&Value>> {
    let mut all: BTreeMap<String, Vec<&Value>> = BTreeMap::new();
    for line in trail.iter().filter(|line| line["event"] == "statement") {
        let text = line["statement"].as_str().unwrap_or_default();
        if let Some(tag) = tag_of(text) {
            all.entry(tag.to_owned()).or_default().push(line);
        }
    }
    all
}

/// The proxy gives a connection the settings of its session, in words that no visitor uses.
fn is_of_the_proxy(run: &Run) -> bool {
    run.text.starts_with("SET ") && run.text.contains(" TO E'")
}

/// Every run of the server is in the trail, under its owner's name and account.
fn assert_covered(world: &World, trail: &[Value]) {
    let written = statements(trail);
    for run in world.postgres.journal() {
        let Some(tag) = tag_of(&run.text) else { continue };
        if is_of_the_proxy(&run) {
            continue;
        }
        let lines = written.get(tag).unwrap_or_else(|| panic!("{run:?} is not written down"));
        let owner = tag.split('-').nth(1).unwrap_or_default();
        for line in lines {
            assert_eq!(line["user"], format!("{owner}@corp.example"), "{line}");
            assert_eq!(line["account"], run.user, "{line}");
        }
        // The server knows the statements of a simple query one by one; the trail has the query as it came.
        let has_it = lines.iter().any(|line| line["statement"].as_str().is_some_and(|text| text.contains(&run.text)));
        assert!(has_it, "{run:?} is written down as {lines:?}");
    }
}

/// Nothing is written down more often than it was sent.
fn assert_once(trail: &[Value]) {
    let mut seen = BTreeMap::new();
    for line in trail {
        let id = (line["session_id"].to_string(), line["statement_id"].to_string());
        if line["event"] == "statement" {
            assert!(seen.insert(id, line).is_none(), "twice: {line}");
        }
    }
}

/// Simple queries and whole extended cycles are counted exactly, where nobody vanishes.
#[test]
fn law_audit_one_record_for_each_execution() {
    check("law_audit_one", 2000, |seed| {
        let mut setup = any_mode(seed);
        if seed % 2 == 1 {
            setup.profile.audit = Some(AuditProfile { statement_bytes: 4096, required: true });
            setup.audit = Settings { on_failure: OnFailure::Refuse, ..setup.audit };
        }
        let (mut world, _) = bustle(seed, Manners::default(), setup);
        world.assert_quiet();
        let trail = world.trail();
        assert_eq!(world.audit().counters().reserved, 0, "places are given back");
        assert_covered(&world, &trail);
        assert_once(&trail);
        assert_exact(&world, &trail);
    });
}

/// Each run of a statement that came alone has one record, with its outcome; what is left over did not come to run.
fn assert_exact(world: &World, trail: &[Value]) {
    let mut outcomes: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let theirs = |run: &Run| tag_of(&run.text).is_some() && !is_of_the_proxy(run);
    for run in world.postgres.journal().into_iter().filter(theirs) {
        outcomes.entry(run.text).or_default().push(run.sqlstate.expect("nobody has left"));
    }
    for (text, outcomes) in outcomes {
        let is_part =
            |line: &Value| line["statement"].as_str().is_some_and(|other| other.contains(';') && other.contains(&text));
        if trail.iter().any(is_part) {
            continue;
        }
        let mut lines: Vec<&Value> = trail.iter().filter(|line| line["statement"] == text.as_str()).collect();
        for outcome in &outcomes {
            let same = lines.iter().position(|line| line["sqlstate"] == outcome.as_str());
            let same = same.unwrap_or_else(|| panic!("{text} ended with {outcomes:?}, written down is {lines:?}"));
            lines.remove(same);
        }
        // A Bind that failed is written down without a run.
        let ran = lines.iter().find(|line| line["sqlstate"] == "00000" || !line["rows"].is_null());
        assert!(ran.is_none(), "{text} ended with {outcomes:?}, and once more in {ran:?}");
    }
}

#[test]
fn law_audit_covers_everything_through_faults() {
    check("law_audit_covers", 2000, |seed| {
        let manners = Manners { vanish: 15, cancel: 15, faults: 10 };
        let (mut world, _) = bustle(seed, manners, any_mode(seed));
        world.assert_quiet();
        let trail = world.trail();
        assert_covered(&world, &trail);
        assert_once(&trail);
    });
}

/// A place that a statement did not need, because an error in front of it kept it from running, is given back at once.
#[test]
fn law_audit_refuse_idle_sessions_hold_no_places() {
    check("law_audit_places", 1000, |seed| {
        let mut setup: Setup = any_mode(seed);
        setup.profile.audit = Some(AuditProfile { statement_bytes: 4096, required: true });
        setup.audit = Settings { on_failure: OnFailure::Refuse, ..setup.audit };
        let mut world = World::with(seed, setup);
        let mut dice = world.dice.fork();
        world.script("client", async move {
            let mut client = Client::dial("c0");
            client.log_in_with_token("c0", &["reader"]).await.unwrap();
            for _ in 0..dice.length(4) {
                let texts = (0..dice.length(5)).map(|_| *dice.pick(&["rows 1 a", "fail 22012 a", "bad parse"]));
                let cycle = |text| [front::parse("", text), front::bind("", ""), front::execute("", 0)].concat();
                let bytes: Vec<u8> = texts.flat_map(cycle).chain(front::sync()).collect();
                client.exchange(&bytes, 1).await.unwrap();
            }
            client.pause(Duration::from_secs(3600)).await;
            client.leave().await;
        });
        world.advance(Duration::from_secs(1800));
        world.write_trail();
        assert_eq!((world.shared().sessions(), world.audit().counters().reserved), (1, 0), "sessions and places");
        world.run();
        world.assert_quiet();
    });
}

/// The file takes something only now and then: who is refused tries again, and everything that ran is written down.
#[test]
fn law_audit_refuse_goes_on_when_the_trail_does() {
    check("law_audit_stall", 1000, |seed| {
        let mut setup: Setup = any_mode(seed);
        setup.profile.audit = Some(AuditProfile { statement_bytes: 4096, required: true });
        let max_records = 3 + Dice::new(seed).length(6);
        setup.audit = Settings { on_failure: OnFailure::Refuse, max_records, ..setup.audit };
        setup.audit_blocked = true;
        let mut world = World::with(seed, setup);
        for n in 0..3 {
            world.script(&format!("visitor {n}"), async move {
                let name = format!("c{n}");
                let mut client = Client::dial(&name);
                client.log_in_with_token(&name, &["reader"]).await.unwrap();
                for serial in 0..5 {
                    let text = format!("rows 1 own-{name}-{serial}-");
                    loop {
                        let messages = client.query(&text).await.unwrap();
                        if messages[0].tag != b'E' {
                            break;
                        }
                        assert_eq!(messages[0].code(), "58030", "{messages:?}");
                        sleep(Duration::from_millis(200)).await;
                    }
                }
                client.leave().await;
            });
        }
        for _ in 0..40 {
            let span = Duration::from_millis(world.dice.below(3000));
            world.advance(span);
            world.write_trail();
        }
        world.run();
        world.assert_quiet();
        let trail = world.trail();
        assert_covered(&world, &trail);
        assert_once(&trail);
        let statements = trail.iter().filter(|line| line["event"] == "statement").count();
        assert_eq!(statements, 15, "each ran once, and what was refused has not run");
        assert_eq!(world.audit().counters().reserved, 0, "places are given back");
    });
}

#[test]
fn law_audit_refuse_nothing_runs_unrecorded() {
    check("law_audit_refuse", 2000, |seed| {
        let mut setup: Setup = any_mode(seed);
        setup.profile.audit = Some(AuditProfile { statement_bytes: 4096, required: true });
        let max_records = Dice::new(seed).length(12);
        setup.audit = Settings { on_failure: OnFailure::Refuse, max_records, ..setup.audit };
        setup.audit_blocked = true;
        let (mut world, book) = refusing(seed, setup);
        world.assert_quiet();
        let trail = world.trail();
        assert_covered(&world, &trail);
        assert_once(&trail);
        let statements = trail.iter().filter(|line| line["event"] == "statement").count();
        assert!(statements <= max_records, "{statements} records in a trail of {max_records}");
        let counters = world.audit().counters();
        assert_eq!(counters.reserved, 0, "places are given back");
        drop(book);
    });
}

/// Visitors who accept that a statement is refused.
fn refusing(seed: u64, setup: Setup) -> (World, Book) {
    let mut world = World::with(seed, setup);
    let book = Book::default();
    for n in 0..3 {
        let mut dice = world.dice.fork();
        world.script(&format!("visitor {n}"), async move {
            let name = format!("c{n}");
            let mut client = Client::dial(&name);
            let _ = client.log_in_with_token(&name, &["reader"]).await;
            for serial in 0..10 {
                let text = format!("rows 1 own-{name}-{serial}-");
                let simple = dice.percent(70);
                let bytes = if simple {
                    front::query(&text)
                } else {
                    [front::parse("", &text), front::bind("", ""), front::execute("", 0), front::sync()].concat()
                };
                match client.exchange(&bytes, 1).await {
                    Ok(messages) if messages[0].tag == b'E' => {
                        assert_eq!((messages[0].code(), messages.len()), ("58030".into(), 2), "{messages:?}");
                        assert!(simple, "{messages:?}");
                    }
                    Ok(messages) => assert!(messages.iter().any(|message| message.tag == b'C'), "{messages:?}"),
                    // Only an extended query cannot be refused without ending the session.
                    Err(_) => {
                        assert!(!simple, "{name} {serial}");
                        return;
                    }
                }
            }
            client.leave().await;
        });
    }
    world.run();
    (world, book)
}
