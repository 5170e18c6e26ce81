//! The query service over a real socket and a real journal: history, live tail, filters, resume, import.
#![allow(
    clippy::expect_used,
    clippy::panic,
    reason = "a test that cannot go on has failed"
)]

mod readers;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use proto::query::watch_reply::Is;
use proto::query::{Filter, ImportRequest, StatusRequest, WatchReply, WatchRequest, WatchedEvent};
use proto::{Kind, link};
use readers::{Feed, RELAY, alert, log, message, now, number, silent, soon};
use relay::feed;
use relay::query::{Import, Imported};
use tonic::{Code, Status, Streaming};

/// A stream of replies, taken apart.
struct Watch(Streaming<WatchReply>);

impl Watch {
    async fn open(feed: &Feed, request: WatchRequest) -> Watch {
        Watch(
            soon(feed.query().await.watch(request))
                .await
                .expect("a stream")
                .into_inner(),
        )
    }

    async fn next(&mut self) -> Option<Is> {
        soon(self.0.message())
            .await
            .expect("no error")
            .map(|reply| reply.is.expect("something"))
    }

    async fn event(&mut self) -> WatchedEvent {
        match self.next().await {
            Some(Is::Event(event)) => event,
            other => panic!("not an event: {other:?}"),
        }
    }

    /// The numbers of the next events.
    async fn numbers(&mut self, count: usize) -> Vec<u64> {
        let mut numbers = Vec::new();
        for _ in 0..count {
            numbers.push(number(&self.event().await.id));
        }
        numbers
    }

    async fn live(&mut self) {
        assert_eq!(self.next().await, Some(Is::Live(true)));
    }

    /// The numbers of all events up to the end of the stream.
    async fn rest(&mut self) -> Vec<u64> {
        let mut numbers = Vec::new();
        while let Some(is) = self.next().await {
            match is {
                Is::Event(event) => numbers.push(number(&event.id)),
                other => panic!("not an event: {other:?}"),
            }
        }
        numbers
    }
}

fn history() -> WatchRequest {
    WatchRequest::default()
}

fn live() -> WatchRequest {
    WatchRequest {
        follow: true,
        ..Default::default()
    }
}

async fn refused(feed: &Feed, request: WatchRequest) -> Status {
    soon(feed.query().await.watch(request))
        .await
        .expect_err("refused")
}

#[tokio::test]
async fn history_is_told_in_order_and_ends() {
    let feed = Feed::start().await;
    feed.append(vec![alert(1), log(2, 10), message(3)]).await;
    feed.append((4..=3000).map(alert).collect()).await;
    let mut watch = Watch::open(&feed, history()).await;
    let event = watch.event().await;
    assert_eq!(
        (event.kind(), &event.payload),
        (link::EventKind::Alert, &alert(1).payload)
    );
    let expected: Vec<u64> = [2].into_iter().chain(4..=3000).collect();
    assert_eq!(
        watch.rest().await,
        expected,
        "without messages, which were not asked for"
    );
    let kinds = Filter {
        kinds: vec![3],
        ..Default::default()
    };
    let request = WatchRequest {
        filter: Some(kinds),
        limit: 5,
        ..history()
    };
    assert_eq!(Watch::open(&feed, request).await.rest().await, [3]);
}

