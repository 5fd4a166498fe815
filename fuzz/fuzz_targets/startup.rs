//! See `gprxy_proto::testing::fuzz::startup`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| gprxy_proto::testing::fuzz::startup(data));
