//! The user's YAML and the bundle's own, rewritten to the target.

use std::collections::{BTreeMap, HashMap};
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use ferry_content::{Problems, charts, texts};
use ferry_image::{Ignore, Relocation, SetRule};
use ferry_rewrite::emit::Member;
use ferry_rewrite::kustomization::{Kustomization, is_kustomization, is_matched, kustomization, name_of};
use ferry_rewrite::{Around, Charts, Confidence, Finding, Rewritten, Shape, Why, rewrite_around};

use crate::Error;
use crate::bundles::Bundles;
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
    /// The file or folder that was named for it.
    pub entry: Option<PathBuf>,
    /// Its bytes.
    pub text: String,
    /// What the chart that it belongs to makes of it.
    pub around: Around,
    /// That chart, and what it is there.
    pub chart: Option<Member>,
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

/// Collects the texts: what the bundles carry, and the user's files, which replace carried ones of the same name. What is in the
/// output folder is not read again where that lies in a folder of the user's.
///
/// Every file that cannot be read, and every name that cannot be written, is a problem; the others are collected.
pub fn collect(
    bundles: &Bundles,
    entries: &[PathBuf],
    out: Option<&Path>,
    notes: &mut Vec<String>,
    problems: &mut Problems,
) -> Vec<Text> {
    let all = carried(bundles, notes, problems).into_iter().chain(users("--yaml", entries, out, problems));
    let collected: BTreeMap<String, Text> = all.map(|text| (text.name.clone(), text)).collect();
    for name in [RELOCATION, RECEIPT].into_iter().filter(|name| collected.contains_key(*name)) {
        problems.add("", Error::SameName { name: name.to_owned(), out: out.unwrap_or(Path::new("")).to_owned() });
    }
    collected.into_values().collect()
}

/// What becomes of the carried YAML where nothing is written, if there is any: it is in the bundle still.
pub(crate) fn aside(bundles: &Bundles) -> Option<String> {
    let (is, it) = match bundles.together().yaml().0.len() {
        0 => return None,
        1 => ("1 carried YAML file was".to_owned(), "it"),
        n => (format!("{n} carried YAML files were"), "them"),
    };
    Some(format!(
        "{is} left aside: the same command with `--registry HOST[:PORT] --out DIR` writes {it} with the names by which nodes reach this target"
    ))
}

/// The texts that the bundles carry. What is in a newer one instead of an older is noted.
pub fn carried(bundles: &Bundles, notes: &mut Vec<String>, problems: &mut Problems) -> Vec<Text> {
    let mut carried = Vec::new();
    let (members, newer, conflicts) = bundles.together().yaml();
    notes.extend(newer);
    conflicts.into_iter().for_each(|conflict| problems.add("", conflict));
    for member in &members {
        let name = member.path.strip_prefix("yaml/").unwrap_or(&member.path).to_owned();
        let origin = format!("carried {}", member.path);
        match bundles.file(member).map(|bytes| String::from_utf8(bytes.to_vec())) {
            Ok(Ok(text)) => carried.push(Text {
                name,
                origin,
                file: None,
                entry: None,
                text,
                around: Around::default(),
                chart: None,
            }),
            Ok(Err(_)) => problems.add(origin, Error::Yaml { why: "it is not UTF-8".to_owned() }),
            Err(error) => problems.add(origin, error),
        }
    }
    // as far as charts are carried whole
    let found = Charts::of(carried.iter().map(|text| (text.name.as_str(), text.text.as_str())), &[]);
    let below = |path: &str, root: &str| match root {
        "" => Some(path.to_owned()),
        root => path.strip_prefix(root)?.strip_prefix('/').map(ToOwned::to_owned),
    };
    let mut members: HashMap<&str, Arc<BTreeMap<String, String>>> = HashMap::new();
    for root in found.charts.iter().map(|chart| chart.folder.as_str()) {
        let inside = carried.iter().filter_map(|text| Some((below(&text.name, root)?, text.text.clone())));
        members.insert(root, Arc::new(inside.filter(|(path, _)| Member::needs(path)).collect()));
    }
    for text in &mut carried {
        text.around = found.around(&text.name);
        // the innermost: a chart may carry another as a file
        let within = members.iter().filter_map(|(root, texts)| Some((*root, below(&text.name, root)?, texts)));
        text.chart = within.max_by_key(|(root, ..)| root.len()).map(|(root, path, texts)| Member {
            root: root.to_owned(),
            path,
            texts: Arc::clone(texts),
        });
    }
    carried
}

/// What is known of a chart on disk.
struct OnDisk {
    charts: Charts,
    texts: Arc<BTreeMap<String, String>>,
}

