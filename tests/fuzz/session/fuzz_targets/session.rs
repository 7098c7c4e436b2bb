//! Arbitrary bytes against decoder and hub. What breaks goes into `corpus/session`, where the ordinary tests find it.

#![no_main]

#[path = "../../../src/storm.rs"]
mod storm;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    storm::play(data);
});
