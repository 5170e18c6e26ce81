//! Policy files by the names that people give: files, folders with everything in them, `-` for standard input.

use std::collections::BTreeSet;
use std::fs;
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use yaml::Problem;

use crate::connect::Trouble;

/// Bounds of one reading, those of the relay.
const MAX_FILES: usize = 20_000;
const MAX_FILE: u64 = 4 << 20;

/// What names a file of test cases.
pub(super) const TEST: &str = ".test.yaml";

/// One file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Text {
    /// As it was named; `<stdin>` for standard input.
    pub(super) name: String,
    pub(super) text: String,
}

/// What is looked for in folders. A file that is named is taken whatever it is called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wanted {
    /// `*.yaml`, `*.yml`, `*.json`, without test cases and hidden files: what the relay reads.
    Policies,
    /// `*.test.yaml`.
    Tests,
}

/// What came of reading.
#[derive(Debug, Default)]
pub(super) struct Texts {
    pub(super) texts: Vec<Text>,
    /// One for each file that cannot be read: the others are read all the same.
    pub(super) problems: Vec<Problem>,
}

impl Texts {
    /// How many files there were, read or not.
    pub(super) fn files(&self) -> usize {
        self.texts.len() + self.problems.len()
    }

    /// Names and texts.
    pub(super) fn named(&self) -> impl Iterator<Item = (&str, &str)> {
        self.texts.iter().map(|file| (&*file.name, &*file.text))
    }
}

/// Reads everything that `paths` name, each file once, in the order of the arguments and within a folder by name.
///
/// # Errors
/// A path that is not there, and too many files, by name.
pub(super) fn read(paths: &[PathBuf], wanted: Wanted) -> Result<Texts, Trouble> {
    let mut read = Texts::default();
    for path in list(paths, wanted)? {
        match text(&path) {
            Ok(text) => read.texts.push(text),
            Err(problem) => read.problems.push(problem),
        }
    }
    Ok(read)
}

/// The files that `paths` name.
///
/// # Errors
/// As [`read`].
pub(super) fn list(paths: &[PathBuf], wanted: Wanted) -> Result<Vec<PathBuf>, Trouble> {
    let (mut files, mut seen) = (Vec::new(), BTreeSet::new());
    for path in paths {
        if path == Path::new("-") {
            files.push(path.clone());
            continue;
        }
        let metadata = fs::metadata(path).map_err(|error| unreadable(path, &error))?;
        if metadata.is_dir() {
            walk(path, wanted, &mut BTreeSet::new(), &mut files)?;
        } else {
            files.push(path.clone());
        }
    }
    files.retain(|file| seen.insert(file.clone()));
    Ok(files)
}

/// One file, or standard input.
///
/// # Errors
/// It cannot be read, is too large, or is not UTF-8.
pub(super) fn text(path: &Path) -> Result<Text, Problem> {
    let name = match path.to_str() {
        Some("-") => "<stdin>".to_owned(),
        _ => path.display().to_string(),
    };
    let problem = |message: String| Problem::whole_file(&name, message);
    let bytes = bytes(path).map_err(|error| problem(format!("cannot be read: {error}")))?;
    if bytes.len() as u64 > MAX_FILE {
        let bound = MAX_FILE >> 20;
        return Err(problem(format!("larger than {bound} MiB; split it")));
    }
    match String::from_utf8(bytes) {
        Ok(text) => Ok(Text { name, text }),
        Err(_) => Err(problem(
            "not UTF-8 text; policies are YAML or JSON".to_owned(),
        )),
    }
}

/// Up to one byte more than a file may have.
fn bytes(path: &Path) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    if path == Path::new("-") {
        let stdin = std::io::stdin().lock();
        stdin.take(MAX_FILE + 1).read_to_end(&mut bytes)?;
    } else {
        let file = fs::File::open(path)?;
        file.take(MAX_FILE + 1).read_to_end(&mut bytes)?;
    }
    Ok(bytes)
}

fn unreadable(path: &Path, error: &std::io::Error) -> Trouble {
    Trouble::Local(format!("cannot read {}: {error}", path.display()))
}

