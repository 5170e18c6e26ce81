//! This relay's policies, to relays below it: at once, and after every change.
//!
//! They go as texts, as they are in force here for everybody: what is on trial (`policies.rollout`) stays with this relay's
//! own canaries until it is out. The relay below reads them as one more source, so they are checked there as well, and a policy
//! that it has from elsewhere, too, is told as of any two sources.

use std::pin::Pin;
use std::sync::Arc;

use async_trait::async_trait;
use futures::Stream;
use proto::downlink::downlink_server::{Downlink as Service, DownlinkServer};
use proto::downlink::{FollowRequest, PolicySet, PolicyText};
use tokio::sync::watch;
use tonic::{Request, Response, Status};

use super::CurrentSet;
use super::applied::object;
use crate::access::{Caller, Role};
use crate::distribute::Offered;

/// Bytes of policies in one part.
const PART: usize = 256 << 10;

/// A set in force for everybody; none before there is one.
type Latest = Option<Arc<CurrentSet>>;

/// The service.
#[derive(Clone)]
pub(crate) struct Downlink {
    in_force: watch::Receiver<Latest>,
    draining: watch::Receiver<bool>,
}

impl Downlink {
    /// Of the policies read, those that are `offered` to everybody. Needs a runtime.
    pub(crate) fn new(
        current: watch::Receiver<Arc<CurrentSet>>,
        offered: watch::Receiver<Arc<Offered>>,
        draining: watch::Receiver<bool>,
    ) -> Self {
        let (latest, in_force) = watch::channel(None);
        tokio::spawn(follow(current, offered, latest));
        Self { in_force, draining }
    }

    /// As a service of a tonic server.
    pub(crate) fn into_server(self) -> DownlinkServer<Self> {
        DownlinkServer::new(self)
    }

    /// The next set that is not the last one; none: the relay stops.
    async fn next(&mut self, last: Option<&[PolicyText]>) -> Option<Vec<PolicyText>> {
        loop {
            if *self.draining.borrow_and_update() {
                return None;
            }
            let latest = self.in_force.borrow_and_update().clone();
            if let Some(set) = latest {
                let texts = texts(&set);
                if last != Some(&texts[..]) {
                    return Some(texts);
                }
            }
            tokio::select! {
                changed = self.in_force.changed() => changed.ok()?,
                _ = self.draining.changed() => {}
            }
        }
    }

    fn sets(self) -> impl Stream<Item = Vec<PolicyText>> + Send {
        futures::stream::unfold((self, None), |(mut this, last)| async move {
            let set = this.next(last.as_deref()).await?;
            Some((set.clone(), (this, Some(set))))
        })
    }
}

/// Keeps the latest set that may go down, so that a relay that comes during a trial gets what everybody has.
async fn follow(
    mut current: watch::Receiver<Arc<CurrentSet>>,
    mut offered: watch::Receiver<Arc<Offered>>,
    latest: watch::Sender<Latest>,
) {
    loop {
        let set = Arc::clone(&current.borrow_and_update());
        let for_all = offered.borrow_and_update().everybody.digest() == set.ruleset.digest();
        if for_all && goes_down(&set) {
            latest.send_replace(Some(set));
        }
        let changed = tokio::select! {
            changed = current.changed() => changed,
            changed = offered.changed() => changed,
        };
        if changed.is_err() || latest.is_closed() {
            return;
        }
    }
}

/// A pause is this relay's own, and has an end here alone. No policies at all while a source is not there yet are none that
/// anybody has written: a relay below would let go of all it has.
fn goes_down(set: &CurrentSet) -> bool {
    let nothing_yet = set.absent && set.models.is_empty();
    !set.paused && !nothing_yet
}

fn texts(set: &CurrentSet) -> Vec<PolicyText> {
    let text = |policy: &policy::Policy| PolicyText {
        file: policy.file.clone(),
        text: object(policy).to_string(),
    };
    set.models.iter().map(text).collect()
}

/// A set in parts; the last one says so.
fn parts(set: Vec<PolicyText>) -> Vec<PolicySet> {
    let (mut parts, mut bytes) = (vec![PolicySet::default()], 0);
    for policy in set {
        let size = policy.file.len() + policy.text.len();
        if bytes > 0 && bytes + size > PART {
            parts.push(PolicySet::default());
            bytes = 0;
        }
        bytes += size;
        if let Some(part) = parts.last_mut() {
            part.policies.push(policy);
        }
    }
    if let Some(last) = parts.last_mut() {
        last.whole = true;
    }
    parts
}

