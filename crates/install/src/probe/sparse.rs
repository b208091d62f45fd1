//! Whether the target takes an index some of whose manifests are absent, and what stands there if it does not.
//!
//! It is asked with a small index of the same media type that names a manifest which nobody has, for each platform that will be absent:
//! distribution 3 can be told to look for some platforms only. The real index would do as well, but must not be there before its
//! manifests, and what refuses it in the end should be known before the first blob is sent.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use ferry_content::{Failure as _, Kind, Problems};
use ferry_image::{Descriptor, Digest, media_type};

use super::Answer;
use super::refusal::words;
use crate::Error;
use crate::destination::Destination;
use crate::form::{self, Form};
use crate::preflight::Planned;

/// What was found.
pub(super) struct Found {
    pub(super) answer: Answer,
    pub(super) leaves: Vec<String>,
}

enum Taken {
    Yes,
    No(String),
    /// It could not be found out: the push will try.
    Unknown,
}

/// Asks where the plan depends on it, and settles the forms: whatever is refused gives way to the second form, or is a problem where
/// there is none. A repository in `closed` takes no push at all.
pub(super) async fn settle(
    destination: &Destination,
    images: &mut [Planned],
    closed: &BTreeSet<String>,
    problems: &mut Problems,
) -> Found {
    let wants = |p: &&mut Planned| p.state.is_named() && p.forms.first.sparse && !closed.contains(&p.repository);
    let mut answers: BTreeMap<String, Taken> = BTreeMap::new();
    let (mut how, mut leaves) = (Vec::new(), Vec::new());
    let mut stuck: Option<(Error, Vec<String>)> = None;
    for planned in images.iter_mut().filter(wants) {
        let media_type = planned.forms.first.root.media_type.clone();
        if !answers.contains_key(&media_type) {
            let (taken, words) = ask(destination, &planned.repository, &planned.forms.first, &mut leaves).await;
            how.push(words);
            answers.insert(media_type.clone(), taken);
        }
        if let Some(Taken::No(why)) = answers.get(&media_type) {
            match planned.forms.second.take() {
                Some(second) => planned.forms.first = second,
                None => {
                    let (_, images) = stuck.get_or_insert_with(|| (Error::Sparse { why: why.clone() }, Vec::new()));
                    images.push(planned.image.reference.to_string());
                }
            }
        }
    }
    if let Some((error, images)) = stuck {
        let more = if images.len() > 1 { format!(" and {} more", images.len() - 1) } else { String::new() };
        problems.add(format!("image `{}`{more}", images[0]), error);
    }
    let how = how.join("; ");
    let answer = if answers.is_empty() {
        Answer::not_asked("no image that is pushed wants an index with absent platforms")
    } else if answers.values().any(|taken| matches!(taken, Taken::No(_))) {
        Answer::no(how)
    } else if answers.values().all(|taken| matches!(taken, Taken::Yes)) {
        Answer::yes(how)
    } else {
        Answer::not_asked(how)
    };
    Found { answer, leaves }
}

async fn ask(destination: &Destination, repository: &str, wanted: &Form, leaves: &mut Vec<String>) -> (Taken, String) {
    let (client, target) = match destination {
        Destination::Registry { client, target } => (client, target),
        Destination::Store { store, .. } if store.takes_sparse_indexes() => {
            return (Taken::Yes, "the store takes them".to_owned());
        }
        Destination::Store { .. } => {
            let why = "the store is opened to refuse them";
            return (Taken::No(why.to_owned()), why.to_owned());
        }
    };
    let media_type = &wanted.root.media_type;
    let bytes = index_of_nothing(media_type, form::absent_platforms(wanted).unwrap_or_default());
    let digest = Digest::of(&bytes);
    let what = if media_type == media_type::DOCKER_INDEX { "manifest list" } else { "index" };
    let asked = match client.repository(target.host(), repository) {
        Ok(asked) => asked,
        Err(error) => return (Taken::Unknown, error.to_string()),
    };
    match asked.put_manifest(&digest.to_string(), media_type, &bytes).await.map_err(Error::Client) {
        Ok(()) => match asked.delete_manifest(&digest).await.map_err(Error::Client) {
            Ok(()) => {
                (Taken::Yes, format!("a small {what} with absent manifests was put in `{repository}` and deleted"))
            }
            Err(error) => {
                leaves.push(format!("a small {what} in `{repository}`, {digest}, without a tag{}", words(&error)));
                (Taken::Yes, format!("a small {what} with absent manifests was put in `{repository}`"))
            }
        },
        Err(error) if is_refusal(&error) => {
            let why = format!("a small {what} with absent manifests was refused in `{repository}`{}", words(&error));
            (Taken::No(why.clone()), why)
        }
        Err(error) => {
            let why = format!(
                "a small {what} with absent manifests met with another failure in `{repository}`: {}",
                words(&error)
            );
            (Taken::Unknown, why)
        }
    }
}

