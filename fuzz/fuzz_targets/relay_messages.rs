#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fuzz_entry::relay_messages(data));
