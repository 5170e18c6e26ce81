//! How `cresset up` ends: the sensor drains first, so that its last events still reach the relay.

use std::io::Write;
use std::sync::Arc;

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

use crate::connect::Trouble;

/// How far the end has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Stage {
    /// Nothing ends yet.
    Running,
    /// The sensor drains.
    Sensor,
    /// The relay drains.
    Relay,
}

/// The stage that is reached, for all who wait for one. Cheap to clone.
#[derive(Clone)]
pub(super) struct Stop {
    sender: Arc<watch::Sender<Stage>>,
    receiver: watch::Receiver<Stage>,
}

impl Stop {
    /// Never back.
    pub(super) fn send(&self, stage: Stage) {
        self.sender.send_if_modified(|now| {
            let later = *now < stage;
            *now = stage.max(*now);
            later
        });
    }

    pub(super) async fn wait_for(
        &mut self,
        reached: impl FnMut(&Stage) -> bool,
    ) -> Result<(), watch::error::RecvError> {
        self.receiver.wait_for(reached).await.map(|_| ())
    }
}

/// Resolves when the stage is reached.
pub(super) async fn stopped(mut stop: Stop, stage: Stage) {
    // The sender lives in the same value.
    let _ = stop.wait_for(|now| *now >= stage).await;
}

/// SIGINT, SIGTERM and SIGHUP begin the end: a terminal that is closed leaves nothing behind either.
pub(super) fn stop_signal() -> Result<Stop, Trouble> {
    let failed = |error: std::io::Error| Trouble::Local(format!("no signal handlers: {error}"));
    let mut terminate = signal(SignalKind::terminate()).map_err(failed)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(failed)?;
    let mut hangup = signal(SignalKind::hangup()).map_err(failed)?;
    let (sender, receiver) = watch::channel(Stage::Running);
    let stop = Stop {
        sender: Arc::new(sender),
        receiver,
    };
    let on_signal = stop.clone();
    tokio::spawn(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
            _ = hangup.recv() => {}
        }
        // Standard error may be the terminal that was closed.
        let _ = writeln!(std::io::stderr(), "draining");
        on_signal.send(Stage::Sensor);
    });
    Ok(stop)
}
