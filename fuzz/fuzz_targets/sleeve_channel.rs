#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fuzz_entry::sleeve_channel(data));