/// An index of a manifest that nobody has, for each of `platforms`.
fn index_of_nothing(index_type: &str, platforms: Vec<serde_json::Value>) -> Bytes {
    let manifest_type =
        if index_type == media_type::DOCKER_INDEX { media_type::DOCKER_MANIFEST } else { media_type::OCI_MANIFEST };
    let absent = Descriptor::of(manifest_type, b"ferry asks whether an index may name what is not there");
    let platforms = if platforms.is_empty() {
        vec![serde_json::json!({"architecture": "unknown", "os": "unknown"})]
    } else {
        platforms
    };
    let entry = |platform| {
        serde_json::json!({
            "mediaType": absent.media_type, "digest": absent.digest, "size": absent.size, "platform": platform,
        })
    };
    let manifests: Vec<_> = platforms.into_iter().map(entry).collect();
    let index = serde_json::json!({"schemaVersion": 2, "mediaType": index_type, "manifests": manifests});
    Bytes::from(index.to_string())
}

/// Whether the target understood a manifest and would not have it, rather than being out of reach.
pub(crate) fn is_refusal(error: &Error) -> bool {
    match error {
        Error::Client(error) => error.status().is_some_and(refuses),
        Error::Store(error) => error.kind() != Kind::Local,
        _ => false,
    }
}

/// Whether another manifest may fare better. Not who must not push, and not who shall come later; docker-registry and others tell what is
/// wrong with a manifest by 500 too.
fn refuses(status: u16) -> bool {
    match status {
        401 | 403 | 408 | 425 | 429 => false,
        _ => (400..=500).contains(&status),
    }
}

#[cfg(test)]
mod tests {
    use ferry_image::Manifest;

    use super::*;

    #[test]
    fn what_is_refused_and_what_is_only_late() {
        for status in [400, 404, 405, 413, 415, 422, 500] {
            assert!(refuses(status), "{status}");
        }
        for status in [200, 401, 403, 408, 425, 429, 502, 503, 504] {
            assert!(!refuses(status), "{status}");
        }
    }

    #[test]
    fn the_small_index_is_of_the_same_kind_and_platforms() {
        let arm = serde_json::json!({"architecture": "arm", "os": "linux", "variant": "v7"});
        for (index_type, manifest_type) in
            [(media_type::OCI_INDEX, media_type::OCI_MANIFEST), (media_type::DOCKER_INDEX, media_type::DOCKER_MANIFEST)]
        {
            let bytes = index_of_nothing(index_type, vec![arm.clone()]);
            let Ok(Manifest::Index(index)) = Manifest::parse(&bytes, Some(index_type)) else { panic!("{bytes:?}") };
            assert_eq!((index.manifests.len(), index.manifests[0].media_type.as_str()), (1, manifest_type));
            assert!(String::from_utf8_lossy(&bytes).contains(r#""variant":"v7""#));
            assert_eq!(bytes, index_of_nothing(index_type, vec![arm.clone()]), "always the same one");
        }
        assert!(String::from_utf8_lossy(&index_of_nothing(media_type::OCI_INDEX, vec![])).contains("unknown"));
    }
}
