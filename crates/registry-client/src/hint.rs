//! What to try next, for the errors a user meets most. Pure; knows the habits of the registries in the field.

use crate::proxy::ProxyFault;
use crate::{Cause, Error, Status, What, product};

pub(crate) fn of(error: &Error) -> Option<String> {
    match error {
        Error::File { io: true, .. } => Some("check the path and its permissions".to_owned()),
        Error::File { .. } | Error::Config { .. } => None,
        Error::Connect { host, address, cause } => connect(host, address, cause),
        Error::Status(status) => of_status(status),
        Error::Interrupted { .. } => Some("run the same command again: it continues where it was".to_owned()),
        Error::Digest { .. } | Error::TooLarge { .. } => Some(
            "something between here and the registry, or the registry itself, changes content; do not use it"
                .to_owned(),
        ),
        Error::Protocol { .. } => {
            Some("check that the address is a registry's, and what stands in front of it".to_owned())
        }
        Error::Credentials { host, .. } => Some(format!("log in to {host} again, or correct that entry")),
    }
}

fn connect(host: &str, address: &str, cause: &Cause) -> Option<String> {
    Some(match cause {
        Cause::Name { .. } => format!("check the spelling of `{address}` and this machine's name servers"),
        Cause::Refused => "check host and port, and that the registry is running".to_owned(),
        Cause::TimedOut => "check the network, a firewall on the way, and whether a proxy is needed".to_owned(),
        Cause::Closed(_) | Cause::Other(_) => {
            "run the same command again; if it stays, look at the registry's log".to_owned()
        }
        Cause::Expired(_) => "renew the registry's certificate, or correct this machine's clock".to_owned(),
        Cause::NotYetValid(_) => "correct this machine's clock".to_owned(),
        Cause::WrongName(names) => {
            let name = names.first().map_or("another name", String::as_str);
            format!("use the name that the certificate is for ({name}), or make one for `{address}`")
        }
        Cause::NoNames => {
            let kind = if address.starts_with(|c: char| c.is_ascii_digit() || c == '[') { "IP" } else { "DNS" };
            let bare = bare(address);
            format!("make a new certificate with `-addext subjectAltName={kind}:{bare}`")
        }
        Cause::UnknownIssuer => {
            format!(
                "give the CA's (or the registry's own) certificate with `--ca-file`, or put it in /etc/docker/certs.d/{host}/ca.crt"
            )
        }
        Cause::NobodyTrusted => {
            "install the system's CA certificates (package ca-certificates), or give the CA's certificate with `--ca-file`"
                .to_owned()
        }
        Cause::ClientCertificate { shown: false, .. } => format!(
            "put client.cert and client.key into /etc/docker/certs.d/{host}/, or name them under `hosts:` in ferry's config file"
        ),
        Cause::ClientCertificate { .. } => "check that it was made for this registry, and its dates".to_owned(),
        Cause::Proxy { fault, .. } => proxy(bare(address), fault),
        Cause::PlainHttp => format!("if {host} is meant to have no TLS, add `--plain-http={host}`"),
        Cause::NotHttp => "something else than a registry listens there: check host and port".to_owned(),
        Cause::Https => format!("if {host} has TLS, leave `--plain-http` out"),
        Cause::Tls(_) => return None,
    })
}

fn proxy(host: &str, fault: &ProxyFault) -> String {
    match fault {
        ProxyFault::Login => {
            "give user and password in the proxy's address: `HTTPS_PROXY=http://USER:PASSWORD@HOST:PORT`".to_owned()
        }
        ProxyFault::Refuses(_) => {
            format!("have the proxy allow {host}, or add it to `NO_PROXY` if it can be reached directly")
        }
        _ => format!("check `HTTPS_PROXY` (or `ALL_PROXY`); add {host} to `NO_PROXY` if it can be reached directly"),
    }
}

