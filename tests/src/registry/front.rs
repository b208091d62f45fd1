//! docker-registry behind a front that answers some requests itself: the habits of registries that do not run here, in the words that
//! those use.

use std::io::Read;
use std::sync::{Arc, Mutex};

use super::{Access, Registry, USER};
use crate::http::{Break, Delivery, Endpoint, Message, Reply, Server};

/// A front, and the registry behind it.
#[derive(Debug)]
pub struct Front {
    server: Server,
    registry: Arc<Registry>,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Front {
    /// Starts both. `habit` sees every request, and answers it or lets it through.
    pub fn start<D: Into<Delivery>>(habit: impl Fn(&Message, &Endpoint) -> Option<D> + Send + Sync + 'static) -> Self {
        let registry = Arc::new(Registry::start(Access::Plain));
        let asked = Arc::new(Mutex::new(Vec::new()));
        let (behind, log) = (Arc::clone(&registry), Arc::clone(&asked));
        let server = Server::start(move |request, body| {
            log.lock().unwrap().push(format!("{} {}", request.method, request.path));
            let (mut request, endpoint) = (request.clone(), behind.endpoint());
            // what breaks off is passed on to nobody
            if body.read_to_end(&mut request.body).is_err() {
                return Delivery { breaks: Some(Break::Unanswered), ..Reply::empty(400).into() };
            }
            habit(&request, &endpoint).map_or_else(|| pass_on(&request, &endpoint).into(), Into::into)
        });
        Self { server, registry, asked }
    }

    /// `HOST:PORT` of the front.
    #[must_use]
    pub fn host(&self) -> String {
        self.server.host()
    }

    /// What stands behind it.
    #[must_use]
    pub fn registry(&self) -> &Registry {
        &self.registry
    }

    /// Every request to the front so far, as `METHOD PATH`.
    #[must_use]
    pub fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }

