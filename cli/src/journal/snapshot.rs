//! `cresset journal snapshot` and `restore`: a relay's data folder, whole, in another folder, and back.
//!
//! ```text
//! OUT/snapshot          "cresset snapshot 1", then "BYTES NAME" a file; written last: without it there is no snapshot
//!     cresset-data …    the data folder's own files
//!     journal/          cursors first, then segments, oldest first
//!     dead-letters/…    the same for each sink
//!     authority/ …      the authority's key and who joined: to be kept as secret as the data folder
//! ```
//! The relay may run meanwhile. Cursors are copied before the segments, so none stands past what is copied; a segment that
//! retention removes on the way takes the older copies with it; a record that is half written at the end is the torn tail that
//! every start cuts off. Everything is read back and verified before the snapshot counts. What came after it is not in it: to
//! a restored relay sinks get some events again, and sensors do not send again what was acknowledged later.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;
use journal::RealDisk;
use journal::inspect::{Depth, inspect};

use super::{Failed, holds_journal, print};
use crate::connect::say;

const LIST: &str = "snapshot";
const FIRST_LINE: &str = "cresset snapshot 1";

/// Files of the data folder besides the folders.
const OWN: [&str; 8] = [
    "cresset-data",
    "relay.secret",
    "policies.last",
    "policies.applied",
    "policies.pause",
    "policies.rollout",
    "sensors.json",
    "streams",
];

/// Folders of small files: who joined whom, where events were that are gone, what is paused, what was passed when.
const SMALL: [&str; 4] = ["authority", "heads", "paused", "passed"];

#[derive(Args, Debug)]
pub(super) struct Snapshot {
    /// The relay's data folder; it may be running
    data: PathBuf,

    /// Where to; must not exist
    out: PathBuf,
}

#[derive(Args, Debug)]
pub(super) struct Restore {
    /// What `snapshot` made
    snapshot: PathBuf,

    /// The relay's data folder to be; must not exist, or be empty
    data: PathBuf,
}

pub(super) fn snapshot(args: &Snapshot) -> Result<ExitCode, Failed> {
    let Snapshot { data, out } = args;
    if !data.join("cresset-data").is_file() || !holds_journal(&data.join("journal")) {
        return Err(Failed::Closed(format!(
            "{} is no data folder of a relay; give the one that its relay.data_dir names",
            data.display()
        )));
    }
    if out.exists() {
        return Err(Failed::Closed(format!(
            "{} is there already; give another name",
            out.display()
        )));
    }
    let copied = copy(data, out).map_err(|error| midway("copied to", out, &error))?;
    let text = verified(out)?;
    write_list(out, &copied).map_err(|error| midway("copied to", out, &error))?;
    let bytes: u64 = copied.iter().map(|(_, bytes)| bytes).sum();
    say(&format!(
        "{text}{}: {} files, {bytes} bytes, verified; `cresset journal restore` makes a data folder of it\n",
        out.display(),
        copied.len()
    ))?;
    Ok(ExitCode::SUCCESS)
}

pub(super) fn restore(args: &Restore) -> Result<ExitCode, Failed> {
    let Restore { snapshot, data } = args;
    let files = read_list(snapshot).map_err(Failed::Closed)?;
    let taken = fs::read_dir(data).is_ok_and(|mut entries| entries.next().is_some());
    if taken || data.is_file() {
        return Err(Failed::Closed(format!(
            "{} is not empty; move it away, or give another folder",
            data.display()
        )));
    }
    let made = put_back(snapshot, data, &files);
    made.map_err(|error| midway("restored to", data, &error))?;
    say(&format!(
        "{}: {} files restored; a relay with relay.data_dir: {} goes on from there\n",
        data.display(),
        files.len(),
        data.display()
    ))?;
    Ok(ExitCode::SUCCESS)
}

fn midway(what: &str, place: &Path, error: &io::Error) -> Failed {
    Failed::Midway(format!(
        "not everything could be {what} {}: {error}; remove it and try again",
        place.display()
    ))
}

/// Names below the data folder, and how many bytes of each were copied.
type Copied = Vec<(String, u64)>;

fn copy(data: &Path, out: &Path) -> io::Result<Copied> {
    folder(out)?;
    let mut copied = Copied::new();
    copy_journal(data, out, "journal", &mut copied)?;
    for sink in names(&data.join("dead-letters"))? {
        let below = format!("dead-letters/{sink}");
        match data.join(&below).is_dir() {
            true => copy_journal(data, out, &below, &mut copied)?,
            // Who settled them.
            false => drop(copy_file(data, out, &below, &mut copied)?),
        }
    }
    for kept in SMALL {
        let all = names(&data.join(kept))?;
        for file in all.iter().filter(|name| !name.ends_with(".new")) {
            copy_file(data, out, &format!("{kept}/{file}"), &mut copied)?;
        }
    }
    for file in OWN {
        copy_file(data, out, file, &mut copied)?;
    }
    Ok(copied)
}

