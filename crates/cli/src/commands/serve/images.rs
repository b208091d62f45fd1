//! Bundles as a catalog: each image under its name at a target without a prefix, and under its original name for mirrors.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use ferry_archive::{HeadImage, oci};
use ferry_content::{Problems, Provider as _};
use ferry_image::{Digest, Reference};
use ferry_install::{Bundles, IndexMode, Named, form, preflight, referrers};
use ferry_registry_server::catalog::{Catalog, Entry, SourceId};
use ferry_registry_server::page::About;

use super::about;
use super::folder;
use super::nodes::Image;
use crate::failure::End;
use crate::{args, bundles, keys, print};

/// All images of all bundles.
pub(super) fn catalog(args: &args::Serve) -> Result<(Catalog, Vec<Image>, About), End> {
    let mut opened = Vec::with_capacity(args.bundles.len());
    args.bundles.iter().try_for_each(|path| folder::refuse(path))?;
    let trust = keys::trusted(&args.trust)?;
    for location in bundles::locations(&args.bundles)? {
        let bundle = keys::open(&location, &trust, &args.trust.demand)?;
        print::talk(&keys::introduction(bundle.head(), bundle.signed()));
        opened.push(Arc::new(bundle));
    }
    let all = opened.clone();
    let mut opened = opened.into_iter();
    let first = opened.next().ok_or_else(|| crate::failure::Error::usage("no bundle is named", "name one to serve"))?;
    let bundles = Arc::new(Bundles::new(first, opened));
    let mut problems = Problems::default();
    let mut notes = Vec::new();
    let documents = preflight::documents(&bundles)?;
    let named = preflight::served(&bundles, &documents, args.layout.map(Into::into), &mut notes, &mut problems);
    for note in notes.into_iter().chain(bundles.take_notes()) {
        print::talk(&format!("note: {note}"));
    }
    let named = problems.or(named)?;
    let about = about::about(&all, &named);
    let mut catalog = Catalog::new();
    let images = add(&mut catalog, &bundles, &documents, named).map_err(|p| Problems::one(bundles.place(), p))?;
    Ok((catalog, images, about))
}

#[derive(Debug, thiserror::Error)]
enum Error {
    #[error("{0}")]
    Install(ferry_install::Error),
    #[error("{0}")]
    Server(ferry_registry_server::Error),
}

impl ferry_content::Failure for Error {
    fn kind(&self) -> ferry_content::Kind {
        match self {
            Self::Install(error) => error.kind(),
            Self::Server(error) => error.kind(),
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::Install(error) => error.hint(),
            Self::Server(error) => error.hint(),
        }
    }
}

fn add(
    catalog: &mut Catalog,
    bundles: &Arc<Bundles>,
    documents: &BTreeMap<Digest, Bytes>,
    all: Vec<Named>,
) -> Result<Vec<Image>, Error> {
    let source = catalog.add_source(Arc::clone(bundles) as _);
    let mut images = Vec::with_capacity(all.len());
    for named in all {
        let forms = form::choose(&named, documents, IndexMode::Auto).map_err(Error::Install)?;
        let Named { image, name, .. } = named;
        let original = form::original(&image, documents).map_err(Error::Install)?;
        let mut entries: BTreeMap<_, _> = BTreeMap::new();
        // the original index and everything below it can be had by digest, whatever the tag stands for
        for descriptor in image.platforms.iter().map(|p| &p.manifest).chain([&original.root]).chain(&original.children)
        {
            let bytes = form::bytes(descriptor, documents).map_err(Error::Install)?;
            entries.insert(descriptor.digest.clone(), (descriptor.media_type.clone(), bytes, None));
        }
        let root = &forms.first.root;
        entries.insert(root.digest.clone(), (root.media_type.clone(), forms.first.bytes.clone(), name.tag.clone()));
        for (media_type, bytes, tag) in entries.into_values() {
            let repository = name.repository.clone();
            let origin = Some(image.reference.clone());
            catalog.add(source, Entry { repository, tag, origin, media_type, bytes }).map_err(Error::Server)?;
        }
        follow(catalog, source, &image, &name.repository, documents)?;
        // both can be had by digest: a pin is kept, whatever its tag stands for
        let digest = image.reference.digest().is_none().then(|| root.digest.clone());
        images.push(Image {
            digest: digest.unwrap_or_else(|| original.root.digest.clone()),
            source_digest: original.root.digest,
            reference: image.reference,
            repository: name.repository,
            tag: name.tag,
        });
    }
    Ok(images)
}

/// What refers to an image, cosign's under its tags. Of bundles that differ in what stands under such a tag the first is served.
fn follow(
    catalog: &mut Catalog,
    source: SourceId,
    image: &HeadImage,
    repository: &str,
    documents: &BTreeMap<Digest, Bytes>,
) -> Result<(), Error> {
    for referrer in &image.referrers {
        let tag = referrer.annotations.get(oci::REF_NAME);
        let (host, path) = (image.reference.host(), image.reference.path());
        let origin = Reference::new(host, path, tag.map(String::as_str), Some(&referrer.digest)).ok();
        for document in referrers::documents_of(referrer, documents).map_err(Error::Install)? {
            let tag = tag.filter(|_| document.digest == referrer.digest).cloned();
            let bytes = form::bytes(&document, documents).map_err(Error::Install)?;
            let (repository, media_type) = (repository.to_owned(), document.media_type.clone());
            let entry = Entry { repository, tag, origin: origin.clone(), media_type, bytes };
            match catalog.add(source, entry.clone()) {
                Err(ferry_registry_server::Error::Collision { name, second, .. }) => {
                    let warning =
                        format!("`{name}` is another bundle's already; {second} is served by its digest only");
                    print::warnings(&[warning]);
                    catalog.add(source, Entry { tag: None, ..entry }).map_err(Error::Server)?;
                }
                added => {
                    added.map_err(Error::Server)?;
                }
            }
        }
    }
    Ok(())
}
