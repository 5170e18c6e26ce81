//! How long the sink goes by what it saw of the server.
//!
//! A cluster may be rebuilt, empty and at the same address, while the sink has nothing to send: no connection breaks that
//! anybody would notice. An event would then make an index of which nobody knows what its fields are. So after a pause the
//! cluster is asked for its id, which is one small request, and after a long one everything is looked at again.

use std::time::Duration;

use tokio::time::Instant;

use super::day::Day;

/// After so long without a request the cluster is asked for its id. No cluster goes and comes back in less.
const PAUSE: Duration = Duration::from_secs(10);

/// After so long somebody may have removed a template, or the server does not say which cluster it is.
const LONG: Duration = Duration::from_secs(300);

/// What was seen, and when it was last of use.
#[derive(Clone, Debug)]
pub(super) struct Prepared {
    day: Day,
    /// The cluster's own id, where it tells it.
    pub(super) cluster: Option<String>,
    used: Instant,
}

/// What is to be looked at before the next request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Look {
    Nothing,
    /// Whether it is the same cluster.
    Cluster,
    Everything,
}

impl Prepared {
    pub(super) fn new(day: Day, cluster: Option<String>, now: Instant) -> Self {
        Self {
            day,
            cluster,
            used: now,
        }
    }

    pub(super) fn look(&self, today: Day, now: Instant) -> Look {
        let pause = now.saturating_duration_since(self.used);
        match &self.cluster {
            _ if self.day != today || pause >= LONG => Look::Everything,
            Some(_) if pause >= PAUSE => Look::Cluster,
            _ => Look::Nothing,
        }
    }

    pub(super) fn used(&mut self, now: Instant) {
        self.used = now;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_seen_holds_while_it_is_used_and_less_the_longer_the_pause() {
        let (today, start) = (Day::today(), Instant::now());
        let after = |seconds| start + Duration::from_secs(seconds);
        let known = Prepared::new(today, Some("a".to_owned()), start);
        let silent = Prepared::new(today, None, start);
        for (seconds, of_known, of_silent) in [
            (9, Look::Nothing, Look::Nothing),
            (10, Look::Cluster, Look::Nothing),
            (299, Look::Cluster, Look::Nothing),
            (300, Look::Everything, Look::Everything),
        ] {
            assert_eq!(known.look(today, after(seconds)), of_known, "{seconds}");
            assert_eq!(silent.look(today, after(seconds)), of_silent, "{seconds}");
        }
        let mut known = known;
        known.used(after(100));
        assert_eq!(known.look(today, after(105)), Look::Nothing);
        let old = Prepared::new(Day::of_epoch(), None, start);
        assert_eq!(old.look(today, start), Look::Everything, "of another day");
    }
}
