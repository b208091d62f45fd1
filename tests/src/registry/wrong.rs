//! A registry that serves sample images and misbehaves as asked: for what no real one does on command.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use crate::http::{Message, Reply, Server};
use crate::images::Image;

/// A read-only registry on a free loopback port.
#[derive(Debug)]
pub struct WrongRegistry {
    server: Server,
    asked: Arc<Mutex<Vec<String>>>,
}

impl WrongRegistry {
    /// Serves images by `NAME:TAG`; `spoil` sees every request with its right answer and may change it.
    pub fn start(images: &[(&str, &Image)], spoil: impl Fn(&Message, &mut Reply) + Send + Sync + 'static) -> Self {
        let mut content: BTreeMap<String, (String, Vec<u8>)> = BTreeMap::new();
        for (name, image) in images {
            let (repository, tag) = name.split_once(':').expect("NAME:TAG");
            for (descriptor, bytes) in &image.manifests {
                let path = |reference: &str| format!("/v2/{repository}/manifests/{reference}");
                let entry = (descriptor.media_type.clone(), bytes.clone());
                if descriptor.digest == image.root.digest {
                    content.insert(path(tag), entry.clone());
                }
                content.insert(path(&descriptor.digest), entry);
            }
            for (digest, bytes) in &image.blobs {
                let path = format!("/v2/{repository}/blobs/{digest}");
                content.insert(path, ("application/octet-stream".into(), bytes.to_vec()));
            }
        }
        let asked = Arc::new(Mutex::new(Vec::new()));
        let log = Arc::clone(&asked);
        let server = Server::start(move |request| {
            log.lock().unwrap().push(format!("{} {}", request.method, request.path));
            let mut reply = right(&content, request);
            spoil(request, &mut reply);
            reply
        });
        Self { server, asked }
    }

    /// `HOST:PORT`.
    #[must_use]
    pub fn host(&self) -> String {
        self.server.host()
    }

    /// Every request so far, as `METHOD PATH`.
    #[must_use]
    pub fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }
}

fn right(content: &BTreeMap<String, (String, Vec<u8>)>, request: &Message) -> Reply {
    if request.path == "/v2/" {
        return Reply::new(200, "application/json", "{}");
    }
    let Some((media_type, bytes)) = content.get(&request.path) else {
        let code = if request.path.contains("/manifests/") { "MANIFEST_UNKNOWN" } else { "BLOB_UNKNOWN" };
        let body = format!(r#"{{"errors":[{{"code":"{code}","message":"unknown"}}]}}"#);
        return Reply::new(404, "application/json", body);
    };
    let range = request.header("range").and_then(|range| {
        let (from, to) = range.strip_prefix("bytes=")?.split_once('-')?;
        let from: usize = from.parse().ok()?;
        let to: usize = if to.is_empty() { bytes.len() } else { to.parse::<usize>().ok()? + 1 };
        (from < bytes.len()).then_some((from, to.min(bytes.len())))
    });
    let reply = match range {
        None => Reply::new(200, media_type, bytes.clone()),
        Some((from, to)) => Reply::new(206, media_type, &bytes[from..to])
            .header("Content-Range", format!("bytes {from}-{}/{}", to - 1, bytes.len())),
    };
    reply.header("Docker-Content-Digest", crate::images::digest(bytes)).header("Accept-Ranges", "bytes")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::Endpoint;
    use crate::images::{Format, Layer};

    #[test]
    fn is_right_until_it_is_spoilt() {
        let image = Image::single("linux/amd64", Format::Oci, vec![Layer::random(1, 1000)]);
        let wrong = WrongRegistry::start(&[("a/b:1", &image)], |request, reply| {
            if request.path.contains("/blobs/") {
                reply.body.truncate(5);
            }
        });
        let get = |path: &str, headers: &[(&str, &str)]| {
            Endpoint::plain(&wrong.host()).send("GET", path, headers, &[]).unwrap()
        };
        let manifest = get("/v2/a/b/manifests/1", &[]);
        assert_eq!(Some(manifest.body.as_slice()), image.manifest(image.digest()));
        assert_eq!(manifest.header("docker-content-digest"), Some(image.digest()));
        let part = get("/v2/a/b/manifests/1", &[("Range", "bytes=2-3")]);
        assert_eq!((part.status, part.body.as_slice()), (206, &manifest.body[2..4]));
        let layer = image.single.as_ref().unwrap().layers[0].digest();
        assert_eq!(get(&format!("/v2/a/b/blobs/{layer}"), &[]).body.len(), 5);
        assert_eq!(get("/v2/a/b/manifests/2", &[]).status, 404);
        assert_eq!(wrong.asked().len(), 4);
    }
}
