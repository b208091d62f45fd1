//! What an install leaves behind: the receipt, `relocation.json`, and the rewritten YAML.

use std::path::{Path, PathBuf};

use ferry_archive::Head;
use ferry_content::{Problems, texts};
use ferry_image::{Digest, Relocated};
use serde::{Deserialize, Serialize};

use crate::Error;
use crate::preflight::Preflight;
use crate::push::Pushed;
use crate::yaml;

/// The version of the receipt's form.
pub const VERSION: u32 = 1;

/// What was left at a target, by which bundle, when. Form: `docs/format.md`, "The receipt".
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Receipt {
    /// [`VERSION`].
    pub version: u32,
    /// The bundle.
    pub bundle: ReceiptBundle,
    /// Host and prefix.
    pub target: String,
    /// When the install ended, RFC 3339 in UTC.
    pub time: String,
    /// Each image with its name and digest at the target.
    pub images: Vec<Relocated>,
    /// Every blob of the bundle, sorted: all of them are at the target now.
    pub blobs: Vec<Digest>,
}

/// Which bundle was installed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ReceiptBundle {
    /// Its name.
    pub name: String,
    /// Its version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// The digest of its `SHA256SUMS`, which names its content.
    pub sums: Digest,
}

/// The files that were written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Written {
    /// `receipt.json`.
    pub receipt: PathBuf,
    /// `relocation.json`.
    pub relocation: PathBuf,
    /// Each rewritten text, with the number of values changed.
    pub yaml: Vec<(PathBuf, usize)>,
}

impl Preflight {
    /// Writes receipt, relocation and YAML under the output folder.
    ///
    /// # Errors
    /// Whatever the disk reports.
    pub fn write(&self, pushed: &Pushed, time: jiff::Timestamp) -> Result<Written, Problems> {
        let out = &self.options.out;
        let mut yaml = Vec::new();
        for text in &self.texts {
            let rewritten = yaml::apply(text, &pushed.relocation, &self.bundle);
            let path = out.join(&text.name);
            texts::write(&path, rewritten.text.as_bytes()).map_err(Error::from)?;
            yaml.push((path, rewritten.changes.len()));
        }
        let head = self.bundle.head();
        let receipt = Receipt {
            version: VERSION,
            bundle: ReceiptBundle {
                name: head.name.clone(),
                version: head.version.clone(),
                sums: self.bundle.sums_digest().clone(),
            },
            target: self.destination.target().to_string(),
            time: time.to_string(),
            images: pushed.relocation.images.clone(),
            blobs: blobs(head),
        };
        let relocation = out.join("relocation.json");
        json(&relocation, &pushed.relocation)?;
        let path = out.join("receipt.json");
        json(&path, &receipt)?;
        Ok(Written { receipt: path, relocation, yaml })
    }
}

fn blobs(head: &Head) -> Vec<Digest> {
    let mut blobs: Vec<Digest> = head.blobs.iter().map(|b| b.digest.clone()).collect();
    blobs.sort();
    blobs
}

fn json(path: &Path, value: &impl Serialize) -> Result<(), Error> {
    let fail = |e: serde_json::Error| ferry_content::Error::io("write", path, e.into());
    let mut bytes = serde_json::to_vec_pretty(value).map_err(fail)?;
    bytes.push(b'\n');
    Ok(texts::write(path, &bytes)?)
}
