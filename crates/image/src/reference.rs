//! Image references: `[host[:port]/]path[:tag][@digest]`, as written and normalised.
//!
//! Grammar: the `distribution/reference` package, which docker, containerd and the kubelet share.
//! A name without a host belongs to `docker.io`; one segment there gets `library/` before it;
//! `:latest` is meant only where neither a tag nor a digest stands.

use std::cmp::Ordering;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::net::Ipv6Addr;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::{Digest, Error};

/// The logical host of Docker Hub. Its API answers at `registry-1.docker.io`.
pub const DOCKER_HUB: &str = "docker.io";

/// The longest `host/path` that registries take.
const MAX_NAME: usize = 255;

/// A reference that parsed. Equality, order and hash look at the normalised parts only;
/// [`written`](Self::written) remembers the user's own text.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Reference {
    written: String,
    host: String,
    path: String,
    tag: Option<String>,
    digest: Option<Digest>,
}

impl Reference {
    /// Puts a reference together from parts, checking each.
    ///
    /// # Errors
    /// When a part does not follow the grammar.
    pub fn new(host: &str, path: &str, tag: Option<&str>, digest: Option<&Digest>) -> Result<Self, Error> {
        let mut text = format!("{host}/{path}");
        if let Some(tag) = tag {
            text.push(':');
            text.push_str(tag);
        }
        if let Some(digest) = digest {
            text.push('@');
            text.push_str(&digest.to_string());
        }
        text.parse()
    }

    /// The text as the user wrote it.
    #[must_use]
    pub fn written(&self) -> &str {
        &self.written
    }

    /// Host and port, normalised (`docker.io` when none was written).
    #[must_use]
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The repository path, normalised (`library/nginx`).
    #[must_use]
    pub fn path(&self) -> &str {
        &self.path
    }

    /// The last segment of the path.
    #[must_use]
    pub fn name(&self) -> &str {
        self.path.rsplit('/').next().unwrap_or(&self.path)
    }

    /// `host/path`.
    #[must_use]
    pub fn repository(&self) -> String {
        format!("{}/{}", self.host, self.path)
    }

    /// The tag: the one written, or `latest` where neither tag nor digest was.
    #[must_use]
    pub fn tag(&self) -> Option<&str> {
        match (&self.tag, &self.digest) {
            (Some(tag), _) => Some(tag),
            (None, None) => Some("latest"),
            (None, Some(_)) => None,
        }
    }

    /// Whether a tag was written out.
    #[must_use]
    pub fn has_written_tag(&self) -> bool {
        self.tag.is_some()
    }

    /// The digest it is pinned to.
    #[must_use]
    pub fn digest(&self) -> Option<&Digest> {
        self.digest.as_ref()
    }

    /// What to ask a registry for: the digest if there is one, else the tag.
    #[must_use]
    pub fn manifest_reference(&self) -> String {
        match (&self.digest, self.tag()) {
            (Some(digest), _) => digest.to_string(),
            (None, tag) => tag.unwrap_or("latest").to_owned(),
        }
    }

    /// The same reference at another repository.
    ///
    /// # Errors
    /// When `host/path` does not follow the grammar.
    pub fn at(&self, host: &str, path: &str) -> Result<Self, Error> {
        Self::new(host, path, self.tag(), self.digest())
    }

    /// The same reference pinned to `digest`.
    #[must_use]
    pub fn pinned(&self, digest: &Digest) -> Self {
        let mut pinned = Self { digest: Some(digest.clone()), tag: self.tag().map(ToOwned::to_owned), ..self.clone() };
        pinned.written = pinned.to_string();
        pinned
    }
}

/// Whether `text` follows the tag grammar (distribution-spec: `[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}`).
#[must_use]
pub fn is_tag(text: &str) -> bool {
    let word = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    text.len() <= 128
        && text.bytes().enumerate().all(|(i, b)| word(b) || (i > 0 && (b == b'.' || b == b'-')))
        && !text.is_empty()
}

/// Whether `text` is a repository path: segments of `[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*`.
#[must_use]
pub fn is_path(text: &str) -> bool {
    !text.is_empty() && text.split('/').all(is_segment)
}

fn is_segment(segment: &str) -> bool {
    let alnum = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let bytes = segment.as_bytes();
    let (Some(first), Some(last)) = (bytes.first(), bytes.last()) else { return false };
    if !alnum(*first) || !alnum(*last) {
        return false;
    }
    bytes
        .split(|b| alnum(*b))
        .filter(|run| !run.is_empty())
        .all(|run| matches!(run, b"." | b"_" | b"__") || run.iter().all(|b| *b == b'-'))
}

