//! Files read with a bound, and the one question asked about their permissions.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use gprxy_proto::secret::Secret;

/// Enough for any configuration, certificate chain or secret; a device or a wrong path must not fill the memory.
pub(crate) const MAX_FILE: u64 = 1 << 20;

/// Reads a whole file, or says in words why not. The content may be secret.
pub(crate) fn read(path: &Path) -> Result<Secret<Vec<u8>>, String> {
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