#[async_trait]
impl Service for Downlink {
    type FollowStream = Pin<Box<dyn Stream<Item = Result<PolicySet, Status>> + Send>>;

    async fn follow(
        &self,
        request: Request<FollowRequest>,
    ) -> Result<Response<Self::FollowStream>, Status> {
        use futures::StreamExt as _;
        let caller = Caller::of(request.extensions().get(), Role::Sensor);
        let relay = &request.get_ref().relay;
        if !caller.may_speak_for(relay) {
            let why = format!("{} may not speak for relay `{relay}`", caller.name);
            return Err(Status::permission_denied(why));
        }
        tracing::info!(relay, "a relay below takes up the policies");
        let parts = self.clone().sets().flat_map(|set| {
            let parts = parts(set).into_iter().map(Ok);
            futures::stream::iter(parts.collect::<Vec<_>>())
        });
        Ok(Response::new(Box::pin(parts)))
    }
}

#[cfg(test)]
#[allow(clippy::expect_used, reason = "a test that cannot go on has failed")]
mod tests {
    use super::*;

    fn set(words: &str) -> Arc<CurrentSet> {
        let spec = format!(
            "{{apiVersion: security.kubearmor.com/v1, kind: KubeArmorPolicy, metadata: {{name: p, namespace: n}}, spec: {{selector: {{matchLabels: {{a: b}}}}, process: {{matchPaths: [{{path: /bin/x}}]}}, action: {words}}}}}"
        );
        let (models, problems) = policy::load([("p.yaml", &*spec)]);
        assert_eq!(problems, []);
        let ruleset = policy::compile(&models, &proto::rules::Postures::default());
        Arc::new(CurrentSet {
            ruleset: Arc::new(ruleset),
            models: Arc::new(models),
            ..CurrentSet::default()
        })
    }

    fn everybody(set: &CurrentSet) -> Arc<Offered> {
        Arc::new(Offered::to_all(Arc::clone(&set.ruleset)))
    }

    #[tokio::test]
    async fn who_comes_during_a_trial_gets_what_everybody_has_and_a_pause_goes_nowhere() {
        let stable = set("Block");
        let current = watch::Sender::new(Arc::clone(&stable));
        let offered = watch::Sender::new(everybody(&stable));
        let draining = watch::Sender::new(false);
        let downlink = Downlink::new(
            current.subscribe(),
            offered.subscribe(),
            draining.subscribe(),
        );
        let first = downlink.clone().next(None).await.expect("a set");
        assert!(first[0].text.contains("Block"));

        // On trial: read, and not for everybody. Nothing is there: a source that was never read. Off for a while.
        let absent = CurrentSet {
            absent: true,
            ..CurrentSet::default()
        };
        let paused = CurrentSet {
            paused: true,
            ..CurrentSet::default()
        };
        for not_down in [set("Audit"), Arc::new(absent), Arc::new(paused)] {
            current.send_replace(Arc::clone(&not_down));
            if not_down.models.is_empty() {
                offered.send_replace(everybody(&not_down));
            }
            tokio::task::yield_now().await;
            assert_eq!(downlink.clone().next(None).await, Some(first.clone()));
        }
        let out = set("Audit");
        offered.send_replace(everybody(&out));
        current.send_replace(out);
        let next = downlink.clone().next(Some(&first)).await.expect("a set");
        assert!(next[0].text.contains("Audit"));
    }

    #[test]
    fn a_set_comes_in_parts_of_which_the_last_says_so() {
        let policy = |size| PolicyText {
            file: "a.yaml".to_owned(),
            text: "x".repeat(size),
        };
        let sizes = |set| -> Vec<(usize, bool)> {
            let parts = parts(set);
            parts
                .iter()
                .map(|part| (part.policies.len(), part.whole))
                .collect()
        };
        assert_eq!(sizes(vec![]), [(0, true)]);
        assert_eq!(sizes(vec![policy(9); 3]), [(3, true)]);
        let large = vec![policy(PART), policy(9), policy(PART - 40), policy(PART)];
        assert_eq!(sizes(large), [(1, false), (2, false), (1, true)]);
    }
}
