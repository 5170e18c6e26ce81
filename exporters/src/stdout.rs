//! This program's standard output, for people and for whatever collects container logs.
//!
//! Written without Rust's own buffer and lock, so a pipe whose reader has stopped stalls this sink's thread and nothing
//! else of the program. An event is done when the kernel has taken its last byte; there is nothing to sync. When the reader
//! closes the pipe the sink is away: events wait in the journal, and part of the last batch may be written again.

use std::fs::File;
use std::io::{self, ErrorKind, IsTerminal, Write};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use async_trait::async_trait;
use proto::FieldSet;
use yaml::{Node, Problem};

use crate::blocking::{Destination, OwnThread};
use crate::config::{BatchLimits, Defaults};
use crate::lines::{Format, Lines, unreadable};
use crate::{Batch, BuildError, Context, Outcome, Sink, Unavailable};

config! {
    /// Settings of a `stdout` sink.
    pub struct Config {
        /// `text`, `json` or `pretty-json`.
        pub format: Format,
    }
}

impl Config {
    /// The types say it all.
    /// It names none.
    pub(crate) fn look(&self, _node: &Node, _problems: &mut Vec<Problem>) {}

    pub(crate) fn check(&self, _node: &Node, _problems: &mut Vec<Problem>) {}
}

/// What is there goes at once: people watch.
pub(crate) static DEFAULTS: Defaults = Defaults {
    batch: BatchLimits {
        max_events: 1000,
        max_bytes: 1 << 20,
        max_delay: Duration::ZERO,
    },
    concurrency: 1,
    max_concurrency: 1,
    fields: FieldSet::KubeArmor,
};

/// The sink.
pub struct Stdout {
    thread: OwnThread,
}

impl Stdout {
    /// Makes the sink on descriptor 1.
    ///
    /// # Errors
    /// There is no standard output, or no thread can be made.
    pub fn build(name: &str, config: &Config, _context: &Context) -> Result<Self, BuildError> {
        let descriptor = io::stdout().as_fd().try_clone_to_owned().map_err(|e| {
            BuildError::new(
                name,
                format!("there is no standard output to write to: {e}"),
            )
        })?;
        let lines = Lines {
            format: config.format,
            fields: config.common().fields,
        };
        Self::over(name, File::from(descriptor), lines).map_err(|e| BuildError::new(name, e))
    }

    fn over(name: &str, out: File, lines: Lines) -> io::Result<Self> {
        let pipe = Pipe {
            terminal: out.is_terminal(),
            out,
            lines,
            buffer: Vec::new(),
        };
        OwnThread::start(name, pipe).map(|thread| Stdout { thread })
    }
}

#[async_trait]
impl Sink for Stdout {
    async fn send(&self, batch: Arc<Batch>) -> Result<Vec<Outcome>, Unavailable> {
        self.thread.deliver(batch).await
    }
}

struct Pipe {
    out: File,
    /// Somebody's screen, which obeys what it is sent: a process may call itself whatever it likes.
    terminal: bool,
    lines: Lines,
    buffer: Vec<u8>,
}

impl Destination for Pipe {
    fn deliver(&mut self, batch: &Batch) -> Result<Vec<Outcome>, Unavailable> {
        self.buffer.clear();
        let mut outcomes = Vec::with_capacity(batch.len());
        for event in batch.events() {
            let written = if self.terminal {
                self.lines.write_visible(event, &mut self.buffer)
            } else {
                self.lines.write(event, &mut self.buffer)
            };
            outcomes.push(match written {
                Ok(()) => Outcome::Done,
                Err(malformed) => Outcome::Reject {
                    reason: unreadable(event.kind(), &malformed),
                },
            });
        }
        write_all(&mut self.out, &self.buffer).map_err(away)?;
        Ok(outcomes)
    }
}

fn away(error: io::Error) -> Unavailable {
    Unavailable::new(match error.kind() {
        ErrorKind::BrokenPipe => "nobody reads the standard output any more".to_owned(),
        _ => format!("the standard output cannot be written: {error}"),
    })
}

