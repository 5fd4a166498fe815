//! Nobody learns who exists: not from what is asked, not from what is told, and not from the work that it takes.

use super::*;

#[test]
fn who_does_not_exist_sees_what_a_wrong_password_sees() {
    for auth_type in [AuthType::Plain, AuthType::Md5, AuthType::ScramSha256] {
        let gate = gate(auth_type);
        let user = if auth_type == AuthType::ScramSha256 { "scram" } else { "plain" };
        let mut known = try_as(&gate, user, "wrong");
        let mut unknown = try_as(&gate, "nobody", "wrong");
        let refusals = [&known.1, &unknown.1].map(|end| end.as_ref().err().unwrap().clone());
        assert_eq!(refusals[0].code, SqlState::INVALID_PASSWORD);
        assert_eq!(refusals[0].message, format!("password authentication failed for user \"{user}\""));
        assert_eq!(refusals[1].message, "password authentication failed for user \"nobody\"");
        assert_eq!(refusals[0].hint, refusals[1].hint);
        if let [Some(known), Some(unknown)] = [known.0.get_mut(1), unknown.0.get_mut(1)] {
            // The salts are two persons', the rounds are the list's.
            assert_eq!(known.rsplit(',').next(), unknown.rsplit(',').next());
            assert_eq!(known.len(), unknown.len());
            assert_ne!(known, unknown);
            known.clone_from(unknown);
        }
        assert_eq!(known.0, unknown.0, "{auth_type:?}");
        assert_eq!(try_as(&gate, "nobody", "x").0, unknown.0, "and sees it again: {auth_type:?}");
    }
}

#[test]
fn who_was_looked_up_and_is_not_there_is_asked_as_those_who_are() {
    for auth_type in [AuthType::Plain, AuthType::Md5, AuthType::ScramSha256] {
        for typical in [verifier(PASSWORD), StoredSecret::Md5(Arc::new(md5::stored(b"one", PASSWORD.as_bytes())))] {
            let gate = Arc::new(Gate::listed(auth_type, UserList::default(), &mut Dice::new(1)));
            let mut known = try_found(&gate, "one", Some(typical), "wrong");
            // Without a password in the database, and without a row there.
            let empty = try_found(&gate, "two", Some(StoredSecret::parse(b"")), "wrong");
            assert_eq!(try_found(&gate, "two", None, "wrong"), empty, "{auth_type:?}");
            assert!(!known.1 && !empty.1);
            assert_eq!(known.0.len(), empty.0.len(), "{auth_type:?}");
            if let (Some(known), Some(unknown)) = (known.0.get_mut(1), empty.0.get(1)) {
                assert_eq!(known.rsplit(',').next(), unknown.rsplit(',').next(), "the same rounds");
                known.clone_from(unknown);
            }
            assert_eq!(known.0, empty.0, "{auth_type:?}");
        }
    }
}

fn md5_of(user: &str) -> StoredSecret {
    StoredSecret::Md5(Arc::new(md5::stored(user.as_bytes(), PASSWORD.as_bytes())))
}

/// The rounds that it takes to refuse a wrong password.
fn cost(begun: (Passage, Step), user: &str) -> u32 {
    let ((_, end), rounds) = counted(begun, user, "wrong");
    assert_eq!(end.err().unwrap().code, SqlState::INVALID_PASSWORD, "{user}");
    rounds
}

#[test]
fn a_wrong_password_costs_the_same_for_everybody_and_for_nobody() {
    let plain = || StoredSecret::parse(PASSWORD.as_bytes());
    let kinds = [("plain", plain()), ("hash", md5_of("hash")), ("scram", verifier(PASSWORD))];
    for auth_type in [AuthType::Plain, AuthType::Md5, AuthType::ScramSha256] {
        // Every choice of users.
        for chosen in 0..8 {
            let here: Vec<_> = (0..3).filter(|at| chosen >> at & 1 == 1).map(|at| kinds[at].clone()).collect();
            let names: Vec<_> = here.iter().map(|(name, _)| *name).chain(["empty", "nobody", "no one"]).collect();
            let users = UserList::new(here.into_iter().chain([("empty", StoredSecret::parse(b""))]));
            let gate = Arc::new(Gate::listed(auth_type, users, &mut Dice::new(3)));
            // The first time, the second, and behind a login that made a verifier.
            let mut costs = Vec::new();
            for _ in 0..3 {
                let visit = |user: &&str| cost(Passage::new(gate.clone(), (*user).into(), [9; NONCE_LEN]), user);
                costs.extend(names.iter().map(visit));
                let _ = is_in(&gate, "plain", PASSWORD);
            }
            assert!(costs.iter().all(|one| *one == costs[0]), "{auth_type:?} {names:?}: {costs:?}");
        }
    }
}

