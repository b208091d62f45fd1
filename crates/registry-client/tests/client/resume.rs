//! Uploads that break off, or that the registry wants otherwise.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use ferry_content::copy::{Job, Options, Outcome, Patience, Silent, copy_all};
use ferry_content::{BoxFuture, ByteStream, Failure as _, Ingester as _, Kind, Provider};
use ferry_image::{Descriptor, Digest};
use ferry_registry_client::{Client, Repository};
use futures_util::stream;

use crate::server::{Answer, Seen, Server, answer};
use crate::{blob, config, repository, shown};

const MIB: usize = 1 << 20;

/// A registry with one upload at a time, as strict as distribution 3. What happens to a request is decided when its head is there.
#[derive(Default)]
struct Registry {
    /// After how many bytes of body requests break, one after the other.
    cuts: Mutex<VecDeque<usize>>,
    /// Whether a request that broke takes the session with it, as with docker-registry 2.8.
    forgets: bool,
    /// Where sessions are: before the number of the next step.
    base: String,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Bytes of the session; none when there is no session.
    has: Option<usize>,
    /// Every step has another address, and only the last one is good.
    step: usize,
    /// The blob that was pushed last, as an address names it.
    done: Option<String>,
}

type Quirk = fn(&Seen, &Registry) -> Option<Answer>;

impl Registry {
    fn breaking(cuts: impl IntoIterator<Item = usize>, forgets: bool) -> Self {
        Self { cuts: Mutex::new(cuts.into_iter().collect()), forgets, ..Self::default() }
    }

    fn has(&self) -> Option<usize> {
        self.state.lock().unwrap().has
    }

    fn next(&self, state: &mut State) -> String {
        state.step += 1;
        format!("{}/session/{}?_state=a%2Fb=", self.base, state.step)
    }

    fn progress(&self, status: u16, state: &mut State) -> Answer {
        let last = state.has.unwrap_or_default().saturating_sub(1);
        answer(status).header("location", self.next(state)).header("range", format!("0-{last}"))
    }

    fn respond(&self, seen: &Seen) -> Answer {
        let mut state = self.state.lock().unwrap();
        if seen.method == "POST" && state.done.is_some() && state.done == named(seen) {
            return answer(201);
        }
        if seen.method == "POST" {
            state.has = Some(0);
            return answer(202).header("location", self.next(&mut state));
        }
        let current = format!("/session/{}?_state=a%2Fb=", state.step);
        let (Some(has), true) = (state.has, seen.path.starts_with(&current) || seen.method == "GET") else {
            return answer(404).body(r#"{"errors":[{"code":"BLOB_UPLOAD_UNKNOWN"}]}"#);
        };
        let length: usize = seen.header("content-length").map_or(0, |v| v.parse().unwrap());
        let range = seen.header("content-range").map(|v| v.split_once('-').unwrap());
        match seen.method.as_str() {
            "GET" => return self.progress(204, &mut state),
            "DELETE" => {
                state.has = None;
                return answer(204);
            }
            "PATCH" => {
                let (first, last) = range.unwrap();
                let (first, last): (usize, usize) = (first.parse().unwrap(), last.parse().unwrap());
                assert_eq!(length, last + 1 - first);
                if first != has {
                    return self.progress(416, &mut state);
                }
            }
            "PUT" => assert!(seen.path.contains("&digest=sha256%3A") && range.is_none(), "{seen:?}"),
            method => panic!("{method}"),
        }
        let cut = self.cuts.lock().unwrap().pop_front_if(|cut| *cut <= length && length > 0);
        if let Some(cut) = cut {
            state.has = (!self.forgets).then_some(has + cut);
            return answer(500).cut(cut);
        }
        state.has = Some(has + length);
        if seen.method == "PATCH" {
            return self.progress(202, &mut state);
        }
        (state.has, state.done) = (None, named(seen));
        answer(201)
    }
}

/// The digest in an address.
fn named(seen: &Seen) -> Option<String> {
    let path = seen.path.replace("%3A", ":");
    path.split_once("sha256:").map(|(_, rest)| rest[..64].to_owned())
}

async fn serve(registry: Registry, quirk: Quirk) -> Server {
    Server::start(move |seen| match seen.path.as_str() {
        "/v2/" => answer(200),
        _ => quirk(seen, &registry).unwrap_or_else(|| registry.respond(seen)),
    })
    .await
}

fn none(_: &Seen, _: &Registry) -> Option<Answer> {
    None
}

fn content(size: usize) -> Vec<u8> {
    let mut bytes: Vec<u8> = (0..=250).collect::<Vec<u8>>().repeat(size / 251 + 1);
    bytes.truncate(size);
    bytes
}

/// One blob in slices, as a file is read.
struct Slices(Bytes);

impl Provider for Slices {
    fn open<'a>(
        &'a self,
        _: &'a Descriptor,
        range: Range<u64>,
    ) -> BoxFuture<'a, Result<ByteStream, ferry_content::Error>> {
        let range = usize::try_from(range.start).unwrap()..usize::try_from(range.end).unwrap();
        let bytes = self.0.slice(range);
        let slices =
            (0..bytes.len()).step_by(MIB / 4).map(move |at| Ok(bytes.slice(at..bytes.len().min(at + MIB / 4))));
        Box::pin(async move { Ok(Box::pin(stream::iter(slices)) as ByteStream) })
    }
    fn place(&self) -> String {
        "slices".to_owned()
    }
}

