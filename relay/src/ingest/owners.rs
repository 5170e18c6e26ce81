//! Whose stream is whose.
//!
//! A stream's id stands in every event id, so whoever reads events knows it. A sensor that sent numbers of another's
//! stream first would have that one's events taken for duplicates. So a stream belongs to the sensor that announced it
//! first, which happens before any of its events can be read; what others send in it is rejected.
//!
//! ```text
//! DATA/streams   "cresset1" ( stream, 8 bytes │ first half of the SHA-256 of the sensor's id, 16 bytes )*
//! ```
//! Appended and synced before the sensor is welcomed, written anew when it is twice as long as it may be. A torn end is
//! cut. Relays on one log agree on owners instead (`log::Agreement`): whom one of them gave a stream has it at all of them, or
//! a sensor could write numbers of another's stream through a relay that has not heard of it.
//!
//! Only a certificate makes an owner: relays forward others' streams, and where nobody says who they are, on loopback,
//! there is nobody to own anything.

use std::collections::{HashMap, VecDeque};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use proto::StreamId;
use sha2::{Digest as _, Sha256};
use tokio::sync::Mutex;

use super::session::MAX_STREAMS;
use crate::log::Agreement;

/// What the file begins with; the digit is its format.
const HEAD: &[u8; 8] = b"cresset1";

/// Bytes of an entry.
const ENTRY: usize = 24;

/// What the keys begin with that relays agree on.
const SHARED: &[u8] = b"stream/";

/// Streams remembered of all sensors. Beyond that those of the sensor with the most are forgotten, the oldest first.
const MAX_TOTAL: usize = 65_536;

/// The owners; a cheap handle. By default it keeps them in memory only.
#[derive(Debug, Clone)]
pub struct Owners {
    book: Book,
}

/// Where they stand.
#[derive(Debug, Clone)]
enum Book {
    /// This relay's own. One claim at a time: however many wait for a disk that hangs, they hold one thread.
    Own(Arc<Mutex<State>>),
    /// All relays'.
    Shared(Arc<dyn Agreement>),
}

impl Default for Owners {
    fn default() -> Self {
        Self::kept_by(State::default())
    }
}

#[derive(Debug, Default)]
struct State {
    path: Option<PathBuf>,
    /// Entries in the file.
    written: usize,
    of: HashMap<StreamId, Owner>,
    /// The oldest first.
    by: HashMap<Owner, VecDeque<StreamId>>,
}

/// A sensor's id, by its digest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Owner([u8; 16]);

impl Owner {
    fn named(sensor: &str) -> Self {
        let [bytes @ .., _, _, _, _, _, _, _, _, _, _, _, _, _, _, _, _]: [u8; 32] =
            Sha256::digest(sensor.as_bytes()).into();
        Self(bytes)
    }
}

impl Owners {
    /// Reads a file; there is none at first.
    ///
    /// # Errors
    /// It cannot be read, or is of another format.
    pub fn open(path: &Path) -> io::Result<Self> {
        let bytes = match fs::read(path) {
            Ok(bytes) => bytes,
            Err(why) if why.kind() == io::ErrorKind::NotFound => Vec::new(),
            Err(why) => return Err(why),
        };
        let mut state = State {
            path: Some(path.to_owned()),
            ..State::default()
        };
        if bytes.len() < HEAD.len() && !bytes.is_empty() {
            // Cut short by a crash: there was nothing behind it.
            state.rewrite()?;
        } else if let Some((head, entries)) = bytes.split_first_chunk::<8>() {
            if head != HEAD {
                return Err(io::Error::other(
                    "of a format that this program does not read",
                ));
            }
            let (entries, torn) = entries.as_chunks::<ENTRY>();
            entries.iter().for_each(|entry| state.read(entry));
            if !torn.is_empty() || entries.len() > 2 * state.of.len() {
                state.rewrite()?;
            }
        }
        Ok(Self::kept_by(state))
    }

    /// Owners that all relays of a log agree on.
    #[must_use]
    pub fn shared(agreement: Arc<dyn Agreement>) -> Self {
        Self {
            book: Book::Shared(agreement),
        }
    }

