//! What the feed listener serves: `feeder.LogService`, our query service, grpc.health.v1, and reflection over all of it.

use tonic::service::Routes;
use tonic_health::server::health_reporter;
use tonic_reflection::server::{Builder, Error};

use super::LogService;
use crate::query::{QueryServer, QueryService};

/// What reflection lists: the services of this listener. The descriptors know more of them (the link, KubeArmor's policy
/// service), and a client that finds those here would call what nobody answers.
const LISTED: [&str; 6] = [
    "feeder.LogService",
    "cresset.query.v1.Query",
    "cresset.policies.v1.Policies",
    "grpc.health.v1.Health",
    "grpc.reflection.v1.ServerReflection",
    "grpc.reflection.v1alpha.ServerReflection",
];

/// All services of the feed listener.
///
/// # Errors
/// Descriptors that were built into this program cannot be read.
pub async fn services(log: LogService, query: QueryService) -> Result<Routes, Error> {
    let (reporter, health) = health_reporter();
    // Until the listener is there nobody can ask, and when it is there it serves.
    reporter.set_serving::<LogService>().await;
    reporter.set_serving::<QueryServer<QueryService>>().await;
    let reflection = || {
        let builder = Builder::configure()
            .register_encoded_file_descriptor_set(proto::FILE_DESCRIPTOR_SET)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
            .register_encoded_file_descriptor_set(tonic_reflection::pb::v1::FILE_DESCRIPTOR_SET);
        LISTED
            .into_iter()
            .fold(builder, |builder, name| builder.with_service_name(name))
    };
    // grpcurl asks v1 since 1.8.7, older tools v1alpha.
    Ok(Routes::new(log)
        .add_service(query.into_server())
        .add_service(health)
        .add_service(reflection().build_v1()?)
        .add_service(reflection().build_v1alpha()?))
}
