//! Policies from a folder of files: `*.yaml`, `*.yml` and `*.json`, in it and in its subfolders.
//!
//! Test cases (`*.test.yaml`) are not read. Names that begin with a dot are left alone: editors keep their unfinished work there, and Kubernetes its
//! `..data` behind a mounted ConfigMap, whose files are seen by their links. A change is learned from the kernel
//! (inotify) and acted on when the folder has been quiet for half a second, or after one second at the latest.
//! Where the kernel tells nothing (network file systems, a folder that does not exist yet) a look at names, sizes and
//! times every five seconds, or every second while there is no folder, finds the same change later.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::fs::{self, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use notify::{RecommendedWatcher, RecursiveMode, Watcher};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, timeout_at};
use yaml::{Problem, Severity};

/// How long the folder must be quiet, and how long a busy one is waited for.
const QUIET: Duration = Duration::from_millis(500);
const AT_LATEST: Duration = Duration::from_secs(1);
/// How often to look where the kernel tells nothing, and while there is no folder.
const LOOK: Duration = Duration::from_secs(5);
const LOOK_FOR_FOLDER: Duration = Duration::from_secs(1);
/// Bounds of one reading; what lies beyond is a problem, told as such.
const MAX_FILES: usize = 20_000;
const MAX_FILE: u64 = 4 << 20;

/// A folder with policy files.
#[derive(Clone, Debug)]
pub(super) struct Folder {
    path: PathBuf,
    /// Files that are no policies and whose change is a change all the same.
    also: Vec<PathBuf>,
}

/// One look at everything in the folder.
#[derive(Debug, Default)]
pub(super) struct Reading {
    pub(super) texts: Vec<Text>,
    pub(super) problems: Vec<Problem>,
    /// There is no such folder.
    pub(super) missing: bool,
    /// What to say of the source behind its name.
    pub(super) about: String,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Text {
    pub(super) file: String,
    pub(super) text: String,
}

/// What tells a changed file from an unchanged one without reading it.
type Marks = BTreeMap<PathBuf, (u64, Option<SystemTime>)>;

impl Folder {
    /// The folder at `path`, which need not exist yet.
    pub(super) fn new(path: PathBuf) -> Folder {
        // The same folder by the same name, however it was written.
        Folder {
            path: path.components().collect(),
            also: Vec::new(),
        }
    }

    /// The same folder, changed when one of these files is.
    pub(super) fn also(self, files: impl IntoIterator<Item = PathBuf>) -> Folder {
        Folder {
            also: files.into_iter().collect(),
            ..self
        }
    }

    /// Adds every policy file to `reading`, in the order of their paths.
    pub(super) fn read(&self, reading: &mut Reading) {
        if !self.path.exists() {
            reading.missing = true;
            let message =
                "there is no such folder; policies are read as soon as it appears".to_string();
            reading.problems.push(Problem {
                severity: Severity::Warning,
                ..self.problem(&self.path, message)
            });
            return;
        }
        for file in self.files(&mut reading.problems).into_keys() {
            match read_text(&file) {
                Ok(text) => reading.texts.push(Text {
                    file: file.display().to_string(),
                    text,
                }),
                // Gone since it was listed: the folder is being changed, and its next quiet moment is read again.
                Err(error)
                    if error.kind() == io::ErrorKind::NotFound
                        && fs::symlink_metadata(&file).is_err() => {}
                Err(error) => reading
                    .problems
                    .push(self.problem(&file, format!("cannot read it: {error}"))),
            }
        }
    }

    /// The marks of everything whose change is a change.
    fn marks(&self) -> Marks {
        let mut marks = self.files(&mut Vec::new());
        let also = self.also.iter();
        let there = also.filter_map(|file| Some((file.clone(), mark(&fs::metadata(file).ok()?))));
        marks.extend(there);
        marks
    }

    fn files(&self, problems: &mut Vec<Problem>) -> Marks {
        let mut files = Marks::new();
        self.list(&self.path, &mut BTreeSet::new(), &mut files, problems);
        files
    }

    /// Lists one folder; `seen` holds those that were, so that links in a circle end.
    fn list(
        &self,
        folder: &Path,
        seen: &mut BTreeSet<(u64, u64)>,
        files: &mut Marks,
        problems: &mut Vec<Problem>,
    ) {
        if let Ok(metadata) = fs::metadata(folder)
            && !seen.insert((metadata.dev(), metadata.ino()))
        {
            return;
        }
        let entries = match fs::read_dir(folder) {
            Ok(entries) => entries,
            Err(error) => {
                return problems.push(self.problem(folder, format!("cannot read it: {error}")));
            }
        };
        let hidden = |path: &Path| {
            path.file_name()
                .is_some_and(|name| name.as_encoded_bytes().starts_with(b"."))
        };
        for path in entries
            .flatten()
            .map(|entry| entry.path())
            .filter(|path| !hidden(path))
        {
            // Follows links: a mounted ConfigMap consists of them. A link to nothing is seen when it is read.
            let Ok(metadata) = fs::metadata(&path) else {
                if is_policy_file(&path) {
                    files.insert(path, (0, None));
                }
                continue;
            };
            if metadata.is_dir() {
                self.list(&path, seen, files, problems);
            } else if is_policy_file(&path) {
                if files.len() == MAX_FILES {
                    let message = format!("holds more than {MAX_FILES} policy files");
                    return problems.push(self.problem(&self.path, message));
                }
                let mark = mark(&metadata);
                files.insert(path, mark);
            }
        }
    }

