//! References in pieces: `registry`, `repository`, `tag`, `digest` and their many other names, side by side in a mapping.

use super::{Scope, Walk};
use crate::finding::{Confidence, Finding, Inner, NOWHERE, Part, Role, Shape};
use crate::tree::{Document, Kind, NodeId};
use crate::words::{self, Level};

/// What the chart sets for all of its images.
#[derive(Debug, Default)]
pub(super) struct Globals {
    registry: Option<(NodeId, String)>,
    hub: Option<(NodeId, String)>,
    tag: Option<(NodeId, String)>,
    /// Of all images that name none themselves.
    repository: Option<(NodeId, String)>,
    image_tag: Option<(NodeId, String)>,
}

impl Globals {
    pub(super) fn of(doc: &Document) -> Self {
        let Some(global) = doc.entry(doc.root, "global") else { return Self::default() };
        let image = doc.entry(global, "image");
        let at = |parent: Option<NodeId>, key: &str, path: &str| {
            let value = doc.entry(parent?, key)?;
            let text = doc.text(value)?;
            (!text.is_empty()).then(|| (value, path.to_owned()))
        };
        Self {
            registry: at(image, "registry", "$.global.image.registry")
                .or_else(|| at(Some(global), "imageRegistry", "$.global.imageRegistry"))
                .or_else(|| at(Some(global), "registry", "$.global.registry")),
            hub: at(Some(global), "hub", "$.global.hub"),
            tag: at(Some(global), "tag", "$.global.tag"),
            repository: at(image, "repository", "$.global.image.repository")
                .or_else(|| at(Some(global), "imageRepository", "$.global.imageRepository"))
                .or_else(|| at(Some(global), "repository", "$.global.repository")),
            image_tag: at(image, "tag", "$.global.image.tag")
                .or_else(|| at(Some(global), "imageTag", "$.global.imageTag"))
                .or_else(|| at(Some(global), "tag", "$.global.tag")),
        }
    }
}

impl Globals {
    /// Whether a bare `image` is enough, the rest standing in `global`.
    fn complete(&self) -> bool {
        self.hub.is_some() && self.tag.is_some()
    }
}

/// What a key means, with the stem before it (`operator` in `operatorImageTag`) taken off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Key {
    Registry,
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

/// Endings in lower case without `_` and `-`, longest first; the last three only as the whole key.
const ENDINGS: [(&str, Key); 20] = [
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
    ("hub", Key::Hub),
    ("sha", Key::Digest),
];

/// Endings that count only without a stem.
const WHOLE_ONLY: [&str; 4] = ["version", "name", "hub", "sha"];

fn key(text: &str) -> Option<(String, Key)> {
    let plain: String = text.chars().filter(|c| !matches!(c, '_' | '-')).flat_map(char::to_lowercase).collect();
    ENDINGS.iter().find_map(|(ending, key)| {
        let stem = plain.strip_suffix(ending)?;
        (stem.is_empty() || !WHOLE_ONLY.contains(ending)).then(|| (stem.to_owned(), *key))
    })
}

/// The scalars of one mapping that may be pieces of one reference.
#[derive(Debug, Default)]
struct Group<'a> {
    stem: String,
    pieces: Vec<(Key, &'a str, NodeId)>,
}

impl<'a> Group<'a> {
    fn at(&self, key: Key) -> Option<(&'a str, NodeId)> {
        self.pieces.iter().find(|(k, _, _)| *k == key).map(|(_, name, value)| (*name, *value))
    }
}

