//! `images:`, and what they must not have in common.

use std::collections::HashMap;

use ferry_image::{Layout, Reference, TargetName};
use serde_saphyr::Spanned;

use super::{Check, Text, field_line, line, text, texts, value};
use crate::manifest::raw::{Field, ImageItem, Item};
use crate::manifest::{ArchiveSource, Image, MAX_IMAGES, What};

impl Check<'_> {
    pub(super) fn images(&mut self, field: Field<Vec<Spanned<Item>>>) -> Vec<Image> {
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
        let referrers = self.referrers(item.referrers);
        let verify = self.keys(item.verify);
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
        Some(Image { reference, from, archive, target, optional, platforms, referrers, verify, line: at })
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
    pub(super) fn collisions(&mut self, images: &[Image], layout: Layout) {
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
}
