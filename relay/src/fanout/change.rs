//! Sinks that come, go or get other settings, while the others are fed as before.
//!
//! ```text
//! new settings ─▶ every new sink is made, its cursor opened ─ cannot be: nothing is changed
//!                      └▶ those that change or go: what is under way lands, position kept ─▶ the new ones take over there
//! ```
//! A sink with other settings goes on where it was: it has the same cursor, account, dead letters, pause and onlookers. One
//! that is taken out holds nothing back any more. Nothing here waits for a destination without a bound.

use std::sync::Arc;
use std::time::Duration;

use exporters::SinkConfig;
use futures::future::join_all;

use super::health::Lasting;
use super::task::Stop;
use super::unit::{Unit, when_full};
use super::{BuildError, Fanout, Outlet, Turn};

/// How long a sink that changes may take for what it has under way; what has not landed by then is sent again.
const LANDING: Duration = Duration::from_secs(3);

/// What a change did, by sink.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Changes {
    pub(crate) added: Vec<String>,
    pub(crate) changed: Vec<String>,
    /// With how many events each had not delivered.
    pub(crate) removed: Vec<(String, u64)>,
}

/// A sink of the new settings.
enum Step {
    Stays(Arc<Unit>),
    Made(Box<Made>),
}

/// A sink that is new, or has other settings.
struct Made {
    settings: SinkConfig,
    outlet: Outlet,
    /// None until it is opened.
    lasting: Option<Lasting>,
}

impl Fanout {
    /// Makes these the sinks. Must not be dropped half way: whoever may be dropped spawns it.
    ///
    /// # Errors
    /// [`BuildError`] names the sink; then everything is as it was.
    pub(crate) async fn change(
        &self,
        sinks: Vec<(String, SinkConfig)>,
    ) -> Result<Changes, BuildError> {
        let mut turn = self.inner.turn.lock().await;
        if turn.closed {
            return Err(BuildError::Stopping);
        }
        let now = self.inner.units.load_full();
        let mut steps = self.steps(&now, sinks)?;
        let mut changes = self.open(&now, &turn, &mut steps)?;
        // Nothing can fail any more.
        let stays = |unit: &&Arc<Unit>| {
            let same = |step: &Step| matches!(step, Step::Stays(kept) if Arc::ptr_eq(kept, unit));
            steps.iter().any(same)
        };
        let leaving: Vec<&Arc<Unit>> = now.iter().filter(|unit| !stays(unit)).collect();
        let ends = leaving.iter().map(|unit| unit.end(Stop::HandOver(LANDING)));
        join_all(ends).await;
        for unit in leaving {
            shelve(unit, &mut turn, &mut changes);
        }
        let mut units = Vec::with_capacity(steps.len());
        for step in steps {
            match step {
                Step::Stays(unit) => units.push(unit),
                Step::Made(made) => {
                    turn.shelf.remove(&made.outlet.name);
                    units.extend(self.take_over(*made).await);
                }
            }
        }
        self.inner.install(units);
        Ok(changes)
    }

    /// Makes the sinks that are new or other than before.
    fn steps(
        &self,
        now: &[Arc<Unit>],
        sinks: Vec<(String, SinkConfig)>,
    ) -> Result<Vec<Step>, BuildError> {
        let step = |(name, settings): (String, SinkConfig)| {
            let same = |unit: &&Arc<Unit>| {
                unit.name() == name && unit.settings.as_ref() == Some(&settings)
            };
            if let Some(unit) = now.iter().find(same) {
                return Ok(Step::Stays(Arc::clone(unit)));
            }
            Ok(Step::Made(Box::new(Made {
                outlet: self.inner.outlet(name, &settings)?,
                settings,
                lasting: None,
            })))
        };
        sinks.into_iter().map(step).collect()
    }

    /// Finds, or opens, the cursor and all else that outlives settings for every sink that was made.
    fn open(
        &self,
        now: &[Arc<Unit>],
        turn: &Turn,
        steps: &mut [Step],
    ) -> Result<Changes, BuildError> {
        let (mut changes, mut opened) = (Changes::default(), Vec::<Lasting>::new());
        for step in steps {
            let Step::Made(made) = step else {
                continue;
            };
            let name = &made.outlet.name;
            if let Some(old) = now.iter().find(|unit| unit.name() == name) {
                changes.changed.push(name.clone());
                made.lasting = Some(old.post.health.lasting());
                continue;
            }
            changes.added.push(name.clone());
            made.lasting = turn.shelf.get(name).cloned();
            if made.lasting.is_none() {
                let lasting = self.inner.lasting(&made.outlet);
                let lasting = lasting.inspect_err(|_| {
                    // They hold nothing back for sinks that there will not be.
                    opened.iter().for_each(|lasting| lasting.retire());
                })?;
                opened.push(lasting.clone());
                made.lasting = Some(lasting);
            }
        }
        Ok(changes)
    }

    async fn take_over(&self, made: Made) -> Option<Arc<Unit>> {
        let Made {
            settings,
            outlet,
            lasting,
        } = made;
        let lasting = lasting?;
        lasting.take_up(when_full(&outlet.common));
        let resized = lasting
            .dead_letters
            .resize(outlet.common.dead_letters_max_size);
        if let Err(why) = resized.await {
            let path = lasting.dead_letters.path().display();
            tracing::error!(sink = outlet.name, %path, why, "the dead letters cannot be opened with another bound; they are tried again with the next one");
        }
        let ready = self.inner.ready(Some(settings), outlet, lasting);
        Some(ready.start())
    }
}

/// Keeps what is left of a sink that was taken out; it holds nothing back any more.
fn shelve(unit: &Unit, turn: &mut Turn, changes: &mut Changes) {
    let name = unit.name().to_owned();
    if changes.changed.contains(&name) {
        return;
    }
    let lasting = unit.post.health.lasting();
    lasting.retire();
    turn.shelf.insert(name.clone(), lasting);
    changes
        .removed
        .push((name, unit.post.health.lanes.stats().pending));
}
