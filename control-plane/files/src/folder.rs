//! The folder's state: what each file declares, what it declared last when it was in order, and who owns which object.
//!
//! Invariant: where a folder is served, an object stays served until a file that parses says otherwise. Does no IO.

use std::{
    collections::{BTreeMap, btree_map},
    path::{Path, PathBuf},
};

use control_plane_translate::Change;

use crate::{
    Problem,
    kinds::{Declared, ObjectId, declared, is_foreign, items},
    node::{Node, Position, parse},
};

/// The files of a folder as they were read: their text, or why it cannot be had.
pub type Files = BTreeMap<PathBuf, Result<String, String>>;

/// What the files are read for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Purpose {
    /// To be served: a file counts as a whole, or as it was before; a kind that is not served is a slip.
    #[default]
    Serving,
    /// To be looked at: each object counts by itself; what says nothing to a gateway is passed over.
    Inspection,
}

/// What all files together declare.
#[derive(Debug, Default)]
pub struct Folder {
    purpose: Purpose,
    files: BTreeMap<PathBuf, File>,
    /// What was announced last, by object.
    served: BTreeMap<ObjectId, Served>,
}

#[derive(Debug, Default)]
struct File {
    read: Option<Result<String, String>>,
    /// What it declared when it was last in order.
    objects: Vec<Declared>,
    /// What is wrong with it now.
    problems: Vec<Problem>,
    /// Objects of kinds that say nothing to a gateway.
    foreign: usize,
}

#[derive(Debug)]
struct Served {
    file: PathBuf,
    declared: Declared,
}

/// The effect of new file contents.
#[derive(Debug, Default)]
pub struct Update {
    /// What changed among the objects.
    pub changes: Vec<Change>,
    /// Everything that is wrong with the files now.
    pub problems: Vec<Problem>,
}

impl Folder {
    /// No files yet.
    pub fn new(purpose: Purpose) -> Self {
        Self { purpose, ..Self::default() }
    }

    /// Objects that were passed over.
    pub fn foreign(&self) -> usize {
        self.files.values().map(|file| file.foreign).sum()
    }

    /// Takes `files` as the folder's whole content.
    ///
    /// A file with an error keeps what it declared before. Of two files that declare one object, the one that has it
    /// keeps it, else the first by path.
    pub fn update(&mut self, files: Files) -> Update {
        self.files.retain(|path, _| files.contains_key(path));
        for (path, read) in files {
            let file = self.files.entry(path.clone()).or_default();
            if file.read.as_ref() != Some(&read) {
                file.take(&path, read, self.purpose);
            }
        }
        let mut problems: Vec<_> = self.files.values().flat_map(|file| &file.problems).cloned().collect();
        let wanted = self.owners(&mut problems);
        let changes = self.announce(wanted);
        Update { changes, problems }
    }

    /// Whether a file that declares something is missing or empty in `files`: it may be about to come back, as many
    /// programs write a file by emptying or removing it first.
    pub fn would_lose_a_file(&self, files: &Files) -> bool {
        self.files.iter().any(|(path, file)| {
            let is_empty = match files.get(path) {
                Some(Ok(text)) => text.trim().is_empty(),
                Some(Err(_)) => false,
                None => true,
            };
            is_empty && !file.objects.is_empty()
        })
    }

    /// The file that declares the object that is served, and its document.
    pub fn place(&self, id: &ObjectId) -> Option<(&Path, &Node)> {
        self.served.get(id).map(|served| (served.file.as_path(), &*served.declared.document))
    }

    /// The objects that are served.
    pub fn objects(&self) -> impl Iterator<Item = &Declared> {
        self.served.values().map(|served| &served.declared)
    }

    /// Chooses one declaration for each object; the others become problems.
    fn owners(&self, problems: &mut Vec<Problem>) -> BTreeMap<ObjectId, Served> {
        let mut wanted = BTreeMap::<ObjectId, Served>::new();
        // Those that own an object already come first.
        for owning in [true, false] {
            for (path, file) in &self.files {
                for declared in &file.objects {
                    let owns = self.served.get(&declared.id).is_some_and(|served| served.file == *path);
                    if owns != owning {
                        continue;
                    }
                    match wanted.entry(declared.id.clone()) {
                        btree_map::Entry::Vacant(entry) => {
                            entry.insert(Served { file: path.clone(), declared: declared.clone() });
                        }
                        btree_map::Entry::Occupied(owner) => problems.push(duplicate(path, declared, owner.get())),
                    }
                }
            }
        }
        wanted
    }