#[tokio::test]
async fn since_and_until_are_exact() {
    let feed = Feed::start().await;
    feed.append(vec![alert(1), alert(2)]).await;
    tokio::time::sleep(Duration::from_millis(20)).await;
    let since = now();
    feed.append(vec![alert(3), alert(4)]).await;
    tokio::time::sleep(Duration::from_millis(20)).await;
    let until = now();
    tokio::time::sleep(Duration::from_millis(20)).await;
    feed.append(vec![alert(5)]).await;
    let (since_ns, until_ns) = (since as i64, until as i64);
    let range = async |request| Watch::open(&feed, request).await.rest().await;
    assert_eq!(
        range(WatchRequest {
            since_ns,
            ..history()
        })
        .await,
        [3, 4, 5]
    );
    assert_eq!(
        range(WatchRequest {
            until_ns,
            ..history()
        })
        .await,
        [1, 2, 3, 4]
    );
    assert_eq!(
        range(WatchRequest {
            since_ns,
            until_ns,
            ..history()
        })
        .await,
        [3, 4]
    );
    assert_eq!(
        range(WatchRequest {
            since_ns: now() as i64 + 1_000_000_000,
            ..history()
        })
        .await,
        [0; 0]
    );
    let turned = WatchRequest {
        since_ns: until_ns,
        until_ns: since_ns,
        ..history()
    };
    assert_eq!(refused(&feed, turned).await.code(), Code::InvalidArgument);
}

#[tokio::test]
async fn tail_is_the_last_ones_that_match_however_far_back_they_are() {
    let feed = Feed::start().await;
    feed.append((1..=20).map(alert).collect()).await;
    for first in (100..20_100).step_by(2000) {
        feed.append(
            (first..first + 2000)
                .map(|number| log(number, 10))
                .collect(),
        )
        .await;
    }
    feed.append((21..=23).map(alert).collect()).await;
    let alerts = Filter {
        kinds: vec![1],
        ..Default::default()
    };
    let last = async |tail, limit| {
        let request = WatchRequest {
            filter: Some(alerts.clone()),
            tail,
            limit,
            ..history()
        };
        Watch::open(&feed, request).await.rest().await
    };
    assert_eq!(last(2, 0).await, [22, 23]);
    assert_eq!(last(5, 0).await, [19, 20, 21, 22, 23]);
    assert_eq!(last(1000, 0).await, (1..=23).collect::<Vec<_>>());
    assert_eq!(last(5, 3).await, [19, 20, 21]);
    let request = WatchRequest {
        filter: Some(alerts.clone()),
        tail: 1,
        follow: true,
        ..history()
    };
    let mut watch = Watch::open(&feed, request).await;
    assert_eq!(watch.numbers(1).await, [23]);
    watch.live().await;
    feed.append(vec![alert(24)]).await;
    assert_eq!(watch.numbers(1).await, [24]);
}

#[tokio::test]
async fn a_live_watch_says_so_first_and_ends_with_its_limit() {
    let feed = Feed::start().await;
    feed.append(vec![alert(1)]).await;
    let mut watch = Watch::open(&feed, WatchRequest { limit: 3, ..live() }).await;
    watch.live().await;
    feed.append(vec![alert(2), message(3), log(4, 5), alert(5), alert(6)])
        .await;
    assert_eq!(watch.rest().await, [2, 4, 5]);
}

#[tokio::test]
async fn a_watch_that_follows_until_a_time_ends_then() {
    let feed = Feed::start().await;
    let until_ns = now() as i64 + 400_000_000;
    let mut watch = Watch::open(&feed, WatchRequest { until_ns, ..live() }).await;
    watch.live().await;
    feed.append(vec![alert(1)]).await;
    assert_eq!(watch.rest().await, [1]);
    assert!(now() as i64 >= until_ns);
}

#[tokio::test]
async fn history_runs_into_live_without_a_hole_or_a_double() {
    let feed = Arc::new(Feed::start().await);
    feed.append((1..=5000).map(|number| log(number, 500)).collect())
        .await;
    let mut watch = Watch::open(
        &feed,
        WatchRequest {
            since_ns: 1,
            ..live()
        },
    )
    .await;
    let writer = tokio::spawn({
        let feed = feed.clone();
        async move {
            for first in (5001..=10_000).step_by(50) {
                feed.append((first..first + 50).map(|number| log(number, 500)).collect())
                    .await;
            }
        }
    });
    let (mut expected, mut lives) = (1, 0);
    while expected <= 10_000 {
        match watch.next().await.expect("more") {
            Is::Event(event) => {
                assert_eq!(number(&event.id), expected);
                expected += 1;
            }
            Is::Live(_) => lives += 1,
            Is::Gap(gap) => panic!("a gap: {gap:?}"),
        }
    }
    soon(writer).await.expect("written");
    if lives == 0 {
        watch.live().await;
    }
    silent(watch.0.message()).await;
}

