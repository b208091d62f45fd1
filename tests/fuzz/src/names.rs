//! References, digests, platforms, names at the target.

use std::net::Ipv6Addr;
use std::sync::LazyLock;

use ferry_image::reference::{is_path, is_tag};
use ferry_image::referrer::{self, CosignTag};
use ferry_image::rules::glob;
use ferry_image::{Algorithm, Digest, Hasher, Layout, Platform, Reference, Target, TargetName};
use regex::Regex;

/// The expression of distribution's `reference` package, which docker, containerd and the kubelet share.
static REFERENCE: LazyLock<Regex> = LazyLock::new(|| {
    let part = "(?:[a-zA-Z0-9]|[a-zA-Z0-9][a-zA-Z0-9-]*[a-zA-Z0-9])";
    let host = format!(r"(?:{part}(?:\.{part})*|\[(?P<ipv6>[a-fA-F0-9:]+)\])(?::(?P<port>[0-9]+))?");
    let word = "[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*";
    let digest = "[A-Za-z][A-Za-z0-9]*(?:[-_+.][A-Za-z][A-Za-z0-9]*)*:[0-9a-fA-F]{32,}";
    let tag = "[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}";
    let whole = format!(r"^(?:{host}/)?{word}(?:/{word})*(?::{tag})?(?:@(?P<digest>{digest}))?$");
    Regex::new(&whole).expect("expression")
});

static DIGEST: LazyLock<Regex> =
    LazyLock::new(|| Regex::new("^(?:sha256:[0-9a-f]{64}|sha512:[0-9a-f]{128})$").expect("expression"));

static PLATFORM: LazyLock<Regex> =
    LazyLock::new(|| Regex::new("^[A-Za-z0-9._-]+/[A-Za-z0-9._-]+(?:/[A-Za-z0-9._-]+)?$").expect("expression"));

/// Nothing but the grammar is taken, all of it is, and the normal form is one.
pub fn reference(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let grammar = REFERENCE.captures(text);
    let reference = match (text.parse::<Reference>(), grammar) {
        (Ok(reference), Some(_)) => reference,
        (Ok(reference), None) => panic!("`{text}` is no reference, but read as {reference}"),
        (Err(_), None) => return,
        (Err(error), Some(found)) => {
            let is = |name: &str, bad: fn(&str) -> bool| found.name(name).is_some_and(|part| bad(part.as_str()));
            let first = text.split_once('/').map_or("", |(first, _)| first);
            let refused = is("port", |port| port.parse::<u16>().is_err())
                || is("ipv6", |address| address.parse::<Ipv6Addr>().is_err())
                || is("digest", |digest| !DIGEST.is_match(digest))
                // an image id, which no registry knows
                || (text.len() == 64 && text.bytes().all(|b| b.is_ascii_hexdigit()))
                // a host, by its dot, that is none
                || (first.contains('.') && first.contains('_'))
                // at most 255 with what is added to it
                || text.len() + "docker.io/library/".len() > 255;
            assert!(refused, "`{text}` is a reference, but {error}");
            return;
        }
    };
    assert_eq!(reference.written(), text);
    let normal = reference.to_string();
    let again: Reference = normal.parse().expect("a normal form is a reference");
    assert_eq!((&again, again.to_string()), (&reference, normal.clone()));
    assert_eq!((again.host(), again.path(), again.tag()), (reference.host(), reference.path(), reference.tag()));
    assert!(reference.repository().len() <= 255 && is_path(reference.path()));
    assert!(reference.path().ends_with(reference.name()));
    assert!(reference.tag().is_some() || reference.digest().is_some());

    let parts = Reference::new(reference.host(), reference.path(), reference.tag(), reference.digest());
    assert_eq!(parts.as_ref(), Ok(&reference));
    assert_eq!(reference.at(reference.host(), reference.path()).as_ref(), Ok(&reference));
    let asked = reference.manifest_reference();
    assert_eq!(
        reference.digest().map_or_else(|| reference.tag().map(str::to_owned), |d| Some(d.to_string())),
        Some(asked)
    );
    let pinned = reference.pinned(&Digest::of(b"pin"));
    assert_eq!(pinned.written().parse().as_ref(), Ok(&pinned));
    let json = serde_json::to_string(&reference).expect("json");
    assert_eq!(serde_json::from_str::<Reference>(&json).expect("json"), reference);
}

