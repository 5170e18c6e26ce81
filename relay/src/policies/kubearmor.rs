//! KubeArmor's `PolicyService` and `ProbeService`, so that `karmor vm policy add` and `karmor probe` work with this relay.
//!
//! The payload is a watch event in JSON, the answer one of seven words; the gRPC status is OK in all cases. Outside
//! Kubernetes the namespace of workloads is `container_namespace`, whatever the file says.

use std::sync::Arc;

use policy::Kind;
use proto::policy_v1 as wire;
use proto::policy_v1::PolicyStatus;
use proto::policy_v1::policy_service_server::{PolicyService, PolicyServiceServer};
use proto::policy_v1::probe_service_server::{ProbeService, ProbeServiceServer};
use serde_json::{Value, json};
use tonic::{Request, Response, Status};

use super::Handle;
use super::applied::{Key, What, object};
use super::change::{Changed, Done};
use crate::audit::{Act, Actor, Audit};

/// The namespace of workloads that no orchestrator runs.
const NAMESPACE: &str = "container_namespace";
/// The label that names a container in place of labels.
const CONTAINER_NAME: &str = "kubearmor.io/container.name";

/// A workload, and the policies that select it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ContainerPolicies {
    /// The container's name.
    pub container: String,
    /// `namespace/name`.
    pub policies: Vec<String>,
}

/// The workloads of all sensors.
pub type Workloads = Arc<dyn Fn() -> Vec<ContainerPolicies> + Send + Sync>;

/// Both services.
#[derive(Clone)]
pub(crate) struct KubeArmor {
    handle: Handle,
    workloads: Workloads,
    audit: Audit,
}

impl KubeArmor {
    pub(crate) fn new(handle: Handle, workloads: Workloads, audit: Audit) -> KubeArmor {
        KubeArmor {
            handle,
            workloads,
            audit,
        }
    }

    /// As services of a tonic server.
    pub(crate) fn into_servers(
        self,
    ) -> (
        PolicyServiceServer<KubeArmor>,
        ProbeServiceServer<KubeArmor>,
    ) {
        (
            PolicyServiceServer::new(self.clone()),
            ProbeServiceServer::new(self),
        )
    }

    async fn event(
        &self,
        kind: Kind,
        request: Request<wire::Policy>,
    ) -> Result<Response<wire::Response>, Status> {
        let (handle, payload) = (self.handle.clone(), request.into_inner().policy);
        let done = tokio::task::spawn_blocking(move || event(&handle, kind, &payload)).await;
        let (status, name) = done.unwrap_or((PolicyStatus::Failure, String::new()));
        let action = match status {
            PolicyStatus::Applied | PolicyStatus::Modified => Some("apply"),
            PolicyStatus::Deleted => Some("delete"),
            _ => None,
        };
        if let Some(action) = action {
            let act = Act {
                action,
                target: "policies".to_owned(),
                detail: name,
            };
            self.audit
                .tell(Actor::Way("KubeArmor's PolicyService"), act)
                .await;
        }
        Ok(Response::new(wire::Response {
            status: status.into(),
        }))
    }
}

#[async_trait::async_trait]
impl PolicyService for KubeArmor {
    async fn container_policy(
        &self,
        request: Request<wire::Policy>,
    ) -> Result<Response<wire::Response>, Status> {
        self.event(Kind::Workload, request).await
    }

    async fn host_policy(
        &self,
        request: Request<wire::Policy>,
    ) -> Result<Response<wire::Response>, Status> {
        self.event(Kind::Host, request).await
    }

    async fn network_policy(
        &self,
        request: Request<wire::Policy>,
    ) -> Result<Response<wire::Response>, Status> {
        self.event(Kind::Network, request).await
    }
}

