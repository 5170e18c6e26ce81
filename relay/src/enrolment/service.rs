//! Joining and renewing, on the link listener. Nobody has to show a certificate to be heard here, so a request is small,
//! its token is looked at before its key, and what is refused is counted and logged with measure.

use async_trait::async_trait;
use prometheus::{IntCounterVec, Opts};
use proto::enrolment::enrolment_server::{Enrolment as Service, EnrolmentServer};
use proto::enrolment::{Certificate, JoinRequest, RenewRequest};
use tonic::{Code, Request, Response, Status};

use super::{Enrolment, Refused};
use crate::access::Presented;
use crate::audit::{Act, Actor, Audit};
use crate::listen::Complaints;
use crate::metrics::Registry;

/// The methods that are heard without a role: the token or the certificate itself is judged by the service.
pub(crate) const OPEN: [&str; 2] = [
    "/cresset.enrolment.v1.Enrolment/Join",
    "/cresset.enrolment.v1.Enrolment/Renew",
];

/// Bytes of a request: a key, a token and a name fit many times.
const MAX_REQUEST: usize = 32 << 10;

/// What became of requests; a cheap handle.
#[derive(Debug, Clone)]
pub(crate) struct Counters {
    outcomes: IntCounterVec,
    complaints: Complaints,
}

impl Counters {
    /// # Errors
    /// The registry has them already.
    pub(crate) fn new(registry: &Registry) -> Result<Self, prometheus::Error> {
        let outcomes = IntCounterVec::new(
            Opts::new(
                "cresset_enrolments_total",
                "Requests for certificates: joined, renewed, or why not (form, unknown, ended, used, role, holder, taken, id, request, member, failed).",
            ),
            &["outcome"],
        )?;
        registry.register(Box::new(outcomes.clone()))?;
        Ok(Self {
            outcomes,
            complaints: Complaints::default(),
        })
    }

    fn count(&self, outcome: &str) {
        self.outcomes.with_label_values(&[outcome]).inc();
    }

    fn refuse(&self, refused: &Refused) -> Status {
        let word = refused.word();
        self.count(word);
        if let Some(left_out) = self.complaints.may(word) {
            tracing::warn!(reason = word, why = %refused, left_out, "no certificate given");
        }
        Status::from(refused)
    }
}

impl Refused {
    /// The label of its metric.
    fn word(&self) -> &'static str {
        match self {
            Self::Form(_) => "form",
            Self::Unknown => "unknown",
            Self::Ended { .. } => "ended",
            Self::Used { .. } => "used",
            Self::Role { .. } | Self::NoRole(_) => "role",
            Self::Holder { .. } => "holder",
            Self::Taken { .. } => "taken",
            Self::Id => "id",
            Self::Request(_) => "request",
            Self::NoMember => "member",
            Self::NotFound(_)
            | Self::Ttl
            | Self::Full
            | Self::Sign(_)
            | Self::Random(_)
            | Self::Write { .. } => "failed",
        }
    }

    fn code(&self) -> Code {
        match self {
            Self::Form(_) | Self::Id | Self::Request(_) | Self::NoRole(_) | Self::Ttl => {
                Code::InvalidArgument
            }
            Self::Unknown | Self::Ended { .. } | Self::NoMember => Code::Unauthenticated,
            Self::Used { .. } | Self::Role { .. } | Self::Holder { .. } | Self::Taken { .. } => {
                Code::PermissionDenied
            }
            Self::NotFound(_) => Code::NotFound,
            Self::Full => Code::ResourceExhausted,
            Self::Sign(_) | Self::Random(_) | Self::Write { .. } => Code::Internal,
        }
    }
}

impl From<&Refused> for Status {
    fn from(refused: &Refused) -> Self {
        Status::new(refused.code(), refused.to_string())
    }
}

impl Enrolment {
    /// The service for the link listener.
    pub(crate) fn into_server(
        self,
        counters: Counters,
        audit: Audit,
    ) -> EnrolmentServer<impl Service> {
        let door = LinkDoor {
            enrolment: self,
            counters,
            audit,
        };
        EnrolmentServer::new(door).max_decoding_message_size(MAX_REQUEST)
    }
}

struct LinkDoor {
    enrolment: Enrolment,
    counters: Counters,
    audit: Audit,
}

impl LinkDoor {
    /// Signing and writing take their time.
    async fn work<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Enrolment) -> Result<T, Refused> + Send + 'static,
    ) -> Result<T, Status> {
        let enrolment = self.enrolment.clone();
        let worked = tokio::task::spawn_blocking(move || work(&enrolment)).await;
        let worked = worked.map_err(|_| Status::unavailable("the relay is stopping"))?;
        worked.map_err(|refused| self.counters.refuse(&refused))
    }
}

#[async_trait]
impl Service for LinkDoor {
    async fn join(&self, request: Request<JoinRequest>) -> Result<Response<Certificate>, Status> {
        let actor = Actor::of(&request);
        let request = request.into_inner();
        let joined = self.work(move |enrolment| enrolment.join(&request)).await?;
        self.counters.count("joined");
        let act = Act {
            action: "join",
            target: joined.who,
            detail: format!("with the token {}", joined.token),
        };
        // Beside the answer: a journal that takes nothing must not keep a sensor from its certificate.
        let audit = self.audit.clone();
        tokio::spawn(async move { audit.tell(actor, act).await });
        Ok(Response::new(joined.certificate))
    }

    async fn renew(&self, request: Request<RenewRequest>) -> Result<Response<Certificate>, Status> {
        let presented = request.extensions().get::<Presented>().cloned();
        let request = request.into_inner().request;
        let renewed = self.work(move |enrolment| {
            let presented = presented.ok_or(Refused::NoMember)?;
            enrolment.renew(&presented, &request)
        });
        let certificate = renewed.await?;
        self.counters.count("renewed");
        Ok(Response::new(certificate))
    }
}