/// What the chart that `file` belongs to makes of it; nothing where there is none.
fn around(known: &mut charts::Known<OnDisk>, file: &Path) -> (Around, Option<Member>) {
    let found = known.of(file, |texts| OnDisk {
        charts: Charts::of(texts.iter(), &[]),
        texts: Arc::new(texts.texts.iter().filter(|(path, _)| Member::needs(path)).cloned().collect()),
    });
    let Some((chart, path)) = found else { return (Around::default(), None) };
    let root = charts::root_of(file).unwrap_or_default().display().to_string();
    (chart.charts.around(&path), Some(Member { root, texts: Arc::clone(&chart.texts), path }))
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
        if charts::is_archive(entry) {
            problems.add(entry.display().to_string(), Error::Packed);
            continue;
        }
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
                    let (around, chart) = around(&mut known, &path);
                    users.push(Text {
                        name,
                        origin,
                        file: Some(path),
                        entry: Some(entry.clone()),
                        text,
                        around,
                        chart,
                    });
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
        let all: Vec<(&Text, &Rewritten)> = all.into_iter().collect();
        for (subject, error) in unmatched(&all) {
            if strict {
                problems.add(subject, error);
            } else {
                warnings.push(format!("{subject}: {error}"));
            }
        }
        for (text, rewritten) in all {
            for finding in &rewritten.uncarried {
                let subject = format!("{}:{}", text.origin, finding.line);
                let error = self.lacking(finding);
                if strict && finding.confidence == Confidence::Certain && finding.shape != Shape::Variable {
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
        if !problems.is_empty() {
            problems.warn(std::mem::take(&mut warnings));
        }
        problems.or(warnings)
    }

    /// What is wrong with a reference that was left as it is.
    fn lacking(&self, finding: &Finding) -> Error {
        let carried = finding.reference.as_ref().is_some_and(|r| self.relocation.lookup(r).is_some());
        let (reference, path) = (finding.value.clone(), finding.path.clone());
        match &finding.reason {
            Some(why) if carried => Error::NotRewritten { reference, path, why: why.clone() },
            Some(why) => Error::Uncarried { reference, path, why: Some(why.clone()) },
            None if finding.shape == Shape::Variable => {
                let why = "that is the variable's default; another value, as in a `.env`, is not seen here".to_owned();
                Error::Uncarried { reference, path, why: Some(why) }
            }
            None => Error::Uncarried { reference, path, why: None },
        }
    }
}

/// The names that rewriting takes away from a kustomization: of images in what it uses, and of what other kustomizations that it uses
/// make of them. Each with its place.
fn unmatched(all: &[(&Text, &Rewritten)]) -> Vec<(String, Error)> {
    let is_one = |text: &Text| is_kustomization(text.name.rsplit('/').next().unwrap_or(&text.name));
    let paths: Vec<PathBuf> = all.iter().map(|(text, _)| place(text)).collect();
    let read = |(at, (text, _)): (usize, &(&Text, &Rewritten))| is_one(text).then(|| (at, kustomization(&text.text)));
    let read: BTreeMap<usize, Kustomization> = all.iter().enumerate().filter_map(read).collect();
    let mut out = Vec::new();
    for (at, matching) in &read {
        for used in reach(*at, &read, &paths) {
            let (text, rewritten) = all[used];
            let moved = rewritten.changes.iter().filter(|change| is_matched(&change.path));
            let mut lost: Vec<(usize, String)> = moved
                .filter(|change| name_of(&change.before) != name_of(&change.after))
                .map(|change| (change.line, name_of(&change.before).to_owned()))
                .collect();
            if let Some(below) = read.get(&used).filter(|_| used != *at) {
                let after = kustomization(&rewritten.text);
                let pairs = below.images.iter().zip(&after.images).filter(|(old, new)| old.new_name != new.new_name);
                lost.extend(pairs.map(|(old, _)| (old.line, old.new_name.clone())));
            }
            for (line, name) in lost {
                if let Some(entry) = matching.images.iter().find(|entry| entry.name == name) {
                    let place = format!("{}:{}", all[*at].0.origin, entry.line);
                    out.push((format!("{}:{line}", text.origin), Error::Unmatched { name, place }));
                }
            }
        }
    }
    out
}

/// The texts that a kustomization uses, itself among them.
fn reach(from: usize, read: &BTreeMap<usize, Kustomization>, paths: &[PathBuf]) -> Vec<usize> {
    let mut reached = vec![from];
    let mut next = 0;
    while let Some(at) = reached.get(next).copied() {
        next += 1;
        let (Some(one), Some(folder)) = (read.get(&at), paths[at].parent()) else { continue };
        for word in one.words.iter().filter(|word| word.len() < 4096 && !word.contains('\n')) {
            let named = joined(folder, word);
            for (other, path) in paths.iter().enumerate() {
                let is_used = *path == named || (read.contains_key(&other) && path.parent() == Some(named.as_path()));
                if is_used && !reached.contains(&other) {
                    reached.push(other);
                }
            }
        }
    }
    reached
}

/// Where a text stands, by which others name it.
fn place(text: &Text) -> PathBuf {
    let real = text.file.as_ref().and_then(|file| file.canonicalize().ok());
    real.unwrap_or_else(|| PathBuf::from(&text.name))
}

/// `below` in `folder`, with `.` and `..` taken by their words.
fn joined(folder: &Path, below: &str) -> PathBuf {
    let mut out = folder.to_owned();
    for part in Path::new(below).components() {
        match part {
            Component::ParentDir => drop(out.pop()),
            Component::Normal(name) => out.push(name),
            Component::CurDir | Component::RootDir | Component::Prefix(_) => {}
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(name: &str, text: &str) -> Text {
        let (around, origin) = (Around::default(), name.to_owned());
        Text { name: name.to_owned(), origin, file: None, entry: None, text: text.to_owned(), around, chart: None }
    }

    fn gate(texts: &[Text], strict: bool) -> Result<Vec<String>, Problems> {
        let mut relocation = Relocation::new(&"reg.local/m".parse().unwrap());
        for reference in ["nginx:1.25", "nginx:1.27", "redis:7"] {
            let reference: ferry_image::Reference = reference.parse().unwrap();
            let digest = ferry_image::Digest::of(reference.to_string().as_bytes());
            relocation.images.push(ferry_image::Relocated {
                repository: format!("reg.local/m/{}", reference.path()),
                tag: reference.tag().map(ToOwned::to_owned),
                source_digest: digest.clone(),
                digest,
                reference,
            });
        }
        let carried = Carried { relocation: &relocation, rules: &[], ignore: &[] };
        let rewritten: Vec<_> = texts.iter().map(|text| carried.apply(text)).collect();
        carried.gate(texts.iter().zip(&rewritten), strict)
    }

    const POD: &str = "kind: Pod\nspec:\n  containers:\n    - image: nginx:1.25\n";
    const OVER: &str = "resources: [../base]\nimages:\n  - {name: nginx, newTag: '1.27'}\n";

    #[test]
    fn a_name_that_a_kustomization_matches_is_not_taken_away_in_silence() {
        let base = "resources: [a.yaml]\nimages: [{name: nginx, newTag: '1.25'}]\n";
        let plain = "resources: [a.yaml]\n";
        for (texts, places) in [
            (
                vec![("k/base/kustomization.yaml", plain), ("k/base/a.yaml", POD), ("k/over/kustomization.yaml", OVER)],
                1,
            ),
            (vec![("base/kustomization.yaml", base), ("over/kustomization.yaml", OVER)], 1),
            (vec![("x/kustomization.yaml", base), ("x/a.yaml", POD)], 1),
            // each alone, or without anything to do with each other
            (vec![("over/kustomization.yaml", OVER)], 0),
            (vec![("base/kustomization.yaml", plain), ("base/a.yaml", POD)], 0),
            (vec![("else/a.yaml", POD), ("over/kustomization.yaml", OVER), ("dev/kustomization.yaml", OVER)], 0),
        ] {
            let texts: Vec<Text> = texts.into_iter().map(|(name, body)| text(name, body)).collect();
            let found: Vec<String> = match gate(&texts, true) {
                Ok(warnings) => warnings,
                Err(problems) => problems.iter().map(ToString::to_string).collect(),
            };
            assert_eq!(found.len(), places, "{found:?}");
            assert!(found.iter().all(|f| f.contains("matches it by that name")), "{found:?}");
            assert_eq!(gate(&texts, false).expect("warnings").len(), places);
        }
    }

    #[test]
    fn what_is_missing_is_said_and_a_default_is_no_error() {
        let compose = "services:\n  a: {image: 'redis:${CACHE:-6}'}\n  b: {image: 'redis:${TAG}'}\n";
        let warnings = gate(&[text("compose.yaml", compose)], true).expect("warnings");
        assert!(
            warnings[0].contains("`redis:${CACHE:-6}` is not carried") && warnings[0].contains(".env"),
            "{warnings:?}"
        );
        assert!(warnings[1].contains("the variable `TAG` has no default here"), "{warnings:?}");
    }

    #[test]
    fn errors_do_not_hide_warnings() {
        let problems = gate(&[text("a.yaml", "image: redis:8\n---\na: {{ x }}\n")], true).expect_err("not carried");
        assert_eq!(problems.warnings().len(), 1, "{:?}", problems.warnings());
    }
}