#[test]
fn a_wrong_password_of_somebody_who_was_looked_up_costs_what_nobodys_does() {
    let plain = || StoredSecret::parse(PASSWORD.as_bytes());
    for auth_type in [AuthType::Plain, AuthType::Md5, AuthType::ScramSha256] {
        for order in [[0, 1, 2], [1, 2, 0], [2, 0, 1]] {
            let gate = Arc::new(Gate::listed(auth_type, UserList::default(), &mut Dice::new(1)));
            let kept = [plain(), md5_of("x"), verifier(PASSWORD)];
            let mut derived = Vec::new();
            for at in order {
                for secret in [None, Some(kept[at].clone()), Some(StoredSecret::parse(b""))] {
                    derived.push(cost(found(&gate, "x", secret), "x") > 0);
                }
            }
            let expected = auth_type != AuthType::Md5;
            assert!(derived.iter().all(|one| *one == expected), "{auth_type:?} {order:?}: {derived:?}");
        }
    }
}

#[test]
fn a_list_of_verifiers_lets_nobody_make_it_work() {
    let users = UserList::new([("scram", verifier(PASSWORD))]);
    let gate = Arc::new(Gate::listed(AuthType::ScramSha256, users, &mut Dice::new(3)));
    for user in ["scram", "nobody"] {
        assert_eq!(cost(Passage::new(gate.clone(), user.into(), [9; NONCE_LEN]), user), 0);
    }
}

/// The first verifier that is looked up changes the rounds for whoever comes behind it, and for nobody else.
#[test]
fn what_others_learn_meanwhile_does_not_change_an_open_question() {
    let users = || UserList::new([("plain", StoredSecret::parse(PASSWORD.as_bytes()))]);
    for made_before in [false, true] {
        let gate = Arc::new(Gate::listed(AuthType::ScramSha256, users(), &mut Dice::new(3)));
        assert!(!made_before || is_in(&gate, "plain", PASSWORD));
        let mut client = ScramSha256::new(PASSWORD.as_bytes(), ChannelBinding::unsupported());
        let (mut passage, _) = Passage::new(gate.clone(), "plain".into(), [9; NONCE_LEN]);
        let step = passage.handle_answer(&initial(client.message())).unwrap();
        let Step::Ask(Question::SaslContinue(challenge)) = step else { panic!("it is asked") };
        assert!(challenge.ends_with(b",i=4096"));

        assert!(try_found(&gate, "found", Some(verifier(PASSWORD)), PASSWORD).1);
        // Another client of the same user is asked as all the others are now, and its verifier is made.
        let (seen, end) = try_as(&gate, "plain", PASSWORD);
        assert!(seen[1].ends_with(&format!(",i={ROUNDS}")) && end.is_ok(), "{seen:?}");

        client.update(&challenge).unwrap();
        let admission = match passage.handle_answer(&answer(client.message())).unwrap() {
            Step::Derive(derivation) => {
                assert_eq!(derivation.iterations(), 4096);
                passage.handle_derived(derivation.run()).unwrap()
            }
            step => step,
        };
        assert!(matches!(admission, Step::Admitted(_)), "made before: {made_before}");
    }
}

/// What somebody is asked who is not let in: the second question of SCRAM has the salt and the rounds.
fn asked_of(begun: (Passage, Step), user: &str) -> Vec<String> {
    go(begun, user, "wrong").0
}

#[test]
fn where_nobody_can_be_looked_up_the_salt_does_not_tell_who_is_found_elsewhere() {
    let users = UserList::new([("plain", StoredSecret::parse(PASSWORD.as_bytes()))]);
    let gate = Arc::new(Gate::listed(AuthType::ScramSha256, users, &mut Dice::new(3)));
    let nowhere = |user: &str, place: &str| {
        asked_of(Passage::of_nowhere(gate.clone(), user.into(), place.into(), [3; NONCE_LEN]), user)
    };
    for secret in [Some(verifier(PASSWORD)), Some(StoredSecret::parse(PASSWORD.as_bytes())), None] {
        let here = asked_of(found(&gate, "x", secret), "x");
        assert!(here != nowhere("x", "no such database") && here != nowhere("x", "nor this one"));
    }
    assert_ne!(nowhere("x", "no such database"), nowhere("x", "nor this one"));
    assert_eq!(nowhere("x", "no such database"), nowhere("x", "no such database"), "and sees it again");
    assert_ne!(nowhere("x", "no such database"), nowhere("y", "no such database"));
    assert!(!is_in(&gate, "x", PASSWORD));
}

#[cfg(feature = "driver")]
#[test]
fn other_settings_do_not_change_how_strangers_are_asked() {
    for auth_type in [AuthType::Md5, AuthType::ScramSha256] {
        let gate = || Arc::new(Gate::listed(auth_type, UserList::default(), &mut Dice::new(1)));
        let before = gate();
        assert!(try_found(&before, "one", Some(verifier(PASSWORD)), PASSWORD).1);
        let seen = asked_of(found(&before, "two", None), "two");
        let after = gate();
        after.follow(&before);
        assert_eq!(asked_of(found(&after, "two", None), "two"), seen, "{auth_type:?}");
        assert_ne!(asked_of(found(&gate(), "two", None), "two"), seen, "a gate of its own knows nothing");
    }
}
