//! See `fuzz::segment`.
#![no_main]

libfuzzer_sys::fuzz_target!(init: fuzz::begin("segment"), |bytes: &[u8]| fuzz::segment::run(bytes));
