//! A sink whose log gives it a share of the partitions: one task a lane, as long as the lane is this relay's.
//!
//! ```text
//! turns:  given ─▶ a task for the lane            orders ─▶ every task; test and dead letters: the crew itself
//!         taken ─▶ the task finishes what flies, saves its cursor, ends; then the partition may go
//! ```
//! Lanes share the sink, its dead letters and its state; each keeps the order of its own events.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use exporters::Common;
use futures::future::{BoxFuture, FutureExt as _, join_all};
use futures::stream::{FuturesUnordered, StreamExt as _};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::flight::Runway;
use super::health::Health;
use super::orders::{Errand, Moved, Order, Orders, orders};
use super::passed::{Passed, Trail};
use super::task::{Stop, Task};
use crate::log::{Cursor, Join, Lane, Share, Turn};

/// How long a lane that goes to another relay may finish what it has sent. What is not answered by then is sent again there.
const HAND_OVER: Duration = Duration::from_secs(5);

/// How long the brokers may take to hear that this relay leaves.
const LEAVE: Duration = Duration::from_secs(3);

/// After a share that could not be joined.
const JOIN_AGAIN: Duration = Duration::from_secs(5);

/// What feeds a sink from its share.
pub(super) struct Crew {
    health: Arc<Health>,
    runway: Runway,
    common: Common,
    join: Join,
    /// None: not joined yet.
    share: Option<Share>,
    orders: Orders,
    passed: Passed,
    lanes: BTreeMap<i32, Member>,
    errands: FuturesUnordered<BoxFuture<'static, ()>>,
}

/// A lane and its task.
struct Member {
    cursor: Arc<dyn Cursor>,
    orders: mpsc::Sender<Order>,
    stop: watch::Sender<Option<Stop>>,
    task: JoinHandle<()>,
}

impl Member {
    async fn end(self, health: &Health, stop: Stop) {
        self.stop.send_replace(Some(stop));
        if let Err(error) = self.task.await {
            tracing::error!(%error, "the task of a lane died; its events are sent again from the last position");
        }
        health.lanes.closed(&self.cursor);
    }
}

impl Crew {
    pub(super) fn new(
        health: Arc<Health>,
        runway: Runway,
        common: Common,
        join: Join,
        orders: Orders,
        passed: Passed,
    ) -> Self {
        Crew {
            health,
            runway,
            common,
            join,
            share: None,
            orders,
            passed,
            lanes: BTreeMap::new(),
            errands: FuturesUnordered::new(),
        }
    }

    /// Feeds the sink from whatever is this relay's, until told to stop.
    pub(super) async fn run(mut self, mut told: watch::Receiver<Option<Stop>>) {
        let stop = loop {
            tokio::select! {
                stop = told.wait_for(Option::is_some).map(|told| told.ok().and_then(|stop| *stop)) => {
                    // Whoever would tell may be gone: then there is no time left.
                    break stop.unwrap_or(Stop::Drain(Duration::ZERO));
                }
                turn = turn(&self.join, &mut self.share) => self.turn(turn).await,
                order = self.orders.next() => self.obey(order),
                Some(()) = self.errands.next(), if !self.errands.is_empty() => {}
            }
        };
        self.end(stop).await;
    }

    async fn turn(&mut self, turn: Turn) {
        match turn {
            Turn::Given(partition, lane) => self.open(partition, lane).await,
            Turn::Taken { partitions, done } => {
                self.close(&partitions, Stop::HandOver(HAND_OVER)).await;
                drop(done);
            }
            Turn::Trouble(reason) => self.health.error(&reason),
        }
    }