fn bare(address: &str) -> &str {
    let end = match address.rfind(':') {
        Some(at)
            if !address[at..].contains(']') && address.matches(':').count() == 1 || address[..at].ends_with(']') =>
        {
            at
        }
        _ => address.len(),
    };
    address[..end].trim_matches(['[', ']'])
}

fn of_status(status: &Status) -> Option<String> {
    if matches!(status.what, What::Catalog) && matches!(status.status, 401 | 403 | 404 | 405 | 410 | 501) {
        return Some(
            "name the repositories, or take them from an install with `--from receipt.json`; not every registry lists them, and some do so \
             for administrators only"
                .to_owned(),
        );
    }
    if status.page && !matches!(status.status, 401 | 413 | 429) {
        return Some(in_between(status));
    }
    if let (Some(other), 400 | 401 | 403 | 410) = (&status.answered_by, status.status)
        && !matches!(status.what, What::Token(_))
    {
        return Some(format!(
            "{} sends us on to {other}, with an address that is good for minutes only: check this machine's clock, and what stands between here and there",
            status.host
        ));
    }
    Some(match status.status {
        401 | 403 if is_missing_project(status) => missing_at_target(status),
        401 => unauthorised(status),
        403 if status.pushes => {
            let first = status.repository.split('/').next().unwrap_or_default();
            format!(
                "the account must be allowed to push to `{first}` at {}; some registries answer so when it does not exist",
                status.host
            )
        }
        403 => format!(
            "the account must be allowed to pull `{}`; some registries answer so when it does not exist",
            status.repository
        ),
        404 if status.pushes => missing_at_target(status),
        404 | 410 => missing_at_source(status)?,
        405 => "this registry, or this address of it, is read-only".to_owned(),
        413 => "raise the upload limit of the proxy in front of the registry (nginx: client_max_body_size)".to_owned(),
        429 => too_many(status),
        507 => "make room at the registry, then run the same command again".to_owned(),
        500..600 => "run the same command again later; if it stays, look at the registry's log".to_owned(),
        _ => "look at the registry's log".to_owned(),
    })
}

/// Who answers with a web page is no registry.
fn in_between(status: &Status) -> String {
    let host = &status.host;
    match status.status {
        403 => format!("a proxy on the way denies it: have {host} allowed there, or reach it directly with `NO_PROXY`"),
        404 | 410 => {
            format!("a web server answered, and no registry: check host, port and path of `{}`", status.place())
        }
        500..600 => format!(
            "a proxy or gateway answered in place of {host}: run the same command again later; if it stays, look at the registry behind it"
        ),
        _ => format!("something in front of {host} answered: check the address, and the proxy settings"),
    }
}

fn unauthorised(status: &Status) -> String {
    let (host, repository) = (status.host.as_str(), status.repository.as_str());
    let login = if host == "docker.io" { "docker login".to_owned() } else { format!("docker login {host}") };
    match &status.credentials {
        Some(origin) if status.with_token => {
            format!("check the name `{repository}`; the account of {origin} must be allowed to use it at {host}")
        }
        // a file, and not the command line
        Some(origin) if origin.starts_with('`') => {
            format!("check user name and password (or token) for {host} in {origin}; log in again: `{login}`")
        }
        Some(origin) => format!("check user name and password (or token) for {host} from {origin}"),
        None if status.pushes => {
            format!("`{login}` (or podman, skopeo), `--auth-file FILE`, or `--username NAME --password-stdin`")
        }
        None if status.with_token => {
            format!("check the name; if it is private: `{login}` (or podman, skopeo), or `--auth-file FILE`")
        }
        None => format!("`{login}` (or podman, skopeo), or `--auth-file FILE`"),
    }
}

/// Harbor tells of a project that is not there by 401, 403 or 404, whichever the account may know.
fn is_missing_project(status: &Status) -> bool {
    let message = status.message.to_ascii_lowercase();
    message.contains("project") && (message.contains("not found") || message.contains("not exist"))
}

