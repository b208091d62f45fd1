//! What the page of `ferry serve` says of bundles, and where requests are logged.

use std::path::Path;
use std::sync::Arc;

use ferry_archive::Bundle;
use ferry_install::Named;
use ferry_registry_server::AccessLog;
use ferry_registry_server::page::{About, AboutBundle, AboutImage};

use crate::args::LogTo;
use crate::failure::End;
use crate::{keys, print};

/// All that is known of what is served.
pub(super) fn about(bundles: &[Arc<Bundle>], named: &[Named]) -> About {
    About {
        bundles: bundles.iter().map(|bundle| about_bundle(bundle)).collect(),
        images: named.iter().map(about_image).collect(),
    }
}

fn about_bundle(bundle: &Bundle) -> AboutBundle {
    let head = bundle.head();
    let name_of = |path: &Path| path.file_name().map_or_else(String::new, |name| name.to_string_lossy().into_owned());
    let files = head.yaml.iter().chain(&head.files).map(|file| (file.path.clone(), file.size)).collect();
    AboutBundle {
        name: head.name.clone(),
        version: head.version.clone(),
        signed: keys::signed_by(bundle.signed()),
        // not its folder: the page is read by others than who typed that
        file: name_of(bundle.path()),
        size: bundle.size(),
        platforms: head.platforms.clone(),
        files,
        absent: head.absent.iter().map(|absent| absent.reference.to_string()).collect(),
    }
}

fn about_image(named: &Named) -> AboutImage {
    let Named { image, name, .. } = named;
    let platform =
        |p: &ferry_archive::HeadPlatform| Some((p.platform.as_ref()?.to_string(), p.manifest.digest.clone()));
    AboutImage {
        repository: name.repository.clone(),
        tag: name.tag.clone(),
        digest: image.root.digest.clone(),
        original: image.reference.to_string(),
        platforms: image.platforms.iter().filter_map(platform).collect(),
    }
}

/// Opens the access log.
pub(super) fn access_log(to: &LogTo) -> Result<Option<AccessLog>, End> {
    match to {
        LogTo::Off => Ok(None),
        LogTo::Stderr => Ok(Some(AccessLog::to(print::Stderr))),
        LogTo::File(path) => {
            let log = AccessLog::to_file(path).map_err(|e| ferry_content::Error::io("write", path, e))?;
            Ok(Some(log))
        }
    }
}
