//! The program of libFuzzer for `fuzz::metadata`; nothing else.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| fuzz::metadata::run(bytes));
