//! From PgBouncer's options to the settings of the house.

mod entries;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use gprxy_proto::secret::Secret;

use super::super::draft::Draft;
use super::super::files;
use super::super::merge::Merged;
use super::super::problem::{Origin, Problem, nearest, quoted};
use super::super::schema::{self, Form as Standing, Key, Section};
use super::super::units::show_duration;
use super::ini::{self, Assignment};
use super::options::{self, Fate, Form, Known, OPTIONS};

/// Reads the file, and what was `SET` over it; everything that is wrong with it, and everything that has no effect, is noted.
/// `None`: it cannot be read as a whole.
pub(crate) fn read(path: &Path, set: &BTreeMap<&'static str, String>, draft: &mut Draft) -> Option<Merged> {
    let mut all = ini::read(path, draft)?;
    all.extend(set.iter().map(|(name, value)| Assignment {
        section: "pgbouncer".into(),
        key: (*name).to_owned(),
        value: Secret::new(value.clone()),
        origin: Origin::Console,
    }));
    let mut translation = Translation { merged: Merged::default(), given: Vec::new(), secrets: false, draft };
    for assignment in all {
        translation.take(assignment);
    }
    translation.weave();
    translation.fill_in();
    translation.show();
    if translation.secrets && files::readable_by_all(path) {
        let path = path.display();
        translation
            .draft
            .warn(format!("{path} holds passwords and is readable by every user of this machine: chmod 600 {path}"));
    }
    Some(translation.merged)
}

struct Translation<'d> {
    merged: Merged,
    /// Of the section `[pgbouncer]`, the last of each name.
    given: Vec<(&'static Known, String, Origin)>,
    secrets: bool,
    draft: &'d mut Draft,
}

