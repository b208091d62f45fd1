//! References in pieces: `registry`, `repository`, `tag`, `digest` and their many other names, side by side in a mapping.

use super::keys::{Key, key};
use super::{Scope, Walk};
use crate::finding::{Confidence, Finding, Inner, NOWHERE, Part, Role, Shape};
use crate::tree::{Kind, NodeId};
use crate::words::{self, Level};

/// The scalars of one mapping that may be pieces of one reference.
#[derive(Debug, Default)]
pub(super) struct Group<'a> {
    pub(super) stem: String,
    pub(super) pieces: Vec<(Key, &'a str, NodeId)>,
    /// Where pieces stand that are no entries of the mapping.
    pub(super) elsewhere: Vec<(NodeId, String)>,
    /// Why the program that reads it may choose another image.
    pub(super) computed: Option<&'static str>,
}

impl<'a> Group<'a> {
    pub(super) fn at(&self, key: Key) -> Option<(&'a str, NodeId)> {
        self.pieces.iter().find(|(k, _, _)| *k == key).map(|(_, name, value)| (*name, *value))
    }

    /// Puts a piece in the place of one that says nothing.
    fn put(&mut self, key: Key, name: &'a str, value: NodeId) {
        self.pieces.retain(|(k, _, _)| *k != key);
        self.pieces.push((key, name, value));
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
                None => groups.push(Group { stem, pieces: vec![(key, name, value)], ..Group::default() }),
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
        self.share(&mut groups);
        for group in groups {
            self.split(&group, id, scope);
        }
    }

