//! Files for one person: written whole or not at all, never readable by others, one writer at a time.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use crate::config::io_words;
use crate::sso::failure::{Failure, Result};

/// A renewal takes two requests of at most ten seconds each; who waits longer waits for a process that hangs.
const LOCK_PATIENCE: Duration = Duration::from_secs(30);

/// `~/.gprxy`, which need not exist.
pub(crate) fn home() -> Result<PathBuf> {
    match std::env::home_dir() {
        Some(home) if home.is_absolute() => Ok(home.join(".gprxy")),
        _ => Err(Failure::settings("there is no home directory to keep credentials in; set HOME")),
    }
}

/// Makes the directory if it is missing, and closes it to others.
pub(super) fn make_directory(dir: &Path) -> Result<()> {
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(dir).map_err(|error| cannot("make", dir, &error))?;
    unix::own(dir, &fs::metadata(dir).map_err(|error| cannot("read", dir, &error))?)?;
    unix::close(dir).map_err(|error| cannot("close to others", dir, &error))
}

/// Opens a file that only its owner may read; `None` when there is none.
pub(super) fn open(path: &Path) -> Result<Option<File>> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(cannot("read", path, &error)),
    };
    // Of the open file, not of the path: what is judged is what is read.
    let meta = file.metadata().map_err(|error| cannot("read", path, &error))?;
    unix::own(path, &meta)?;
    unix::private(path, &meta)?;
    if let Some(dir) = path.parent() {
        unix::not_writable(dir)?;
    }
    Ok(Some(file))
}

/// Puts `content` in the place of the file, or leaves the old one: a new file beside it is filled, forced to the disk
/// and renamed. The caller holds a [`Lock`], so what an earlier, killed writer left under that name is nobody's.
pub(crate) fn replace(path: &Path, content: &[u8]) -> Result<()> {
    // Somebody's `~/.pgpass` may be a link into a folder that they keep elsewhere: the link stays.
    let path = &fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".gprxy-new");
    let fresh = path.with_file_name(name);
    let written = remove(&fresh).and_then(|()| write(&fresh, content)).and_then(|()| fs::rename(&fresh, path));
    if let Err(error) = written {
        let _ = remove(&fresh);
        return Err(cannot("write", path, &error));
    }
    // The rename itself reaches the disk with the directory. Where that cannot be asked for, it comes later.
    if let Some(dir) = path.parent()
        && let Ok(dir) = File::open(dir)
    {
        let _ = dir.sync_all();
    }
    Ok(())
}

fn write(path: &Path, content: &[u8]) -> io::Result<()> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut file = options.open(path)?;
    file.write_all(content)?;
    file.sync_all()
}

/// Removes a file that need not be there.
pub(super) fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

pub(super) fn cannot(verb: &str, path: &Path, error: &io::Error) -> Failure {
    Failure::refused(format!("cannot {verb} {}: {}", path.display(), io_words(error)))
}

/// An exclusive lock, given back when dropped or when the process ends. Its file stays: removing it would let two
/// processes hold two files of one name.
pub(crate) struct Lock {
    _file: File,
}

impl Lock {
    /// Waits for other processes to finish, but not for ever.
    pub(crate) fn take(path: &Path) -> Result<Self> {
        if let Some(dir) = path.parent() {
            make_directory(dir)?;
        }
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(false);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        let file = options.open(path).map_err(|error| cannot("open", path, &error))?;
        let end = Instant::now() + LOCK_PATIENCE;
        loop {
            match file.try_lock() {
                Ok(()) => return Ok(Self { _file: file }),
                Err(TryLockError::WouldBlock) if Instant::now() < end => thread::sleep(Duration::from_millis(25)),
                Err(TryLockError::WouldBlock) => {
                    let words = format!(
                        "another gprxy has held {} for {} s; end it and try again",
                        path.display(),
                        LOCK_PATIENCE.as_secs()
                    );
                    return Err(Failure::unavailable(words));
                }
                Err(TryLockError::Error(error)) => return Err(cannot("lock", path, &error)),
            }
        }
    }
}

#[cfg(unix)]
mod unix {
    use std::fs::{self, Metadata, Permissions};
    use std::io;
    use std::os::unix::fs::{MetadataExt, PermissionsExt};
    use std::path::Path;

    use super::{Failure, Result, cannot};

    /// Others may do something with it.
    const OTHERS: u32 = 0o077;
    /// Others may put files into it.
    const OTHERS_WRITE: u32 = 0o022;

