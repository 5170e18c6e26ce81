//! Cases, counted as they are printed.

#[derive(Default)]
pub(crate) struct Score {
    pub(crate) passed: u32,
    pub(crate) failed: u32,
}

impl Score {
    /// One thing that was seen, and what it should have been.
    pub(crate) fn case(&mut self, what: &str, got: &str, want: &str) {
        let fine = got == want;
        println!("{} {what}: {got:?}", if fine { "ok  " } else { "FAIL" });
        if fine {
            self.passed += 1;
        } else {
            println!("     wanted {want:?}");
            self.failed += 1;
        }
    }
}
