#![no_main]

#[path = "../../router/tests/fuzz/bodies.rs"]
mod bodies;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| bodies::anthropic_text(bytes));
