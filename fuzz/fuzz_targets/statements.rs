//! See `gprxy_proto::testing::fuzz::statements`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| gprxy_proto::testing::fuzz::statements(data));
