//! A registry of the tests' own that misbehaves as planned: for what no real one does on command.
//!
//! It keeps to the distribution-spec (pulls, pushes, mounts, tags, tokens) until a [`Rule`] of its plan says otherwise, holds
//! everything in memory, and streams its answers. A second address on another host serves what [`Fault::Elsewhere`] sends there,
//! as object storage does: by a permit in the address, and refusing whoever sends credentials as well.

mod content;
mod plan;
mod route;
#[cfg(test)]
mod tests;
mod tokens;

use std::collections::VecDeque;
use std::io::Read;
use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock};
use std::time::{Duration, Instant, SystemTime};

use crate::http::{Body, Break, Delivery, Endpoint, Message, Reply, Server, Tls};
use crate::images::Image;

use self::content::{Content, Manners, refusal};
use self::route::{Route, query};
use self::tokens::Tokens;

pub use plan::{Fault, Rule, What};
pub use tokens::Guard;

/// What gives access at the second address.
const PERMIT: &str = "permit=given";

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

#[derive(Debug)]
struct State {
    content: Mutex<Content>,
    tokens: Mutex<Tokens>,
    guard: Guard,
    plan: Vec<Rule>,
    seen: Mutex<Vec<Seen>>,
    /// When the last requests under a limit were answered.
    answered: Mutex<VecDeque<Instant>>,
    /// Both addresses, known once they listen.
    hosts: OnceLock<(String, String)>,
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

impl State {
    fn content(&self) -> MutexGuard<'_, Content> {
        self.content.lock().unwrap()
    }

    fn answer(&self, request: &Message, body: &mut Body<'_>, elsewhere: bool) -> Delivery {
        let route = route::read(&request.path);
        let size = match &route {
            Route::Blob { repository, digest } => {
                self.content().repositories.get(repository).and_then(|r| r.blobs.get(digest)).map_or(0, |b| b.len())
            }
            _ => 0,
        };
        let due = |rule| Rule::due(rule, &request.method, &request.path, &route, size);
        // what happens at the second address was planned at the first
        let faults: Vec<&Fault> = if elsewhere { Vec::new() } else { self.plan.iter().filter_map(due).collect() };
        let mut delivery = self.delivery(request, body, &route, &faults, elsewhere);
        for fault in &faults {
            self.spoil(fault, &mut delivery);
        }
        let unanswered = matches!(delivery.breaks, Some(Break::Unanswered | Break::Mute));
        self.seen.lock().unwrap().push(Seen {
            method: request.method.clone(),
            path: request.path.clone(),
            authorization: request.header("authorization").map(str::to_owned),
            status: if unanswered { 0 } else { delivery.reply.status },
            elsewhere,
            when: Instant::now(),
        });
        delivery
    }

    /// Reads the request to its end and answers it: rightly, or as a fault says in its place.
    fn delivery(
        &self,
        head: &Message,
        body: &mut Body<'_>,
        route: &Route,
        faults: &[&Fault],
        elsewhere: bool,
    ) -> Delivery {
        let unanswered = || Delivery { breaks: Some(Break::Unanswered), ..Reply::empty(0).into() };
        let most = faults.iter().find_map(|f| if let Fault::DropRequest(at) = f { Some(*at) } else { None });
        let mut request = head.clone();
        if body.take(most.unwrap_or(u64::MAX)).read_to_end(&mut request.body).is_err() || most.is_some() {
            return unanswered();
        }
        for fault in faults {
            match fault {
                Fault::Answer(reply) => return reply.clone().into(),
                Fault::ComeAgainAt(seconds) => {
                    let date = httpdate::fmt_http_date(SystemTime::now() + Duration::from_secs(*seconds));
                    return Reply::empty(429).header("Retry-After", date).into();
                }
                Fault::Unanswered => return unanswered(),
                Fault::Mute => return Delivery { breaks: Some(Break::Mute), ..Reply::empty(0).into() },
                Fault::Limit(most, wait) => {
                    if let Some(reply) = self.limit(*most, *wait) {
                        return reply.into();
                    }
                }
                _ => {}
            }
        }
        self.right(&request, route, faults, elsewhere).into()
    }

