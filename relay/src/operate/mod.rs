//! The administrator's service for the relay itself: its settings anew, where an event is, its latest log lines. Admin
//! socket only.

mod trace;

use std::sync::{Arc, OnceLock};

use async_trait::async_trait;
use proto::operate::operate_server::{Operate as Service, OperateServer};
use proto::operate::{
    LogsReply, LogsRequest, ReloadReply, ReloadRequest, SettingsReply, SettingsRequest, TraceReply,
    TraceRequest,
};
use proto::{EventId, operate};
use tokio::sync::{mpsc, oneshot};
use tonic::{Request, Response, Status};

use crate::audit::Actor;
use crate::telemetry::Logging;

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
    logging: Arc<OnceLock<Logging>>,
}

impl Operate {
    pub(crate) fn new(
        orders: mpsc::Sender<Order>,
        tracer: Tracer,
        logging: Arc<OnceLock<Logging>>,
    ) -> Self {
        Self {
            orders,
            tracer,
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

#[async_trait]
impl Service for Operate {
    async fn reload(
        &self,
        request: Request<ReloadRequest>,
    ) -> Result<Response<ReloadReply>, Status> {
        let actor = Actor::of(&request);
        let reply = self.order(|done| Order::Reload(actor, done)).await?;
        Ok(Response::new(reply))
    }

    async fn trace(&self, request: Request<TraceRequest>) -> Result<Response<TraceReply>, Status> {
        let id = EventId::try_from(&request.into_inner().id[..])
            .map_err(|why| Status::invalid_argument(format!("not an event id: {why}")))?;
        self.tracer.trace(id).await.map(Response::new)
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
