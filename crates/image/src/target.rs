//! Where images go: the target registry with its prefix, and the name of each image there (design, "Names at the target").

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::reference::{DOCKER_HUB, is_docker_hub, is_host, is_path, is_tag};
use crate::{Error, Reference};

/// `HOST[:PORT][/PREFIX]`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Target {
    host: String,
    prefix: String,
}

impl Target {
    /// Host and port.
    #[must_use]
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The path before every repository; may be empty.
    #[must_use]
    pub fn prefix(&self) -> &str {
        &self.prefix
    }

    /// The repository path of `name` on the host, prefix included.
    #[must_use]
    pub fn path_of(&self, name: &TargetName) -> String {
        if self.prefix.is_empty() { name.repository.clone() } else { format!("{}/{}", self.prefix, name.repository) }
    }

    /// Whether `reference` already points under this target.
    #[must_use]
    pub fn holds(&self, reference: &Reference) -> bool {
        reference.host() == self.host
            && (self.prefix.is_empty()
                || reference.path().strip_prefix(&self.prefix).is_some_and(|rest| rest.starts_with('/')))
    }
}

impl FromStr for Target {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let fail = |why: String| Error::Target { text: text.chars().take(300).collect(), why };
        if let Some((scheme, _)) = text.split_once("://") {
            return Err(fail(format!("leave `{scheme}://` out (for plain HTTP there is `--plain-http`)")));
        }
        let text = text.strip_suffix('/').unwrap_or(text);
        let (host, prefix) = text.split_once('/').unwrap_or((text, ""));
        if !is_host(host) {
            return Err(fail("write HOST[:PORT][/PREFIX]".to_owned()));
        }
        // so that what stands in YAML then is read as this host, not as a path on Docker's hub
        if !host.contains(['.', ':']) && host != "localhost" {
            let why =
                format!("`{host}` has neither a dot nor a port: in an image name it would be a path at docker.io");
            return Err(fail(why));
        }
        if !prefix.is_empty() && !is_path(prefix) {
            return Err(fail(format!("`{prefix}` is not a repository path (lower case, digits, `.`, `_`, `-`)")));
        }
        // as references name it, or what stands there would not be known as such
        let host = if is_docker_hub(host) { DOCKER_HUB } else { host };
        Ok(Self { host: host.to_owned(), prefix: prefix.to_owned() })
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.host)?;
        if self.prefix.is_empty() { Ok(()) } else { write!(f, "/{}", self.prefix) }
    }
}

/// How much of a source name is kept at the target.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Layout {
    /// The repository path: `docker.io/bitnami/etcd` → `bitnami/etcd`.
    #[default]
    Path,
    /// Host and path: `docker.io/bitnami/etcd`. A port's `:` becomes `-`.
    Host,
    /// The last segment: `etcd`.
    Flat,
}

/// An image's name under a target: repository without host and prefix, and its tag.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct TargetName {
    /// The repository, without host and prefix.
    pub repository: String,
    /// The tag; none for an image that is named by its digest alone.
    pub tag: Option<String>,
}

impl TargetName {
    /// The name that `layout` gives `reference`, unless `chosen` (an `as:`) says otherwise. An `as:` without a tag keeps
    /// the reference's own.
    #[must_use]
    pub fn place(reference: &Reference, chosen: Option<&Self>, layout: Layout) -> Self {
        let tag = reference.tag().map(ToOwned::to_owned);
        if let Some(chosen) = chosen {
            return Self { repository: chosen.repository.clone(), tag: chosen.tag.clone().or(tag) };
        }
        let repository = match layout {
            Layout::Path => reference.path().to_owned(),
            Layout::Flat => reference.name().to_owned(),
            Layout::Host => {
                let host: String = reference
                    .host()
                    .to_ascii_lowercase()
                    .chars()
                    .filter(|c| !matches!(c, '[' | ']'))
                    .map(|c| if c == ':' { '-' } else { c })
                    .collect();
                let host = host.replace("--", "-");
                // of `[::]` no character is left
                let host = Some(host.trim_matches('-')).filter(|host| !host.is_empty()).unwrap_or("0");
                format!("{host}/{}", reference.path())
            }
        };
        Self { repository, tag }
    }
}

impl FromStr for TargetName {
    type Err = Error;

