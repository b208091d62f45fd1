//! From the document as written to checked types, gathering every problem on the way.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use ferry_image::reference::{DOCKER_HUB, is_host};
use ferry_image::{Form, Ignore, Layout, Reference, SetRule, Target, TargetName};
use serde_saphyr::Spanned;

use super::raw::{Document, Entries, Field, IgnoreItem, ImageItem, Item, OneOrMany, Set};
use super::{ArchiveSource, BundleManifest, Carried, Image, Layers, MAX_BYTES, MAX_IMAGES, Platforms, Problem, What};

/// Reads `text`; relative paths are taken from the folder of `path`.
pub(super) fn manifest(text: &str, path: &Path) -> Result<BundleManifest, Vec<Problem>> {
    if text.len() > MAX_BYTES {
        return Err(vec![Problem { line: 0, what: What::TooLarge { bytes: text.len(), limit: MAX_BYTES } }]);
    }
    let document = document(text).map_err(|problem| vec![problem])?;
    let mut check = Check { folder: path.parent().unwrap_or(Path::new("")), problems: Vec::new() };
    let manifest = check.document(document);
    let mut problems = check.problems;
    problems.sort_by_key(|p| p.line);
    match manifest {
        Some(manifest) if problems.is_empty() => Ok(manifest),
        _ => Err(problems),
    }
}

fn document(text: &str) -> Result<Document, Problem> {
    let options = serde_saphyr::options! { with_snippet: false, strict_booleans: true };
    serde_saphyr::from_str_with_options(text, options).map_err(|error| {
        let line = error.location().map_or(0, |l| usize::try_from(l.line()).unwrap_or(0));
        Problem { line, what: What::Yaml(words(&error)) }
    })
}

/// The parser's own words without the position, which is said once in front.
fn words(error: &serde_saphyr::Error) -> String {
    let text = error.without_snippet().to_string();
    let text = text.lines().next().unwrap_or_default();
    match text.find(" at line ") {
        Some(at) => text[..at].to_owned(),
        None => text.to_owned(),
    }
}

/// A text and the line it stands at.
type Text = (String, usize);

struct Check<'a> {
    folder: &'a Path,
    problems: Vec<Problem>,
}