/// One journal's folder: what says where readers stand before what they read.
fn copy_journal(data: &Path, out: &Path, below: &str, copied: &mut Copied) -> io::Result<()> {
    let files = names(&data.join(below))?;
    let (segments, others): (Vec<String>, Vec<String>) =
        files.into_iter().partition(|name| name.ends_with(".seg"));
    let kept = |name: &&String| *name == "FORMAT" || name.ends_with(".cursor");
    for file in others.iter().filter(kept) {
        copy_file(data, out, &format!("{below}/{file}"), copied)?;
    }
    let mut older = Vec::new();
    for segment in segments {
        let name = format!("{below}/{segment}");
        if copy_file(data, out, &name, copied)? {
            older.push(name);
            continue;
        }
        // Retention has come so far: what is older is gone as well.
        for name in older.drain(..) {
            fs::remove_file(out.join(&name))?;
            copied.retain(|(known, _)| *known != name);
        }
    }
    Ok(())
}

/// Copies a file, if it is there.
fn copy_file(data: &Path, out: &Path, name: &str, copied: &mut Copied) -> io::Result<bool> {
    let to = out.join(name);
    let mut from = match File::open(data.join(name)) {
        Err(why) if why.kind() == io::ErrorKind::NotFound => return Ok(false),
        from => from?,
    };
    if let Some(parent) = to.parent() {
        folder(parent)?;
    }
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(true).mode(0o600);
    let mut to = options.open(to)?;
    let bytes = io::copy(&mut from, &mut to)?;
    to.sync_all()?;
    copied.push((name.to_owned(), bytes));
    Ok(true)
}

fn folder(path: &Path) -> io::Result<()> {
    // Events tell of secrets.
    DirBuilder::new().recursive(true).mode(0o700).create(path)
}

/// What is in a folder, sorted; nothing where there is none.
fn names(folder: &Path) -> io::Result<Vec<String>> {
    let entries = match fs::read_dir(folder) {
        Err(why) if why.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    let mut names = Vec::new();
    for entry in entries {
        names.push(entry?.file_name().to_string_lossy().into_owned());
    }
    names.sort();
    Ok(names)
}

/// Reads the copy of the journal whole; what is wrong with it is told, and lost records make it no snapshot.
fn verified(out: &Path) -> Result<String, Failed> {
    let path = out.join("journal");
    let disk =
        RealDisk::open_existing(&path).map_err(|error| midway("read back from", out, &error))?;
    let report = inspect(&disk, Depth::Everything)?;
    let text = print::verdict(&path, &report);
    if report.lost() > 0 {
        return Err(Failed::Midway(format!(
            "{text}records of the journal are damaged: `cresset journal repair` first; what was copied is in {}",
            out.display()
        )));
    }
    Ok(text)
}

fn write_list(out: &Path, copied: &Copied) -> io::Result<()> {
    let mut text = format!("{FIRST_LINE}\n");
    for (name, bytes) in copied {
        text += &format!("{bytes} {name}\n");
    }
    let new = out.join("snapshot.new");
    let mut file = File::create(&new)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    fs::rename(new, out.join(LIST))?;
    File::open(out)?.sync_all()
}

/// The files of a snapshot, all of which are there and as long as they were.
fn read_list(snapshot: &Path) -> Result<Vec<String>, String> {
    let list = snapshot.join(LIST);
    let text = fs::read_to_string(&list).map_err(|error| {
        format!(
            "{} is no snapshot, or was not finished: {}: {error}",
            snapshot.display(),
            list.display()
        )
    })?;
    let mut lines = text.lines();
    if lines.next() != Some(FIRST_LINE) {
        return Err(format!(
            "{} is not a list that this program reads (`{FIRST_LINE}`)",
            list.display()
        ));
    }
    let file = |line: &str| {
        let (bytes, name) = line.split_once(' ')?;
        let inside =
            !name.starts_with('/') && name.split('/').all(|part| !matches!(part, "" | "." | ".."));
        let there = fs::metadata(snapshot.join(name)).ok()?.len();
        (inside && bytes.parse() == Ok(there)).then(|| name.to_owned())
    };
    lines
        .map(|line| {
            file(line).ok_or_else(|| {
                format!(
                    "{}: `{line}` is missing or not as it was",
                    snapshot.display()
                )
            })
        })
        .collect()
}

/// Whole or not at all: under another name until everything is on disk.
fn put_back(snapshot: &Path, data: &Path, files: &[String]) -> io::Result<()> {
    let mut name = data.file_name().unwrap_or_default().to_owned();
    name.push(".restoring");
    let new = data.with_file_name(name);
    folder(&new)?;
    let mut copied = Copied::new();
    for file in files {
        if !copy_file(snapshot, &new, file, &mut copied)? {
            return Err(io::Error::other(format!("{file} has gone meanwhile")));
        }
    }
    for below in ["", "journal", "dead-letters"].into_iter().chain(SMALL) {
        if let Ok(folder) = File::open(new.join(below)) {
            folder.sync_all()?;
        }
    }
    if data.is_dir() {
        fs::remove_dir(data)?;
    }
    fs::rename(&new, data)?;
    let parent = data
        .parent()
        .filter(|parent| !parent.as_os_str().is_empty());
    File::open(parent.unwrap_or(Path::new(".")))?.sync_all()
}
