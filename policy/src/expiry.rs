//! When a policy stops being in force.

use crate::select::Moment;

/// `2027-01-31T18:00:00Z` (RFC 3339, with its offset), to the second; `None` for what is no such time.
pub(crate) fn moment(text: &str) -> Option<Moment> {
    let time: jiff::Timestamp = text.parse().ok()?;
    Some(Moment(time.as_second())).filter(|moment| moment.0 > 0)
}
