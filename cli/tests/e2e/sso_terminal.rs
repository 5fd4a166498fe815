//! What a person sees in a terminal, and how it is left: also when they press Ctrl-C.

use std::io::Write;
use std::net::{TcpListener, TcpStream};
use std::process::Stdio;
use std::sync::mpsc;

use crate::sso::own_provider;
use crate::support::bad_idp::serve;
use crate::support::desk::Desk;
use crate::support::fixtures::{DATABASE, READER};
use crate::support::gprxy::Config;
use crate::support::postgres::Version;
use crate::support::provider::Provider;
use crate::support::sign_in::Browser;
use crate::support::terminal::{CTRL_C, CTRL_D, Left, Terminal};
use crate::support::tls::pki;
use crate::support::{deps, eventually};

#[test]
fn a_spinner_turns_while_the_browser_is_waited_for_and_leaves_nothing() {
    let desk = Desk::new(Provider::shared());
    // As wide as the text that is waited with would like to be, less some.
    let terminal = Terminal::open(&desk, 40, &["login"]);
    terminal.await_screen("two frames of a spinner", |screen| screen.frames >= 2);
    let screen = terminal.await_text("waiting for you in the browser");
    assert!(!screen.contains("Ctrl-C gives up"), "the line is cut, not wrapped:\n{screen}");
    let url = eventually("the browser", || std::fs::read_to_string(desk.home.join("opened")).ok());
    desk.browse(url, "alice");
    let left = terminal.end();
    assert_eq!(left.code, 0);
    left.assert_whole();
    let text = left.screen.text();
    assert!(text.contains("✓ Logged in as alice@corp.example"), "{text}");
    assert!(!text.contains("waiting") && !text.contains("asking"), "{text}");
}

#[test]
fn a_terminal_that_cannot_move_its_cursor_gets_plain_lines() {
    let desk = Desk::new(Provider::shared()).with("TERM", "dumb");
    let mut terminal = Terminal::open(&desk, 80, &["login"]);
    terminal.await_text("state=");
    let url = eventually("the browser", || std::fs::read_to_string(desk.home.join("opened")).ok());
    assert!(url.contains("state="));
    terminal.press(CTRL_C);
    let left = terminal.end();
    assert_eq!(left.code, 130);
    assert_eq!(left.screen.frames, 0);
    left.assert_whole();
}

#[test]
fn a_phone_can_read_the_code_of_a_login_by_device() {
    let desk = Desk::new(Provider::shared()).without("BROWSER").with("SSH_CONNECTION", "a b c d");
    let mut terminal = Terminal::open(&desk, 100, &["login"]);
    let screen = terminal.await_text("waiting for the code to be entered");
    let lines: Vec<&str> = screen.lines().collect();
    let after = |words: &str| {
        let at = lines.iter().position(|line| line.contains(words)).unwrap_or_else(|| panic!("{words}: {screen}"));
        lines[at + 2]
    };
    let (page, code) = (after("open this page"), after("enter the code"));
    let is_drawn = |line: &&&str| line.chars().any(|c| "▀▄█".contains(c));
    let picture: Vec<String> = lines.iter().filter(is_drawn).map(|line| format!("{line:<100}")).collect();
    let mut camera = deps::node("clients/qr.mjs");
    let mut camera = camera.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    camera.stdin.take().unwrap().write_all(picture.join("\n").as_bytes()).unwrap();
    let read = String::from_utf8(camera.wait_with_output().unwrap().stdout).unwrap();
    assert_eq!(read.trim_end(), format!("{page}?user_code={code}"), "{screen}");
    terminal.press(CTRL_C);
    assert_given_up(&terminal.end(), &desk);
}

#[test]
fn a_terminal_too_narrow_for_the_picture_gets_page_and_code() {
    let desk = Desk::new(Provider::shared());
    let mut terminal = Terminal::open(&desk, 32, &["login", "--device"]);
    let screen = terminal.await_text("waiting for the code");
    assert!(screen.contains("/device") && !screen.contains('▀'), "{screen}");
    terminal.press(CTRL_C);
    assert_given_up(&terminal.end(), &desk);
}

#[track_caller]
fn assert_given_up(left: &Left, desk: &Desk) {
    let text = left.screen.text();
    assert_eq!(left.code, 130, "{text}");
    left.assert_whole();
    assert!(text.ends_with("gprxy: interrupted\n") && !text.contains("^C"), "{text}");
    assert!(!text.contains("waiting") && !text.contains("asking"), "{text}");
    assert!(desk.files().iter().all(|file| file.ends_with(".lock")), "{:?}", desk.files());
}

/// A provider that takes a request and never answers; and a sign for each that it took.
fn silent() -> (String, mpsc::Receiver<()>) {
    let (tell, asked) = mpsc::channel();
    let (_never, answer) = mpsc::channel::<()>();
    let issuer = serve(move |_, _, _| {
        let _ = tell.send(());
        let _ = (&_never, answer.recv());
        (503, String::new())
    });
    (issuer, asked)
}

#[test]
fn ctrl_c_while_the_provider_is_asked_who_it_is() {
    let (issuer, asked) = silent();
    let desk = Desk::new(Provider::shared()).with("GPRXY_ISSUER", &issuer);
    let mut terminal = Terminal::open(&desk, 80, &["login"]);
    asked.recv().unwrap();
    terminal.press(CTRL_C);
    assert_given_up(&terminal.end(), &desk);
}

