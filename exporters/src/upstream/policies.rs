//! The upstream relay's policies, as it puts them in force.
//!
//! A call of its own beside the session that forwards events: it is there when nothing happens, and whatever becomes of the one
//! does nothing to the other.

use std::time::Duration;

use proto::downlink::FollowRequest;
use proto::downlink::downlink_client::DownlinkClient;
use tokio::time::timeout;
use tonic::transport::Channel;
use tonic::{Code, Status};

use super::{Config, told, way};
use crate::BuildError;

/// For the connection and the first part.
const GREETING: Duration = Duration::from_secs(15);
/// Of one part: a policy may be as large as a file of policies.
const MAX_PART: usize = 8 << 20;
/// Of a set.
const MAX_SET: usize = 64 << 20;

/// Where each policy of a set is from, and its text.
pub type Texts = Vec<(String, String)>;

/// The way to them.
pub struct Policies {
    channel: Channel,
    relay: String,
}

impl Policies {
    /// Makes ready; nothing is connected yet. `sink` is the sink's name.
    ///
    /// # Errors
    /// A file that the settings name cannot be used.
    pub fn build(sink: &str, config: &Config) -> Result<Self, BuildError> {
        Ok(Policies {
            channel: way(sink, config)?.1,
            relay: config.name.clone(),
        })
    }

    /// Gives every set to `take` as it comes into force, for as long as the connection lasts; why it ended is the answer.
    pub async fn follow(&self, mut take: impl FnMut(Texts)) -> String {
        match self.sets(&mut take).await {
            Ok(()) => "the upstream relay closed the connection".to_owned(),
            Err(why) => why,
        }
    }

    async fn sets(&self, take: &mut impl FnMut(Texts)) -> Result<(), String> {
        let mut client =
            DownlinkClient::new(self.channel.clone()).max_decoding_message_size(MAX_PART);
        let request = FollowRequest {
            relay: self.relay.clone(),
        };
        let asked = timeout(GREETING, client.follow(request)).await;
        let asked = asked.map_err(|_| format!("no answer within {} s", GREETING.as_secs()))?;
        let mut parts = asked.map_err(|status| why(&status))?.into_inner();
        let (mut texts, mut bytes) = (Texts::new(), 0);
        while let Some(part) = parts.message().await.map_err(|status| why(&status))? {
            for policy in part.policies {
                bytes += policy.file.len() + policy.text.len();
                texts.push((policy.file, policy.text));
            }
            if bytes > MAX_SET {
                return Err(format!("its policies take more than {} MiB", MAX_SET >> 20));
            }
            if part.whole {
                take(std::mem::take(&mut texts));
                bytes = 0;
            }
        }
        Ok(())
    }
}

fn why(status: &Status) -> String {
    match status.code() {
        Code::Unimplemented => {
            "it is of a version that hands no policies down; take `policies: true` out, or install a newer one there"
                .to_owned()
        }
        _ => told(status),
    }
}
