use std::io;
use std::time::Duration;

use super::*;
use crate::auth::jwks::Unknown;
use crate::policy::Endpoint;
use crate::testing::corp;
use crate::testing::world::{Sim, SimAlarm, SimSocket, World, sleep};

/// The simulated runtime, but what may block never comes to an end: a fetch that hangs, or that has panicked.
#[derive(Clone, Copy)]
struct Stuck;

impl Runtime for Stuck {
    type Socket = SimSocket;
    type Alarm = SimAlarm;

    fn now() -> Now {
        Sim::now()
    }

    fn alarm() -> SimAlarm {
        Sim::alarm()
    }

    fn connect(endpoint: Endpoint) -> impl Future<Output = io::Result<SimSocket>> + Send {
        Sim::connect(endpoint)
    }

    fn spawn(future: impl Future<Output = ()> + Send + 'static) {
        Sim::spawn(future);
    }

    async fn blocking<T: Send + 'static>(_: impl FnOnce() -> T + Send + 'static) -> T {
        std::future::pending().await
    }
}

fn parts(world: &mut World) -> Parts {
    let profile = corp::profile();
    let hub = Hub::new(corp::unfetched_keys(world.now()), &profile.limits, Box::new(world.dice.fork()));
    let (profile, server_tls) = (Arc::new(profile), ServerTls::new());
    Parts {
        profile,
        hub,
        tls: None,
        server_tls,
        tokens: None,
        control: None,
        audit: None,
        http: ureq::Agent::new_with_defaults(),
    }
}

#[test]
fn a_round_of_fetches_that_nobody_answers_wakes_who_waits_for_it() {
    let mut world = World::new(1);
    let shared = Shared::<Stuck>::new(parts(&mut world));
    World::aside(shared.clone().keep());
    world.script("waiter", async move {
        let Arrived { id, mailbox, .. } =
            shared.arrive(&"test".into(), None).unwrap_or_else(|refusal| panic!("{refusal}"));
        shared.await_keys(id);
        let issuer = lock(&shared.hub).keys.issuers().next().expect("an issuer");
        let Unknown::Fetching(awaited) = shared.with_hub(|hub, now| hub.keys.handle_unknown_key(issuer, now)) else {
            panic!("the first keys are being fetched")
        };
        while !mailbox.take().iter().any(|mail| matches!(mail, Mail::KeysFetched)) {
            sleep(Duration::from_secs(1)).await;
        }
        assert!(shared.with_hub(|hub, _| hub.keys.has_ended(awaited)));
        assert!(lock(&shared.awaiting_keys).is_empty());
        shared.depart(id, &mailbox);
    });
    world.run();
}

#[test]
fn who_has_gone_waits_for_no_keys() {
    let mut world = World::new(2);
    let shared = Shared::<Stuck>::new(parts(&mut world));
    let Arrived { id, mailbox, .. } = shared.arrive(&"test".into(), None).unwrap_or_else(|refusal| panic!("{refusal}"));
    shared.await_keys(id);
    shared.await_keys(id);
    assert_eq!(lock(&shared.awaiting_keys).len(), 1);
    shared.depart(id, &mailbox);
    assert!(lock(&shared.awaiting_keys).is_empty());
}

#[test]
fn derivations_wait_for_each_other_and_not_for_who_has_left() {
    let mut world = World::new(3);
    let shared = Shared::<Stuck>::new(parts(&mut world));
    let derive = || {
        let password = Arc::new(crate::secret::Secret::new(b"guess".to_vec()));
        Box::pin(shared.derive(Derivation::new(&password, b"salt", std::num::NonZeroU32::MIN)))
    };
    let mut all: Vec<_> = (0..DERIVATIONS + 3).map(|_| derive()).collect();
    for job in &mut all {
        assert!(job.as_mut().poll(&mut std::task::Context::from_waker(Waker::noop())).is_pending());
    }
    assert_eq!(shared.derivations.waiting(), 3, "as many as may have begun");
    all.pop();
    assert_eq!(shared.derivations.waiting(), 2);
    // One that has begun goes, and its work with it: the next one's turn has come.
    drop(all.remove(0));
    assert_eq!(shared.derivations.waiting(), 1);
}