    fn announce(&mut self, wanted: BTreeMap<ObjectId, Served>) -> Vec<Change> {
        let gone = self.served.keys().filter(|id| !wanted.contains_key(*id));
        let mut changes: Vec<_> = gone.map(|id| Change::Remove(id.kind, id.name.clone())).collect();
        changes.extend(
            wanted
                .iter()
                .filter(|(id, new)| {
                    self.served.get(*id).is_none_or(|old| old.declared.document != new.declared.document)
                })
                .map(|(_, new)| Change::Upsert(new.declared.object.clone())),
        );
        self.served = wanted;
        changes
    }
}

fn duplicate(path: &Path, declared: &Declared, owner: &Served) -> Problem {
    Problem {
        message: format!(
            "declared a second time; the one in {}:{} is served",
            owner.file.display(),
            owner.declared.position.line
        ),
        object: Some(declared.id.to_string()),
        ..problem(path, Some(declared.position), String::new())
    }
}

fn problem(path: &Path, position: Option<Position>, message: String) -> Problem {
    Problem {
        file: Some(path.to_owned()),
        line: position.map(|position| position.line),
        column: position.map(|position| position.column),
        message,
        ..Problem::default()
    }
}

impl File {
    /// Takes new content.
    fn take(&mut self, path: &Path, read: Result<String, String>, purpose: Purpose) {
        let content = Content::of(path, &read, purpose);
        if content.problems.is_empty() || purpose == Purpose::Inspection {
            self.objects = content.objects;
            self.foreign = content.foreign;
        }
        self.problems = content.problems;
        self.read = Some(read);
    }
}

/// What a file says.
#[derive(Default)]
struct Content {
    objects: Vec<Declared>,
    problems: Vec<Problem>,
    foreign: usize,
}

impl Content {
    fn of(path: &Path, read: &Result<String, String>, purpose: Purpose) -> Self {
        let documents = match read {
            Ok(text) => parse(text).map_err(|error| problem(path, error.position, error.message)),
            Err(error) => Err(problem(path, None, error.clone())),
        };
        let mut content = Self::default();
        match documents {
            Ok(documents) => {
                for (prefix, document) in documents.into_iter().flat_map(items) {
                    content.add(path, &prefix, document, purpose);
                }
            }
            Err(problem) => content.problems.push(problem),
        }
        content
    }

    fn add(&mut self, path: &Path, prefix: &str, document: Node, purpose: Purpose) {
        if purpose == Purpose::Inspection && is_foreign(&document) {
            self.foreign += 1;
            return;
        }
        let object = label(&document);
        match declared(document) {
            Ok(declared) => self.objects.push(declared),
            Err(errors) => self.problems.extend(errors.into_iter().map(|error| {
                let field = format!("{prefix}{}", error.field);
                Problem {
                    object: object.clone(),
                    field: Some(field).filter(|field| !field.is_empty()),
                    ..problem(path, Some(error.position), error.message)
                }
            })),
        }
    }
}

