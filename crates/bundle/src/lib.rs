//! Connected side: what to carry, resolved, planned, fetched and sealed into a bundle.
//!
//! ```text
//! bundle manifest ─▶ resolve (sources, platforms) ─▶ plan (pure) ─▶ build (fetch, seal)
//! list, references        ▲            │
//!                        lock ◀────────┘
//! ```
//!
//! Not here: the bundle file's form (`ferry-archive`), HTTP (`ferry-registry-client`), references in YAML (`ferry-rewrite`).
//!
//! Reading order: [`manifest`], [`list`], [`lock`], [`known`], `foresee`, `place`, `select`, `referrers`, `signature`, `verify`,
//! `attached`, `resolve`, `origin`, `missing`, `near`, `fallback`, [`mod@find`], [`carry`], `gate`, [`base`], `learn`, [`patch`],
//! [`plan`](mod@plan), [`output`], [`spool`](mod@spool), [`build`]; and [`mod@diff`], for itself.

mod attached;
pub mod base;
pub mod build;
pub mod carry;
pub mod diff;
pub mod error;
mod fallback;
pub mod find;
mod foresee;
#[doc(hidden)]
pub mod fuzz;
mod gate;
pub mod known;
mod learn;
pub mod list;
pub mod lock;
pub mod manifest;
mod missing;
pub mod near;
mod origin;
pub mod output;
pub mod patch;
mod place;
pub mod plan;
mod referrers;
mod resolve;
#[cfg(test)]
mod samples;
mod select;
mod signature;
pub mod spool;
mod verify;

use std::path::PathBuf;

use ferry_archive::{Partial, Want};
use ferry_content::Problems;
use ferry_image::Digest;
use ferry_registry_client::Client;

pub use base::Base;
pub use build::Built;
pub use error::Error;
pub use plan::{Plan, PlannedImage, PlannedReferrer};

use crate::known::Known;
use crate::learn::Had;
use crate::lock::Lock;
use crate::manifest::{BundleManifest, Platforms};
use crate::plan::Left;
use crate::resolve::Context;
use crate::verify::Keys;

type Carried = (Result<Vec<carry::Yaml>, Problems>, Result<Vec<ferry_archive::File>, Problems>);

/// A bundle that somebody wants.
#[derive(Debug, Clone)]
pub struct Request {
    /// What to carry.
    pub manifest: BundleManifest,
    /// The command line's platforms; they replace those of the bundle manifest.
    pub platforms: Option<Platforms>,
    /// A lock that must be kept to.
    pub locked: Option<Lock>,
    /// The file to make.
    pub output: PathBuf,
    /// The folder that raw layers of archives are compressed in, see [`spool`](mod@spool).
    pub spool: PathBuf,
    /// What was read of images already, see [`known`].
    pub known: Known,
    /// Images resolved at a time.
    pub jobs: usize,
    /// Whether references in carried YAML that are not carried are errors.
    pub strict: bool,
    /// What is on the far side already, and is left out.
    pub bases: Vec<Base>,
    /// What of a damaged bundle is to be had again: everything else of its images is left out. `manifest` is that of [`patch::manifest`].
    pub patch: Option<Want>,
    /// A ferry program to carry as `bin/ferry`.
    pub installer: Option<PathBuf>,
}

impl Request {
    /// What identifies the request, so that an interrupted build knows whether it is asked for again.
    #[must_use]
    pub fn inputs(&self) -> String {
        let locked = self.locked.as_ref().and_then(|l| lock::print(l).ok());
        let mut text = format!("{:?}\n{:?}\n{locked:?}", self.manifest, self.platforms);
        for base in &self.bases {
            text.push_str(&format!("\nbase {}", base.fingerprint));
        }
        if let Some(want) = &self.patch {
            text.push_str(&format!("\npatch {want:?}"));
        }
        Digest::of(text.as_bytes()).to_string()
    }

