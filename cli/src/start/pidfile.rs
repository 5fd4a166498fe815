//! The number of the process in a file, for those who send signals.

use std::fs;
use std::io;
use std::path::PathBuf;

/// Removes the file at the end, if it is still this process's.
pub(super) struct PidFile(PathBuf);

/// Writes it, over what an earlier process has left there, or one that this one takes the place of.
pub(super) fn write(path: PathBuf) -> Result<PidFile, String> {
    let text = format!("{}\n", std::process::id());
    let written = fs::write(&path, text);
    written.map_err(|error: io::Error| format!("server.pidfile: {:?} cannot be written: {error}", path.display()))?;
    Ok(PidFile(path))
}

impl Drop for PidFile {
    fn drop(&mut self) {
        let mine = fs::read_to_string(&self.0).is_ok_and(|text| text.trim() == std::process::id().to_string());
        if mine {
            let _ = fs::remove_file(&self.0);
        }
    }
}
