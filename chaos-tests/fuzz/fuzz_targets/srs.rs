#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| mailraft_fuzz_bodies::srs::srs(input));
