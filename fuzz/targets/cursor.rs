//! See `fuzz::cursor`.
#![no_main]

libfuzzer_sys::fuzz_target!(init: fuzz::begin("cursor"), |bytes: &[u8]| fuzz::cursor::run(bytes));
