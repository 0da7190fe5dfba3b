//! The shared libraries that an image holds beside our binaries: those of the list below, byte for byte as Debian
//! packages them, and no others (docs/adr/0005-c-library-in-images.md).

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::shell;

/// A Debian package that libraries come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Package {
    /// glibc: LGPL-2.1-or-later.
    Libc6,
    /// GCC's run-time library: GPL-3.0-or-later with the GCC Runtime Library Exception.
    Libgcc,
}

impl Package {
    /// Its name in Debian.
    pub fn name(self) -> &'static str {
        match self {
            Self::Libc6 => "libc6",
            Self::Libgcc => "libgcc-s1",
        }
    }

    /// The licences that its copyright file only names, as files of `/usr/share/common-licenses`.
    pub fn common_licences(self) -> &'static [&'static str] {
        match self {
            Self::Libc6 => &["LGPL-2.1", "GPL-2"],
            Self::Libgcc => &["GPL-3"],
        }
    }
}

/// What a binary may be linked against, by file name.
const ALLOWED: [(&str, Package); 5] = [
    ("ld-linux-x86-64.so.2", Package::Libc6),
    ("ld-linux-aarch64.so.1", Package::Libc6),
    ("libc.so.6", Package::Libc6),
    ("libm.so.6", Package::Libc6),
    ("libgcc_s.so.1", Package::Libgcc),
];

/// A library, or the loader.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Library {
    /// Where it lies, on this machine and in the image.
    pub path: PathBuf,
    /// Where it comes from.
    pub package: Package,
}

/// The libraries and the loader that `binary` was linked against, in order of path.
///
/// # Errors: one of them is not on the list of what may ship.
pub fn of(binary: &Path) -> Result<Vec<Library>> {
    let listing = shell::output(Command::new("ldd").arg(binary))?;
    let mut libraries = paths(&listing).map(judge).collect::<Result<Vec<_>>>()?;
    libraries.sort();
    libraries.dedup();
    Ok(libraries)
}

/// The absolute paths in a listing of `ldd`.
fn paths(listing: &str) -> impl Iterator<Item = &Path> {
    listing.lines().filter_map(|line| line.split_whitespace().find(|word| word.starts_with('/'))).map(Path::new)
}

fn judge(path: &Path) -> Result<Library> {
    let allowed = ALLOWED.into_iter().find(|(name, _)| path.file_name().is_some_and(|file| file == *name));
    let (_, package) = allowed.with_context(|| {
        format!(
            "{} is not on the list of libraries that an image may hold (e2e/xtask/src/libraries.rs)",
            path.display()
        )
    })?;
    Ok(Library { path: path.to_owned(), package })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_listing_of_ldd_names_libraries_and_the_loader() {
        let listing = "\tlinux-vdso.so.1 (0x00007f9471e34000)
\tlibgcc_s.so.1 => /lib/x86_64-linux-gnu/libgcc_s.so.1 (0x00007f9471e03000)
\t/lib64/ld-linux-x86-64.so.2 (0x00007f9471e36000)
";
        let found: Vec<&Path> = paths(listing).collect();
        assert_eq!(found, ["/lib/x86_64-linux-gnu/libgcc_s.so.1", "/lib64/ld-linux-x86-64.so.2"].map(Path::new));
    }

    #[test]
    fn a_library_that_is_not_on_the_list_does_not_ship() {
        let libc = Path::new("/lib/x86_64-linux-gnu/libc.so.6");
        assert_eq!(judge(libc).unwrap().package, Package::Libc6);
        for path in ["/usr/lib/libssl.so.3", "/lib/libc.so.6.1", "/"] {
            assert!(judge(Path::new(path)).is_err(), "{path}");
        }
    }
}
