//! The quickstart of `docs/cli.md`, line by line as it stands there.

use std::process::Stdio;

use crate::support::deps::repository;
use crate::support::desk::Desk;
use crate::support::fixtures::{DATABASE, READER};
use crate::support::gprxy::Config;
use crate::support::postgres::Version;
use crate::support::provider::Provider;
use crate::support::tls::pki;

/// The first block of shell lines behind the remark that names this file.
fn lines() -> Vec<String> {
    let page = std::fs::read_to_string(repository().join("docs/cli.md")).unwrap();
    let (_, rest) = page.split_once("<!-- cli/tests/e2e/sso_quickstart.rs").expect("the remark");
    let (_, rest) = rest.split_once("```sh\n").expect("a block");
    let (block, _) = rest.split_once("```").expect("its end");
    block.lines().map(str::to_owned).collect()
}

#[test]
fn five_commands_lead_from_nothing_to_a_query() {
    let lines = lines();
    assert_eq!(lines.len(), 5, "{lines:?}");
    let gprxy = Config::new(Version::V15).start();
    // Only the example names are exchanged for those of this machine.
    let script = lines
        .join(" &&\n")
        .replace("gprxy.example.com", &format!("localhost:{}", gprxy.target("alice").port))
        .replace("https://login.example.com", &Provider::shared().issuer)
        .replace("-d app", &format!("-d {DATABASE}"));
    let mut desk = Desk::new(Provider::shared()).with("PROXY_CA", pki().ca.to_str().unwrap());
    for name in ["GPRXY_ISSUER", "GPRXY_CLIENT_ID", "GPRXY_SCOPES", "GPRXY_RESOURCE", "GPRXY_PROMPT"] {
        desk = desk.without(name);
    }
    let programs = std::path::Path::new(env!("CARGO_BIN_EXE_gprxy")).parent().expect("a folder");
    let mut shell = desk.shell(&script);
    shell.env("PATH", format!("{}:/usr/lib/postgresql/15/bin:/usr/bin:/bin", programs.display()));
    shell.stdin(Stdio::null());
    let run = desk.spawn(shell);
    desk.browse(run.opened(), "alice");
    let ran = run.end();
    assert_eq!(ran.code, 0, "{}\n{}", ran.out, ran.err);
    assert!(ran.out.contains(&format!("lets you in to {DATABASE} as {}", READER.0)), "{}", ran.out);
    assert!(ran.out.contains("session_user") && ran.out.ends_with("(1 row)\n\n"), "{}", ran.out);
}
