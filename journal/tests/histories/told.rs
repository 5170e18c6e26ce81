//! What the histories came to: a suite that never met a fault proves nothing.

/// How often the interesting things happened.
#[derive(Debug, Default)]
pub(super) struct Told {
    pub(super) acknowledged: u64,
    pub(super) full: u64,
    pub(super) failed: u64,
    pub(super) crashes: u64,
    pub(super) power: u64,
    pub(super) torn: u64,
    pub(super) expired: u64,
    pub(super) moves: u64,
    pub(super) suspects: u64,
    pub(super) sealed: u64,
    pub(super) packed: u64,
    pub(super) unpacked: u64,
}

impl std::ops::AddAssign for Told {
    fn add_assign(&mut self, o: Told) {
        let Told {
            acknowledged,
            full,
            failed,
            crashes,
            power,
            torn,
            expired,
            moves,
            suspects,
            sealed,
            packed,
            unpacked,
        } = o;
        self.acknowledged += acknowledged;
        self.full += full;
        self.failed += failed;
        self.crashes += crashes;
        self.power += power;
        self.torn += torn;
        self.expired += expired;
        self.moves += moves;
        self.suspects += suspects;
        self.sealed += sealed;
        self.packed += packed;
        self.unpacked += unpacked;
    }
}
