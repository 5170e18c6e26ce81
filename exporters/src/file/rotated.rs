//! The files that are full: names, count, compression.
//!
//! `PATH.1` is the newest. A number is taken by `PATH.n` or `PATH.n.gz`. A crash may leave a hole in the numbers (the next
//! rotation fills it), a half compressed `PATH.n.gz.partial` (removed at start) or both forms of one file (the `.gz` is
//! whole, as it got its name after its sync, so the other goes).

use std::fs::{self, File};
use std::io::{self, BufReader, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::thread::JoinHandle;

use flate2::Compression;
use flate2::write::GzEncoder;

pub(super) struct Rotated {
    current: PathBuf,
    keep: u32,
    gzip: bool,
    compressing: Option<JoinHandle<()>>,
}

impl Rotated {
    pub(super) fn new(current: PathBuf, keep: u32, gzip: bool) -> Self {
        Rotated {
            current,
            keep,
            gzip,
            compressing: None,
        }
    }

    /// Mends what a crash or a change of settings left behind.
    pub(super) fn tidy(&mut self) -> io::Result<()> {
        let mut plain = Vec::new();
        for number in 1..=self.keep {
            remove(&self.name(number, ".gz.partial"))?;
            if self.name(number, ".gz").exists() {
                remove(&self.name(number, ""))?;
            } else if self.name(number, "").exists() {
                plain.push(self.name(number, ""));
            }
        }
        // Numbers past `keep` are there when it was larger once.
        (self.keep + 1..)
            .take_while(|&number| self.taken(number))
            .try_for_each(|number| self.drop_number(number))?;
        if self.gzip && !plain.is_empty() {
            self.compress(plain);
        }
        Ok(())
    }

    /// The file that is written becomes number 1.
    pub(super) fn take_current(&mut self) -> io::Result<()> {
        self.settle();
        let hole = (1..=self.keep).find(|&number| !self.taken(number));
        let last = hole.unwrap_or(self.keep);
        self.drop_number(last)?;
        for number in (1..last).rev() {
            for form in ["", ".gz"] {
                rename(&self.name(number, form), &self.name(number + 1, form))?;
            }
        }
        let first = self.name(1, "");
        rename(&self.current, &first)?;
        sync_folder(&first)?;
        if self.gzip {
            self.compress(vec![first]);
        }
        Ok(())
    }

    fn name(&self, number: u32, form: &str) -> PathBuf {
        let mut name = self.current.clone().into_os_string();
        name.push(format!(".{number}{form}"));
        name.into()
    }

    fn taken(&self, number: u32) -> bool {
        ["", ".gz"]
            .iter()
            .any(|form| self.name(number, form).exists())
    }

    fn drop_number(&self, number: u32) -> io::Result<()> {
        remove(&self.name(number, ""))?;
        remove(&self.name(number, ".gz"))
    }

    /// On a thread of its own, so that the sink goes on meanwhile.
    fn compress(&mut self, files: Vec<PathBuf>) {
        self.settle();
        let work = move || {
            for file in files {
                if let Err(e) = compress(&file) {
                    tracing::warn!(file = %file.display(), error = %e, "full file stays uncompressed");
                }
            }
        };
        let spawned = std::thread::Builder::new().name("gzip".into()).spawn(work);
        // Without a thread the file stays as it is until the next start.
        self.compressing = spawned.ok();
    }

    /// Waits for the compression, whose file is about to get another number.
    fn settle(&mut self) {
        if let Some(thread) = self.compressing.take() {
            // A panic there left the plain file, which is whole.
            let _ = thread.join();
        }
    }
}

fn compress(plain: &Path) -> io::Result<()> {
    let with = |suffix: &str| {
        let mut name = plain.as_os_str().to_owned();
        name.push(suffix);
        PathBuf::from(name)
    };
    let (partial, whole) = (with(".gz.partial"), with(".gz"));
    let source = File::open(plain)?;
    let target = File::create(&partial)?;
    target.set_permissions(source.metadata()?.permissions())?;
    let mut encoder = GzEncoder::new(BufWriter::new(target), Compression::default());
    io::copy(&mut BufReader::new(source), &mut encoder)?;
    let mut target = encoder.finish()?;
    target.flush()?;
    target.get_ref().sync_all()?;
    fs::rename(&partial, &whole)?;
    sync_folder(&whole)?;
    fs::remove_file(plain)
}

fn sync_folder(of: &Path) -> io::Result<()> {
    File::open(of.parent().unwrap_or(Path::new("/")))?.sync_all()
}

fn remove(path: &Path) -> io::Result<()> {
    absent_is_fine(fs::remove_file(path))
}

fn rename(from: &Path, to: &Path) -> io::Result<()> {
    absent_is_fine(fs::rename(from, to))
}

fn absent_is_fine(done: io::Result<()>) -> io::Result<()> {
    match done {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        done => done,
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use flate2::read::GzDecoder;

    use super::*;

    struct Folder {
        dir: tempfile::TempDir,
    }

    impl Folder {
        fn new() -> Self {
            let dir = tempfile::tempdir().unwrap();
            Folder { dir }
        }

        fn put(&self, name: &str, text: &str) {
            fs::write(self.dir.path().join(name), text).unwrap();
        }

        fn rotated(&self, keep: u32, gzip: bool) -> Rotated {
            Rotated::new(self.dir.path().join("log"), keep, gzip)
        }

        /// Names and texts, compressed or not, in order.
        fn list(&self) -> Vec<(String, String)> {
            let mut all: Vec<_> = fs::read_dir(self.dir.path())
                .unwrap()
                .map(|entry| {
                    let entry = entry.unwrap();
                    let name = entry.file_name().into_string().unwrap();
                    let bytes = fs::read(entry.path()).unwrap();
                    let mut text = String::new();
                    match name.ends_with(".gz") {
                        true => GzDecoder::new(&bytes[..])
                            .read_to_string(&mut text)
                            .unwrap(),
                        false => bytes.as_slice().read_to_string(&mut text).unwrap(),
                    };
                    (name, text)
                })
                .collect();
            all.sort();
            all
        }

        fn expect(&self, files: &[(&str, &str)]) {
            let files: Vec<_> = files
                .iter()
                .map(|(n, t)| ((*n).to_owned(), (*t).to_owned()))
                .collect();
            assert_eq!(self.list(), files);
        }
    }

    #[test]
    fn numbers_move_up_and_the_oldest_goes() {
        let folder = Folder::new();
        let mut rotated = folder.rotated(2, false);
        for text in ["a", "b", "c"] {
            folder.put("log", text);
            rotated.take_current().unwrap();
        }
        folder.expect(&[("log.1", "c"), ("log.2", "b")]);
    }

    #[test]
    fn full_files_are_compressed() {
        let folder = Folder::new();
        let mut rotated = folder.rotated(3, true);
        for text in ["a", "b", "c"] {
            folder.put("log", text);
            rotated.take_current().unwrap();
        }
        rotated.settle();
        folder.expect(&[("log.1.gz", "c"), ("log.2.gz", "b"), ("log.3.gz", "a")]);
    }

    #[test]
    fn a_hole_that_a_crash_left_is_filled_and_costs_no_file() {
        let folder = Folder::new();
        folder.put("log.1", "c");
        folder.put("log.3", "a");
        folder.put("log", "d");
        folder.rotated(3, false).take_current().unwrap();
        folder.expect(&[("log.1", "d"), ("log.2", "c"), ("log.3", "a")]);
    }

    #[test]
    fn start_finishes_what_a_crash_left_half_done() {
        let folder = Folder::new();
        folder.put("log.1", "c");
        folder.put("log.1.gz.partial", "half");
        folder.put("log.2", "b");
        folder.put("log.4", "too old");
        let mut rotated = folder.rotated(3, true);
        rotated.tidy().unwrap();
        rotated.settle();
        folder.expect(&[("log.1.gz", "c"), ("log.2.gz", "b")]);
        // Both forms: the compressed one got its name last and is whole.
        folder.put("log.1", "c");
        folder.rotated(3, true).tidy().unwrap();
        folder.expect(&[("log.1.gz", "c"), ("log.2.gz", "b")]);
    }
}
