//! See `gprxy_proto::testing::fuzz::frames`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| gprxy_proto::testing::fuzz::frames(data));
