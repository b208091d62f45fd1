//! Why a target takes no push, in the words of the program that it is, with the remedy. Pure.

use std::collections::BTreeSet;

use ferry_image::Target;
use ferry_registry_client::{Cause, Error as ClientError, Product, Status};

use crate::Error;

/// A repository that takes no upload.
pub(super) struct Refused {
    pub(super) repository: String,
    /// The first image that is to be pushed there.
    pub(super) image: String,
    pub(super) error: Error,
    /// The registry says that it knows no such repository.
    pub(super) is_unknown: bool,
}

/// What is known of the target.
pub(super) struct Known<'a> {
    pub(super) target: &'a Target,
    pub(super) product: Option<Product>,
    /// `SCHEME://HOST/`.
    pub(super) address: &'a str,
    /// A shorter name that takes an upload, asked for because longer ones do not.
    pub(super) shorter: Option<&'a str>,
}

/// All refusals, those of one cause together: what each is about, and the error.
pub(super) fn explain(known: &Known<'_>, refused: Vec<Refused>) -> Vec<(String, Error)> {
    let host = known.target.host().to_owned();
    let (mut projects, mut repositories) = (Missing::default(), Missing::default());
    let mut deep: Option<(Vec<String>, String)> = None;
    let mut others: Vec<(String, Vec<Refused>)> = Vec::new();
    for one in refused {
        let answer = words(&one.error);
        if let Some(project) = missing_project(&one) {
            projects.add(project, answer);
        } else if let Some(shorter) = known.shorter
            && parts(shorter) < parts(&one.repository)
            && may_be_depth(&one)
        {
            deep.get_or_insert_with(|| (Vec::new(), answer)).0.push(one.repository);
        } else if let Some(name) = missing_repository(known.product, &one) {
            repositories.add(name, answer);
        } else if let Some((_, alike)) = others.iter_mut().find(|(said, _)| *said == answer) {
            alike.push(one);
        } else {
            others.push((answer, vec![one]));
        }
    }
    let mut errors = Vec::new();
    if let Some(Missing { names, answer }) = projects.some() {
        let fixes = names.iter().map(|project| make_project(known.address, project)).collect();
        errors.push((String::new(), Error::Missing { host: host.clone(), what: "project", names, answer, fixes }));
    }
    if let Some(Missing { names, answer }) = repositories.some() {
        let fixes = names.iter().filter_map(|name| known.product?.make_repository(&host, name)).collect();
        errors.push((String::new(), Error::Missing { host: host.clone(), what: "repository", names, answer, fixes }));
    }
    if let (Some((refused, answer)), Some(shorter)) = (deep, known.shorter) {
        errors.push((String::new(), Error::TooDeep { host, taken: shorter.to_owned(), refused, answer }));
    }
    for (_, alike) in others {
        let more = match alike.len() {
            0 | 1 => String::new(),
            2 => " and those of another repository".to_owned(),
            n => format!(" and those of {} more repositories", n - 1),
        };
        if let Some(first) = alike.into_iter().next() {
            errors.push((format!("image `{}`{more}", first.image), with_remedy(known, first)));
        }
    }
    errors
}

/// The name that `--layout flat` would give, to be tried when `refused` may have too many parts.
pub(super) fn shorter(target: &Target, refused: &Refused) -> Option<String> {
    if missing_project(refused).is_some() || !may_be_depth(refused) {
        return None;
    }
    let name = refused.repository.rsplit('/').next()?;
    let flat = if target.prefix().is_empty() { name.to_owned() } else { format!("{}/{name}", target.prefix()) };
    (parts(&flat) < parts(&refused.repository)).then_some(flat)
}

/// Whether opening an upload may tell better why a repository does not say what it has: a HEAD is answered without words. Not where nobody knows
/// us: whoever sends a wrong password once more may be locked out.
pub(super) fn may_be_told_better(error: &Error) -> bool {
    status(error).is_some_and(|s| match s.status {
        401 => s.with_token,
        status => (400..500).contains(&status) && status != 429,
    })
}

/// Whether a connection that was dropped should be looked into: ECR does that where there is no such repository.
pub(super) fn was_dropped(error: &Error) -> bool {
    matches!(error, Error::Client(ClientError::Connect { cause: Cause::Closed(_), .. }))
}

