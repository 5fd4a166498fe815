//! See `gprxy_proto::testing::fuzz::messages`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| gprxy_proto::testing::fuzz::messages(data));
