//! One request after another: what the plan has for it, the right answer, and what a fault makes of that.

use std::collections::VecDeque;
use std::io::Read;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, OnceLock};
use std::time::{Duration, Instant, SystemTime};

use crate::http::{Body, Break, Delivery, Message, Reply};

use super::Seen;
use super::content::{Content, Manners, refusal};
use super::plan::{Fault, Rule};
use super::route::{self, Route, query};
use super::tokens::{Guard, Tokens};

/// What gives access at the second address.
const PERMIT: &str = "permit=given";

/// What all connections share.
#[derive(Debug)]
pub(super) struct State {
    pub(super) content: Mutex<Content>,
    pub(super) tokens: Mutex<Tokens>,
    pub(super) guard: Guard,
    pub(super) plan: Vec<Rule>,
    pub(super) seen: Mutex<Vec<Seen>>,
    /// When the last requests under a limit were answered.
    pub(super) answered: Mutex<VecDeque<Instant>>,
    /// How much of a quota is spent.
    pub(super) spent: AtomicU64,
    /// Both addresses, known once they listen.
    pub(super) hosts: OnceLock<(String, String)>,
}

impl State {
    pub(super) fn content(&self) -> MutexGuard<'_, Content> {
        self.content.lock().unwrap()
    }

    /// Answers one request, with what the plan has for it.
    pub(super) fn answer(&self, request: &Message, body: &mut Body<'_>, elsewhere: bool) -> Delivery {
        let route = route::read(&request.path);
        let size = match &route {
            Route::Blob { repository, digest } => {
                self.content().repositories.get(repository).and_then(|r| r.blobs.get(digest)).map_or(0, |b| b.len())
            }
            _ => 0,
        };
        let due = |rule| Rule::due(rule, &request.method, &request.path, &route, size);
        let faults: Vec<&Fault> = self.plan.iter().filter(|r| r.is_elsewhere() == elsewhere).filter_map(due).collect();
        let mut bytes = 0;
        let mut delivery = self.delivery(request, &mut Counted(body, &mut bytes), &route, &faults, elsewhere);
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
            bytes,
            when: Instant::now(),
        });
        delivery
    }

    /// Reads the request to its end and answers it: rightly, or as a fault says in its place.
    fn delivery(
        &self,
        head: &Message,
        body: &mut impl Read,
        route: &Route,
        faults: &[&Fault],
        elsewhere: bool,
    ) -> Delivery {
        let unanswered = || Delivery { breaks: Some(Break::Unanswered), ..Reply::empty(0).into() };
        let most = faults.iter().find_map(|fault| match fault {
            Fault::DropRequest(at) | Fault::KeepRequest(at) => Some(*at),
            _ => None,
        });
        let mut request = head.clone();
        let read = body.take(most.unwrap_or(u64::MAX)).read_to_end(&mut request.body);
        if let (Route::Session { id, .. }, true) = (route, faults.iter().any(|f| matches!(f, Fault::KeepRequest(_)))) {
            self.content().keep(*id, &request.body);
        }
        if read.is_err() || most.is_some() {
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
                Fault::TooLarge(most) if request.body.len() > *most => {
                    let page =
                        "<html><head><title>413 Request Entity Too Large</title></head><body>nginx</body></html>";
                    return Reply::new(413, "text/html", page).into();
                }
                Fault::Quota(most, left) => {
                    if let Some(reply) = self.charge(&request, *most, *left) {
                        return reply.into();
                    }
                }
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

    /// 429, when the quota is spent.
    fn charge(&self, request: &Message, most: u64, left: u64) -> Option<Reply> {
        if request.method != "GET" {
            return None;
        }
        let spend = |spent: u64| (spent < left).then_some(spent + 1);
        match self.spent.fetch_update(Ordering::Relaxed, Ordering::Relaxed, spend) {
            Ok(_) => None,
            Err(_) => {
                let reply = refusal(429, "TOOMANYREQUESTS", "You have reached your unauthenticated pull rate limit.");
                Some(quota(reply, most, 0))
            }
        }
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
            Fault::Quota(most, left) => {
                let left = left.saturating_sub(self.spent.load(Ordering::Relaxed));
                let reply = std::mem::replace(&mut delivery.reply, Reply::empty(0));
                delivery.reply = quota(reply, *most, left);
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
            | Fault::KeepRequest(_)
            | Fault::TooLarge(_)
            | Fault::IgnoreRange
            | Fault::OtherRange
            | Fault::Elsewhere
            | Fault::NoMount
            | Fault::RefuseSparse
            | Fault::OnePage => {}
        }
    }
}

fn quota(reply: Reply, most: u64, left: u64) -> Reply {
    let reply = reply.header("ratelimit-limit", format!("{most};w=21600"));
    reply.header("ratelimit-remaining", format!("{left};w=21600"))
}

/// A body whose bytes are counted.
struct Counted<'a, 'b>(&'a mut Body<'b>, &'a mut u64);

impl Read for Counted<'_, '_> {
    fn read(&mut self, into: &mut [u8]) -> std::io::Result<usize> {
        let got = self.0.read(into)?;
        *self.1 += got as u64;
        Ok(got)
    }
}

/// An address at the second host that gives access by itself.
fn permitted(host: &str, path: &str) -> String {
    let join = if path.contains('?') { '&' } else { '?' };
    format!("http://{host}{path}{join}{PERMIT}")
}
