//! `referrers:` and `verify:`, at the top and for one image.

use std::collections::HashMap;

use ferry_image::{ReferrerKind, rules};

use super::{Check, Text, field_line, line, spread, value};
use crate::manifest::raw::{Entries, Field, FlagOrMany};
use crate::manifest::{Image, KeyFile, ReferrerKinds, Verify, What};

impl Check<'_> {
    pub(super) fn referrers(&mut self, field: Field<FlagOrMany>) -> Option<ReferrerKinds> {
        let at = field_line(&field);
        let texts = match value(field)? {
            FlagOrMany::Flag(true) => return Some(ReferrerKinds::default()),
            FlagOrMany::Flag(false) => return Some(ReferrerKinds::NONE),
            FlagOrMany::Many(many) => spread(many, at),
        };
        if texts.is_empty() {
            self.bad(at, "referrers", "[]", "names none; write `false`");
        }
        let mut kinds = Vec::new();
        for (text, line) in texts {
            match text.parse::<ReferrerKind>() {
                Ok(kind) if kinds.contains(&kind) => {}
                Ok(kind) => kinds.push(kind),
                Err(why) => self.bad(line, "referrers", &text, why),
            }
        }
        Some(ReferrerKinds::these(kinds))
    }

    /// An entry that names no image is most likely a slip, and what it means would go unchecked.
    pub(super) fn verify(&mut self, field: Field<Entries<FlagOrMany>>, images: &[Image]) -> Vec<Verify> {
        let mut verify: Vec<Verify> = Vec::new();
        let mut seen: HashMap<String, usize> = HashMap::new();
        for (pattern, keys) in value(field).map(|entries| entries.0).unwrap_or_default() {
            let at = line(&pattern);
            let pattern = pattern.value;
            if !images.iter().any(|image| rules::is_among(&pattern, &image.reference)) {
                self.add(at, What::NamesNone { pattern: pattern.clone() });
            }
            if let Some(first) = seen.insert(pattern.clone(), at) {
                self.add(at, What::Twice { what: "the entry", value: pattern.clone(), first });
            }
            let below = line(&keys).max(at);
            let keys = self.key_files(keys.value, below);
            verify.push(Verify { images: pattern, keys });
        }
        verify
    }

    pub(super) fn keys(&mut self, field: Field<FlagOrMany>) -> Option<Vec<KeyFile>> {
        let at = field_line(&field);
        value(field).map(|keys| self.key_files(keys, at))
    }

    fn key_files(&mut self, keys: FlagOrMany, at: usize) -> Vec<KeyFile> {
        let texts = match keys {
            FlagOrMany::Flag(false) => return Vec::new(),
            FlagOrMany::Flag(true) => {
                self.bad(at, "verify", "true", "names no key: write the path of a public key");
                return Vec::new();
            }
            FlagOrMany::Many(many) => spread(many, at),
        };
        if texts.is_empty() {
            self.bad(at, "verify", "[]", "names no key; where no signature is needed, write `false`");
        }
        texts.into_iter().filter_map(|text| self.key_file(text)).collect()
    }

    fn key_file(&mut self, (written, line): Text) -> Option<KeyFile> {
        if written.is_empty() || written.contains("://") {
            self.bad(line, "verify", &written, "is not the path of a public key");
            return None;
        }
        let path = self.folder.join(&written);
        Some(KeyFile { written, path, line })
    }
}
