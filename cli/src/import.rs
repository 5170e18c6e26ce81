//! `cresset import`: recorded events into the relay's log, as if they happened now.
//!
//! One event a line, in the JSON that karmor, the relay's stdout and the file sink write. A line that is not an event
//! is told with its file and number and left out; the others go in. Imported events get ids of their own.

use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use clap::Args;
use futures::channel::mpsc;
use futures::future::BoxFuture;
use futures::lock::Mutex as AsyncMutex;
use futures::{FutureExt, SinkExt, StreamExt};
use proto::json::{self, ParseError};
use proto::link;
use proto::query::{ImportReply, ImportRequest};
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::timeout;
use tonic::Status;

use crate::connect::{AdminArgs, Relay, Trouble, say};

/// Events in one call. What is not known when the relay goes away in the middle is no more than that.
const CALL: u64 = 5000;
/// In the metadata of an error: how many events of the call are on disk all the same.
const ACCEPTED: &str = "cresset-accepted";
/// Requests on their way to the connection.
const AHEAD: usize = 256;
/// Bytes that go out in one piece, if they come without a pause. A relay that writes reads nothing meanwhile, and a connection on
/// which a few hundred small frames wait is taken for an attack (h2 0.4.16 counts those below 256 bytes, and ends it).
const PIECE: usize = 16 << 10;
const PAUSE: Duration = Duration::from_millis(5);
/// Lines beyond this are not events: an event is at most 1 MiB, and JSON writes a byte as at most six.
const MAX_LINE: usize = 8 << 20;

/// Put recorded events (JSON, one a line) into the relay's log
#[derive(Args, Clone, Debug)]
pub(crate) struct ImportArgs {
    /// Files to read; - is standard input
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,

    #[command(flatten)]
    admin: AdminArgs,
}

/// Runs `cresset import`.
///
/// # Errors
/// An unreachable relay, a relay that cannot take events now, a file that cannot be read. How many events went in by then is
/// told first.
pub(crate) async fn import(args: ImportArgs) -> Result<ExitCode, Trouble> {
    // Opened first: a wrong name should not leave half of the files imported.
    let files = args
        .files
        .iter()
        .map(|path| open(path))
        .collect::<Result<Vec<_>, _>>()?;
    let relay = args.admin.connect().await?;
    let mut stop = stop_signals()?;
    let lines = Arc::new(Mutex::new(Lines::default()));
    let (requests, waiting) = mpsc::channel(AHEAD);
    let (done, read) = tokio::sync::oneshot::channel();
    // A thread of its own, which nobody waits for when the relay takes no more: standard input may never end.
    std::thread::spawn({
        let (lines, runtime) = (lines.clone(), tokio::runtime::Handle::current());
        move || {
            let read = read_all(files, &lines, |request| send(&runtime, &requests, request));
            let _ = done.send(read); // whoever asked has left
        }
    });
    let mut sent = Sent::new(waiting);
    let outcome = tokio::select! {
        outcome = sent.all(&relay, &lines) => outcome,
        () = &mut stop => {
            sent.tell("cut off")?;
            return Ok(ExitCode::FAILURE);
        }
    };
    if let Err(status) = outcome {
        sent.tell("cut off")?;
        return Err(relay.trouble(status));
    }
    let read = read
        .await
        .map_err(|_| Trouble::Local("reading the files was cut off".to_string()))?;

    let lines = lines.lock().unwrap_or_else(PoisonError::into_inner);
    let bad = lines.bad + (lines.sent - sent.accepted.min(lines.sent));
    let left_out = match bad {
        0 => String::new(),
        bad => format!("; {bad} lines left out"),
    };
    say(&format!("imported {} events{left_out}\n", sent.accepted))?;
    read?;
    Ok(if bad > 0 {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    })
}

/// SIGINT or SIGTERM.
fn stop_signals() -> Result<BoxFuture<'static, ()>, Trouble> {
    let failed = |error: io::Error| Trouble::Local(format!("no signal handlers: {error}"));
    let mut interrupt = signal(SignalKind::interrupt()).map_err(failed)?;
    let mut terminate = signal(SignalKind::terminate()).map_err(failed)?;
    Ok(async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
    }
    .boxed())
}

/// What was handed to the relay, in calls that are answered one after the other: the answers tell how far it came.
struct Sent {
    waiting: Arc<AsyncMutex<mpsc::Receiver<ImportRequest>>>,
    /// On disk, as the answers say.
    accepted: u64,
    /// Handed over in the call that was not answered.
    unanswered: Arc<AtomicU64>,
    /// In the calls before.
    before: u64,
}