    /// Lets groups take what is said beside them once for all: a default registry, a tag without a stem.
    fn share(&self, groups: &mut [Group<'a>]) {
        let said = |piece: Option<(&'a str, NodeId)>| {
            piece.filter(|(_, value)| self.doc.text(*value).is_some_and(|text| !text.is_empty()))
        };
        let find = |stem: &str, groups: &[Group<'a>], key: Key| {
            groups.iter().find(|g| g.stem == stem).and_then(|group| said(group.at(key)))
        };
        let default = find("default", groups, Key::Registry);
        let pin = |piece: Option<(&'a str, NodeId)>| {
            piece.and_then(|(_, value)| self.doc.text(value)).is_some_and(|text| is_digest(text) || is_hex(text))
        };
        let digests = groups.iter().any(|g| !g.stem.is_empty() && pin(g.at(Key::Digest)));
        let named = [Key::Repository, Key::Image, Key::ImageName];
        let alone = groups.iter().find(|g| g.stem.is_empty()).filter(|g| named.iter().all(|key| g.at(*key).is_none()));
        let tag = alone.and_then(|group| said(group.at(Key::Tag)));
        let registry = alone
            .and_then(|group| said(group.at(Key::Registry)))
            .filter(|(key, _)| !key.eq_ignore_ascii_case("registry"));
        for group in groups.iter_mut() {
            if group.stem.is_empty() {
                if let Some((name, value)) = default.filter(|_| said(group.at(Key::Registry)).is_none()) {
                    group.put(Key::Registry, name, value);
                }
                if digests && said(group.at(Key::Digest)).is_none() {
                    group.computed = Some("several digests stand beside it: which image is taken is decided elsewhere");
                }
                continue;
            }
            if named.iter().all(|key| said(group.at(*key)).is_none()) || group.stem == "default" {
                continue;
            }
            let own = [Key::Tag, Key::Digest].iter().any(|key| said(group.at(*key)).is_some());
            if let Some((name, value)) = tag.filter(|_| !own) {
                group.put(Key::Tag, name, value);
            }
            if let Some((name, value)) = registry.filter(|_| said(group.at(Key::Registry)).is_none()) {
                group.put(Key::Registry, name, value);
            }
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

    pub(super) fn split(&mut self, group: &Group<'a>, id: NodeId, scope: Scope<'a>) {
        let image_key = group.stem.is_empty() && (words::level(scope.key) >= Level::Strong || scope.images);
        let Some(plan) = self.arrange(group, image_key) else { return };
        // an alias's own scalar may be shared; only pieces that stand in this mapping are used up here
        let own = |value: &NodeId| {
            self.doc.entries(id).iter().any(|(_, v)| v == value) || group.elsewhere.iter().any(|(v, _)| v == value)
        };
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
        let (image, name) = (group.at(Key::Image), group.at(Key::Name));
        let repository = group.at(Key::Repository).filter(|piece| !words::is_source(text(Some(*piece))));
        let full = [repository, image, name, group.at(Key::ImageName)].iter().any(|piece| words::hosted(text(*piece)));
        // a name with a host of its own takes no other
        let host = group.at(Key::Host).filter(|piece| image_key && words::may_be_registry(text(Some(*piece))));
        let registry = group.at(Key::Registry).or(host).filter(|_| !full);
        let (tag, version, digest) = (group.at(Key::Tag), group.at(Key::Version), group.at(Key::Digest));
        let prefix = group.at(Key::Prefix).or_else(|| group.at(Key::Hub));
        let tagged = tag.is_some() || digest.is_some();
        let bare = |text: &str| !text.is_empty() && !text.contains(['/', ':', '@']);
        let mut computed = group.computed;
        if full && group.at(Key::Registry).is_some_and(|piece| words::may_be_registry(text(Some(piece)))) {
            computed = Some("a registry stands beside a name that has one: which of them counts is decided elsewhere");
        }

        let (path, tag) = if let (Some(prefix), Some(name)) = (group.at(Key::Prefix), group.at(Key::ImageName)) {
            (vec![prefix, name], tag.or(version))
        } else if let (Some(repository), Some(image)) = (repository, image)
            && bare(text(Some(image)))
            && (tagged || version.is_some() || text(Some(repository)).contains(['.', '/']))
        {
            // such a repository holds the host itself
            let registry = group.at(Key::Registry);
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
        } else if let (Some(image), Some(version)) = (image, version.filter(|v| !text(Some(*v)).is_empty()))
            && text(Some(image)).contains('/')
            && !pinned(text(Some(image)))
        {
            computed = (!image_key).then_some("`version` stands beside it and may be its tag");
            (vec![image], Some(version))
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
        Some(Arrangement { path, tag, digest, computed })
    }

    /// The path of a piece.
    fn piece(&self, group: &Group<'a>, key: &str, value: NodeId) -> String {
        let elsewhere = group.elsewhere.iter().find(|(v, _)| *v == value);
        elsewhere.map_or_else(|| self.path_of(key), |(_, path)| path.clone())
    }

    fn compose(&mut self, group: &Group<'a>, plan: &Arrangement<'a>) {
        let doc = self.doc;
        let here = self.here();
        let path = if group.stem.is_empty() { here } else { format!("{here}[{}]", group.stem) };
        let mut parts: Vec<Part> = Vec::new();
        for (key, value) in &plan.path {
            // an empty registry is one to be filled, unless another stands for it
            let fills = plan.path.len() > 1 && key.eq_ignore_ascii_case("registry") && self.globals.registry.is_none();
            if doc.text(*value).is_some_and(|t| !t.is_empty() || fills) {
                parts.push(self.part(Role::Segment, *value, self.piece(group, key, *value)));
            }
        }
        let Some((last_key, last)) = plan.path.last().copied() else { return };
        let mut last_text = doc.text(last).unwrap_or_default();
        let mut assumed = Assumed::default();
        if let Some(why) = plan.computed {
            assumed.add(false, why.to_owned());
        }
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
        if let (Some(own), Some((node, global))) = (parts.first().filter(|_| parts.len() > 1), &self.globals.registry)
            && words::may_be_registry(&own.current)
            && doc.scalar(*node).is_some_and(|global| global != own.current)
        {
            assumed.add(false, format!("`{global}` is another registry, which many charts take before it"));
        }
        if self.add_global(plan, group, &mut parts) {
            // its role is known
        } else if parts.len() > 1
            && let Some(first) = parts.first_mut()
            && !plan.path.first().is_some_and(|(name, _)| key(name).is_some_and(|(_, k)| k == Key::Repository))
        {
            // a registry holds a host, maybe with a path; a hub or prefix holds all but the last segment
            let is_registry = |k: Key| matches!(k, Key::Registry | Key::Host);
            let registry = plan.path.first().is_none_or(|(name, _)| key(name).is_some_and(|(_, k)| is_registry(k)));
            first.role = if registry { Role::Registry } else { Role::Segment };
        }
        let mut tag_text = tag_text.to_owned();
        if !tag_text.is_empty()
            && let Some(((key, value), _)) = tag
        {
            let role = if is_digest(&tag_text) { Role::Digest } else { Role::Tag };
            parts.push(self.part(role, value, self.piece(group, key, value)));
        } else if let (Some((node, global)), true) = (&self.globals.tag, self.istio(plan)) {
            tag_text = doc.scalar(*node).unwrap_or_default().to_owned();
            parts.push(self.part(Role::Tag, *node, global.clone()));
        }
        let mut digest_text = String::new();
        if is_digest(&tag_text) {
            digest_text = std::mem::take(&mut tag_text);
        } else if let Some((key, value)) = digest
            && let Some(text) = doc.text(value).filter(|t| is_digest(t) || is_hex(t))
        {
            digest_text = if is_hex(text) { format!("sha256:{text}") } else { text.to_owned() };
            parts.push(self.part(Role::Digest, value, self.piece(group, key, value)));
        }
        if tag_text.is_empty() && digest_text.is_empty() && !pinned(last_text) {
            self.assume_tag(tag.map_or("tag", |((key, _), _)| key), &mut parts, &mut tag_text, &mut assumed);
        }
        let value = join(&parts, &tag_text, &digest_text);
        if let [only] = names(&parts).as_slice()
            && !only.contains('/')
            && only.contains(['.', ':'])
            && !pinned_by_digest(only)
        {
            let reason = format!("`{only}` is a registry: which of its images is meant is decided elsewhere");
            return self.unresolvable(last, path, &value, shape, reason);
        }
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
        let line = parts
            .iter()
            .find(|part| !part.current.is_empty())
            .map_or_else(|| self.line(last), |part| doc.nodes[part.node].line);
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

    /// A registry that all images of the chart share, where the mapping itself names none; true when it was added.
    fn add_global(&self, plan: &Arrangement<'a>, group: &Group<'a>, parts: &mut Vec<Part>) -> bool {
        let hosted = parts.first().is_some_and(|part| words::hosted(&part.current));
        let own = parts.len() == plan.path.len() && plan.path.len() > 1;
        if hosted || own || !group.stem.is_empty() {
            return false;
        }
        let ((node, path), role) = match (&self.globals.registry, &self.globals.hub) {
            (Some(registry), _) => (registry, Role::Registry),
            (None, Some(hub)) if self.istio(plan) => (hub, Role::Segment),
            _ => return false,
        };
        parts.insert(0, self.part(role, *node, path.clone()));
        true
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
    computed: Option<&'static str>,
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

fn pinned_by_digest(text: &str) -> bool {
    text.contains('@')
}

fn is_digest(text: &str) -> bool {
    text.split_once(':').is_some_and(|(algorithm, hex)| algorithm == "sha512" || (algorithm == "sha256" && is_hex(hex)))
}

/// A sha256 without its name, as some charts want it.
fn is_hex(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|b| b.is_ascii_hexdigit())
}

fn names(parts: &[Part]) -> Vec<&str> {
    parts
        .iter()
        .filter(|p| matches!(p.role, Role::Registry | Role::Segment) && !p.current.is_empty())
        .map(|p| p.current.trim_end_matches('/'))
        .collect()
}

/// The pieces of a name as one text.
fn join(parts: &[Part], tag: &str, digest: &str) -> String {
    let mut text = names(parts).join("/");
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