    /// Harbor: a token service of its own; a push into a project that is not there is refused by name.
    pub fn harbor(projects: &'static [&'static str]) -> Self {
        Self::start(move |request, _| {
            let challenge = |request: &Message| {
                let realm = format!("http://{}/service/token", request.header("host").unwrap_or_default());
                format!(r#"Bearer realm="{realm}",service="harbor-registry""#)
            };
            with_tokens(request, "/service/token", &challenge(request)).or_else(|| {
                let (project, _) = repository(request)?.split_once('/')?;
                if projects.contains(&project) {
                    return None;
                }
                let message = format!("project {project} not found: project {project} not found");
                Some(errors(401, "UNAUTHORIZED", &message).header("Www-Authenticate", ""))
            })
        })
    }

    /// GitLab: names below a project have at most three parts more; what it does not grant, it does not explain.
    pub fn gitlab(project: &'static str) -> Self {
        Self::start(move |request, _| {
            let realm = format!("http://{}/jwt/auth", request.header("host").unwrap_or_default());
            let challenge = format!(r#"Bearer realm="{realm}",service="container_registry""#);
            with_tokens(request, "/jwt/auth", &challenge).or_else(|| {
                let below = repository(request)?.strip_prefix(project).and_then(|rest| rest.strip_prefix('/'));
                if below.is_some_and(|below| below.split('/').count() <= 3) {
                    return None;
                }
                let challenge = format!(r#"{challenge},error="insufficient_scope""#);
                Some(errors(401, "UNAUTHORIZED", "authentication required").header("Www-Authenticate", challenge))
            })
        })
    }

    /// ECR: repositories are made beforehand, all others are unknown; the request that opens an upload in one of those is not answered,
    /// if `drops`.
    pub fn ecr(repositories: &'static [&'static str], drops: bool) -> Self {
        Self::start(move |request, _| {
            if request.header("authorization").is_none() {
                let challenge = r#"Basic realm="https://ecr.example/",service="ecr.amazonaws.com""#;
                let reply = Reply::new(401, "text/plain", "Not Authorized\n").header("Www-Authenticate", challenge);
                return Some(Delivery::from(reply));
            }
            let name = repository(request)?;
            if repositories.contains(&name) {
                return None;
            }
            let message =
                format!("The repository with name '{name}' does not exist in the registry with id '123456789012'");
            let reply = errors(404, "NAME_UNKNOWN", &message);
            let breaks = (drops && request.method == "POST").then_some(Break::Unanswered);
            Some(Delivery { breaks, ..reply.into() })
        })
    }

    /// A registry that puts no second manifest under a tag, and says so with this status, code and message.
    pub fn immutable(status: u16, code: &'static str, message: &'static str) -> Self {
        Self::start(move |request, behind| {
            let (_, reference) = request.path.split_once("/manifests/")?;
            if request.method != "PUT" || reference.starts_with("sha256:") {
                return None;
            }
            let (repository, _) = request.path.strip_prefix("/v2/")?.split_once("/manifests/")?;
            let tags = behind.send("GET", &format!("/v2/{repository}/tags/list"), &[], &[]).unwrap();
            let tags: serde_json::Value = serde_json::from_slice(&tags.body).unwrap();
            let is_there = tags["tags"].as_array().is_some_and(|tags| tags.iter().any(|tag| tag == reference));
            is_there.then(|| errors(status, code, message))
        })
    }

    /// A registry that refuses an index with absent manifests in these words; docker-registry's own are not heard.
    pub fn whole_indexes(status: u16, body: &'static str) -> Self {
        Self::start(move |request, behind| {
            let is_index = request.header("content-type").is_some_and(|t| t.contains("index") || t.contains("list"));
            if request.method != "PUT" || !is_index {
                return None;
            }
            let reply = pass_on(request, behind);
            Some(if reply.status == 201 { reply } else { Reply::new(status, "application/json", body) })
        })
    }
}

/// A token service that gives the one token there is to whoever has a login; everybody else is sent there.
fn with_tokens(request: &Message, path: &str, challenge: &str) -> Option<Reply> {
    if request.path.starts_with(path) {
        let token = format!(r#"{{"token":"for-{USER}","expires_in":300}}"#);
        return Some(Reply::new(200, "application/json", token));
    }
    let bearer = format!("Bearer for-{USER}");
    (request.header("authorization") != Some(&bearer))
        .then(|| errors(401, "UNAUTHORIZED", "unauthorized").header("Www-Authenticate", challenge))
}

/// The repository that a request is about.
fn repository(request: &Message) -> Option<&str> {
    let path = request.path.strip_prefix("/v2/")?;
    ["/manifests/", "/blobs/", "/tags/"].iter().find_map(|end| path.split_once(end)).map(|(name, _)| name)
}

/// An error as the distribution-spec writes it.
fn errors(status: u16, code: &str, message: &str) -> Reply {
    let body = serde_json::json!({"errors": [{"code": code, "message": message, "detail": null}]});
    Reply::new(status, "application/json", body.to_string())
}

/// What the registry behind answers, as if it were said by the front.
fn pass_on(request: &Message, behind: &Endpoint) -> Reply {
    let unwanted = ["host", "authorization", "connection", "content-length", "transfer-encoding"];
    let headers: Vec<(&str, &str)> = request.headers.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect();
    let headers: Vec<_> = headers.into_iter().filter(|(name, _)| !unwanted.contains(name)).collect();
    let answer = behind.send(&request.method, &request.path, &headers, &request.body).unwrap();
    let mut reply = Reply { status: answer.status, headers: Vec::new(), body: answer.body };
    for (name, value) in answer.headers {
        match name.as_str() {
            "connection" | "content-length" | "transfer-encoding" => {}
            "location" => {
                let path = value.find("/v2/").map_or(value.clone(), |at| value[at..].to_owned());
                reply.headers.push((name, path));
            }
            _ => reply.headers.push((name, value)),
        }
    }
    reply
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::images::{Format, Image, Layer};
    use crate::registry::push;
    use crate::require;

    #[test]
    fn what_passes_through_arrives() {
        require!("docker-registry");
        let front = Front::start(|request, _| (request.path == "/v2/secret").then(|| errors(403, "DENIED", "no")));
        let image = Image::single("linux/amd64", Format::Oci, vec![Layer::random(1, 1000)]);
        push(&Endpoint::plain(&front.host()), "some/app:1", &image);
        assert!(front.registry().holds("some/app", &image));
        let refused = Endpoint::plain(&front.host()).send("GET", "/v2/secret", &[], &[]).unwrap();
        assert_eq!(refused.status, 403);
        assert!(front.asked().contains(&"PUT /v2/some/app/manifests/1".to_owned()), "{:?}", front.asked());
    }
}
