//! `cresset.policies.v1.Policies`: reading on the feed listener, changing on the admin socket.

use std::pin::Pin;
use std::time::Duration;

use bytes::Bytes;
use futures::{Stream, stream};
use proto::Digest;
use proto::policies::policies_server::{Policies, PoliciesServer};
use proto::policies::{
    ApplyReply, ApplyRequest, Change, DeleteRequest, DisableReply, DisableRequest, Document, Key,
    ListRequest, SetPart, SetRequest, SteerRolloutReply, SteerRolloutRequest, What,
};
use tonic::{Request, Response, Status};

use super::applied::{self, object};
use super::change::{Changed, Done};
use super::{Handle, problem_status};
use crate::access::{Caller, Role};
use crate::audit::{Act, Actor, Audit};
use crate::rollout;

/// The blobs of one part, in bytes: half of gRPC's default limit of 4 MiB.
const MAX_PART: usize = 2 << 20;

/// The service.
#[derive(Clone, Debug)]
pub struct PoliciesService {
    handle: Handle,
    rollout: rollout::Handle,
    may_change: bool,
    /// None: whoever changes policies is in nobody's memory.
    audit: Option<Audit>,
}

impl PoliciesService {
    /// For readers.
    pub(crate) fn new(handle: Handle, rollout: rollout::Handle) -> PoliciesService {
        PoliciesService {
            handle,
            rollout,
            may_change: false,
            audit: None,
        }
    }

    /// For the administrator.
    #[must_use]
    pub fn with_changes(self) -> PoliciesService {
        PoliciesService {
            may_change: true,
            ..self
        }
    }

    /// Tells of every change as an event.
    #[must_use]
    pub(crate) fn audited(self, audit: Audit) -> PoliciesService {
        PoliciesService {
            audit: Some(audit),
            ..self
        }
    }

    async fn tell(&self, actor: Actor, action: &'static str, target: &str, detail: String) {
        if let Some(audit) = &self.audit {
            let act = Act {
                action,
                target: target.to_owned(),
                detail,
            };
            audit.tell(actor, act).await;
        }
    }

    /// Tells of what an apply or a delete changed, if it changed anything.
    async fn tell_changed(&self, actor: Actor, action: &'static str, changed: &Changed) {
        let done = changed.changes.iter().filter(|(_, done)| {
            matches!(
                done,
                Done::Deleted | Done::Put(applied::What::Created | applied::What::Changed)
            )
        });
        let names: Vec<String> = done
            .map(|(key, _)| format!("{}/{}", key.namespace, key.name))
            .collect();
        if !names.is_empty() && !changed.is_refused() {
            self.tell(actor, action, "policies", names.join(", ")).await;
        }
    }

    /// As a service of a tonic server. Requests hold whole files.
    pub fn into_server(self) -> PoliciesServer<PoliciesService> {
        PoliciesServer::new(self).max_decoding_message_size(64 << 20)
    }

    fn may_change(&self) -> Result<(), Status> {
        let no = || {
            Status::permission_denied("policies are changed through the relay's admin socket only")
        };
        self.may_change.then_some(()).ok_or_else(no)
    }

    /// Runs a change where files may be written.
    async fn change<T: Send + 'static>(
        &self,
        change: impl FnOnce(&Handle) -> T + Send + 'static,
    ) -> Result<T, Status> {
        self.may_change()?;
        let handle = self.handle.clone();
        tokio::task::spawn_blocking(move || change(&handle))
            .await
            .map_err(|error| Status::internal(format!("the change was cut off: {error}")))
    }

    fn reply(&self, changed: Changed) -> ApplyReply {
        let change = |(key, done): (applied::Key, Done)| Change {
            key: Some(wire_key(key)),
            what: what(done).into(),
        };
        ApplyReply {
            problems: changed.problems.iter().map(problem_status).collect(),
            changes: changed.changes.into_iter().map(change).collect(),
            digest: self.handle.set().ruleset.manifest.digest.clone().into(),
        }
    }
}

type Parts<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

#[async_trait::async_trait]
impl Policies for PoliciesService {
    type ListStream = Parts<Document>;
    type SetStream = Parts<SetPart>;

    async fn list(
        &self,
        request: Request<ListRequest>,
    ) -> Result<Response<Self::ListStream>, Status> {
        sees_all(&request)?;
        let documents = documents(&self.handle, &request.into_inner());
        Ok(Response::new(Box::pin(stream::iter(
            documents.into_iter().map(Ok),
        ))))
    }

    async fn set(&self, request: Request<SetRequest>) -> Result<Response<Self::SetStream>, Status> {
        sees_all(&request)?;
        let set = self.handle.set();
        let mut parts: Vec<Vec<Bytes>> = vec![Vec::new()];
        let mut size = 0;
        for blob in set.ruleset.blobs.values() {
            if size + blob.len() > MAX_PART && size > 0 {
                parts.push(Vec::new());
                size = 0;
            }
            size += blob.len();
            parts
                .iter_mut()
                .last()
                .into_iter()
                .for_each(|part| part.push(blob.clone()));
        }
        let manifest = set.ruleset.manifest.clone();
        let part = move |blobs| {
            Ok(SetPart {
                manifest: Some(manifest.clone()),
                blobs,
            })
        };
        Ok(Response::new(Box::pin(stream::iter(
            parts.into_iter().map(part),
        ))))
    }

