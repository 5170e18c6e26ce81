//! Traces of batches on their way, for whoever looks at them in OpenTelemetry: off unless `relay.telemetry.traces` says where to.
//!
//! ```text
//! sensor batch ── from the first event's own time to its arrival          by the sensor's clock, which may be off
//! └─ ingest ───── checked, until it is on disk
//!    ├─ journal ─ append, fdatasync
//!    └─ sink NAME, for every batch that a sink sends of it, once more for every attempt
//! ```
//! A share of the batches is drawn at their arrival; the others cost that draw. Sinks send events long after, and in other
//! batches: which journal places belong to a traced batch is remembered for the newest [`REMEMBERED`] of them.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use journal::AppendError;
use opentelemetry::trace::{
    Span as _, SpanContext, SpanKind, Status, TraceContextExt as _, Tracer as _,
    TracerProvider as _,
};
use opentelemetry::{Context, KeyValue};
use opentelemetry_otlp::{SpanExporter, WithExportConfig as _};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::{Sampler, SdkTracer, SdkTracerProvider, Span};
use proto::{Event, StreamId};

use crate::config;
use crate::log::Appended;
use crate::losses::Origin;

/// Traced batches whose places in the journal are remembered.
const REMEMBERED: usize = 1024;

/// Traced batches that one batch of a sink may be told in.
const TOLD_IN: usize = 16;

/// How long the last spans may take to leave.
const LAST_SPANS: Duration = Duration::from_secs(3);

/// Traces cannot be sent.
#[derive(Debug, thiserror::Error)]
#[error("traces cannot be sent to {endpoint}: {source}; check relay.telemetry.traces")]
pub struct TracesError {
    endpoint: String,
    source: opentelemetry_otlp::ExporterBuildError,
}

/// What traces batches, or does not; a cheap handle.
#[derive(Clone, Default)]
pub struct Traces(Option<Arc<Inner>>);

struct Inner {
    provider: SdkTracerProvider,
    tracer: SdkTracer,
    /// Below this a draw of 64 bits is traced.
    below: u64,
    journaled: Mutex<VecDeque<(Range<u64>, SpanContext)>>,
}

impl Traces {
    /// Begins to send traces as the settings say. The collector need not be there; a tokio runtime has to be.
    pub(crate) fn build(
        settings: Option<&config::Traces>,
        origin: &Origin,
    ) -> Result<Traces, TracesError> {
        let Some(config::Traces { endpoint, sample }) = settings else {
            return Ok(Traces::default());
        };
        let exporter = SpanExporter::builder()
            .with_tonic()
            .with_endpoint(endpoint)
            .build()
            .map_err(|source| TracesError {
                endpoint: endpoint.clone(),
                source,
            })?;
        let resource = Resource::builder_empty()
            .with_service_name("cresset-relay")
            .with_attributes([
                KeyValue::new("service.version", env!("CARGO_PKG_VERSION")),
                KeyValue::new("host.name", origin.host.clone()),
                KeyValue::new("k8s.cluster.name", origin.cluster.clone()),
            ])
            .build();
        let provider = SdkTracerProvider::builder()
            .with_batch_exporter(exporter)
            .with_sampler(Sampler::AlwaysOn)
            .with_resource(resource)
            .build();
        Ok(Traces(Some(Arc::new(Inner {
            tracer: provider.tracer("cresset-relay"),
            provider,
            below: (*sample * u64::MAX as f64) as u64,
            journaled: Mutex::default(),
        }))))
    }

    /// A batch has come, and some of it is new. None: it is not traced.
    pub(crate) fn batch(
        &self,
        sensor: &str,
        stream: StreamId,
        events: &[Event],
    ) -> Option<Journey> {
        let inner = self.0.as_ref()?;
        let first = events.first()?;
        // Without randomness nothing is traced, and nothing else is amiss.
        getrandom::u64().ok().filter(|draw| *draw <= inner.below)?;
        let of_batch = || {
            [
                KeyValue::new("cresset.sensor", sensor.to_owned()),
                KeyValue::new("cresset.stream", stream.to_string()),
                KeyValue::new("cresset.first", number(first.id.sequence)),
                KeyValue::new("cresset.events", number(events.len() as u64)),
            ]
        };
        let mut sent = inner
            .tracer
            .span_builder("sensor batch")
            .with_kind(SpanKind::Producer)
            .with_start_time(happened(first))
            .with_attributes(of_batch())
            .start_with_context(&inner.tracer, &Context::new());
        let whole = Context::new().with_remote_span_context(sent.span_context().clone());
        sent.end();
        let ingest = inner
            .tracer
            .span_builder("ingest")
            .with_kind(SpanKind::Consumer)
            .with_attributes(of_batch())
            .start_with_context(&inner.tracer, &whole);
        Some(Journey {
            inner: Arc::clone(inner),
            ingest,
            journal: None,
        })
    }

