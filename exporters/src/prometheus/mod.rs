//! Counters of events on this program's `/metrics`, and on a port of their own where `listen` names one: KubeArmor's nine, and
//! ours.
//!
//! | metric | label |
//! |---|---|
//! | `kubearmor_alerts_in_host_total` | HostName |
//! | `kubearmor_alerts_in_namespace_total` | NamespaceName |
//! | `kubearmor_alerts_in_pod_total` | PodName |
//! | `kubearmor_alerts_in_container_total` | ContainerName |
//! | `kubearmor_alerts_with_policy_total` | PolicyName |
//! | `kubearmor_alerts_with_severity_total` | Severity |
//! | `kubearmor_alerts_with_type_total` | Type |
//! | `kubearmor_alerts_with_operation_total` | Operation |
//! | `kubearmor_alerts_with_action_total` | Action |
//! | `cresset_events_total` | kind, operation |
//! | `cresset_logs_total` | operation, namespace, workload |
//! | `cresset_label_values_folded_total` | metric |
//!
//! Names and labels of the nine are those of KubeArmor's Prometheus exporter: one increment an alert, an absent field is
//! an empty label.
//!
//! Decisions:
//! - **Bounded.** A metric admits `max_label_values` values (of several labels: combinations), first come; further ones, and
//!   those longer than 256 bytes, count as `other`, and how many were folded is a counter of its own.
//! - **No step back.** Values, admitted labels and the cursor's position are one atomic snapshot, so an event counts once
//!   across restarts and crashes. After a crash the snapshot is older than what was last scraped; therefore nothing is shown
//!   until the events that were waiting at start are counted again.

mod counts;
mod shown;
mod snapshot;
mod table;

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use prometheus::Registry;
use proto::FieldSet;
use serde::de::{Deserialize as _, Deserializer, Error as _};
use tokio::net::TcpStream;
use yaml::{Node, Problem};

use self::counts::{Counts, EVENTS, kind_label};
use self::shown::Shown;
use crate::config::{BatchLimits, Defaults};
use crate::{
    BadSnapshot, Batch, BuildError, Carried, Context, Encoded, Failed, Outcome, Served, Sink,
    Trial, Unavailable,
};

config! {
    /// Settings of a `prometheus` sink.
    pub struct Config {
        /// An address of its own for these counters, as in `127.0.0.1:9100` (the port of KubeArmor's exporter), besides the
        /// relay's `/metrics`. Whoever reaches it reads them: names of pods and policies.
        #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "address")]
        pub listen: Option<SocketAddr>,
        /// Values that one label may have; the rest counts as `other`. Not given: 1000.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub max_label_values: Option<u32>,
    }
}

/// Reads `IP:PORT`.
fn address<'de, D: Deserializer<'de>>(from: D) -> Result<Option<SocketAddr>, D::Error> {
    let Some(text) = Option::<String>::deserialize(from)? else {
        return Ok(None);
    };
    let written = match text.strip_prefix("localhost:") {
        Some(port) => format!("127.0.0.1:{port}"),
        None => text.clone(),
    };
    written.parse().map(Some).map_err(|_| {
        D::Error::custom(format!(
            "`{text}` is not an address; write IP:PORT, as in 127.0.0.1:9100, or 0.0.0.0:9100 for whoever reaches this machine"
        ))
    })
}

const MAX_LABEL_VALUES: u32 = 1000;

/// Counting is quick; the cursor's write is what a batch costs.
pub(crate) static DEFAULTS: Defaults = Defaults {
    batch: BatchLimits {
        max_events: 2000,
        max_bytes: 2 << 20,
        max_delay: Duration::ZERO,
    },
    concurrency: 1,
    max_concurrency: 1,
    fields: FieldSet::KubeArmor,
};

impl Config {
    /// It names none that has to be there.
    pub(crate) fn look(&self, _node: &Node, _problems: &mut Vec<Problem>) {}

    pub(crate) fn check(&self, node: &Node, problems: &mut Vec<Problem>) {
        if self
            .max_label_values
            .is_some_and(|n| !(1..=100_000).contains(&n))
        {
            problems.push(node.problem_at("max_label_values", "use 1 to 100000"));
        }
    }
}

struct State {
    counts: Counts,
    shown: bool,
}

#[derive(Clone)]
struct Shared(Arc<Mutex<State>>);

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        // Counting cannot panic half way through an event; whole events are what the state consists of.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The sink.
pub struct Prometheus {
    state: Shared,
    registry: Registry,
    page: Option<Served>,
}

