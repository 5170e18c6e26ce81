//! `cresset sink setup`: what a destination must have before events go there. Speaks to the destination itself, with the
//! settings of the configuration file; no relay is needed.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use exporters::SinkConfig;
use exporters::setup::{self, Mode, Report, SetupError, State, Step};

use crate::config;
use crate::connect::{Trouble, say};

/// Which sink, and whether to change anything
#[derive(Args, Clone, Debug)]
pub(super) struct SetupArgs {
    /// Its name under `sinks` in the configuration file
    name: String,

    /// Change nothing; tell what is missing or differs
    #[arg(long)]
    check: bool,

    /// The configuration file
    #[arg(long, value_name = "FILE", env = "CRESSET_CONFIG")]
    config: Option<PathBuf>,
}

pub(super) async fn setup(args: &SetupArgs) -> Result<ExitCode, Trouble> {
    let sink = sink(args)?;
    let mode = if args.check { Mode::Look } else { Mode::Make };
    let report = setup::run(&sink, mode).await;
    let report = report.map_err(|error| trouble(&args.name, error))?;
    let Some(report) = report else {
        let kind = sink.kind();
        say(&format!(
            "{}: sinks of type {kind} need no setting up\n",
            args.name
        ))?;
        return Ok(ExitCode::SUCCESS);
    };
    say(&page(&report))?;
    let good = report.steps.iter().all(|step| step.state.is_good());
    Ok(if good {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

fn sink(args: &SetupArgs) -> Result<SinkConfig, Trouble> {
    let Some(file) = &args.config else {
        return Err(Trouble::Usage(
            "say which configuration file the sink is in: --config FILE, or $CRESSET_CONFIG"
                .to_owned(),
        ));
    };
    let both = config::load(Some(file)).map_err(|problems| {
        let lines: Vec<String> = problems.iter().map(ToString::to_string).collect();
        Trouble::Local(lines.join("\n"))
    })?;
    let mut sinks = both.relay.sinks;
    sinks.remove(&args.name).ok_or_else(|| {
        let known: Vec<String> = sinks.into_keys().collect();
        Trouble::Usage(format!(
            "there is no sink `{}` in {}; there {}",
            args.name,
            file.display(),
            match &known[..] {
                [] => "are none".to_owned(),
                known => format!("is {}", known.join(", ")),
            }
        ))
    })
}

fn trouble(name: &str, error: SetupError) -> Trouble {
    match error {
        SetupError::Settings(reason) => Trouble::Local(format!("sink {name}: {reason}")),
        SetupError::Unreached(reason) => Trouble::Destination {
            sink: name.to_owned(),
            reason,
        },
        SetupError::Refused(reason) => Trouble::Local(format!("sink {name}: refused: {reason}")),
    }
}

fn page(report: &Report) -> String {
    let mut out = format!("{}\n", report.server);
    report.steps.iter().for_each(|step| line(step, &mut out));
    out
}

fn line(step: &Step, out: &mut String) {
    let (words, details): (&str, &[String]) = match &step.state {
        State::Same => ("as it should be", &[]),
        State::Missing => ("MISSING", &[]),
        State::Made => ("made", &[]),
        State::Differs(told) => ("DIFFERS", told),
        State::Changed(told) => ("put right", told),
        State::Blocked(why) => ("BLOCKED", std::slice::from_ref(why)),
        State::Refused(why) => ("REFUSED", std::slice::from_ref(why)),
    };
    out.push_str(&format!(
        "  {:<14}  {:<20}  {words}\n",
        step.what, step.name
    ));
    for detail in details {
        out.push_str(&format!("{:18}{detail}\n", ""));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_tells_each_thing_and_what_is_wrong_with_it() {
        let step = |name: &str, state| Step {
            what: "index template",
            name: name.to_owned(),
            state,
        };
        let report = Report {
            server: "Elasticsearch 8.19.21 at http://es:9200".to_owned(),
            steps: vec![
                step(
                    "kubearmor-alerts",
                    State::Differs(vec!["a is 1, should be 2".to_owned()]),
                ),
                step("kubearmor-logs", State::Same),
            ],
        };
        assert_eq!(
            page(&report),
            "Elasticsearch 8.19.21 at http://es:9200\n\
             \x20 index template  kubearmor-alerts      DIFFERS\n\
             \x20                 a is 1, should be 2\n\
             \x20 index template  kubearmor-logs        as it should be\n"
        );
    }
}
