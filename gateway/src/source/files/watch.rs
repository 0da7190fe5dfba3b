//! Tells when the folder changed, once for a burst of events, and not while a file is being written.
//!
//! Where the system tells nothing (network file systems, no inotify watches left), the folder is looked at every
//! [`RESCAN`] anyway.

use std::{
    collections::BTreeSet,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use control_plane_files::is_yaml;
use notify::{
    Event, EventKind, RecommendedWatcher, RecursiveMode, Watcher as _,
    event::{AccessKind, AccessMode, ModifyKind},
};
use parking_lot::Mutex;
use tokio::{
    sync::Notify,
    time::{Instant, timeout, timeout_at},
};

/// How long no event may come before the folder counts as settled.
const QUIET: Duration = Duration::from_millis(10);
/// How long a writer may keep a file open before it is read anyway.
const PATIENCE: Duration = Duration::from_millis(120);
/// How often the folder is looked at without any event.
const RESCAN: Duration = Duration::from_secs(5);

/// A watch over a folder and all below it.
pub struct Watch {
    root: PathBuf,
    state: Arc<Shared>,
    watcher: Option<Watcher>,
}

struct Watcher {
    /// Device and inode of the folder that it watches: another folder may take the name.
    root: Option<(u64, u64)>,
    /// Watches until it is dropped.
    _watcher: RecommendedWatcher,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    changed: Notify,
}

#[derive(Default)]
struct State {
    dirty: bool,
    /// Files that were written to and not closed yet.
    writing: BTreeSet<PathBuf>,
}

impl Watch {
    /// Watches `root`. Begin before the first read, so that no change falls between.
    pub fn new(root: &Path) -> Self {
        let mut watch = Self { root: root.to_owned(), state: Arc::default(), watcher: None };
        watch.renew();
        watch
    }

    /// Watches the folder that has the name now, if that is another one than before.
    pub fn renew(&mut self) {
        let root = std::fs::metadata(&self.root).ok().map(|metadata| (metadata.dev(), metadata.ino()));
        if self.watcher.as_ref().is_some_and(|watcher| watcher.root == root) {
            return;
        }
        let shared = self.state.clone();
        let handler = move |event: notify::Result<Event>| shared.take(event);
        let watching = notify::recommended_watcher(handler).and_then(|mut watcher| {
            watcher.watch(&self.root, RecursiveMode::Recursive)?;
            // A link may be led to another folder, as synchronisers from repositories do.
            if let Some(parent) = self.root.parent().filter(|_| self.root.is_symlink()) {
                let parent = if parent.as_os_str().is_empty() { Path::new(".") } else { parent };
                watcher.watch(parent, RecursiveMode::NonRecursive)?;
            }
            Ok(watcher)
        });
        self.watcher = match watching {
            Ok(watcher) => Some(Watcher { root, _watcher: watcher }),
            Err(error) => {
                if self.watcher.is_some() || root.is_some() {
                    tracing::warn!(%error, "folder cannot be watched, looking at it every {} s", RESCAN.as_secs());
                }
                None
            }
        };
    }

    /// Waits until the folder changed and settled, or may have changed unseen. Cancel-safe.
    pub async fn changed(&self) {
        // A notification that came before we wait is kept.
        while !self.state.state.lock().dirty {
            if timeout(RESCAN, self.state.changed.notified()).await.is_err() {
                return;
            }
        }
        let deadline = Instant::now() + PATIENCE;
        loop {
            let quiet = timeout_at(deadline.min(Instant::now() + QUIET), self.state.changed.notified()).await.is_err();
            let mut state = self.state.state.lock();
            if (quiet && state.writing.is_empty()) || Instant::now() >= deadline {
                state.dirty = false;
                return;
            }
        }
    }
}

impl Shared {
    fn take(&self, event: notify::Result<Event>) {
        let mut state = self.state.lock();
        match event {
            Ok(event) => {
                if !state.take(event) {
                    return;
                }
            }
            // Events were lost: everything may be different.
            Err(_) => state.writing.clear(),
        }
        state.dirty = true;
        drop(state);
        self.changed.notify_one();
    }
}

impl State {
    /// Whether the event can mean a change. (Our own reading makes events as well.)
    fn take(&mut self, event: Event) -> bool {
        match event.kind {
            EventKind::Access(AccessKind::Close(AccessMode::Write))
            | EventKind::Remove(_)
            | EventKind::Modify(ModifyKind::Name(_)) => {
                for path in &event.paths {
                    self.writing.remove(path);
                }
                true
            }
            EventKind::Access(_) => false,
            EventKind::Modify(ModifyKind::Data(_)) => {
                self.writing.extend(event.paths.into_iter().filter(|path| is_yaml(path)));
                true
            }
            _ => true,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    async fn settled(watch: &Watch) {
        timeout(Duration::from_secs(3), watch.changed()).await.expect("the change is seen");
    }

    #[tokio::test]
    async fn sees_edits_renames_new_folders_and_removals() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        let watch = Watch::new(root);
        fs::write(root.join("a.yaml"), "1").unwrap();
        settled(&watch).await;
        fs::write(root.join("b.tmp"), "2").unwrap();
        fs::rename(root.join("b.tmp"), root.join("a.yaml")).unwrap();
        settled(&watch).await;
        fs::create_dir(root.join("team")).unwrap();
        settled(&watch).await;
        fs::write(root.join("team/b.yaml"), "3").unwrap();
        settled(&watch).await;
        fs::remove_file(root.join("a.yaml")).unwrap();
        settled(&watch).await;
    }

    #[tokio::test]
    async fn reading_is_no_change() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("a.yaml"), "1").unwrap();
        let watch = Watch::new(folder.path());
        fs::read(folder.path().join("a.yaml")).unwrap();
        fs::read_dir(folder.path()).unwrap().for_each(drop);
        assert!(timeout(Duration::from_millis(200), watch.changed()).await.is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn a_file_that_is_being_written_is_waited_for_but_not_for_ever() {
        // Told events by hand: how the system groups real ones is its own affair.
        let watch = Watch { root: PathBuf::new(), state: Arc::default(), watcher: None };
        let tell = |kind| watch.state.take(Ok(Event::new(kind).add_path("a.yaml".into())));
        let started = Instant::now();
        tell(EventKind::Modify(ModifyKind::Data(notify::event::DataChange::Any)));
        watch.changed().await;
        assert_eq!(started.elapsed(), PATIENCE);
        tell(EventKind::Access(AccessKind::Close(AccessMode::Write)));
        watch.changed().await;
        assert_eq!(started.elapsed(), PATIENCE + QUIET);
    }

    #[tokio::test]
    async fn a_link_that_is_led_elsewhere_is_seen() {
        let parent = tempfile::tempdir().unwrap();
        for name in ["v1", "v2"] {
            fs::create_dir(parent.path().join(name)).unwrap();
        }
        let root = parent.path().join("current");
        std::os::unix::fs::symlink("v1", &root).unwrap();
        let mut watch = Watch::new(&root);
        std::os::unix::fs::symlink("v2", parent.path().join("next")).unwrap();
        fs::rename(parent.path().join("next"), &root).unwrap();
        settled(&watch).await;
        watch.renew();
        watch.state.state.lock().dirty = false;
        fs::write(parent.path().join("v2/a.yaml"), "1").unwrap();
        settled(&watch).await;
    }

    #[tokio::test]
    async fn another_folder_of_the_same_name_is_watched_after_a_renewal() {
        let parent = tempfile::tempdir().unwrap();
        let root = parent.path().join("config");
        fs::create_dir(&root).unwrap();
        let mut watch = Watch::new(&root);
        fs::rename(&root, parent.path().join("old")).unwrap();
        fs::create_dir(&root).unwrap();
        watch.renew();
        watch.state.state.lock().dirty = false;
        fs::write(root.join("a.yaml"), "1").unwrap();
        settled(&watch).await;
    }
}
