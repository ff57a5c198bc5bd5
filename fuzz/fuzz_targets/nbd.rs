//! The program of libFuzzer for `fuzz::nbd`; nothing else.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| fuzz::nbd::run(bytes));