impl Sent {
    fn new(waiting: mpsc::Receiver<ImportRequest>) -> Self {
        Self {
            waiting: Arc::new(AsyncMutex::new(waiting)),
            accepted: 0,
            unanswered: Arc::default(),
            before: 0,
        }
    }

    /// Everything, to the end.
    async fn all(&mut self, relay: &Relay, lines: &Mutex<Lines>) -> Result<(), Status> {
        loop {
            let first = self.waiting.lock().await.next().await;
            let Some(first) = first else {
                return Ok(());
            };
            let reply = self.call(relay, first).await.inspect_err(|status| {
                let accepted = status.metadata().get(ACCEPTED);
                let accepted = accepted.and_then(|text| text.to_str().ok()?.parse::<u64>().ok());
                if let Some(accepted) = accepted {
                    self.accepted += accepted;
                    self.unanswered.store(0, Ordering::Relaxed);
                }
            })?;
            let lines = lines.lock().unwrap_or_else(PoisonError::into_inner);
            for refused in &reply.rejected {
                let place = lines.place(self.before + refused.sequence);
                eprintln!("{place}: refused: {}", refused.reason);
            }
            self.accepted += reply.accepted;
            self.before += self.unanswered.swap(0, Ordering::Relaxed);
        }
    }

    /// One call: the first event and what follows it, up to a number.
    async fn call(&self, relay: &Relay, first: ImportRequest) -> Result<ImportReply, Status> {
        self.unanswered.store(1, Ordering::Relaxed);
        let state = (self.waiting.clone(), self.unanswered.clone());
        let rest = futures::stream::unfold(state, async |(waiting, count)| {
            let room = CALL - count.load(Ordering::Relaxed);
            let next = piece(&mut *waiting.lock().await, room).await?;
            count.fetch_add(next.len() as u64, Ordering::Relaxed);
            Some((futures::stream::iter(next), (waiting, count)))
        });
        let requests = futures::stream::once(std::future::ready(first)).chain(rest.flatten());
        let reply = relay.query().import(requests).await?;
        Ok(reply.into_inner())
    }

    /// What went in before the end that nobody wished for.
    fn tell(&self, why: &str) -> Result<(), Trouble> {
        let unknown = match self.unanswered.load(Ordering::Relaxed) {
            0 => String::new(),
            unknown => format!(", and none to all of the {unknown} after them"),
        };
        say(&format!(
            "{why}: {} events went in{unknown}\n",
            self.accepted
        ))
    }
}

/// What is there, up to a piece and so many requests; none at the end, or where there is no room.
async fn piece(
    waiting: &mut mpsc::Receiver<ImportRequest>,
    room: u64,
) -> Option<Vec<ImportRequest>> {
    if room == 0 {
        return None;
    }
    let first = waiting.next().await?;
    let mut bytes = first.payload.len();
    let mut piece = vec![first];
    while bytes < PIECE && (piece.len() as u64) < room {
        let Ok(Some(next)) = timeout(PAUSE, waiting.next()).await else {
            break;
        };
        bytes += next.payload.len();
        piece.push(next);
    }
    Some(piece)
}

/// False: the relay takes no more.
fn send(
    runtime: &tokio::runtime::Handle,
    requests: &mpsc::Sender<ImportRequest>,
    request: ImportRequest,
) -> bool {
    let mut requests = requests.clone();
    runtime.block_on(requests.send(request)).is_ok()
}

/// A file that was opened, and its name for messages.
type Opened = (String, Box<dyn BufRead + Send>);

fn open(path: &Path) -> Result<Opened, Trouble> {
    if path == Path::new("-") {
        return Ok(("stdin".to_string(), Box::new(BufReader::new(io::stdin()))));
    }
    let name = path.display().to_string();
    match File::open(path) {
        Ok(file) => Ok((name, Box::new(BufReader::with_capacity(256 << 10, file)))),
        Err(error) => Err(Trouble::Local(format!("cannot read {name}: {error}"))),
    }
}

/// Which line became which request, in runs of lines that follow each other.
#[derive(Debug, Default)]
struct Lines {
    sent: u64,
    bad: u64,
    runs: Vec<Run>,
}

#[derive(Debug)]
struct Run {
    first: u64,
    file: Arc<str>,
    line: u64,
}

impl Lines {
    fn add(&mut self, file: &Arc<str>, line: u64) {
        let next = self
            .runs
            .last()
            .is_some_and(|run| run.file == *file && run.line + (self.sent - run.first) == line);
        if !next {
            self.runs.push(Run {
                first: self.sent,
                file: file.clone(),
                line,
            });
        }
        self.sent += 1;
    }