    /// Reads `path[:tag]`, as in `as:`.
    fn from_str(text: &str) -> Result<Self, Error> {
        let fail = |why: String| Error::Reference { text: text.chars().take(300).collect(), why };
        let (repository, tag) = match text.rsplit_once(':') {
            Some((repository, tag)) => (repository, Some(tag)),
            None => (text, None),
        };
        if !is_path(repository) {
            return Err(fail("a target name is `path[:tag]` in lower case, without a host".to_owned()));
        }
        if let Some(tag) = tag
            && !is_tag(tag)
        {
            return Err(fail(format!("`{tag}` is not a tag")));
        }
        Ok(Self { repository: repository.to_owned(), tag: tag.map(ToOwned::to_owned) })
    }
}

impl TryFrom<String> for TargetName {
    type Error = Error;

    fn try_from(text: String) -> Result<Self, Error> {
        text.parse()
    }
}

impl From<TargetName> for String {
    fn from(name: TargetName) -> Self {
        name.to_string()
    }
}

impl fmt::Display for TargetName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.repository)?;
        match &self.tag {
            Some(tag) => write!(f, ":{tag}"),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn r(text: &str) -> Reference {
        text.parse().expect("reference")
    }

    #[test]
    fn layouts() {
        let etcd = r("docker.io/bitnami/etcd:3.5");
        assert_eq!(TargetName::place(&etcd, None, Layout::Path).to_string(), "bitnami/etcd:3.5");
        assert_eq!(TargetName::place(&etcd, None, Layout::Host).to_string(), "docker.io/bitnami/etcd:3.5");
        assert_eq!(TargetName::place(&etcd, None, Layout::Flat).to_string(), "etcd:3.5");
        assert_eq!(TargetName::place(&r("nginx"), None, Layout::Path).to_string(), "library/nginx:latest");
        assert_eq!(TargetName::place(&r("h:5000/a/b:c"), None, Layout::Host).to_string(), "h-5000/a/b:c");
        let host = TargetName::place(&r("[::1]:5000/a:c"), None, Layout::Host);
        assert!(is_path(&host.repository), "{host}");
    }

    #[test]
    fn a_chosen_name_wins_and_keeps_the_tag() {
        let chosen = "alluxio-operator".parse().expect("name");
        let name = TargetName::place(&r("alluxio/operator:3.2.1"), Some(&chosen), Layout::Path);
        assert_eq!(name.to_string(), "alluxio-operator:3.2.1");
    }

    #[test]
    fn targets() {
        let target: Target = "reg.local:5000/team/x/".parse().expect("target");
        assert_eq!((target.host(), target.prefix()), ("reg.local:5000", "team/x"));
        assert!(target.holds(&r("reg.local:5000/team/x/etcd:1")));
        assert!(!target.holds(&r("reg.local:5000/team/xy/etcd:1")));
        let hub: Target = "index.docker.io/team".parse().expect("target");
        assert!(hub.holds(&r("index.docker.io/team/etcd:1")) && hub.holds(&r("team/etcd:1")), "{hub}");
        for good in ["localhost/x", "r:80", "[::1]:5000", "r.local"] {
            assert!(good.parse::<Target>().is_ok(), "{good}");
        }
        for bad in ["", "registry", "registry/team", "http://x", "x/UP", "x/a b", "a b", "/x"] {
            assert!(bad.parse::<Target>().is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn whatever_is_placed_is_a_reference_there(
            host in "[a-z]{1,5}\\.[a-z]{2,3}(:[0-9]{2,4})?|REG-1|\\[[0-9a-f]{0,2}::[0-9a-f]{0,2}\\](:5000)?",
            path in "[a-z0-9]{1,4}(/[a-z0-9]{1,4}){0,2}",
            target in "r\\.example(/p(/q)?)?|localhost:5000",
        ) {
            let (reference, target) = (r(&format!("{host}/{path}:1")), target.parse::<Target>().expect("target"));
            for layout in [Layout::Path, Layout::Host, Layout::Flat] {
                let name = TargetName::place(&reference, None, layout);
                let there = reference.at(target.host(), &target.path_of(&name)).expect("a reference at the target");
                prop_assert!(target.holds(&there), "{} in {}", there, target);
            }
        }
    }
}
