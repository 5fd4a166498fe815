use super::super::key::NUMBERS;
use super::super::{BackendTarget, CancelKey};
use super::*;
use crate::policy::{Endpoint, SslMode};
use crate::pool::SlotId;
use crate::secret::Secret;
use crate::session_id::SessionId;
use crate::testing::dice::Dice;
use crate::time::Now;

const ALICE: SessionId = SessionId(1);

fn peer(number: u16) -> PeerId {
    PeerId::new(number).unwrap()
}

fn settings(name: &str, pool_size: u32) -> Arc<PeerSettings> {
    let endpoint = Endpoint::Tcp { host: name.into(), port: 6432 };
    Arc::new(PeerSettings { endpoint, sslmode: SslMode::Disable, sslrootcert: None, pool_size })
}

/// A process with this number that believes of others what is listed.
fn process(own: u16, others: &[(u16, &str)]) -> Registry {
    let mut registry = Registry::of_peer(PeerId::new(own));
    registry.set_peers(Arc::new(others.iter().map(|(id, name)| (peer(*id), settings(name, 3))).collect()));
    registry
}

fn ask(registry: &mut Registry, pid: u32, key: &[u8]) -> Decision {
    registry.handle_request(pid, key, Now::default())
}

fn passed(decision: Decision) -> PeerOrder {
    match decision {
        Decision::PassOn(order) => order,
        other => panic!("not passed on: {other:?}"),
    }
}

fn enroll(registry: &mut Registry, wide: bool) -> CancelKey {
    registry.enroll(ALICE, wide, &mut Dice::new(7))
}

fn flipped(key: &[u8], bit: usize) -> Vec<u8> {
    let mut other = key.to_vec();
    other[bit / 8] ^= 1 << (7 - bit % 8);
    other
}

#[test]
fn a_key_finds_its_way_from_any_peer_to_the_one_that_made_it() {
    for (wide, own) in [(false, 1), (true, 2), (false, PeerId::MAX)] {
        let mut owner = process(own, &[(9, "nine")]);
        let mut other = process(9, &[(own, "owner"), (9, "itself")]);
        let key = enroll(&mut owner, wide);
        assert!(i32::try_from(key.pid()).is_ok_and(|pid| pid > 0), "{}", key.pid());
        assert_eq!(key.key().len(), if wide { 32 } else { 4 });
        let order = passed(ask(&mut other, key.pid(), key.key()));
        assert_eq!((order.peer, order.settings.endpoint.to_string()), (peer(own), "owner:6432".to_owned()));
        assert_eq!(order.key.pid, key.pid());
        assert_ne!(order.key.key.expose().as_slice(), key.key(), "a hop less");
        let arrived = ask(&mut owner, order.key.pid, order.key.key.expose());
        assert!(matches!(arrived, Decision::NotLeased(ALICE)), "{arrived:?}");
        other.handle_peer_finished(order.peer, order.id);
        assert_eq!((other.passed_on(), owner.passed_on()), (0, 0));
    }
}

#[test]
fn every_bit_but_the_hops_is_part_of_the_secret() {
    for wide in [false, true] {
        let mut owner = process(1, &[]);
        let key = enroll(&mut owner, wide);
        let bits = key.key().len() * 8;
        for bit in 0..bits {
            let answer = ask(&mut owner, key.pid(), &flipped(key.key(), bit));
            assert_eq!(matches!(answer, Decision::NotLeased(ALICE)), bit >= bits - 2, "bit {bit}");
        }
        for wrong in [&[][..], &key.key()[..3], &[key.key(), &[3]].concat(), &[0xff; 256]] {
            assert!(matches!(ask(&mut owner, key.pid(), wrong), Decision::Unknown));
        }
        for pid in [0, key.pid() ^ 1, key.pid() | 0x8000_0000, u32::MAX] {
            assert!(matches!(ask(&mut owner, pid, key.key()), Decision::Unknown));
        }
    }
}

#[test]
fn a_circle_of_wrong_addresses_ends() {
    // Each takes the other for the third, which made the key.
    let mut third = process(3, &[]);
    let key = enroll(&mut third, true);
    let (mut first, mut second) = (process(1, &[(3, "second")]), process(2, &[(3, "first")]));
    let (mut pid, mut bytes) = (key.pid(), key.key().to_vec());
    let mut hops = 0;
    loop {
        let at = if hops % 2 == 0 { &mut first } else { &mut second };
        match ask(at, pid, &bytes) {
            Decision::PassOn(order) => (pid, bytes) = (order.key.pid, order.key.key.expose().clone()),
            end => {
                assert!(matches!(end, Decision::Unknown), "{end:?}");
                break;
            }
        }
        hops += 1;
    }
    assert_eq!(hops, 3);
    // Wherever it has been, its owner knows it.
    assert!(matches!(ask(&mut third, pid, &bytes), Decision::NotLeased(ALICE)));
}

