//! The files that a command looks at: files, folders and standard input.

use std::{
    io::{self, Read as _},
    path::PathBuf,
};

use clap::Args;
use control_plane_files::{Files, read_path};

/// What standard input is called in messages.
const STDIN: &str = "<stdin>";
/// No set of objects is larger.
const STDIN_LIMIT: u64 = 256 << 20;

/// Where objects are read from.
#[derive(Debug, Args)]
pub struct Sources {
    /// A file, a folder (every *.yaml and *.yml in it and below, hidden ones left out), or - for standard input;
    /// repeatable
    #[arg(short = 'f', long = "filename", value_name = "PATH", required = true)]
    pub paths: Vec<PathBuf>,
}

/// A path that cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("{}", path.display())]
pub struct Unreadable {
    path: PathBuf,
    #[source]
    source: io::Error,
}

/// Reads all of `paths`. A file within a folder that cannot be read is there with the reason.
///
/// # Errors: [`Unreadable`] for a path that is not there.
pub fn read(paths: &[PathBuf]) -> Result<Files, Unreadable> {
    let mut files = Files::new();
    for path in paths {
        let unreadable = |source| Unreadable { path: path.clone(), source };
        if path.as_os_str() == "-" {
            files.insert(STDIN.into(), Ok(standard_input(STDIN_LIMIT).map_err(unreadable)?));
        } else {
            files.extend(read_path(path).map_err(unreadable)?);
        }
    }
    Ok(files)
}

/// All of standard input, as text.
///
/// # Errors: it cannot be read, is not UTF-8, or is larger than `limit` bytes.
pub fn standard_input(limit: u64) -> io::Result<String> {
    let mut text = String::new();
    io::stdin().lock().take(limit + 1).read_to_string(&mut text)?;
    if u64::try_from(text.len()).unwrap_or(u64::MAX) > limit {
        return Err(io::Error::other(format!("larger than {} MiB", limit >> 20)));
    }
    Ok(text)
}
