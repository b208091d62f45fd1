//! An image that really runs, from Debian's `busybox-static`.

use std::path::Path;

use serde_json::json;

use super::{Entry, Format, Image, Layer};

const BUSYBOX: &str = "/bin/busybox";

/// Whether this machine has a static busybox.
#[must_use]
pub fn busybox_available() -> bool {
    // a dynamic one would need its libraries in the image too
    std::fs::read(BUSYBOX).is_ok_and(|bytes| !contains(&bytes, b"/lib64/ld-linux") && !contains(&bytes, b"/lib/ld-"))
}

/// A runnable image for this machine's architecture in two layers; it prints `greeting` and ends.
#[must_use]
pub fn busybox(format: Format, greeting: &str) -> Image {
    let binary = std::fs::read(Path::new(BUSYBOX)).expect("busybox-static is installed");
    let programs = Layer::of(&[
        ("bin", Entry::Folder),
        ("bin/busybox", Entry::File(binary, 0o755)),
        ("bin/sh", Entry::Link("busybox".into())),
        ("bin/cat", Entry::Link("busybox".into())),
        ("bin/true", Entry::Link("busybox".into())),
    ]);
    let text = Layer::of(&[("etc", Entry::Folder), ("etc/greeting", Entry::File(greeting.into(), 0o644))]);
    let run = json!({"Cmd": ["/bin/cat", "/etc/greeting"], "Env": ["PATH=/bin"]});
    Image::with_config(&format!("linux/{}", architecture()), format, vec![programs, text], &run)
}

/// This machine's architecture in Go's words, as images name it.
#[must_use]
pub fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

fn contains(bytes: &[u8], part: &[u8]) -> bool {
    bytes.windows(part.len()).any(|window| window == part)
}
