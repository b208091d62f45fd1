//! Which program a registry is, as far as its first answer says: for messages that name the exact remedy. Pure. What is sent never
//! depends on it.

use std::fmt;

use http::HeaderMap;
use http::header::{SERVER, WWW_AUTHENTICATE};

use crate::challenge::{self, Challenge};
use crate::host;

/// A registry whose habits are known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Product {
    /// Google's Artifact Registry.
    ArtifactRegistry,
    /// JFrog's Artifactory.
    Artifactory,
    /// docker.io.
    DockerHub,
    /// Amazon's Elastic Container Registry.
    Ecr,
    /// GitLab's container registry.
    GitLab,
    /// Harbor.
    Harbor,
    /// Sonatype's Nexus.
    Nexus,
    /// Quay.
    Quay,
}

impl fmt::Display for Product {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::ArtifactRegistry => "Artifact Registry",
            Self::Artifactory => "Artifactory",
            Self::DockerHub => "Docker Hub",
            Self::Ecr => "ECR",
            Self::GitLab => "GitLab",
            Self::Harbor => "Harbor",
            Self::Nexus => "Nexus",
            Self::Quay => "Quay",
        })
    }
}

impl Product {
    /// The command that makes the repository `name` at `host`, where registries of this kind make none by themselves.
    #[must_use]
    pub fn make_repository(self, host: &str, name: &str) -> Option<String> {
        match self {
            Self::Ecr => {
                let labels: Vec<&str> = host.split('.').collect();
                let region = match labels.as_slice() {
                    [_, "dkr", "ecr", region, ..] => format!("--region {region} "),
                    // a name of one's own in front of it
                    _ => String::new(),
                };
                Some(format!("aws ecr create-repository {region}--repository-name {name}"))
            }
            Self::ArtifactRegistry => {
                let location = host.strip_suffix("-docker.pkg.dev")?;
                let (project, repository) = name.split_once('/')?;
                Some(format!(
                    "gcloud artifacts repositories create {repository} --project={project} --location={location} --repository-format=docker"
                ))
            }
            _ => None,
        }
    }
}

/// By the host's name where that decides, else by the answer to `GET /v2/`.
pub(crate) fn guess(host: &str, headers: &HeaderMap) -> Option<Product> {
    by_name(host).or_else(|| by_headers(headers))
}

pub(crate) fn by_name(host: &str) -> Option<Product> {
    let name = host.split(':').next().unwrap_or_default();
    if name == host::DOCKER {
        Some(Product::DockerHub)
    } else if name == "quay.io" {
        Some(Product::Quay)
    } else if name.contains(".dkr.ecr.") || name.contains(".dkr-ecr.") {
        Some(Product::Ecr)
    } else if name.ends_with(".pkg.dev") {
        Some(Product::ArtifactRegistry)
    } else {
        None
    }
}

fn by_headers(headers: &HeaderMap) -> Option<Product> {
    if headers.keys().any(|name| name.as_str().starts_with("x-artifactory-") || name.as_str().starts_with("x-jfrog-")) {
        return Some(Product::Artifactory);
    }
    if headers.get(SERVER).and_then(|v| v.to_str().ok()).is_some_and(|server| server.starts_with("Nexus/")) {
        return Some(Product::Nexus);
    }
    let values = headers.get_all(WWW_AUTHENTICATE).iter().filter_map(|v| v.to_str().ok());
    values.flat_map(challenge::parse).find_map(|challenge| by_challenge(&challenge))
}

fn by_challenge(challenge: &Challenge) -> Option<Product> {
    let parameter = |name| challenge.parameter(name).unwrap_or_default();
    let (realm, service) = (parameter("realm"), parameter("service"));
    match service {
        "harbor-registry" => Some(Product::Harbor),
        "container_registry" if realm.ends_with("/jwt/auth") => Some(Product::GitLab),
        "ecr.amazonaws.com" => Some(Product::Ecr),
        _ if realm.ends_with("/v2/auth") => Some(Product::Quay),
        _ if realm.starts_with("Sonatype Nexus") => Some(Product::Nexus),
        _ if realm.starts_with("Artifactory") => Some(Product::Artifactory),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn as_registries_show_themselves() {
        use Product::*;
        let table = [
            ("docker.io", "", "", Some(DockerHub)),
            ("quay.io", "", "", Some(Quay)),
            ("123456789012.dkr.ecr.eu-west-1.amazonaws.com", "", "", Some(Ecr)),
            ("123456789012.dkr.ecr.cn-north-1.amazonaws.com.cn", "", "", Some(Ecr)),
            ("europe-west1-docker.pkg.dev", "", "", Some(ArtifactRegistry)),
            (
                "r.example:5000",
                "www-authenticate",
                r#"Bearer realm="https://r.example/service/token",service="harbor-registry""#,
                Some(Harbor),
            ),
            (
                "r.example",
                "www-authenticate",
                r#"Bearer realm="https://gitlab.example/jwt/auth",service="container_registry""#,
                Some(GitLab),
            ),
            (
                "r.example",
                "www-authenticate",
                r#"Bearer realm="https://r.example/v2/auth",service="r.example""#,
                Some(Quay),
            ),
            (
                "r.example",
                "www-authenticate",
                r#"Basic realm="https://r.example/",service="ecr.amazonaws.com""#,
                Some(Ecr),
            ),
            ("r.example", "www-authenticate", r#"BASIC realm="Sonatype Nexus Repository Manager""#, Some(Nexus)),
            ("r.example", "server", "Nexus/3.70.1 (OSS)", Some(Nexus)),
            ("r.example", "x-jfrog-version", "Artifactory/7.77.3 77703900", Some(Artifactory)),
            ("r.example", "www-authenticate", r#"Basic realm="Artifactory Realm""#, Some(Artifactory)),
            ("r.example", "www-authenticate", r#"Basic realm="Registry Realm""#, None),
            ("r.example", "server", "nginx", None),
            ("quay.io.example", "", "", None),
        ];
        for (host, name, value, expected) in table {
            let mut headers = HeaderMap::new();
            if !name.is_empty() {
                headers.insert(name, HeaderValue::from_static(value));
            }
            assert_eq!(guess(host, &headers), expected, "{host} {name}: {value}");
        }
    }
}
