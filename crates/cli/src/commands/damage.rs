//! What can be done about damage to a bundle.

use std::path::PathBuf;

use ferry_archive::recovery::{Protected, protection};
use ferry_archive::{Bundle, Error as ArchiveError, Location, Trust};
use ferry_content::Problems;

use crate::commands::verify;
use crate::failure::is_damage;

/// What to type next, where damage is among the problems.
pub(super) fn mendable(bundles: &[PathBuf], problems: &Problems) -> Vec<String> {
    let files: Vec<PathBuf> = bundles.iter().filter(|path| path.as_os_str() != "-").cloned().collect();
    let Ok(locations) = Location::group(&files) else { return Vec::new() };
    let places: Vec<String> = locations.iter().map(|location| location.base.display().to_string()).collect();
    let name = match places.as_slice() {
        [] => return Vec::new(),
        [one] => one.as_str(),
        _ => "BUNDLE",
    };
    let want = format!("`ferry verify {name} --want want.json` lists what a small patch must bring");
    let is_patchable = is_damage(problems, &places, ArchiveError::is_patchable);
    let patch =
        is_patchable.then(|| format!("what is damaged or lost need not be carried over with all the rest: {want}"));
    if !is_damage(problems, &places, ArchiveError::is_damage) {
        return patch.into_iter().collect();
    }
    let protected: Vec<Protected> = locations.iter().map(protected).collect();
    let first =
        |wanted| protected.iter().zip(&locations).find(|(one, _)| **one == wanted).map(|(_, location)| location);
    match (first(Protected::Yes), first(Protected::ByOthers)) {
        (Some(location), _) => {
            let path = location.base.display();
            let repair =
                format!("recovery files stand beside {path}: `ferry repair {path}` may mend what is damaged or lost");
            vec![if is_patchable { format!("{repair}; else {want}") } else { repair }]
        }
        (None, others) => others.map(verify::no_help).into_iter().chain(patch).collect(),
    }
}

/// Whether recovery files stand beside a bundle, and are its own: a front that holds says which bundle it is, whatever else is damaged.
fn protected(location: &Location) -> Protected {
    let anybody = Trust { allow_unsigned: true, ..Trust::default() };
    let sums = Bundle::open_damaged(location, &anybody).ok().map(|(bundle, _)| bundle.sums_digest().clone());
    protection(location, sums.as_ref())
}