/// Only the two registered forms are digests, and hashing in pieces is hashing.
pub fn digest(data: &[u8]) {
    let whole = Digest::of(data);
    let mut pieces = Hasher::new(Algorithm::Sha256);
    let (first, second) = data.split_at(data.first().map_or(0, |at| usize::from(*at).min(data.len())));
    pieces.update(first);
    pieces.update(second);
    assert_eq!(pieces.finish(), whole);
    let Ok(text) = std::str::from_utf8(data) else { return };
    let parsed = text.parse::<Digest>();
    assert_eq!(parsed.is_ok(), DIGEST.is_match(text), "`{text}`");
    for digest in parsed.iter().chain([&whole]) {
        assert_eq!(digest.to_string().parse().as_ref(), Ok(digest));
        assert_eq!(digest.blob_path(), format!("blobs/{}", digest.to_string().replace(':', "/")));
        assert!(digest.hex().starts_with(digest.short()));
    }
    if let Ok(digest) = parsed {
        assert_eq!(digest.to_string(), text);
        assert!(
            CosignTag::ALL.iter().all(|kind| CosignTag::parse(&kind.tag(&digest)) == Some((digest.clone(), *kind)))
        );
        assert!(referrer::is_for_referrers(&referrer::fallback_tag(&digest)));
    }
    if let Some((digest, kind)) = CosignTag::parse(text) {
        assert!(is_tag(text) || digest.algorithm() == Algorithm::Sha512, "`{text}`");
        assert!(kind.tag(&digest) == text && referrer::is_for_referrers(text), "`{text}`");
    }
}

/// Several platforms, one a line.
pub fn platform(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let mut all: Vec<Platform> = Vec::new();
    for line in text.lines().take(16) {
        let parsed = line.parse::<Platform>();
        assert_eq!(parsed.is_ok(), PLATFORM.is_match(line), "`{line}`");
        all.extend(parsed);
    }
    for one in &all {
        is_normal(one);
        assert_eq!(one.rank(one), Some(u32::MAX));
    }
    let Some(wanted) = all.first() else { return };
    // the first of those that rank highest
    let ranks: Vec<Option<u32>> = all.iter().map(|p| wanted.rank(p)).collect();
    let best = ranks.iter().flatten().max().and_then(|top| ranks.iter().position(|r| r == &Some(*top)));
    assert_eq!(wanted.best(&all).ok(), best);
    let others = &all[1..];
    let fits = others.iter().any(|p| wanted.rank(p).is_some());
    assert_eq!(wanted.best(others).is_ok(), fits);
}

/// A platform is written as it reads back, and normalising it again changes nothing.
pub(crate) fn is_normal(platform: &Platform) {
    assert_eq!(platform.to_string().parse().as_ref(), Ok(platform), "{platform:?}");
    let variant = Some(platform.variant.as_str()).filter(|v| !v.is_empty());
    assert_eq!(&Platform::new(&platform.os, &platform.architecture, variant), platform);
}

/// Four lines: a reference, a target, a chosen name, a pattern. Whatever is placed at a target is a reference there.
pub fn target_name(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let mut lines = text.split('\n');
    let mut line = || lines.next().unwrap_or_default();
    let (reference, target, chosen, pattern) = (line(), line(), line(), line());
    if pattern.len() < 64 && target.len() < 256 {
        assert_eq!(glob(pattern, target), fits(pattern.as_bytes(), target.as_bytes()), "{pattern} {target}");
    }
    let (reference, target) = (reference.parse::<Reference>(), target.parse::<Target>());
    let chosen = chosen.parse::<TargetName>().ok();
    if let Some(chosen) = &chosen {
        assert_eq!(chosen.to_string().parse().as_ref(), Ok(chosen));
    }
    if let Ok(target) = &target {
        assert_eq!(target.to_string().parse().as_ref(), Ok(target));
    }
    let (Ok(reference), Ok(target)) = (reference, target) else { return };
    for layout in [Layout::Path, Layout::Host, Layout::Flat] {
        for chosen in [None, chosen.as_ref()] {
            let name = TargetName::place(&reference, chosen, layout);
            assert!(is_path(&name.repository), "{name} for {reference} in {layout:?}");
            let path = target.path_of(&name);
            if target.host().len() + path.len() < 255 {
                let there = reference.at(target.host(), &path).expect("a reference at the target");
                // docker's hub has a folder of its own for names without one
                assert!(target.holds(&there) || there.path() == format!("library/{path}"), "{there} in {target}");
            }
        }
    }
}

/// The glob as one would say it: `*` is nothing, or one character and `*` again.
fn fits(pattern: &[u8], text: &[u8]) -> bool {
    let mut reached = vec![false; text.len() + 1];
    reached[0] = true;
    for p in pattern {
        let before = reached.clone();
        for at in 0..=text.len() {
            reached[at] = match p {
                b'*' => before[at] || (at > 0 && reached[at - 1]),
                p => at > 0 && before[at - 1] && text[at - 1] == *p,
            };
        }
    }
    reached[text.len()]
}