/// Pushes as an install does.
async fn push(repository: &Repository, content: &[u8]) -> Result<Outcome, ferry_content::Error> {
    let provider = Arc::new(Slices(Bytes::copy_from_slice(content)));
    let job = Job::new(blob(content), provider, Arc::new(repository.uploads(None)));
    let patience =
        Patience { attempts: 6, first_wait: Duration::from_millis(1), longest_wait: Duration::from_millis(5) };
    let options = Options { patience, ..Options::default() };
    copy_all(vec![job], &options, Arc::new(Silent)).await.pop().unwrap().unwrap()
}

/// `METHOD bytes` of each request about a session, and `first-last` of chunks.
fn steps(server: &Server) -> Vec<String> {
    let shown = |s: &Seen| match s.header("content-range") {
        Some(range) => format!("{} {range}", s.method),
        None if s.method == "PUT" => format!("PUT {}", s.header("content-length").unwrap()),
        None => s.method.clone(),
    };
    server.seen().iter().map(shown).collect()
}

/// What the registry got, put together.
fn received(server: &Server, size: usize) -> Vec<u8> {
    let mut bytes = vec![0; size];
    for seen in server.seen() {
        let range = seen.header("content-range").map(|v| v.split_once('-').unwrap().0);
        let at = range.map_or(0, |first| first.parse().unwrap());
        bytes[at..at + seen.body.len()].copy_from_slice(&seen.body);
    }
    bytes
}

#[tokio::test]
async fn a_broken_put_goes_on_where_the_registry_stopped() {
    let content = content(MIB);
    let server = serve(Registry::breaking([300_000], false), none).await;
    assert_eq!(push(&repository(&server), &content).await.unwrap(), Outcome::Copied);
    assert_eq!(steps(&server), ["POST", "PUT 1048576", "GET", "PATCH 300000-1048575", "PUT 0"]);
    assert!(received(&server, MIB) == content);
    let paths: Vec<String> = server.seen()[2..].iter().map(|s| s.path.clone()).collect();
    let last = format!("/session/3?_state=a%2Fb=&digest=sha256%3A{}", Digest::of(&content).hex());
    assert_eq!(paths, ["/session/1?_state=a%2Fb=", "/session/2?_state=a%2Fb=", &last], "each answer's own address");
}

#[tokio::test]
async fn a_registry_that_stops_listening_is_asked_again() {
    // more than the buffers on the way take
    let content = content(24 * MIB);
    let server = serve(Registry::breaking([300_000], false), |seen, registry| {
        let first = seen.method == "PUT" && registry.cuts.lock().unwrap().len() == 1;
        first.then(|| registry.respond(seen).deaf(300_000))
    })
    .await;
    assert_eq!(push(&repository(&server), &content).await.unwrap(), Outcome::Copied);
    let mut steps = steps(&server);
    // the first request is seen when it ends, and that may be late
    steps.retain(|step| step != "PUT 25165824");
    assert_eq!(steps, ["POST", "GET", "PATCH 300000-25165823", "PUT 0"]);
    assert!(received(&server, content.len())[300_000..] == content[300_000..]);
}

