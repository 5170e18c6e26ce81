//! Policies from a Git checkout: the folder that it is, with the commit that it is at.
//!
//! Nothing is fetched and no Git program is run: a checkout is somebody else's to keep up to date, and its configuration may
//! name programs that a relay should not start. Read are `HEAD`, loose and packed references, and the branch's upstream
//! (gitrepository-layout(5), git-config(1) `branch.<name>.merge`).

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

use yaml::{Problem, Severity};

use super::folder::{Folder, Reading};

/// How much of a commit's name tells it from others at a glance.
const SHORT: usize = 12;
/// Symbolic references lead to at most so many others.
const MAX_STEPS: usize = 5;
/// `HEAD`, references and configuration are small.
const MAX_FILE: u64 = 4 << 20;

/// A checkout.
#[derive(Clone, Debug)]
pub(super) struct Git {
    path: PathBuf,
    branch: Option<String>,
}

/// Where a checkout stands.
#[derive(Debug, PartialEq, Eq)]
struct Stand {
    /// The commit that is checked out.
    commit: String,
    /// The branch, unless the head is detached.
    branch: Option<String>,
    /// What it is held against, and its commit if there is one.
    against: Option<(String, Option<String>)>,
}

impl Git {
    pub(super) fn new(path: PathBuf, branch: Option<String>) -> Git {
        let path = path.components().collect();
        Git { path, branch }
    }

    /// The checkout as a folder that changes with its head, too.
    pub(super) fn folder(&self) -> Folder {
        let mut folder = Folder::new(self.path.clone());
        if let Some(git) = git_folder(&self.path) {
            let common = common_folder(&git);
            folder = folder.also([
                git.join("HEAD"),
                git.join("logs/HEAD"),
                common.join("packed-refs"),
                common.join("FETCH_HEAD"),
            ]);
        }
        folder
    }

    pub(super) fn read(&self, reading: &mut Reading) {
        Folder::new(self.path.clone()).read(reading);
        if reading.missing {
            return;
        }
        match self.stand() {
            Ok(stand) => {
                reading.about = stand.words();
                reading.problems.extend(
                    stand
                        .drift()
                        .map(|drift| self.problem(drift, Severity::Warning)),
                );
            }
            Err(why) => reading.problems.push(self.problem(why, Severity::Error)),
        }
    }

    fn problem(&self, message: String, severity: Severity) -> Problem {
        Problem {
            severity,
            ..Problem::whole_file(&self.path.display().to_string(), message)
        }
    }

    fn stand(&self) -> Result<Stand, String> {
        let git = git_folder(&self.path).ok_or(
            "it is in no Git checkout (there is no .git above it); write `type: folder` for a plain folder",
        )?;
        let common = common_folder(&git);
        let head = text(&git.join("HEAD")).ok_or("the checkout has no readable HEAD")?;
        let branch = head.strip_prefix("ref: refs/heads/").map(str::to_owned);
        let commit = resolve(&git, &common, "HEAD").ok_or("the checkout has no commit yet")?;
        let against = self
            .branch
            .clone()
            .or_else(|| upstream(&common, branch.as_deref()?));
        let against = against.map(|name| {
            let places = [
                format!("refs/remotes/{name}"),
                format!("refs/heads/{name}"),
                format!("refs/tags/{name}"),
            ];
            let there = places
                .iter()
                .find_map(|place| resolve(&git, &common, place));
            (name, there)
        });
        Ok(Stand {
            commit,
            branch,
            against,
        })
    }
}

impl fmt::Display for Git {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "git {}", self.path.display())
    }
}

impl Stand {
    fn words(&self) -> String {
        match &self.branch {
            Some(branch) => format!("at {} ({branch})", short(&self.commit)),
            None => format!("at {} (detached)", short(&self.commit)),
        }
    }

    /// How the checkout differs from its branch.
    fn drift(&self) -> Option<String> {
        match self.against.as_ref()? {
            (name, Some(commit)) if *commit != self.commit => Some(format!(
                "the checkout is at {}, {name} is at {}: pull, or check {name} out",
                short(&self.commit),
                short(commit)
            )),
            (_, Some(_)) => None,
            (name, None) => Some(format!(
                "there is no branch {name} in the checkout to hold it against; fetch it, or name another"
            )),
        }
    }
}

fn short(commit: &str) -> &str {
    commit.get(..SHORT).unwrap_or(commit)
}

/// The `.git` of a folder or of one above it; a file of that name leads to it (worktrees, submodules).
fn git_folder(path: &Path) -> Option<PathBuf> {
    let start = fs::canonicalize(path).ok()?;
    start.ancestors().find_map(|folder| {
        let git = folder.join(".git");
        if git.is_dir() {
            return Some(git);
        }
        let link = text(&git)?;
        Some(folder.join(link.strip_prefix("gitdir: ")?))
    })
}

