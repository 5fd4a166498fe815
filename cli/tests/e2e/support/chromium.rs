//! A person with a real browser: Chromium, driven by `cli/tests/clients/browser.mjs`.

use std::io::Read;
use std::process::Stdio;

use serde_json::{Value, json};

use super::deps;
use super::reaper::{Leashed, fresh_path, run_dir};

/// What the person is going to do.
pub(crate) struct Visit(Value);

impl Visit {
    /// Opens this address as `person`; pictures of what they see go to `target/screenshots/NAME-*.png`.
    pub(crate) fn new(name: &str, url: &str, person: &str) -> Self {
        let shots = deps::repository().join("target/screenshots");
        Self(json!({ "name": name, "url": url, "person": person, "shots": shots }))
    }

    /// Types this password, where the provider cares.
    pub(crate) fn with_password(mut self, password: &str) -> Self {
        self.0["password"] = password.into();
        self
    }

    /// Gives up where the provider asks.
    pub(crate) fn refusing(mut self) -> Self {
        self.0["refuses"] = true.into();
        self
    }

    /// Tries the other doors of the callback's address first.
    pub(crate) fn trying_doors(mut self) -> Self {
        self.0["doors"] = true.into();
        self
    }

    /// Goes there; what was found on the last page.
    pub(crate) fn go(self) -> Seen {
        let log = fresh_path("browser.log");
        let mut command = deps::node("clients/browser.mjs");
        command.arg(self.0.to_string()).env("HOME", run_dir()).env("TMPDIR", run_dir());
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(std::fs::File::create(&log).unwrap());
        let mut child = Leashed::spawn(&mut command);
        let mut text = String::new();
        child.0.stdout.take().expect("piped").read_to_string(&mut text).unwrap();
        let page = serde_json::from_str(&text)
            .unwrap_or_else(|_| panic!("the browser: {}", std::fs::read_to_string(&log).unwrap_or_default()));
        Seen { page }
    }
}

/// What was found on the last page.
pub(crate) struct Seen {
    pub(crate) page: Value,
}

impl Seen {
    /// What a person reads.
    pub(crate) fn text(&self) -> &str {
        self.page["text"].as_str().expect("a text")
    }

    /// What holds for every page of gprxy, whatever it says: its own style and script ran, nothing else did, nothing came
    /// from elsewhere, the code is out of the address, and people can read it in light, in dark and on a phone.
    #[track_caller]
    pub(crate) fn assert_sound(&self, status: u16) {
        let page = &self.page;
        assert_eq!(page["status"], status, "{page}");
        assert_eq!(page["isStyled"], true, "the policy shuts the page's own style out: {page}");
        assert_eq!(page["complaints"], json!([]), "{page}");
        assert_eq!(page["asked"], 1, "it asks for more than itself: {page}");
        let address = page["address"].as_str().unwrap();
        assert!(address.ends_with("/callback"), "the page's script did not run: {address}");
        for element in page["elements"].as_array().unwrap() {
            let known = ["main", "header", "svg", "circle", "path", "h1", "p", "strong", "code", "footer", "script"];
            assert!(known.contains(&element.as_str().unwrap()), "{element}");
        }
        for scheme in ["light", "dark"] {
            let contrast = page["contrast"][scheme].as_f64().unwrap();
            assert!(contrast >= 4.5, "{scheme}: contrast {contrast} (WCAG 2.2, 1.4.3)");
        }
        assert_eq!(page["overflow"], 0, "it does not fit on a narrow screen");
    }
}
