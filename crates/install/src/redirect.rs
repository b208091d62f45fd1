//! The part for YAML by itself, for `ferry rewrite`: texts to where images went, the gate, the forms. Nothing is asked of a registry.
//!
//! Where images went is said by an install's `relocation.json`, or worked out from a bundle; then a digest is only used where, by what is known
//! of `--index`, the install puts no other one. That each tag was put is taken for granted: what `--on-existing skip` left standing at
//! another digest only the install's own `relocation.json` knows.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Read as _;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use ferry_content::{Problems, texts};
use ferry_image::{Digest, Ignore, Layout, Relocated, Relocation, SetRule, Target, relocation};
use ferry_rewrite::Rewritten;
use ferry_rewrite::emit::{Emitted, Form, Options};

use crate::bundles::Bundles;
use crate::form::{self, FormKind, IndexMode};
use crate::names::Named;
use crate::preflight::{self, documents};
use crate::yaml::{Carried, Text};
use crate::{Error, emit, receipt};

/// What to redirect, and by what.
#[derive(Debug, Clone)]
pub struct Redirect {
    /// Where images went.
    pub relocation: Relocation,
    /// The bundle's rules, if there is one.
    pub rules: Vec<SetRule>,
    /// What the bundle leaves out on purpose, if there is one.
    pub ignore: Vec<Ignore>,
    /// The texts.
    pub texts: Vec<Text>,
    /// Whether references that are not carried are errors.
    pub strict: bool,
    /// In which forms the relocation is written.
    pub emit: Vec<Form>,
    /// How nodes reach the target, for those forms.
    pub emitting: Options,
}

/// Where rewritten texts go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// Below this folder; so do the forms.
    Out(PathBuf),
    /// Back to where they came from; forms go below this folder.
    InPlace(PathBuf),
}

/// What came out.
#[derive(Debug)]
pub struct Redirected {
    /// Each text with what became of it.
    pub texts: Vec<(Text, Rewritten)>,
    /// The forms.
    pub emitted: Vec<Emitted>,
    /// Things that are no errors but that somebody should know.
    pub warnings: Vec<String>,
}

/// Reads an install's `relocation.json`.
///
/// # Errors
/// When it cannot be read, or is none.
pub fn read_relocation(path: &Path) -> Result<Relocation, Error> {
    let io = |e| Error::Content(ferry_content::Error::io("read", path, e));
    let mut bytes = Vec::new();
    File::open(path).map_err(io)?.take(MAX_RELOCATION).read_to_end(&mut bytes).map_err(io)?;
    Relocation::from_json(&bytes).map_err(|source| Error::Relocation { path: path.to_owned(), source })
}

/// A million images would do with that.
const MAX_RELOCATION: u64 = 512 << 20;

/// Where the images of bundles are at `target`, if they were installed there with this `layout` and, where it is known, this `index`. Digests that may
/// be other ones are [unknown](Relocation::unknown).
///
/// # Errors
/// Two images on one name, a name that cannot be, a damaged bundle.
pub fn foresee(
    bundles: &Bundles,
    target: &Target,
    layout: Option<Layout>,
    index: Option<IndexMode>,
) -> Result<Relocation, Problems> {
    let documents = documents(bundles)?;
    let mut problems = Problems::default();
    let named = preflight::named(bundles, layout, &mut Vec::new(), &mut problems);
    for clash in relocation::collisions(named.iter().map(|n| (&n.image.reference, &n.image.root.digest, &n.name))) {
        problems.add("", Error::Collision(clash));
    }
    let mut relocation = Relocation::new(target);
    for named in named {
        let reference = named.image.reference.clone();
        let subject = || format!("image `{reference}`");
        let (digest, is_sure) = match settled(&named, &documents, index) {
            Ok(settled) => settled,
            Err(error) => {
                problems.add(subject(), error);
                continue;
            }
        };
        let relocated = Relocated {
            repository: format!("{}/{}", target.host(), target.path_of(&named.name)),
            tag: named.name.tag,
            source_digest: named.image.root.digest,
            digest,
            reference: reference.clone(),
        };
        if let Err(error) = relocated.replacement(&reference) {
            problems.add(subject(), Error::Name(error));
        }
        if !is_sure {
            relocation.unknown.insert(reference);
        }
        relocation.images.push(relocated);
    }
    relocation.images.sort_by(|a, b| a.reference.cmp(&b.reference));
    problems.or(relocation)
}