#[tokio::test]
async fn a_resume_token_goes_on_after_its_event() {
    let feed = Feed::start().await;
    feed.append((1..=10).map(alert).collect()).await;
    let mut watch = Watch::open(
        &feed,
        WatchRequest {
            limit: 4,
            ..history()
        },
    )
    .await;
    let mut token = Bytes::new();
    while let Some(Is::Event(event)) = watch.next().await {
        token = event.resume;
    }
    let resumed = WatchRequest {
        resume: token.clone(),
        ..live()
    };
    let mut watch = Watch::open(&feed, resumed).await;
    assert_eq!(watch.numbers(6).await, [5, 6, 7, 8, 9, 10]);
    watch.live().await;

    let (sequence, _) = token.split_at(8);
    let elsewhere = [sequence, b"another relay"].concat();
    let mut watch = Watch::open(
        &feed,
        WatchRequest {
            resume: elsewhere.into(),
            ..history()
        },
    )
    .await;
    let Some(Is::Gap(gap)) = watch.next().await else {
        panic!("not told of the other journal")
    };
    assert!(gap.reason.contains("another journal"), "{}", gap.reason);
    assert_eq!(watch.rest().await, (1..=10).collect::<Vec<_>>());

    let future = [&u64::MAX.to_be_bytes()[..], RELAY.as_bytes()].concat();
    let mut watch = Watch::open(
        &feed,
        WatchRequest {
            resume: future.into(),
            ..history()
        },
    )
    .await;
    let Some(Is::Gap(gap)) = watch.next().await else {
        panic!("not told that the journal lacks what was read")
    };
    assert!(gap.reason.contains("does not have"), "{}", gap.reason);
    assert_eq!(watch.rest().await, (1..=10).collect::<Vec<_>>());

    // What a restored journal gives out again: the number of the token, for another event.
    let mut again = token.to_vec();
    again[7] -= 1;
    let again = WatchRequest {
        resume: again.into(),
        ..history()
    };
    let mut watch = Watch::open(&feed, again).await;
    let Some(Is::Gap(gap)) = watch.next().await else {
        panic!("not told that the number is another event's")
    };
    assert!(gap.reason.contains("does not have"), "{}", gap.reason);
    assert_eq!(watch.rest().await, (1..=10).collect::<Vec<_>>());
    let nonsense = WatchRequest {
        resume: Bytes::from_static(b"?"),
        ..history()
    };
    assert_eq!(refused(&feed, nonsense).await.code(), Code::InvalidArgument);
}

#[tokio::test]
async fn a_place_in_the_journal_is_where_it_begins() {
    let feed = Feed::start().await;
    let last = feed.append((1..=10).map(alert).collect()).await;
    let from = |from_sequence, follow| WatchRequest {
        from_sequence,
        follow,
        ..WatchRequest::default()
    };
    let mut watch = Watch::open(&feed, from(7, false)).await;
    let event = watch.event().await;
    assert_eq!((number(&event.id), event.sequence), (7, 7));
    assert_eq!(watch.rest().await, [8, 9, 10]);
    let mut watch = Watch::open(&feed, from(last.0, true)).await;
    assert_eq!(watch.numbers(1).await, [10]);
    watch.live().await;
    feed.append(vec![alert(11)]).await;
    assert_eq!(watch.numbers(1).await, [11]);
    // Not there yet: from the live end on.
    let mut watch = Watch::open(&feed, from(u64::MAX, true)).await;
    watch.live().await;
    feed.append(vec![alert(12)]).await;
    assert_eq!(watch.numbers(1).await, [12]);
}

