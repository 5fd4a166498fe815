//! What every command says of itself: help with examples, completions, a manual.
#![cfg(feature = "login")]

use std::process::Command;

const COMMANDS: [&str; 12] =
    ["start", "check", "login", "status", "logout", "token", "psql", "connect", "env", "service", "completions", "man"];

fn gprxy(args: &[&str]) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_gprxy")).args(args).env_clear().output().expect("gprxy starts");
    assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("UTF-8")
}

#[test]
fn every_command_has_help_with_examples() {
    for command in COMMANDS {
        let help = gprxy(&[command, "--help"]);
        assert!(help.contains("Examples:\n  ") && help.contains(&format!("gprxy {command}")), "{command}: {help}");
    }
    assert!(gprxy(&["whoami", "--help"]).contains("gprxy status"));
}

#[test]
fn completions_and_manual_know_every_command() {
    for shell in ["bash", "zsh", "fish", "powershell", "elvish"] {
        let script = gprxy(&["completions", shell]);
        for command in COMMANDS {
            assert!(script.contains(command), "{shell}: {command}");
        }
    }
    let dir = tempfile::tempdir().unwrap();
    gprxy(&["man", "--dir", dir.path().to_str().unwrap()]);
    for command in COMMANDS {
        let page = std::fs::read_to_string(dir.path().join(format!("gprxy-{command}.1"))).expect(command);
        assert!(page.contains(".SH NAME") && page.contains("Examples"), "{command}");
    }
    assert!(gprxy(&["man"]).starts_with(".ie"));
}
