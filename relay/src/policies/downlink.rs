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

/// The service.
#[derive(Clone)]
pub(crate) struct Downlink {
    current: watch::Receiver<Arc<CurrentSet>>,
    offered: watch::Receiver<Arc<Offered>>,
    draining: watch::Receiver<bool>,
}

impl Downlink {
    /// Of the policies read, those that are `offered` to everybody.
    pub(crate) fn new(
        current: watch::Receiver<Arc<CurrentSet>>,
        offered: watch::Receiver<Arc<Offered>>,
        draining: watch::Receiver<bool>,
    ) -> Self {
        Self {
            current,
            offered,
            draining,
        }
    }

    /// As a service of a tonic server.
    pub(crate) fn into_server(self) -> DownlinkServer<Self> {
        DownlinkServer::new(self)
    }

    /// The set in force, if everybody is to run it.
    fn in_force(&mut self) -> Option<Arc<CurrentSet>> {
        let current = Arc::clone(&self.current.borrow_and_update());
        let offered = Arc::clone(&self.offered.borrow_and_update());
        (offered.everybody.digest() == current.ruleset.digest()).then_some(current)
    }

    /// The next set that is not the last one; none: the relay stops.
    async fn next(&mut self, last: Option<&[PolicyText]>) -> Option<Vec<PolicyText>> {
        loop {
            if *self.draining.borrow_and_update() {
                return None;
            }
            if let Some(set) = self.in_force() {
                let texts = texts(&set);
                if last != Some(&texts[..]) {
                    return Some(texts);
                }
            }
            tokio::select! {
                changed = self.current.changed() => changed.ok()?,
                changed = self.offered.changed() => changed.ok()?,
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
mod tests {
    use super::*;

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