#[tokio::test]
async fn a_transfer_that_makes_progress_may_break_any_number_of_times() {
    let content = content(4 * MIB);
    let server = serve(Registry::breaking([100_000; 30], false), none).await;
    assert_eq!(push(&repository(&server), &content).await.unwrap(), Outcome::Copied);
    assert!(received(&server, content.len()) == content);
    let taken: usize = server.seen().iter().map(|s| s.body.len()).sum();
    assert_eq!(taken, content.len(), "no byte was taken twice");
    assert_eq!(steps(&server).iter().filter(|s| *s == "POST").count(), 1);
}

#[tokio::test]
async fn a_registry_that_forgets_gets_chunks_on_connections_of_their_own() {
    let content = content(12 * MIB);
    let server = serve(Registry::breaking([8 * MIB], true), none).await;
    let repository = repository(&server);
    assert_eq!(push(&repository, &content).await.unwrap(), Outcome::Copied);
    let steps = steps(&server);
    assert_eq!(steps[..4], ["POST", "PUT 12582912", "GET", "POST"]);
    assert_eq!(steps.last().unwrap(), "PUT 0");
    let chunks: Vec<Seen> = server.seen().into_iter().filter(|s| s.method == "PATCH").collect();
    assert!(chunks.len() > 1 && chunks.iter().all(|s| s.body.len() <= 6 * MIB), "{steps:?}");
    assert!(received(&server, content.len()) == content);
    let mut connections: Vec<usize> = chunks.iter().map(|s| s.connection).collect();
    connections.dedup();
    assert_eq!(connections.len(), chunks.len());
    assert!(connections.iter().all(|c| *c > 1));
}

#[tokio::test]
async fn the_registrys_own_least_size_of_a_chunk_is_kept_to() {
    let quirk: Quirk = |seen, registry| {
        let answer = || registry.respond(seen).header("oci-chunk-min-length", (7 * MIB).to_string());
        (seen.method == "POST").then(answer)
    };
    let content = content(16 * MIB);
    let server = serve(Registry::breaking([8 * MIB], true), quirk).await;
    push(&repository(&server), &content).await.unwrap();
    assert_eq!(
        steps(&server)[3..],
        ["POST", "PATCH 0-7340031", "PATCH 7340032-14680063", "PATCH 14680064-16777215", "PUT 0"]
    );
}

#[tokio::test]
async fn what_the_registry_did_not_take_is_sent_again() {
    // after the break it says of the chunk that it has one thousand bytes less
    let quirk: Quirk = |seen, registry| {
        let short = seen.method == "PATCH" && seen.header("content-range") == Some("300000-1048575");
        short.then(|| {
            let answer = registry.respond(seen);
            let mut state = registry.state.lock().unwrap();
            state.has = state.has.map(|has| has - 1000);
            drop(answer);
            registry.progress(202, &mut state)
        })
    };
    let content = content(MIB);
    let server = serve(Registry::breaking([300_000], false), quirk).await;
    push(&repository(&server), &content).await.unwrap();
    assert_eq!(steps(&server)[3..], ["PATCH 300000-1048575", "PATCH 1047576-1048575", "PUT 0"]);
    assert!(received(&server, MIB) == content);
}

#[tokio::test]
async fn a_416_tells_where_to_go_on() {
    for with_range in [true, false] {
        static WITHOUT: AtomicUsize = AtomicUsize::new(0);
        WITHOUT.store(usize::from(!with_range), Ordering::Relaxed);
        // meanwhile the registry has found more bytes in its buffers than it said
        let quirk: Quirk = |seen, registry| {
            let late = seen.method == "PATCH" && seen.header("content-range") == Some("300000-1048575");
            late.then(|| {
                registry.state.lock().unwrap().has = Some(400_000);
                let answer = registry.respond(seen);
                if WITHOUT.load(Ordering::Relaxed) == 1 { crate::server::answer(416) } else { answer }
            })
        };
        let content = content(MIB);
        let server = serve(Registry::breaking([300_000], false), quirk).await;
        push(&repository(&server), &content).await.unwrap();
        let expected: &[&str] = match with_range {
            true => &["PATCH 300000-1048575", "PATCH 400000-1048575", "PUT 0"],
            false => &["PATCH 300000-1048575", "GET", "PATCH 400000-1048575", "PUT 0"],
        };
        assert_eq!(steps(&server)[3..], *expected);
    }
}

