//! See `fuzz/src/xfcc.rs`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| countersign_fuzz::xfcc::run(data));
