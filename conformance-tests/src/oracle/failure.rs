//! Files of a failed run: its history, the oracle's verdict, its seed.

use std::fmt::Display;
use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use crate::history::History;

/// The environment variable that names the directory of failures.
pub const FAILURES_DIR: &str = "EVENTBUS_FAILURES_DIR";

/// The directory of failures: `EVENTBUS_FAILURES_DIR`, or `failures` in the `target` directory that this program was
/// built in, or `target/failures`.
#[must_use]
pub fn failures_dir() -> PathBuf {
    if let Some(dir) = std::env::var_os(FAILURES_DIR) {
        return PathBuf::from(dir);
    }
    // Tests run in their package's directory, which is not where cargo builds a workspace.
    let program = std::env::current_exe().unwrap_or_default();
    let built_in = program.ancestors().find(|dir| dir.file_name().is_some_and(|name| name == "target"));
    built_in.unwrap_or(Path::new("target")).join("failures")
}

/// Writes a failed run to `dir` (made if missing). Returns the history's file, for the caller to print. The reason
/// stands beside it, with the extension `txt`.
///
/// The files are named for the case and the seed; characters that a file name had better not
/// contain are replaced. A run of the same name and seed is overwritten.
///
/// # Errors
/// When the directory or a file cannot be written.
pub fn write_failure(
    dir: impl AsRef<Path>,
    name: &str,
    seed: u64,
    history: &History,
    why: impl Display,
) -> io::Result<PathBuf> {
    let dir = dir.as_ref();
    fs::create_dir_all(dir)?;
    let plain = |c: char| {
        if c.is_ascii_alphanumeric() || c == '-' { c } else { '_' }
    };
    let name: String = name.chars().map(plain).collect();
    let path = dir.join(format!("{name}-{seed}.ndjson"));
    let mut file = BufWriter::new(File::create(&path)?);
    history.write_ndjson(&mut file)?;
    file.flush()?;
    fs::write(path.with_extension("txt"), format!("case {name}, seed {seed}\n{why}\n"))?;
    Ok(path)
}
