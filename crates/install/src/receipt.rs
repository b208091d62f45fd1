//! What an install leaves behind: the receipt, `relocation.json`, and the rewritten YAML.

use std::cmp::Ordering;
use std::collections::BTreeSet;
use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use ferry_content::{Problems, texts};
use ferry_image::receipt::MAX_BYTES;
use ferry_image::{Receipt, ReceiptBundle, Reference, Relocated, Relocation};
use ferry_rewrite::emit::Emitted;
use serde::Serialize;

use crate::Error;
use crate::bundles::{Bundles, Carrier};
use crate::emit;
use crate::preflight::{Preflight, State};
use crate::push::Pushed;
use crate::yaml::Text;

/// Names of ferry's own in the output folder.
pub(crate) const RELOCATION: &str = "relocation.json";
pub(crate) const RECEIPT: &str = "receipt.json";

/// The files that were written.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Written {
    /// `receipt.json`, if there is a folder for it.
    pub receipt: Option<PathBuf>,
    /// `relocation.json`, likewise.
    pub relocation: Option<PathBuf>,
    /// Each rewritten text, with the number of values changed.
    pub yaml: Vec<(PathBuf, usize)>,
    /// The relocation in the forms that were asked for.
    pub emitted: Vec<Emitted>,
}

impl Preflight {
    /// Writes receipt, relocation and YAML under the output folder; nothing where there is none.
    ///
    /// # Errors
    /// Whatever the disk reports, for each file.
    pub fn write(&self, pushed: &Pushed, time: jiff::Timestamp) -> Result<Written, Problems> {
        let Some(out) = &self.options.out else { return Ok(Written::default()) };
        let said = |bundle: &Carrier| ReceiptBundle {
            name: bundle.head().name.clone(),
            version: bundle.head().version.clone(),
            sums: bundle.sums().clone(),
        };
        // what builds on another was installed after that
        let bundles = self.bundles.oldest_first().map(said).collect();
        let images = self.installed(&pushed.relocation);
        let held = self.held(&pushed.relocation)?;
        let receipt = Receipt::new(self.destination.target(), bundles, time.to_string(), images, held);
        let paths = (out.join(RECEIPT), out.join(RELOCATION));
        let mut problems = Problems::default();
        let results = [json(&paths.1, &pushed.relocation), json(&paths.0, &receipt)];
        for error in results.into_iter().filter_map(Result::err) {
            problems.add("", error);
        }
        let carried = self.carried(&pushed.relocation);
        let rewritten: Vec<_> = self.texts.iter().map(|text| carried.apply(text)).collect();
        let mut yaml = Vec::new();
        for (text, rewritten) in self.texts.iter().zip(&rewritten) {
            let path = out.join(&text.name);
            match texts::write(&path, rewritten.text.as_bytes()) {
                Ok(()) => yaml.push((path, rewritten.changes.len())),
                Err(error) => problems.add("", error),
            }
        }
        let options = &self.options;
        let all = self.texts.iter().zip(&rewritten);
        let emitted = emit::all(&options.emit, &pushed.relocation, &options.emitting, all);
        emit::write(&emitted, out, &mut problems);
        problems.or(Written { receipt: Some(paths.0), relocation: Some(paths.1), yaml, emitted })
    }
}

impl Preflight {
    /// The images that are at the target now: not those whose tag stayed at something else, which no bundle brought.
    fn installed(&self, relocation: &Relocation) -> Vec<Relocated> {
        let skipped = self.images.iter().filter(|planned| matches!(planned.state, State::Skipped(_)));
        let skipped: BTreeSet<&Reference> = skipped.map(|planned| &planned.image.reference).collect();
        relocation.images.iter().filter(|image| !skipped.contains(&image.reference)).cloned().collect()
    }
}

/// A warning for each bundle of which the receipt in `out` names a newer version than is being installed.
pub(crate) fn older(out: &Path, bundles: &Bundles) -> Vec<String> {
    let path = out.join(RECEIPT);
    // what is none, or cannot be read, tells nothing; whether it can be replaced is another question
    let Ok(file) = File::open(&path) else { return Vec::new() };
    let mut bytes = Vec::new();
    if file.take(MAX_BYTES + 1).read_to_end(&mut bytes).is_err() {
        return Vec::new();
    }
    let Ok(receipt) = Receipt::from_json(&bytes) else { return Vec::new() };
    let mut warnings = Vec::new();
    for before in &receipt.bundles {
        let Some(was) = &before.version else { continue };
        let same = bundles.heads().filter(|head| head.name == before.name);
        let now = same.filter_map(|head| head.version.as_deref()).max_by(|a, b| compare(a, b));
        if let Some(now) = now.filter(|now| compare(was, now) == Ordering::Greater) {
            warnings.push(format!(
                "this is version {now} of `{}`, and version {was} was installed at {}, as `{}` says: tags that both have go back",
                before.name,
                receipt.time,
                path.display()
            ));
        }
    }
    warnings
}

/// Versions as numbers between dots, where they are such; else as text.
fn compare(a: &str, b: &str) -> Ordering {
    let numbers = |version: &str| -> Option<Vec<u64>> {
        version.strip_prefix('v').unwrap_or(version).split('.').map(|part| part.parse().ok()).collect()
    };
    match (numbers(a), numbers(b)) {
        (Some(mut a), Some(mut b)) => {
            let length = a.len().max(b.len());
            a.resize(length, 0);
            b.resize(length, 0);
            a.cmp(&b)
        }
        _ => a.cmp(b),
    }
}

/// Whether everything could be written that [`Preflight::write`] writes. Nothing is.
pub(crate) fn check(out: &Path, all: &[Text], emitted: &[Emitted], problems: &mut Problems) {
    let files = emitted.iter().flat_map(|emitted| emitted.files.iter().map(|file| file.path.as_str()));
    let names = [RELOCATION, RECEIPT].into_iter().chain(all.iter().map(|text| text.name.as_str())).chain(files);
    can_write(out, names, problems);
}

/// Whether files of these names could be written below `out`. Nothing is.
pub(crate) fn can_write<'a>(out: &Path, names: impl Iterator<Item = &'a str>, problems: &mut Problems) {
    // one try for each folder; a disk that is full is told by the first
    let mut tried = BTreeSet::new();
    for path in names.map(|name| out.join(name)) {
        let folder = path.parent().unwrap_or(out).to_owned();
        let result = if path.is_dir() {
            Err(ferry_content::Error::io("write", &path, std::io::ErrorKind::IsADirectory.into()))
        } else if tried.insert(folder.clone()) {
            texts::can_write_in(&folder)
        } else {
            Ok(())
        };
        if let Err(error) = result {
            problems.add(format!("--out `{}`", out.display()), error);
        }
    }
}

fn json(path: &Path, value: &impl Serialize) -> Result<(), Error> {
    let fail = |e: serde_json::Error| ferry_content::Error::io("write", path, e.into());
    let mut bytes = serde_json::to_vec_pretty(value).map_err(fail)?;
    bytes.push(b'\n');
    Ok(texts::write(path, &bytes)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_numbers_where_they_can_be() {
        for (a, b, expected) in [
            ("1.10", "1.9", Ordering::Greater),
            ("2", "2.0.0", Ordering::Equal),
            ("v3.1", "3.0.7", Ordering::Greater),
            ("1.0.1", "1.0", Ordering::Greater),
            ("2024-05", "2024-11", Ordering::Less),
            ("1.2", "1.2-rc1", Ordering::Less),
        ] {
            assert_eq!((compare(a, b), compare(b, a)), (expected, expected.reverse()), "{a} {b}");
        }
    }
}