/// Kind and name of a document that may be wrong, for its problems.
fn label(document: &Node) -> Option<String> {
    let kind = document.get("kind")?.as_text()?;
    let metadata = document.get("metadata")?;
    let name = metadata.get("name")?.as_text()?;
    let namespace = metadata.get("namespace").and_then(Node::as_text).unwrap_or("default");
    Some(format!("{kind} {namespace}/{name}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn service(name: &str, port: u16) -> String {
        format!("apiVersion: v1\nkind: Service\nmetadata: {{name: {name}}}\nspec: {{ports: [{{port: {port}}}]}}\n---\n")
    }

    fn files<const N: usize>(files: [(&str, &str); N]) -> Files {
        files.into_iter().map(|(path, text)| (path.into(), Ok(text.to_owned()))).collect()
    }

    fn told(update: &Update) -> (Vec<String>, Vec<String>) {
        let changes = update.changes.iter().map(|change| match change {
            Change::Upsert(object) => format!("+{}", object.name().name),
            Change::Remove(_, name) => format!("-{}", name.name),
            other => panic!("{other:?}"),
        });
        (changes.collect(), update.problems.iter().map(Problem::to_string).collect())
    }

    #[test]
    fn a_broken_file_keeps_its_objects_and_the_others_go_on() {
        let mut folder = Folder::default();
        folder.update(files([("a.yaml", &service("a", 1)), ("b.yaml", &service("b", 1))]));
        let broken = service("a", 2) + "kind: [\n";
        let (changes, problems) = told(&folder.update(files([("a.yaml", &broken), ("b.yaml", &service("b", 2))])));
        assert_eq!(changes, ["+b"]);
        assert!(problems[0].starts_with("a.yaml:6:7: unclosed bracket"), "{problems:?}");

        let mended = service("a", 2) + &service("c", 1);
        let (changes, problems) = told(&folder.update(files([("a.yaml", &mended), ("b.yaml", &service("b", 2))])));
        assert_eq!((changes, problems.len()), (vec!["+a".to_owned(), "+c".to_owned()], 0));
    }

    #[test]
    fn an_unknown_field_is_told_with_file_line_object_and_path() {
        let text = service("a", 1) + &service("b", 1).replace("port:", "prot:");
        let (changes, problems) = told(&Folder::default().update(files([("x/a.yaml", &text)])));
        assert_eq!(changes, Vec::<String>::new());
        assert_eq!(problems[0], "x/a.yaml:9:17: Service default/b: spec.ports[0].prot: unknown field");
    }

    #[test]
    fn for_inspection_each_object_counts_by_itself_and_what_is_not_ours_is_passed_over() {
        let other = "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: d}\n---\n";
        let text = service("a", 1) + other + &service("b", 1).replace("port:", "prot:") + &service("c", 1);
        let mut folder = Folder::new(Purpose::Inspection);
        let (changes, problems) = told(&folder.update(files([("a.yaml", &text)])));
        assert_eq!((changes, folder.foreign()), (vec!["+a".to_owned(), "+c".to_owned()], 1));
        assert_eq!(problems, ["a.yaml:13:17: Service default/b: spec.ports[0].prot: unknown field"]);
    }

    #[test]
    fn moving_a_comment_or_an_object_to_another_file_changes_nothing() {
        let mut folder = Folder::default();
        folder.update(files([("a.yaml", &service("a", 1))]));
        let moved = format!("# note\n{}", service("a", 1));
        assert_eq!(told(&folder.update(files([("b.yaml", &moved)]))), (vec![], vec![]));
    }

    #[test]
    fn of_two_declarations_the_served_one_stays_and_both_files_are_named() {
        let mut folder = Folder::default();
        folder.update(files([("b.yaml", &service("x", 1))]));
        let both = files([("a.yaml", &service("x", 2)), ("b.yaml", &service("x", 1))]);
        let (changes, problems) = told(&folder.update(both));
        assert_eq!(changes, Vec::<String>::new());
        assert_eq!(problems, ["a.yaml:1:1: Service default/x: declared a second time; the one in b.yaml:1 is served"]);
        let (changes, problems) = told(&folder.update(files([("a.yaml", &service("x", 2))])));
        assert_eq!((changes, problems.len()), (vec!["+x".to_owned()], 0));
    }

    #[test]
    fn a_file_that_vanishes_is_suspicious_but_not_one_that_declared_nothing() {
        let mut folder = Folder::default();
        folder.update(files([("a.yaml", &service("a", 1)), ("notes.yaml", "# later")]));
        assert!(folder.would_lose_a_file(&files([("notes.yaml", "")])));
        assert!(folder.would_lose_a_file(&files([("a.yaml", " \n"), ("notes.yaml", "")])));
        assert!(!folder.would_lose_a_file(&files([("a.yaml", "kind: [")])));
    }

    #[test]
    fn a_file_that_is_gone_takes_its_objects_with_it() {
        let mut folder = Folder::default();
        folder.update(files([("a.yaml", &service("a", 1))]));
        assert_eq!(told(&folder.update(Files::new())), (vec!["-a".to_owned()], vec![]));
    }
}
