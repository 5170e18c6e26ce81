//! `cresset run`: a command as a labelled workload, in a cgroup of its own, under the policies that select it.
//!
//! ```text
//! register ─▶ ready (rules are live) ─▶ clone3(CLONE_INTO_CGROUP) ─▶ exec COMMAND
//!    │                                        │ signals are passed on, the end is waited for
//!    └── the connection is the workload's life: when it closes, the sensor kills what is left and removes the cgroup
//! ```
//! The child is born inside the cgroup, so no instruction of COMMAND runs unjudged and no process is ever moved.

mod child;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use sensor_bpf::control::{ReadyReply, Reply, Request};
use sensor_bpf::workload::Identity;

use child::{Command, start};

/// Runs a command as a workload; exits with its status.
#[derive(Debug, Args)]
pub(crate) struct RunArgs {
    /// Control socket of the sensor
    #[arg(
        long,
        value_name = "SOCKET",
        env = "CRESSET_SENSOR",
        default_value = "/run/cresset/sensor.sock"
    )]
    pub(crate) sensor: PathBuf,
    /// Namespace of the workload
    #[arg(short, long, default_value = "default")]
    pub(crate) namespace: String,
    /// Pod name of the workload [default: the command's name]
    #[arg(long)]
    pub(crate) name: Option<String>,
    /// Labels that policies select, comma-separated
    #[arg(short, long = "label", value_name = "KEY=VALUE", value_delimiter = ',', value_parser = label)]
    pub(crate) labels: Vec<(String, String)>,
    /// Container name [default: the pod name]
    #[arg(long, default_value = "", hide_default_value = true)]
    pub(crate) container: String,
    /// The command and its arguments, after --
    #[arg(required = true, trailing_var_arg = true, value_name = "COMMAND")]
    pub(crate) command: Vec<OsString>,
}

fn label(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err("write KEY=VALUE".to_owned()),
    }
}

/// Exit status when no sensor answers, or it left before the command did.
const UNREACHABLE: u8 = 3;
/// The workload was refused.
const REFUSED: u8 = 1;
/// As shells do: found and not executable, not found.
const NOT_EXECUTABLE: u8 = 126;
const NOT_FOUND: u8 = 127;

/// How long the sensor may take to put a workload's rules in force.
const READY_WITHIN: Duration = Duration::from_secs(30);
/// How long the sensor may take to end what is left of a workload.
const END_WITHIN: Duration = Duration::from_secs(15);

#[derive(Debug, thiserror::Error)]
enum RunError {
    #[error(
        "no sensor answers at {}: {source}; start one with `cresset up`, or name its socket with --sensor",
        socket.display()
    )]
    NoSensor { socket: PathBuf, source: io::Error },
    #[error("the sensor refused the workload: {0}")]
    Refused(String),
    #[error("{0}: {1}")]
    Exec(String, io::Error),
    #[error("{what}: {source}")]
    System {
        what: &'static str,
        source: io::Error,
    },
    #[error(
        "the sensor ended, and the workload with it: its rules are not enforced without a sensor"
    )]
    SensorGone,
}

impl RunError {
    fn code(&self) -> u8 {
        match self {
            Self::NoSensor { .. } | Self::SensorGone => UNREACHABLE,
            Self::Refused(_) | Self::System { .. } => REFUSED,
            Self::Exec(_, why) if why.kind() == io::ErrorKind::NotFound => NOT_FOUND,
            Self::Exec(..) => NOT_EXECUTABLE,
        }
    }
}

fn system(what: &'static str) -> impl FnOnce(io::Error) -> RunError {
    move |source| RunError::System { what, source }
}

/// Runs the command and gives its exit status, 128 + n when a signal ended it.
///
/// Call it before any thread is started.
pub(crate) fn run(args: RunArgs) -> ExitCode {
    match try_run(&args) {
        Ok(code) => ExitCode::from(code),
        Err(why) => {
            anstream::eprintln!("cresset run: {why}");
            ExitCode::from(why.code())
        }
    }
}

fn try_run(args: &RunArgs) -> Result<u8, RunError> {
    let command = Command::new(&args.command)?;
    let (connection, ready) = register(args)?;
    let outcome = start(&command, &ready).and_then(|child| child.wait(&connection, &ready.cgroup));
    finish(connection);
    outcome
}

// === the sensor ===

fn identity(args: &RunArgs) -> Identity {
    let program = args
        .command
        .first()
        .map(|name| Path::new(name).file_name().unwrap_or(name));
    let default = || {
        program
            .map(|name| name.to_string_lossy().into_owned())
            .unwrap_or_default()
    };
    Identity {
        namespace: args.namespace.clone(),
        name: args.name.clone().unwrap_or_else(default),
        labels: args.labels.iter().cloned().collect::<BTreeMap<_, _>>(),
        container: args.container.clone(),
        ..Identity::default()
    }
}

fn register(args: &RunArgs) -> Result<(UnixStream, ReadyReply), RunError> {
    let unreachable = |source| RunError::NoSensor {
        socket: args.sensor.clone(),
        source,
    };
    let mut stream = UnixStream::connect(&args.sensor).map_err(unreachable)?;
    let request =
        serde_json::to_string(&Request::Register(identity(args))).map_err(io::Error::from);
    let request = request.map_err(unreachable)?;
    writeln!(stream, "{request}").map_err(unreachable)?;
    let mut line = String::new();
    stream
        .set_read_timeout(Some(READY_WITHIN))
        .map_err(unreachable)?;
    // Nothing follows the reply, so nothing is lost in this reader.
    BufReader::new(&stream)
        .read_line(&mut line)
        .map_err(unreachable)?;
    stream.set_read_timeout(None).map_err(unreachable)?;
    if line.is_empty() {
        return Err(unreachable(io::ErrorKind::UnexpectedEof.into()));
    }
    match serde_json::from_str(&line) {
        Ok(Reply::Ready(ready)) => Ok((stream, ready)),
        Ok(Reply::Error(why)) => Err(RunError::Refused(why)),
        Ok(Reply::Status(_) | Reply::Done {}) => Err(unreachable(io::Error::other(
            "an answer to another question",
        ))),
        Err(why) => Err(unreachable(why.into())),
    }
}

/// Says that the workload is over and waits until nothing is left of it.
fn finish(connection: UnixStream) {
    let closed = connection
        .shutdown(std::net::Shutdown::Write)
        .and_then(|()| connection.set_read_timeout(Some(END_WITHIN)));
    if closed.is_ok() {
        let mut rest = [0; 256];
        while matches!((&connection).read(&mut rest), Ok(n) if n > 0) {}
    }
}