    /// A file of another user: made by `sudo gprxy`, or a trap.
    pub(super) fn own(path: &Path, meta: &Metadata) -> Result<()> {
        let (owner, user) = (meta.uid(), rustix::process::geteuid().as_raw());
        if owner == user {
            return Ok(());
        }
        let path = path.display();
        Err(Failure::refused(format!(
            "{path} belongs to user {owner}, and gprxy runs as user {user}: use one and the same"
        )))
    }

    pub(super) fn private(path: &Path, meta: &Metadata) -> Result<()> {
        let mode = meta.permissions().mode() & 0o777;
        if mode & OTHERS == 0 {
            return Ok(());
        }
        let path = path.display();
        let words = format!(
            "{path} holds tokens and is open to others (mode {mode:03o}, expected 600): chmod 600 {path}, and log in again \
             if somebody else may have read it"
        );
        Err(Failure::refused(words))
    }

    pub(super) fn not_writable(dir: &Path) -> Result<()> {
        let meta = fs::metadata(dir).map_err(|error| cannot("read", dir, &error))?;
        if meta.permissions().mode() & OTHERS_WRITE == 0 {
            return Ok(());
        }
        let dir = dir.display();
        Err(Failure::refused(format!("others may write into {dir}, where gprxy keeps credentials: chmod 700 {dir}")))
    }

    pub(super) fn close(dir: &Path) -> io::Result<()> {
        if fs::metadata(dir)?.permissions().mode() & OTHERS == 0 {
            return Ok(());
        }
        fs::set_permissions(dir, Permissions::from_mode(0o700))
    }
}

/// Elsewhere the home directory itself is closed to others.
#[cfg(not(unix))]
mod unix {
    use std::fs::Metadata;
    use std::io;
    use std::path::Path;

    use super::Result;

    pub(super) fn own(_: &Path, _: &Metadata) -> Result<()> {
        Ok(())
    }

    pub(super) fn private(_: &Path, _: &Metadata) -> Result<()> {
        Ok(())
    }

    pub(super) fn not_writable(_: &Path) -> Result<()> {
        Ok(())
    }

    pub(super) fn close(_: &Path) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    fn chmod(path: &Path, mode: u32) {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }

    #[test]
    fn directories_are_closed_and_files_written_whole() {
        let base = tempfile::tempdir().unwrap();
        let dir = base.path().join("a/.gprxy");
        make_directory(&dir).unwrap();
        assert_eq!(mode(&dir), 0o700);
        chmod(&dir, 0o755);
        make_directory(&dir).unwrap();
        assert_eq!(mode(&dir), 0o700, "an open one is closed");
        let file = dir.join("credentials");
        replace(&file, b"one").unwrap();
        replace(&file, b"two").unwrap();
        assert_eq!((fs::read(&file).unwrap().as_slice(), mode(&file)), (&b"two"[..], 0o600));
        assert_eq!(fs::read_dir(&dir).unwrap().count(), 1, "nothing else is left");
    }

    #[test]
    fn what_a_killed_writer_left_is_in_nobodys_way() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("c.gprxy-new"), "half").unwrap();
        replace(&dir.path().join("c"), b"whole").unwrap();
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_link_stays_a_link() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("real"), "old").unwrap();
        std::os::unix::fs::symlink("real", dir.path().join("link")).unwrap();
        replace(&dir.path().join("link"), b"new").unwrap();
        assert_eq!(fs::read(dir.path().join("real")).unwrap(), b"new");
        assert!(dir.path().join("link").is_symlink());
    }

    #[test]
    fn files_and_directories_that_are_open_to_others_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("credentials");
        assert!(open(&file).unwrap().is_none());
        replace(&file, b"x").unwrap();
        assert!(open(&file).unwrap().is_some());
        for open_to_others in [0o640, 0o604, 0o660, 0o610] {
            chmod(&file, open_to_others);
            let words = open(&file).unwrap_err().words;
            assert!(words.contains("chmod 600"), "{words}");
        }
        chmod(&file, 0o600);
        chmod(dir.path(), 0o777);
        assert!(open(&file).unwrap_err().words.contains("chmod 700"));
    }

    #[test]
    fn a_lock_is_held_by_one() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lock");
        let held = Lock::take(&path).unwrap();
        let other = OpenOptions::new().write(true).open(&path).unwrap();
        assert!(matches!(other.try_lock(), Err(TryLockError::WouldBlock)));
        drop(held);
        other.try_lock().unwrap();
    }
}