/// `seen` holds device and inode of the folders on the way down, so that links in a circle end.
fn walk(
    folder: &Path,
    wanted: Wanted,
    seen: &mut BTreeSet<(u64, u64)>,
    files: &mut Vec<PathBuf>,
) -> Result<(), Trouble> {
    let opened = fs::metadata(folder).and_then(|about| Ok((about, fs::read_dir(folder)?)));
    let Ok((metadata, entries)) = opened else {
        // Read like a file it says what is wrong with it.
        files.push(folder.to_owned());
        return Ok(());
    };
    if !seen.insert((metadata.dev(), metadata.ino())) {
        return Ok(());
    }
    let mut entries: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    entries.sort();
    for path in entries.into_iter().filter(|path| !is_hidden(path)) {
        if path.is_dir() {
            walk(&path, wanted, seen, files)?;
        } else if is_wanted(&path, wanted) {
            if files.len() == MAX_FILES {
                let folder = folder.display();
                return Err(Trouble::Local(format!(
                    "{folder}: more than {MAX_FILES} files; name fewer of them"
                )));
            }
            files.push(path);
        }
    }
    Ok(())
}

fn is_hidden(path: &Path) -> bool {
    path.file_name()
        .is_some_and(|name| name.as_encoded_bytes().starts_with(b"."))
}

fn is_wanted(path: &Path, wanted: Wanted) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let name = name.to_ascii_lowercase();
    match wanted {
        Wanted::Tests => name.ends_with(TEST),
        Wanted::Policies => {
            !name.ends_with(TEST)
                && [".yaml", ".yml", ".json"]
                    .iter()
                    .any(|ending| name.ends_with(ending))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_gives_its_policies_without_test_cases_and_hidden_files() {
        let folder = tempfile::tempdir().unwrap();
        let of = |name: &str| folder.path().join(name);
        fs::create_dir(of("deep")).unwrap();
        for name in [
            "b.yaml",
            "a.json",
            "deep/c.YML",
            "b.test.yaml",
            ".hidden.yaml",
            "notes.txt",
        ] {
            fs::write(of(name), "").unwrap();
        }
        std::os::unix::fs::symlink(folder.path(), of("deep/circle")).unwrap();
        let names = |wanted| -> Vec<String> {
            let files = list(&[folder.path().to_owned(), of("b.yaml")], wanted).unwrap();
            let short = |file: PathBuf| file.strip_prefix(folder.path()).unwrap().to_owned();
            files
                .into_iter()
                .map(|file| short(file).display().to_string())
                .collect()
        };
        assert_eq!(names(Wanted::Policies), ["a.json", "b.yaml", "deep/c.YML"]);
        assert_eq!(names(Wanted::Tests), ["b.test.yaml", "b.yaml"]);
    }

    #[test]
    fn what_cannot_be_read_is_named() {
        let missing = Path::new("no/such/file.yaml");
        let Err(Trouble::Local(why)) = read(&[missing.to_owned()], Wanted::Policies) else {
            panic!("read what is not there");
        };
        assert!(why.contains("no/such/file.yaml: No such file"), "{why}");
    }

    #[test]
    fn a_file_that_cannot_be_read_is_a_problem_of_its_own_and_hides_no_other() {
        let folder = tempfile::tempdir().unwrap();
        let of = |name: &str| folder.path().join(name);
        fs::write(of("a.yaml"), "a: 1").unwrap();
        fs::write(of("b.yaml"), [0xff, 0xfe, b'a']).unwrap();
        fs::write(of("c.yaml"), vec![b'#'; (4 << 20) + 1]).unwrap();
        let read = read(&[folder.path().to_owned()], Wanted::Policies).unwrap();
        assert_eq!((read.files(), read.texts.len()), (3, 1));
        let told: Vec<&str> = read
            .problems
            .iter()
            .map(|problem| &*problem.message)
            .collect();
        assert_eq!(
            told,
            [
                "not UTF-8 text; policies are YAML or JSON",
                "larger than 4 MiB; split it"
            ]
        );
        assert!(read.problems[0].file.ends_with("b.yaml"));
    }
}
