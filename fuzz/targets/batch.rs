//! See `fuzz::batch`.
#![no_main]

libfuzzer_sys::fuzz_target!(init: fuzz::begin("batch"), |bytes: &[u8]| fuzz::batch::run(bytes));
