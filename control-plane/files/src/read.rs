//! Reads the folder: every `*.yaml` and `*.yml` in it and below, except hidden ones.
//!
//! Links are followed (a mounted ConfigMap is made of them); a folder is read once, however many links lead to it.

use std::{
    collections::BTreeSet,
    fs, io,
    path::{Path, PathBuf},
};

use crate::folder::Files;

/// No file that people write is larger.
const FILE_LIMIT: u64 = 16 << 20;

/// Reads all files below `root`, which blocks. A file that cannot be read is there with the reason.
///
/// # Errors: where `root` itself cannot be listed.
pub fn read(root: &Path) -> io::Result<Files> {
    let mut files = Files::new();
    let mut visited = BTreeSet::from([root.canonicalize()?]);
    let mut folders = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        let entries = match fs::read_dir(&folder) {
            Ok(entries) => entries,
            Err(error) if folder == root => return Err(error),
            // It went while we read.
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => {
                files.insert(folder, Err(format!("cannot be listed: {error}")));
                continue;
            }
        };
        for entry in entries {
            let path = entry?.path();
            if is_hidden(&path) {
                continue;
            }
            // Follows links.
            match fs::metadata(&path) {
                Ok(metadata) if metadata.is_dir() => {
                    if path.canonicalize().is_ok_and(|real| visited.insert(real)) {
                        folders.push(path);
                    }
                }
                _ if !is_yaml(&path) => {}
                Ok(metadata) if metadata.len() > FILE_LIMIT => {
                    files.insert(path, Err(format!("larger than {} MiB", FILE_LIMIT >> 20)));
                }
                _ => read_file(path, &mut files),
            }
        }
    }
    Ok(files)
}

/// Reads the file `path`, whatever its name, or the folder as [`read`] does.
///
/// # Errors: where it cannot be listed, or is not there.
pub fn read_path(path: &Path) -> io::Result<Files> {
    let metadata = fs::metadata(path)?;
    if metadata.is_dir() {
        return read(path);
    }
    let mut files = Files::new();
    if metadata.len() > FILE_LIMIT {
        files.insert(path.to_owned(), Err(format!("larger than {} MiB", FILE_LIMIT >> 20)));
    } else {
        read_file(path.to_owned(), &mut files);
    }
    Ok(files)
}

fn read_file(path: PathBuf, files: &mut Files) {
    let text = match fs::read(&path) {
        Ok(bytes) => String::from_utf8(bytes).map_err(|_| "not UTF-8 text".to_owned()),
        // It went while we read; a link that leads nowhere is told.
        Err(error) if error.kind() == io::ErrorKind::NotFound && fs::symlink_metadata(&path).is_err() => return,
        Err(error) => Err(format!("cannot be read: {error}")),
    };
    files.insert(path, text);
}

fn is_hidden(path: &Path) -> bool {
    path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."))
}

/// Whether a file of this name is read.
pub fn is_yaml(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "yaml" || extension == "yml") && !is_hidden(path)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn reads_folders_below_and_mounted_config_maps_but_nothing_hidden() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        fs::create_dir_all(root.join("team")).unwrap();
        fs::create_dir_all(root.join("..2026_01")).unwrap();
        fs::write(root.join("..2026_01/mounted.yaml"), "a: 1").unwrap();
        symlink("..2026_01", root.join("..data")).unwrap();
        symlink("..data/mounted.yaml", root.join("mounted.yaml")).unwrap();
        symlink(".", root.join("loop")).unwrap();
        symlink("nowhere", root.join("dangling.yml")).unwrap();
        for name in ["team/b.yml", ".hidden.yaml", "notes.txt", ".a.yaml.swp", "a.yaml~"] {
            fs::write(root.join(name), name).unwrap();
        }
        fs::write(root.join("latin.yaml"), [0xe9]).unwrap();

        let files = read(root).unwrap();
        let names: Vec<_> = files.keys().map(|path| path.strip_prefix(root).unwrap().to_str().unwrap()).collect();
        assert_eq!(names, ["dangling.yml", "latin.yaml", "mounted.yaml", "team/b.yml"]);
        assert_eq!(files[&root.join("mounted.yaml")], Ok("a: 1".to_owned()));
        assert_eq!(files[&root.join("latin.yaml")], Err("not UTF-8 text".to_owned()));
        assert!(files[&root.join("dangling.yml")].as_ref().is_err_and(|error| error.starts_with("cannot be read")));
    }

    #[test]
    fn a_path_may_be_a_file_of_any_name() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("objects.json");
        fs::write(&path, "{}").unwrap();
        assert_eq!(read_path(&path).unwrap(), Files::from([(path, Ok("{}".to_owned()))]));
        assert_eq!(read_path(folder.path()).unwrap(), Files::new());
        assert!(read_path(&folder.path().join("nothing")).is_err());
    }

    #[test]
    fn a_root_that_is_not_there_is_an_error() {
        assert!(read(Path::new("/nowhere/at/all")).is_err());
    }
}