#[test]
fn what_nobody_can_have_made_goes_nowhere() {
    let mut here = process(1, &[(2, "two")]);
    let foreign = (2 << 17) | 5;
    assert!(matches!(ask(&mut here, foreign, &[1, 2, 3, 4]), Decision::Unknown), "no hop is left");
    for length in [0, 1, 3, 5, 31, 33, 256] {
        assert!(matches!(ask(&mut here, foreign, &vec![0xff; length]), Decision::Unknown), "{length} bytes");
    }
    for pid in [0, 5, 3 << 17, 0x8000_0000 | foreign, u32::MAX] {
        assert!(matches!(ask(&mut here, pid, &[0xff; 4]), Decision::Unknown), "{pid:#x}");
    }
    assert_eq!(here.passed_on(), 0);
    let shown = format!("{:?}", ask(&mut here, foreign, b"hush"));
    assert_eq!(shown, "Unknown");
    let shown = format!("{:?}", ask(&mut here, foreign, b"husk"));
    assert_eq!(shown, "PassOn(PeerOrder(1 for peer 2 at two:6432))");
}

#[test]
fn without_a_number_of_its_own_a_process_passes_nothing_on() {
    let mut here = Registry::new();
    here.set_peers(Arc::new([(peer(2), settings("two", 3))].into()));
    assert!(matches!(ask(&mut here, (2 << 17) | 5, &[0xff; 4]), Decision::Unknown));
    assert_eq!(here.peers().count(), 0);
    let key = enroll(&mut here, false);
    for bit in 0..32 {
        assert!(matches!(ask(&mut here, key.pid(), &flipped(key.key(), bit)), Decision::Unknown), "bit {bit}");
    }
}

#[test]
fn failures_of_a_peer_are_counted_until_it_is_reached_or_none_any_more() {
    let mut here = process(1, &[(2, "two"), (3, "three")]);
    assert_eq!([2, 2, 3, 2].map(|number| here.handle_peer_failed(peer(number))), [1, 2, 1, 3]);
    here.handle_peer_reached(peer(2));
    assert_eq!([2, 3].map(|number| here.handle_peer_failed(peer(number))), [1, 2]);
    here.set_peers(Arc::new([(peer(2), settings("two", 3))].into()));
    assert_eq!([2, 3].map(|number| here.handle_peer_failed(peer(number))), [2, 1]);
}

#[test]
fn what_is_on_its_way_to_a_peer_is_counted_bounded_and_no_burden_on_others() {
    let mut here = process(1, &[(1, "itself"), (2, "two"), (3, "three")]);
    let own = enroll(&mut here, false);
    let endpoint = Endpoint::Tcp { host: "db".into(), port: 5432 };
    let backend = BackendKey { pid: 4711, key: Arc::new(Secret::new(vec![7; 4])) };
    here.handle_lease(ALICE, Arc::new(BackendTarget { endpoint, tls: None, backend, slot: SlotId(1) }));
    let request = |here: &mut Registry, number: u32| ask(here, (number << 17) | 5, &[0xff; 4]);
    let orders = [(); 3].map(|()| passed(request(&mut here, 2)));
    assert!(matches!(request(&mut here, 2), Decision::PeerBusy { peer: id, failures: 1 } if id == peer(2)));
    let third = passed(request(&mut here, 3));
    assert!(matches!(ask(&mut here, own.pid(), own.key()), Decision::Forward(_)), "our own session's");

    here.handle_sent_to_peer(peer(2), orders[1].id);
    here.handle_sent_to_peer(peer(3), orders[0].id);
    let load = |here: &Registry| here.peers().map(|it| (it.id.number(), it.connecting, it.sent)).collect::<Vec<_>>();
    assert_eq!(load(&here), [(2, 2, 1), (3, 1, 0)]);
    // A reload takes the peer away; what is under way ends as it would have.
    here.set_peers(Arc::new([(peer(3), settings("elsewhere", 3))].into()));
    assert!(matches!(request(&mut here, 2), Decision::Unknown));
    assert_eq!(passed(request(&mut here, 3)).settings.endpoint.to_string(), "elsewhere:6432");
    for order in orders {
        here.handle_peer_finished(order.peer, order.id);
        here.handle_peer_finished(order.peer, order.id);
    }
    here.handle_peer_finished(third.peer, third.id);
    assert_eq!((here.passed_on(), load(&here)), (1, vec![(3, 1, 0)]));
}

