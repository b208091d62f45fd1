//! docker's `daemon.json`: a mirror for docker.io, the only host that docker has mirrors for, and plain HTTP allowed.

use ferry_image::{Relocated, Relocation, reference};
use serde_json::json;

use super::mirror::{is_mistaken, unserved};
use super::{Answers, Emitted, Form, Options, address, host};

pub(super) fn emit(relocation: &Relocation, options: &Options) -> Emitted {
    let mut out = Emitted::new(Form::DaemonJson);
    let (hub, others): (Vec<_>, Vec<_>) =
        relocation.images.iter().partition(|image| image.reference.host() == reference::DOCKER_HUB);
    for image in others {
        out.leave(image, "docker has mirrors for docker.io only: pull it by its name at the target");
    }
    let is_mirror = match options.answers {
        Answers::Own => mirrors(relocation, &hub, &mut out),
        Answers::Original => !hub.is_empty(),
        Answers::OriginalOfAny => true,
    };
    let mut daemon = serde_json::Map::new();
    if is_mirror {
        daemon.insert("registry-mirrors".to_owned(), json!([address(relocation, options)]));
    }
    if options.plain_http {
        daemon.insert("insecure-registries".to_owned(), json!([host(relocation)]));
    }
    if let Some(ca) = &options.ca {
        // where docker looks for it by host; no other place does for a mirror
        out.file(&format!("certs.d/{}/ca.crt", host(relocation)), ca.clone());
    }
    if !daemon.is_empty()
        && let Ok(text) = serde_json::to_string_pretty(&daemon)
    {
        out.file("daemon.json", format!("{text}\n"));
    }
    out
}

/// Whether a mirror at the root of the target, where docker looks for the paths of docker.io, has any of these, and none that would be
/// taken for another.
fn mirrors(relocation: &Relocation, hub: &[&Relocated], out: &mut Emitted) -> bool {
    let (mut served, mut mistaken) = (Vec::new(), None);
    for image in hub {
        let there = format!("{}/{}", host(relocation), image.reference.path());
        let why = match unserved(relocation, image) {
            None if image.repository == there => {
                served.push(image);
                continue;
            }
            None => format!("it went to `{}`, and docker asks a mirror for paths as they are", image.repository),
            Some(why) => why,
        };
        if is_mistaken(relocation, image, &there) {
            mistaken = Some(image);
        }
        out.leave(image, why);
    }
    if let Some(mistaken) = mistaken {
        let why = format!("a mirror would answer `{}` with another image", mistaken.reference);
        served.iter().for_each(|image| out.leave(image, why.clone()));
        return false;
    }
    !served.is_empty()
}
