//! What an install leaves behind: the receipt, `relocation.json`, and the rewritten YAML.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ferry_archive::Bundle;
use ferry_content::{Problems, texts};
use ferry_image::{Receipt, ReceiptBundle};
use ferry_rewrite::emit::Emitted;
use serde::Serialize;

use crate::Error;
use crate::emit;
use crate::preflight::Preflight;
use crate::push::Pushed;
use crate::yaml::Text;

/// Names of ferry's own in the output folder.
pub(crate) const RELOCATION: &str = "relocation.json";
pub(crate) const RECEIPT: &str = "receipt.json";

/// The files that were written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Written {
    /// `receipt.json`.
    pub receipt: PathBuf,
    /// `relocation.json`.
    pub relocation: PathBuf,
    /// Each rewritten text, with the number of values changed.
    pub yaml: Vec<(PathBuf, usize)>,
    /// The relocation in the forms that were asked for.
    pub emitted: Vec<Emitted>,
}

impl Preflight {
    /// Writes receipt, relocation and YAML under the output folder.
    ///
    /// # Errors
    /// Whatever the disk reports, for each file.
    pub fn write(&self, pushed: &Pushed, time: jiff::Timestamp) -> Result<Written, Problems> {
        let out = &self.options.out;
        let said = |bundle: &Arc<Bundle>| ReceiptBundle {
            name: bundle.head().name.clone(),
            version: bundle.head().version.clone(),
            sums: bundle.sums_digest().clone(),
        };
        // what builds on another was installed after that
        let bundles = self.bundles.all().iter().rev().map(said).collect();
        let images = pushed.relocation.images.clone();
        let held = self.held(&pushed.relocation)?;
        let receipt = Receipt::new(self.destination.target(), bundles, time.to_string(), images, held);
        let written = Written {
            receipt: out.join(RECEIPT),
            relocation: out.join(RELOCATION),
            yaml: Vec::new(),
            emitted: Vec::new(),
        };
        let mut problems = Problems::default();
        let results = [json(&written.relocation, &pushed.relocation), json(&written.receipt, &receipt)];
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
        problems.or(Written { yaml, emitted, ..written })
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
