//! From the document as written to checked types, gathering every problem on the way. Here: the document and its simple keys.

mod images;
mod rules;
mod signatures;

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use ferry_image::reference::{DOCKER_HUB, is_docker_hub, is_host};
use ferry_image::{Layout, Platform, Target};
use serde_saphyr::Spanned;

use super::raw::{Document, Entries, Field, OneOrMany};
use super::{BundleManifest, Carried, Layers, MAX_BYTES, Platforms, Problem, What};

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
        Problem { line, what: What::Yaml(yaml_words(&error)) }
    })
}

/// What is wrong in a user's words; the parser's own where there are no better ones. The position is left out: it is said once,
/// in front.
#[must_use]
pub fn yaml_words(error: &serde_saphyr::Error) -> String {
    use serde_saphyr::Error as E;
    match error.without_snippet() {
        E::Unexpected { expected: "sequence start", .. } => "a list is expected here".to_owned(),
        E::Unexpected { expected: "mapping start", .. } => "a mapping (`key: value`) is expected here".to_owned(),
        E::Unexpected { expected: "string scalar", .. } => "a text is expected here".to_owned(),
        E::InvalidBooleanStrict { .. } => "`true` or `false` is expected here".to_owned(),
        E::InvalidScalar { ty: "boolean", .. } => "`true` or `false` is expected here".to_owned(),
        E::InvalidScalar { ty: "u64", .. } => "a whole number is expected here".to_owned(),
        E::NullIntoString { .. } => "a text is expected here, and there is nothing".to_owned(),
        E::DuplicateMappingKey { key: Some(key), .. } => format!("the key `{key}` is there twice"),
        E::SerdeUnknownField { field, expected, .. } => {
            format!("unknown key `{field}`; known here: {}", expected.join(", "))
        }
        E::SerdeMissingField { field, .. } => format!("`{field}:` is missing"),
        E::MultipleDocuments { .. } => "a second document begins here; there may be only one".to_owned(),
        E::SerdeInvalidType { unexpected, expected, .. } => format!("{expected} is expected here, not {unexpected}"),
        other => {
            let text = other.render_with_formatter(&serde_saphyr::UserMessageFormatter);
            let text = text.lines().next().unwrap_or_default();
            text.find(" at line ").map_or(text, |at| &text[..at]).to_owned()
        }
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
        let referrers = self.referrers(d.referrers).unwrap_or_default();
        let images = self.images(d.images);
        self.collisions(&images, layout);
        let verify = self.verify(d.verify, &images);
        let set = self.set_rules(d.set, &images);
        Some(BundleManifest {
            name: name?,
            version,
            platforms,
            layout,
            layers,
            mirrors,
            referrers,
            verify,
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
        if let Some((all, line)) = texts.iter().find(|(text, _)| text == "all") {
            if texts.len() > 1 {
                self.add(*line, ferry_image::Error::Platform { text: all.clone(), why: "it stands alone" });
            }
            return Some(Platforms::All);
        }
        if texts.is_empty() {
            self.bad(at, "platforms", "[]", "names none; leave the key out, or write `all`");
        }
        let mut these: Vec<Platform> = Vec::new();
        let mut seen: HashMap<Platform, usize> = HashMap::new();
        for text in &texts {
            let Some(platform) = self.parsed::<Platform>(text) else { continue };
            match seen.get(&platform) {
                Some(first) => {
                    let value = platform.to_string();
                    self.add(text.1, What::Twice { what: "the platform", value, first: *first });
                }
                None => {
                    seen.insert(platform.clone(), text.1);
                    these.push(platform);
                }
            }
        }
        Some(Platforms::These(these))
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
        let mut mirrors: BTreeMap<String, Vec<Target>> = BTreeMap::new();
        let mut seen: HashMap<String, usize> = HashMap::new();
        for (host, places) in value(field).map(|entries| entries.0).unwrap_or_default() {
            let at = line(&host);
            let host = if is_docker_hub(&host.value) { DOCKER_HUB.to_owned() } else { host.value };
            if !is_host(&host) {
                self.bad(
                    at,
                    "mirrors",
                    &host,
                    "is not a host: write `HOST[:PORT]`, and the mirror's path on the right",
                );
            }
            if let Some(first) = seen.insert(host.clone(), at) {
                self.add(at, What::Twice { what: "the host", value: host.clone(), first });
            }
            let below = line(&places);
            let places = spread(places.value, below);
            mirrors.insert(host, places.iter().filter_map(|place| self.parsed(place)).collect());
        }
        mirrors
    }

    fn carried(&mut self, field: Field<OneOrMany>, key: &'static str) -> Vec<Carried> {
        let mut carried: Vec<Carried> = Vec::new();
        let mut seen: HashMap<String, usize> = HashMap::new();
        for (text, line) in texts(field).unwrap_or_default() {
            let Some(name) = member_name(&text) else {
                self.bad(line, key, &text, "names no file or folder");
                continue;
            };
            if let Err(why) = ferry_archive::member::check_name(&format!("{key}/{name}")) {
                self.bad(line, key, &text, format!("cannot stand in a bundle: {why}"));
                continue;
            }
            match seen.get(&name.to_ascii_lowercase()) {
                Some(first) => self.add(line, What::Twice { what: "the name", value: name, first: *first }),
                None => {
                    seen.insert(name.to_ascii_lowercase(), line);
                    carried.push(Carried { path: self.folder.join(&text), name, line });
                }
            }
        }
        carried
    }
}

/// The name below `yaml/` or `files/`: the path as written where it stays in the manifest's folder, else its last segment.
fn member_name(text: &str) -> Option<String> {
    let segments: Vec<&str> = text.split('/').filter(|s| !matches!(*s, "" | ".")).collect();
    let last = *segments.last().filter(|s| **s != "..")?;
    let outside = text.starts_with('/') || segments.contains(&"..");
    Some(if outside { last.to_owned() } else { segments.join("/") })
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
