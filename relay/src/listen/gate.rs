//! Between a connection and the services: who calls is found out here, once a call, and calls are counted, so that a
//! connection on which nothing happens can be told from one on which somebody listens.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use futures::future::Either;
use http_body::{Frame, SizeHint};
use tonic::Status;
use tonic::body::Body;
use tonic::codegen::http::header::AUTHORIZATION;
use tonic::codegen::http::{HeaderMap, Request, Response};
use tonic::service::Routes;
use tower::Service;

use super::Connections;
use super::grpc::Peer;
use crate::access::{Access, Caller, Denied, Door, Presented, Role, Shown};
use crate::enrolment::{self, Enrolment};
use crate::ingest::Lent;

/// What is asked of every call of one connection.
#[derive(Debug)]
pub(super) struct Gate {
    pub(super) listener: &'static str,
    pub(super) door: Door,
    pub(super) access: Access,
    /// Clients of this listener may have certificates.
    pub(super) asked: bool,
    pub(super) certificate: Option<Presented>,
    /// Where certificates are given here: who joined, and the methods for it.
    pub(super) enrolment: Option<Enrolment>,
    pub(super) connections: Connections,
    pub(super) calls: Arc<Calls>,
}

impl Gate {
    fn admit(&self, path: &str, headers: &HeaderMap) -> Result<Caller, Status> {
        if self.enrolment.is_some() && enrolment::OPEN.contains(&path) {
            // The service judges by the token or the certificate itself.
            return Ok(Caller::guest(Role::Sensor));
        }
        self.judge(headers).map_err(|denied| {
            self.connections.deny(self.listener, &denied);
            Status::from(&denied)
        })
    }

    fn judge(&self, headers: &HeaderMap) -> Result<Caller, Denied> {
        // A value that is no text is not of the form, and is refused as that.
        let authorization = headers
            .get(AUTHORIZATION)
            .map(|value| value.to_str().unwrap_or_default());
        let shown = Shown {
            asked: self.asked,
            certificate: self.certificate.as_ref(),
            authorization,
        };
        let void = |presented: &&Presented| {
            let enrolment = self.enrolment.as_ref();
            enrolment.is_some_and(|enrolment| enrolment.is_void(presented))
        };
        // A token decides before a certificate.
        match self.certificate.as_ref().filter(void) {
            Some(presented) if authorization.is_none() => {
                Err(Denied::Void(presented.name().to_owned()))
            }
            _ => self.access.admit(self.door, shown),
        }
    }
}

/// The calls of a connection.
#[derive(Debug)]
pub(super) struct Calls {
    /// Those that have not ended.
    open: AtomicUsize,
    /// There was one.
    any: AtomicBool,
    last: Mutex<Instant>,
}

impl Calls {
    pub(super) fn new() -> Self {
        Self::since(Instant::now())
    }

    /// Of a connection that has been there since then.
    pub(super) fn since(last: Instant) -> Self {
        Self {
            open: AtomicUsize::new(0),
            any: AtomicBool::new(false),
            last: Mutex::new(last),
        }
    }

    /// For how long nothing was asked; none while a call is open.
    pub(super) fn idle(&self) -> Option<Duration> {
        let none = self.open.load(Ordering::Acquire) == 0;
        none.then(|| self.last().elapsed())
    }

    /// Whether a call was ever admitted.
    pub(super) fn any(&self) -> bool {
        self.any.load(Ordering::Relaxed)
    }

    /// A call, until the answer is dropped.
    pub(super) fn begin(calls: &Arc<Calls>) -> Open {
        calls.any.store(true, Ordering::Relaxed);
        calls.open.fetch_add(1, Ordering::AcqRel);
        Open(calls.clone())
    }

    #[cfg(test)]
    pub(super) fn set_last(&self, last: Instant) {
        *self.last() = last;
    }

    fn last(&self) -> std::sync::MutexGuard<'_, Instant> {
        self.last.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Counts a call while it lasts.
pub(super) struct Open(Arc<Calls>);

impl Drop for Open {
    fn drop(&mut self) {
        *self.0.last() = Instant::now();
        self.0.open.fetch_sub(1, Ordering::AcqRel);
    }
}

/// The services, told who asks.
#[derive(Clone)]
pub(super) struct Gated {
    pub(super) routes: Routes,
    pub(super) gate: Arc<Gate>,
    pub(super) peer: Peer,
    pub(super) lent: Option<Arc<Lent>>,
}

type Answered<E> = Result<Response<Body>, E>;

impl<B> Service<Request<B>> for Gated
where
    Routes: Service<Request<B>, Response = Response<Body>>,
    <Routes as Service<Request<B>>>::Future: Send + 'static,
    <Routes as Service<Request<B>>>::Error: Send + 'static,
{
    type Response = Response<Body>;
    type Error = <Routes as Service<Request<B>>>::Error;
    type Future = Either<
        std::future::Ready<Answered<Self::Error>>,
        Pin<Box<dyn Future<Output = Answered<Self::Error>> + Send>>,
    >;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.routes.poll_ready(context)
    }

    fn call(&mut self, mut request: Request<B>) -> Self::Future {
        let caller = match self.gate.admit(request.uri().path(), request.headers()) {
            Ok(caller) => caller,
            Err(status) => return Either::Left(std::future::ready(Ok(status.into_http()))),
        };
        let extensions = request.extensions_mut();
        extensions.insert(caller);
        let Peer { tcp, unix } = self.peer.clone();
        extensions.insert(tcp);
        if let Some(unix) = unix {
            extensions.insert(unix);
        }
        if let Some(certificate) = &self.gate.certificate {
            extensions.insert(certificate.clone());
        }
        if let Some(lent) = &self.lent {
            extensions.insert(lent.clone());
        }
        let open = Calls::begin(&self.gate.calls);
        let answer = self.routes.call(request);
        Either::Right(Box::pin(async move {
            let answer = answer.await?;
            Ok(answer.map(|body| Body::new(Counted { body, _open: open })))
        }))
    }
}

/// An answer whose call lasts as long as it does.
struct Counted {
    body: Body,
    _open: Open,
}

impl http_body::Body for Counted {
    type Data = bytes::Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Status>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
