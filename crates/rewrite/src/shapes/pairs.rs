//! Pieces of a reference as values in a list of names: `- name: image.tag` with `value:`, as parameters and environments have it.

use super::keys::{Key, key};
use super::split::Group;
use super::{Scope, Step, Walk};
use crate::tree::{Kind, NodeId};

impl<'a> Walk<'a> {
    /// Looks at the entries of a list together.
    pub(super) fn pairs(&mut self, id: NodeId) {
        let doc = self.doc;
        let Kind::Sequence { items, .. } = &doc.nodes[id].kind else { return };
        let mut groups: Vec<(&'a str, Group<'a>)> = Vec::new();
        for (i, &item) in items.iter().enumerate() {
            let Some((name, value)) = doc.entry(item, "name").zip(doc.entry(item, "value")) else { continue };
            let (Some(name), Some(text)) = (doc.scalar(name), doc.text(value)) else { continue };
            let (above, last) = name.rsplit_once('.').unwrap_or(("", name));
            let Some((stem, key)) = key(last).filter(|_| !text.is_empty()) else { continue };
            // without a dot before it the name itself must speak of an image
            if above.is_empty() && !last.to_ascii_lowercase().contains("image") {
                continue;
            }
            let path = format!("{}[{i}].value", self.here());
            let at = groups.iter().position(|(a, group)| *a == above && group.stem == stem).unwrap_or_else(|| {
                groups.push((above, Group { stem, ..Group::default() }));
                groups.len() - 1
            });
            let group = &mut groups[at].1;
            if group.at(key).is_none() {
                group.pieces.push((key, last, value));
                group.elsewhere.push((value, path));
            }
        }
        for (above, group) in groups {
            let named = [Key::Repository, Key::ImageName, Key::Image].iter().any(|key| group.at(*key).is_some());
            let tagged = [Key::Tag, Key::Digest].iter().any(|key| group.at(*key).is_some());
            if !named || !tagged {
                continue;
            }
            if !above.is_empty() {
                self.path.push(Step::Key(above));
            }
            self.split(&group, id, Scope { key: "image", item: false, images: false, image: false });
            if !above.is_empty() {
                self.path.pop();
            }
        }
    }
}
