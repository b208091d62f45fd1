//! What a key says of the piece under it: `operatorImageTag` is a tag, `registry` a registry.

/// What a key means, with the stem before it (`operator` in `operatorImageTag`) taken off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Key {
    Registry,
    /// A registry, but only where the key above says that an image is meant.
    Host,
    Hub,
    Prefix,
    Repository,
    ImageName,
    Image,
    Name,
    Tag,
    Version,
    Digest,
}

/// Endings in lower case without `_` and `-`, longest first; some only as the whole key.
const ENDINGS: [(&str, Key); 22] = [
    ("imagetagversion", Key::Tag),
    ("imagerepository", Key::Repository),
    ("imageregistry", Key::Registry),
    ("imageversion", Key::Tag),
    ("imageprefix", Key::Prefix),
    ("imagedigest", Key::Digest),
    ("repository", Key::Repository),
    ("imagerepo", Key::Repository),
    ("imagename", Key::ImageName),
    ("registry", Key::Registry),
    ("imagetag", Key::Tag),
    ("imagehub", Key::Hub),
    ("imagesha", Key::Digest),
    ("digest", Key::Digest),
    ("image", Key::Image),
    ("repo", Key::Repository),
    ("tag", Key::Tag),
    ("version", Key::Version),
    ("name", Key::Name),
    ("host", Key::Host),
    ("hub", Key::Hub),
    ("sha", Key::Digest),
];

/// Endings that count only without a stem.
const WHOLE_ONLY: [&str; 5] = ["version", "name", "host", "hub", "sha"];

pub(super) fn key(text: &str) -> Option<(String, Key)> {
    let plain: String = text.chars().filter(|c| !matches!(c, '_' | '-')).flat_map(char::to_lowercase).collect();
    // `tagOverride` stands for `tag` where it is set
    let plain = plain.strip_suffix("override").unwrap_or(&plain);
    ENDINGS.iter().find_map(|(ending, key)| {
        let stem = plain.strip_suffix(ending)?;
        (stem.is_empty() || !WHOLE_ONLY.contains(ending)).then(|| (stem.to_owned(), *key))
    })
}