    /// `file:line` of a request.
    fn place(&self, request: u64) -> String {
        let run = self
            .runs
            .partition_point(|run| run.first <= request)
            .checked_sub(1)
            .and_then(|at| self.runs.get(at));
        match run {
            Some(run) => format!("{}:{}", run.file, run.line + (request - run.first)),
            None => format!("event {request}"),
        }
    }
}

/// Reads every file to its end; what is no event is told on stderr.
fn read_all(
    files: Vec<Opened>,
    lines: &Mutex<Lines>,
    mut send: impl FnMut(ImportRequest) -> bool,
) -> Result<(), Trouble> {
    for (name, mut from) in files {
        let name: Arc<str> = name.into();
        let mut text = Vec::new();
        for line in 1.. {
            text.clear();
            match read_line(&mut from, &mut text) {
                Ok(0) => break,
                Ok(_) => {}
                Err(error) => {
                    return Err(Trouble::Local(format!(
                        "{name}:{line}: cannot read on: {error}"
                    )));
                }
            }
            match event(&text) {
                Ok(None) => {}
                Ok(Some(request)) => {
                    lines
                        .lock()
                        .unwrap_or_else(PoisonError::into_inner)
                        .add(&name, line);
                    if !send(request) {
                        return Ok(()); // the answer says why
                    }
                }
                Err(reason) => {
                    eprintln!("{name}:{line}: {reason}");
                    lines.lock().unwrap_or_else(PoisonError::into_inner).bad += 1;
                }
            }
        }
    }
    Ok(())
}

/// Reads to the line's end; of a line that is too long only the beginning is kept.
fn read_line(from: &mut dyn BufRead, into: &mut Vec<u8>) -> io::Result<usize> {
    let mut read = 0;
    loop {
        let chunk = from.fill_buf()?;
        let end = chunk
            .iter()
            .position(|byte| *byte == b'\n')
            .map(|at| at + 1);
        let taken = end.unwrap_or(chunk.len());
        let room = (MAX_LINE + 1).saturating_sub(into.len());
        into.extend_from_slice(&chunk[..taken.min(room)]);
        from.consume(taken);
        read += taken;
        if end.is_some() || taken == 0 {
            return Ok(read);
        }
    }
}

/// The request for a line; none for an empty one.
fn event(line: &[u8]) -> Result<Option<ImportRequest>, String> {
    if line.len() > MAX_LINE {
        return Err(format!("the line is longer than {} MiB", MAX_LINE >> 20));
    }
    let text = std::str::from_utf8(line)
        .map_err(|_| "it is not UTF-8 text".to_string())?
        .trim();
    if text.is_empty() {
        return Ok(None);
    }
    let (kind, payload) = json::parse(text).map_err(|error| match error {
        // The line is known better here than to the JSON reader, which was given one.
        ParseError::Syntax { column, reason, .. } => format!("column {column}: {reason}"),
        error => error.to_string(),
    })?;
    Ok(Some(ImportRequest {
        kind: link::EventKind::from(kind).into(),
        payload,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(files: &[(&str, &str)]) -> (Lines, usize) {
        let open = |(name, text): &(&str, &str)| -> Opened {
            (
                name.to_string(),
                Box::new(io::Cursor::new(text.as_bytes().to_vec())),
            )
        };
        let lines = Mutex::new(Lines::default());
        let mut sent = 0;
        let send = |_| {
            sent += 1;
            true
        };
        read_all(files.iter().map(open).collect(), &lines, send).unwrap();
        (lines.into_inner().unwrap(), sent)
    }

    const ALERT: &str = r#"{"PPID":0,"UID":0,"Type":"MatchedPolicy"}"#;

    #[test]
    fn a_refused_event_is_found_again_by_file_and_line() {
        let first = format!("{ALERT}\n\n{ALERT}\nnot json\n{ALERT}");
        let (lines, sent) = read(&[("a", &first), ("b", &format!("{ALERT}\n{ALERT}\n"))]);
        assert_eq!((sent, lines.sent, lines.bad), (5, 5, 1));
        let places: Vec<String> = (0..5).map(|request| lines.place(request)).collect();
        assert_eq!(places, ["a:1", "a:3", "a:5", "b:1", "b:2"]);
    }

    #[test]
    fn a_line_of_any_length_costs_a_bounded_memory_and_only_itself() {
        let long = format!("{}\n{ALERT}\n", "x".repeat(MAX_LINE * 2));
        let (lines, sent) = read(&[("a", &long)]);
        assert_eq!((sent, lines.bad, lines.place(0).as_str()), (1, 1, "a:2"));
    }
}
