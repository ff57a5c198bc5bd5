//! The program of libFuzzer for `fuzz::configuration`; nothing else.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| fuzz::configuration::run(bytes));
