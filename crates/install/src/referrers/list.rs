//! The list of referrers that clients keep where a registry does not (distribution-spec, "Pushing Manifests with Subject"). Pure.

use ferry_image::{Descriptor, Manifest, media_type};

/// `list` as the bytes of an index, with those of `entries` that it lacks. `list` is an index as it stands at the registry, kept as
/// it is otherwise; nothing is written anew where nothing is missing.
///
/// # Errors
/// When `list` is no index.
pub(crate) fn with_entries(list: Option<&[u8]>, entries: &[Descriptor]) -> Result<Option<Vec<u8>>, ferry_image::Error> {
    let fail = |why: String| ferry_image::Error::Document { what: "index of referrers", why };
    let empty = serde_json::json!({"schemaVersion": 2, "mediaType": media_type::OCI_INDEX, "manifests": []});
    let (mut json, there) = match list {
        None => (empty, Vec::new()),
        Some(bytes) => match Manifest::parse(bytes, None)? {
            Manifest::Index(index) => {
                let json = serde_json::from_slice(bytes).map_err(|e| fail(e.to_string()))?;
                (json, index.manifests.into_iter().map(|d| d.digest).collect())
            }
            Manifest::Image(_) => return Err(fail("an image's manifest stands in its place".to_owned())),
        },
    };
    let lacking: Vec<&Descriptor> = entries.iter().filter(|entry| !there.contains(&entry.digest)).collect();
    if lacking.is_empty() {
        return Ok(None);
    }
    let manifests = json.get_mut("manifests").and_then(serde_json::Value::as_array_mut);
    let manifests = manifests.ok_or_else(|| fail("no list of manifests".to_owned()))?;
    for entry in lacking {
        manifests.push(serde_json::to_value(entry).map_err(|e| fail(e.to_string()))?);
    }
    serde_json::to_vec(&json).map(Some).map_err(|e| fail(e.to_string()))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_list_is_merged_with_what_is_there() {
        let (a, b) = (Descriptor::of("a/a", b"a"), Descriptor::of("b/b", b"b"));
        let first = with_entries(None, std::slice::from_ref(&a)).expect("index").expect("new");
        assert_eq!(with_entries(Some(&first), std::slice::from_ref(&a)), Ok(None), "nothing to do");
        let there = r#"{"schemaVersion":2,"manifests":[{"mediaType":"a/a","digest":"DIGEST","size":1,"x":1}],"y":2}"#;
        let there = there.replace("DIGEST", &a.digest.to_string());
        let merged = with_entries(Some(there.as_bytes()), &[a, b.clone()]).expect("index").expect("changed");
        let expected = format!(
            r#"{},{{"mediaType":"b/b","digest":"{}","size":1}}],"y":2}}"#,
            there.strip_suffix(r#"],"y":2}"#).expect("end"),
            b.digest
        );
        assert_eq!(String::from_utf8(merged).expect("text"), expected);
        let image = json!({"schemaVersion": 2, "config": Descriptor::of("c", b""), "layers": []}).to_string();
        assert!(with_entries(Some(image.as_bytes()), &[b]).is_err());
    }
}