/// The answer in a few words: ` (404 NAME_UNKNOWN): there is none`.
pub(super) fn words(error: &Error) -> String {
    match status(error) {
        Some(Status { status, code, message, .. }) => {
            let code = if code.is_empty() { String::new() } else { format!(" {code}") };
            let message = if message.is_empty() { String::new() } else { format!(": {message}") };
            format!(" ({status}{code}){message}")
        }
        None => format!(": {error}"),
    }
}

/// Whether a manifest was refused because its tag must not move. Every registry says that in words of its own: ECR 400 `TAG_INVALID` … cannot be
/// overwritten because the repository is immutable; Harbor 412 `PRECONDITION` … configured as immutable; Nexus 400 … does not allow
/// updating assets; Artifactory 403 … Not enough permissions to overwrite.
pub(crate) fn is_immutable(error: &Error) -> bool {
    let Some(Status { status: 400 | 403 | 405 | 409 | 412, code, message, .. }) = status(error) else { return false };
    let said = format!("{code} {message}").to_lowercase();
    ["immutable", "overwrit", "already exists", "not allow updating"].iter().any(|words| said.contains(words))
}

fn status(error: &Error) -> Option<&Status> {
    match error {
        Error::Client(ClientError::Status(status)) => Some(status),
        _ => None,
    }
}

fn parts(path: &str) -> usize {
    path.split('/').count()
}

/// Harbor: 401 or 404, `project team not found`.
fn missing_project(refused: &Refused) -> Option<String> {
    let said = status(&refused.error)?.message.to_lowercase();
    let project = refused.repository.split('/').next()?;
    said.contains(&format!("project {project} not found")).then(|| project.to_owned())
}

fn missing_repository(product: Option<Product>, refused: &Refused) -> Option<String> {
    let is_missing = match status(&refused.error) {
        Some(status) => status.status == 404 && status.code == "NAME_UNKNOWN",
        None => was_dropped(&refused.error) && refused.is_unknown,
    };
    if !is_missing {
        return None;
    }
    match product {
        Some(Product::ArtifactRegistry) => {
            // PROJECT/REPOSITORY/IMAGE
            let parts: Vec<&str> = refused.repository.splitn(3, '/').take(2).collect();
            Some(parts.join("/"))
        }
        _ => Some(refused.repository.clone()),
    }
}

/// Statuses by which registries refuse names with too many parts: GitLab and Docker Hub say that access is denied, others that the name is
/// invalid or not found.
fn may_be_depth(refused: &Refused) -> bool {
    status(&refused.error).is_some_and(|s| matches!(s.status, 400 | 401 | 403 | 404 | 405))
}

fn with_remedy(known: &Known<'_>, refused: Refused) -> Error {
    let is_denied =
        status(&refused.error).is_some_and(|s| matches!(s.status, 401 | 403 | 404) && s.credentials.is_some());
    let project = refused.repository.split('/').next().unwrap_or_default();
    let hint = match known.product {
        Some(Product::GitLab) if is_denied => {
            "at GitLab a name begins with a project: `--registry HOST/GROUP/PROJECT`. The project must be there with its container \
             registry switched on, and the account a Developer in it"
                .to_owned()
        }
        Some(Product::DockerHub) if is_denied => {
            "at Docker Hub names have two parts: `--registry docker.io/NAMESPACE --layout flat`, where the account may push to NAMESPACE"
                .to_owned()
        }
        Some(Product::Harbor) if is_denied => {
            format!("the account must be a Developer (or more) in the project `{project}`, or a robot account that may push there")
        }
        _ => return refused.error,
    };
    Error::NoPush { error: Box::new(refused.error), hint }
}

fn make_project(address: &str, project: &str) -> String {
    format!(
        "curl -u USER -H 'Content-Type: application/json' -d '{{\"project_name\":\"{project}\"}}' {address}api/v2.0/projects"
    )
}

/// Names that are not there, and how the target said so first.
#[derive(Default)]
struct Missing {
    names: Vec<String>,
    answer: String,
}

