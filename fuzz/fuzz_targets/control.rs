//! The program of libFuzzer for `fuzz::control`; nothing else.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| fuzz::control::run(bytes));
