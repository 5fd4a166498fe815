//! See `gprxy_proto::testing::fuzz::console`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| gprxy_proto::testing::fuzz::console(data));