impl Missing {
    fn add(&mut self, name: String, answer: String) {
        if self.names.is_empty() {
            self.answer = answer;
        }
        if !self.names.contains(&name) {
            self.names.push(name);
        }
    }

    fn some(self) -> Option<Self> {
        (!self.names.is_empty()).then_some(self)
    }
}

/// The name of most parts among those that take an upload.
pub(super) fn deepest<'a>(taken: impl Iterator<Item = &'a String>) -> Option<&'a String> {
    taken.collect::<BTreeSet<_>>().into_iter().max_by_key(|path| parts(path))
}

#[cfg(test)]
mod tests {
    use ferry_content::{Failure as _, Kind};
    use ferry_registry_client::What;

    use super::*;

    fn status(repository: &str, status: u16, code: &str, message: &str) -> Error {
        Error::Client(ClientError::Status(Box::new(Status {
            host: "reg.example".to_owned(),
            repository: repository.to_owned(),
            what: What::Upload(None),
            request: "POST /v2/x".to_owned(),
            answered_by: None,
            status,
            code: code.to_owned(),
            message: message.to_owned(),
            page: false,
            retry_after: None,
            quota: None,
            credentials: Some("a file".to_owned()),
            with_token: true,
            pushes: true,
            passes: false,
        })))
    }

    fn refused(repository: &str, error: Error) -> Refused {
        let image = format!("source.example/{repository}:1");
        Refused { repository: repository.to_owned(), image, error, is_unknown: false }
    }

    /// Each error with its hint.
    fn shown(target: &str, product: Option<Product>, shorter: Option<&str>, all: Vec<Refused>) -> Vec<String> {
        let target: Target = target.parse().unwrap();
        let known = Known { target: &target, product, address: "https://reg.example/", shorter };
        let errors = explain(&known, all);
        assert!(errors.iter().all(|(_, e)| e.kind() == Kind::Remote));
        errors.iter().map(|(_, e)| format!("{e}\n{}", e.hint().unwrap_or_default())).collect()
    }