impl Check<'_> {
    fn document(&mut self, d: Document) -> Option<BundleManifest> {
        self.unknown(d.unknown, "", Document::KEYS);
        let name = self.required(d.name, "name", "", 0).and_then(|text| self.label("name", text));
        let version = text(d.version).and_then(|text| self.label("version", text));
        let platforms = self.platforms(d.platforms);
        let layout = self.layout(text(d.layout));
        let layers = self.layers(text(d.layers));
        let mirrors = self.mirrors(d.mirrors);
        let images = self.images(d.images);
        self.collisions(&images, layout);
        let set = self.set_rules(d.set, &images);
        Some(BundleManifest {
            name: name?,
            version,
            platforms,
            layout,
            layers,
            mirrors,
            images,
            yaml: self.carried(d.yaml, "yaml"),
            set,
            ignore: self.ignores(d.ignore),
            files: self.carried(d.files, "files"),
        })
    }

    fn add(&mut self, line: usize, what: impl Into<What>) {
        self.problems.push(Problem { line, what: what.into() });
    }

    fn bad(&mut self, line: usize, key: &'static str, value: &str, why: impl Into<String>) {
        let value = value.chars().take(200).collect();
        self.add(line, What::BadValue { key, value, why: why.into() });
    }

    fn unknown(&mut self, keys: Vec<Spanned<String>>, place: &'static str, known: &'static [&'static str]) {
        for key in keys {
            self.add(line(&key), What::UnknownKey { key: key.value, place, known });
        }
    }

    fn required(&mut self, field: Field<String>, key: &'static str, place: &'static str, at: usize) -> Option<Text> {
        let found = text(field);
        if found.is_none() {
            self.add(at, What::MissingKey { key, place });
        }
        found
    }

    /// A name or version: it stands in file names, signature comments and `--expect NAME@VERSION`.
    fn label(&mut self, key: &'static str, (text, line): Text) -> Option<String> {
        let word = |b: u8| b.is_ascii_alphanumeric() || b"._+-".contains(&b);
        let fine = text.len() <= 128
            && text.bytes().all(word)
            && text.as_bytes().first().is_some_and(u8::is_ascii_alphanumeric);
        if !fine {
            self.bad(
                line,
                key,
                &text,
                "may hold letters, digits, `.`, `_`, `+` and `-` only, at most 128, a letter or digit first",
            );
        }
        fine.then_some(text)
    }

    fn parsed<T: std::str::FromStr<Err = ferry_image::Error>>(&mut self, (text, line): &Text) -> Option<T> {
        text.parse().map_err(|error| self.add(*line, What::Value(error))).ok()
    }

    fn platforms(&mut self, field: Field<OneOrMany>) -> Option<Platforms> {
        let at = field_line(&field);
        let texts = texts(field)?;
        let line = texts.first().map_or(at, |(_, line)| *line);
        let texts: Vec<String> = texts.into_iter().map(|(text, _)| text).collect();
        Platforms::try_from(texts).map_err(|error| self.add(line, error)).ok()
    }

    fn layout(&mut self, found: Option<Text>) -> Layout {
        match found.as_ref().map(|(text, line)| (text.as_str(), *line)) {
            None | Some(("path", _)) => Layout::Path,
            Some(("host", _)) => Layout::Host,
            Some(("flat", _)) => Layout::Flat,
            Some((other, line)) => {
                self.bad(line, "layout", other, "is none of path, host, flat");
                Layout::Path
            }
        }
    }

    fn layers(&mut self, found: Option<Text>) -> Layers {
        match found.as_ref().map(|(text, line)| (text.as_str(), *line)) {
            None | Some(("gzip", _)) => Layers::Gzip,
            Some(("zstd", _)) => Layers::Zstd,
            Some(("verbatim", _)) => Layers::Verbatim,
            Some((other, line)) => {
                self.bad(line, "layers", other, "is none of gzip, zstd, verbatim");
                Layers::Gzip
            }
        }
    }

    fn mirrors(&mut self, field: Field<Entries<OneOrMany>>) -> BTreeMap<String, Vec<Target>> {
        let mut mirrors = BTreeMap::new();
        for (host, places) in value(field).map(|e| e.0).unwrap_or_default() {
            let at = line(&host);
            let host = match host.value.as_str() {
                "index.docker.io" | "registry-1.docker.io" => DOCKER_HUB.to_owned(),
                _ => host.value,
            };
            if !is_host(&host) {
                self.bad(
                    at,
                    "mirrors",
                    &host,
                    "is not a host: write `HOST[:PORT]`, and the mirror's path on the right",
                );
            }
            let below = line(&places);
            let places: Vec<Target> =
                spread(places.value, below).iter().filter_map(|place| self.parsed(place)).collect();
            if mirrors.insert(host.clone(), places).is_some() {
                self.add(at, What::Twice { what: "the host", value: host, first: at });
            }
        }
        mirrors
    }

    fn images(&mut self, field: Field<Vec<Spanned<Item>>>) -> Vec<Image> {
        let at = field_line(&field);
        let Some(items) = value(field) else {
            self.add(at, What::MissingKey { key: "images", place: "" });
            return Vec::new();
        };
        if items.is_empty() {
            self.add(at, What::Empty);
        }
        if items.len() > MAX_IMAGES {
            self.add(at, What::TooMany { count: items.len(), limit: MAX_IMAGES });
            return Vec::new();
        }
        let mut images: Vec<Image> = Vec::with_capacity(items.len());
        let mut seen: HashMap<Reference, usize> = HashMap::new();
        for item in items {
            let at = line(&item);
            let image = match item.value {
                Item::Reference(text) => self.parsed(&(text, at)).map(|reference| Image::new(reference, at)),
                Item::Image(image) => self.image(*image, at),
            };
            let Some(image) = image else { continue };
            match seen.get(&image.reference) {
                Some(first) => {
                    let value = image.reference.to_string();
                    self.add(at, What::Twice { what: "the image", value, first: *first });
                }
                None => {
                    seen.insert(image.reference.clone(), at);
                    images.push(image);
                }
            }
        }
        images
    }

    fn image(&mut self, item: ImageItem, at: usize) -> Option<Image> {
        self.unknown(item.unknown, "an entry of `images:`", ImageItem::KEYS);
        let reference = self.required(item.image, "image", "an entry of `images:`", at);
        let reference: Option<Reference> = reference.and_then(|text| self.parsed(&text));
        let target: Option<TargetName> = text(item.target).and_then(|text| self.parsed(&text));
        let platforms = self.platforms(item.platforms);
        let optional = value(item.optional).unwrap_or(false);
        let archive_image = text(item.archive_image);
        let archive = text(item.archive);
        let from_line = field_line(&item.from);
        let from = texts(item.from).unwrap_or_default();
        if archive.is_some() && !from.is_empty() {
            self.add(from_line, What::Together { one: "archive", why: "does not go with", other: "from" });
        }
        if let (None, Some((_, line))) = (&archive, &archive_image) {
            self.add(*line, What::Together { one: "archiveImage", why: "needs", other: "archive" });
        }
        let archive = archive.and_then(|text| self.archive(text, archive_image));
        let reference = reference?;
        let from = from.iter().filter_map(|text| self.from(text, &reference)).collect();
        Some(Image { reference, from, archive, target, optional, platforms, line: at })
    }

    fn archive(&mut self, (written, line): Text, image: Option<Text>) -> Option<ArchiveSource> {
        if written.is_empty() || written.contains("://") {
            self.bad(line, "archive", &written, "is not a path to a docker-save tar or an OCI layout");
            return None;
        }
        let path = self.folder.join(&written);
        Some(ArchiveSource { written, path, image: image.map(|(text, _)| text) })
    }

    /// A fallback takes from the image what it leaves out: the tag, and always the digest, for it must be the same content.
    fn from(&mut self, text: &Text, image: &Reference) -> Option<Reference> {
        let from: Reference = self.parsed(text)?;
        let complete = match (image.digest(), from.digest()) {
            (Some(wanted), Some(other)) if wanted != other => {
                self.bad(text.1, "from", &text.0, format!("is pinned to another digest than `{image}`"));
                return None;
            }
            (None, Some(_)) => Ok(from),
            (None, None) if from.has_written_tag() => Ok(from),
            _ => image.at(from.host(), from.path()),
        };
        complete.map_err(|error| self.add(text.1, error)).ok()
    }

    /// Names given with `as:` are checked here, against every other image. What only the layout makes equal may be the same
    /// content, and is checked by digest when the bundle is planned.
    fn collisions(&mut self, images: &[Image], layout: Layout) {
        let mut seen: HashMap<TargetName, &Image> = HashMap::new();
        for image in images {
            let name = TargetName::place(&image.reference, image.target.as_ref(), layout);
            if name.tag.is_none() {
                continue;
            }
            let Some(first) = seen.insert(name.clone(), image) else { continue };
            if first.target.is_some() || image.target.is_some() {
                let (first_line, first) = (first.line, first.reference.to_string());
                let second = image.reference.to_string();
                self.add(image.line, What::Collision { name: name.to_string(), first, first_line, second });
            }
        }
    }

    fn set_rules(&mut self, field: Field<Vec<Spanned<Set>>>, images: &[Image]) -> Vec<SetRule> {
        let rules = value(field).unwrap_or_default();
        rules
            .into_iter()
            .filter_map(|rule| {
                let at = line(&rule);
                self.set_rule(rule.value, at, images)
            })
            .collect()
    }

    fn set_rule(&mut self, rule: Set, at: usize, images: &[Image]) -> Option<SetRule> {
        const PLACE: &str = "an entry of `set:`";
        self.unknown(rule.unknown, PLACE, Set::KEYS);
        let paths = match (text(rule.path), texts(rule.paths)) {
            (Some((_, line)), Some(_)) => {
                self.add(line, What::Together { one: "path", why: "does not go with", other: "paths" });
                Vec::new()
            }
            (Some(one), None) => vec![one],
            (None, Some(many)) if !many.is_empty() => many,
            (None, _) => {
                self.add(at, What::MissingKey { key: "path", place: PLACE });
                Vec::new()
            }
        };
        for (path, line) in &paths {
            if let Err(why) = check_path(path) {
                self.bad(*line, "path", path, why);
            }
        }
        let form = self.form(text(rule.form));
        let image = self.required(rule.image, "image", PLACE, at)?;
        let image_line = image.1;
        let image: Reference = self.parsed(&image)?;
        if !images.iter().any(|i| i.reference == image) {
            self.add(image_line, What::NotListed { image: image.to_string() });
        }
        Some(SetRule {
            file: text(rule.file).map(|(text, _)| text),
            kind: text(rule.kind).map(|(text, _)| text),
            paths: paths.into_iter().map(|(path, _)| path).collect(),
            form,
            image,
        })
    }

    fn form(&mut self, found: Option<Text>) -> Form {
        let Some((text, line)) = found else { return Form::default() };
        match text.as_str() {
            "whole" => Form::Whole,
            "image+imageTag" => Form::ImageTag,
            "image+tag" => Form::Tag,
            "repository+tag" => Form::RepositoryTag,
            "registry+repository+tag" => Form::RegistryRepositoryTag,
            other => {
                let why = "is none of whole, image+imageTag, image+tag, repository+tag, registry+repository+tag";
                self.bad(line, "form", other, why);
                Form::default()
            }
        }
    }

    fn ignores(&mut self, field: Field<Vec<Spanned<IgnoreItem>>>) -> Vec<Ignore> {
        const PLACE: &str = "an entry of `ignore:`";
        let mut ignores = Vec::new();
        for item in value(field).unwrap_or_default() {
            let at = line(&item);
            self.unknown(item.value.unknown, PLACE, IgnoreItem::KEYS);
            let image = self.required(item.value.image, "image", PLACE, at);
            let reason = self.required(item.value.reason, "reason", PLACE, at);
            let (Some((image, line)), Some((reason, _))) = (image, reason) else { continue };
            if !image.contains('*') {
                self.parsed::<Reference>(&(image.clone(), line));
            }
            ignores.push(Ignore { image, reason });
        }
        ignores
    }

    fn carried(&mut self, field: Field<OneOrMany>, key: &'static str) -> Vec<Carried> {
        let mut carried: Vec<Carried> = Vec::new();
        for (text, line) in texts(field).unwrap_or_default() {
            let Some(name) = member_name(&text) else {
                self.bad(
                    line,
                    key,
                    &text,
                    "is not a path that a bundle can hold (ASCII, no `\\`, no control characters)",
                );
                continue;
            };
            if let Some(first) = carried.iter().find(|c| c.name.eq_ignore_ascii_case(&name)) {
                let first = first.line;
                self.add(line, What::Twice { what: "the name", value: name, first });
                continue;
            }
            carried.push(Carried { path: self.folder.join(&text), name, line });
        }
        carried
    }
}