/// Whether `text` can be `host[:port]`: a DNS name, an IPv4 address or a bracketed IPv6 one.
#[must_use]
pub fn is_host(text: &str) -> bool {
    let (name, port) = match text.strip_prefix('[') {
        Some(rest) => match rest.split_once(']') {
            Some((inside, "")) => return is_ipv6(inside),
            Some((inside, rest)) => {
                return is_ipv6(inside) && rest.strip_prefix(':').is_some_and(is_port);
            }
            None => return false,
        },
        None => match text.split_once(':') {
            Some((name, port)) => (name, Some(port)),
            None => (text, None),
        },
    };
    port.is_none_or(is_port)
        && !name.is_empty()
        && name.split('.').all(|label| {
            !label.is_empty()
                && !label.starts_with('-')
                && !label.ends_with('-')
                && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
        })
}

/// Whether `host` is a name of Docker Hub: its logical one, or one of the places where it answers.
#[must_use]
pub fn is_docker_hub(host: &str) -> bool {
    matches!(host, DOCKER_HUB | "index.docker.io" | "registry-1.docker.io")
}

/// The grammar has no dots there: an IPv4 address inside an IPv6 one must be written in hex.
fn is_ipv6(text: &str) -> bool {
    !text.contains('.') && text.parse::<Ipv6Addr>().is_ok()
}

fn is_port(text: &str) -> bool {
    text.parse::<u16>().is_ok() && text.bytes().all(|b| b.is_ascii_digit())
}

fn looks_like_host(segment: &str) -> bool {
    segment == "localhost" || segment.contains(['.', ':', '[']) || segment.bytes().any(|b| b.is_ascii_uppercase())
}

impl FromStr for Reference {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let fail = |why: String| Error::Reference { text: text.chars().take(300).collect(), why };
        if text.is_empty() {
            return Err(fail("it is empty".to_owned()));
        }
        if let Some((scheme, _)) = text.split_once("://") {
            return Err(fail(format!("leave `{scheme}://` out")));
        }
        if text.len() == 64 && text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b)) {
            return Err(fail("it is the id of an image, which only one machine knows".to_owned()));
        }
        let (name_and_tag, digest) = match text.split_once('@') {
            Some((name, digest)) => (name, Some(digest.parse::<Digest>().map_err(|e| fail(e.to_string()))?)),
            None => (text, None),
        };
        let last_slash = name_and_tag.rfind('/').map_or(0, |i| i + 1);
        let (name, tag) = match name_and_tag[last_slash..].split_once(':') {
            Some((last, tag)) => (&name_and_tag[..last_slash + last.len()], Some(tag)),
            None => (name_and_tag, None),
        };
        if let Some(tag) = tag
            && !is_tag(tag)
        {
            return Err(fail(format!("`{tag}` is not a tag")));
        }
        let (host, path) = match name.split_once('/') {
            Some((first, rest)) if looks_like_host(first) => (first, rest.to_owned()),
            _ => (DOCKER_HUB, name.to_owned()),
        };
        if !is_host(host) {
            return Err(fail(format!("`{host}` is not a host")));
        }
        let host = if is_docker_hub(host) { DOCKER_HUB } else { host };
        let path = if host == DOCKER_HUB && !path.contains('/') { format!("library/{path}") } else { path };
        if path.bytes().any(|b| b.is_ascii_uppercase()) {
            return Err(fail("a repository path has no upper-case letters".to_owned()));
        }
        if !is_path(&path) {
            return Err(fail(format!("`{path}` is not a repository path")));
        }
        if host.len() + 1 + path.len() > MAX_NAME {
            return Err(fail(format!("the name is longer than {MAX_NAME} characters")));
        }
        Ok(Self { written: text.to_owned(), host: host.to_owned(), path, tag: tag.map(ToOwned::to_owned), digest })
    }
}

/// Prints the normalised form.
impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.host, self.path)?;
        if let Some(tag) = self.tag() {
            write!(f, ":{tag}")?;
        }
        match &self.digest {
            Some(digest) => write!(f, "@{digest}"),
            None => Ok(()),
        }
    }
}

impl Reference {
    fn key(&self) -> (&str, &str, Option<&str>, Option<&Digest>) {
        (&self.host, &self.path, self.tag(), self.digest.as_ref())
    }
}

impl PartialEq for Reference {
    fn eq(&self, other: &Self) -> bool {
        self.key() == other.key()
    }
}

impl Eq for Reference {}

impl Hash for Reference {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.key().hash(state);
    }
}

impl PartialOrd for Reference {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Reference {
    fn cmp(&self, other: &Self) -> Ordering {
        self.key().cmp(&other.key())
    }
}

impl TryFrom<String> for Reference {
    type Error = Error;

