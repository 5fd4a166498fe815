//! See `gprxy_proto::testing::fuzz::token`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| gprxy_proto::testing::fuzz::token(data));
