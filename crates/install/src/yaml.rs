//! The user's YAML and the bundle's own, rewritten to the target.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};

use ferry_archive::Bundle;
use ferry_content::{Problems, charts, texts};
use ferry_image::Relocation;
use ferry_rewrite::{Around, Charts, Confidence, Rewritten, Why, rewrite_around};

use crate::Error;
use crate::receipt::{RECEIPT, RELOCATION};

/// A text to rewrite.
#[derive(Debug, Clone)]
pub struct Text {
    /// Its path below the output folder.
    pub name: String,
    /// Where it came from, for people.
    pub origin: String,
    /// Its bytes.
    pub text: String,
    /// What the chart that it belongs to makes of it.
    pub around: Around,
}

/// Collects the texts: what the bundle carries, and the user's files, which replace carried ones of the same name. What is in the
/// output folder is not read again where that lies in a folder of the user's.
///
/// Every file that cannot be read, and every name that cannot be written, is a problem; the others are collected.
pub fn collect(bundle: &Bundle, entries: &[PathBuf], out: &Path, problems: &mut Problems) -> Vec<Text> {
    let mut collected: BTreeMap<String, Text> = BTreeMap::new();
    for file in &bundle.head().yaml {
        let name = file.path.strip_prefix("yaml/").unwrap_or(&file.path).to_owned();
        let origin = format!("carried {}", file.path);
        match bundle.file(&file.path).map(|bytes| String::from_utf8(bytes.to_vec())) {
            Ok(Ok(text)) => {
                drop(collected.insert(name.clone(), Text { name, origin, text, around: Around::default() }))
            }
            Ok(Err(_)) => problems.add(origin, Error::Yaml { why: "it is not UTF-8".to_owned() }),
            Err(error) => problems.add(origin, error),
        }
    }
    // what the bundle carries, as far as it carries charts whole
    let found = Charts::of(collected.iter().map(|(name, text)| (name.as_str(), text.text.as_str())), &[]);
    for (name, text) in &mut collected {
        text.around = found.around(name);
    }
    let users = users(entries, out, problems);
    collected.extend(users);
    for name in [RELOCATION, RECEIPT].into_iter().filter(|name| collected.contains_key(*name)) {
        problems.add("", Error::SameName { name: name.to_owned(), out: out.to_owned() });
    }
    collected.into_values().collect()
}

/// Charts on the disk that the user's files are parts of, each read once.
#[derive(Debug, Default)]
struct OnDisk {
    charts: HashMap<PathBuf, Charts>,
}

impl OnDisk {
    /// What the chart that `file` belongs to makes of it; nothing where there is none, or it cannot be read.
    fn around(&mut self, file: &Path) -> Around {
        let Some(root) = charts::root_of(file) else { return Around::default() };
        let below = file.strip_prefix(&root).unwrap_or(file);
        let parts: Vec<_> = below.components().map(|c| c.as_os_str().to_string_lossy().into_owned()).collect();
        let charts = self.charts.entry(root.clone()).or_insert_with(|| {
            let read = charts::folder(&root, |_| false).unwrap_or_default();
            Charts::of(read.texts.iter().map(|(path, text)| (path.as_str(), text.as_str())), &[])
        });
        charts.around(&parts.join("/"))
    }
}

/// The user's files under the names that they get.
fn users(entries: &[PathBuf], out: &Path, problems: &mut Problems) -> BTreeMap<String, Text> {
    let mut users: BTreeMap<String, Text> = BTreeMap::new();
    let real_out = out.canonicalize().ok();
    let mut on_disk = OnDisk::default();
    for entry in entries {
        let files = match texts::walk(entry, |path| texts::is_yaml(path) && !is_below(path, entry, real_out.as_deref()))
        {
            Ok(files) => files,
            Err(error) => {
                problems.add("--yaml", error);
                continue;
            }
        };
        let base = entry.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
        for (below, path) in files {
            let parts: Vec<&str> = [base.as_str(), below.as_str()].into_iter().filter(|p| !p.is_empty()).collect();
            let name = parts.join("/");
            let target = out.join(&name).canonicalize();
            if target.is_ok_and(|target| path.canonicalize().is_ok_and(|path| path == target)) {
                problems.add("--yaml", Error::Onto { path });
                continue;
            }
            match texts::read(&path) {
                Ok(text) => {
                    let origin = path.display().to_string();
                    let around = on_disk.around(&path);
                    if users.insert(name.clone(), Text { name: name.clone(), origin, text, around }).is_some() {
                        problems.add("--yaml", Error::SameName { name, out: out.to_owned() });
                    }
                }
                Err(error) => problems.add("--yaml", error),
            }
        }
    }
    users
}

/// Whether `path`, found in `entry`, is what an earlier run has written into a folder there.
fn is_below(path: &Path, entry: &Path, out: Option<&Path>) -> bool {
    let Some(out) = out else { return false };
    let inside = entry.canonicalize().is_ok_and(|entry| out.starts_with(&entry) && out != entry);
    inside && path.canonicalize().is_ok_and(|path| path.starts_with(out))
}

/// Rewrites one text.
#[must_use]
pub fn apply(text: &Text, relocation: &Relocation, bundle: &Bundle) -> Rewritten {
    let name = text.name.rsplit('/').next().unwrap_or(&text.name);
    rewrite_around(&text.text, name, &text.around, relocation, &bundle.head().set, &bundle.head().ignore)
}

/// The gate on the far side: certain references that are not carried are problems (unless `strict` is off), weaker ones warnings.
///
/// # Errors
/// Every certain reference that the bundle does not carry, with file and line.
pub fn gate(all: &[Text], relocation: &Relocation, bundle: &Bundle, strict: bool) -> Result<Vec<String>, Problems> {
    let mut problems = Problems::default();
    let mut warnings = Vec::new();
    for text in all {
        let rewritten = apply(text, relocation, bundle);
        for finding in rewritten.uncarried {
            let subject = format!("{}:{}", text.origin, finding.line);
            let error = Error::Uncarried { reference: finding.value, path: finding.path };
            if strict && finding.confidence == Confidence::Certain {
                problems.add(subject, error);
            } else {
                warnings.push(format!("{subject}: {error}"));
            }
        }
        for refused in rewritten.refused {
            warnings.push(format!("{}:{}: {}", text.origin, refused.line, Error::Refused { why: refused.reason }));
        }
        // a rule for another file, or for an image that is not carried, has nothing to do here
        for unmet in rewritten.unmet {
            if let Why::Refused { line, reason } = unmet.why {
                let rule = bundle.head().set.get(unmet.rule).map(|r| r.paths.join(", ")).unwrap_or_default();
                warnings.push(format!("{}:{line}: {}", text.origin, Error::Rule { path: rule, why: reason }));
            }
        }
        warnings.extend(rewritten.notes.iter().map(|note| format!("{}:{}: {}", text.origin, note.line, note.message)));
    }
    problems.or(warnings)
}