    fn kept_by(state: State) -> Self {
        Self {
            book: Book::Own(Arc::new(Mutex::new(state))),
        }
    }

    /// Takes streams that nobody has for a sensor, on disk or agreed on when it returns, and gives those that are another's.
    ///
    /// # Errors
    /// They cannot be written, and nobody has them still.
    pub async fn claim(&self, sensor: &str, streams: &[StreamId]) -> io::Result<Vec<StreamId>> {
        let owner = Owner::named(sensor);
        match &self.book {
            Book::Own(state) => {
                let mut state = Arc::clone(state).lock_owned().await;
                let streams = streams.to_vec();
                // It waits for the disk. Whoever stops waiting for it leaves it to its end.
                let claimed = tokio::task::spawn_blocking(move || state.claim(owner, &streams));
                claimed.await.unwrap_or_else(|_| Err(stopping()))
            }
            Book::Shared(agreement) => agree(&**agreement, owner, streams).await,
        }
    }
}

/// A claim only ends early when the runtime does.
fn stopping() -> io::Error {
    io::Error::other("the relay is stopping")
}

/// Those that another has, by what all relays agree on.
async fn agree(
    agreement: &dyn Agreement,
    owner: Owner,
    streams: &[StreamId],
) -> io::Result<Vec<StreamId>> {
    let own = Bytes::copy_from_slice(&owner.0);
    let key = |stream: &StreamId| Bytes::from([SHARED, &stream.0].concat());
    let entries = streams.iter().map(|stream| (key(stream), own.clone()));
    let entries: Vec<_> = entries.collect();
    let holds = agreement.first(&entries).await?;
    let foreign = streams.iter().zip(holds).filter(|(_, holds)| *holds != own);
    Ok(foreign.map(|(stream, _)| *stream).collect())
}

impl State {
    fn claim(&mut self, owner: Owner, streams: &[StreamId]) -> io::Result<Vec<StreamId>> {
        let (mut free, mut foreign) = (Vec::new(), Vec::new());
        for stream in streams {
            match self.of.get(stream) {
                None if free.contains(stream) => {}
                None => free.push(*stream),
                Some(other) if *other != owner => foreign.push(*stream),
                Some(_) => {}
            }
        }
        self.append(owner, &free)?;
        free.iter().for_each(|stream| self.give(*stream, owner));
        Ok(foreign)
    }

    fn read(&mut self, entry: &[u8; ENTRY]) {
        let [stream @ .., _, _, _, _, _, _, _, _, _, _, _, _, _, _, _, _] = *entry;
        let [_, _, _, _, _, _, _, _, owner @ ..] = *entry;
        self.written += 1;
        self.give(StreamId(stream), Owner(owner));
    }

    /// The newest entry counts: what was forgotten may have been taken by another since.
    fn give(&mut self, stream: StreamId, owner: Owner) {
        if let Some(before) = self.of.insert(stream, owner)
            && let Some(streams) = self.by.get_mut(&before)
        {
            streams.retain(|other| *other != stream);
        }
        let own = self.by.entry(owner).or_default();
        own.push_back(stream);
        if own.len() > MAX_STREAMS {
            self.forget_one(owner);
        } else if self.of.len() > MAX_TOTAL {
            let most = self.by.iter().max_by_key(|(_, streams)| streams.len());
            if let Some(most) = most.map(|(owner, _)| *owner) {
                self.forget_one(most);
            }
        }
    }

    fn forget_one(&mut self, owner: Owner) {
        let Some(streams) = self.by.get_mut(&owner) else {
            return;
        };
        if let Some(oldest) = streams.pop_front() {
            self.of.remove(&oldest);
        }
        if streams.is_empty() {
            self.by.remove(&owner);
        }
    }

    fn append(&mut self, owner: Owner, streams: &[StreamId]) -> io::Result<()> {
        let Some(path) = self.path.clone().filter(|_| !streams.is_empty()) else {
            return Ok(());
        };
        if self.written > 2 * MAX_TOTAL {
            self.rewrite()?;
        }
        let entries = streams.iter().flat_map(|stream| entry(*stream, owner));
        let mut bytes: Vec<u8> = entries.collect();
        if self.written == 0 {
            bytes.splice(0..0, *HEAD);
            self.folder()?;
        }
        let mut options = OpenOptions::new();
        let options = options.append(true).create(true).mode(0o600);
        // What a failed write left is cut off at the next start; until then entries behind it would be shifted.
        let written = options.open(path).and_then(|mut file| {
            file.write_all(&bytes)?;
            file.sync_data()
        });
        if let Err(why) = written {
            self.rewrite()?;
            return Err(why);
        }
        self.written += streams.len();
        Ok(())
    }

