//! The program of libFuzzer for `fuzz::node`; nothing else.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| fuzz::node::run(bytes));
