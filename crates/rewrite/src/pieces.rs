//! A new reference in the pieces in which the old one was written.

use ferry_image::{Reference, Target};

use crate::finding::{Finding, Role, Shape};
use crate::shapes::variable;
use crate::words;

/// The new text of every part of `finding`, in order.
///
/// `written` is what stands there, `new` what shall. With `common`, a prefix is cut to the part that all images at the
/// target have in common, so that a shared prefix can serve several images.
///
/// # Errors
/// When the pieces cannot express the new reference; says why.
pub(crate) fn pieces(
    finding: &Finding,
    written: &Reference,
    new: &Reference,
    common: Option<&Target>,
) -> Result<Vec<String>, String> {
    let names: Vec<usize> = (0..finding.parts.len()).filter(|i| is_name(finding.parts[*i].role)).collect();
    let tag_part = finding.parts.iter().find(|p| p.role == Role::Tag);
    let tag = new.has_written_tag().then(|| new.tag()).flatten();
    let digest = new.digest().map(ToString::to_string);
    let mut out: Vec<String> = Vec::with_capacity(finding.parts.len());
    let mut names_out = split_names(finding, &names, new, common)?;
    if let Some(last) = names_out.last_mut() {
        if tag_part.is_none()
            && let Some(tag) = tag
            && (written.has_written_tag() || (tag != "latest" && written.digest().is_none()))
        {
            last.push(':');
            last.push_str(tag);
        }
        let elsewhere =
            finding.parts.iter().any(|p| p.role == Role::Digest || (p.role == Role::Tag && p.current.contains('@')));
        if let Some(digest) = digest.as_ref().filter(|_| !elsewhere) {
            if tag_part.is_some() {
                return Err("at the target it is named by digest, and no piece here holds one".to_owned());
            }
            last.push('@');
            last.push_str(digest);
        }
    }
    let mut names_out = names_out.into_iter();
    for part in &finding.parts {
        let text = match part.role {
            Role::Tag => {
                let tag = tag.ok_or("at the target it has no tag")?;
                match &digest {
                    Some(digest) if part.current.contains('@') => format!("{tag}@{digest}"),
                    _ => tag.to_owned(),
                }
            }
            Role::Digest => {
                let digest = digest.as_deref().ok_or("its digest at the target is not known")?;
                // some charts want the sha256 without its name
                let bare = digest.strip_prefix("sha256:").filter(|_| !part.current.contains(':'));
                bare.unwrap_or(digest).to_owned()
            }
            _ => names_out.next().unwrap_or_default(),
        };
        out.push(text);
    }
    if finding.shape == Shape::Variable
        && let (Some(text), Some(part)) = (out.first_mut(), finding.parts.first())
    {
        *text =
            variable::replace(&part.current, text).ok_or("its variables do not leave the changed part in one place")?;
    }
    Ok(out)
}

fn is_name(role: Role) -> bool {
    matches!(role, Role::Whole | Role::Registry | Role::Segment | Role::NewName)
}

/// `host/path` over the pieces that hold it.
fn split_names(
    finding: &Finding,
    names: &[usize],
    new: &Reference,
    common: Option<&Target>,
) -> Result<Vec<String>, String> {
    let (host, path) = (new.host(), new.path());
    let (dir, last) = path.rsplit_once('/').unwrap_or(("", path));
    let registry_first = names.first().is_some_and(|i| finding.parts[*i].role == Role::Registry);
    let owned = |pieces: &[&str]| pieces.iter().map(|p| (*p).to_owned()).collect::<Vec<_>>();
    match (names.len(), registry_first) {
        (0, _) => Ok(Vec::new()),
        (1, _) => Ok(vec![format!("{host}/{path}")]),
        // `docker.io/…` alone under `repository` would read as a host of its own the next time
        (2, true) => match path.split_once('/') {
            Some((first, rest)) if words::may_be_registry(first) => {
                Ok(vec![format!("{host}/{first}"), rest.to_owned()])
            }
            _ => Ok(owned(&[host, path])),
        },
        (2, false) => {
            if let Some(target) = common
                && target.host() == host
                && let Some(rest) = strip(path, target.prefix())
            {
                return Ok(vec![target.to_string(), rest.to_owned()]);
            }
            let first = if dir.is_empty() { host.to_owned() } else { format!("{host}/{dir}") };
            Ok(vec![first, last.to_owned()])
        }
        (3, _) if !dir.is_empty() => Ok(owned(&[host, dir, last])),
        (3, _) => Err(format!("`{host}/{path}` has too few segments for the three pieces it is written in")),
        (n, _) => Err(format!("it is written in {n} pieces")),
    }
}

fn strip<'a>(path: &'a str, prefix: &str) -> Option<&'a str> {
    if prefix.is_empty() { Some(path) } else { path.strip_prefix(prefix)?.strip_prefix('/') }
}