#[async_trait::async_trait]
impl ProbeService for KubeArmor {
    async fn get_probe_data(
        &self,
        _: Request<()>,
    ) -> Result<Response<wire::ProbeResponse>, Status> {
        let set = self.handle.set();
        let data = |title: &String| {
            let named = |policy: &&policy::Policy| {
                *title == format!("{}/{}", policy.namespace, policy.name) || *title == policy.name
            };
            set.models.iter().find(named).map(|policy| wire::Policy {
                policy: object(policy).to_string().into(),
            })
        };
        let mut reply = wire::ProbeResponse::default();
        for workload in (self.workloads)() {
            reply.container_list.push(workload.container.clone());
            let entry = wire::ContainerData {
                policy_data_list: workload.policies.iter().filter_map(data).collect(),
                policy_list: workload.policies,
                policy_enabled: 1,
            };
            reply.container_map.insert(workload.container, entry);
        }
        let host = set.models.iter().filter(|policy| policy.kind == Kind::Host);
        let mut hosts = wire::HostSecurityPolicies::default();
        for policy in host {
            hosts.policy_list.push(policy.name.clone());
            let policy = object(policy).to_string().into();
            hosts.policy_data_list.push(wire::Policy { policy });
        }
        if !hosts.policy_list.is_empty() {
            reply.host_map.insert("host".to_owned(), hosts);
        }
        Ok(Response::new(reply))
    }
}

/// One watch event, applied; the word for what became of it, and the policy's name.
fn event(handle: &Handle, kind: Kind, payload: &[u8]) -> (PolicyStatus, String) {
    let event = serde_json::from_slice::<Value>(payload).unwrap_or_default();
    let name = event["object"]["metadata"]["name"]
        .as_str()
        .unwrap_or_default();
    if name.is_empty() {
        return (PolicyStatus::Invalid, String::new());
    }
    (named(handle, kind, &event, name), name.to_owned())
}

fn named(handle: &Handle, kind: Kind, event: &Value, name: &str) -> PolicyStatus {
    let given = &event["object"];
    let namespace = match kind {
        Kind::Workload => NAMESPACE,
        _ => "",
    };
    let key = Key {
        kind: kind.name().to_owned(),
        namespace: namespace.to_owned(),
        name: name.to_owned(),
    };
    match event["type"].as_str() {
        Some("DELETED") => deleted(handle, &key),
        Some("ADDED" | "MODIFIED") if kind == Kind::Workload && !selects(&given["spec"]) => {
            PolicyStatus::Invalid
        }
        Some("ADDED" | "MODIFIED") => put(handle, &key, &given["spec"]),
        _ => PolicyStatus::Invalid,
    }
}

fn deleted(handle: &Handle, key: &Key) -> PolicyStatus {
    if handle.applied(key).is_none() {
        return PolicyStatus::NotExist;
    }
    if handle.delete(std::slice::from_ref(key), false).is_refused() {
        return PolicyStatus::Failure;
    }
    PolicyStatus::Deleted
}

fn put(handle: &Handle, key: &Key, spec: &Value) -> PolicyStatus {
    let mut metadata = json!({"name": key.name});
    if !key.namespace.is_empty() {
        metadata["namespace"] = json!(key.namespace);
    }
    let object = json!({
        "apiVersion": policy::API_VERSION, "kind": key.kind, "metadata": metadata, "spec": spec,
    });
    let file = (key.name.clone(), object.to_string());
    // First only looked at: what is wrong with the policy is the sender's, what goes wrong behind it is ours.
    if handle.apply(std::slice::from_ref(&file), true).is_refused() {
        return PolicyStatus::Invalid;
    }
    status(&handle.apply(&[file], false))
}

fn status(changed: &Changed) -> PolicyStatus {
    if changed.is_refused() {
        return PolicyStatus::Failure;
    }
    match changed.changes.first() {
        Some((_, Done::Put(What::Changed))) => PolicyStatus::Modified,
        Some((_, Done::Put(_))) => PolicyStatus::Applied,
        _ => PolicyStatus::Failure,
    }
}

/// Outside Kubernetes a policy must name labels, or containers alone.
fn selects(spec: &Value) -> bool {
    let labels = spec["selector"]["matchLabels"].as_object();
    labels.is_some_and(|labels| {
        !labels.is_empty() && (labels.len() == 1 || !labels.contains_key(CONTAINER_NAME))
    })
}
