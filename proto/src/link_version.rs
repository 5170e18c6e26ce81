//! The version of the link (`link.proto`), and with which others it can be spoken.
//!
//! A version adds fields and messages and changes none, so neighbours understand each other: what one does not know it
//! skips. A fleet is therefore upgraded one machine at a time, relay first or sensors first.

/// The version that this program speaks.
pub const LINK_VERSION: u32 = 1;

/// Whether a peer of this version and this program understand each other: it is one older, the same, or one newer.
#[must_use]
pub fn understands(version: u32) -> bool {
    version > 0 && version.abs_diff(LINK_VERSION) <= 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbours_are_understood_and_nobody_else() {
        assert!(!understands(0), "whoever says no version is no peer");
        assert!(understands(LINK_VERSION) && understands(LINK_VERSION + 1));
        assert!(LINK_VERSION == 1 || understands(LINK_VERSION - 1));
        assert!(!understands(LINK_VERSION + 2));
    }
}