/// Where references are: a worktree has its own HEAD only.
fn common_folder(git: &Path) -> PathBuf {
    text(&git.join("commondir")).map_or_else(|| git.to_owned(), |common| git.join(common))
}

fn text(path: &Path) -> Option<String> {
    let metadata = fs::metadata(path).ok()?;
    if !metadata.is_file() || metadata.len() > MAX_FILE {
        return None;
    }
    Some(fs::read_to_string(path).ok()?.trim().to_owned())
}

/// The commit that a reference leads to.
fn resolve(git: &Path, common: &Path, name: &str) -> Option<String> {
    let mut name = name.to_owned();
    for _ in 0..MAX_STEPS {
        if name.split('/').any(|step| step == "..") {
            return None;
        }
        let loose = text(&git.join(&name)).or_else(|| text(&common.join(&name)));
        let content = loose.or_else(|| packed(common, &name))?;
        match content.strip_prefix("ref: ") {
            Some(next) => name = next.to_owned(),
            None => return is_commit(&content).then_some(content),
        }
    }
    None
}

fn is_commit(text: &str) -> bool {
    matches!(text.len(), 40 | 64) && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

fn packed(common: &Path, name: &str) -> Option<String> {
    let packed = text(&common.join("packed-refs"))?;
    packed.lines().find_map(|line| {
        let (commit, own) = line.split_once(' ')?;
        (own == name).then(|| commit.to_owned())
    })
}

/// `origin/main` for a branch that follows it.
fn upstream(common: &Path, branch: &str) -> Option<String> {
    let config = text(&common.join("config"))?;
    let head = format!("[branch \"{branch}\"]");
    let section = config
        .lines()
        .map(str::trim)
        .skip_while(|line| *line != head)
        .skip(1)
        .take_while(|line| !line.starts_with('['));
    let (mut remote, mut merge) = (None, None);
    for (key, value) in section.filter_map(|line| line.split_once('=')) {
        match key.trim() {
            "remote" => remote = Some(value.trim()),
            "merge" => merge = value.trim().strip_prefix("refs/heads/"),
            _ => {}
        }
    }
    Some(format!("{}/{}", remote?, merge?))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: &str = "1111111111111111111111111111111111111111";
    const TWO: &str = "2222222222222222222222222222222222222222";

    fn checkout() -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        let git = folder.path().join(".git");
        fs::create_dir_all(git.join("refs/heads")).unwrap();
        fs::write(git.join("HEAD"), "ref: refs/heads/main\n").unwrap();
        fs::write(git.join("refs/heads/main"), format!("{ONE}\n")).unwrap();
        let config = "[core]\n\tbare = false\n[branch \"main\"]\n\tremote = origin\n\tmerge = refs/heads/main\n[x]\n";
        fs::write(git.join("config"), config).unwrap();
        let packed = format!("# pack-refs with: peeled\n{TWO} refs/remotes/origin/main\n^{ONE}\n");
        fs::write(git.join("packed-refs"), packed).unwrap();
        fs::create_dir(folder.path().join("policies")).unwrap();
        folder
    }

    #[test]
    fn the_commit_and_the_drift_from_the_upstream_branch_are_known() {
        let folder = checkout();
        let git = Git::new(folder.path().join("policies"), None);
        let stand = git.stand().unwrap();
        assert_eq!(stand.words(), "at 111111111111 (main)");
        let drift = stand.drift().unwrap();
        assert!(drift.contains("origin/main is at 222222222222"), "{drift}");
        fs::write(folder.path().join(".git/refs/heads/main"), TWO).unwrap();
        assert_eq!(git.stand().unwrap().drift(), None);
    }

    #[test]
    fn a_detached_head_is_held_against_the_branch_that_is_named() {
        let folder = checkout();
        fs::write(folder.path().join(".git/HEAD"), ONE).unwrap();
        let stand =
            |branch: &str| Git::new(folder.path().to_owned(), Some(branch.to_owned())).stand();
        assert_eq!(stand("main").unwrap().words(), "at 111111111111 (detached)");
        assert_eq!(stand("main").unwrap().drift(), None);
        let drift = stand("gone").unwrap().drift().unwrap();
        assert!(drift.contains("no branch gone"), "{drift}");
    }

    #[test]
    fn a_folder_without_git_is_an_error_with_what_to_do() {
        let folder = tempfile::tempdir().unwrap();
        let mut reading = Reading::default();
        Git::new(folder.path().to_owned(), None).read(&mut reading);
        assert!(reading.problems[0].message.contains("type: folder"));
    }
}