impl<'a> Walk<'a> {
    pub(super) fn splits(&mut self, id: NodeId, scope: Scope<'a>) {
        let doc = self.doc;
        let mut groups: Vec<Group<'a>> = Vec::new();
        let mut add = |name: &'a str, value: NodeId| {
            let Some((stem, key)) = key(name) else { return };
            match groups.iter_mut().find(|g| g.stem == stem) {
                Some(group) if group.at(key).is_none() => group.pieces.push((key, name, value)),
                Some(_) => {}
                None => groups.push(Group { stem, pieces: vec![(key, name, value)] }),
            }
        };
        let scalars = |id: NodeId| {
            doc.entries(id)
                .iter()
                .filter(|(_, v)| doc.scalar(*v).is_some())
                .filter_map(|(k, v)| Some((doc.scalar(*k)?, *v)))
        };
        for (name, value) in scalars(id) {
            add(name, value);
        }
        for merged in self.merged(id) {
            for (name, value) in scalars(merged) {
                add(name, value);
            }
        }
        for group in groups {
            self.split(&group, id, scope);
        }
    }

    /// What `<<` brings into a mapping.
    fn merged(&self, id: NodeId) -> Vec<NodeId> {
        let doc = self.doc;
        let Some(merge) = doc.entry(id, "<<").map(|m| doc.resolve(m)) else { return Vec::new() };
        match &doc.nodes[merge].kind {
            Kind::Mapping { .. } => vec![merge],
            Kind::Sequence { items, .. } => items.iter().map(|i| doc.resolve(*i)).collect(),
            _ => Vec::new(),
        }
    }

    fn split(&mut self, group: &Group<'a>, id: NodeId, scope: Scope<'a>) {
        let image_key = group.stem.is_empty() && (words::level(scope.key) >= Level::Strong || scope.images);
        let Some(plan) = self.arrange(group, image_key) else { return };
        // an alias's own scalar may be shared; only pieces that stand in this mapping are used up here
        let own = |value: &NodeId| self.doc.entries(id).iter().any(|(_, v)| v == value);
        let used: Vec<NodeId> = plan.used().filter(own).collect();
        for value in used {
            self.taken[value] = true;
        }
        self.compose(group, &plan);
    }

    /// Which pieces make up the name and the tag; none when the mapping does not describe an image in pieces.
    fn arrange(&self, group: &Group<'a>, image_key: bool) -> Option<Arrangement<'a>> {
        let text = |piece: Option<(&'a str, NodeId)>| piece.and_then(|(_, v)| self.doc.text(v)).unwrap_or_default();
        let stemless = group.stem.is_empty();
        let registry = group.at(Key::Registry);
        let (repository, image, name) = (group.at(Key::Repository), group.at(Key::Image), group.at(Key::Name));
        let (tag, version, digest) = (group.at(Key::Tag), group.at(Key::Version), group.at(Key::Digest));
        let prefix = group.at(Key::Prefix).or_else(|| group.at(Key::Hub));
        let tagged = tag.is_some() || digest.is_some();
        let bare = |text: &str| !text.is_empty() && !text.contains(['/', ':', '@']);

        let (path, tag) = if let (Some(prefix), Some(name)) = (group.at(Key::Prefix), group.at(Key::ImageName)) {
            (vec![prefix, name], tag.or(version))
        } else if let (Some(repository), Some(image)) = (repository, image)
            && bare(text(Some(image)))
            && (tagged || version.is_some())
        {
            (registry.into_iter().chain([repository, image]).collect(), tag.or(version))
        } else if let (Some(repository), Some(name), Some(_), true) = (repository, name, registry, tagged)
            && bare(text(Some(name)))
            && !text(Some(repository)).ends_with(text(Some(name)))
            && !text(Some(repository)).is_empty()
        {
            (registry.into_iter().chain([repository, name]).collect(), tag)
        } else if let Some(repository) = repository
            && (tagged || image_key || (stemless && registry.is_some()))
        {
            (registry.into_iter().chain([repository]).collect(), tag.or(version.filter(|_| image_key)))
        } else if let Some(image) = image
            && (tagged || registry.is_some() || (self.globals.complete() && stemless && bare(text(Some(image)))))
            && !(pinned(text(Some(image))) && registry.is_none())
        {
            let hub = prefix.filter(|_| bare(text(Some(image))));
            (registry.or(hub).into_iter().chain([image]).collect(), tag)
        } else if let Some(name) = group.at(Key::ImageName)
            && tagged
            && !pinned(text(Some(name)))
        {
            (registry.into_iter().chain([name]).collect(), tag)
        } else if let (Some(name), true) = (name, image_key && (tagged || version.is_some())) {
            (registry.into_iter().chain([name]).collect(), tag.or(version))
        } else {
            return None;
        };
        Some(Arrangement { path, tag, digest })
    }

    fn compose(&mut self, group: &Group<'a>, plan: &Arrangement<'a>) {
        let doc = self.doc;
        let here = self.here();
        let path = if group.stem.is_empty() { here } else { format!("{here}[{}]", group.stem) };
        let mut parts: Vec<Part> = Vec::new();
        for (key, value) in &plan.path {
            if doc.text(*value).is_some_and(|t| !t.is_empty()) {
                parts.push(self.part(Role::Segment, *value, self.path_of(key)));
            }
        }
        let Some((last_key, last)) = plan.path.last().copied() else { return };
        let mut last_text = doc.text(last).unwrap_or_default();
        let mut assumed = Assumed::default();
        let (tag, digest) = (plan.tag.map(|t| (t, doc.text(t.1).unwrap_or_default())), plan.digest);
        let tag_text = tag.map_or("", |(_, text)| text);
        if [last_text, tag_text].iter().any(|t| t.contains("://")) {
            return;
        }
        let shape = if plan.path.len() > 1 { Shape::SplitRegistry } else { Shape::Split };
        let written = join(&parts, tag_text, "");
        if last_text.is_empty()
            && let Some((node, global)) = &self.globals.repository
        {
            parts.push(self.part(Role::Segment, *node, global.clone()));
            last_text = doc.text(*node).unwrap_or_default();
            assumed
                .add(false, format!("`{last_key}` is empty: `{global}` is meant then, if the templates do as most do"));
        }
        if last_text.is_empty() {
            let reason = format!("`{last_key}` is empty: it falls back to something outside this text");
            return self.unresolvable(last, path, &written, shape, reason);
        }
        if let Some(text) =
            parts.iter().map(|p| p.current.as_str()).chain([tag_text]).find(|t| t.contains("{{") || t.contains('$'))
        {
            let reason = format!("`{text}` is filled in elsewhere");
            return self.unresolvable(last, path, &written, shape, reason);
        }
        self.add_global(plan, group, &mut parts);
        if parts.len() > 1
            && let Some(first) = parts.first_mut()
            && !plan.path.first().is_some_and(|(name, _)| key(name).is_some_and(|(_, k)| k == Key::Repository))
        {
            // a registry holds a host, maybe with a path; a hub or prefix holds all but the last segment
            let registry = plan.path.first().is_none_or(|(name, _)| key(name).is_some_and(|(_, k)| k == Key::Registry))
                || first.path.starts_with("$.global") && !first.path.ends_with(".hub");
            first.role = if registry { Role::Registry } else { Role::Segment };
        }
        let mut tag_text = tag_text.to_owned();
        if !tag_text.is_empty()
            && let Some(((key, value), _)) = tag
        {
            parts.push(self.part(Role::Tag, value, self.path_of(key)));
        } else if let (Some((node, global)), true) = (&self.globals.tag, self.istio(plan)) {
            tag_text = doc.scalar(*node).unwrap_or_default().to_owned();
            parts.push(self.part(Role::Tag, *node, global.clone()));
        }
        let mut digest_text = "";
        if let Some((key, value)) = digest
            && let Some(text) = doc.text(value).filter(|t| t.contains(':'))
        {
            digest_text = text;
            parts.push(self.part(Role::Digest, value, self.path_of(key)));
        }
        if tag_text.is_empty() && digest_text.is_empty() && !pinned(last_text) {
            self.assume_tag(tag.map_or("tag", |((key, _), _)| key), &mut parts, &mut tag_text, &mut assumed);
        }
        let value = join(&parts, &tag_text, digest_text);
        if tag_text.is_empty() && digest_text.is_empty() && !pinned(last_text) {
            let reason = match plan.tag {
                Some((key, _)) => {
                    format!("`{key}` is empty: the chart's own version is meant, which this text does not say")
                }
                None => {
                    "no tag stands beside it: the chart's default is meant, which this text does not say".to_owned()
                }
            };
            return self.unresolvable(last, path, &value, shape, reason);
        }
        let Some((reference, _, _)) = words::parse(&value) else {
            let reason = format!("the pieces make `{value}`, which is not a reference");
            return self.unresolvable(last, path, &value, shape, reason);
        };
        let line = parts.first().map_or_else(|| self.line(last), |part| doc.nodes[part.node].line);
        let shape = if parts.iter().filter(|p| matches!(p.role, Role::Registry | Role::Segment)).count() > 1 {
            Shape::SplitRegistry
        } else {
            Shape::Split
        };
        self.report(Finding {
            line,
            path,
            value,
            reference: Some(reference),
            shape,
            confidence: assumed.confidence(),
            reason: assumed.reason,
            parts,
            document: self.document,
            site: last,
        });
    }

    /// The tag that stands elsewhere: in `global`, or in what the chart says of itself.
    fn assume_tag(&self, key: &str, parts: &mut Vec<Part>, tag: &mut String, assumed: &mut Assumed) {
        if let Some((node, global)) = &self.globals.image_tag {
            self.doc.scalar(*node).unwrap_or_default().clone_into(tag);
            parts.push(self.part(Role::Tag, *node, global.clone()));
            assumed.add(false, format!("`{key}` is empty: `{global}` is meant then, if the templates do as most do"));
            return;
        }
        let path = self.path_of(key);
        let Some(default) = self.chart.and_then(|chart| chart.tag(&path)) else { return };
        let why = if default.sure { "the templates take it" } else { "if the templates do as most do" };
        assumed.add(default.sure, format!("`{key}` is empty: appVersion of {}, {why}", default.place));
        tag.clone_from(&default.tag);
        parts.push(Part {
            role: Role::Tag,
            node: NOWHERE,
            site: NOWHERE,
            path,
            range: None,
            inner: Inner::Literal,
            current: default.tag,
            elsewhere: Some(default.place),
        });
    }

    /// A registry that all images of the chart share, where the mapping itself names none.
    fn add_global(&self, plan: &Arrangement<'a>, group: &Group<'a>, parts: &mut Vec<Part>) {
        let hosted = parts.first().is_some_and(|part| {
            part.current.split_once('/').is_some_and(|(host, _)| host.contains(['.', ':']) || host == "localhost")
        });
        let own = parts.len() == plan.path.len() && plan.path.len() > 1;
        if hosted || own || !group.stem.is_empty() {
            return;
        }
        let global = match (&self.globals.registry, &self.globals.hub) {
            (Some(registry), _) => registry,
            (None, Some(hub)) if self.istio(plan) => hub,
            _ => return,
        };
        parts.insert(0, self.part(Role::Registry, global.0, global.1.clone()));
    }

    /// `hub`, `tag` and a bare `image`: the first two may stand in `global`.
    fn istio(&self, plan: &Arrangement<'a>) -> bool {
        self.globals.hub.is_some()
            && plan.path.last().is_some_and(|(key, value)| {
                *key == "image" && self.doc.text(*value).is_some_and(|t| !t.contains(['/', ':']))
            })
    }
}

/// What was filled in because the usual templates would.
#[derive(Debug, Default)]
struct Assumed {
    reason: Option<String>,
    unsure: bool,
}

impl Assumed {
    fn add(&mut self, sure: bool, why: String) {
        self.unsure |= !sure;
        self.reason = Some(self.reason.take().map_or(why.clone(), |before| format!("{before}; {why}")));
    }

    fn confidence(&self) -> Confidence {
        if self.unsure { Confidence::Computed } else { Confidence::Certain }
    }
}

/// Keys and values, in the order in which they make up the reference.
struct Arrangement<'a> {
    path: Vec<(&'a str, NodeId)>,
    tag: Option<(&'a str, NodeId)>,
    digest: Option<(&'a str, NodeId)>,
}

impl Arrangement<'_> {
    fn used(&self) -> impl Iterator<Item = NodeId> {
        self.path.iter().chain(self.tag.iter()).chain(self.digest.iter()).map(|(_, value)| *value)
    }
}

/// Whether a tag or digest stands in it.
fn pinned(text: &str) -> bool {
    text.contains('@') || text.rsplit('/').next().is_some_and(|last| last.contains(':'))
}

/// The pieces of a name as one text.
fn join(parts: &[Part], tag: &str, digest: &str) -> String {
    let names: Vec<&str> = parts
        .iter()
        .filter(|p| matches!(p.role, Role::Registry | Role::Segment))
        .map(|p| p.current.trim_end_matches('/'))
        .collect();
    let mut text = names.join("/");
    if !tag.is_empty() {
        text.push(':');
        text.push_str(tag);
    }
    if !digest.is_empty() {
        text.push('@');
        text.push_str(digest);
    }
    text
}
