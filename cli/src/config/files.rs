//! Files read with a bound, once for all who want them, and the one question asked about their permissions.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use gprxy_proto::secret::Secret;

/// Enough for any configuration, certificate chain or secret; a device or a wrong path must not fill the memory.
pub(crate) const MAX_FILE: u64 = 1 << 20;

/// What files held when settings were read from them, so that the same settings can be read again while somebody is
/// editing: a file is read when it is wanted for the first time, and what it held then is what it holds. What could not be
/// read is not kept.
#[derive(Clone, Default)]
pub(crate) struct Snapshot(BTreeMap<PathBuf, Option<Arc<Secret<Vec<u8>>>>>);

thread_local! {
    /// The one that reads on this thread come from and go to, while [`Snapshot::during`] runs.
    static CURRENT: RefCell<Option<Snapshot>> = const { RefCell::new(None) };
}

impl Snapshot {
    /// Does something, on this thread, whose files are these.
    pub(crate) fn during<T>(&mut self, work: impl FnOnce() -> T) -> T {
        let before = CURRENT.replace(Some(std::mem::take(self)));
        let result = work();
        *self = CURRENT.replace(before).unwrap_or_default();
        result
    }

    /// The next one who wants this file gets it as it is then.
    pub(crate) fn forget(&mut self, path: &Path) {
        self.0.remove(path);
    }
}

/// What is kept of a file: `Some(None)`, that there is none.
fn kept(path: &Path) -> Option<Option<Arc<Secret<Vec<u8>>>>> {
    CURRENT.with_borrow(|current| current.as_ref()?.0.get(path).cloned())
}

fn keep(path: &Path, content: Option<Arc<Secret<Vec<u8>>>>) {
    CURRENT.with_borrow_mut(|current| {
        if let Some(Snapshot(files)) = current {
            files.insert(path.to_owned(), content);
        }
    });
}

/// Whether there is something of this name.
pub(crate) fn exists(path: &Path) -> bool {
    if let Some(kept) = kept(path) {
        return kept.is_some();
    }
    let exists = !matches!(path.try_exists(), Ok(false));
    if !exists {
        keep(path, None);
    }
    exists
}

/// Reads a whole file, or says in words why not. The content may be secret.
pub(crate) fn read(path: &Path) -> Result<Secret<Vec<u8>>, String> {
    let content = match kept(path) {
        Some(Some(content)) => content,
        _ => {
            let content = Arc::new(read_now(path)?);
            keep(path, Some(content.clone()));
            content
        }
    };
    Ok(Arc::try_unwrap(content).unwrap_or_else(|kept| Secret::new(kept.expose().clone())))
}

fn read_now(path: &Path) -> Result<Secret<Vec<u8>>, String> {
    let mut content = Secret::new(Vec::new());
    let file = File::open(path).map_err(|error| words(&error))?;
    file.take(MAX_FILE + 1).read_to_end(content.expose_mut()).map_err(|error| words(&error))?;
    if content.expose().len() as u64 > MAX_FILE {
        return Err("it is larger than 1 MiB".into());
    }
    Ok(content)
}

/// The same for text.
pub(crate) fn read_text(path: &Path) -> Result<Secret<String>, String> {
    let mut content = read(path)?;
    let bytes = std::mem::take(content.expose_mut());
    match String::from_utf8(bytes) {
        Ok(text) => Ok(Secret::new(text)),
        Err(error) => {
            // The bytes go back into a `Secret` so that they are wiped.
            *content.expose_mut() = error.into_bytes();
            Err("it is not UTF-8 text".into())
        }
    }
}

/// Whether everybody on this machine may read the file.
#[cfg(unix)]
pub(crate) fn readable_by_all(path: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt;
    const OTHERS_READ: u32 = 0o004;
    path.metadata().is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & OTHERS_READ != 0)
}

/// Whether everybody on this machine may read the file: not to be told from a mode here.
#[cfg(not(unix))]
pub(crate) fn readable_by_all(_path: &Path) -> bool {
    false
}

/// An IO error as words for a sentence, without the number.
pub(crate) fn words(error: &io::Error) -> String {
    let text = error.to_string();
    match text.find(" (os error") {
        Some(end) => text[..end].to_owned(),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reading_is_bounded_and_says_why_it_fails() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        std::fs::write(&path, vec![b'x'; MAX_FILE as usize + 1]).unwrap();
        assert_eq!(read(&path).err().as_deref(), Some("it is larger than 1 MiB"));
        std::fs::write(&path, b"\xff\xfe").unwrap();
        assert_eq!(read_text(&path).err().as_deref(), Some("it is not UTF-8 text"));
        assert_eq!(read(&dir.path().join("none")).err().as_deref(), Some("No such file or directory"));
        assert!(read(dir.path()).is_err(), "a directory");
    }

    #[test]
    fn a_snapshot_shows_files_as_they_were_and_what_could_not_be_read_anew() {
        let dir = tempfile::tempdir().unwrap();
        let [one, two, none] = ["one", "two", "none"].map(|name| dir.path().join(name));
        let text = |path: &Path| read_text(path).map(|text| text.expose().clone()).ok();
        std::fs::write(&one, "before").unwrap();
        let mut snapshot = Snapshot::default();
        snapshot
            .during(|| assert_eq!((text(&one).as_deref(), text(&two), exists(&none)), (Some("before"), None, false)));
        for path in [&one, &two, &none] {
            std::fs::write(path, "behind").unwrap();
        }
        let mut other = snapshot.clone();
        other.during(|| {
            assert_eq!((text(&one).as_deref(), exists(&none)), (Some("before"), false));
            assert_eq!(text(&two).as_deref(), Some("behind"));
            // One inside the other is on its own.
            Snapshot::default().during(|| assert_eq!(text(&one).as_deref(), Some("behind")));
            assert_eq!(text(&one).as_deref(), Some("before"));
        });
        std::fs::remove_file(&two).unwrap();
        other.during(|| assert_eq!(text(&two).as_deref(), Some("behind")));
        snapshot.during(|| assert_eq!(text(&two), None, "the copy was on its own"));
        other.forget(&one);
        other.during(|| assert_eq!(text(&one).as_deref(), Some("behind")));
        assert!(exists(&none) && text(&one).as_deref() == Some("behind"), "and without one all is as it is");
    }

    #[cfg(unix)]
    #[test]
    fn permissions_are_seen() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        std::fs::write(&path, "x").unwrap();
        for (mode, open) in [(0o600, false), (0o640, false), (0o644, true), (0o604, true)] {
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
            assert_eq!(readable_by_all(&path), open, "{mode:o}");
        }
    }
}
