//! The user's YAML and the bundle's own, rewritten to the target.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use ferry_archive::Bundle;
use ferry_content::{Problems, charts, texts};
use ferry_image::{Ignore, Relocation, SetRule};
use ferry_rewrite::{Around, Charts, Confidence, Finding, Rewritten, Why, rewrite_around};

use crate::Error;
use crate::receipt::{RECEIPT, RELOCATION};

/// A text to rewrite.
#[derive(Debug, Clone)]
pub struct Text {
    /// Its path below the output folder.
    pub name: String,
    /// Where it came from, for people.
    pub origin: String,
    /// The file that it was read from; none for what a bundle carries, or a pipe.
    pub file: Option<PathBuf>,
    /// Its bytes.
    pub text: String,
    /// What the chart that it belongs to makes of it.
    pub around: Around,
}

/// Where images went, and what the bundle says of YAML: all that rewriting and its gate need.
#[derive(Debug, Clone, Copy)]
pub struct Carried<'a> {
    /// Each reference with its name at the target.
    pub relocation: &'a Relocation,
    /// The bundle's rules.
    pub rules: &'a [SetRule],
    /// What the bundle leaves out on purpose.
    pub ignore: &'a [Ignore],
}

/// Collects the texts: what the bundle carries, and the user's files, which replace carried ones of the same name. What is in the
/// output folder is not read again where that lies in a folder of the user's.
///
/// Every file that cannot be read, and every name that cannot be written, is a problem; the others are collected.
pub fn collect(bundle: &Bundle, entries: &[PathBuf], out: &Path, problems: &mut Problems) -> Vec<Text> {
    let all = carried(bundle, problems).into_iter().chain(users("--yaml", entries, Some(out), problems));
    let collected: BTreeMap<String, Text> = all.map(|text| (text.name.clone(), text)).collect();
    for name in [RELOCATION, RECEIPT].into_iter().filter(|name| collected.contains_key(*name)) {
        problems.add("", Error::SameName { name: name.to_owned(), out: out.to_owned() });
    }
    collected.into_values().collect()
}

/// The texts that the bundle carries.
pub fn carried(bundle: &Bundle, problems: &mut Problems) -> Vec<Text> {
    let mut carried = Vec::new();
    for file in &bundle.head().yaml {
        let name = file.path.strip_prefix("yaml/").unwrap_or(&file.path).to_owned();
        let origin = format!("carried {}", file.path);
        match bundle.file(&file.path).map(|bytes| String::from_utf8(bytes.to_vec())) {
            Ok(Ok(text)) => carried.push(Text { name, origin, file: None, text, around: Around::default() }),
            Ok(Err(_)) => problems.add(origin, Error::Yaml { why: "it is not UTF-8".to_owned() }),
            Err(error) => problems.add(origin, error),
        }
    }
    // as far as charts are carried whole
    let found = Charts::of(carried.iter().map(|text| (text.name.as_str(), text.text.as_str())), &[]);
    for text in &mut carried {
        text.around = found.around(&text.name);
    }
    carried
}

/// What the chart that `file` belongs to makes of it; nothing where there is none.
fn around(known: &mut charts::Known<Charts>, file: &Path) -> Around {
    let found = known.of(file, |texts| Charts::of(texts.iter(), &[]));
    found.map(|(charts, below)| charts.around(&below)).unwrap_or_default()
}

/// The user's files under the names that they get below `out`, if they are written there; `said` is where they were named.
pub fn users(said: &str, entries: &[PathBuf], out: Option<&Path>, problems: &mut Problems) -> Vec<Text> {
    let mut users: Vec<Text> = Vec::new();
    let real_out = out.and_then(|out| out.canonicalize().ok());
    let mut known = charts::Known::default();
    for entry in entries {
        let files = match texts::walk(entry, |path| texts::is_yaml(path) && !is_below(path, entry, real_out.as_deref()))
        {
            Ok(files) => files,
            Err(error) => {
                problems.add(said, error);
                continue;
            }
        };
        let base = entry.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
        for (below, path) in files {
            let parts: Vec<&str> = [base.as_str(), below.as_str()].into_iter().filter(|p| !p.is_empty()).collect();
            let name = parts.join("/");
            if let Some(out) = out {
                let target = out.join(&name).canonicalize();
                if target.is_ok_and(|target| path.canonicalize().is_ok_and(|path| path == target)) {
                    problems.add(said, Error::Onto { path });
                    continue;
                }
                if users.iter().any(|text| text.name == name) {
                    problems.add(said, Error::SameName { name: name.clone(), out: out.to_owned() });
                }
            }
            match texts::read(&path) {
                Ok(text) => {
                    let origin = path.display().to_string();
                    let around = around(&mut known, &path);
                    users.push(Text { name, origin, file: Some(path), text, around });
                }
                Err(error) => problems.add(said, error),
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

impl Carried<'_> {
    /// Rewrites one text.
    #[must_use]
    pub fn apply(&self, text: &Text) -> Rewritten {
        let name = text.name.rsplit('/').next().unwrap_or(&text.name);
        rewrite_around(&text.text, name, &text.around, self.relocation, self.rules, self.ignore)
    }

    /// The gate on the far side, over texts and what was made of them: certain references that are not carried are problems (unless
    /// `strict` is off), weaker ones warnings.
    ///
    /// # Errors
    /// Every certain reference that is not carried, or cannot be rewritten, with file and line.
    pub fn gate<'a>(
        &self,
        all: impl IntoIterator<Item = (&'a Text, &'a Rewritten)>,
        strict: bool,
    ) -> Result<Vec<String>, Problems> {
        let mut problems = Problems::default();
        let mut warnings = Vec::new();
        for (text, rewritten) in all {
            for finding in &rewritten.uncarried {
                let subject = format!("{}:{}", text.origin, finding.line);
                let error = self.lacking(finding);
                if strict && finding.confidence == Confidence::Certain {
                    problems.add(subject, error);
                } else {
                    warnings.push(format!("{subject}: {error}"));
                }
            }
            for refused in &rewritten.refused {
                let error = Error::Refused { why: refused.reason.clone() };
                warnings.push(format!("{}:{}: {error}", text.origin, refused.line));
            }
            // a rule for another file, or for an image that is not carried, has nothing to do here
            for unmet in &rewritten.unmet {
                if let Why::Refused { line, reason } = &unmet.why {
                    let path = self.rules.get(unmet.rule).map(|r| r.paths.join(", ")).unwrap_or_default();
                    warnings.push(format!("{}:{line}: {}", text.origin, Error::Rule { path, why: reason.clone() }));
                }
            }
            let notes = rewritten.notes.iter();
            warnings.extend(notes.map(|note| format!("{}:{}: {}", text.origin, note.line, note.message)));
        }
        problems.or(warnings)
    }

    /// What is wrong with a reference that was left as it is.
    fn lacking(&self, finding: &Finding) -> Error {
        let carried = finding.reference.as_ref().is_some_and(|r| self.relocation.lookup(r).is_some());
        let (reference, path) = (finding.value.clone(), finding.path.clone());
        match &finding.reason {
            Some(why) if carried => Error::NotRewritten { reference, path, why: why.clone() },
            _ => Error::Uncarried { reference, path },
        }
    }
}
