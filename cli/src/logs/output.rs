//! Where printed events go: standard output, a file, nowhere.

use std::fs::OpenOptions;
use std::io::{self, BufWriter, Write};
use std::path::PathBuf;
use std::str::FromStr;

use proto::{EventId, FieldSet, Kind};

use crate::connect::Trouble;
use crate::print::{Format, Printer};

/// What `--logPath` and `--msgPath` name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Target {
    None,
    Stdout,
    File(PathBuf),
}

impl FromStr for Target {
    type Err = std::convert::Infallible;

    fn from_str(text: &str) -> Result<Target, Self::Err> {
        Ok(match text {
            "none" => Target::None,
            "stdout" => Target::Stdout,
            path => Target::File(PathBuf::from(path)),
        })
    }
}

/// Why printing ends.
#[derive(Debug)]
pub(super) enum Stop {
    /// Whoever read the output has had enough.
    Closed,
    Failed(Trouble),
}

impl Stop {
    /// A closed pipe is how `| head` says that it is content.
    pub(super) fn into_result(self) -> Result<(), Trouble> {
        match self {
            Stop::Closed => Ok(()),
            Stop::Failed(trouble) => Err(trouble),
        }
    }

    fn new(name: &str, error: &io::Error) -> Stop {
        match error.kind() {
            io::ErrorKind::BrokenPipe => Stop::Closed,
            _ => Stop::Failed(Trouble::Local(format!("cannot write {name}: {error}"))),
        }
    }
}

/// Events and messages, each to its place.
pub(super) struct Output {
    events: Option<Sink>,
    messages: Option<Sink>,
}

struct Sink {
    name: String,
    to: BufWriter<Box<dyn Write + Send>>,
    printer: Printer,
}

impl Output {
    /// Opens both places; files are appended to.
    pub(super) fn open(
        events: &Target,
        format: Format,
        messages: &Target,
        messages_format: Format,
    ) -> Result<Output, Trouble> {
        Ok(Output {
            events: Sink::open(events, format)?,
            messages: Sink::open(messages, messages_format)?,
        })
    }

    /// JSON with these fields.
    pub(super) fn show(&mut self, fields: FieldSet) {
        let sinks = [&mut self.events, &mut self.messages];
        let sinks = sinks.into_iter().flatten();
        sinks.for_each(|sink| sink.printer.show(fields));
    }

    /// Prints one event; one that cannot be printed is told and left out.
    pub(super) fn event(
        &mut self,
        kind: Kind,
        payload: &[u8],
        id: Option<EventId>,
    ) -> Result<(), Stop> {
        let (this, other) = match kind {
            Kind::Message => (&mut self.messages, &mut self.events),
            _ => (&mut self.events, &mut self.messages),
        };
        let Some(sink) = this else { return Ok(()) };
        if let (Some(other), "stdout") = (other, sink.name.as_str())
            && other.name == sink.name
        {
            other.flush()?; // what came before stands before it
        }
        let text = match sink.printer.event(kind, payload, id) {
            Ok(text) => text,
            Err(error) => {
                eprintln!("cresset: an event that cannot be printed: {error}");
                return Ok(());
            }
        };
        sink.to
            .write_all(text)
            .map_err(|error| Stop::new(&sink.name, &error))
    }

    /// Hands over what is still here.
    pub(super) fn flush(&mut self) -> Result<(), Stop> {
        [&mut self.events, &mut self.messages]
            .into_iter()
            .flatten()
            .try_for_each(Sink::flush)
    }
}

impl Sink {
    fn open(target: &Target, format: Format) -> Result<Option<Sink>, Trouble> {
        let (name, to, printer): (_, Box<dyn Write + Send>, _) = match target {
            Target::None => return Ok(None),
            Target::Stdout => (
                "stdout".to_string(),
                Box::new(io::stdout()),
                Printer::for_stdout(format),
            ),
            Target::File(path) => {
                let name = path.display().to_string();
                let file = OpenOptions::new().create(true).append(true).open(path);
                let file =
                    file.map_err(|error| Trouble::Local(format!("cannot open {name}: {error}")))?;
                (name, Box::new(file), Printer::exact(format))
            }
        };
        Ok(Some(Sink {
            name,
            to: BufWriter::with_capacity(64 << 10, to),
            printer,
        }))
    }

    fn flush(&mut self) -> Result<(), Stop> {
        self.to
            .flush()
            .map_err(|error| Stop::new(&self.name, &error))
    }
}