    async fn open(&mut self, partition: i32, lane: Lane) {
        self.close(&[partition], Stop::HandOver(HAND_OVER)).await;
        let cursor = Arc::clone(&lane.cursor);
        self.health.lanes.opened(&cursor);
        let (give, given) = orders();
        let trail = Trail {
            passed: self.passed.clone(),
            partition: Some(partition),
        };
        let task = Task::new(
            Arc::clone(&self.health),
            self.runway.clone(),
            self.common.clone(),
            lane,
            None,
            given,
            trail,
        );
        let (stop, told) = watch::channel(None);
        let member = Member {
            cursor,
            orders: give,
            stop,
            task: tokio::spawn(task.run(told)),
        };
        self.lanes.insert(partition, member);
        tracing::info!(partition, "this relay delivers a partition's events");
    }

    async fn close(&mut self, partitions: &[i32], stop: Stop) {
        let members: Vec<Member> = partitions
            .iter()
            .filter_map(|partition| self.lanes.remove(partition))
            .collect();
        let health = &self.health;
        join_all(members.into_iter().map(|member| member.end(health, stop))).await;
    }

    async fn end(mut self, stop: Stop) {
        let partitions: Vec<i32> = self.lanes.keys().copied().collect();
        self.close(&partitions, stop).await;
        let Some(Share { turns, membership }) = self.share else {
            return;
        };
        drop(turns);
        // Leaving tells the others at once, so that they need not wait for this relay. Brokers that are away hear of it by the
        // session that ends.
        let leaving = tokio::task::spawn_blocking(move || drop(membership));
        if timeout(LEAVE, leaving).await.is_err() {
            tracing::warn!("the brokers do not answer; the share is theirs to take back");
        }
    }

    fn obey(&mut self, order: Order) {
        match order {
            Order::Look => {
                for member in self.lanes.values() {
                    // Full: it has orders to look at anyway.
                    let _ = member.orders.try_send(Order::Look);
                }
            }
            Order::Errand(errand) => self.errands.push(run(errand, self.runway.clone()).boxed()),
            Order::Rewind { since, done } => self.all(done, |done| Order::Rewind { since, done }),
            Order::Skip { until, done } => self.all(done, |done| Order::Skip { until, done }),
        }
    }

    /// Gives an order to every lane; the answer is the sum of their moves.
    fn all(
        &mut self,
        done: oneshot::Sender<Result<Moved, String>>,
        order: impl Fn(oneshot::Sender<Result<Moved, String>>) -> Order,
    ) {
        if self.lanes.is_empty() {
            let _ = done.send(Err(
                "none of the partitions is this relay's at present; the relays that have them move them".to_owned(),
            ));
            return;
        }
        let answers = self.lanes.iter().map(|(partition, member)| {
            let (tell, told) = oneshot::channel();
            let (orders, order, partition) = (member.orders.clone(), order(tell), *partition);
            async move {
                // A task that has ended drops the order, and with it the sender.
                let _ = orders.send(order).await;
                let answer = told
                    .await
                    .unwrap_or_else(|_| Err("it has ended".to_owned()));
                answer.map_err(|reason| format!("partition {partition}: {reason}"))
            }
        });
        let answers = join_all(answers.collect::<Vec<_>>());
        let sum = answers.map(|answers| {
            let all = answers.into_iter().collect::<Result<Vec<_>, String>>();
            let _ = done.send(all.map(|moves| Moved {
                from: moves.iter().map(|moved| moved.from).sum(),
                to: moves.iter().map(|moved| moved.to).sum(),
            }));
        });
        self.errands.push(sum.boxed());
    }
}

/// Sends what an administrator wants to be sent, as one of the sink's batches.
async fn run(errand: Errand, runway: Runway) {
    let _slot = runway.slots.wait().await;
    errand.run(runway.clone()).await;
}

/// The next change; joins first, and again while that cannot be. Dropping this future loses nothing.
async fn turn(join: &Join, share: &mut Option<Share>) -> Turn {
    loop {
        if let Some(share) = share {
            match share.turns.recv().await {
                Some(turn) => return turn,
                None => std::future::pending().await,
            }
        }
        match join() {
            Ok(joined) => *share = Some(joined),
            Err(error) => {
                tokio::time::sleep(JOIN_AGAIN).await;
                return Turn::Trouble(error.to_string());
            }
        }
    }
}
