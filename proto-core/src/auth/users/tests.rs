use super::*;

const VERIFIER: &str = "SCRAM-SHA-256$4096:W22ZaJ0SNY7soEsUEjb6gQ==$WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY=:wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU=";

fn kinds(list: &UserList) -> Vec<(&str, &'static str)> {
    let kind = |user: &User| match &user.secret {
        StoredSecret::Plain(_) => "plain",
        StoredSecret::Md5(_) => "md5",
        StoredSecret::Scram(_) => "scram",
    };
    list.users.iter().map(|(name, user)| (&**name, kind(user))).collect()
}

fn plain<'a>(list: &'a UserList, name: &str) -> &'a [u8] {
    match &list.find(name).unwrap().secret {
        StoredSecret::Plain(password) => password.expose(),
        _ => panic!("not plain"),
    }
}

fn problems(text: &[u8]) -> Vec<String> {
    UserList::parse(text).err().unwrap().iter().map(UserListProblem::to_string).collect()
}

#[test]
fn reads_what_pgbouncer_reads() {
    let text = format!(
        "\u{feff}; users\n\n  \"ann\" \"pencil\" ignored \"also\"\r\n\"bob\"\t\"md5{}\"\n\"eve\" \"{VERIFIER}\"\n;\"not\" \"one\"\n\
         \"qu\"\"ote\" \"a\"\"b\"\n\"none\" \"\"\n\"ann\" \"the last one counts\"",
        "0123456789abcdefABCDEF0123456789"
    );
    let list = UserList::parse(text.as_bytes()).unwrap();
    let expected = [("ann", "plain"), ("bob", "md5"), ("eve", "scram"), ("none", "plain"), ("qu\"ote", "plain")];
    assert_eq!(kinds(&list), expected);
    assert_eq!(plain(&list, "ann"), b"the last one counts");
    assert_eq!(plain(&list, "qu\"ote"), b"a\"b");
    let accounts = ["ann", "bob", "none"].map(|name| list.find(name).unwrap().account.password.is_some());
    assert_eq!(accounts, [true, false, false]);
    assert_eq!(list.len(), 5);
    assert!(list.find("Ann").is_none() && list.find("not").is_none());
    assert!(UserList::parse(b"").unwrap().is_empty() && UserList::parse(b" \n\t;x").unwrap().is_empty());
}

#[test]
fn passwords_are_bytes_and_look_alikes_of_hashes_are_passwords() {
    let list =
        UserList::parse(b"\"a\" \"\xff\xfe\"\n\"b\" \"md5short\"\n\"c\" \"SCRAM-SHA-256$0:AAAA$AA:AA\"").unwrap();
    assert_eq!(plain(&list, "a"), b"\xff\xfe");
    assert_eq!(kinds(&list), [("a", "plain"), ("b", "plain"), ("c", "plain")]);
}

#[test]
fn every_mistake_is_told_with_its_line_and_without_its_secret() {
    let text = b"\"ann\" \"ok\"\n\nbob \"hunter2\"\n\"eve\" hunter2\n\"tom\" \"hunter2\n\"\" \"x\"\n\"tim\n\"\xff\" \"x\"\n\"z\" \"a\0b\"\n\"fine\" \"x\"";
    let told = problems(text);
    let lines: Vec<&str> = told.iter().map(|problem| problem.split(':').next().unwrap()).collect();
    assert_eq!(lines, ["line 3", "line 4", "line 5", "line 6", "line 7", "line 8", "line 9"], "{told:?}");
    assert!(told.iter().all(|problem| !problem.contains("hunter2")));
    let long = |name: usize, secret: usize| format!("\"{}\" \"{}\"", "n".repeat(name), "s".repeat(secret));
    assert!(UserList::parse(long(127, 65_535).as_bytes()).is_ok());
    assert!(problems(long(128, 1).as_bytes())[0].contains("127"));
    assert!(problems(long(1, 65_536).as_bytes())[0].contains("65,535"));
    assert_eq!(problems(&b"x\n".repeat(1000)).len(), MAX_PROBLEMS);
}

#[test]
fn cutting_a_list_anywhere_never_invents_a_user() {
    let text = format!("\"ann\" \"p\"\"w\"\n\"eve\" \"{VERIFIER}\"\n; end");
    for end in 0..=text.len() {
        if let Ok(list) = UserList::parse(&text.as_bytes()[..end]) {
            assert!(kinds(&list).iter().all(|user| [("ann", "plain"), ("eve", "scram")].contains(user)), "{end}");
            // `"p"` is whole where `"p""w"` was meant: that is the format's, as in PgBouncer.
            assert!(list.find("ann").is_none_or(|_| [&b"p"[..], b"p\"w"].contains(&plain(&list, "ann"))));
        }
    }
}
