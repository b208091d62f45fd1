//! `images:` of a kustomization. `name` is the key that is matched, and is never touched.

use super::{Scope, Walk};
use crate::finding::{Confidence, Finding, Part, Role, Shape};
use crate::tree::NodeId;
use crate::words;

impl<'a> Walk<'a> {
    /// Looks at one entry; true when it was one.
    pub(super) fn kustomize(&mut self, id: NodeId, scope: Scope<'a>) -> bool {
        let doc = self.doc;
        if scope.key != "images" || !scope.item {
            return false;
        }
        let entry = |key: &str| doc.entry(id, key).filter(|v| doc.text(*v).is_some_and(|t| !t.is_empty()));
        let (name, new_name, tag, digest) = (entry("name"), entry("newName"), entry("newTag"), entry("digest"));
        let Some(name) = name else { return false };
        if new_name.is_none() && tag.is_none() && digest.is_none() {
            // an entry that changes nothing yet: its `name` still only matches
            if doc.entries(id).len() == 1 && doc.scalar(name).is_some_and(|text| !text.contains([':', '@'])) {
                self.taken[name] = true;
            }
            return false;
        }
        for key in ["name", "newName", "newTag", "digest"] {
            if let Some(value) = doc.entry(id, key) {
                self.taken[value] = true;
            }
        }
        let mut parts = Vec::new();
        let repository = match new_name {
            Some(site) => {
                parts.push(self.part(Role::Segment, site, self.path_of("newName")));
                site
            }
            None => {
                // the entry itself, where the key would be added
                let part = self.part(Role::NewName, name, self.path_of("newName"));
                parts.push(Part { node: id, ..part });
                name
            }
        };
        let mut value = doc.scalar(repository).unwrap_or_default().to_owned();
        if let (Some(site), Some(text)) = (tag, tag.and_then(|t| doc.scalar(t))) {
            value = format!("{value}:{text}");
            parts.push(self.part(Role::Tag, site, self.path_of("newTag")));
        }
        if let (Some(site), Some(text)) = (digest, digest.and_then(|t| doc.scalar(t))) {
            value = format!("{value}@{text}");
            parts.push(self.part(Role::Digest, site, self.path_of("digest")));
        }
        let path = self.here();
        if tag.is_none() && digest.is_none() {
            let reason = "neither `newTag` nor `digest` stands here: the tag comes from the resources".to_owned();
            self.unresolvable(repository, path, &value, Shape::Kustomize, reason);
            return true;
        }
        if let Some((reference, _, _)) = words::parse(&value) {
            let finding = Finding {
                line: self.line(repository),
                path,
                value,
                reference: Some(reference),
                shape: Shape::Kustomize,
                confidence: Confidence::Certain,
                reason: None,
                parts,
                document: self.document,
                site: repository,
            };
            self.report(finding);
        }
        true
    }
}
