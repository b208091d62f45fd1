//! `ferry serve`.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use ferry_archive::{HeadImage, oci};
use ferry_content::store::Store;
use ferry_content::{Problems, Provider as _};
use ferry_image::{Digest, Reference};
use ferry_install::{Bundles, IndexMode, Named, form, preflight, referrers};
use ferry_registry_server::catalog::{Catalog, Entry, SourceId};
use ferry_registry_server::page::About;
use ferry_registry_server::{Backend, Limits, Registry, Server, Settings, Tls};

use crate::commands::shelf;
use crate::failure::End;
use crate::{args, bundles, keys, print, signals};

pub(crate) async fn run(args: args::Serve) -> Result<(), End> {
    let access_log = shelf::access_log(&args.access_log)?;
    let (backend, what, mut about): (Arc<dyn Backend>, String, About) = match &args.store {
        Some(folder) => {
            // an image may be pushed for some of its platforms under the index that its digest names
            let store = Store::open(folder)?.with_sparse_indexes(true);
            (Arc::new(store), format!("the store {}", folder.display()), About::default())
        }
        None => {
            let (catalog, about) = catalog(&args)?;
            let what = format!("{}, read-only", print::count(about.images.len(), "image"));
            (Arc::new(catalog), what, about)
        }
    };
    let tls = match (&args.tls_cert, &args.tls_key) {
        (Some(certificate), Some(key)) => Some(Tls::Files { certificate: certificate.clone(), key: key.clone() }),
        _ => None,
    };
    about.is_https = tls.is_some();
    let registry = Registry::new(backend, Settings { deletes: args.allow_delete, access_log, about, ..Settings::default() });
    let server = Server::bind(args.listen, registry, tls.as_ref(), Limits::default()).await?;
    let address = server.local_addr();
    let scheme = if tls.is_some() { "https" } else { "http" };
    print::talk(&format!("serving {what} at {scheme}://{address}"));
    server.serve(signals::interrupted()).await;
    Ok(())
}

/// All images of all bundles, under their names at a target without a prefix, and under their original names for mirrors.
fn catalog(args: &args::Serve) -> Result<(Catalog, About), End> {
    let mut opened = Vec::with_capacity(args.bundles.len());
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
    let about = shelf::about(&all, &named);
    let mut catalog = Catalog::new();
    add(&mut catalog, &bundles, &documents, named).map_err(|p| Problems::one(bundles.place(), p))?;
    Ok((catalog, about))
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
) -> Result<(), Error> {
    let source = catalog.add_source(Arc::clone(bundles) as _);
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
    }
    Ok(())
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
