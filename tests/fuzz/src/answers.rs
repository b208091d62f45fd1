//! Documents of registries and token servers, and the user's docker `config.json`.

use ferry_image::referrer::{self, ReferrerKind};
use ferry_image::{Descriptor, ImageConfig, Manifest, Platform, media_type};
use ferry_registry_client::fuzz as client;
use serde_json::Value;

use crate::names::is_normal;

/// A manifest or index is one thing and says so; a config has a platform.
pub fn manifest(data: &[u8]) {
    let value: Option<Value> = serde_json::from_slice(data).ok();
    if let Ok(config) = ImageConfig::parse(data) {
        is_normal(&config.platform);
        // as below: for an image that works, a config need not be UTF-8 where nobody reads it
        let stated = value.as_ref().map(|v| v["rootfs"]["diff_ids"].as_array().map_or(0, Vec::len));
        assert!(stated.is_none_or(|stated| config.diff_ids.len() == stated));
    }
    let plain = Manifest::parse(data, None);
    for declared in media_type::ACCEPT_MANIFESTS {
        if let Ok(parsed) = Manifest::parse(data, Some(declared)) {
            assert_eq!(parsed.media_type(), declared);
        }
    }
    // a string that is passed over need not be UTF-8 for the reader, but for the value
    let (Ok(parsed), Some(value)) = (plain, value) else { return };
    assert_eq!(Manifest::parse(data, Some(parsed.media_type())).as_ref(), Ok(&parsed));
    assert_eq!(value["schemaVersion"], 2);
    refers(&parsed, data);
    let there = |key: &str| value[key].is_array();
    match &parsed {
        Manifest::Image(image) => {
            assert!(there("layers") && value["config"].is_object() && !there("manifests"));
            assert!(!media_type::is_index(&image.media_type));
            assert_eq!(image.blobs().count(), image.layers.len() + 1);
            image.blobs().chain(&image.subject).for_each(descriptor);
        }
        Manifest::Index(index) => {
            assert!(there("manifests") && !there("layers") && value["config"].is_null());
            assert!(media_type::is_index(&index.media_type));
            index.manifests.iter().chain(&index.subject).for_each(descriptor);
            let platforms = index.platforms();
            assert!(platforms.iter().all(|p| !p.is_unknown()));
            for wanted in platforms.iter().take(8) {
                let found = index.select(wanted).expect("a platform that the index has");
                assert!(found.platform.as_ref().is_some_and(|p| wanted.rank(p).is_some()));
            }
            let absent = Platform::new("plan9", "none", None);
            assert!(index.select(&absent).is_err() || platforms.contains(&absent));
        }
    }
}

/// What is listed of a referrer is found again in a list.
fn refers(parsed: &Manifest, data: &[u8]) {
    let kind = ReferrerKind::of(parsed, None);
    assert_eq!(kind.name().parse(), Ok(kind));
    let whole = Descriptor::of(parsed.media_type(), data);
    let listed = referrer::listed(parsed, &whole);
    assert_eq!(listed.is_some(), referrer::subject(parsed).is_some());
    let Some((_, entry)) = listed else { return };
    assert_eq!((&entry.digest, entry.size), (&whole.digest, whole.size));
    let list = serde_json::json!({"schemaVersion": 2, "manifests": [entry]}).to_string();
    match Manifest::parse(list.as_bytes(), None) {
        Ok(Manifest::Index(index)) => assert_eq!(index.manifests, [entry]),
        other => assert!(list.len() > 4 << 20, "{other:?}"),
    }
}

/// Whatever is read of a descriptor can be written and read again.
fn descriptor(descriptor: &Descriptor) {
    if let Some(platform) = &descriptor.platform {
        is_normal(platform);
    }
    let json = serde_json::to_vec(descriptor).expect("json");
    assert_eq!(&serde_json::from_slice::<Descriptor>(&json).expect("json"), descriptor);
}

/// A token is a header that logs do not show, or an error that does not quote it.
pub fn token(data: &[u8]) {
    let Ok(value) = serde_json::from_slice::<Value>(data) else {
        let _ = client::token(data);
        return;
    };
    match client::token(data) {
        Ok(header) => {
            assert!(header.is_sensitive());
            let tokens: Vec<&str> = ["token", "access_token"].iter().filter_map(|key| value[key].as_str()).collect();
            assert!(tokens.iter().any(|token| header.as_bytes() == [b"Bearer ", token.as_bytes()].concat()));
        }
        Err(why) => hides(&why, &value),
    }
}