    fn try_from(text: String) -> Result<Self, Error> {
        text.parse()
    }
}

impl From<Reference> for String {
    fn from(reference: Reference) -> Self {
        reference.to_string()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const D: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    #[test]
    fn names_are_normalised_as_docker_does() {
        for (written, normal) in [
            ("nginx", "docker.io/library/nginx:latest"),
            ("nginx:1.27", "docker.io/library/nginx:1.27"),
            ("bitnami/etcd:3.5", "docker.io/bitnami/etcd:3.5"),
            ("index.docker.io/nginx", "docker.io/library/nginx:latest"),
            ("docker.io/nginx:1", "docker.io/library/nginx:1"),
            ("localhost/x", "localhost/x:latest"),
            ("localhost:5000/x/y:z", "localhost:5000/x/y:z"),
            (
                "registry.k8s.io/sig-storage/csi-provisioner:v2.0.5",
                "registry.k8s.io/sig-storage/csi-provisioner:v2.0.5",
            ),
            ("[::1]:5000/a:b", "[::1]:5000/a:b"),
            ("a/b__c/d--e.f", "docker.io/a/b__c/d--e.f:latest"),
        ] {
            assert_eq!(written.parse::<Reference>().map(|r| r.to_string()), Ok(normal.to_owned()), "{written}");
        }
        let pinned: Reference = format!("nginx@{D}").parse().expect("parses");
        assert_eq!(pinned.to_string(), format!("docker.io/library/nginx@{D}"));
        assert_eq!(pinned.tag(), None);
        let both: Reference = format!("nginx:1@{D}").parse().expect("parses");
        assert_eq!(both.tag(), Some("1"));
        assert_eq!(both.manifest_reference(), D);
    }

    #[test]
    fn what_is_no_reference_is_refused() {
        for text in [
            "",
            "docker.io/Nginx",
            "a//b",
            "/a",
            "a/",
            "a:",
            "a:b:c",
            "a b",
            "http://a/b",
            "a@sha256:1",
            "a..b",
            "a_-b",
            "-a",
            "x:y/z:t u",
            "[:]/a",
            "[::ffff:10.0.0.1]/a",
            &D[7..],
        ] {
            assert!(text.parse::<Reference>().is_err(), "{text}");
        }
    }

    #[test]
    fn references_are_equal_by_their_normal_form() {
        assert_eq!("nginx".parse::<Reference>(), "docker.io/library/nginx:latest".parse());
        assert_ne!("nginx:1".parse::<Reference>(), "nginx:2".parse());
    }

    /// A repository path, by the grammar's own words.
    fn path() -> impl Strategy<Value = String> {
        let segment = "[a-z0-9]{1,6}((\\.|_|__|-{1,3})[a-z0-9]{1,4}){0,2}";
        prop::collection::vec(segment, 1..4).prop_map(|segments| segments.join("/"))
    }

    proptest! {
        #[test]
        fn what_is_put_together_comes_apart(
            host in "[a-z0-9]([a-z0-9-]{0,6}[a-z0-9])?\\.[a-z]{2,5}(:[0-9]{1,4})?|localhost|REG(:5000)?|\\[fd00::[0-9a-f]{1,4}\\](:[0-9]{1,4})?",
            path in path(),
            tag in prop::option::of("[A-Za-z0-9_][A-Za-z0-9_.-]{0,20}"),
            pinned in any::<bool>(),
        ) {
            prop_assume!(!host.ends_with("docker.io"));
            let digest = pinned.then(|| D.parse().expect("digest"));
            let reference = Reference::new(&host, &path, tag.as_deref(), digest.as_ref()).expect("reference");
            prop_assert_eq!((reference.host(), reference.path()), (host.as_str(), path.as_str()));
            prop_assert_eq!(reference.digest(), digest.as_ref());
            let latest = (!pinned).then_some("latest");
            prop_assert_eq!(reference.tag(), tag.as_deref().or(latest));
        }

        #[test]
        fn without_a_host_it_is_of_docker_hub(path in path()) {
            // a first segment with a dot is a host
            let first = path.split_once('/').map_or("", |(first, _)| first);
            let hosted = first.contains('.') || first == "localhost";
            prop_assume!(!hosted || is_host(first));
            let reference: Reference = path.parse().expect("reference");
            prop_assert_eq!(reference.host() == DOCKER_HUB, !hosted);
            prop_assert!(reference.path().contains('/') || hosted);
        }

        #[test]
        fn what_the_grammar_forbids_is_refused(
            path in path(), bad in "[A-Z]|[^a-z0-9A-Z:@/._-]|\\.\\.|___|\\._|-_|//|/\\.|-/", at in 0_usize..40,
        ) {
            let at = at % (path.len() + 1);
            let text = format!("r.example/{}{bad}{}", &path[..at], &path[at..]);
            prop_assert!(text.parse::<Reference>().is_err(), "{}", text);
        }

        #[test]
        fn the_normal_form_parses_to_itself(text in "([a-z]{1,8}(\\.[a-z]{2,3})(:[0-9]{2,4})?/)?[a-z0-9]{1,6}(/[a-z0-9._-]{1,6}){0,2}(:[A-Za-z0-9._-]{1,9})?") {
            if let Ok(reference) = text.parse::<Reference>() {
                let again: Reference = reference.to_string().parse().expect("normal form parses");
                prop_assert_eq!(&again, &reference);
                prop_assert_eq!(again.to_string(), reference.to_string());
                prop_assert_eq!(reference.written(), text);
            }
        }

        #[test]
        fn no_text_panics(text in "\\PC{0,60}") {
            let _ = text.parse::<Reference>();
        }
    }
}
