//! Which manifests of an image are carried for the chosen platforms, and every blob they need.

use std::future::Future;
use std::pin::Pin;

use ferry_image::{Descriptor, ImageManifest, Manifest, Platform, media_type};

use crate::Error;
use crate::manifest::Platforms;
use crate::place::Place;

/// Indexes within indexes that are followed.
const MAX_NESTING: usize = 4;

/// What is carried of one image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Selected {
    /// The manifests carried, with the platform each is for (none for an artifact), in the order chosen.
    pub(crate) manifests: Vec<(Option<Platform>, Descriptor)>,
    /// Every manifest and index, root first.
    pub(crate) documents: Vec<Descriptor>,
    /// Configs, in order.
    pub(crate) configs: Vec<Descriptor>,
    /// Layers, in order of first use.
    pub(crate) layers: Vec<Descriptor>,
    /// Layers that are only named (image-spec, "Non-Distributable Layers"), and so not carried.
    pub(crate) foreign: Vec<Descriptor>,
}

/// A manifest somewhere below the root.
struct Leaf {
    descriptor: Descriptor,
    platform: Option<Platform>,
    /// The indexes between the root and it.
    through: Vec<Descriptor>,
}

/// Selects from `root` what `platforms` need. Reads every manifest that is carried.
pub(crate) async fn select(place: &Place, root: &Descriptor, platforms: &Platforms) -> Result<Selected, Error> {
    let mut leaves = Vec::new();
    collect(place, root.clone(), Vec::new(), &mut leaves).await?;
    let chosen = match platforms {
        Platforms::All => leaves.iter().collect(),
        Platforms::These(wanted) => choose(place, &leaves, wanted)?,
    };
    let mut selected =
        Selected { manifests: vec![], documents: vec![root.clone()], configs: vec![], layers: vec![], foreign: vec![] };
    for leaf in chosen {
        for index in &leaf.through {
            push(&mut selected.documents, index);
        }
        push(&mut selected.documents, &leaf.descriptor);
        selected.manifests.push((leaf.platform.clone(), leaf.descriptor.clone()));
        if let Manifest::Image(image) = place.manifest(&leaf.descriptor).await? {
            blobs(place, &image, &mut selected)?;
        }
    }
    Ok(selected)
}

fn blobs(place: &Place, image: &ImageManifest, selected: &mut Selected) -> Result<(), Error> {
    place.check_algorithm(&image.config.digest)?;
    push(&mut selected.configs, &image.config);
    for layer in &image.layers {
        place.check_algorithm(&layer.digest)?;
        let foreign = media_type::is_foreign_layer(&layer.media_type);
        push(if foreign { &mut selected.foreign } else { &mut selected.layers }, layer);
    }
    Ok(())
}

fn push(list: &mut Vec<Descriptor>, descriptor: &Descriptor) {
    if !list.iter().any(|d| d.digest == descriptor.digest) {
        list.push(descriptor.clone());
    }
}

/// Each wanted platform's best leaf; the same leaf once.
fn choose<'a>(place: &Place, leaves: &'a [Leaf], wanted: &[Platform]) -> Result<Vec<&'a Leaf>, Error> {
    // an artifact has no platform: it is what was named, whatever the platform
    if let [only] = leaves
        && only.platform.is_none()
    {
        return Ok(vec![only]);
    }
    let stated: Vec<(&Leaf, Platform)> = leaves.iter().filter_map(|l| Some((l, l.platform.clone()?))).collect();
    let platforms: Vec<Platform> = stated.iter().map(|(_, p)| p.clone()).collect();
    let mut chosen: Vec<&Leaf> = Vec::new();
    for platform in wanted {
        match platform.best(&platforms) {
            Ok(i) => {
                if !chosen.iter().any(|l| l.descriptor.digest == stated[i].0.descriptor.digest) {
                    chosen.push(stated[i].0);
                }
            }
            Err(ferry_image::Error::PlatformMissing { wanted, available }) => {
                return Err(Error::PlatformMissing { wanted, available, place: place.name() });
            }
            Err(source) => {
                return Err(Error::Document {
                    place: place.name(),
                    digest: leaves[0].descriptor.digest.clone(),
                    source,
                });
            }
        }
    }
    Ok(chosen)
}

/// Lists the manifests at and below `descriptor`.
fn collect<'a>(
    place: &'a Place,
    descriptor: Descriptor,
    through: Vec<Descriptor>,
    leaves: &'a mut Vec<Leaf>,
) -> Pin<Box<dyn Future<Output = Result<(), Error>> + Send + 'a>> {
    Box::pin(async move {
        // what an index says of an entry saves asking for it
        let stated = descriptor.platform.clone();
        if stated.is_some() && !media_type::is_index(&descriptor.media_type) {
            leaves.push(Leaf { platform: stated, descriptor, through });
            return Ok(());
        }
        match place.manifest(&descriptor).await? {
            Manifest::Image(image) => {
                let platform = match image.is_container_image() {
                    true => Some(place.config(&image.config).await?.platform),
                    false => None,
                };
                leaves.push(Leaf { descriptor, platform, through });
            }
            Manifest::Index(index) => {
                if through.len() >= MAX_NESTING {
                    return Err(Error::Nesting { place: place.name(), limit: MAX_NESTING });
                }
                let mut below = through;
                below.push(descriptor);
                for entry in index.manifests {
                    collect(place, entry, below.clone(), leaves).await?;
                }
            }
        }
        Ok(())
    })
}
