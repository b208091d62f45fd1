//! `set:` and `ignore:`, the rules for YAML.

use std::collections::HashSet;

use ferry_image::{Form, Ignore, Reference, SetRule};
use serde_saphyr::Spanned;

use super::{Check, Text, line, text, texts, value};
use crate::manifest::raw::{Field, IgnoreItem, Set};
use crate::manifest::{Image, What};

impl Check<'_> {
    pub(super) fn set_rules(&mut self, field: Field<Vec<Spanned<Set>>>, images: &[Image]) -> Vec<SetRule> {
        let rules = value(field).unwrap_or_default();
        let listed: HashSet<&Reference> = images.iter().map(|image| &image.reference).collect();
        rules
            .into_iter()
            .filter_map(|rule| {
                let at = line(&rule);
                self.set_rule(rule.value, at, &listed)
            })
            .collect()
    }

    fn set_rule(&mut self, rule: Set, at: usize, listed: &HashSet<&Reference>) -> Option<SetRule> {
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
        if !listed.contains(&image) {
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

    pub(super) fn ignores(&mut self, field: Field<Vec<Spanned<IgnoreItem>>>) -> Vec<Ignore> {
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
