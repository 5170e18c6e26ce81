//! A stream is its sensor's: what others send in it is not taken, also after a restart of the relay.

use std::path::Path;

use bytes::Bytes;
use proto::link::from_relay::Is as Reply;
use proto::link::from_sensor::Is as Say;
use proto::link::link_client::LinkClient;
use proto::link::{self, stream_state};
use proto::query::query_client::QueryClient;
use proto::query::watch_reply::Is;
use proto::query::{StatusRequest, WatchRequest};
use proto::{EventId, StreamId};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;

use crate::roles::with_certificates;
use crate::support::authority::{Authority, connect};
use crate::support::{Relay, STREAM, Sensor, alert, hello};

/// A sensor with a certificate that was welcomed.
async fn sensor(relay: &Relay, authority: &Authority, id: &str) -> (Sensor, link::Welcome) {
    session(relay, authority, &format!("sensor/{id}"), id).await
}

async fn session(
    relay: &Relay,
    authority: &Authority,
    name: &str,
    id: &str,
) -> (Sensor, link::Welcome) {
    let pair = authority.spiffe(name);
    let channel = connect(relay.at.link, authority.client(Some(pair))).await;
    let (say, said) = mpsc::channel(100);
    let heard = LinkClient::new(channel.expect("connected"))
        .exchange(ReceiverStream::new(said))
        .await
        .expect("a stream")
        .into_inner();
    let mut sensor = Sensor {
        say,
        heard,
        skipped: Vec::new(),
    };
    sensor.say(Say::Hello(hello(id))).await;
    match sensor.hear().await.expect("an answer").is {
        Some(Reply::Welcome(welcome)) => (sensor, welcome),
        other => panic!("a Welcome was expected, not {other:?}"),
    }
}

async fn reader(relay: &Relay, authority: &Authority) -> QueryClient<Channel> {
    let pair = authority.spiffe("reader/r");
    let channel = connect(relay.at.feed, authority.client(Some(pair))).await;
    QueryClient::new(channel.expect("connected"))
}

/// The ids of all alerts in the journal.
async fn ids(reader: &mut QueryClient<Channel>) -> Vec<EventId> {
    let watched = reader.watch(WatchRequest::default()).await;
    let mut replies = watched.expect("a stream").into_inner();
    let mut ids = Vec::new();
    while let Some(reply) = replies.message().await.expect("a reply") {
        if let Some(Is::Event(event)) = reply.is {
            ids.push(EventId::try_from(&event.id[..]).expect("an id"));
        }
    }
    ids
}

fn is_unknown(welcome: &link::Welcome) -> bool {
    let state = welcome.streams.first().and_then(|state| state.is.clone());
    state == Some(stream_state::Is::Unknown(true))
}

/// Tries to take the next numbers of the stream of `a`, announced or not.
async fn attack(relay: &Relay, authority: &Authority, first: u64) {
    let (mut thief, welcome) = sensor(relay, authority, "thief").await;
    assert!(is_unknown(&welcome), "how far it is, is not told either");
    thief.batch(first, 3).await;
    let ack = thief.ack().await;
    assert_eq!((ack.up_to, ack.rejected.len()), (first + 2, 3));
    assert!(
        ack.rejected
            .iter()
            .all(|rejected| rejected.reason.contains("another sensor"))
    );
    // The thief is heard in its own name.
    let own = StreamId([9; 8]);
    thief
        .say(Say::Batch(link::Batch {
            stream: own.0.to_vec().into(),
            first,
            events: vec![alert(1)],
        }))
        .await;
    let ack = thief.ack().await;
    assert_eq!((&ack.stream[..], ack.rejected.len()), (&own.0[..], 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn numbers_of_anothers_stream_are_not_taken_and_its_own_come_through() {
    let folder = tempfile::tempdir().expect("a folder");
    let (folder, authority): (&Path, _) = (folder.path(), Authority::new());
    let relay = Relay::with(with_certificates(folder, &authority)).await;
    let (mut a, welcome) = sensor(&relay, &authority, "a").await;
    assert!(is_unknown(&welcome));
    a.batch(1, 2).await;
    assert_eq!(a.ack().await.up_to, 2);
    // What a reader learns of a stream is its id and how far it is.
    let mut reading = reader(&relay, &authority).await;
    let seen = ids(&mut reading).await;
    assert_eq!(
        seen.last(),
        Some(&EventId {
            stream: STREAM,
            sequence: 2
        })
    );
    attack(&relay, &authority, 3).await;
    a.batch(3, 3).await;
    let ack = a.ack().await;
    assert_eq!((ack.up_to, ack.rejected.len()), (5, 0));
    let own = |ids: Vec<EventId>| ids.iter().filter(|id| id.stream == STREAM).count();
    assert_eq!(own(ids(&mut reading).await), 5);
    let named = "cresset_link_foreign_streams_total";
    relay.metric_is(named, 1.0).await;
    let status = reading.status(StatusRequest {}).await.expect("a status");
    assert!(
        status
            .into_inner()
            .losses
            .iter()
            .any(|loss| loss.count >= 3)
    );
    drop((a, reading));
    relay.stop().await;

    // The relay restarts, and the thief is faster than the sensor.
    let relay = Relay::with(with_certificates(folder, &authority)).await;
    attack(&relay, &authority, 6).await;
    let (mut a, welcome) = sensor(&relay, &authority, "a").await;
    let known = welcome.streams.first().and_then(|state| state.is.clone());
    let ranges = vec![link::Range { first: 1, end: 6 }];
    assert_eq!(
        known,
        Some(stream_state::Is::Received(link::Ranges { ranges }))
    );
    a.batch(6, 1).await;
    assert_eq!(a.ack().await.rejected, []);
    // A relay forwards what others say.
    let (mut forwarding, _) = session(&relay, &authority, "relay/r", "r").await;
    let events: Vec<Bytes> = vec![alert(7)];
    forwarding.events(7, events).await;
    assert_eq!(forwarding.ack().await.rejected, []);
    drop((a, forwarding));
    relay.stop().await;
}
