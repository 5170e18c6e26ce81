//! The UTC day that an event belongs to, by its own time.
//!
//! It names the index, so it must come out the same whenever and wherever the event is sent: only then does the server find
//! the id that it has already.

use std::fmt;

use jiff::civil::Date;
use jiff::tz::TimeZone;
use jiff::{Timestamp, Unit};
use proto::{Texts, View};

/// A day of the UTC calendar; printed as `2026.11.26`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Day(Date);

impl Day {
    /// What of an event says its day, besides `Timestamp`.
    pub(super) const FROM: Texts = Texts::of(&["UpdatedTime"]);

    pub(super) fn today() -> Self {
        Day::at(Timestamp::now())
    }

    #[cfg(test)]
    pub(super) fn of_epoch() -> Self {
        Day::at(Timestamp::UNIX_EPOCH)
    }

    fn at(time: Timestamp) -> Self {
        Day(TimeZone::UTC.to_datetime(time).date())
    }

    /// From `UpdatedTime`, else from `Timestamp`; none if the event says neither.
    pub(super) fn of(view: &View<'_>) -> Option<Self> {
        Day::written(view.updated_time).or_else(|| {
            let seconds = Some(view.timestamp).filter(|&seconds| seconds > 0)?;
            Timestamp::from_second(seconds).ok().map(Day::at)
        })
    }

    fn written(text: &str) -> Option<Self> {
        match text.as_bytes() {
            // UTC, as sensors write it: the day stands there.
            [date @ .., b'Z'] if date.get(10) == Some(&b'T') => Day::digits(date.first_chunk()?),
            _ => text.parse().ok().map(Day::at),
        }
    }

    /// `2026-11-26`.
    fn digits(text: &[u8; 10]) -> Option<Self> {
        let number = |digits: &[u8]| {
            digits.iter().try_fold(0i16, |sum, digit| {
                let digit = digit.is_ascii_digit().then(|| i16::from(digit - b'0'))?;
                Some(sum * 10 + digit)
            })
        };
        let [year @ .., b'-', m1, m2, b'-', d1, d2] = text else {
            return None;
        };
        let (month, day) = (number(&[*m1, *m2])?, number(&[*d1, *d2])?);
        // Two digits fit.
        Date::new(number(year)?, month as i8, day as i8)
            .ok()
            .map(Day)
    }

    /// Days from `earlier` to this; negative if this is the earlier.
    pub(super) fn since(self, earlier: Day) -> i32 {
        let span = self.0.since((Unit::Day, earlier.0));
        span.map_or(i32::MAX, |span| span.get_days())
    }
}

impl fmt::Display for Day {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (year, month, day) = (self.0.year(), self.0.month(), self.0.day());
        write!(f, "{year:04}.{month:02}.{day:02}")
    }
}

#[cfg(test)]
mod tests {
    use proto::Kind;

    use super::*;

    fn view(updated_time: &'static str, timestamp: i64) -> View<'static> {
        View {
            updated_time,
            timestamp,
            ..View::read(Kind::Message, &[])
        }
    }

    fn day(updated_time: &'static str, timestamp: i64) -> Option<String> {
        Day::of(&view(updated_time, timestamp)).map(|day| day.to_string())
    }

    #[test]
    fn an_event_belongs_to_the_day_of_its_own_time_in_utc() {
        for (text, expected) in [
            ("2026-11-26T23:59:59.999999Z", "2026.11.26"),
            ("2026-11-27T00:30:00+01:00", "2026.11.26"),
            ("2024-02-29T00:00:00Z", "2024.02.29"),
        ] {
            assert_eq!(day(text, 0).as_deref(), Some(expected), "{text}");
        }
    }

    #[test]
    fn without_a_readable_text_the_seconds_count() {
        for text in [
            "",
            "yesterday",
            "2026-02-30T00:00:00Z",
            "2026-1-01T00:00:00Z",
            "Z",
        ] {
            assert_eq!(
                day(text, 1_767_225_600).as_deref(),
                Some("2026.01.01"),
                "{text}"
            );
            assert_eq!(day(text, 0), None, "{text}");
        }
        assert_eq!(day("", i64::MAX), None);
    }

    #[test]
    fn days_are_counted_over_months_and_years() {
        let [early, late] = ["2025-12-31T00:00:00Z", "2026-03-01T00:00:00Z"]
            .map(|text| Day::of(&view(text, 0)).unwrap());
        assert_eq!((late.since(early), early.since(late)), (60, -60));
    }
}