#[tokio::test]
async fn a_registry_that_takes_no_chunks_gets_it_whole() {
    for status in [400, 404, 405, 415, 416, 501] {
        let server = {
            let cuts = Registry::breaking([8 * MIB], true);
            Server::start(move |seen| match (seen.path.as_str(), seen.method.as_str()) {
                ("/v2/", _) => answer(200),
                (_, "PATCH") => answer(status),
                _ => cuts.respond(seen),
            })
            .await
        };
        let content = content(12 * MIB);
        assert_eq!(push(&repository(&server), &content).await.unwrap(), Outcome::Copied, "{status}");
        let steps = steps(&server);
        assert_eq!(steps.iter().filter(|s| s.starts_with("PATCH")).count(), 1, "{status}: {steps:?}");
        assert_eq!(steps.last().unwrap(), "PUT 12582912", "{status}: {steps:?}");
    }
}

#[tokio::test]
async fn a_registry_that_takes_only_one_chunk_gets_it_whole() {
    let quirk: Quirk = |seen, registry| {
        let second = seen.method == "PATCH" && registry.has() != Some(0);
        second.then(|| registry.progress(416, &mut registry.state.lock().unwrap()))
    };
    let content = content(12 * MIB);
    let server = serve(Registry::breaking([8 * MIB], true), quirk).await;
    push(&repository(&server), &content).await.unwrap();
    let steps = steps(&server);
    assert_eq!(steps.last().unwrap(), "PUT 12582912", "{steps:?}");
    assert!(steps.len() < 10, "{steps:?}");
}

#[tokio::test]
async fn where_one_put_is_too_large_chunks_are_found_that_are_not() {
    for whole in [413, 405] {
        let server = {
            let registry = Registry::default();
            Server::start(move |seen| {
                let length: usize = seen.header("content-length").map_or(0, |v| v.parse().unwrap());
                match (seen.path.as_str(), seen.method.as_str()) {
                    ("/v2/", _) => answer(200),
                    (_, "PATCH" | "PUT") if whole == 413 && length > 2 * MIB => answer(413).unread(),
                    (_, "PUT") if length > 0 && whole == 405 => answer(405).unread(),
                    _ => registry.respond(seen),
                }
            })
            .await
        };
        let content = content(6 * MIB);
        let repository = repository(&server);
        assert_eq!(push(&repository, &content).await.unwrap(), Outcome::Copied, "{whole}");
        assert!(received(&server, content.len()) == content, "{whole}");
        assert_eq!(steps(&server).last().unwrap(), "PUT 0", "{whole}");
    }
}

#[tokio::test]
async fn who_refuses_every_size_is_named_with_what_to_do() {
    let refuses = |seen: &Seen, _: &Registry| matches!(seen.method.as_str(), "PATCH" | "PUT").then(|| answer(413));
    let server = serve(Registry::default(), refuses).await;
    let error = push(&repository(&server), &content(MIB)).await.unwrap_err();
    assert!(shown(&error).contains("client_max_body_size"), "{}", shown(&error));
    assert!(shown(&error).contains(&server.host) && shown(&error).contains("413"), "{}", shown(&error));
    assert!(steps(&server).len() < 10, "{:?}", steps(&server));
}

