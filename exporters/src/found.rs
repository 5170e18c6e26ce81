//! What a destination says of one event.

/// Where a destination has an event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// As a person would look it up there, and why that is all that is known, if it is.
    pub place: String,
    /// The destination itself said that it has it.
    pub seen: bool,
}

impl Found {
    /// The destination was asked, and has it.
    #[must_use]
    pub fn seen(place: String) -> Self {
        Self { place, seen: true }
    }

    /// It would be there; the destination did not say so.
    #[must_use]
    pub fn unseen(place: String) -> Self {
        Self { place, seen: false }
    }
}