    fn right(&self, request: &Message, route: &Route, faults: &[&Fault], elsewhere: bool) -> Reply {
        let (host, other) = self.hosts.wait();
        if elsewhere {
            let permitted = query(&request.path, "permit").is_some() && request.header("authorization").is_none();
            if !permitted {
                return Reply::new(400, "application/xml", "<Error><Code>InvalidArgument</Code></Error>");
            }
        } else if *route == Route::Token {
            return self.tokens.lock().unwrap().give(self.guard, request);
        } else if let Some(reply) = self.tokens.lock().unwrap().refuse(self.guard, request, route, host) {
            return reply;
        }
        let has = |wanted: fn(&Fault) -> bool| faults.iter().any(|fault| wanted(fault));
        let manners = Manners {
            no_ranges: has(|f| matches!(f, Fault::IgnoreRange)),
            other_range: has(|f| matches!(f, Fault::OtherRange)),
            no_mount: has(|f| matches!(f, Fault::NoMount)),
            refuse_sparse: has(|f| matches!(f, Fault::RefuseSparse)),
            one_page: has(|f| matches!(f, Fault::OnePage)),
        };
        if has(|f| matches!(f, Fault::Elsewhere)) && request.method == "GET" {
            return Reply::empty(307).header("Location", permitted(other, &request.path));
        }
        let mut reply = self.content().answer(request, route, manners);
        // an upload that went elsewhere goes on there
        if (elsewhere || has(|f| matches!(f, Fault::Elsewhere)))
            && matches!(reply.status, 202 | 204)
            && let Some((_, location)) = reply.headers.iter_mut().find(|(name, _)| name == "Location")
        {
            *location = permitted(other, location);
        }
        reply
    }

    /// 429, when too many were answered in the last second.
    fn limit(&self, most: usize, wait: Option<u64>) -> Option<Reply> {
        let mut answered = self.answered.lock().unwrap();
        while answered.front().is_some_and(|when| when.elapsed() >= Duration::from_secs(1)) {
            answered.pop_front();
        }
        if answered.len() < most {
            answered.push_back(Instant::now());
            return None;
        }
        let reply = refusal(429, "TOOMANYREQUESTS", "too many requests");
        Some(wait.iter().fold(reply, |reply, wait| reply.header("Retry-After", wait.to_string())))
    }

    /// What a fault changes in an answer that is ready.
    fn spoil(&self, fault: &Fault, delivery: &mut Delivery) {
        let body = &mut delivery.reply.body;
        match fault {
            Fault::Drop(at) => delivery.breaks = Some(Break::Close(*at)),
            Fault::Stall(at) => delivery.breaks = Some(Break::Stall(*at)),
            Fault::Drip(bytes, rate) => delivery.drip = Some((*bytes, *rate)),
            Fault::Corrupt(at) => body[*at] ^= 1,
            Fault::Short(bytes) => body.truncate(body.len() - bytes),
            Fault::Long(bytes) => body.resize(body.len() + bytes, b' '),
            Fault::Length(by) => delivery.announced = (body.len() as u64).checked_add_signed(*by),
            Fault::Endless => delivery.endless = true,
            Fault::LoseAnswer => delivery.breaks = Some(Break::Unanswered),
            Fault::Header(name, value) => {
                delivery.reply.remove(name);
                delivery.reply.headers.extend(value.clone().map(|value| ((*name).to_owned(), value)));
            }
            Fault::ExpireTokens => self.tokens.lock().unwrap().expire(),
            Fault::Retag(name, digest) => {
                let (repository, tag) = name.split_once(':').expect("NAME:TAG");
                let mut content = self.content();
                let repository = content.repositories.get_mut(repository).expect("the repository is there");
                repository.tags.insert(tag.to_owned(), digest.clone());
            }
            Fault::Answer(_)
            | Fault::Limit(..)
            | Fault::ComeAgainAt(_)
            | Fault::Unanswered
            | Fault::Mute
            | Fault::DropRequest(_)
            | Fault::IgnoreRange
            | Fault::OtherRange
            | Fault::Elsewhere
            | Fault::NoMount
            | Fault::RefuseSparse
            | Fault::OnePage => {}
        }
    }
}

/// An address at the second host that gives access by itself.
fn permitted(host: &str, path: &str) -> String {
    let join = if path.contains('?') { '&' } else { '?' };
    format!("http://{host}{path}{join}{PERMIT}")
}
