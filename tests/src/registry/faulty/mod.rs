//! A registry of the tests' own that misbehaves as planned: for what no real one does on command.
//!
//! It keeps to the distribution-spec (pulls, pushes, mounts, tags, tokens) until a [`Rule`] of its plan says otherwise, holds
//! everything in memory, and streams its answers. A second address on another host serves what [`Fault::Elsewhere`] sends there,
//! as object storage does: by a permit in the address, and refusing whoever sends credentials as well.

mod content;
mod plan;
mod route;
mod state;
#[cfg(test)]
mod tests;
mod tokens;

use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Instant;

use crate::http::{Endpoint, Server, Tls};
use crate::images::Image;

use self::content::Content;
use self::state::State;

pub use plan::{Fault, Rule, What};
pub use tokens::Guard;

/// A request as it was seen.
#[derive(Debug, Clone)]
pub struct Seen {
    /// `GET`.
    pub method: String,
    /// Path and query.
    pub path: String,
    /// What stood in `Authorization`.
    pub authorization: Option<String>,
    /// The status of the answer; 0 for none.
    pub status: u16,
    /// Whether it came to the second address.
    pub elsewhere: bool,
    /// Of its body, as far as it was read.
    pub bytes: u64,
    /// When it was answered.
    pub when: Instant,
}

/// A registry to be started.
#[derive(Debug)]
pub struct Setup {
    content: Content,
    guard: Guard,
    tls: Option<Tls>,
}

/// A running registry; it ends when dropped.
#[derive(Debug)]
pub struct FaultyRegistry {
    server: Server,
    elsewhere: Server,
    state: Arc<State>,
}

impl Setup {
    /// What it asks of its clients.
    #[must_use]
    pub fn guard(self, guard: Guard) -> Self {
        Self { guard, ..self }
    }

    /// With TLS.
    #[must_use]
    pub fn tls(self, tls: Tls) -> Self {
        Self { tls: Some(tls), ..self }
    }

    /// More tags in a repository that is there, for the image of this one.
    #[must_use]
    pub fn tags(mut self, name: &str, tags: impl IntoIterator<Item = String>) -> Self {
        let (repository, tag) = name.split_once(':').expect("NAME:TAG");
        let repository = self.content.repositories.get_mut(repository).expect("the repository is there");
        let digest = repository.tags[tag].clone();
        repository.tags.extend(tags.into_iter().map(|tag| (tag, digest.clone())));
        self
    }

    /// Starts it.
    #[must_use]
    pub fn start(self, plan: impl IntoIterator<Item = Rule>) -> FaultyRegistry {
        let state = Arc::new(State {
            content: Mutex::new(self.content),
            tokens: Mutex::default(),
            guard: self.guard,
            plan: plan.into_iter().collect(),
            seen: Mutex::default(),
            answered: Mutex::default(),
            spent: AtomicU64::new(0),
            hosts: OnceLock::new(),
        });
        let listen = |at, elsewhere, tls| {
            let state = Arc::clone(&state);
            Server::listen(at, tls, move |request, body| state.answer(request, body, elsewhere))
        };
        let server = listen(Ipv4Addr::LOCALHOST, false, self.tls);
        let elsewhere = listen(Ipv4Addr::new(127, 0, 0, 2), true, None);
        state.hosts.set((server.host(), elsewhere.host())).expect("set once");
        FaultyRegistry { server, elsewhere, state }
    }
}

impl FaultyRegistry {
    /// One that holds these images, as `NAME:TAG`, or as `NAME` by digest only.
    #[must_use]
    pub fn holding(images: &[(&str, &Image)]) -> Setup {
        let mut content = Content::default();
        for (name, image) in images {
            content.add(name, image);
        }
        Setup { content, guard: Guard::Open, tls: None }
    }

    /// `HOST:PORT`.
    #[must_use]
    pub fn host(&self) -> String {
        self.server.host()
    }

    /// `HOST:PORT` of the second address.
    #[must_use]
    pub fn elsewhere(&self) -> String {
        self.elsewhere.host()
    }

    /// How the kit itself speaks to it; faults happen to the kit, too.
    #[must_use]
    pub fn endpoint(&self) -> Endpoint {
        Endpoint::plain(&self.host())
    }

    /// Every request so far, in order of their answers.
    #[must_use]
    pub fn seen(&self) -> Vec<Seen> {
        self.state.seen.lock().unwrap().clone()
    }

    /// How many requests so far `wanted` takes.
    #[must_use]
    pub fn count(&self, wanted: impl Fn(&Seen) -> bool) -> usize {
        self.seen().iter().filter(|seen| wanted(seen)).count()
    }

    /// A quota is fresh again: what was left at the start is left once more.
    pub fn renew(&self) {
        self.state.spent.store(0, Ordering::Relaxed);
    }

    /// The bytes under a tag or digest, past all faults.
    #[must_use]
    pub fn manifest(&self, repository: &str, reference: &str) -> Option<Vec<u8>> {
        let content = self.state.content();
        let repository = content.repositories.get(repository)?;
        let digest = repository.tags.get(reference).map_or(reference, String::as_str);
        repository.manifests.get(digest).map(|(_, bytes)| bytes.clone())
    }

    /// Whether everything an image consists of is in `repository`, byte for byte, past all faults.
    #[must_use]
    pub fn holds(&self, repository: &str, image: &Image) -> bool {
        let content = self.state.content();
        let Some(found) = content.repositories.get(repository) else { return false };
        image.manifests.iter().all(|(d, bytes)| found.manifests.get(&d.digest).is_some_and(|(_, b)| b == bytes))
            && image.blobs.iter().all(|(digest, bytes)| found.blobs.get(digest) == Some(bytes))
    }
}