    #[test]
    fn harbor_wants_its_project_made() {
        let said = "project team not found: project team not found";
        let one = |name: &str| refused(name, status(name, 401, "UNAUTHORIZED", said));
        let all = shown("reg.example/team", Some(Product::Harbor), None, vec![one("team/a"), one("team/b/c")]);
        assert_eq!(all.len(), 1, "{all:?}");
        assert!(
            all[0].starts_with("reg.example: there is no project `team` (401 UNAUTHORIZED): project team not found")
        );
        assert!(
            all[0].contains(r#""project_name":"team""#) && all[0].contains("https://reg.example/api/v2.0/projects")
        );
        // another project's name in the answer, or somebody who may not push
        let denied = "unauthorized to access repository: team/a, action: push";
        let all = shown(
            "reg.example/team",
            Some(Product::Harbor),
            None,
            vec![refused("team/a", status("team/a", 401, "UNAUTHORIZED", denied))],
        );
        assert!(all[0].contains(denied) && all[0].contains("Developer (or more) in the project `team`"), "{all:?}");
    }

    #[test]
    fn ecr_wants_each_repository_made() {
        let host = "123456789012.dkr.ecr.eu-west-1.amazonaws.com";
        let said = "The repository with name 'x' does not exist in the registry with id '123456789012'";
        let named = |name: &str| refused(name, status(name, 404, "NAME_UNKNOWN", said));
        let dropped = |name: &str, is_unknown| Refused {
            repository: name.to_owned(),
            image: format!("source.example/{name}:1"),
            error: Error::Client(ClientError::Connect {
                host: host.to_owned(),
                address: host.to_owned(),
                cause: Cause::Closed("end of file".to_owned()),
            }),
            is_unknown,
        };
        let all = shown(host, Some(Product::Ecr), None, vec![named("p/a"), dropped("p/b", true), named("p/c/d")]);
        assert_eq!(all.len(), 1, "{all:?}");
        assert!(all[0].contains("3 repositories are not there: `p/a`, `p/b`, `p/c/d`"), "{}", all[0]);
        for name in ["p/a", "p/b", "p/c/d"] {
            let line = format!("\n    aws ecr create-repository --region eu-west-1 --repository-name {name}");
            assert!(all[0].contains(&line), "{}", all[0]);
        }
        let all = shown(host, Some(Product::Ecr), None, vec![dropped("p/b", false)]);
        assert!(all[0].contains("the connection was closed"), "{all:?}");
    }

    #[test]
    fn google_wants_the_repository_of_images_made_once() {
        let one = |name: &str| refused(name, status(name, 404, "NAME_UNKNOWN", "Repository \"r\" not found"));
        let all = shown(
            "europe-west1-docker.pkg.dev/p/r",
            Some(Product::ArtifactRegistry),
            None,
            vec![one("p/r/a"), one("p/r/b/c")],
        );
        assert_eq!(all.len(), 1);
        let fix =
            "gcloud artifacts repositories create r --project=p --location=europe-west1 --repository-format=docker";
        assert!(all[0].contains("no repository `p/r`") && all[0].contains(fix), "{}", all[0]);
    }

    #[test]
    fn a_name_of_too_many_parts_is_told_from_a_missing_permission() {
        let target: Target = "reg.example/group/project".parse().unwrap();
        let one = |name: &str| refused(name, status(name, 401, "UNAUTHORIZED", "authentication required"));
        let deep = "group/project/a/b/etcd";
        assert_eq!(shorter(&target, &one(deep)).as_deref(), Some("group/project/etcd"));
        assert_eq!(shorter(&target, &one("group/project/etcd")), None);
        let harbor = refused("group/a/b", status("group/a/b", 401, "UNAUTHORIZED", "project group not found"));
        assert_eq!(shorter(&target, &harbor), None, "there is nothing to try");
        assert_eq!(shorter(&target, &refused(deep, status(deep, 503, "", ""))), None);

        let all = || vec![one(deep), one("group/project/a/b/c")];
        let told = shown("reg.example/group/project", Some(Product::GitLab), Some("group/project/etcd"), all());
        assert_eq!(told.len(), 1, "{told:?}");
        assert!(told[0].contains("`group/project/etcd`") && told[0].contains("5 parts"), "{}", told[0]);
        assert!(told[0].contains("--layout flat"), "{}", told[0]);
        // without that proof it is GitLab's usual answer to who may not
        let told = shown("reg.example/group/project", Some(Product::GitLab), None, all());
        assert!(told.len() == 1 && told[0].contains("--registry HOST/GROUP/PROJECT"), "said once for both: {told:?}");
        let told = shown("docker.io/me", Some(Product::DockerHub), None, vec![one("me/a/b")]);
        assert!(told[0].contains("--layout flat"), "{told:?}");
    }

    #[test]
    fn what_is_not_known_keeps_its_own_words() {
        let all = shown("reg.example", None, None, vec![refused("a", status("a", 403, "DENIED", "no"))]);
        assert!(all[0].contains("reg.example/a: not allowed to push (403 DENIED)"), "{all:?}");
    }

    #[test]
    fn tags_that_must_not_move() {
        let ecr = "The image tag '1' already exists in the 'a' repository and cannot be overwritten because the repository is immutable.";
        let table = [
            (400, "TAG_INVALID", ecr, true),
            (412, "PRECONDITION", "Failed to process request due to 'a:1' configured as immutable.", true),
            (409, "TAG_IMMUTABLE", "", true),
            (400, "UNKNOWN", "Repository does not allow updating assets: docker-hosted", true),
            (403, "DENIED", "Not enough permissions to overwrite artifact 'a/1/manifest.json'", true),
            (400, "DENIED", "The requested tag already exists and cannot be overwritten.", true),
            (400, "TAG_INVALID", "manifest tag did not match URI", false),
            (400, "MANIFEST_INVALID", "manifest invalid", false),
            (500, "UNKNOWN", "immutable", false),
            (403, "DENIED", "requested access to the resource is denied", false),
        ];
        for (number, code, message, expected) in table {
            assert_eq!(is_immutable(&status("a", number, code, message)), expected, "{number} {code} {message}");
        }
    }

    #[test]
    fn the_deepest_name_that_was_taken() {
        let names = ["a".to_owned(), "b/c/d".to_owned(), "b/c".to_owned()];
        assert_eq!(deepest(names.iter()), Some(&names[1]));
        assert_eq!(deepest([].iter()), None);
    }
}