    /// A sink has sent these events, and this came of it. Told in the traces of the batches that they came in.
    pub(crate) fn sent(&self, flight: &Flight<'_>, trouble: Option<&str>) {
        let Some(inner) = &self.0 else {
            return;
        };
        for parent in inner.covering(flight.first, flight.last) {
            let mut span = inner
                .tracer
                .span_builder(format!("sink {}", flight.sink))
                .with_kind(SpanKind::Producer)
                .with_start_time(flight.began)
                .with_attributes([
                    KeyValue::new("cresset.sink", flight.sink.to_owned()),
                    KeyValue::new("cresset.sink.type", flight.kind),
                    KeyValue::new("cresset.events", number(flight.events as u64)),
                ])
                .start_with_context(
                    &inner.tracer,
                    &Context::new().with_remote_span_context(parent),
                );
            if let Some(trouble) = trouble {
                span.set_status(Status::error(trouble.to_owned()));
            }
            span.end();
        }
    }

    /// Whether anything is traced.
    pub(crate) fn is_on(&self) -> bool {
        self.0.is_some()
    }

    /// Sends what is left.
    pub(crate) async fn close(&self) {
        let Some(inner) = self.0.clone() else {
            return;
        };
        let closing =
            tokio::task::spawn_blocking(move || inner.provider.shutdown_with_timeout(LAST_SPANS));
        if let Ok(Err(error)) = closing.await {
            tracing::warn!(%error, "the last traces did not leave");
        }
    }
}

impl Inner {
    fn remember(&self, places: Range<u64>, parent: SpanContext) {
        let mut journaled = self
            .journaled
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if journaled.len() == REMEMBERED {
            journaled.pop_front();
        }
        journaled.push_back((places, parent));
    }

    /// The traced batches that brought some of these places.
    fn covering(&self, first: u64, last: u64) -> Vec<SpanContext> {
        let journaled = self
            .journaled
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let touched = journaled.iter().rev();
        let touched = touched.filter(|(places, _)| places.start <= last && first < places.end);
        touched
            .take(TOLD_IN)
            .map(|(_, parent)| parent.clone())
            .collect()
    }
}

/// What a sink sent together.
pub(crate) struct Flight<'a> {
    pub(crate) sink: &'a str,
    pub(crate) kind: &'static str,
    /// Places in the journal.
    pub(crate) first: u64,
    pub(crate) last: u64,
    pub(crate) events: usize,
    pub(crate) began: SystemTime,
}

/// A traced batch between its arrival and the disk; its spans end when it is dropped.
pub(crate) struct Journey {
    inner: Arc<Inner>,
    ingest: Span,
    journal: Option<Span>,
}

impl Journey {
    /// It is handed to the journal.
    pub(crate) fn appends(&mut self) {
        let parent = self.ingest.span_context().clone();
        let parent = Context::new().with_remote_span_context(parent);
        let span = self
            .inner
            .tracer
            .span_builder("journal")
            .with_kind(SpanKind::Internal);
        self.journal = Some(span.start_with_context(&self.inner.tracer, &parent));
    }

    /// It is on disk, or was refused.
    pub(crate) fn appended(mut self, written: &Result<Appended, AppendError>) {
        let mut journal = self.journal.take();
        match written {
            // Without a place nothing tells the flights of these events.
            Ok(Appended { places: None, .. }) => {}
            Ok(Appended {
                places: Some(places),
                ..
            }) => {
                let (start, end) = (places.start.0, places.end.0);
                if let Some(journal) = &mut journal {
                    journal.set_attribute(KeyValue::new("cresset.place", number(start)));
                }
                self.inner
                    .remember(start..end, self.ingest.span_context().clone());
            }
            Err(error) => self.ingest.set_status(Status::error(error.to_string())),
        }
        if let Some(mut journal) = journal {
            journal.end();
        }
        self.ingest.end();
    }
}

/// When an event happened, as it says itself; now, if it does not.
fn happened(event: &Event) -> SystemTime {
    let view = event.view();
    let precise = view.updated_time.parse::<jiff::Timestamp>().ok();
    let nanoseconds = precise.and_then(|time| u64::try_from(time.as_nanosecond()).ok());
    let seconds = u64::try_from(view.timestamp)
        .ok()
        .filter(|seconds| *seconds > 0);
    let since = nanoseconds
        .map(Duration::from_nanos)
        .or(seconds.map(Duration::from_secs));
    since.map_or_else(SystemTime::now, |since| UNIX_EPOCH + since)
}

fn number(figure: u64) -> i64 {
    i64::try_from(figure).unwrap_or(i64::MAX)
}
