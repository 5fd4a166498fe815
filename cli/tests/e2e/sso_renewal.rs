//! Tokens that are kept: renewed once, never lost, never shown to others.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use serde_json::Value;

use crate::sso::own_provider;
use crate::support::desk::Desk;
use crate::support::eventually;
use crate::support::provider::Provider;
use crate::support::reaper::write_private;

#[test]
fn a_token_is_printed_alone_and_renewed_when_it_is_due() {
    let desk = Desk::new(Provider::shared());
    assert_eq!(desk.run(&["token"]).code, 1, "not logged in");
    desk.log_in("alice");
    let kept = desk.credentials();
    let ran = desk.run(&["token"]);
    assert_eq!(ran.out, format!("{}\n", kept["access_token"].as_str().unwrap()));
    assert_eq!(ran.err, "");
    desk.expire();
    let renewed = desk.run(&["token"]).ok();
    let new = desk.credentials();
    assert_eq!(new["access_token"], renewed.as_str());
    assert_ne!(new["access_token"], kept["access_token"]);
    assert_ne!(new["refresh_token"], kept["refresh_token"], "the provider rotates");
    assert_eq!(new["user_info"], kept["user_info"]);
}

#[test]
fn two_shells_that_renew_at_once_share_one_rotated_refresh_token() {
    let provider = own_provider();
    let desk = Desk::new(provider);
    desk.log_in("alice");
    desk.expire();
    let asked = provider.token_requests();
    provider.set_token_answer("hold");
    let first = desk.start(&["token"]);
    eventually("the first renewal", || (provider.token_requests() > asked).then_some(()));
    let second = desk.start(&["token"]);
    second.await_open(&desk.home.join(".gprxy/.credentials.lock"));
    provider.set_token_answer("well");
    let (first, second) = (first.end(), second.end());
    assert_eq!((first.code, second.code), (0, 0), "{}{}", first.err, second.err);
    assert_eq!(first.out, second.out);
    assert_eq!(provider.token_requests(), asked + 1, "one refresh token was used once");
    // Nobody looked like a thief: the login goes on.
    desk.expire();
    assert_eq!(desk.run(&["token"]).code, 0);
}

#[test]
fn a_replayed_refresh_token_ends_the_login_with_advice() {
    let desk = Desk::new(own_provider());
    desk.log_in("alice");
    let used = desk.credentials()["refresh_token"].clone();
    desk.expire();
    desk.run(&["token"]).ok();
    desk.set_credential("refresh_token", used);
    desk.expire();
    let ran = desk.run(&["token"]);
    assert_eq!((ran.code, ran.out.as_str()), (1, ""));
    assert!(ran.err.contains("your login has ended") && ran.err.contains("gprxy login"), "{}", ran.err);
    let status = desk.run(&["status"]);
    assert_eq!(status.code, 1);
    assert!(status.out.contains("does not work: your login has ended"), "{}", status.out);
}

#[test]
fn never_again_17_a_renewal_without_a_refresh_token_keeps_the_old_one() {
    let provider = own_provider();
    let desk = Desk::new(provider);
    desk.log_in("alice");
    let kept = desk.credentials();
    desk.expire();
    provider.set_token_answer("bare");
    desk.run(&["token"]).ok();
    let new = desk.credentials();
    assert_eq!(new["refresh_token"], kept["refresh_token"]);
    assert_ne!(new["access_token"], kept["access_token"]);
}

