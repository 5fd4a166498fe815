//! Writes the seeds to `fuzz/seeds`.

use std::path::Path;
use std::{fs, io};

use gprxy_fuzz::seeds::all;

fn main() -> io::Result<()> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("seeds");
    for seed in all() {
        let dir = root.join(seed.target);
        fs::create_dir_all(&dir)?;
        fs::write(dir.join(seed.name), seed.data)?;
    }
    Ok(())
}
