//! See `gprxy_proto::testing::fuzz::gate`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| gprxy_proto::testing::fuzz::gate(data));
