//! See `gprxy_proto::testing::fuzz::lookup`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| gprxy_proto::testing::fuzz::lookup(data));
