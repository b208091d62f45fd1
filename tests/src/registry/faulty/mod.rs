//! A registry of the tests' own that misbehaves as planned: for what no real one does on command.
//!
//! It keeps to the distribution-spec (pulls, pushes, mounts, tags, tokens) until a [`Rule`] of its plan says otherwise, holds
//! everything in memory, and streams its answers. A second address on another host serves what [`Fault::Elsewhere`] sends there,
//! as object storage does: by a permit in the address, and refusing whoever sends credentials as well.

mod content;
mod plan;
mod route;
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::images::{Format, Layer};
    use crate::registry::{PASSWORD, USER, push};

    fn image() -> Image {
        Image::single("linux/amd64", Format::Oci, vec![Layer::random(1, 5000), Layer::random(2, 100)])
    }

    fn layer(image: &Image) -> String {
        image.single.as_ref().unwrap().layers[0].digest()
    }

    #[test]
    fn it_takes_what_is_pushed_and_gives_it_back() {
        let image = image();
        let index = Image::index(Format::Oci, &[&image]);
        let registry = FaultyRegistry::holding(&[]).start([]);
        push(&registry.endpoint(), "some/app:1", &index);
        assert!(registry.holds("some/app", &index));
        let get = |path: &str, headers: &[(&str, &str)]| registry.endpoint().send("GET", path, headers, &[]).unwrap();
        let manifest = get("/v2/some/app/manifests/1", &[]);
        assert_eq!(Some(manifest.body.as_slice()), index.manifest(index.digest()));
        assert_eq!(manifest.header("docker-content-digest"), Some(index.digest()));
        let blob = format!("/v2/some/app/blobs/{}", layer(&image));
        let part = get(&blob, &[("Range", "bytes=2-3")]);
        let size = image.blobs[&layer(&image)].len();
        assert_eq!((part.status, part.header("content-range")), (206, Some(format!("bytes 2-3/{size}").as_str())));
        assert_eq!(part.body, &get(&blob, &[]).body[2..4]);
        assert_eq!(get("/v2/some/app/manifests/2", &[]).status, 404);
        assert_eq!(get(&blob, &[("Range", &format!("bytes={size}-"))]).status, 416);
    }

    #[test]
    fn uploads_in_chunks_follow_their_location_and_mounts_need_no_bytes() {
        let registry = FaultyRegistry::holding(&[]).start([]);
        let send = |method: &str, path: &str, body: &[u8]| registry.endpoint().send(method, path, &[], body).unwrap();
        let digest = crate::images::digest(b"abcdef");
        let opened = send("POST", "/v2/a/b/blobs/uploads/", b"");
        let first = opened.header("location").unwrap();
        let patched = send("PATCH", first, b"abc");
        assert_eq!((patched.status, patched.header("range")), (202, Some("0-2")));
        assert_eq!(send("PATCH", first, b"def").status, 400, "an old address");
        let latest = patched.header("location").unwrap();
        let wrong = registry.endpoint().send("PATCH", latest, &[("Content-Range", "2-4")], b"cde").unwrap();
        assert_eq!(wrong.status, 416);
        assert_eq!(send("PUT", &format!("{latest}&digest={digest}"), b"def").status, 201);
        let mount = format!("/v2/c/d/blobs/uploads/?mount={digest}&from=a/b");
        assert_eq!(send("POST", &mount, b"").status, 201);
        assert_eq!(send("GET", &format!("/v2/c/d/blobs/{digest}"), b"").body, b"abcdef");
    }

    #[test]
    fn tags_come_in_pages() {
        let many = (0..2500).map(|n| format!("v{n:05}"));
        let registry = FaultyRegistry::holding(&[("a/b:1", &image())]).tags("a/b:1", many).start([Rule::once(
            "GET",
            What::Tags,
            Fault::OnePage,
        )
        .of("all")]);
        let get = |path: &str| registry.endpoint().send("GET", path, &[], &[]).unwrap();
        let count = |answer: &Message| {
            let body: serde_json::Value = serde_json::from_slice(&answer.body).unwrap();
            body["tags"].as_array().unwrap().len()
        };
        let mut path = "/v2/a/b/tags/list?n=1000".to_owned();
        let mut sizes = Vec::new();
        loop {
            let page = get(&path);
            sizes.push(count(&page));
            let Some(link) = page.header("link") else { break };
            path = link.trim_start_matches('<').split('>').next().unwrap().to_owned();
        }
        assert_eq!(sizes, [1000, 1000, 501]);
        assert_eq!(count(&get("/v2/a/b/tags/list?n=1000&all=1")), 2501);
    }

    #[test]
    fn tokens_are_for_their_scope_and_end() {
        let image = image();
        let registry = FaultyRegistry::holding(&[("a/b:1", &image)])
            .guard(Guard::Tokens(Duration::from_secs(60)))
            .start([Rule::once("GET", What::Tag, Fault::ExpireTokens).from(4)]);
        let login = Endpoint { login: Some((USER.into(), PASSWORD.into())), ..registry.endpoint() };
        assert_eq!(registry.endpoint().send("GET", "/v2/a/b/manifests/1", &[], &[]).unwrap().status, 401);
        // asked without a token first, each time
        assert_eq!(login.send("GET", "/v2/a/b/manifests/1", &[], &[]).unwrap().status, 200);
        assert_eq!(login.send("GET", "/v2/a/b/manifests/1", &[], &[]).unwrap().status, 200);
        let with = |path: &str, token: &str| {
            let headers = [("Authorization", token)];
            registry.endpoint().send("GET", path, &headers, &[]).unwrap().status
        };
        assert_eq!(with("/v2/a/b/manifests/1", "Bearer token-2"), 200);
        assert_eq!(with("/v2/c/d/manifests/1", "Bearer token-2"), 401, "another repository");
        assert_eq!(with("/v2/a/b/manifests/1", "Bearer token-1"), 401, "it was made to end");
    }

    #[test]
    fn the_other_host_wants_no_credentials() {
        let image = image();
        let blob = format!("/v2/a/b/blobs/{}", layer(&image));
        let registry =
            FaultyRegistry::holding(&[("a/b:1", &image)]).start([Rule::always("*", What::Any, Fault::Elsewhere)]);
        let sent = registry.endpoint().send("GET", &blob, &[], &[]).unwrap();
        let (status, to) = (sent.status, sent.header("location").unwrap());
        assert_eq!(status, 307);
        let path = to.strip_prefix(&format!("http://{}", registry.elsewhere())).unwrap();
        let other = Endpoint::plain(&registry.elsewhere());
        assert_eq!(other.send("GET", path, &[], &[]).unwrap().body, *image.blobs[&layer(&image)]);
        assert_eq!(other.send("GET", path, &[("Authorization", "Bearer x")], &[]).unwrap().status, 400);
        assert_eq!(other.send("GET", &blob, &[], &[]).unwrap().status, 400);
        let opened = registry.endpoint().send("POST", "/v2/a/b/blobs/uploads/", &[], &[]).unwrap();
        assert!(opened.header("location").unwrap().starts_with(&format!("http://{}/v2/", registry.elsewhere())));
        assert_eq!(registry.count(|seen| seen.elsewhere), 3);
    }

    #[test]
    fn no_more_than_the_limit_is_answered() {
        let registry = FaultyRegistry::holding(&[]).start([Rule::always("*", What::Any, Fault::Limit(3, Some(1)))]);
        let answers: Vec<Message> =
            (0..4).map(|_| registry.endpoint().send("GET", "/v2/", &[], &[]).unwrap()).collect();
        assert_eq!(answers.iter().map(|a| a.status).collect::<Vec<_>>(), [200, 200, 200, 429]);
        assert_eq!(answers[3].header("retry-after"), Some("1"));
        std::thread::sleep(Duration::from_millis(1000));
        assert_eq!(registry.endpoint().send("GET", "/v2/", &[], &[]).unwrap().status, 200);
    }
}
