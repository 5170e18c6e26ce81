//! `cresset token list`.

use std::process::ExitCode;

use proto::enrolment::{ListReply, ListRequest, Member, Token};

use super::client;
use crate::connect::{Relay, Trouble, say};
use crate::table::table;
use crate::tls::{at, from_now};

pub(super) async fn list(relay: &Relay) -> Result<ExitCode, Trouble> {
    let reply = client(relay).list(ListRequest {}).await;
    let reply = reply.map_err(|status| relay.trouble(status))?.into_inner();
    say(&page(&reply))?;
    Ok(ExitCode::SUCCESS)
}

fn page(reply: &ListReply) -> String {
    let ListReply { tokens, members } = reply;
    let mut text = String::new();
    if tokens.is_empty() && members.is_empty() {
        return "no tokens, and nobody has joined; `cresset token create` makes one\n".to_owned();
    }
    if !tokens.is_empty() {
        let rows: Vec<_> = tokens.iter().map(token).collect();
        text += &table(&["TOKEN", "ROLE", "FOR", "ENDS", "STATE"], &rows);
    }
    if !members.is_empty() {
        if !text.is_empty() {
            text.push('\n');
        }
        let rows: Vec<_> = members.iter().map(member).collect();
        text += &table(&["JOINED", "CERTIFICATE OF", "ENDS", "STATE"], &rows);
    }
    text
}

fn token(token: &Token) -> Vec<String> {
    let whom = if token.id.is_empty() {
        "any"
    } else {
        &token.id
    };
    let state = match token.used_by.as_str() {
        "" if from_now(token.expires_unix).is_none() => "ended".to_owned(),
        "" => "waits".to_owned(),
        by => format!("used by {by} at {}", at(token.used_unix)),
    };
    vec![
        token.name.clone(),
        token.role.clone(),
        whom.to_owned(),
        at(token.expires_unix),
        state,
    ]
}

fn member(member: &Member) -> Vec<String> {
    let state = match from_now(member.expires_unix) {
        _ if member.revoked => "revoked".to_owned(),
        None => "ended".to_owned(),
        Some(left) => format!("good for {left}"),
    };
    vec![
        format!("{}/{}", member.role, member.id),
        at(member.issued_unix),
        at(member.expires_unix),
        state,
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_and_members_stand_in_two_tables_with_their_states() {
        let reply = ListReply {
            tokens: vec![
                Token {
                    name: "1f2e3d4c5b6a".to_owned(),
                    role: "sensor".to_owned(),
                    expires_unix: 60,
                    ..Token::default()
                },
                Token {
                    name: "aabbccddeeff".to_owned(),
                    role: "sensor".to_owned(),
                    used_by: "sensor/a".to_owned(),
                    used_unix: 30,
                    expires_unix: 60,
                    ..Token::default()
                },
            ],
            members: vec![Member {
                role: "sensor".to_owned(),
                id: "a".to_owned(),
                expires_unix: 60,
                revoked: true,
                ..Member::default()
            }],
        };
        let page = page(&reply);
        for line in [
            "1f2e3d4c5b6a  sensor  any  1970-01-01T00:01:00Z  ended\n",
            "used by sensor/a at 1970-01-01T00:00:30Z\n",
            "sensor/a  1970-01-01T00:00:00Z  1970-01-01T00:01:00Z  revoked\n",
        ] {
            assert!(page.contains(line), "{line}\n{page}");
        }
    }
}
