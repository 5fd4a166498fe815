//! A terminal with a person in front of it: a pseudo-terminal, and a screen that knows just enough control functions
//! (ECMA-48, and DEC's private modes) to tell what is left on it.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};

use super::desk::Desk;
use super::reaper::Leashed;
use super::{PATIENCE, eventually};

/// Ctrl-C, as the keyboard sends it.
pub(crate) const CTRL_C: &str = "\x03";
/// Ctrl-D.
pub(crate) const CTRL_D: &str = "\x04";

/// A terminal with a program in it.
pub(crate) struct Terminal {
    pub(crate) child: Leashed,
    keyboard: File,
    /// The program's side. It stays open here, so that its settings can be read when the program is gone.
    line: File,
    settings: String,
    screen: Arc<Mutex<Screen>>,
    reader: JoinHandle<()>,
}

/// What a program left behind.
pub(crate) struct Left {
    /// As a shell says it: 130 for SIGINT.
    pub(crate) code: i32,
    pub(crate) screen: Screen,
    settings: (String, String),
}

impl Terminal {
    /// Starts `gprxy` with these arguments in a terminal that is so many columns wide.
    pub(crate) fn open(desk: &Desk, columns: u16, args: &[&str]) -> Self {
        let keyboard = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).unwrap();
        grantpt(&keyboard).unwrap();
        unlockpt(&keyboard).unwrap();
        let path = ptsname(&keyboard, Vec::new()).unwrap().into_string().unwrap();
        let line = File::options().read(true).write(true).custom_flags(libc::O_NOCTTY).open(path).unwrap();
        tcsetwinsize(&line, Winsize { ws_row: 50, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 }).unwrap();
        let settings = settings_of(&line);

        // `setsid --ctty` makes it the terminal of the program, so that Ctrl-C is a signal; then it is the program.
        let mut command = desk.program("setsid", &[&["--ctty", env!("CARGO_BIN_EXE_gprxy")], args].concat());
        let side = || Stdio::from(line.try_clone().unwrap());
        command.stdin(side()).stdout(side()).stderr(side());
        command.envs([("PAGER", "cat"), ("PSQL_HISTORY", "/dev/null")]);
        if !command.get_envs().any(|(name, _)| name == "TERM") {
            command.env("TERM", "xterm-256color");
        }
        let child = Leashed::spawn(&mut command);
        drop(command);