#[test]
fn ctrl_c_while_the_browser_is_waited_for() {
    let desk = Desk::new(Provider::shared());
    let mut terminal = Terminal::open(&desk, 80, &["login", "--no-browser"]);
    terminal.await_text("waiting for you");
    terminal.press(CTRL_C);
    assert_given_up(&terminal.end(), &desk);
}

#[test]
fn ctrl_c_while_a_code_is_changed_for_tokens() {
    let provider = own_provider();
    let desk = Desk::new(provider);
    let mut terminal = Terminal::open(&desk, 80, &["login"]);
    let url = eventually("the browser", || std::fs::read_to_string(desk.home.join("opened")).ok());
    let callback = Browser::new(&provider.issuer, "alice").walk(url);
    let (address, path) = callback.trim_start_matches("http://").split_once('/').unwrap();
    let asked = provider.token_requests();
    provider.set_token_answer("hold");
    let mut browser = TcpStream::connect(address).unwrap();
    write!(browser, "GET /{path} HTTP/1.1\r\nhost: {address}\r\n\r\n").unwrap();
    eventually("the request for tokens", || (provider.token_requests() > asked).then_some(()));
    terminal.await_text("asking the provider");
    terminal.press(CTRL_C);
    assert_given_up(&terminal.end(), &desk);
    provider.set_token_answer("well");
}

#[test]
fn ctrl_c_during_a_renewal_waits_for_the_rotated_token_and_keeps_it() {
    let provider = own_provider();
    let desk = Desk::new(provider);
    desk.log_in("alice");
    let kept = desk.credentials();
    desk.expire();
    let asked = provider.token_requests();
    provider.set_token_answer("hold");
    let mut terminal = Terminal::open(&desk, 80, &["psql", "-d", DATABASE]);
    eventually("the renewal", || (provider.token_requests() > asked).then_some(()));
    terminal.press(CTRL_C);
    terminal.await_text("^C");
    provider.set_token_answer("well");
    let left = terminal.end();
    assert_eq!(left.code, 130);
    left.assert_whole();
    assert_ne!(desk.credentials()["refresh_token"], kept["refresh_token"]);
    assert_eq!(desk.files(), [".credentials.lock", "credentials"]);
}

#[test]
fn ctrl_c_during_a_logout_leaves_the_login_as_it_is() {
    let desk = Desk::new(Provider::shared());
    desk.log_in("alice");
    let (issuer, asked) = silent();
    desk.set_credential("issuer", issuer);
    let kept = desk.credentials();
    let mut terminal = Terminal::open(&desk, 80, &["logout"]);
    asked.recv().unwrap();
    terminal.press(CTRL_C);
    let left = terminal.end();
    assert_eq!(left.code, 130);
    left.assert_whole();
    assert_eq!(desk.credentials(), kept);
}

#[test]
fn ctrl_c_while_a_silent_proxy_is_waited_for() {
    let silent = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let desk = Desk::new(Provider::shared())
        .with("PROXY_URL", &silent.local_addr().unwrap().to_string())
        .with("PROXY_CA", pki().ca.to_str().unwrap());
    desk.log_in("alice");
    let kept = desk.credentials();
    for args in [&["status", "-d", DATABASE], &["psql", "-d", DATABASE]] {
        let mut terminal = Terminal::open(&desk, 80, args);
        let (_held, _) = silent.accept().unwrap();
        terminal.press(CTRL_C);
        let left = terminal.end();
        assert_eq!(left.code, 130, "{args:?}: {}", left.screen.text());
        // psql itself ends without a new line.
        left.assert_restored();
        assert_eq!(desk.credentials(), kept);
    }
}

#[test]
fn psql_in_a_terminal_is_as_always() {
    let gprxy = Config::new(Version::V15).start();
    let desk = Desk::new(Provider::shared())
        .with("PROXY_URL", &format!("localhost:{}", gprxy.port()))
        .with("PROXY_CA", pki().ca.to_str().unwrap());
    desk.log_in("alice");
    let mut terminal = Terminal::open(&desk, 100, &["psql", "-X", "-d", DATABASE]);
    let prompt = format!("{DATABASE}=>");
    terminal.await_prompt(&prompt);
    terminal.press("select session_user || ' was here' as who;\r");
    terminal.await_text(&format!("{} was here", READER.0));
    terminal.await_prompt(&prompt);
    // Ctrl-C ends the statement, through the proxy, and not psql.
    terminal.press("select pg_sleep(600) as marker_of_a_nap;\r");
    gprxy.server().await_running("marker_of_a_nap");
    terminal.press(CTRL_C);
    terminal.await_text("canceling statement due to user request");
    terminal.await_prompt(&prompt);
    terminal.press("select 6 * 7 as answer;\r");
    terminal.await_text("42");
    terminal.await_prompt(&prompt);
    // And at the prompt a line that is half written.
    terminal.press("select half");
    terminal.await_text("select half");
    terminal.press(CTRL_C);
    terminal.await_prompt(&prompt);
    terminal.press("\\conninfo\r");
    terminal.await_text("SSL connection");
    terminal.await_prompt(&prompt);
    terminal.press(CTRL_D);
    let left = terminal.end();
    assert_eq!(left.code, 0, "{}", left.screen.text());
    left.assert_whole();
}
