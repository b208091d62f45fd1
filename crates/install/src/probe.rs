//! What the target is asked before anything is pushed, and what it answers. It keeps nothing of it, or [`Probe::leaves`] says what.
//!
//! An install asks what its plan depends on: a HEAD for each name, an upload opened in each repository that is pushed to, for the
//! largest blob that goes there, with which the push goes on; and, where an image wants an index with absent platforms, a small one of that kind. A look ([`Options::is_look`]) also asks what only
//! people want to know.
//!
//! [`Options::is_look`]: crate::Options::is_look

mod asking;
mod opened;
mod refusal;
mod sparse;

use serde::Serialize;

use crate::preflight::{Planned, State};

pub(crate) use asking::{Stock, ask};
pub(crate) use opened::Open;
pub(crate) use refusal::is_immutable;
pub(crate) use sparse::is_refusal;

/// An answer of the target.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub enum Verdict {
    /// It does.
    #[serde(rename = "yes")]
    Yes,
    /// It does not.
    #[serde(rename = "no")]
    No,
    /// Nothing depends on it, or it did not say.
    #[serde(rename = "not asked")]
    NotAsked,
}

impl Verdict {
    /// As in JSON.
    #[must_use]
    pub fn text(self) -> &'static str {
        match self {
            Self::Yes => "yes",
            Self::No => "no",
            Self::NotAsked => "not asked",
        }
    }
}

/// A verdict, and how it was found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Answer {
    /// The verdict.
    pub answer: Verdict,
    /// How it was found, for people.
    pub how: String,
}

impl Answer {
    pub(crate) fn yes(how: impl Into<String>) -> Self {
        Self { answer: Verdict::Yes, how: how.into() }
    }

    pub(crate) fn no(how: impl Into<String>) -> Self {
        Self { answer: Verdict::No, how: how.into() }
    }

    pub(crate) fn not_asked(why: impl Into<String>) -> Self {
        Self { answer: Verdict::NotAsked, how: why.into() }
    }
}

/// What the target was asked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Probe {
    /// Which program it is, if it shows that.
    pub product: Option<String>,
    /// Whether it answers as a registry.
    pub reachable: Answer,
    /// Whether it knows who we are, or does not care.
    pub auth: Answer,
    /// Whether every repository that is pushed to takes uploads.
    pub push: Answer,
    /// Whether a repository that is not there is made by the first push.
    pub create_on_push: Answer,
    /// Whether names may have as many parts as these have.
    pub path_depth: Answer,
    /// Whether an index may name manifests that are absent.
    pub sparse_index: Answer,
    /// Whether a blob that is there is given to a repository without an upload.
    pub mount: Answer,
    /// Whether a blob may be sent in chunks.
    pub chunks: Answer,
    /// Whether tags that are to be set are there already.
    pub existing_tags: Answer,
    /// What was put there to find out, and could not be taken away again.
    pub leaves: Vec<String>,
}

impl Probe {
    /// How what a folder is not asked was found.
    const FOLDER: &str = "it is a folder here";

    /// Each question, in words for people, with its answer; of a folder only those that it was asked.
    pub fn asked(&self) -> impl Iterator<Item = (&'static str, &Answer)> {
        self.rows().into_iter().filter(|(_, answer)| answer.how != Self::FOLDER)
    }

    /// Each question, in words for people, with its answer.
    #[must_use]
    pub fn rows(&self) -> [(&'static str, &Answer); 9] {
        [
            ("reachable", &self.reachable),
            ("authentication", &self.auth),
            ("may push", &self.push),
            ("makes repositories", &self.create_on_push),
            ("path depth", &self.path_depth),
            ("sparse index", &self.sparse_index),
            ("mount", &self.mount),
            ("chunks", &self.chunks),
            ("existing tags", &self.existing_tags),
        ]
    }

    /// Of a store, which is asked nothing over a network.
    pub(crate) fn of_store(sparse_index: Answer, images: &[Planned]) -> Self {
        let folder = || Answer::yes(Self::FOLDER);
        Self {
            product: None,
            reachable: folder(),
            auth: folder(),
            push: folder(),
            create_on_push: folder(),
            path_depth: folder(),
            sparse_index,
            mount: Answer::yes("its repositories share all blobs"),
            chunks: folder(),
            existing_tags: existing_tags(images),
            leaves: Vec::new(),
        }
    }
}

/// What became of the tags that are to be set. Pure.
pub(crate) fn existing_tags(images: &[Planned]) -> Answer {
    let count = |wanted: fn(&State) -> bool| {
        let names = images.iter().filter(|p| wanted(&p.state)).filter_map(|p| Some((&p.repository, p.tag.as_ref()?)));
        names.collect::<std::collections::BTreeSet<_>>().len()
    };
    let all = count(|_| true);
    let (present, moves) =
        (count(|s| matches!(s, State::Present(_) | State::Incomplete(..))), count(|s| matches!(s, State::Moves(_))));
    let stays = count(|s| matches!(s, State::Skipped(_)));
    if all == 0 {
        return Answer::not_asked("no image has a tag");
    }
    let absent = all - present - moves - stays;
    if absent == all {
        return Answer::no(format!("none of {all} is there (HEAD of each)"));
    }
    let parts =
        [(absent, "new"), (present, "there as they should be"), (moves, "to move"), (stays, "left as they are")];
    let parts: Vec<_> = parts.iter().filter(|(n, _)| *n > 0).map(|(n, what)| format!("{n} {what}")).collect();
    Answer::yes(format!("of {all}: {} (HEAD of each)", parts.join(", ")))
}