/// The digest that an image has at a target, and whether it can have no other one.
fn settled(
    named: &Named,
    documents: &BTreeMap<Digest, Bytes>,
    index: Option<IndexMode>,
) -> Result<(Digest, bool), Error> {
    let forms = form::choose(named, documents, index.unwrap_or_default())?;
    // whatever `--index` said, except that `platform` may pick one of a whole index; then it must be said here as well
    let is_whole = forms.first.kind == FormKind::Original && !forms.first.sparse;
    let is_sure = forms.second.is_none() && (is_whole || index.is_some());
    Ok((forms.first.root.digest, is_sure))
}

/// Rewrites, holds the gate, and makes the forms. Nothing is written. `out` is where files would go, if any would.
///
/// # Errors
/// Every certain reference that is not carried; forms that express nothing.
pub fn redirect(work: Redirect, out: Option<&Path>) -> Result<Redirected, Problems> {
    let carried = Carried { relocation: &work.relocation, rules: &work.rules, ignore: &work.ignore };
    let texts: Vec<(Text, Rewritten)> = work
        .texts
        .into_iter()
        .map(|text| {
            let rewritten = carried.apply(&text);
            (text, rewritten)
        })
        .collect();
    let all = || texts.iter().map(|(text, rewritten)| (text, rewritten));
    let mut problems = Problems::default();
    let warnings = carried.gate(all(), work.strict).map_err(|p| problems.append(p)).unwrap_or_default();
    let emitted = emit::all(&work.emit, &work.relocation, &work.emitting, all());
    let names: Vec<Text> = texts.iter().map(|(text, _)| text.clone()).collect();
    emit::check(&emitted, &work.relocation, out.unwrap_or(Path::new("")), &names, &mut problems);
    if !problems.is_empty() {
        problems.warn(warnings);
        return Err(problems);
    }
    Ok(Redirected { texts, emitted, warnings })
}

impl Redirected {
    /// Writes texts and forms. Returns for each text the file that was written, if one was: in place, what did not change is left alone.
    ///
    /// # Errors
    /// Whatever the disk reports, for each file; nothing is written where that can be told beforehand.
    pub fn write(&self, place: &Place) -> Result<Vec<Option<PathBuf>>, Problems> {
        let mut problems = Problems::default();
        let (Place::Out(out) | Place::InPlace(out)) = place;
        let forms = self.emitted.iter().flat_map(|emitted| emitted.files.iter().map(|file| file.path.as_str()));
        let texts = self.texts.iter().filter(|_| matches!(place, Place::Out(_))).map(|(text, _)| text.name.as_str());
        receipt::can_write(out, texts.chain(forms), &mut problems);
        let changed = self.texts.iter().filter(|(text, rewritten)| rewritten.text != text.text);
        for (text, _) in changed.filter(|_| matches!(place, Place::InPlace(_))) {
            if let Some(path) = outside(text) {
                problems.add(text.origin.clone(), Error::Outside { path });
            }
        }
        if !problems.is_empty() {
            return Err(problems);
        }
        let mut written = Vec::with_capacity(self.texts.len());
        for (text, rewritten) in &self.texts {
            let result = match (place, &text.file) {
                (Place::Out(out), _) => {
                    let path = out.join(&text.name);
                    texts::write(&path, rewritten.text.as_bytes()).map(|()| Some(path))
                }
                (Place::InPlace(_), Some(file)) if rewritten.text != text.text => {
                    replace(file, rewritten.text.as_bytes()).map(|()| Some(file.clone()))
                }
                (Place::InPlace(_), _) => Ok(None),
            };
            match result {
                Ok(path) => written.push(path),
                Err(error) => problems.add("", error),
            }
        }
        emit::write(&self.emitted, out, &mut problems);
        problems.or(written)
    }
}

/// Puts `bytes` in the place of a file, behind a link where it is one, with the permissions that it had.
fn replace(file: &Path, bytes: &[u8]) -> Result<(), ferry_content::Error> {
    let io = |e| ferry_content::Error::io("write", file, e);
    let real = file.canonicalize().map_err(io)?;
    let permissions = fs::metadata(&real).map_err(io)?.permissions();
    texts::write_as(&real, bytes, permissions)
}

/// Where a file really stands, if that is outside of what was named: a link in a folder may lead anywhere.
fn outside(text: &Text) -> Option<PathBuf> {
    let real = text.file.as_ref()?.canonicalize().ok()?;
    let entry = text.entry.as_ref()?.canonicalize().ok()?;
    (!real.starts_with(entry)).then_some(real)
}
