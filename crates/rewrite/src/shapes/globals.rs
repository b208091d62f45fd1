//! What is said once for many images: `global.registry`, `global.hub` and `global.tag`, a default registry.

use super::keys::Key;
use super::split::Group;
use super::{Scope, Step, Walk};
use crate::tree::{Document, NodeId};
use crate::words;

/// A piece that stands elsewhere: its scalar and its path.
pub(super) type Elsewhere = (NodeId, String);

/// What images take where they do not say it themselves.
#[derive(Debug, Clone, Default)]
pub(super) struct Globals {
    pub(super) registry: Option<Elsewhere>,
    pub(super) hub: Option<Elsewhere>,
    pub(super) tag: Option<Elsewhere>,
    /// Of all images that name none themselves.
    pub(super) repository: Option<Elsewhere>,
    pub(super) image_tag: Option<Elsewhere>,
}

/// Keys of a values file that give all of its images their registry; a `registry` alone may mean anything.
const DEFAULTS: [&str; 5] =
    ["defaultRegistry", "imageRegistry", "defaultImageRegistry", "image_registry", "default_registry"];

impl Globals {
    /// Whether a bare `image` is enough, the rest standing in `global`.
    pub(super) fn complete(&self) -> bool {
        self.hub.is_some() && self.tag.is_some()
    }

    /// What `mapping`, which stands at `path`, says for everything below it; `self` where it does not.
    fn within(&self, doc: &Document, mapping: NodeId, path: &str, shared: bool) -> Option<Self> {
        let at = |parent: Option<NodeId>, place: &str, key: &str| {
            let value = doc.entry(parent?, key)?;
            let text = doc.text(value)?;
            (!text.is_empty()).then(|| (value, format!("{path}{place}.{key}")))
        };
        let global = doc.entry(mapping, "global");
        let image = global.and_then(|global| doc.entry(global, "image"));
        let registry = global.and_then(|global| doc.entry(global, "registry"));
        let here = Some(mapping);
        let found = Self {
            registry: at(image, ".global.image", "registry")
                .or_else(|| at(global, ".global", "imageRegistry"))
                .or_else(|| at(global, ".global", "registry"))
                .or_else(|| at(registry, ".global.registry", "address"))
                .or_else(|| at(registry, ".global.registry", "url"))
                .or_else(|| {
                    let top = mapping == doc.root && doc.kind().is_none();
                    DEFAULTS.iter().filter(|_| top).find_map(|key| at(here, "", key))
                })
                .or_else(|| if shared { at(here, "", "registry") } else { None })
                .filter(|(value, _)| doc.scalar(*value).is_some_and(words::may_be_registry)),
            hub: at(global, ".global", "hub"),
            tag: at(global, ".global", "tag"),
            repository: at(image, ".global.image", "repository")
                .or_else(|| at(global, ".global", "imageRepository"))
                .or_else(|| at(global, ".global", "repository")),
            image_tag: at(image, ".global.image", "tag")
                .or_else(|| at(global, ".global", "imageTag"))
                .or_else(|| at(global, ".global", "tag")),
        };
        let all = [&found.registry, &found.hub, &found.tag, &found.repository, &found.image_tag];
        all.iter().any(|piece| piece.is_some()).then(|| Self {
            registry: found.registry.or_else(|| self.registry.clone()),
            hub: found.hub.or_else(|| self.hub.clone()),
            tag: found.tag.or_else(|| self.tag.clone()),
            repository: found.repository.or_else(|| self.repository.clone()),
            image_tag: found.image_tag.or_else(|| self.image_tag.clone()),
        })
    }
}

impl<'a> Walk<'a> {
    /// `images:` with one `tag` for all the names in it.
    pub(super) fn tagged_together(&mut self, id: NodeId, scope: Scope<'a>) {
        let doc = self.doc;
        let Some(tag) = doc.entry(id, "tag").filter(|tag| doc.scalar(*tag).is_some()) else { return };
        for &(key, value) in doc.entries(id) {
            let Some(name) = doc.scalar(key).filter(|name| super::keys::key(name).is_none()) else { continue };
            let plain = |text: &str| {
                text.contains('/') && words::parse(text).is_some_and(|(_, _, pinned)| !pinned) && !text.starts_with('/')
            };
            if !doc.text(value).is_some_and(plain) {
                continue;
            }
            let pieces = vec![(Key::Image, name, value), (Key::Tag, "tag", tag)];
            let elsewhere = [(value, self.path_of(name)), (tag, self.path_of("tag"))].into();
            self.path.push(Step::Key(name));
            self.split(&Group { pieces, elsewhere, ..Group::default() }, id, scope);
            self.path.pop();
        }
    }

    /// Takes over what a mapping says for everything below it, and gives what held until then.
    ///
    /// `images`: it stands under a key for images, so that a `registry` beside their mappings is theirs.
    pub(super) fn enter(&mut self, mapping: NodeId, images: bool) -> Option<Globals> {
        let shared = images
            && !self.doc.entries(mapping).iter().any(|(key, value)| {
                self.doc.scalar(*value).is_some()
                    && self.doc.scalar(*key).is_some_and(|key| matches!(key, "repository" | "image" | "name" | "repo"))
            });
        let inner = self.globals.within(self.doc, mapping, &self.here(), shared)?;
        Some(std::mem::replace(&mut self.globals, inner))
    }
}