    /// Resolves and plans. An interrupted build of the same request is taken up with what it had resolved, so that a tag that
    /// moved in the meantime does not throw its bytes away.
    ///
    /// # Errors
    /// Every problem there is, together.
    pub async fn plan(&self, client: &Client) -> Result<Plan, Problems> {
        if let Some(want) = &self.patch {
            let lock = patch::lock(want, &self.manifest, self.locked.as_ref(), client, &self.known).await?;
            return self.plan_with(client, Some(&lock)).await;
        }
        let interrupted = match &self.locked {
            Some(_) => None,
            None => self.interrupted(),
        };
        if let Some(lock) = &interrupted
            && let Ok(plan) = self.plan_with(client, Some(lock)).await
        {
            return Ok(plan);
        }
        self.plan_with(client, self.locked.as_ref()).await
    }

    fn interrupted(&self) -> Option<Lock> {
        let earlier = Partial::peek(&self.output).ok().flatten()?;
        (earlier.inputs == self.inputs()).then(|| lock::parse(&earlier.lock).ok()).flatten()
    }

    async fn plan_with(&self, client: &Client, lock: Option<&Lock>) -> Result<Plan, Problems> {
        let manifest = &self.manifest;
        let keys = Keys::load(manifest)?;
        let context = Context::new(self, client, lock, &keys);
        // all problems together: those of the files do not hide those of the images
        let (yaml, files) = self.carried().await?;
        let (outcome, unresolved) = resolve::resolve_all(&context).await;
        let mut problems = Problems::default();
        let yaml = yaml.map_err(|p| problems.append(p)).unwrap_or_default();
        let mut files = files.map_err(|p| problems.append(p)).unwrap_or_default();
        let warnings = self.gate(&yaml, &outcome).map_err(|p| problems.append(p)).unwrap_or_default();
        problems.append(unresolved);
        if !problems.is_empty() {
            problems.warn(warnings);
            return Err(problems);
        }
        files.extend(yaml.iter().map(ferry_archive::File::from));
        if let Some(path) = &self.installer {
            files.push(carry::installer(path)?);
        }
        let left = self.left(client, &outcome).await;
        plan::plan(manifest, self.platforms.as_ref(), outcome, left, files, warnings)
    }

    /// What need not be in the file.
    async fn left(&self, client: &Client, outcome: &resolve::Outcome) -> Left {
        if let Some(want) = &self.patch {
            let wanted = want.blobs.iter().map(|blob| blob.digest.clone()).collect();
            return Left::AllBut { base: patch::base(want), wanted };
        }
        if self.bases.is_empty() {
            return Left::Nothing;
        }
        let Had { blobs, notes } = Had::learn(self, client, &outcome.documents()).await;
        let mut names = Vec::new();
        for name in self.bases.iter().flat_map(|base| &base.names) {
            if !names.contains(name) {
                names.push(name.clone());
            }
        }
        Left::Had { bases: names, blobs, notes }
    }

    /// Reads what travels with the images, off the async threads: it may be gigabytes.
    async fn carried(&self) -> Result<Carried, Error> {
        let (yaml, files, output) = (self.manifest.yaml.clone(), self.manifest.files.clone(), self.output.clone());
        let read = move || (carry::yaml(&yaml), carry::files(&files, &output));
        let joined = tokio::task::spawn_blocking(read).await;
        joined.map_err(|e| Error::Content(ferry_content::Error::io("read", "files", std::io::Error::other(e))))
    }

    /// Checks the carried YAML against what was resolved, and for images that could not be, against what is listed.
    fn gate(&self, yaml: &[carry::Yaml], outcome: &resolve::Outcome) -> Result<Vec<String>, Problems> {
        let images = &self.manifest.images;
        let absent =
            |image: &manifest::Image| outcome.absent.iter().any(|(reference, _)| reference == &image.reference);
        let carried = |reference: &ferry_image::Reference| {
            images.iter().any(|i| &i.reference == reference && !absent(i))
                || outcome.images.iter().any(|r| r.answers(&images[r.index].reference, reference))
                || outcome.was_mistaken_for(reference)
        };
        let rules: Vec<_> = self.manifest.set.iter().filter(|rule| carried(&rule.image)).cloned().collect();
        gate::pass(yaml, &carried, &rules, &self.manifest.ignore, self.strict)
    }
}
