//! `cresset token`: who may join this relay, and who has.

mod list;

use std::process::ExitCode;

use clap::{Args, Subcommand};
use proto::enrolment::tokens_client::TokensClient;
use proto::enrolment::{CreateReply, CreateRequest, RevokeRequest};
use yaml::Span;

use crate::connect::{AdminArgs, Authorized, Relay, Trouble, say};

/// Make, list or revoke tokens with which sensors join
#[derive(Args, Clone, Debug)]
#[command(after_help = "Example:\n  \
    cresset token create --role sensor --ttl 1h > join.token     # on the relay (relay.tls: {enrolment: true})\n  \
    sensor: {relay: [\"https://relay.example:9481\"], join_token_file: /etc/cresset/join.token}\n\n\
    A token is good for one machine. It says which relay made it, so the sensor believes no other.")]
pub(crate) struct TokenArgs {
    #[command(flatten)]
    admin: AdminArgs,

    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand, Clone, Debug)]
enum Command {
    /// Make a token and print it; it cannot be shown again
    Create(CreateArgs),
    /// Show tokens and who joined with them; no secrets
    List,
    /// Take out a token by its name, or a machine by ROLE/ID: its connection ends at once
    Revoke(RevokeArgs),
}

#[derive(Args, Clone, Debug)]
struct CreateArgs {
    /// What its holder joins as
    #[arg(long, default_value = "sensor", value_parser = ["sensor", "relay", "reader"])]
    role: String,

    /// How long it is good: a minute to thirty days
    #[arg(long, default_value = "1h", value_parser = span)]
    ttl: Span,

    /// Only for the sensor of this id, which may have another key by now [default: for any new one]
    #[arg(long, value_name = "ID", default_value = "", hide_default_value = true)]
    id: String,
}

#[derive(Args, Clone, Debug)]
struct RevokeArgs {
    /// A token's name, or ROLE/ID, as `cresset token list` shows them
    #[arg(value_name = "NAME")]
    name: String,
}

fn span(text: &str) -> Result<Span, String> {
    text.parse().map_err(|why: yaml::BadUnit| why.to_string())
}

/// Runs `cresset token …`.
///
/// # Errors
/// An unreachable relay, or one that refuses.
pub(crate) async fn token(args: TokenArgs) -> Result<ExitCode, Trouble> {
    let relay = args.admin.connect().await?;
    match args.command {
        Command::Create(args) => create(&relay, args).await,
        Command::List => list::list(&relay).await,
        Command::Revoke(args) => revoke(&relay, args).await,
    }
}

fn client(relay: &Relay) -> TokensClient<Authorized> {
    TokensClient::new(relay.channel.clone())
}

/// The token alone goes to standard output, so that it can be put into a file.
async fn create(relay: &Relay, args: CreateArgs) -> Result<ExitCode, Trouble> {
    let ttl = args.ttl;
    let request = CreateRequest {
        role: args.role,
        ttl_seconds: ttl.0.as_secs(),
        id: args.id,
    };
    let reply = client(relay).create(request).await;
    let reply = reply.map_err(|status| relay.trouble(status))?.into_inner();
    let CreateReply {
        token,
        about,
        audited,
    } = reply;
    say(&format!("{token}\n"))?;
    let about = about.unwrap_or_default();
    eprintln!(
        "cresset: one {} may join with it within {ttl}; give it as sensor.join_token_file; its name is {}",
        about.role, about.name
    );
    tell(audited);
    Ok(ExitCode::SUCCESS)
}

async fn revoke(relay: &Relay, args: RevokeArgs) -> Result<ExitCode, Trouble> {
    let name = args.name.clone();
    let reply = client(relay).revoke(RevokeRequest { name }).await;
    let reply = reply.map_err(|status| relay.trouble(status))?.into_inner();
    say(&format!("{} is revoked\n", args.name))?;
    tell(reply.audited);
    Ok(ExitCode::SUCCESS)
}

fn tell(audited: bool) {
    if !audited {
        eprintln!("cresset: the audit event waits until the journal takes events again");
    }
}
