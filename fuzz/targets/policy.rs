//! See `fuzz::policy`.
#![no_main]

libfuzzer_sys::fuzz_target!(init: fuzz::begin("policy"), |bytes: &[u8]| fuzz::policy::run(bytes));
