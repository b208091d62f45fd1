//! The receipt: what is at a target, by which bundles, since when (`docs/format.md`, "The receipt"). Written there, carried back, the base
//! of the next delta.
//!
//! Pure: text in, types out. Not here: finding out what is there.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::{Digest, Error, Reference, Relocated, Target, reference::is_path};

/// The version of the form that is written. Version 1 is read, too.
pub const VERSION: u32 = 2;
/// The largest receipt that is read, in bytes.
pub const MAX_BYTES: u64 = 256 << 20;

/// What is at a target.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Receipt {
    /// [`VERSION`].
    pub version: u32,
    /// The bundles that were installed, in that order; none where the target itself was asked.
    pub bundles: Vec<ReceiptBundle>,
    /// Host and prefix.
    pub target: String,
    /// When the install ended, or the target was asked: RFC 3339 in UTC.
    pub time: String,
    /// Each image with its name and digest at the target.
    pub images: Vec<Relocated>,
    /// What each repository has, sorted by name.
    pub repositories: Vec<Held>,
    /// Blobs of a receipt of version 1, which does not say where they are; sorted. Never written.
    #[serde(skip)]
    pub unplaced: Vec<Digest>,
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

/// What one repository has.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Held {
    /// The repository, host and prefix included, as in [`Relocated::repository`].
    pub name: String,
    /// Manifests, indexes, configs and layers, sorted by digest.
    pub blobs: Vec<HeldBlob>,
}

/// A blob that is there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct HeldBlob {
    /// Its digest.
    pub digest: Digest,
    /// Its size in bytes.
    pub size: u64,
}

/// Every blob of each repository.
pub type Repositories = BTreeMap<String, BTreeMap<Digest, u64>>;

/// Both versions at once: which fields must be there is decided by the version.
#[derive(Deserialize)]
struct Raw {
    version: u32,
    bundle: Option<ReceiptBundle>,
    #[serde(default)]
    bundles: Vec<ReceiptBundle>,
    target: String,
    time: String,
    images: Vec<Relocated>,
    repositories: Option<Vec<Held>>,
    blobs: Option<Vec<Digest>>,
}

#[derive(Deserialize)]
struct Version {
    version: u32,
}

impl Receipt {
    /// A receipt of what `repositories` have.
    #[must_use]
    pub fn new(
        target: &Target,
        bundles: Vec<ReceiptBundle>,
        time: String,
        images: Vec<Relocated>,
        repositories: Repositories,
    ) -> Self {
        let listed = |blobs: BTreeMap<Digest, u64>| {
            blobs.into_iter().map(|(digest, size)| HeldBlob { digest, size }).collect::<Vec<_>>()
        };
        let held = repositories.into_iter().filter(|(_, blobs)| !blobs.is_empty());
        Self {
            version: VERSION,
            bundles,
            target: target.to_string(),
            time,
            images,
            repositories: held.map(|(name, blobs)| Held { name, blobs: listed(blobs) }).collect(),
            unplaced: Vec::new(),
        }
    }

    /// Reads a receipt of version 1 or 2.
    ///
    /// # Errors
    /// When it is neither, or names something that is not under its own target.
    pub fn from_json(bytes: &[u8]) -> Result<Self, Error> {
        let fail = |why: String| Error::Document { what: "receipt", why };
        if bytes.len() as u64 > MAX_BYTES {
            return Err(fail(format!("{} bytes, more than the {MAX_BYTES} that are read", bytes.len())));
        }
        // the version first: a newer form need not fit these types
        let Version { version } = serde_json::from_slice(bytes).map_err(|e| fail(e.to_string()))?;
        if !(1..=VERSION).contains(&version) {
            return Err(fail(format!("its version is {version}, known are 1 and {VERSION}")));
        }
        let raw: Raw = serde_json::from_slice(bytes).map_err(|e| fail(e.to_string()))?;
        let receipt = raw.understood().map_err(fail)?;
        receipt.check().map_err(fail)?;
        Ok(receipt)
    }

    /// Its text.
    ///
    /// # Errors
    /// When it cannot be written as JSON, which no value of these types causes.
    pub fn to_json(&self) -> Result<Vec<u8>, serde_json::Error> {
        let mut json = serde_json::to_vec_pretty(self)?;
        json.push(b'\n');
        Ok(json)
    }

    /// The path of a repository of this receipt below the target's host and prefix.
    #[must_use]
    pub fn below_target<'a>(&self, repository: &'a str) -> Option<&'a str> {
        repository.strip_prefix(&self.target)?.strip_prefix('/')
    }

    fn check(&self) -> Result<(), String> {
        self.target.parse::<Target>().map_err(|e| e.to_string())?;
        let is_repository = |name: &str| self.below_target(name).is_some_and(is_path);
        let named = self.images.iter().map(|image| image.repository.as_str());
        if let Some(other) = named.chain(self.repositories.iter().map(|r| r.name.as_str())).find(|n| !is_repository(n))
        {
            return Err(format!("`{}` is no repository under `{}`", other.escape_debug(), self.target));
        }
        for image in &self.images {
            image.replacement(&image.reference).map_err(|e| e.to_string())?;
        }
        // far from the end of 64 bits, whatever is added up
        let sizes = self.repositories.iter().flat_map(|repository| &repository.blobs).map(|blob| blob.size);
        if sizes.fold(0_u64, u64::saturating_add) >= 1 << 60 {
            return Err("the sizes add up to more than an exbibyte".to_owned());
        }
        let mut seen: BTreeSet<&str> = BTreeSet::new();
        if let Some(twice) = self.repositories.iter().find(|repository| !seen.insert(&repository.name)) {
            return Err(format!("`{}` stands there twice", twice.name));
        }
        Ok(())
    }

    /// The image of `reference`.
    #[must_use]
    pub fn image(&self, reference: &Reference) -> Option<&Relocated> {
        self.images.iter().find(|image| image.reference == *reference)
    }
}

