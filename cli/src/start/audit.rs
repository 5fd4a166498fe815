//! Where the audit trail is written: a file, or standard output.

use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Seek as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use gprxy_proto::audit::{Event, OnFailure, Record, SessionFacts, Sheet};
use gprxy_proto::driver::audit_log::{AuditLog, AuditSink, Reopened, Settings};
use gprxy_proto::session_id::SessionId;
use gprxy_proto::time::Now;

use crate::config::{AuditFailure, AuditPath, AuditSettings};

/// How long the first line may take: it shows whether the trail can be written before anybody is let in.
const FIRST_LINE: Duration = Duration::from_secs(2);

/// Opens the trail and starts its writer.
pub(super) fn open(settings: &AuditSettings, now: Now) -> Result<Option<AuditLog>, String> {
    if !settings.enabled {
        return Ok(None);
    }
    let on_failure = match settings.on_failure {
        AuditFailure::Refuse => OnFailure::Refuse,
        AuditFailure::Count => OnFailure::Count,
    };
    let bounds = Settings { on_failure, max_records: settings.queue, ..Settings::default() };
    let log = match &settings.path {
        AuditPath::Stdout => AuditLog::start(Stdout, bounds),
        AuditPath::File(path) => {
            let sink = AuditFile::open(path.clone())
                .map_err(|error| format!("audit.path: found {:?}, which cannot be opened: {error}", path.display()))?;
            AuditLog::start(sink, bounds)
        }
    };
    let log = log.map_err(|error| format!("the audit trail's writer cannot be started: {error}"))?;
    log.offer(Record {
        time: now.unix,
        facts: Arc::new(SessionFacts::new(SessionId(0), &Sheet::default())),
        event: Event::ProxyStart,
    });
    if !log.flush(FIRST_LINE) {
        log::error!(
            "the audit trail cannot be written; audit.on_failure = {:?} decides what runs",
            settings.on_failure
        );
    }
    Ok(Some(log))
}

/// A file that only its owner can read: statements may hold what nobody else should see.
struct AuditFile {
    path: PathBuf,
    file: File,
}

impl AuditFile {
    /// A process that was killed may have left half a line behind: it is ended, so that the next one is whole.
    fn open(path: PathBuf) -> io::Result<Self> {
        let mut file = append(&path)?;
        if ends_within_a_line(&path)? {
            file.write_all(b"\n")?;
        }
        Ok(Self { file, path })
    }
}

fn ends_within_a_line(path: &Path) -> io::Result<bool> {
    let mut file = File::open(path)?;
    // A pipe or device has no last byte to look at.
    if !file.metadata()?.is_file() || file.metadata()?.len() == 0 {
        return Ok(false);
    }
    file.seek(io::SeekFrom::End(-1))?;
    let mut last = [0; 1];
    file.read_exact(&mut last)?;
    Ok(last != *b"\n")
}

fn append(path: &Path) -> io::Result<File> {
    OpenOptions::new().append(true).create(true).mode(0o600).open(path)
}

impl AuditSink for AuditFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }

    fn reopen(&mut self) -> io::Result<Reopened> {
        let file = append(&self.path)?;
        let identity = |file: &File| file.metadata().map(|metadata| (metadata.dev(), metadata.ino()));
        let same = identity(&file)? == identity(&self.file)?;
        self.file = file;
        Ok(if same { Reopened::Same } else { Reopened::Other })
    }
}

/// Standard output, for whoever collects it there. It cannot be reopened.
struct Stdout;

impl AuditSink for Stdout {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        io::stdout().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stdout().flush()
    }

    fn reopen(&mut self) -> io::Result<Reopened> {
        Ok(Reopened::Same)
    }
}