fn missing_at_target(status: &Status) -> String {
    let (host, repository) = (status.host.as_str(), status.repository.as_str());
    if let Some(product) = product::by_name(host)
        && let Some(command) = product.make_repository(host, repository)
    {
        return format!("{product} makes no repository by itself: `{command}`");
    }
    let project = repository.split('/').next().unwrap_or_default();
    format!(
        "make the project or repository `{project}` at {host} first (Harbor, ECR and others make none by themselves)"
    )
}

fn missing_at_source(status: &Status) -> Option<String> {
    if status.host == "docker.io"
        && let Some(rest) = status.repository.strip_prefix("bitnami/")
    {
        return Some(format!("versioned tags of bitnami moved in 2025: try `docker.io/bitnamilegacy/{rest}`"));
    }
    match status.what {
        What::Manifest(_) if status.code == "NAME_UNKNOWN" => Some("check the repository's name".to_owned()),
        What::Manifest(ref name) => {
            let kind = if name.contains(':') { "digest" } else { "tag" };
            let private = "; a private repository may answer so without credentials";
            let private = if status.credentials.is_none() { private } else { "" };
            Some(format!("check name and {kind}{private}"))
        }
        What::Registry => Some("check that the address is a registry's".to_owned()),
        What::Blob(_) => {
            Some("the registry has lost this blob; fetch the image from elsewhere or push it again".to_owned())
        }
        _ => None,
    }
}

fn too_many(status: &Status) -> String {
    let counted = status.quota.map(|quota| format!("{} answers {quota}; ", status.host)).unwrap_or_default();
    let wait = match (status.retry_after, status.quota.and_then(|quota| quota.renewed_within())) {
        (Some(wait), _) => format!("wait {}, or ", duration(wait)),
        (None, Some(most)) => format!("wait (at most {}), or ", duration(most)),
        (None, None) => String::new(),
    };
    if status.credentials.is_some() {
        format!("{counted}{wait}run the same command again later: it goes on where it was")
    } else {
        format!("{counted}{wait}log in to {}: most registries allow more to accounts", status.host)
    }
}

/// A time that somebody shall wait.
pub(crate) fn duration(time: std::time::Duration) -> String {
    match time.as_secs() {
        s @ 0..=120 => format!("{s} s"),
        s @ 121..=7200 => format!("{} min", s.div_ceil(60)),
        s => format!("{} h", s.div_ceil(3600)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_for_people() {
        let shown = |s| duration(std::time::Duration::from_secs(s));
        assert_eq!([shown(120), shown(121), shown(7200), shown(86_400)], ["120 s", "3 min", "120 min", "24 h"]);
    }

    #[test]
    fn what_makes_a_repository_is_said_to_the_letter() {
        let hint = |host: &str| {
            let status = Status {
                host: host.to_owned(),
                repository: "team/app".to_owned(),
                what: What::Upload(None),
                request: "POST /v2/team/app/blobs/uploads/".to_owned(),
                answered_by: None,
                status: 404,
                code: "NAME_UNKNOWN".to_owned(),
                message: String::new(),
                page: false,
                retry_after: None,
                quota: None,
                credentials: None,
                with_token: false,
                pushes: true,
                passes: false,
            };
            of(&Error::Status(Box::new(status))).unwrap_or_default()
        };
        assert_eq!(
            hint("123456789012.dkr.ecr.eu-west-1.amazonaws.com"),
            "ECR makes no repository by itself: `aws ecr create-repository --region eu-west-1 --repository-name team/app`"
        );
        assert!(
            hint("europe-west1-docker.pkg.dev")
                .contains("repositories create app --project=team --location=europe-west1")
        );
        assert!(hint("r.example").starts_with("make the project or repository `team` at r.example first"));
    }

    #[test]
    fn a_port_is_not_part_of_a_certificates_name() {
        for (address, expected) in [
            ("r.example:5000", "r.example"),
            ("r.example", "r.example"),
            ("[::1]:5000", "::1"),
            ("[::1]", "::1"),
            ("127.0.0.1:1", "127.0.0.1"),
        ] {
            assert_eq!(bare(address), expected);
        }
    }
}
