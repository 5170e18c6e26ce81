//! `cresset tls show`: every certificate that a configuration file speaks of, and when it ends.
//!
//! It reads the files, so it needs no relay that runs; what a running relay uses stands in `cresset status`.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use clap::{Args, Subcommand};
use x509_parser::extensions::GeneralName;
use x509_parser::pem::Pem;
use x509_parser::prelude::X509Certificate;

use crate::config::{Both, load};
use crate::connect::{Trouble, say};
use crate::table::table;

/// Show certificates and when they end
#[derive(Args, Clone, Debug)]
pub(crate) struct TlsArgs {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand, Clone, Debug)]
enum Command {
    /// Show the files of the relay and of the sensor, whose they are and when they end
    #[command(
        after_help = "Exits with 0 when all is well, 1 when a file is missing, damaged or over."
    )]
    Show(ShowArgs),
}

#[derive(Args, Clone, Debug)]
struct ShowArgs {
    /// Configuration file
    #[arg(long, value_name = "FILE", env = "CRESSET_CONFIG")]
    config: Option<PathBuf>,
}

/// Runs `cresset tls …`.
///
/// # Errors
/// The output cannot be written.
pub(crate) fn run(args: &TlsArgs) -> Result<ExitCode, Trouble> {
    let Command::Show(args) = &args.command;
    let both = match load(args.config.as_deref()) {
        Ok(both) => both,
        Err(problems) => {
            problems.iter().for_each(|problem| eprintln!("{problem}"));
            return Ok(ExitCode::FAILURE);
        }
    };
    let files = files(&both);
    if files.is_empty() {
        say(
            "no certificates: neither relay.tls nor sensor.tls nor sensor.join_token_file is given\n",
        )?;
        return Ok(ExitCode::SUCCESS);
    }
    let rows: Vec<Row> = files.iter().flat_map(File::rows).collect();
    let cells: Vec<_> = rows.iter().map(|row| row.cells.to_vec()).collect();
    say(&table(
        &["OF", "WHAT", "FILE", "NAME", "ENDS", "STATE"],
        &cells,
    ))?;
    let good = rows.iter().all(|row| row.good);
    Ok(if good {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// A file that holds certificates.
struct File {
    of: &'static str,
    what: &'static str,
    path: PathBuf,
}

/// One certificate, or what is wrong with a file.
struct Row {
    cells: [String; 6],
    good: bool,
}

/// The files that the settings name, in the order of the file.
fn files(both: &Both) -> Vec<File> {
    let mut files = Vec::new();
    let mut add = |of, what, path: Option<PathBuf>| {
        files.extend(path.map(|path| File { of, what, path }));
    };
    let relay = &both.relay.relay;
    if let Some(tls) = &relay.tls {
        let file = |given: &Option<PathBuf>, name: &str| {
            let dir = || tls.dir.as_ref().map(|dir| dir.join(name));
            given.clone().or_else(dir)
        };
        add("relay", "certificate", file(&tls.cert_file, "server.crt"));
        add(
            "relay",
            "clients' authority",
            file(&tls.client_ca_file, "ca.crt"),
        );
        let own = relay.data_dir.join("authority/ca.crt");
        add("relay", "own authority", tls.enrolment.then_some(own));
    }
    let sensor = &both.sensor.sensor;
    if let Some(tls) = &sensor.tls {
        add("sensor", "certificate", Some(tls.cert_file.clone()));
        add("sensor", "relays' authority", Some(tls.ca_file.clone()));
    } else if sensor.join_token_file.is_some() {
        let identity = sensor.data_path().join("identity");
        add("sensor", "certificate", Some(identity.join("identity.pem")));
        add("sensor", "relay's authority", Some(identity.join("ca.crt")));
    }
    files
}

impl File {
    fn rows(&self) -> Vec<Row> {
        match read(&self.path) {
            Ok(found) if found.is_empty() => vec![self.wrong("holds no certificate")],
            Ok(found) => found
                .iter()
                .map(|(name, ends)| self.row(name, *ends))
                .collect(),
            Err(why) => vec![self.wrong(&why)],
        }
    }

    fn row(&self, name: &str, ends: u64) -> Row {
        let left = from_now(ends);
        let state = match left {
            Some(left) => format!("good for {left}"),
            None => "OVER".to_owned(),
        };
        self.cells(name, at(ends), state, left.is_some())
    }

    fn wrong(&self, why: &str) -> Row {
        self.cells("", String::new(), why.to_owned(), false)
    }

    fn cells(&self, name: &str, ends: String, state: String, good: bool) -> Row {
        let path = self.path.display().to_string();
        let (of, what, name) = (self.of.to_owned(), self.what.to_owned(), name.to_owned());
        Row {
            cells: [of, what, path, name, ends, state],
            good,
        }
    }
}

/// Name and end, in unix seconds, of every certificate in a file.
fn read(path: &Path) -> Result<Vec<(String, u64)>, String> {
    let bytes = std::fs::read(path).map_err(|why| why.to_string())?;
    let mut found = Vec::new();
    for block in Pem::iter_from_buffer(&bytes) {
        let block = block.map_err(|why| format!("no PEM: {why}"))?;
        if block.label != "CERTIFICATE" {
            continue;
        }
        let certificate = block
            .parse_x509()
            .map_err(|why| format!("damaged: {why}"))?;
        let ends = certificate.validity().not_after.timestamp();
        found.push((name(&certificate), u64::try_from(ends).unwrap_or(0)));
    }
    Ok(found)
}

/// Its URI, else its first DNS name, else its subject.
fn name(certificate: &X509Certificate<'_>) -> String {
    let names = certificate.subject_alternative_name().ok().flatten();
    let names = names
        .map(|names| &names.value.general_names[..])
        .unwrap_or_default();
    let uri = names.iter().find_map(|name| match name {
        GeneralName::URI(uri) => Some(*uri),
        _ => None,
    });
    let dns = || {
        names.iter().find_map(|name| match name {
            GeneralName::DNSName(dns) => Some(*dns),
            _ => None,
        })
    };
    let found = uri.or_else(dns).map(str::to_owned);
    found.unwrap_or_else(|| certificate.subject().to_string())
}

/// A time of unix seconds, to the second.
pub(crate) fn at(unix: u64) -> String {
    let seconds = i64::try_from(unix).unwrap_or(i64::MAX);
    jiff::Timestamp::from_second(seconds)
        .unwrap_or(jiff::Timestamp::MAX)
        .to_string()
}

/// How far a time of unix seconds is away, roughly; none if it has passed.
pub(crate) fn from_now(unix: u64) -> Option<yaml::Span> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let left = unix.checked_sub(now.unwrap_or_default().as_secs())?;
    let unit = match left {
        0 => return None,
        1..=119 => 1,
        120..=7_199 => 60,
        7_200..=172_799 => 3_600,
        _ => 86_400,
    };
    Some(yaml::Span(Duration::from_secs(left / unit * unit)))
}
