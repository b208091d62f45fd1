//! What rendering shows, laid over what the files say: by reference.

use std::collections::BTreeMap;

use ferry_image::Reference;
use ferry_rewrite::Confidence;

use super::{From, Item};

/// Merges `rendered` into `items`. What both have is said once, where it stands in the files; what rendering alone shows is added. What
/// files `of_chart` seem to say for certain is not so when rendering shows the image with another host or tag.
pub(super) fn merge(items: &mut Vec<Item>, rendered: Vec<Item>, of_chart: &dyn Fn(&str) -> bool) {
    let mut shown: BTreeMap<String, &Item> = BTreeMap::new();
    for item in &rendered {
        if let Some(reference) = &item.reference {
            shown.entry(reference.to_string()).or_insert(item);
        }
    }
    for item in items.iter_mut() {
        match &item.reference {
            Some(reference) => {
                if let Some(proof) = shown.get(&reference.to_string()) {
                    item.from = From::Both;
                    if proof.confidence == Confidence::Certain && item.confidence == Confidence::Computed {
                        item.confidence = Confidence::Certain;
                        item.add_reason(&format!("{} has it rendered", proof.file));
                    }
                } else if item.confidence == Confidence::Certain && of_chart(&item.file) {
                    let other = |proof: &&&Item| proof.reference.as_ref().is_some_and(|r| r.path() == reference.path());
                    if let Some(proof) = shown.values().find(other) {
                        let new = proof.reference.as_ref().map(ToString::to_string).unwrap_or_default();
                        item.confidence = Confidence::Computed;
                        item.add_reason(&format!("rendered, it is `{new}` ({})", proof.file));
                    }
                }
            }
            None => resolve(item, &shown),
        }
    }
    let known: Vec<Reference> = items.iter().filter_map(|item| item.reference.clone()).collect();
    let mut places = std::collections::HashSet::new();
    for item in rendered {
        let new = match &item.reference {
            Some(reference) => !known.contains(reference),
            None => true,
        };
        if new && places.insert((item.file.clone(), item.path.clone(), item.value.clone())) {
            items.push(item);
        }
    }
}

/// An image whose tag or registry the files leave open: the one that was rendered of that name, if it is one.
fn resolve(item: &mut Item, shown: &BTreeMap<String, &Item>) {
    let name = item.value.split(['@', ' ']).next().unwrap_or_default();
    if name.is_empty() || name.contains(['$', '{']) {
        return;
    }
    let Ok(written) = name.parse::<Reference>() else { return };
    let same: Vec<(&Reference, &&Item)> = shown
        .values()
        .filter_map(|proof| Some((proof.reference.as_ref()?, proof)))
        .filter(|(reference, _)| reference.repository() == written.repository())
        .collect();
    match same.as_slice() {
        [(reference, proof)] => {
            item.reference = Some((*reference).clone());
            item.confidence = Confidence::Certain;
            item.from = From::Both;
            item.add_reason(&format!("rendered, it is `{reference}` ({})", proof.file));
        }
        [] => {}
        many => {
            let names: Vec<String> = many.iter().map(|(reference, _)| format!("`{reference}`")).collect();
            item.add_reason(&format!("rendered, there are {}", names.join(", ")));
        }
    }
}

#[cfg(test)]
mod tests {
    use ferry_rewrite::{Shape, find};

    use super::*;

    fn items(file: &str, text: &str, from: From) -> Vec<Item> {
        find(text).findings.into_iter().map(|finding| Item::of(file, finding, from)).collect()
    }

    #[test]
    fn what_both_have_is_said_once_and_what_is_open_is_filled_in() {
        let source = "a: {image: q.io/a:1}\nb: {image: {repository: q.io/b, tag: ''}}\nc: {image: {repository: q.io/c, tag: ''}}\nd: {image: q.io/d:1}\n";
        let rendered = "- image: q.io/a:1\n- image: q.io/a:1\n- image: q.io/b:2\n- image: q.io/c:1\n- image: q.io/c:2\n- image: q.io/new:1\n";
        let mut all = items("v.yaml", source, From::Source);
        all[3].confidence = Confidence::Computed;
        merge(&mut all, items("t.yaml", rendered, From::Rendered), &|_| true);
        let shown: Vec<String> = all
            .iter()
            .map(|i| {
                let reference = i.reference.as_ref().map_or_else(|| "?".to_owned(), ToString::to_string);
                format!("{}:{} {reference} {:?} {:?}", i.file, i.line, i.confidence, i.from)
            })
            .collect();
        assert_eq!(
            shown,
            [
                "v.yaml:1 q.io/a:1 Certain Both",
                "v.yaml:2 q.io/b:2 Certain Both",
                "v.yaml:3 ? Unresolvable Source",
                "v.yaml:4 q.io/d:1 Computed Source",
                "t.yaml:4 q.io/c:1 Certain Rendered",
                "t.yaml:5 q.io/c:2 Certain Rendered",
                "t.yaml:6 q.io/new:1 Certain Rendered",
            ]
        );
        assert!(all[2].reason.as_deref().unwrap_or_default().contains("rendered, there are `q.io/c:1`, `q.io/c:2`"));
        assert_eq!(all[1].shape, Shape::Split);
    }

    #[test]
    fn what_rendering_contradicts_is_not_certain() {
        let source = "a: {image: q.io/t/a:1}\nb: {image: q.io/t/b:1}\nc: {image: q.io/t/c:1}\n";
        let rendered = "- image: r.io/t/a:1\n- image: q.io/t/b:2\n";
        let mut all = items("c/values.yaml", source, From::Source);
        all.extend(items("pod.yaml", source, From::Source));
        merge(&mut all, items("t.yaml", rendered, From::Rendered), &|file| file.starts_with("c/"));
        let computed: Vec<_> = all.iter().filter(|i| i.confidence == Confidence::Computed).collect();
        let shown: Vec<_> =
            computed.iter().map(|i| format!("{}:{} {}", i.file, i.line, i.reason.as_deref().unwrap_or("-"))).collect();
        assert_eq!(
            shown,
            [
                "c/values.yaml:1 rendered, it is `r.io/t/a:1` (t.yaml)",
                "c/values.yaml:2 rendered, it is `q.io/t/b:2` (t.yaml)"
            ]
        );
    }
}