#[test]
fn a_provider_that_is_down_costs_nothing_while_the_token_counts() {
    let provider = own_provider();
    let desk = Desk::new(provider);
    desk.log_in("alice");
    let kept = desk.credentials();
    provider.set_token_answer("503");
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    desk.set_credential("issued_at", rfc_3339(now - 3555));
    desk.set_credential("expires_at", rfc_3339(now + 45));
    let ran = desk.run(&["token"]);
    assert_eq!(ran.out.trim_end(), kept["access_token"], "{}", ran.err);
    assert!(ran.err.contains("503") && ran.err.contains("s more"), "{}", ran.err);
    desk.expire();
    let ran = desk.run(&["token"]);
    assert_eq!((ran.code, ran.out.as_str()), (69, ""));
    assert_eq!(desk.run(&["status"]).code, 69);
    assert_eq!(desk.credentials()["refresh_token"], kept["refresh_token"]);
    provider.set_token_answer("well");
    assert_eq!(desk.run(&["token"]).code, 0);
}

fn rfc_3339(seconds: u64) -> String {
    let output =
        std::process::Command::new("date").args(["-u", "-d", &format!("@{seconds}"), "+%FT%TZ"]).output().unwrap();
    String::from_utf8(output.stdout).unwrap().trim_end().to_owned()
}

#[test]
fn ctrl_c_during_a_renewal_keeps_the_rotated_refresh_token() {
    let provider = own_provider();
    let desk = Desk::new(provider);
    desk.log_in("alice");
    let kept = desk.credentials();
    desk.expire();
    let asked = provider.token_requests();
    provider.set_token_answer("hold");
    let token = desk.start(&["token"]);
    eventually("the renewal", || (provider.token_requests() > asked).then_some(()));
    token.child.signal("INT");
    provider.set_token_answer("well");
    token.end();
    let new = desk.credentials();
    assert_ne!(new["refresh_token"], kept["refresh_token"], "what the provider gave is kept");
    assert_eq!(desk.files(), [".credentials.lock", "credentials"]);
    desk.expire();
    assert_eq!(desk.run(&["token"]).code, 0, "and it works");
}

#[test]
fn ctrl_c_while_another_process_is_waited_for_ends_at_once() {
    let desk = Desk::new(Provider::shared());
    desk.log_in("alice");
    desk.expire();
    let path = desk.home.join(".gprxy/.credentials.lock");
    let lock = fs::OpenOptions::new().write(true).open(&path).unwrap();
    lock.lock().unwrap();
    let token = desk.start(&["token"]);
    token.await_open(&path);
    token.child.signal("INT");
    assert_eq!(token.end().code, 130);
}

#[test]
fn credentials_that_others_can_read_are_refused() {
    let desk = Desk::new(Provider::shared());
    desk.log_in("alice");
    for mode in [0o644, 0o640, 0o660] {
        fs::set_permissions(desk.credentials_path(), fs::Permissions::from_mode(mode)).unwrap();
        let ran = desk.run(&["token"]);
        assert_eq!((ran.code, ran.out.as_str()), (1, ""), "{mode:o}");
        assert!(ran.err.contains("chmod 600"), "{}", ran.err);
    }
    // A new login puts it right.
    desk.log_in("alice");
    desk.run(&["token"]).ok();
    write_private(&desk.credentials_path(), "{\"access_token\": \"eyJ.hunter2");
    let ran = desk.run(&["token"]);
    assert_eq!(ran.code, 1);
    assert!(!ran.err.contains("hunter2"), "{}", ran.err);
    assert_eq!(desk.run(&["logout"]).code, 0);
    assert!(!desk.credentials_path().exists(), "a broken file goes away too");
}

#[test]
fn status_is_for_people_and_for_scripts() {
    let desk = Desk::new(Provider::shared());
    let ran = desk.run(&["whoami", "--json"]);
    assert_eq!(ran.code, 1);
    assert_eq!(serde_json::from_str::<Value>(&ran.out).unwrap()["logged_in"], false);
    desk.log_in("alice");
    let text = desk.run(&["status"]).ok();
    for words in ["alice@corp.example", "reader", &desk.provider.issuer, "counts for 59 minutes", ".gprxy/credentials"]
    {
        assert!(text.contains(words), "{words}: {text}");
    }
    let json: Value = serde_json::from_str(&desk.run(&["status", "--refresh", "--json"]).ok()).unwrap();
    assert_eq!(json["renewable"], true);
    assert_eq!(json["renewal_error"], Value::Null);
    let output = desk.run(&["status", "--json"]).out;
    let kept = desk.credentials();
    assert!(!output.contains(kept["access_token"].as_str().unwrap()));
}

