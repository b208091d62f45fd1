//! What an image is called in each form. Pure.

use ferry_image::Reference;

use super::To;

/// The name under which docker knows an image with a tag, as people type it: `nginx:1.27`, `quay.io/team/app:1`.
#[must_use]
pub fn familiar(reference: &Reference) -> Option<String> {
    let full = format!("{}:{}", reference.repository(), reference.tag()?);
    let short = full.strip_prefix("docker.io/").map(|rest| rest.strip_prefix("library/").unwrap_or(rest));
    // `docker.io/library/a/b` and names whose first part looks like a host stay as they are
    let same = |short: &&str| short.parse::<Reference>().is_ok_and(|read| read.to_string() == full);
    Some(short.filter(same).map_or_else(|| full.clone(), ToOwned::to_owned))
}

/// The name in `index.json`, by which the image is found later.
///
/// The kubelet asks containerd for `host/path:tag`, or for `host/path@digest` where there is a digest: a tag beside it is dropped (CRI,
/// `ParseDockerRef`). In a layout folder it is the whole reference, as in a bundle.
#[must_use]
pub fn indexed(to: To, reference: &Reference) -> String {
    let repository = reference.repository();
    match (to, reference.tag(), reference.digest()) {
        (To::Oci, ..) => reference.to_string(),
        (To::Docker, Some(tag), _) => format!("{repository}:{tag}"),
        (_, _, Some(digest)) => format!("{repository}@{digest}"),
        (_, tag, None) => format!("{repository}:{}", tag.unwrap_or("latest")),
    }
}

/// A name for a file, made from that of an image or a bundle: what no file system or shell minds.
#[must_use]
pub fn stem(name: &str) -> String {
    let plain = |c: char| if c.is_ascii_alphanumeric() || ".-_".contains(c) { c } else { '_' };
    let text: String = name.chars().map(plain).collect();
    // neither hidden nor an option
    let text = text.trim_start_matches(['.', '-']);
    let digest = || ferry_image::Digest::of(name.as_bytes()).short().to_owned();
    match text.len() {
        0 => digest(),
        1..=200 => text.to_owned(),
        _ => format!("{}-{}", &text[..180], digest()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const D: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    #[test]
    fn names_in_each_form() {
        for (reference, docker, kubelet) in [
            ("nginx:1.27", Some("nginx:1.27"), "docker.io/library/nginx:1.27"),
            ("nginx", Some("nginx:latest"), "docker.io/library/nginx:latest"),
            ("team/app:1", Some("team/app:1"), "docker.io/team/app:1"),
            ("quay.io/team/app:1", Some("quay.io/team/app:1"), "quay.io/team/app:1"),
            ("docker.io/library/a/b:1", Some("docker.io/library/a/b:1"), "docker.io/library/a/b:1"),
            ("docker.io/local.host/a:1", Some("docker.io/local.host/a:1"), "docker.io/local.host/a:1"),
            ("nginx:1@D", Some("nginx:1"), "docker.io/library/nginx@D"),
            ("nginx@D", None, "docker.io/library/nginx@D"),
        ] {
            let reference: Reference = reference.replace('D', D).parse().expect("reference");
            assert_eq!(familiar(&reference).as_deref(), docker, "{reference}");
            assert_eq!(indexed(To::K3s, &reference), kubelet.replace('D', D), "{reference}");
            assert_eq!(indexed(To::Oci, &reference), reference.to_string());
        }
    }

    #[test]
    fn names_of_files() {
        assert_eq!(stem("docker.io/library/nginx:1.27"), "docker.io_library_nginx_1.27");
        assert_eq!(stem("../-x y"), "_-x_y");
        assert_eq!(stem("...").len(), 12);
        let long = stem(&"a".repeat(300));
        assert!(long.len() < 200 && long != stem(&"a".repeat(301)), "{long}");
    }
}