    fn problem(&self, path: &Path, message: String) -> Problem {
        Problem {
            file: path.display().to_string(),
            line: 0,
            column: 0,
            path: String::new(),
            message,
            severity: Severity::Error,
        }
    }
}

impl fmt::Display for Folder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "folder {}", self.path.display())
    }
}

fn is_policy_file(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    if name.to_ascii_lowercase().ends_with(".test.yaml") {
        return false;
    }
    path.extension().is_some_and(|extension| {
        ["yaml", "yml", "json"]
            .iter()
            .any(|known| extension.eq_ignore_ascii_case(known))
    })
}

fn mark(metadata: &Metadata) -> (u64, Option<SystemTime>) {
    (metadata.len(), metadata.modified().ok())
}

fn read_text(path: &Path) -> io::Result<String> {
    let metadata = fs::metadata(path)?;
    if !metadata.is_file() {
        return Err(io::Error::other("it is not a plain file"));
    }
    if metadata.len() > MAX_FILE {
        return Err(io::Error::other(format!(
            "it is larger than {} MiB",
            MAX_FILE >> 20
        )));
    }
    let bytes = fs::read(path)?;
    String::from_utf8(bytes).map_err(|_| io::Error::other("it is not UTF-8 text"))
}

/// Tells when one of the folders may have changed.
pub(super) struct Changes {
    folders: Vec<Watched>,
    told: mpsc::Receiver<()>,
    teller: mpsc::Sender<()>,
}

struct Watched {
    folder: Folder,
    watcher: Option<RecommendedWatcher>,
    seen: Marks,
}

impl Changes {
    pub(super) fn new(folders: &[Folder]) -> Changes {
        // One place is enough: what matters is that something changed since the last look.
        let (teller, told) = mpsc::channel(1);
        let watched = |folder: &Folder| {
            let mut watched = Watched {
                folder: folder.clone(),
                watcher: None,
                seen: Marks::new(),
            };
            watched.look(&teller);
            watched
        };
        Changes {
            folders: folders.iter().map(watched).collect(),
            told,
            teller,
        }
    }

    /// Waits until a folder has changed and all have come to rest.
    pub(super) async fn next(&mut self) {
        loop {
            let all = self.folders.iter().all(|folder| folder.watcher.is_some());
            tokio::select! {
                _ = self.told.recv() => self.rest().await,
                () = sleep(if all { LOOK } else { LOOK_FOR_FOLDER }) => {}
            }
            // Every folder is looked at, so that a change in two of them is one change.
            if self
                .folders
                .iter_mut()
                .filter_map(|folder| folder.look(&self.teller).then_some(()))
                .count()
                > 0
            {
                return;
            }
        }
    }

    async fn rest(&mut self) {
        let latest = Instant::now() + AT_LATEST;
        loop {
            let quiet = (Instant::now() + QUIET).min(latest);
            if timeout_at(quiet, self.told.recv()).await.is_err() {
                return;
            }
        }
    }
}

impl Watched {
    /// Has the folder changed since the last look?
    fn look(&mut self, teller: &mpsc::Sender<()>) -> bool {
        let existed = self.watcher.is_some();
        self.watch(teller); // before looking, so that no change falls between the two
        let now = self.folder.marks();
        let changed = now != self.seen || existed != self.watcher.is_some();
        self.seen = now;
        changed
    }

    /// Asks the kernel to tell of changes, once there is a folder to ask for.
    fn watch(&mut self, teller: &mpsc::Sender<()>) {
        let Ok(metadata) = fs::metadata(&self.folder.path) else {
            self.watcher = None;
            return;
        };
        if self.watcher.is_some() || !metadata.is_dir() {
            return;
        }
        let teller = teller.clone();
        let made = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
            // Reading the folder is an event too, and must not lead to reading it again.
            if !event.is_ok_and(|event| event.kind.is_access()) {
                let _ = teller.try_send(()); // full: it is told already
            }
        });
        let watched = made.and_then(|mut watcher| {
            watcher.watch(&self.folder.path, RecursiveMode::Recursive)?;
            Ok(watcher)
        });
        match watched {
            Ok(watcher) => self.watcher = Some(watcher),
            Err(error) => {
                let folder = self.folder.path.display();
                tracing::debug!(%folder, %error, "the kernel does not tell of changes; looking every second");
            }
        }
    }
}
