//! The administrator's service for the relay itself: its settings anew, where events are, sensors that will not come back,
//! its latest log lines. Admin socket only.

mod heads;
mod search;
mod trace;

use std::sync::{Arc, OnceLock};

use async_trait::async_trait;
use futures::StreamExt as _;
use futures::stream::BoxStream;
use proto::operate::operate_server::{Operate as Service, OperateServer};
use proto::operate::{
    ForgetSensorReply, ForgetSensorRequest, LogsReply, LogsRequest, ReloadReply, ReloadRequest,
    SettingsReply, SettingsRequest, TraceManyRequest, TraceReply, TraceRequest,
};
use proto::{EventId, operate};
use tokio::sync::{mpsc, oneshot};
use tonic::{Request, Response, Status};

use self::trace::Answer;
use crate::audit::{Act, Actor, Audit};
use crate::ingest::{NotForgotten, Sensors};
use crate::telemetry::Logging;

pub(crate) use self::heads::Heads;
pub(crate) use self::trace::Tracer;

/// What is asked of whoever can exchange the relay's parts.
pub(crate) enum Order {
    /// Read the settings again and take up what changed.
    Reload(Actor, oneshot::Sender<ReloadReply>),
    /// Show the settings in force.
    Show(oneshot::Sender<SettingsReply>),
}

/// The service.
pub(crate) struct Operate {
    orders: mpsc::Sender<Order>,
    tracer: Tracer,
    sensors: Sensors,
    audit: Audit,
    logging: Arc<OnceLock<Logging>>,
}

impl Operate {
    pub(crate) fn new(
        orders: mpsc::Sender<Order>,
        tracer: Tracer,
        sensors: Sensors,
        audit: Audit,
        logging: Arc<OnceLock<Logging>>,
    ) -> Self {
        Self {
            orders,
            tracer,
            sensors,
            audit,
            logging,
        }
    }

    /// As a service of a tonic server.
    pub(crate) fn into_server(self) -> OperateServer<Self> {
        OperateServer::new(self)
    }

    async fn order<T>(&self, order: impl FnOnce(oneshot::Sender<T>) -> Order) -> Result<T, Status> {
        let stopping = || Status::unavailable("the relay is stopping");
        let (done, answer) = oneshot::channel();
        self.orders
            .send(order(done))
            .await
            .map_err(|_| stopping())?;
        answer.await.map_err(|_| stopping())
    }
}

fn event_id(bytes: &[u8]) -> Result<EventId, Status> {
    EventId::try_from(bytes)
        .map_err(|why| Status::invalid_argument(format!("not an event id: {why}")))
}

impl From<NotForgotten> for Status {
    fn from(why: NotForgotten) -> Status {
        match why {
            NotForgotten::Unknown(_) => Status::not_found(why.to_string()),
            NotForgotten::Connected { .. } => Status::failed_precondition(why.to_string()),
        }
    }
}

#[async_trait]
impl Service for Operate {
    type TraceManyStream = BoxStream<'static, Answer>;

    async fn reload(
        &self,
        request: Request<ReloadRequest>,
    ) -> Result<Response<ReloadReply>, Status> {
        let actor = Actor::of(&request);
        let reply = self.order(|done| Order::Reload(actor, done)).await?;
        Ok(Response::new(reply))
    }

    async fn trace(&self, request: Request<TraceRequest>) -> Result<Response<TraceReply>, Status> {
        let id = event_id(&request.into_inner().id)?;
        self.tracer.trace(id).await.map(Response::new)
    }

    async fn trace_many(
        &self,
        request: Request<TraceManyRequest>,
    ) -> Result<Response<Self::TraceManyStream>, Status> {
        let ids = request.into_inner().ids;
        let ids: Result<Vec<EventId>, Status> = ids.iter().map(|id| event_id(id)).collect();
        let answers = self.tracer.trace_many(ids?)?;
        Ok(Response::new(answers.boxed()))
    }

    async fn forget_sensor(
        &self,
        request: Request<ForgetSensorRequest>,
    ) -> Result<Response<ForgetSensorReply>, Status> {
        let actor = Actor::of(&request);
        let sensor = request.into_inner().sensor;
        let forgotten = self.sensors.forget(&sensor)?;
        let act = Act {
            action: "forget",
            target: format!("sensor {sensor}"),
            detail: format!("node {}", forgotten.node),
        };
        Ok(Response::new(ForgetSensorReply {
            node: forgotten.node,
            last_seen_unix: forgotten.last_seen_unix,
            audited: self.audit.tell(actor, act).await,
        }))
    }

    async fn logs(&self, _: Request<LogsRequest>) -> Result<Response<LogsReply>, Status> {
        let latest = self.logging.get().map(Logging::latest);
        let text = latest.ok_or_else(|| {
            Status::unimplemented(
                "this relay's log lines are in the hands of the program around it",
            )
        })?;
        Ok(Response::new(operate::LogsReply { text }))
    }

    async fn settings(
        &self,
        _: Request<SettingsRequest>,
    ) -> Result<Response<SettingsReply>, Status> {
        self.order(Order::Show).await.map(Response::new)
    }
}
