//! libFuzzer over one target, which `FERRY_FUZZ_TARGET` names.
#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;

static TARGET: LazyLock<ferry_fuzz::Target> = LazyLock::new(|| {
    let name = std::env::var("FERRY_FUZZ_TARGET").unwrap_or_default();
    ferry_fuzz::target(&name).unwrap_or_else(|| panic!("FERRY_FUZZ_TARGET={name} is no target"))
});

fuzz_target!(|data: &[u8]| TARGET(data));