#[tokio::test]
async fn a_bad_expression_is_refused_by_name() {
    let feed = Feed::start().await;
    let filter = Filter {
        source: "(".into(),
        ..Default::default()
    };
    let status = refused(
        &feed,
        WatchRequest {
            filter: Some(filter),
            ..live()
        },
    )
    .await;
    assert_eq!(status.code(), Code::InvalidArgument);
    assert!(
        status
            .message()
            .starts_with("`(` for source is not a regular expression"),
        "{}",
        status.message()
    );
}

/// A filter of nine expressions that compile to much.
fn large() -> Filter {
    let expression = r"[\pL\d]{12}.*\w{8}x".to_owned();
    Filter {
        namespace: expression.clone(),
        pod: expression.clone(),
        container: expression.clone(),
        operation: expression.clone(),
        r#type: expression.clone(),
        action: expression.clone(),
        policy: expression.clone(),
        source: expression.clone(),
        resource: expression,
        ..Filter::default()
    }
}

#[tokio::test]
async fn filters_take_no_more_memory_together_than_there_is_for_them() {
    let feed = Feed::start().await;
    let mut client = feed.query().await;
    let mut watch = async |filter| {
        let request = WatchRequest {
            filter: Some(filter),
            ..live()
        };
        soon(client.watch(request)).await
    };
    let mut open = Vec::new();
    let refused = loop {
        match watch(large()).await {
            Ok(reply) => open.push(reply),
            Err(status) => break status,
        }
        assert!(open.len() < 100, "nobody is refused");
    };
    assert_eq!(refused.code(), Code::ResourceExhausted);
    assert!(refused.message().contains("simpler"), "{refused}");
    assert!(watch(Filter::default()).await.is_ok(), "it needs nothing");
    open.clear();
    while let Err(status) = watch(large()).await {
        assert_eq!(status.code(), Code::ResourceExhausted);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test]
async fn the_filter_is_applied_to_history_and_to_what_happens() {
    let feed = Feed::start().await;
    feed.append((1..=20).map(alert).collect()).await;
    let filter = Filter {
        namespace: "^shop$".into(),
        labels: [("app".to_owned(), "cart".to_owned())].into(),
        resource: "tool .*[27]$".into(),
        min_severity: 4,
        ..Default::default()
    };
    let mut watch = Watch::open(
        &feed,
        WatchRequest {
            filter: Some(filter),
            since_ns: 1,
            ..live()
        },
    )
    .await;
    assert_eq!(watch.numbers(2).await, [7, 17]);
    watch.live().await;
    feed.append((21..=30).map(alert).collect()).await;
    assert_eq!(watch.numbers(1).await, [27]);
}

#[tokio::test]
async fn a_live_watch_beyond_max_lag_is_told_of_the_gap_and_a_complete_one_gets_everything() {
    const EVENTS: u64 = 12_000;
    let config = feed::Config {
        max_lag: Duration::from_millis(300),
        ..Default::default()
    };
    let feed = Feed::with(config, Default::default(), |query| query).await;
    let mut lossy = Watch::open(&feed, live()).await;
    let mut complete = Watch::open(
        &feed,
        WatchRequest {
            complete: true,
            ..live()
        },
    )
    .await;
    lossy.live().await;
    complete.live().await;
    for first in (1..=EVENTS).step_by(1000) {
        feed.append(
            (first..first + 1000)
                .map(|number| log(number, 2000))
                .collect(),
        )
        .await;
    }
    tokio::time::sleep(Duration::from_millis(400)).await;
    // Where the machine is busy it may lag more than once: whatever comes or is told must add up.
    let (mut got, mut missed) = (0, 0);
    while got + missed < EVENTS {
        match lossy.next().await {
            Some(Is::Event(event)) => {
                got += 1;
                assert_eq!(number(&event.id), got + missed);
            }
            Some(Is::Gap(gap)) => missed += gap.missed,
            other => panic!("unexpected: {other:?}"),
        }
    }
    assert_eq!(got + missed, EVENTS);
    assert!(got > 0 && missed > 0, "{got} came, {missed} were missed");
    feed.append(vec![alert(7)]).await;
    assert_eq!(lossy.numbers(1).await, [7]);
    for expected in (1..=EVENTS).chain([7]) {
        assert_eq!(complete.numbers(1).await, [expected]);
    }
}

#[tokio::test]
async fn what_retention_took_is_told_as_a_gap() {
    let config = journal::Config {
        segment_bytes: 1 << 20,
        max_size: 4 << 20,
        ..Default::default()
    };
    let feed = Feed::with(feed::Config::default(), config, |query| query).await;
    feed.append(vec![alert(1)]).await;
    let mut watch = Watch::open(&feed, history()).await;
    let token = watch.event().await.resume;
    for first in (1..=10_000).step_by(500) {
        feed.append(
            (first..first + 500)
                .map(|number| log(number, 1000))
                .collect(),
        )
        .await;
    }
    let oldest = feed.journal.first().0;
    assert!(oldest > 1000, "nothing expired: {oldest}");
    let mut watch = Watch::open(
        &feed,
        WatchRequest {
            resume: token,
            ..history()
        },
    )
    .await;
    let Some(Is::Gap(gap)) = watch.next().await else {
        panic!("not told of what expired")
    };
    assert_eq!(gap.missed, oldest - 2);
    assert_eq!(
        watch.rest().await,
        (oldest - 1..=10_000).collect::<Vec<_>>()
    );
}

/// Takes everything but events without bytes.
struct Taker;

#[async_trait]
impl Import for Taker {
    async fn import(&self, events: Vec<(Kind, Bytes)>) -> Result<Imported, Status> {
        let refused: Vec<_> = events
            .iter()
            .enumerate()
            .filter(|(_, (_, payload))| payload.is_empty())
            .map(|(at, _)| (at, "empty".to_owned()))
            .collect();
        Ok(Imported {
            accepted: (events.len() - refused.len()) as u64,
            refused,
        })
    }
}

fn requests() -> Vec<ImportRequest> {
    let payload = |number: u64| {
        if number.is_multiple_of(1000) {
            Bytes::new()
        } else {
            alert(number).payload
        }
    };
    let mut requests: Vec<_> = (1..=3500)
        .map(|number| ImportRequest {
            kind: 1,
            payload: payload(number),
        })
        .collect();
    requests[7].kind = 0;
    requests
}

#[tokio::test]
async fn import_goes_through_the_admins_door_only_and_names_what_it_refuses() {
    let reader = Feed::start().await;
    let import = soon(
        reader
            .query()
            .await
            .import(futures::stream::iter(requests())),
    )
    .await;
    assert_eq!(import.expect_err("refused").code(), Code::PermissionDenied);

    let config = (feed::Config::default(), journal::Config::default());
    let admin = Feed::with(config.0, config.1, |query| {
        query.with_import(Arc::new(Taker))
    })
    .await;
    let reply = soon(
        admin
            .query()
            .await
            .import(futures::stream::iter(requests())),
    )
    .await
    .expect("taken")
    .into_inner();
    assert_eq!(reply.accepted, 3496);
    let refused: Vec<u64> = reply
        .rejected
        .iter()
        .map(|rejected| rejected.sequence)
        .collect();
    assert_eq!(refused, [7, 999, 1999, 2999]);
}

#[tokio::test]
async fn status_is_made_of_what_the_parts_say() {
    let feed = Feed::start().await;
    feed.append((1..=5).map(alert).collect()).await;
    let mut watch = Watch::open(&feed, live()).await;
    watch.live().await;
    let status = soon(feed.query().await.status(StatusRequest {}))
        .await
        .expect("a status")
        .into_inner();
    let journal = status.journal.expect("a journal");
    assert_eq!(
        (journal.first, journal.next, journal.state.as_str()),
        (1, 6, "writable")
    );
    assert_eq!(status.relay.expect("a relay").feed_clients, 1);
    assert_eq!(status.losses, []);
}