    fn rewrite(&mut self) -> io::Result<()> {
        let Some(path) = self.path.clone() else {
            return Ok(());
        };
        self.folder()?;
        let mut bytes = HEAD.to_vec();
        for (owner, streams) in &self.by {
            bytes.extend(streams.iter().flat_map(|stream| entry(*stream, *owner)));
        }
        let new = path.with_extension("new");
        let mut options = OpenOptions::new();
        let options = options.write(true).create(true).truncate(true).mode(0o600);
        let mut file = options.open(&new)?;
        file.write_all(&bytes)?;
        file.sync_data()?;
        fs::rename(&new, &path)?;
        self.written = self.of.len();
        sync_folder(&path)
    }

    fn folder(&self) -> io::Result<()> {
        let folder = self.path.as_deref().and_then(Path::parent);
        folder.map_or(Ok(()), |folder| {
            let mut folders = fs::DirBuilder::new();
            folders.recursive(true).mode(0o700).create(folder)
        })
    }
}

fn sync_folder(path: &Path) -> io::Result<()> {
    path.parent()
        .map_or(Ok(()), |folder| File::open(folder)?.sync_all())
}

fn entry(stream: StreamId, owner: Owner) -> impl Iterator<Item = u8> {
    stream.0.into_iter().chain(owner.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stream(number: u64) -> StreamId {
        StreamId(number.to_be_bytes())
    }

    #[tokio::test]
    async fn a_stream_is_its_first_sensors_also_after_a_restart() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("data/streams");
        let owners = Owners::open(&path).unwrap();
        let both = [stream(1), stream(2), stream(1)];
        assert_eq!(owners.claim("a", &both).await.unwrap(), []);
        assert_eq!(
            owners.claim("b", &[stream(2), stream(3)]).await.unwrap(),
            [stream(2)]
        );
        for owners in [owners, Owners::open(&path).unwrap()] {
            assert_eq!(owners.claim("a", &both).await.unwrap(), []);
            assert_eq!(owners.claim("a", &[stream(3)]).await.unwrap(), [stream(3)]);
        }
    }

    #[tokio::test]
    async fn a_file_that_is_cut_at_any_byte_keeps_what_is_whole() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("streams");
        Owners::open(&path)
            .unwrap()
            .claim("a", &[stream(1), stream(2)])
            .await
            .unwrap();
        let whole = fs::read(&path).unwrap();
        for cut in 0..whole.len() {
            fs::write(&path, &whole[..cut]).unwrap();
            let owners = Owners::open(&path).unwrap();
            let kept = cut.saturating_sub(HEAD.len()) / ENTRY;
            let foreign = owners.claim("b", &[stream(1), stream(2)]).await.unwrap();
            assert_eq!(foreign.len(), kept, "cut at {cut}");
            // What was taken behind the cut stands where it can be read again.
            let again = Owners::open(&path).unwrap();
            assert_eq!(
                again.claim("b", &[stream(1), stream(2)]).await.unwrap(),
                foreign
            );
        }
        fs::write(&path, b"cresset9").unwrap();
        assert!(Owners::open(&path).is_err());
    }

    #[tokio::test]
    async fn a_sensor_that_takes_many_forgets_its_own() {
        let owners = Owners::default();
        owners.claim("a", &[stream(1)]).await.unwrap();
        for number in 2..2 * MAX_STREAMS as u64 {
            owners.claim("b", &[stream(number)]).await.unwrap();
        }
        assert_eq!(owners.claim("c", &[stream(1)]).await.unwrap(), [stream(1)]);
        assert_eq!(
            owners.claim("c", &[stream(2)]).await.unwrap(),
            [],
            "it was forgotten"
        );
    }
}