/// As `Write::write_all`, for a descriptor that somebody else may have made non-blocking.
fn write_all(out: &mut impl Write, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        match out.write(bytes) {
            Ok(0) => return Err(ErrorKind::WriteZero.into()),
            Ok(written) => bytes = &bytes[written..],
            Err(e) if e.kind() == ErrorKind::Interrupted => {}
            Err(e) if e.kind() == ErrorKind::WouldBlock => {
                thread::sleep(Duration::from_millis(5));
            }
            Err(e) => return Err(e),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader, PipeReader, Read};
    use std::os::fd::OwnedFd;
    use std::time::Instant;

    use proto::feeder;

    use super::*;
    use crate::fixtures::{alert_named, batch_of, broken};

    fn pipe(format: Format) -> (Stdout, PipeReader) {
        let (reader, writer) = io::pipe().unwrap();
        let lines = Lines {
            format,
            fields: FieldSet::KubeArmor,
        };
        let sink = Stdout::over("out", File::from(OwnedFd::from(writer)), lines).unwrap();
        (sink, reader)
    }

    #[tokio::test]
    async fn events_come_out_as_lines_of_json_in_order() {
        let (sink, reader) = pipe(Format::Json);
        let outcomes = sink.send(batch_of(["a", "b"].map(alert_named))).await;
        assert_eq!(outcomes, Ok(vec![Outcome::Done, Outcome::Done]));
        let lines: Vec<String> = BufReader::new(reader)
            .lines()
            .take(2)
            .map(Result::unwrap)
            .collect();
        assert_eq!(
            lines,
            [
                r#"{"PodName":"a","PPID":0,"UID":0}"#,
                r#"{"PodName":"b","PPID":0,"UID":0}"#
            ]
        );
    }

    #[tokio::test]
    async fn text_is_what_karmor_prints() {
        let (sink, mut reader) = pipe(Format::Text);
        sink.send(batch_of([alert_named("a")])).await.unwrap();
        drop(sink);
        let mut text = String::new();
        reader.read_to_string(&mut text).unwrap();
        assert_eq!(text, "== Alert ==\nPodName: a\nPPID: 0\nUID: 0\n");
    }

    #[tokio::test]
    async fn a_terminal_is_shown_escape_sequences_and_a_pipe_gets_the_bytes() {
        // A pseudo-terminal stands for somebody's screen.
        let (screen, keyboard) = terminal();
        for format in [Format::Text, Format::Json, Format::PrettyJson] {
            let lines = Lines {
                format,
                fields: FieldSet::KubeArmor,
            };
            let out = screen.try_clone().unwrap();
            let sink = Stdout::over("out", out, lines).unwrap();
            let evil = "\u{9b}31m\u{202e}\x1b]0;x\n== Alert ==";
            sink.send(batch_of([alert_named(evil)])).await.unwrap();
            let mut seen = String::new();
            while !seen.contains("UID") {
                let mut part = [0; 4096];
                let length = (&keyboard).read(&mut part).unwrap();
                seen.push_str(std::str::from_utf8(&part[..length]).unwrap());
            }
            let shown = seen.replace("\r\n", "\n");
            let mut obeyed = shown.chars().filter(|c| *c != '\n');
            assert!(!obeyed.any(proto::visible::is_command), "{seen:?}");
            assert!(shown.contains("u202e"), "{seen:?}");
        }
        let (sink, mut reader) = pipe(Format::Text);
        sink.send(batch_of([alert_named("\x1b[31m")]))
            .await
            .unwrap();
        drop(sink);
        let mut text = String::new();
        reader.read_to_string(&mut text).unwrap();
        assert!(text.contains("PodName: \x1b[31m\n"), "{text:?}");
    }

    /// Both ends of a new pseudo-terminal: what programs write to, and what its owner reads.
    fn terminal() -> (File, File) {
        use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
        let owner = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
        grantpt(&owner).unwrap();
        unlockpt(&owner).unwrap();
        let name = ptsname(&owner, Vec::new()).unwrap();
        let screen = File::options()
            .read(true)
            .write(true)
            .open(name.to_str().unwrap())
            .unwrap();
        (screen, File::from(owner))
    }

    #[tokio::test]
    async fn one_unreadable_event_is_rejected_and_the_others_are_written() {
        let (sink, _reader) = pipe(Format::PrettyJson);
        let outcomes = sink
            .send(batch_of([alert_named("a"), broken(), alert_named("b")]))
            .await
            .unwrap();
        assert_eq!(
            (&outcomes[0], &outcomes[2]),
            (&Outcome::Done, &Outcome::Done)
        );
        assert!(
            matches!(&outcomes[1], Outcome::Reject { reason } if reason.contains("Alert")),
            "{outcomes:?}"
        );
    }

    #[tokio::test]
    async fn odd_texts_arrive_as_they_are_and_an_empty_batch_writes_nothing() {
        let (sink, reader) = pipe(Format::Json);
        let none = sink.send(batch_of(Vec::<feeder::Alert>::new())).await;
        assert_eq!(none, Ok(vec![]));
        let texts = [
            "\u{1}\u{7f}\u{1b}[31m",
            "a\0b",
            "\"\\|=]}{\t'",
            "one\r\ntwo",
            "dotted.key=\u{feff}\u{202e}火",
        ];
        let sent = sink.send(batch_of(texts.map(alert_named))).await;
        assert_eq!(sent, Ok(vec![Outcome::Done; texts.len()]));
        sink.flush().await.unwrap();
        drop(sink);
        let lines = BufReader::new(reader).lines().map(Result::unwrap);
        let pods: Vec<String> = lines
            .map(|line| serde_json::from_str::<serde_json::Value>(&line).unwrap())
            .map(|event| event["PodName"].as_str().unwrap().to_owned())
            .collect();
        assert_eq!(pods, texts);
    }

    #[tokio::test]
    async fn a_closed_pipe_is_a_sink_that_is_away() {
        let (sink, reader) = pipe(Format::Json);
        drop(reader);
        let sent = sink.send(batch_of([alert_named("a")])).await;
        let reason = sent.unwrap_err().reason;
        assert_eq!(reason, "nobody reads the standard output any more");
    }

    #[tokio::test]
    async fn a_stalled_pipe_holds_up_only_its_own_send() {
        let (sink, mut reader) = pipe(Format::Json);
        let much = feeder::Alert {
            message: "x".repeat(1 << 19),
            ..Default::default()
        };
        let batch = batch_of([much]);
        let mut sending = sink.send(Arc::clone(&batch));
        // The one thread of this runtime goes on while the pipe is full.
        let start = Instant::now();
        let stalled = tokio::time::timeout(Duration::from_millis(50), sending.as_mut()).await;
        assert!(stalled.is_err() && start.elapsed() < Duration::from_secs(5));
        let drain = thread::spawn(move || {
            let mut all = Vec::new();
            reader.read_to_end(&mut all).map(|_| all.len())
        });
        assert_eq!(sending.await, Ok(vec![Outcome::Done]));
        drop(sink);
        assert!(drain.join().unwrap().unwrap() > 1 << 19);
    }

    #[test]
    fn dropping_the_sink_does_not_wait_for_a_stalled_pipe() {
        let (sink, reader) = pipe(Format::Json);
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let much = feeder::Alert {
            message: "x".repeat(1 << 19),
            ..Default::default()
        };
        runtime.block_on(async {
            let sending = sink.send(batch_of([much]));
            let _ = tokio::time::timeout(Duration::from_millis(20), sending).await;
        });
        let start = Instant::now();
        drop(sink);
        drop(runtime);
        assert!(start.elapsed() < Duration::from_secs(30));
        drop(reader);
    }
}