impl Raw {
    fn understood(self) -> Result<Receipt, String> {
        let (repositories, mut unplaced) = match (self.version, self.repositories, self.blobs) {
            (1, None, Some(blobs)) => (Vec::new(), blobs),
            (1, _, None) => return Err("missing field `blobs`".to_owned()),
            (_, Some(repositories), None) => (repositories, Vec::new()),
            (_, None, _) => return Err("missing field `repositories`".to_owned()),
            (_, Some(_), Some(_)) => return Err("it has both `blobs` and `repositories`".to_owned()),
        };
        unplaced.sort();
        unplaced.dedup();
        if self.version == 1 && self.bundle.is_none() {
            return Err("missing field `bundle`".to_owned());
        }
        Ok(Receipt {
            version: self.version,
            bundles: self.bundle.into_iter().chain(self.bundles).collect(),
            target: self.target,
            time: self.time,
            images: self.images,
            repositories,
            unplaced,
        })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn d(name: &str) -> Digest {
        Digest::of(name.as_bytes())
    }

    fn sample() -> Receipt {
        let target: Target = "reg:5000/p".parse().expect("target");
        let image = Relocated {
            reference: "nginx:1".parse().expect("reference"),
            repository: "reg:5000/p/library/nginx".to_owned(),
            tag: Some("1".to_owned()),
            source_digest: d("root"),
            digest: d("root"),
        };
        let bundle = ReceiptBundle { name: "b".to_owned(), version: None, sums: d("sums") };
        let held: Repositories = [
            ("reg:5000/p/library/nginx".to_owned(), [(d("layer"), 7), (d("root"), 4)].into()),
            ("reg:5000/p/empty".to_owned(), BTreeMap::new()),
        ]
        .into();
        Receipt::new(&target, vec![bundle], "2030-01-02T03:04:05Z".to_owned(), vec![image], held)
    }

    fn first() -> Value {
        json!({
            "version": 1, "bundle": {"name": "b", "sums": d("sums")}, "target": "reg:5000/p", "time": "t", "images": [],
            "blobs": [d("y"), d("x"), d("x")],
        })
    }

    #[test]
    fn what_is_written_reads_back() {
        let receipt = sample();
        assert_eq!(receipt.repositories.len(), 1, "what is empty is not listed");
        let text = receipt.to_json().expect("json");
        assert_eq!(Receipt::from_json(&text), Ok(receipt.clone()));
        assert!(!String::from_utf8_lossy(&text).contains("unplaced"));
        assert_eq!(receipt.below_target("reg:5000/p/library/nginx"), Some("library/nginx"));
        assert_eq!(receipt.below_target("reg:5000/px"), None);
    }

    #[test]
    fn the_first_version_is_read() {
        let receipt = Receipt::from_json(first().to_string().as_bytes()).expect("version 1");
        let mut expected = vec![d("x"), d("y")];
        expected.sort();
        assert_eq!((receipt.unplaced, receipt.bundles.len(), receipt.repositories.len()), (expected, 1, 0));
    }

    #[test]
    fn what_is_no_receipt_is_refused() {
        let second = || serde_json::to_value(sample()).expect("json");
        let with = |mut value: Value, key: &str, to: Value| {
            value[key] = to;
            value
        };
        let without = |mut value: Value, key: &str| {
            value.as_object_mut().expect("object").remove(key);
            value
        };
        let elsewhere = json!([{"name": "other:5000/p/x", "blobs": []}]);
        let twice = json!([{"name": "reg:5000/p/x", "blobs": []}, {"name": "reg:5000/p/x", "blobs": []}]);
        let blob = json!({"digest": d("x"), "size": u64::MAX});
        let huge = json!([{"name": "reg:5000/p/x", "blobs": [blob, blob]}]);
        for (bad, why) in [
            (json!({}), "version"),
            (with(second(), "version", json!(3)), "known are 1 and 2"),
            (with(second(), "target", json!("x y")), "x y"),
            (with(second(), "repositories", elsewhere), "no repository under"),
            (with(second(), "repositories", json!([{"name": "reg:5000/p/A", "blobs": []}])), "no repository under"),
            (with(second(), "repositories", twice), "twice"),
            (with(second(), "repositories", huge), "exbibyte"),
            (with(second(), "blobs", json!([])), "both"),
            (without(second(), "repositories"), "repositories"),
            (without(first(), "blobs"), "blobs"),
            (without(first(), "bundle"), "bundle"),
        ] {
            let error = Receipt::from_json(bad.to_string().as_bytes()).expect_err(why).to_string();
            assert!(error.contains(why), "{error}");
        }
    }
}
