//! What the relay's journal holds of the past: every event of a time, and what workloads were recorded to start with.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use futures::StreamExt as _;
use policy::Started;
use prost::Message as _;
use proto::query::watch_reply::Is;
use proto::query::{Filter, WatchRequest};
use proto::{Kind, feeder, link};
use yaml::Span;

use super::asked::What;
use super::names::Names;
use super::simulate::recorded::{self, Class, Recorded, Told};
use crate::connect::{Relay, Trouble};

/// The time that the record was read for, in unix seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Period {
    pub(super) from: i64,
    pub(super) to: i64,
}

/// Reads everything since then, and what is missing of it.
///
/// # Errors
/// The relay says no or goes away.
pub(super) async fn read(
    relay: &Relay,
    since: Span,
    mut take: impl FnMut(Is),
) -> Result<Period, Trouble> {
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    let from = now.saturating_sub(since.0);
    let nanoseconds = |time: Duration| i64::try_from(time.as_nanos()).unwrap_or(i64::MAX);
    let kinds = Kind::ALL.map(|kind| link::EventKind::from(kind).into());
    let request = WatchRequest {
        filter: Some(Filter {
            kinds: kinds.into(),
            ..Filter::default()
        }),
        // 0 would mean "not given".
        since_ns: nanoseconds(from).max(1),
        until_ns: nanoseconds(now),
        complete: true,
        ..WatchRequest::default()
    };
    let reply = relay.query().watch(request).await;
    let mut events = reply.map_err(|status| relay.trouble(status))?.into_inner();
    while let Some(reply) = events.next().await {
        let reply = reply.map_err(|status| relay.trouble(status))?;
        reply.is.into_iter().for_each(&mut take);
    }
    let seconds = |time: Duration| i64::try_from(time.as_secs()).unwrap_or(i64::MAX);
    Ok(Period {
        from: seconds(from),
        to: seconds(now),
    })
}

/// The first program that each workload was recorded to start since then.
///
/// # Errors
/// As [`read`].
pub(super) async fn started(relay: &Relay, since: Span) -> Result<Vec<Started>, Trouble> {
    let names = Names::new(None);
    let mut first: BTreeMap<String, (i64, Started)> = BTreeMap::new();
    read(relay, since, |is| {
        if let Some((name, time, started)) = start(is, &names) {
            let known = first.get(&name).is_some_and(|(known, _)| *known <= time);
            if !known {
                first.insert(name, (time, started));
            }
        }
    })
    .await?;
    Ok(first.into_values().map(|(_, started)| started).collect())
}

/// Which workload started what, and when.
fn start(is: Is, names: &Names) -> Option<(String, i64, Started)> {
    let Is::Event(event) = is else { return None };
    let told = match Kind::try_from(event.kind()).ok()? {
        Kind::Alert => recorded::alert(&feeder::Alert::decode(&*event.payload).ok()?, names),
        Kind::Log => recorded::log(&feeder::Log::decode(&*event.payload).ok()?, names),
        Kind::Message => return None,
    };
    let Told::Operations(all) = told else {
        return None;
    };
    let Recorded {
        workload,
        name,
        class,
        cases,
        time,
    } = all.into_iter().next()?;
    let What::Exec(path) = cases.into_iter().next()?.what else {
        return None;
    };
    let container = format!("{name}/{}", workload.container);
    (class == Class::Process).then_some((container, time, Started { workload, path }))
}