#[test]
fn profiles_have_their_own_logins_and_are_not_bent_by_the_environment() {
    let desk = Desk::new(Provider::shared());
    desk.log_in("alice");
    let other = own_provider();
    let config = format!(
        "[profile.work]\nissuer = \"{}\"\nclient_id = \"gprxy-cli\"\nprompt = \"consent\"\nresource = \"urn:gprxy:rs256\"\n\
         scopes = [\"openid\", \"offline_access\"]\ncallback_url = \"http://127.0.0.1:0/callback\"\n",
        other.issuer
    );
    fs::write(desk.home.join(".gprxy/config.toml"), config).unwrap();
    let login = desk.start(&["login", "--profile", "work"]);
    let url = login.opened();
    assert!(url.starts_with(&other.issuer), "{url}");
    let callback = crate::support::sign_in::Browser::new(&other.issuer, "bob").walk(url);
    crate::support::desk::visit(&callback);
    assert_eq!(login.end().code, 0);
    assert!(desk.run(&["status"]).ok().contains("alice"));
    assert!(desk.run(&["status", "--profile", "work"]).ok().contains("bob"));
    let environment = desk.with("GPRXY_PROFILE", "work");
    assert!(environment.run(&["status"]).ok().contains("bob"));
    assert_eq!(environment.run(&["status", "--profile", "none"]).code, 78);
    assert_eq!(environment.run(&["logout"]).code, 0);
    assert!(environment.credentials_path().exists(), "the other login stays");
    let elsewhere = environment.with("GPRXY_PROFILE", "default").with("GPRXY_ISSUER", &other.issuer);
    let ran = elsewhere.run(&["token"]);
    assert_eq!((ran.code, ran.out.as_str()), (1, ""), "tokens of one provider are not those of another");
}

#[test]
fn tokens_can_be_kept_in_the_systems_keyring() {
    let desk = Desk::new(Provider::shared());
    let kept = desk.home.join("keyring");
    let script = format!(
        "#!/bin/sh\ncase $1 in\nstore) cat >{0} ;;\nlookup) cat {0} 2>/dev/null || exit 1 ;;\nclear) rm -f {0} ;;\nesac\n",
        kept.display()
    );
    let bin = desk.home.join("bin");
    fs::create_dir(&bin).unwrap();
    fs::write(bin.join("secret-tool"), script).unwrap();
    fs::set_permissions(bin.join("secret-tool"), fs::Permissions::from_mode(0o755)).unwrap();
    let with_keyring = |args: &[&str]| {
        let mut command = desk.command(args);
        command.env("PATH", format!("{}:/usr/bin:/bin", bin.display()));
        crate::support::psql::finish(command)
    };
    desk.log_in("alice");
    let token = desk.run(&["token"]).ok();
    let ran = desk.run(&["login", "--force", "--store", "keyring"]);
    assert_eq!(ran.code, 127, "known before anybody logs in: {}", ran.err);
    let mut command = desk.command(&["login", "--force", "--store", "keyring"]);
    command.env("PATH", format!("{}:/usr/bin:/bin", bin.display()));
    let login = desk.spawn(command);
    desk.browse(login.opened(), "alice");
    assert_eq!(login.end().code, 0);
    let file = fs::read_to_string(desk.credentials_path()).unwrap();
    assert!(!file.contains("eyJ") && file.contains("keyring"), "{file}");
    assert_ne!(with_keyring(&["token"]).ok(), token);
    assert!(with_keyring(&["status"]).ok().contains("the system's keyring"));
    assert_eq!(with_keyring(&["logout"]).code, 0);
    assert!(!kept.exists() && !desk.credentials_path().exists());
}
