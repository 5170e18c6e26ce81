//! What the service manager around this process is told (sd_notify(3)): ready, status, alive, reloading, stopping. Nothing
//! where there is none (`$NOTIFY_SOCKET`).
//!
//! The watchdog is answered by a timer of the runtime: a process that turns no more is restarted. A disk that hangs is no
//! reason for that, since a restart would not mend it; it is told in the status.

use std::time::Duration;

use sd_notify::NotifyState;

use crate::http::Readiness;

/// Between two looks at the status.
const LOOK: Duration = Duration::from_secs(2);

fn tell(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::debug!(%error, "the service manager cannot be told");
    }
}

/// The relay serves.
pub(crate) fn ready() {
    tell(&[NotifyState::Ready, NotifyState::Status("ready")]);
}

/// New settings are being taken up; [`ready`] comes after it.
pub(crate) fn reloading() {
    match NotifyState::monotonic_usec_now() {
        Ok(now) => tell(&[NotifyState::Reloading, now]),
        Err(error) => tracing::debug!(%error, "no clock for the service manager"),
    }
}

/// The relay drains.
pub(crate) fn stopping() {
    tell(&[NotifyState::Stopping, NotifyState::Status("draining")]);
}

/// Tells that the process is alive, as often as it is asked to be, and its status when that changes.
pub(crate) async fn watch(readiness: Readiness) {
    let asked = sd_notify::watchdog_enabled().filter(|limit| !limit.is_zero());
    // Twice within the limit, as sd_watchdog_enabled(3) says.
    let pace = asked.map_or(LOOK, |limit| (limit / 2).min(LOOK));
    let mut told = status(&readiness());
    loop {
        tokio::time::sleep(pace).await;
        if asked.is_some() {
            tell(&[NotifyState::Watchdog]);
        }
        let now = status(&readiness());
        if now != told {
            tell(&[NotifyState::Status(&now)]);
            told = now;
        }
    }
}

fn status(not_ready: &[String]) -> String {
    match not_ready {
        [] => "ready".to_owned(),
        reasons => format!("not ready: {}", reasons.join("; ")).replace('\n', " "),
    }
}