/// The strings of `tags`, or an error.
pub fn tags(data: &[u8]) {
    let (Ok(found), Ok(value)) = (client::tags(data), serde_json::from_slice::<Value>(data)) else { return };
    let stated = value["tags"].as_array().into_iter().flatten().filter_map(Value::as_str);
    assert!(found.iter().map(String::as_str).eq(stated));
}

/// The list of repositories is that of the page.
pub fn catalog(data: &[u8]) {
    let (Ok(found), Ok(value)) = (client::catalog(data), serde_json::from_slice::<Value>(data)) else { return };
    let stated = value["repositories"].as_array().into_iter().flatten().filter_map(Value::as_str);
    assert!(found.iter().map(String::as_str).eq(stated));
}

/// One line for a terminal, whatever came.
pub fn refusal(data: &[u8]) {
    let (code, message) = client::refusal(data);
    for text in [code, message] {
        assert!(text.chars().count() <= 301 && text.trim() == text, "{text:?}");
        let moves = |c: char| matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
        assert!(!text.chars().any(|c| c.is_control() || moves(c)), "{text:?}");
    }
}

/// What applies to a repository applies to all below it, and no error shows a secret.
pub fn credentials(data: &[u8]) {
    let value: Value = serde_json::from_slice(data).unwrap_or_default();
    let auths = || value["auths"].as_object().into_iter().flatten();
    let written = |name: &String| auths().any(|(_, auth)| auth["username"] == **name);
    let names = auths().map(|(key, _)| key).take(4).filter_map(|key| {
        let bare = key.trim_start_matches("https://").trim_start_matches("http://");
        let (host, path) = bare.split_once('/').unwrap_or((bare, ""));
        let path = path.trim_end_matches('/');
        let fits = !host.is_empty() && (path.is_empty() || path.split('/').all(|part| !part.is_empty()));
        fits.then(|| (host.to_ascii_lowercase(), path.to_owned()))
    });
    for (host, path) in names.chain([("docker.io".to_owned(), "library/nginx".to_owned())]) {
        let whole = client::credential(data, &host, "");
        let here = client::credential(data, &host, &path);
        let below = client::credential(data, &host, format!("{path}/below").trim_start_matches('/'));
        for found in [&whole, &here, &below] {
            match found {
                // one that is written out is refused when it is used: entries for other hosts are none of its business
                Ok(Some((name, _))) => assert!(!name.contains(':') || written(name)),
                Ok(None) => {}
                Err(why) => hides(why, &value),
            }
        }
        if let Ok(Some(found)) = &whole {
            assert!(here.as_ref().is_ok_and(Option::is_some), "{host}: {} but not {path}", found.0);
        }
        if let Ok(Some(found)) = &here {
            assert!(below.as_ref().is_ok_and(Option::is_some), "{host}/{path}: {} but not below", found.0);
        }
    }
}

/// No secret of `value` stands in `text`, unless it may be something else too: a key, a common word.
fn hides(text: &str, value: &Value) {
    let (mut keys, mut secrets) = (Vec::new(), Vec::new());
    strings(value, &mut keys, &mut secrets);
    for secret in secrets {
        let telling = secret.len() > 12 && secret.contains(|c: char| c.is_ascii_digit());
        if telling && !keys.iter().any(|key| key.contains(secret)) {
            assert!(!text.contains(secret), "{text} shows {secret}");
        }
    }
}

fn strings<'a>(value: &'a Value, keys: &mut Vec<&'a str>, secrets: &mut Vec<&'a str>) {
    const SECRET: [&str; 6] = ["auth", "password", "identitytoken", "registrytoken", "token", "access_token"];
    match value {
        Value::Object(entries) => {
            for (key, inner) in entries {
                keys.push(key);
                match inner {
                    Value::String(secret) if SECRET.contains(&key.as_str()) => secrets.push(secret),
                    inner => strings(inner, keys, secrets),
                }
            }
        }
        Value::Array(items) => items.iter().for_each(|item| strings(item, keys, secrets)),
        _ => {}
    }
}