/// The name below `yaml/` or `files/`: the path as written where it stays in the manifest's folder, else its last segment.
fn member_name(text: &str) -> Option<String> {
    if text.is_empty() || !text.bytes().all(|b| (b' '..=b'~').contains(&b) && b != b'\\') {
        return None;
    }
    let segments: Vec<&str> = text.split('/').filter(|s| !matches!(*s, "" | ".")).collect();
    let last = *segments.last().filter(|s| **s != "..")?;
    let outside = text.starts_with('/') || segments.contains(&"..");
    Some(if outside { last.to_owned() } else { segments.join("/") })
}

/// Keys joined by `.`, a key with a dot in double quotes.
fn check_path(path: &str) -> Result<(), &'static str> {
    let mut rest = path;
    loop {
        let after = match rest.strip_prefix('"') {
            Some(quoted) => {
                let end = quoted.find('"').ok_or("has a `\"` without its second")?;
                if end == 0 {
                    return Err("has an empty key");
                }
                &quoted[end + 1..]
            }
            None => {
                let end = rest.find('.').unwrap_or(rest.len());
                if end == 0 {
                    return Err("has an empty key");
                }
                if rest[..end].contains('"') {
                    return Err("has a `\"` within a key");
                }
                &rest[end..]
            }
        };
        match after.strip_prefix('.') {
            Some(next) => rest = next,
            None if after.is_empty() => return Ok(()),
            None => return Err("needs a `.` after a quoted key"),
        }
    }
}

fn line<T>(spanned: &Spanned<T>) -> usize {
    usize::try_from(spanned.referenced.line()).unwrap_or(0)
}

fn field_line<T>(field: &Field<T>) -> usize {
    field.as_ref().map_or(0, line)
}

fn value<T>(field: Field<T>) -> Option<T> {
    field.and_then(|spanned| spanned.value)
}

fn text(field: Field<String>) -> Option<Text> {
    let at = field_line(&field);
    value(field).map(|text| (text, at))
}

fn texts(field: Field<OneOrMany>) -> Option<Vec<Text>> {
    let at = field_line(&field);
    value(field).map(|many| spread(many, at))
}

fn spread(many: OneOrMany, at: usize) -> Vec<Text> {
    many.0.into_iter().map(|one| (line(&one).max(at), one.value)).map(|(line, text)| (text, line)).collect()
}