#[tokio::test]
async fn refusals_that_nothing_helps_against_end_it_at_once() {
    for (status, code) in [(403, "DENIED"), (409, ""), (400, "UNSUPPORTED"), (507, ""), (404, "NAME_UNKNOWN")] {
        let server = Server::start(move |seen| match seen.method.as_str() {
            "POST" => answer(202).header("location", "/session/1"),
            "PUT" => answer(status).body(format!(r#"{{"errors":[{{"code":"{code}","message":"so it is"}}]}}"#)),
            _ => answer(200),
        })
        .await;
        let error = push(&repository(&server), &content(1000)).await.unwrap_err();
        assert!(shown(&error).contains("so it is") && shown(&error).contains(&status.to_string()), "{}", shown(&error));
        assert_eq!((error.kind(), steps(&server).len()), (Kind::Remote, 2), "{status}: {:?}", steps(&server));
    }
}

#[tokio::test]
async fn a_registry_that_is_away_for_a_while_is_waited_for() {
    static AWAY: AtomicUsize = AtomicUsize::new(0);
    let quirk: Quirk = |seen, _| {
        let away = seen.method == "GET" && AWAY.fetch_add(1, Ordering::Relaxed) < 8;
        away.then(|| answer(503))
    };
    let content = content(MIB);
    let server = serve(Registry::breaking([300_000], false), quirk).await;
    push(&repository(&server), &content).await.unwrap();
    let steps = steps(&server);
    assert_eq!(steps[steps.len() - 2..], ["PATCH 300000-1048575", "PUT 0"], "{steps:?}");
    assert_eq!(steps.iter().filter(|s| *s == "POST").count(), 1, "the session is not given up: {steps:?}");
}

#[tokio::test]
async fn a_session_that_the_registry_still_holds_is_waited_for() {
    static HELD: AtomicUsize = AtomicUsize::new(0);
    let quirk: Quirk = |seen, _| {
        let held = seen.method == "PATCH" && HELD.fetch_add(1, Ordering::Relaxed) < 3;
        held.then(|| answer(409).body(r#"{"errors":[{"code":"BLOB_UPLOAD_INVALID"}]}"#))
    };
    let content = content(MIB);
    let server = serve(Registry::breaking([300_000], false), quirk).await;
    push(&repository(&server), &content).await.unwrap();
    let steps = steps(&server);
    assert_eq!(steps.iter().filter(|s| *s == "POST").count(), 1, "{steps:?}");
    assert_eq!(steps.last().unwrap(), "PUT 0", "{steps:?}");
}

#[tokio::test]
async fn a_lost_answer_is_no_lost_upload() {
    let content = content(MIB);
    let quirk: Quirk = |seen, registry| (seen.method == "PUT").then(|| registry.respond(seen).cut(MIB));
    let server = serve(Registry::default(), quirk).await;
    assert_eq!(push(&repository(&server), &content).await.unwrap(), Outcome::Copied);
    assert_eq!(steps(&server), ["POST", "PUT 1048576", "GET", "POST"]);
}

#[tokio::test]
async fn wrong_bytes_are_given_up_with_their_session() {
    let mut wrong = content(MIB);
    let right = blob(&wrong);
    wrong[7] ^= 1;
    let server = serve(Registry::default(), none).await;
    let uploads = repository(&server).uploads(None);
    let upload = uploads.start(&right).await.unwrap().unwrap();
    upload.write_at(0, vec![Bytes::from(wrong[..MIB - 1].to_vec())]).await.unwrap();
    tokio::time::sleep(Duration::from_millis(50)).await;
    upload.reset().await.unwrap();
    assert!(upload.write_at(0, vec![Bytes::from_static(b"x")]).await.is_err(), "it is over");
    drop(upload);
    let seen = server.wait(3).await;
    let deleted = seen.iter().find(|s| s.method == "DELETE").unwrap();
    assert!(deleted.path.starts_with("/session/1?"));
}

#[tokio::test]
async fn an_old_token_is_renewed_and_the_session_goes_on() {
    // the newest token is good for the request that opens the upload only
    let issued = Arc::new(AtomicUsize::new(0));
    let tokens = Arc::clone(&issued);
    let auth = Server::start(move |_| {
        let n = tokens.fetch_add(1, Ordering::Relaxed) + 1;
        answer(200).body(format!(r#"{{"token":"t{n}","expires_in":300}}"#))
    })
    .await;
    // in mid-session, at its first request, and never again
    for (method, good_from, fine) in [("PATCH", 2, true), ("PUT", 2, true), ("PATCH", 9, false), ("PUT", 9, false)] {
        issued.store(0, Ordering::Relaxed);
        let realm = format!("http://{}/token", auth.host);
        let registry = Registry::breaking(Some(300_000).filter(|_| method == "PATCH"), false);
        let server = Server::start(move |seen| {
            let token: usize =
                seen.header("authorization").and_then(|v| v.strip_prefix("Bearer t")).map_or(0, |v| v.parse().unwrap());
            let needed = if seen.method == method { good_from } else { 1 };
            if token < needed {
                return answer(401)
                    .header("www-authenticate", format!(r#"Bearer realm="{realm}",service="r""#))
                    .unread();
            }
            registry.respond(seen)
        })
        .await;
        let content = content(MIB);
        let result = push(&repository(&server), &content).await;
        assert_eq!(result.is_ok(), fine, "{method} {good_from}: {:?}", steps(&server));
        assert_eq!(issued.load(Ordering::Relaxed), 2, "{method}: renewed once");
        if fine {
            assert!(received(&server, MIB) == content);
            let posts = steps(&server).iter().filter(|s| *s == "POST").count();
            assert_eq!(posts, if method == "PATCH" { 1 } else { 2 }, "{method}");
        } else {
            assert!(shown(&result.unwrap_err()).contains("401"));
        }
    }
}

#[tokio::test]
async fn a_session_elsewhere_is_resumed_there_and_does_not_see_who_we_are() {
    let store = serve(Registry::breaking([300_000], false), |seen, registry| {
        // opened by the registry
        (seen.method == "PUT" && registry.has().is_none()).then(|| {
            registry.state.lock().unwrap().has = Some(0);
            registry.state.lock().unwrap().step = 1;
            registry.respond(seen)
        })
    })
    .await;
    let to = format!("http://{}/session/1?_state=a%2Fb=", store.host);
    let server = Server::start(move |seen| match (seen.method.as_str(), seen.header("authorization")) {
        (_, None) => answer(401).header("www-authenticate", "Basic"),
        ("POST", _) => answer(202).header("location", &to),
        _ => answer(200),
    })
    .await;
    let repository = crate::auth::client(&server, "me", "pw").repository(&server.host, "team/app").unwrap();
    let content = content(MIB);
    push(&repository, &content).await.unwrap();
    assert_eq!(steps(&store), ["PUT 1048576", "GET", "PATCH 300000-1048575", "PUT 0"]);
    assert!(store.seen().iter().all(|s| s.header("authorization").is_none()));
    assert!(received(&store, MIB) == content);
}

#[tokio::test]
async fn locations_of_every_kind_are_followed() {
    for base in ["", "http://HOST"] {
        let to = Arc::new(Mutex::new(String::new()));
        let (registry, host) = (Registry::breaking([300_000], false), Arc::clone(&to));
        let registry = Mutex::new(registry);
        let server = Server::start(move |seen| {
            let mut registry = registry.lock().unwrap();
            registry.base.clone_from(&host.lock().unwrap());
            if seen.path == "/v2/" { answer(200) } else { registry.respond(seen) }
        })
        .await;
        *to.lock().unwrap() = base.replace("HOST", &server.host);
        push(&repository(&server), &content(MIB)).await.unwrap();
        assert_eq!(steps(&server), ["POST", "PUT 1048576", "GET", "PATCH 300000-1048575", "PUT 0"], "{base}");
    }
}

#[tokio::test]
async fn what_is_learnt_of_a_registry_is_known_to_all_its_uploads() {
    let content = content(12 * MIB);
    let server = serve(Registry::breaking([8 * MIB], true), none).await;
    let client = Client::new(config()).unwrap();
    push(&client.repository(&server.host, "team/app").unwrap(), &content).await.unwrap();
    let before = server.seen().len();
    let mut second = content.clone();
    second[0] ^= 1;
    push(&client.repository(&server.host, "team/other").unwrap(), &second[..9 * MIB]).await.ok();
    assert!(steps(&server)[before..].iter().all(|s| !s.starts_with("PUT") || s == "PUT 0"), "{:?}", steps(&server));
    assert!(steps(&server).len() > before);
}
