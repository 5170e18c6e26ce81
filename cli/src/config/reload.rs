//! `cresset config reload`.

use std::process::ExitCode;

use clap::Args;
use proto::operate::{ReloadReply, ReloadRequest};
use proto::visible;

use crate::connect::{AdminArgs, Trouble, say};

/// Which relay
#[derive(Args)]
pub(super) struct ReloadArgs {
    #[command(flatten)]
    admin: AdminArgs,
}

pub(super) async fn reload(args: &ReloadArgs) -> Result<ExitCode, Trouble> {
    let relay = args.admin.connect().await?;
    let reply = relay
        .operate()
        .reload(ReloadRequest {})
        .await
        .map_err(|status| relay.trouble(status))?
        .into_inner();
    say(&page(&reply))?;
    Ok(if reply.refused {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    })
}

fn page(reply: &ReloadReply) -> String {
    let mut lines: Vec<String> = reply
        .problems
        .iter()
        .map(|problem| problem.text.clone())
        .collect();
    if reply.refused {
        lines.push("nothing was changed".to_owned());
    } else if reply.changes.is_empty() && reply.restart.is_empty() {
        lines.push("nothing has changed".to_owned());
    }
    let changes = reply.changes.iter();
    lines.extend(changes.map(|change| format!("{}: {}", change.what, change.how)));
    let restart = reply.restart.iter();
    lines.extend(restart.map(|key| format!("! {key}: takes effect with the next start")));
    if !reply.audited {
        lines.push("! the audit event waits for the journal".to_owned());
    }
    lines
        .iter()
        .map(|line| visible::text(line) + "\n")
        .collect()
}

#[cfg(test)]
mod tests {
    use proto::operate::{Change, Problem};

    use super::*;

    #[test]
    fn what_changed_what_waits_and_what_is_wrong_stand_on_lines_of_their_own() {
        let change = |what: &str, how: &str| Change {
            what: what.to_owned(),
            how: how.to_owned(),
        };
        let reply = ReloadReply {
            changes: vec![
                change("sink siem", "changed"),
                change("policies", "changed"),
            ],
            restart: vec!["relay.listen".to_owned()],
            audited: true,
            ..ReloadReply::default()
        };
        assert_eq!(
            page(&reply),
            "sink siem: changed\npolicies: changed\n! relay.listen: takes effect with the next start\n"
        );
        let refused = ReloadReply {
            refused: true,
            problems: vec![Problem {
                text: "a.yaml:3:1: error: no".to_owned(),
                warning: false,
            }],
            audited: true,
            ..ReloadReply::default()
        };
        assert_eq!(
            page(&refused),
            "a.yaml:3:1: error: no\nnothing was changed\n"
        );
        let same = ReloadReply {
            audited: true,
            ..ReloadReply::default()
        };
        assert_eq!(page(&same), "nothing has changed\n");
    }
}