    async fn apply(&self, request: Request<ApplyRequest>) -> Result<Response<ApplyReply>, Status> {
        let actor = Actor::of(&request);
        let ApplyRequest { files, dry_run } = request.into_inner();
        let files: Vec<_> = files
            .into_iter()
            .map(|file| (file.name, file.text))
            .collect();
        let changed = self
            .change(move |handle| handle.apply(&files, dry_run))
            .await?;
        if !dry_run {
            self.tell_changed(actor, "apply", &changed).await;
        }
        Ok(Response::new(self.reply(changed)))
    }

    async fn delete(
        &self,
        request: Request<DeleteRequest>,
    ) -> Result<Response<ApplyReply>, Status> {
        let actor = Actor::of(&request);
        let DeleteRequest { keys, dry_run } = request.into_inner();
        let keys: Vec<_> = keys
            .into_iter()
            .map(|key| applied::Key {
                kind: key.kind,
                namespace: key.namespace,
                name: key.name,
            })
            .collect();
        let changed = self
            .change(move |handle| match keys.is_empty() {
                true => Changed::because("nothing is named; name the policies to delete"),
                false => handle.delete(&keys, dry_run),
            })
            .await?;
        if !dry_run {
            self.tell_changed(actor, "delete", &changed).await;
        }
        Ok(Response::new(self.reply(changed)))
    }

    async fn disable(
        &self,
        request: Request<DisableRequest>,
    ) -> Result<Response<DisableReply>, Status> {
        let actor = Actor::of(&request);
        let DisableRequest { seconds, reason } = request.into_inner();
        let (length, why) = (Duration::from_secs(seconds), reason.clone());
        let until_unix = self
            .change(move |handle| handle.pause(length, &reason))
            .await?
            .map_err(Status::invalid_argument)?;
        let (action, detail) = match seconds {
            0 => ("enable", why),
            _ => ("disable", format!("for {}: {why}", yaml::Span(length))),
        };
        self.tell(actor, action, "all policies", detail).await;
        Ok(Response::new(DisableReply { until_unix }))
    }

    async fn steer_rollout(
        &self,
        request: Request<SteerRolloutRequest>,
    ) -> Result<Response<SteerRolloutReply>, Status> {
        self.may_change()?;
        let actor = Actor::of(&request);
        let SteerRolloutRequest {
            go_on,
            trial,
            reason,
        } = request.into_inner();
        let trial = match trial.is_empty() {
            true => None,
            false => Some(
                Digest::try_from(&trial[..])
                    .map_err(|_| Status::invalid_argument("a digest has 32 bytes"))?,
            ),
        };
        let everybody = self.rollout.steer(go_on, trial, reason, actor).await;
        let everybody = everybody.map_err(Status::failed_precondition)?;
        Ok(Response::new(SteerRolloutReply {
            digest: everybody.0.to_vec().into(),
        }))
    }
}

/// Policies say what is in namespaces, and selectors reach across them.
fn sees_all<T>(request: &Request<T>) -> Result<(), Status> {
    let caller = Caller::of(request.extensions().get(), Role::Reader);
    if caller.namespaces.is_all() {
        return Ok(());
    }
    Err(Status::permission_denied(
        "a reader of some namespaces is not told the policies; `cresset status` names those of its own",
    ))
}

fn documents(handle: &Handle, request: &ListRequest) -> Vec<Document> {
    let set = handle.set();
    let wanted = |policy: &&policy::Policy| {
        (request.namespace.is_empty() || policy.namespace == request.namespace)
            && (request.name.is_empty() || policy.name == request.name)
    };
    let mut documents: Vec<Document> = set
        .models
        .iter()
        .filter(wanted)
        .map(|policy| {
            let status = set.policies.iter().find(|status| {
                status.name == policy.name
                    && status.namespace == policy.namespace
                    && status.kind == policy.kind.name()
            });
            Document {
                kind: policy.kind.name().to_owned(),
                namespace: policy.namespace.clone(),
                name: policy.name.clone(),
                source: set.source.clone(),
                file: policy.file.clone(),
                line: policy.line,
                json: object(policy).to_string().into(),
                rules: status.map_or(0, |status| status.rules),
                not_enforced: status
                    .map(|status| status.not_enforced.clone())
                    .unwrap_or_default(),
                expires_unix: status.map_or(0, |status| status.expires_unix),
            }
        })
        .collect();
    documents
        .sort_by(|a, b| (&a.namespace, &a.name, &a.kind).cmp(&(&b.namespace, &b.name, &b.kind)));
    documents
}

fn wire_key(key: applied::Key) -> Key {
    Key {
        kind: key.kind,
        namespace: key.namespace,
        name: key.name,
    }
}

fn what(done: Done) -> What {
    match done {
        Done::Put(applied::What::Created) => What::Created,
        Done::Put(applied::What::Changed) => What::Changed,
        Done::Put(applied::What::Unchanged) => What::Unchanged,
        Done::Deleted => What::Deleted,
        Done::NotThere => What::NotThere,
    }
}
