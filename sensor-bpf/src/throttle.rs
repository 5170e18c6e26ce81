//! A limit on alerts, per workload and policy, so that one noisy rule does not hide another.
//!
//! A second begins with its first alert. So many pass; the next becomes KubeArmor's notice (Type `SystemEvent`,
//! Operation `AlertThreshold`); the rest of that second is left out and counted. Enforcement goes on.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use proto::feeder::Alert;

const WINDOW: Duration = Duration::from_secs(1);

/// What becomes of an alert.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// It is sent.
    Pass,
    /// It is sent as the notice.
    Notice,
    /// It is left out.
    Drop,
}

/// The budgets.
#[derive(Debug)]
pub struct Throttle {
    per_second: u32,
    windows: HashMap<(u32, String), (Instant, u32)>,
}

impl Throttle {
    /// `per_second` 0: no limit.
    pub fn new(per_second: u32) -> Self {
        Self {
            per_second,
            windows: HashMap::new(),
        }
    }

    /// Judges one alert and, where it is the notice, makes it so.
    pub fn judge(&mut self, workload: u32, alert: &mut Alert, now: Instant) -> Fate {
        if self.per_second == 0 {
            return Fate::Pass;
        }
        if self.windows.len() > 4096 {
            self.windows
                .retain(|_, (start, _)| now.duration_since(*start) < WINDOW);
        }
        let key = (workload, alert.policy_name.clone());
        let (start, count) = self.windows.entry(key).or_insert((now, 0));
        if now.duration_since(*start) >= WINDOW {
            (*start, *count) = (now, 0);
        }
        *count += 1;
        match *count {
            n if n <= self.per_second => Fate::Pass,
            n if n == self.per_second + 1 => {
                "SystemEvent".clone_into(&mut alert.r#type);
                "AlertThreshold".clone_into(&mut alert.operation);
                alert.max_alerts_per_sec = self.per_second.cast_signed();
                alert.dropping_alerts_interval = 1;
                Fate::Notice
            }
            _ => Fate::Drop,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn alert(policy: &str) -> Alert {
        Alert {
            policy_name: policy.to_owned(),
            ..Alert::default()
        }
    }

    #[test]
    fn so_many_pass_then_the_notice_then_none_until_the_second_is_over() {
        let mut throttle = Throttle::new(2);
        let now = Instant::now();
        let mut judge = |at| throttle.judge(1, &mut alert("a"), at);
        let fates: Vec<_> = (0..5).map(|_| judge(now)).collect();
        assert_eq!(
            fates,
            [Fate::Pass, Fate::Pass, Fate::Notice, Fate::Drop, Fate::Drop]
        );
        assert_eq!(judge(now + WINDOW), Fate::Pass);
    }

    #[test]
    fn policies_and_workloads_do_not_share_a_budget() {
        let mut throttle = Throttle::new(1);
        let now = Instant::now();
        assert_eq!(throttle.judge(1, &mut alert("a"), now), Fate::Pass);
        assert_eq!(throttle.judge(1, &mut alert("b"), now), Fate::Pass);
        assert_eq!(throttle.judge(2, &mut alert("a"), now), Fate::Pass);
    }

    #[test]
    fn the_notice_is_kubearmors() {
        let mut throttle = Throttle::new(1);
        let now = Instant::now();
        throttle.judge(1, &mut alert("a"), now);
        let mut notice = alert("a");
        assert_eq!(throttle.judge(1, &mut notice, now), Fate::Notice);
        assert_eq!(
            (notice.r#type.as_str(), notice.operation.as_str()),
            ("SystemEvent", "AlertThreshold")
        );
        assert_eq!(
            (notice.max_alerts_per_sec, notice.dropping_alerts_interval),
            (1, 1)
        );
    }

    #[test]
    fn zero_is_no_limit() {
        let mut throttle = Throttle::new(0);
        let now = Instant::now();
        assert!((0..1000).all(|_| throttle.judge(1, &mut alert("a"), now) == Fate::Pass));
    }
}
