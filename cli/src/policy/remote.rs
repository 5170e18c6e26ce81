//! The relay's policies, from the command line: whom to ask, and what comes back.

use std::collections::{BTreeMap, HashSet};
use std::path::{Path, PathBuf};

use crate::connect::Authorized;
use futures::StreamExt;
use policy::{Policy, RuleSet};
use proto::Digest;
use proto::policies::policies_client::PoliciesClient;
use proto::policies::{Document, ListRequest, SetRequest};

use super::loaded::Compiled;
use crate::connect::{Relay, RelayArgs, Trouble};

/// Requests hold whole files, answers may name as many problems.
const MAX_MESSAGE: usize = 64 << 20;

/// Where policies are changed: the relay's admin socket.
#[derive(clap::Args, Clone, Debug, Default)]
pub(super) struct AdminArgs {
    /// The relay's data folder, in which its admin.sock is [default: the usual places]
    #[arg(long, value_name = "DIR")]
    pub(super) data: Option<PathBuf>,
}

impl AdminArgs {
    pub(super) async fn connect(&self) -> Result<Relay, Trouble> {
        Relay::connect_admin(self.data.as_deref()).await
    }
}

/// A relay to read from: its feed, or its admin socket where a data folder is given.
///
/// # Errors
/// Nobody answers there.
pub(super) async fn reading(relay: &RelayArgs, data: Option<&Path>) -> Result<Relay, Trouble> {
    match data {
        Some(data) => Relay::connect_admin(Some(data)).await,
        None => relay.connect().await,
    }
}

/// The policy service of a relay.
pub(super) fn client(relay: &Relay) -> PoliciesClient<Authorized> {
    PoliciesClient::new(relay.channel.clone())
        .max_decoding_message_size(MAX_MESSAGE)
        .max_encoding_message_size(MAX_MESSAGE)
}

/// The policies in force, as documents.
///
/// # Errors
/// The relay says no or goes away.
pub(super) async fn documents(
    relay: &Relay,
    namespace: &str,
    name: &str,
) -> Result<Vec<Document>, Trouble> {
    let request = ListRequest {
        namespace: namespace.to_owned(),
        name: name.to_owned(),
    };
    let reply = client(relay).list(request).await;
    let mut stream = reply.map_err(|status| relay.trouble(status))?.into_inner();
    let mut documents = Vec::new();
    while let Some(document) = stream.next().await {
        documents.push(document.map_err(|status| relay.trouble(status))?);
    }
    Ok(documents)
}

/// The policies in force, read again.
///
/// # Errors
/// As [`documents`]; a policy that this program does not understand.
pub(super) async fn models(relay: &Relay) -> Result<Vec<Policy>, Trouble> {
    let documents = documents(relay, "", "").await?;
    let texts: Vec<(String, String)> = documents
        .into_iter()
        .map(|document| {
            let name = format!("{}/{} in force", document.namespace, document.name);
            (name, String::from_utf8_lossy(&document.json).into_owned())
        })
        .collect();
    let all = texts.iter().map(|(name, text)| (&**name, &**text));
    let (policies, problems) = policy::load(all);
    match problems.iter().find(|problem| problem.is_error()) {
        Some(problem) => Err(Trouble::Local(problem.to_string())),
        None => Ok(policies),
    }
}

/// The compiled set in force.
///
/// # Errors
/// As [`documents`]; a set that a sensor would refuse.
pub(super) async fn set(relay: &Relay) -> Result<Compiled, Trouble> {
    let reply = client(relay).set(SetRequest {}).await;
    let mut parts = reply.map_err(|status| relay.trouble(status))?.into_inner();
    let (mut manifest, mut blobs) = (None, BTreeMap::<Digest, bytes::Bytes>::new());
    while let Some(part) = parts.next().await {
        let part = part.map_err(|status| relay.trouble(status))?;
        manifest = part.manifest.or(manifest);
        blobs.extend(
            part.blobs
                .into_iter()
                .map(|blob| (policy::blob_digest(&blob), blob)),
        );
    }
    Compiled::new(RuleSet {
        manifest: manifest.unwrap_or_default(),
        blobs,
    })
}

/// The policies in force with those of files: one of the same name is replaced.
pub(super) fn on_top(in_force: Vec<Policy>, files: Vec<Policy>) -> Vec<Policy> {
    let key = |policy: &Policy| (policy.kind, policy.namespace.clone(), policy.name.clone());
    let replaced: HashSet<_> = files.iter().map(key).collect();
    let kept = in_force.into_iter();
    let kept = kept.filter(|policy| !replaced.contains(&key(policy)));
    kept.chain(files).collect()
}

/// Policies compiled as the relay would, which has this set in force.
///
/// # Errors
/// A set that a sensor would refuse.
pub(super) fn beside(now: &Compiled, policies: &[Policy]) -> Result<Compiled, Trouble> {
    let postures = now.ruleset.manifest.postures.unwrap_or_default();
    Compiled::new(policy::compile(policies, &postures))
}
