//! Users who are looked up: who gets in, who does not, and what is left behind, also where connections are lost, servers
//! are gone and clients leave in the middle of it.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use gprxy_proto::auth::gate::Gate;
use gprxy_proto::auth::users::{StoredSecret, UserList};
use gprxy_proto::policy::{AuthQuery, AuthType, Database, Databases};
use gprxy_proto::pool::{PoolMode, PoolSettings};
use gprxy_proto::session::Profile;
use gprxy_proto::testing::corp;
use gprxy_proto::testing::dice::Dice;
use gprxy_proto::testing::law::check;
use gprxy_proto::testing::world::{Client, Door, Setup, Weather, World, sleep};

/// Three users of the server; the list has only the one who asks.
const KNOWN: [&str; 2] = [corp::LOCAL_USER, corp::WRITER];

fn profile(dice: &mut Dice) -> Profile {
    let users = UserList::new([(corp::READER, StoredSecret::parse(corp::ACCOUNT_PASSWORD))]);
    let pool = PoolSettings {
        pool_mode: PoolMode::Transaction,
        default_pool_size: 1 + u32::try_from(dice.below(2)).unwrap(),
        server_login_retry: Duration::from_millis(dice.below(500)),
        query_wait_timeout: Duration::from_secs(5),
        ..PoolSettings::default()
    };
    let auth_query = AuthQuery { user: corp::READER.into(), query: "password of $1".into(), database: None };
    let databases = corp::databases(pool);
    let known = databases.find(corp::DATABASE).unwrap();
    let known = Database { auth_query: Some(auth_query.into()), ..(**known).clone() };
    Profile {
        gate: Some(Arc::new(Gate::listed(AuthType::Plain, users, dice))),
        databases: Databases::new([(corp::DATABASE.into(), known)]),
        ..corp::profile()
    }
}

/// What a visitor was told: the SQLSTATE of the refusal, without the name; who they run as, when they are in.
#[derive(Clone, PartialEq, Eq, Debug)]
enum End {
    In(String),
    Out(String, String),
    Lost,
}

async fn visit(name: &str, user: &str, password: &[u8]) -> End {
    let mut client = Client::dial(name);
    let Ok(messages) = client.log_in(user, password, &[("TimeZone", "Asia/Tokyo")]).await else { return End::Lost };
    let last = messages.last().expect("something is told");
    if last.tag == b'E' {
        let words = String::from_utf8_lossy(&last.body).replace(user, "USER");
        return End::Out(last.code(), words);
    }
    let Ok(answer) = client.query("whoami").await else { return End::Lost };
    let row = answer.iter().find(|message| message.tag == b'D');
    let end = row.map_or(End::Lost, |row| {
        let words = String::from_utf8_lossy(row.value()).into_owned();
        End::In(words.split(' ').next().unwrap_or_default().to_owned())
    });
    client.leave().await;
    end
}

fn password_of(user: &str) -> &'static [u8] {
    if user == corp::LOCAL_USER { corp::LOCAL_PASSWORD } else { corp::ACCOUNT_PASSWORD }
}

/// Whoever knows the password gets in as themselves, unless something is in the way; nobody else ever does. `rough`: whether
/// something may be in the way.
fn law(seed: u64, rough: bool) {
    let mut dice = Dice::new(seed);
    let weather = if rough && dice.percent(50) { Weather::storm() } else { Weather::default() };
    let mut world = World::with(seed, Setup { profile: profile(&mut dice), weather, ..Setup::default() });
    world.postgres.set_think(Duration::from_millis(dice.below(40)));
    let ends = Arc::new(Mutex::new(Vec::new()));
    for n in 0..8 {
        let (user, right) = match dice.below(4) {
            0 => ("nobody", false),
            1 => (*dice.pick(&KNOWN), false),
            _ => (*dice.pick(&KNOWN), true),
        };
        let (name, ends, pause) = (format!("visitor {n}"), ends.clone(), Duration::from_millis(dice.below(200)));
        world.script(&name.clone(), async move {
            sleep(pause).await;
            let password = if right { password_of(user) } else { b"not the password" };
            let end = visit(&name, user, password).await;
            ends.lock().unwrap().push((user, right, end));
        });
    }
    if rough {
        // Somebody who never stays for the answer.
        for n in 0..4 {
            let (name, pause) = (format!("hasty {n}"), Duration::from_micros(dice.below(100_000)));
            world.script(&name.clone(), async move {
                let mut client = Client::dial(&name);
                let _ = client
                    .send(&gprxy_proto::testing::wire::front::startup(
                        gprxy_proto::codec::startup::PROTOCOL_3_0,
                        &[("user", "hasty"), ("database", corp::DATABASE)],
                    ))
                    .await;
                sleep(pause).await;
                client.vanish();
            });
        }
        let (postgres, mut moments) = (world.postgres.clone(), dice.fork());
        world.script("trouble", async move {
            for _ in 0..4 {
                sleep(Duration::from_millis(moments.below(60))).await;
                // One that does nothing is missed only when it is needed.
                let journal = postgres.journal();
                let busy: Vec<_> = journal.iter().filter(|run| run.sqlstate.is_none()).map(|run| run.pid).collect();
                if !busy.is_empty() {
                    postgres.terminate(*moments.pick(&busy));
                }
            }
        });
        if dice.percent(20) {
            world.advance(Duration::from_millis(dice.below(100)));
            world.set_door(Door::Shut);
            world.advance(Duration::from_millis(dice.below(300)));
            world.set_door(Door::Open);
        }
    }
    world.run();
    let ends = ends.lock().unwrap().clone();
    assert_eq!(ends.len(), 8);
    let mut refused = Vec::new();
    for (user, right, end) in ends {
        match end {
            End::In(whoami) => assert!(right && whoami == user, "{user} is in as {whoami}, {right}"),
            End::Out(code, words) if code == "28P01" && !right => refused.push(words),
            other => assert!(rough, "{user}, {right}: {other:?}"),
        }
    }
    assert!(refused.iter().all(|words| *words == refused[0]), "nobody learns who exists: {refused:?}");
    for run in world.postgres.journal() {
        let is_lookup = run.text.starts_with("password of");
        assert!(!is_lookup || run.user == corp::READER, "{run:?}");
    }
    world.set_weather(Weather::default());
    world.assert_quiet();
    world.end();
}

#[test]
fn law_lookups_whoever_knows_the_password_gets_in_and_nobody_else() {
    check("law_lookups", 60, |seed| law(seed, false));
}

#[test]
fn law_lookups_whatever_goes_wrong_lets_nobody_in_and_leaves_nothing_behind() {
    check("law_rough_lookups", 150, |seed| law(seed, true));
}