impl Translation<'_> {
    fn take(&mut self, assignment: Assignment) {
        let Assignment { section, key, value, origin } = assignment;
        match &*section {
            "pgbouncer" => self.option(&key, value.expose(), origin),
            "databases" => self.database(&key, &value, &origin),
            "users" => self.user(&key, &value, &origin),
            "peers" => self.peer(&key, &value, &origin),
            other => self.problem(
                "PgBouncer's configuration",
                &origin,
                format!("the section {}", quoted(other)),
                "[databases], [users], [peers] or [pgbouncer]",
            ),
        }
    }

    fn problem(&mut self, setting: &str, origin: &Origin, found: impl Into<String>, expected: &str) {
        self.draft.problem(Problem::at(setting, origin, found, expected));
    }

    /// What has no effect, and what holds instead.
    fn note(&mut self, name: &str, origin: &Origin, instead: &str) {
        self.draft.warn(format!("{name} ({origin}) is not supported and has no effect: {instead}"));
    }

    fn option(&mut self, name: &str, value: &str, origin: Origin) {
        let Some(known) = options::find(OPTIONS, name) else {
            let expected = match nearest(name, OPTIONS.iter().map(|known| known.name)) {
                Some(near) => format!("an option of PgBouncer; the nearest is {near}"),
                None => "an option of PgBouncer".to_owned(),
            };
            return self.problem(name, &origin, "an unknown name", &expected);
        };
        match (known.fate, home(name)) {
            (Fate::Without(instead), _) => return self.note(name, &origin, instead),
            (Fate::Same, None) => return self.note(name, &origin, "gprxy has no such setting"),
            (Fate::Same | Fate::Woven, _) => {}
        }
        let Some(value) = self.value(known, value, &origin) else { return };
        self.given.retain(|(earlier, ..)| earlier.name != name);
        self.given.push((known, value, origin));
    }

    /// The value as the house writes it. An empty one of what has no default is none.
    fn value(&mut self, known: &Known, value: &str, origin: &Origin) -> Option<String> {
        let written = match known.form {
            Form::Text => Some(value.to_owned()),
            Form::Number => value.parse::<i64>().ok().map(|number| number.to_string()),
            Form::Flag => value.parse::<i64>().ok().map(|number| (number != 0).to_string()),
            Form::Millis => value.parse::<u64>().ok().map(|number| format!("{number}ms")),
            Form::Seconds => seconds(value),
        };
        if written.is_none() {
            let expected = match known.form {
                Form::Text => "text",
                Form::Number => "a whole number",
                Form::Flag => "0 or 1",
                Form::Seconds => "a number of seconds",
                Form::Millis => "a number of milliseconds",
            };
            self.problem(known.name, origin, quoted(value), expected);
        }
        written
    }

    /// Everything of the section `[pgbouncer]` that stands for itself, and what several options say together.
    fn weave(&mut self) {
        for (known, value, origin) in std::mem::take(&mut self.given) {
            match known.fate {
                Fate::Same => self.put(known.name, &value, origin),
                _ => self.given.push((known, value, origin)),
            }
        }
        self.listening();
        self.proof();
        self.client_tls();
        self.server_tls();
        self.process();
        self.timeouts();
    }

    /// Sets the setting of that name, wherever it stands.
    fn put(&mut self, name: &str, value: &str, origin: Origin) {
        let Some((section, key)) = home(name) else { return };
        // What is empty there is not set.
        if value.is_empty() && key.default.is_empty() {
            return;
        }
        // Zero leaves it to the system there, and to gprxy here.
        if name.starts_with("tcp_") && ["0", "0ms"].contains(&value) {
            return;
        }
        if let Some(entry) = self.merged.single(section.name) {
            entry.set(key.name, value, origin);
        }
    }

    fn set(&mut self, section: &'static str, key: &'static str, value: &str, origin: Origin) {
        if let Some(entry) = self.merged.single(section) {
            entry.set(key, value, origin);
        }
    }

    /// A woven option as it was given, else PgBouncer's default.
    fn given(&self, name: &str) -> (String, Origin) {
        let given = self.given.iter().find(|(known, ..)| known.name == name);
        match given {
            Some((_, value, origin)) => (value.clone(), origin.clone()),
            None => {
                let default = options::find(OPTIONS, name).map_or("", |known| known.default);
                (default.to_owned(), Origin::PgBouncer)
            }
        }
    }

    fn listening(&mut self) {
        let (addresses, origin) = self.given("listen_addr");
        self.set("server", "listen_addr", &addresses, origin);
        let (directory, origin) = self.given("unix_socket_dir");
        if directory.starts_with('@') {
            self.problem("unix_socket_dir", &origin, "a socket in the abstract namespace", "a directory");
        } else if !directory.is_empty() {
            self.set("server", "unix_socket_dir", &directory, origin);
        }
        // A switch there, for a time that cannot be chosen.
        let (deferred, origin) = self.given("tcp_defer_accept");
        if !["", "0"].contains(&deferred.as_str()) {
            self.set("server", "tcp_defer_accept", "45s", origin);
        }
        // Without a host PgBouncer connects to a socket in the same directory.
        for (_, entry) in &mut self.merged.databases {
            if !entry.values.contains_key("host") && !directory.is_empty() {
                entry.set("host", &directory, Origin::PgBouncer);
            }
        }
    }

    fn proof(&mut self) {
        let (auth_type, origin) = self.given("auth_type");
        match auth_type.as_str() {
            "trust" | "plain" | "md5" | "scram-sha-256" | "any" => {
                self.set("server", "auth_type", &auth_type, origin);
            }
            "cert" | "hba" | "pam" | "ldap" => {
                self.problem(
                    "auth_type",
                    &origin,
                    quoted(&auth_type),
                    "trust, plain, md5, scram-sha-256 or any: others are not supported",
                );
            }
            other => self.problem("auth_type", &origin, quoted(other), "trust, plain, md5, scram-sha-256 or any"),
        }
        let (file, origin) = self.given("auth_file");
        if !file.is_empty() {
            self.set("server", "auth_file", &file, origin);
        }
        // As with PgBouncer, whose operators decide by client_tls_sslmode what travels in clear.
        self.set("server", "allow_plaintext", "always", Origin::PgBouncer);
        let (disabled, origin) = self.given("disable_pqexec");
        if disabled == "true" {
            self.problem("disable_pqexec", &origin, "1, which is not supported", "0: simple queries are let through");
        }
    }

    fn client_tls(&mut self) {
        let (mode, origin) = self.given("client_tls_sslmode");
        match mode.as_str() {
            "disable" => return,
            "allow" | "prefer" => {}
            "require" => self.set("tls", "required", "true", origin.clone()),
            "verify-ca" | "verify-full" => {
                self.problem(
                    "client_tls_sslmode",
                    &origin,
                    quoted(&mode),
                    "require: certificates of clients are not verified",
                );
            }
            other => self.problem("client_tls_sslmode", &origin, quoted(other), "disable, allow, prefer or require"),
        }
        for (name, key) in [("client_tls_cert_file", "cert"), ("client_tls_key_file", "key")] {
            let (file, given) = self.given(name);
            if file.is_empty() {
                self.problem(name, &origin, "nothing", "a PEM file, because client_tls_sslmode asks for TLS");
            } else {
                self.set("tls", key, &file, given);
            }
        }
        let (protocols, given) = self.given("client_tls_protocols");
        let least = if protocols == "tlsv1.3" { "1.3" } else { "1.2" };
        if !["secure", "tlsv1.3", "tlsv1.2,tlsv1.3", "tlsv1.2, tlsv1.3"].contains(&protocols.as_str()) {
            self.note("client_tls_protocols", &given, "TLS 1.2 and 1.3 are spoken");
        }
        self.set("tls", "min_version", least, given);
    }

    fn server_tls(&mut self) {
        let (mode, mode_origin) = self.given("server_tls_sslmode");
        let (authorities, file_origin) = self.given("server_tls_ca_file");
        // "allow" begins without TLS; "prefer" is the stronger of the two and serves the same servers.
        let mode = if mode == "allow" { "prefer" } else { &mode };
        for (_, entry) in self.merged.databases.iter_mut().chain(&mut self.merged.peers) {
            let is_socket =
                entry.text("host").is_some_and(|hosts| hosts.split(',').all(|host| host.trim().starts_with('/')));
            entry.set("sslmode", if is_socket { "disable" } else { mode }, mode_origin.clone());
            if !authorities.is_empty() && mode.starts_with("verify") && !is_socket {
                entry.set("sslrootcert", &authorities, file_origin.clone());
            }
        }
    }

    fn process(&mut self) {
        let (user, origin) = self.given("user");
        if !user.is_empty() && current_user().as_deref() != Some(user.as_str()) {
            let expected = "to be started as that user: User= in the unit of systemd, or setpriv(1)";
            self.problem("user", &origin, quoted(&user), expected);
        }
        let (verbose, origin) = self.given("verbose");
        let level = match verbose.as_str() {
            "0" => "info",
            "1" => "debug",
            _ => "trace",
        };
        self.set("log", "level", level, origin);
        // PgBouncer has no such thing; whoever wants it converts the file.
        self.set("audit", "enabled", "false", Origin::PgBouncer);
    }

    fn timeouts(&mut self) {
        // What PgBouncer does, and has no option for.
        self.set("pool", "wait_for_server", "true", Origin::PgBouncer);
        // For PgBouncer 0 means never, here there is an end to everything; an hour is as good as none.
        for (name, section) in
            [("client_login_timeout", "limits"), ("cancel_wait_timeout", "limits"), ("server_connect_timeout", "pool")]
        {
            let (value, origin) = self.given(name);
            let Some((_, key)) = home(name) else { continue };
            let seconds = seconds(&value).unwrap_or(value);
            self.set(section, key.name, if seconds == "0s" { "1h" } else { &seconds }, origin);
        }
    }

    /// What the admin console shows of options that are several settings here.
    fn show(&mut self) {
        let woven = OPTIONS.iter().filter(|known| known.fate == Fate::Woven && home(known.name).is_none());
        for known in woven {
            let name = known.name;
            let value = match self.given(name) {
                (value, Origin::PgBouncer) => value,
                // As it was written: 0 and 1 for what is true or false here.
                (value, _) if known.form == Form::Flag => u8::from(value == "true").to_string(),
                (value, _) => value,
            };
            self.draft.effective.options.push((name, value));
        }
    }

    /// PgBouncer's defaults where the file says nothing.
    fn fill_in(&mut self) {
        for known in OPTIONS.iter().filter(|known| known.fate == Fate::Same && !known.default.is_empty()) {
            let Some((section, key)) = home(known.name) else { continue };
            let is_set = self.merged.single(section.name).is_none_or(|entry| entry.values.contains_key(key.name));
            if !is_set && let Some(value) = self.value(known, known.default, &Origin::PgBouncer) {
                self.put(known.name, &value, Origin::PgBouncer);
            }
        }
    }
}

/// The setting of that name, in a section that stands once.
pub(super) fn home(name: &str) -> Option<(&'static Section, &'static Key)> {
    let once = schema::SECTIONS.iter().filter(|section| section.form == Standing::One);
    once.into_iter().find_map(|section| section.key(name).map(|key| (*section, key)))
}

/// `0.5` as `500ms`.
fn seconds(text: &str) -> Option<String> {
    let seconds: f64 = text.trim().parse().ok()?;
    Duration::try_from_secs_f64(seconds).ok().map(show_duration)
}

/// The name of the user that this process runs as.
fn current_user() -> Option<Arc<str>> {
    use std::os::unix::fs::MetadataExt as _;
    let id = Path::new("/proc/self").metadata().ok()?.uid().to_string();
    let users = files::read_text(Path::new("/etc/passwd")).ok()?;
    let line = users.expose().lines().find(|line| line.split(':').nth(2) == Some(id.as_str()))?;
    line.split(':').next().map(Arc::from)
}