impl Prometheus {
    /// Makes the sink and registers its metrics.
    ///
    /// # Errors
    /// Another sink has registered them.
    pub fn build(name: &str, config: &Config, context: &Context) -> Result<Self, BuildError> {
        let max = config.max_label_values.unwrap_or(MAX_LABEL_VALUES) as usize;
        let state = Shared(Arc::new(Mutex::new(State {
            counts: Counts::new(max),
            shown: false,
        })));
        let shown = || Shown::new(state.clone()).map_err(|e| BuildError::new(name, e));
        let page = match config.listen {
            Some(address) => Some(page(name, address, shown()?, context)?),
            None => None,
        };
        context
            .registry
            .register(Box::new(shown()?))
            .map_err(|e| match e {
                prometheus::Error::AlreadyReg => BuildError::new(
                    name,
                    "there can be only one prometheus sink; remove the other",
                ),
                e => BuildError::new(name, e),
            })?;
        Ok(Prometheus {
            state,
            registry: context.registry.clone(),
            page,
        })
    }
}

/// Serves the counters alone.
fn page(
    name: &str,
    address: SocketAddr,
    shown: Shown,
    context: &Context,
) -> Result<Served, BuildError> {
    let figures = Registry::new();
    figures
        .register(Box::new(shown))
        .map_err(|e| BuildError::new(name, e))?;
    let Some(pages) = &context.pages else {
        let reason = "this program serves no pages; take `listen` out";
        return Err(BuildError::new(name, reason));
    };
    let served = pages.serve(address, figures).map_err(|e| {
        let port = address.port();
        let reason = format!(
            "cannot listen on {address}: {e}; `ss -ltnp 'sport = :{port}'` shows who does; give `listen` another address"
        );
        BuildError::new(name, reason)
    })?;
    tracing::info!(sink = name, address = %served.address, "counters are served at /metrics");
    Ok(served)
}

/// So that another one may take its place.
impl Drop for Prometheus {
    fn drop(&mut self) {
        if let Ok(shown) = Shown::new(self.state.clone()) {
            // They are registered; somebody else's cannot be, under these names.
            let _ = self.registry.unregister(Box::new(shown));
        }
    }
}

#[async_trait]
impl Sink for Prometheus {
    async fn send(&self, batch: Arc<Batch>) -> Result<Vec<Outcome>, Unavailable> {
        let mut state = self.state.lock();
        for event in batch.events() {
            state.counts.count(event);
        }
        Ok(vec![Outcome::Done; batch.len()])
    }

    fn caught_up(&self) {
        self.state.lock().shown = true;
    }

    fn snapshot(&self) -> Option<Bytes> {
        Some(snapshot::save(&mut self.state.lock().counts))
    }

    fn restore(&self, snapshot: &[u8]) -> Result<(), BadSnapshot> {
        snapshot::load(snapshot, &mut self.state.lock().counts)
    }

    async fn test(&self, event: Carried, trial: &Trial) -> Result<(), Failed> {
        if let Some(page) = &self.page {
            trial.step("connect", connect(page.address)).await?;
        }
        let (before, _) = self.counted(&event);
        let batch = Arc::new(Batch::new(vec![event.clone()]));
        trial.write(self.send(batch)).await?;
        trial
            .step("read back", async {
                let (after, shown) = self.counted(&event);
                let kind = kind_label(event.kind());
                let hidden = if shown {
                    ""
                } else {
                    ", shown once the events that waited at the start are counted"
                };
                if after > before {
                    Ok((
                        (),
                        format!("{EVENTS} of kind {kind} stands at {after}{hidden}"),
                    ))
                } else {
                    Err(format!(
                        "{EVENTS} of kind {kind} still stands at {after}; please report it"
                    ))
                }
            })
            .await
    }
}

impl Prometheus {
    /// How often events like this one were counted, and whether scrapers see it.
    fn counted(&self, event: &Encoded) -> (u64, bool) {
        let view = event.view();
        let mut state = self.state.lock();
        let count = state.counts.of_kind(view.kind).get(view.operation);
        (count, state.shown)
    }
}

async fn connect(address: SocketAddr) -> Result<((), String), String> {
    match TcpStream::connect(address).await {
        Ok(_) => Ok(((), format!("http://{address}/metrics is served"))),
        Err(error) => Err(format!("{address}: {error}")),
    }
}

#[cfg(test)]
mod tests {
    use crate::SinkConfig;

    #[test]
    fn an_address_that_is_none_is_told_with_what_to_write() {
        let problems = |listen: &str| {
            let text = format!("{{type: prometheus, listen: '{listen}'}}");
            let (nodes, mut problems) = yaml::parse("c.yaml", &text);
            SinkConfig::read(&nodes[0], yaml::Severity::Error, &mut problems);
            let told: Vec<String> = problems.iter().map(ToString::to_string).collect();
            told.join("; ")
        };
        for good in ["127.0.0.1:9100", "localhost:9100", "[::1]:9100"] {
            assert_eq!(problems(good), "", "{good}");
        }
        for bad in ["9100", ":9100", "localhost"] {
            let told = problems(bad);
            assert!(
                told.contains(&format!("listen: `{bad}` is not an address; write IP:PORT")),
                "{told}"
            );
        }
    }
}