        let keyboard = File::from(keyboard);
        let screen = Arc::new(Mutex::new(Screen::new(columns.into())));
        let (mut source, shown) = (keyboard.try_clone().unwrap(), screen.clone());
        let reader = std::thread::spawn(move || {
            let mut piece = [0; 4096];
            // The end is EIO: nobody has the program's side open any more.
            while let Ok(read) = source.read(&mut piece) {
                shown.lock().unwrap().feed(&piece[..read]);
            }
        });
        Self { child, keyboard, line, settings, screen, reader }
    }

    /// Presses keys.
    pub(crate) fn press(&mut self, keys: &str) {
        self.keyboard.write_all(keys.as_bytes()).unwrap();
    }

    /// Waits until this stands on the screen; the whole screen then.
    pub(crate) fn await_text(&self, words: &str) -> String {
        self.await_screen(words, |screen| screen.text().contains(words))
    }

    /// Waits until the last line is this alone: what is typed while a prompt is on its way may be lost.
    pub(crate) fn await_prompt(&self, prompt: &str) {
        self.await_screen(prompt, |screen| screen.text().trim_end().lines().last() == Some(prompt));
    }

    /// Waits until the screen is like that.
    pub(crate) fn await_screen(&self, what: &str, is_so: impl Fn(&Screen) -> bool) -> String {
        let end = Instant::now() + PATIENCE;
        loop {
            let (is_there, text) = {
                let screen = self.screen.lock().unwrap();
                (is_so(&screen), screen.text())
            };
            if is_there {
                return text;
            }
            assert!(Instant::now() < end, "not on the screen: {what}\n{text}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Waits for the program to end by itself.
    pub(crate) fn end(mut self) -> Left {
        let status = eventually("the program to end", || self.child.0.try_wait().unwrap());
        let after = settings_of(&self.line);
        drop(self.line);
        self.reader.join().unwrap();
        let screen = std::mem::replace(&mut *self.screen.lock().unwrap(), Screen::new(1));
        let code = status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or_default());
        Left { code, screen, settings: (self.settings, after) }
    }
}

impl Left {
    /// The terminal is as it was, and the cursor at the beginning of a free line.
    #[track_caller]
    pub(crate) fn assert_whole(&self) {
        self.assert_restored();
        assert_eq!(self.screen.column, 0, "the prompt would stand behind the last line:\n{}", self.screen.text());
    }

    /// The terminal is as it was: its settings, its modes, its colours.
    #[track_caller]
    pub(crate) fn assert_restored(&self) {
        assert_eq!(self.settings.0, self.settings.1, "stty");
        let screen = &self.screen;
        assert!(screen.modes.is_empty(), "modes are left on: {:?}", screen.modes);
        assert!(screen.unknown.is_empty(), "control functions that this screen does not know: {:?}", screen.unknown);
        assert!(!screen.is_coloured, "colours are left on:\n{}", screen.text());
    }
}

fn settings_of(line: &File) -> String {
    let output = Command::new("stty").arg("-g").stdin(line.try_clone().unwrap()).output().unwrap();
    assert!(output.status.success(), "stty: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// What can be seen.
pub(crate) struct Screen {
    columns: usize,
    lines: Vec<Vec<char>>,
    row: usize,
    column: usize,
    /// DEC private modes that differ from how a terminal starts; 25, the cursor, starts on.
    modes: BTreeSet<String>,
    is_coloured: bool,
    /// Bytes that are no whole character or control function yet.
    rest: Vec<u8>,
    /// Control functions that nobody needs for a line of text: whatever they do, nothing here would undo it.
    unknown: Vec<String>,
    /// Every drawing of a spinner's frame.
    pub(crate) frames: usize,
}

impl Screen {
    fn new(columns: usize) -> Self {
        Self {
            columns,
            lines: vec![Vec::new()],
            row: 0,
            column: 0,
            modes: BTreeSet::new(),
            is_coloured: false,
            rest: Vec::new(),
            unknown: Vec::new(),
            frames: 0,
        }
    }

    /// The lines, without blanks at their ends.
    pub(crate) fn text(&self) -> String {
        let lines = self.lines.iter().map(|line| line.iter().collect::<String>().trim_end().to_owned());
        lines.collect::<Vec<_>>().join("\n")
    }

    fn feed(&mut self, bytes: &[u8]) {
        self.rest.extend_from_slice(bytes);
        let rest = std::mem::take(&mut self.rest);
        let whole = match std::str::from_utf8(&rest) {
            Ok(text) => text,
            Err(error) => std::str::from_utf8(&rest[..error.valid_up_to()]).expect("valid up to here"),
        };
        let mut left = whole;
        while let Some(next) = left.chars().next() {
            let taken = if next == '\x1b' { self.control(left) } else { Some(next.len_utf8()) };
            let Some(taken) = taken else { break };
            if next != '\x1b' {
                self.put(next);
            }
            left = &left[taken..];
        }
        let used = whole.len() - left.len();
        self.rest = rest[used..].to_vec();
    }

    fn put(&mut self, character: char) {
        match character {
            '\r' => self.column = 0,
            '\n' => self.go_down(),
            '\x08' => self.column = self.column.saturating_sub(1),
            '\x07' => {}
            '\t' => self.column = (self.column / 8 + 1) * 8,
            character => {
                self.unknown.extend(character.is_control().then(|| format!("{character:?}")));
                if self.column == self.columns {
                    self.column = 0;
                    self.go_down();
                }
                self.frames += usize::from(('⠁'..='⣿').contains(&character));
                let line = &mut self.lines[self.row];
                line.resize(line.len().max(self.column + 1), ' ');
                line[self.column] = character;
                self.column += 1;
            }
        }
    }

    fn go_down(&mut self) {
        self.row += 1;
        if self.row == self.lines.len() {
            self.lines.push(Vec::new());
        }
    }

    /// Carries out a control sequence; its length, or `None` when its end has not come yet.
    fn control(&mut self, text: &str) -> Option<usize> {
        let Some(body) = text.strip_prefix("\x1b[") else {
            let second = text.chars().nth(1)?;
            self.unknown.push(format!("{:?}", ('\x1b', second)));
            return Some(1 + second.len_utf8());
        };
        let end = body.find(|c: char| ('@'..='~').contains(&c))?;
        let (parameters, verb) = (&body[..end], body.as_bytes()[end]);
        let count: usize = parameters.parse().unwrap_or(1);
        match verb {
            b'K' => self.lines[self.row].truncate(if parameters == "2" { 0 } else { self.column }),
            b'J' => self.lines.truncate(self.row + 1),
            b'm' => self.is_coloured = !matches!(parameters, "" | "0"),
            b'C' => self.column += count,
            b'D' => self.column = self.column.saturating_sub(count),
            b'A' => self.row = self.row.saturating_sub(count),
            b'h' | b'l' => {
                let starts_on = parameters == "?25";
                if (verb == b'h') == starts_on {
                    self.modes.remove(parameters);
                } else {
                    self.modes.insert(parameters.to_owned());
                }
            }
            _ => self.unknown.push(format!("{:?}", &text[..end + 3])),
        }
        Some(end + 3)
    }
}