#[test]
fn all_numbers_of_a_process_can_be_given_out_and_no_more() {
    let (mut here, mut dice) = (process(5, &[]), Dice::new(3));
    let mut pids = std::collections::BTreeSet::new();
    for session in 0..NUMBERS as u64 {
        let key = here.enroll(SessionId(session), false, &mut dice);
        assert_eq!((maker(key.pid()), pids.insert(key.pid())), (Some(peer(5)), true));
    }
    let late = SessionId(u64::MAX);
    let nothing = here.enroll(late, false, &mut dice);
    here.handle_waiting(late);
    assert!(matches!(ask(&mut here, nothing.pid(), nothing.key()), Decision::Unknown));
    assert!(here.handle_unlease(late));
    here.depart(late);
    assert_eq!(here.enrolled(), NUMBERS);
    // The place of one that has left is found, wherever it is.
    here.depart(SessionId(4711));
    let key = here.enroll(late, false, &mut dice);
    assert!(matches!(ask(&mut here, key.pid(), key.key()), Decision::NotLeased(id) if id == late));
    assert_eq!(here.enrolled(), NUMBERS);
}

fn any(bound: usize, dice: &mut Dice) -> usize {
    usize::try_from(dice.below(bound as u64)).unwrap()
}

/// Some processes, each of which may be wrong about where the others are.
struct Net {
    processes: Vec<Registry>,
    /// What each believes: by number, which of them that is.
    beliefs: Vec<BTreeMap<u16, usize>>,
}

impl Net {
    fn new(numbers: &[u16], dice: &mut Dice) -> Self {
        let beliefs: Vec<BTreeMap<u16, usize>> = numbers
            .iter()
            .map(|_| {
                let known = numbers.iter().enumerate().filter(|_| dice.percent(85)).collect::<Vec<_>>();
                let right = dice.percent(70);
                let place = |nth: usize, dice: &mut Dice| if right { nth } else { any(numbers.len(), dice) };
                known.into_iter().map(|(nth, number)| (*number, place(nth, dice))).collect()
            })
            .collect();
        let processes = numbers.iter().zip(&beliefs).map(|(own, beliefs)| {
            let names: Vec<_> = beliefs.iter().map(|(number, place)| (*number, place.to_string())).collect();
            process(*own, &names.iter().map(|(number, name)| (*number, name.as_str())).collect::<Vec<_>>())
        });
        Self { processes: processes.collect(), beliefs }
    }

    /// Carries a request to where it ends; how often it was passed on.
    fn carry(&mut self, mut at: usize, pid: u32, key: &[u8]) -> (Decision, usize) {
        let (mut key, mut path) = (key.to_vec(), Vec::new());
        let end = loop {
            match ask(&mut self.processes[at], pid, &key) {
                Decision::PassOn(order) => {
                    let Endpoint::Tcp { host, .. } = &order.settings.endpoint else { panic!("only TCP here") };
                    let next = host.parse().unwrap();
                    key.clone_from(order.key.key.expose());
                    path.push((at, order));
                    at = next;
                }
                end => break end,
            }
        };
        let hops = path.len();
        for (at, order) in path.into_iter().rev() {
            self.processes[at].handle_peer_finished(order.peer, order.id);
        }
        (end, hops)
    }
}

#[test]
fn law_among_peers_a_key_reaches_its_own_session_or_nothing_and_always_ends() {
    let mut reached = 0;
    for seed in 0..300 {
        let mut dice = Dice::new(seed);
        let numbers = [3, 1, PeerId::MAX, 900];
        let mut net = Net::new(&numbers, &mut dice);
        let mut keys = Vec::new();
        for (nth, registry) in net.processes.iter_mut().enumerate() {
            for session in 0..3 {
                let session = SessionId((nth * 10 + session) as u64);
                keys.push((nth, session, registry.enroll(session, dice.percent(50), &mut dice)));
            }
        }
        for _ in 0..40 {
            let (owner, session, key) = &keys[any(keys.len(), &mut dice)];
            let (at, mut pid, mut bytes) = (any(numbers.len(), &mut dice), key.pid(), key.key().to_vec());
            let is_wrong = dice.percent(40);
            if is_wrong && dice.percent(30) {
                pid ^= 1 << dice.below(32);
            } else if is_wrong {
                bytes = flipped(&bytes, any(bytes.len() * 8 - 2, &mut dice));
            }
            let (end, hops) = net.carry(at, pid, &bytes);
            assert!(hops <= 3, "{hops} hops");
            let knows = at == *owner || net.beliefs[at].get(&numbers[*owner]) == Some(owner);
            match end {
                Decision::NotLeased(hit) => {
                    assert_eq!((hit, is_wrong), (*session, false), "seed {seed}");
                    reached += 1;
                }
                Decision::Unknown => assert!(is_wrong || !knows, "seed {seed}: a right key was lost"),
                other => panic!("{other:?}"),
            }
        }
        assert!(net.processes.iter().all(|it| it.passed_on() == 0));
    }
    assert!(reached > 2000, "{reached} requests have reached their sessions");
}
