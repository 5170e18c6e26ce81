//! What is served behind each gRPC listener.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use journal::AppendError;
use proto::Kind;
use tonic::Status;
use tonic::service::Routes;

use super::StartError;
use super::doors::Services;
use crate::audit::Audit;
use crate::feed::{self, LogService, Tail};
use crate::ingest::{Door, Importer, Ingest};
use crate::log::{Store, unix_nanoseconds};
use crate::losses::Origin;
use crate::operate::Operate;
use crate::policies::{self, KubeArmor, PoliciesService};
use crate::query::{self, Import, QueryService};
use crate::rollout;
use crate::status::Parts;
use crate::steering;

/// What everybody who watches should know of the policies, as events. Told beside everything else: a journal that refuses
/// events must not keep policies from changing.
pub(super) fn notices(importer: Importer, origin: Origin) -> impl FnMut(String) + Send + 'static {
    move |text| {
        let (importer, origin) = (importer.clone(), origin.clone());
        tokio::spawn(async move {
            let message = origin.message(unix_nanoseconds(), "WARN", text);
            let payload = Bytes::from(prost::Message::encode_to_vec(&message));
            if let Err(error) = importer.import(vec![(Kind::Message, payload)]).await {
                tracing::warn!(%error, "a notice of the policies is in the log only");
            }
        });
    }
}

/// Who is in which containers, for `karmor probe`.
fn container_policies(ingest: &Ingest) -> policies::Workloads {
    let sensors = ingest.sensors();
    Arc::new(move || {
        let workloads = sensors
            .list()
            .into_iter()
            .flat_map(|sensor| sensor.workloads);
        let one = |workload: proto::link::Workload| policies::ContainerPolicies {
            container: workload.container,
            policies: workload.policies,
        };
        workloads.map(one).collect()
    })
}

/// Events from the admin socket.
#[async_trait]
impl Import for Importer {
    async fn import(&self, events: Vec<(Kind, Bytes)>) -> Result<query::Imported, Status> {
        let imported = Importer::import(self, events)
            .await
            .map_err(|error| match error {
                AppendError::Full { .. } | AppendError::Failed { .. } => {
                    Status::resource_exhausted(error.to_string())
                }
                _ => Status::unavailable(error.to_string()),
            })?;
        let refused = imported
            .rejected
            .into_iter()
            .map(|(place, why)| (place, why.to_string()))
            .collect();
        Ok(query::Imported {
            accepted: imported.accepted,
            refused,
        })
    }
}

/// What is served besides what is read.
pub(super) struct Serving {
    pub(super) log_service: LogService,
    pub(super) sinks: steering::Sinks,
    pub(super) operate: Operate,
    pub(super) audit: Audit,
    pub(super) policies: policies::Handle,
    pub(super) rollout: rollout::Handle,
    /// For relays below.
    pub(super) downlink: policies::Downlink,
    /// KubeArmor's services for policies, too.
    pub(super) kubearmor: bool,
}

pub(super) async fn services(
    log: &Store,
    tail: &Tail,
    ingest: &Ingest,
    parts: &Parts,
    serving: Serving,
) -> Result<Services, StartError> {
    let query = || {
        QueryService::new(tail.clone(), log.relay_id(), log.secret(), parts.clone())
            .numbered(&log.log().numbering())
    };
    let admin = query().with_import(Arc::new(ingest.importer(Door::Import)));
    let reading = PoliciesService::new(serving.policies.clone(), serving.rollout);
    let changing = reading
        .clone()
        .with_changes()
        .audited(serving.audit.clone());
    let mut feed = feed::services(serving.log_service, query())
        .await?
        .add_service(reading.into_server());
    if serving.kubearmor {
        let (policies, probe) = KubeArmor::new(
            serving.policies,
            container_policies(ingest),
            serving.audit.clone(),
        )
        .into_servers();
        feed = feed.add_service(policies).add_service(probe);
    }
    Ok(Services {
        feed,
        link: Routes::new(ingest.service()).add_service(serving.downlink.into_server()),
        admin: Routes::new(admin.into_server())
            .add_service(serving.sinks.into_server())
            .add_service(serving.operate.into_server())
            .add_service(changing.into_server()),
    })
}
