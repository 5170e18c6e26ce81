//! A server that is too small for what comes: less at a time, and every event arrives.

use std::sync::Arc;

use proto::FieldSet;
use serde_json::json;

use crate::scene::*;
use crate::server::{Elasticsearch, Product};

const SUITE: &str = "elasticsearch: pressure";

/// 413 above 64 KiB, 429 for the whole request above 32 KiB, 429 for items when several shards are written to at once.
const SMALL: [&str; 4] = [
    "http.max_content_length=64kb",
    "indexing_pressure.memory.limit=32kb",
    "thread_pool.write.size=1",
    "thread_pool.write.queue_size=1",
];

#[tokio::test(flavor = "multi_thread")]
async fn a_small_server_gets_every_event_in_small_pieces() {
    let Some(server) = Elasticsearch::start(SUITE, Product::Elasticsearch, &SMALL) else {
        return;
    };
    let sink = sink_to(&server.url(), &names("small", ""));
    let mut events = alerts(1..=1500);
    events.push(alert_with(1501, |alert| {
        alert.message = "x".repeat(100_000)
    }));
    let bytes: usize = events
        .iter()
        .map(|event| event.json(FieldSet::All).unwrap().len())
        .sum();
    assert!(bytes > 10 * (64 << 10), "{bytes}");
    let (refused, sends) = deliver(&*sink, &events, events.len()).await;
    // What can never go in says so; the rest is there.
    assert_eq!(refused.keys().collect::<Vec<_>>(), [&1501]);
    assert!(refused[&1501].contains("status 413"), "{refused:?}");
    assert_eq!(
        server
            .count("small-alerts", json!({ "match_all": {} }))
            .await,
        1500
    );
    println!("{sends} sends");

    // Many shards share the one place in the queue: some items of an answer are 429, the others are in.
    let sink: Arc<dyn exporters::Sink> =
        sink_to(&server.url(), &names("shards", "shards: 8")).into();
    let streams = (0..4u64).map(|stream| {
        let sink = Arc::clone(&sink);
        tokio::spawn(async move {
            let events = alerts(stream * 1000 + 1..=stream * 1000 + 200);
            deliver(&*sink, &events, 20).await
        })
    });
    let mut sends = 0;
    for stream in streams.collect::<Vec<_>>() {
        let (refused, n) = stream.await.unwrap();
        assert!(refused.is_empty(), "{refused:?}");
        sends += n;
    }
    // 40 would do if nothing were refused.
    assert!(sends > 40, "{sends} sends: the server refused nothing");
    assert_eq!(
        server
            .count("shards-alerts", json!({ "match_all": {} }))
            .await,
        800
    );
}
