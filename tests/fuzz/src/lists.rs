//! What the user writes: bundle manifests, plain lists, locks.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use ferry_archive::{Want, member};
use ferry_bundle::Base;
use ferry_bundle::base::{Document, detect};
use ferry_bundle::diff::diff;
use ferry_bundle::{list as plain, lock as locks, manifest};
use ferry_content::Failure as _;
use ferry_image::{Digest, Receipt, Reference, Relocated, Relocation, receipt as receipts};
use ferry_rewrite::emit::{Form, Options, emit, print0};
use ferry_rewrite::{Why, find_list, rewrite};

/// What is read is right in itself; what is not comes with lines that exist.
pub fn bundle_manifest(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let _ = manifest::detect(text);
    let read = match manifest::parse(text, Path::new("/m/shop.yaml")) {
        Ok(read) => read,
        Err(error) => {
            // YAML ends lines at carriage returns too
            let lines = text.replace("\r\n", "\n").split(['\n', '\r']).count();
            assert!(!error.problems.is_empty() && error.problems.is_sorted_by_key(|p| p.line));
            for problem in &error.problems {
                assert!(problem.line <= lines && !problem.what.to_string().is_empty(), "line {}", problem.line);
            }
            assert!(error.hint().is_none_or(|hint| !hint.is_empty()));
            return;
        }
    };
    let references: BTreeSet<&Reference> = read.images.iter().map(|i| &i.reference).collect();
    assert!(!read.images.is_empty() && references.len() == read.images.len());
    let mut names = BTreeMap::new();
    for image in &read.images {
        let name = read.target_of(image);
        let other = names.insert(name.clone(), image).filter(|_| name.tag.is_some());
        // what only the layout makes equal may be the same content
        assert!(other.is_none_or(|other| other.target.is_none() && image.target.is_none()), "{name}");
    }
    for image in &read.images {
        let sources: Vec<Reference> = read.sources(image).into_iter().map(|source| source.at).collect();
        assert_eq!(sources.is_empty(), image.archive.is_some());
        assert_eq!(sources.iter().collect::<BTreeSet<_>>().len(), sources.len());
        let pinned = image.reference.digest();
        assert!(pinned.is_none() || sources.iter().all(|source| source.digest() == pinned), "{}", image.reference);
    }
    assert!(read.set.iter().all(|rule| references.contains(&rule.image) && !rule.paths.is_empty()));
    paths_are_readable(&read);
    for (key, carried) in [("yaml", &read.yaml), ("files", &read.files)] {
        for file in carried {
            assert_eq!(member::check_name(&format!("{key}/{}", file.name)), Ok(()));
        }
    }
}

/// A path that a bundle manifest may hold means something where it is carried out.
fn paths_are_readable(read: &manifest::BundleManifest) {
    let mut relocation = Relocation::new(&"r.example/p".parse().expect("target"));
    relocation.images.extend(read.images.iter().map(|image| Relocated {
        reference: image.reference.clone(),
        repository: "r.example/p/x".to_owned(),
        tag: image.reference.tag().map(str::to_owned),
        source_digest: Digest::of(b"source"),
        digest: Digest::of(b"target"),
    }));
    for unmet in rewrite("", "x.yaml", &relocation, &read.set, &read.ignore).unmet {
        if let Why::Refused { reason, .. } = unmet.why {
            let of_the_path = ["quote", "empty key", "names no path"].iter().any(|word| reason.contains(word));
            assert!(!of_the_path, "{:?}: {reason}", read.set[unmet.rule].paths);
        }
    }
}

/// The two readers of plain lists agree: what is bundled by a list is what is rewritten in it.
pub fn list(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let read = match plain::parse(text, Path::new("images.txt")) {
        Ok(read) => read,
        Err(error) => {
            assert!(!error.problems.is_empty());
            return;
        }
    };
    let found = find_list(text);
    assert!(found.refused.is_empty(), "{:?}", found.refused);
    let bundled: BTreeSet<&Reference> = read.images.iter().map(|i| &i.reference).collect();
    let rewritten: BTreeSet<&Reference> = found.findings.iter().filter_map(|f| f.reference.as_ref()).collect();
    assert_eq!(bundled, rewritten);
    assert_eq!(bundled.len(), read.images.len());
    let lines: Vec<&str> = text.lines().collect();
    for image in &read.images {
        assert!(lines[image.line - 1].contains(image.reference.written()));
    }
    let names: Vec<String> = read.images.iter().map(|i| i.reference.to_string()).collect();
    let manifest = read.into_manifest("all");
    assert!(manifest.images.iter().map(|i| i.reference.to_string()).eq(names));
}

/// A lock prints as it reads.
pub fn lock(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let Ok(read) = locks::parse(text) else { return };
    let printed = locks::print(&read).expect("a lock prints");
    let again = locks::parse(&printed).expect("what was printed is a lock");
    assert_eq!((&again, locks::print(&again).as_ref()), (&read, Ok(&printed)));
    for locked in &read.images {
        assert_eq!(read.entry(&locked.reference), Some(locked));
        assert!(!read.is_absent(&locked.reference));
    }
    assert!(read.absent.iter().all(|reference| read.is_absent(reference) && read.entry(reference).is_none()));
}

/// What is read of a `relocation.json` reads back as the same, and nothing in it gets out of the place that a form has for it.
pub fn relocation(data: &[u8]) {
    let Ok(read) = Relocation::from_json(data) else { return };
    let again = serde_json::to_vec(&read).expect("json");
    assert_eq!(Relocation::from_json(&again).as_ref(), Ok(&read));
    let (list, left_out) = print0(&read);
    assert_eq!(list.matches('\0').count(), 2 * (read.images.len() - left_out.len()));
    let options = Options { plain_http: true, ca: Some("PEM\n".to_owned()), ..Options::default() };
    let forms = [
        Form::Kustomize,
        Form::HostsToml,
        Form::RegistriesYaml,
        Form::RegistriesConf,
        Form::DaemonJson,
        Form::Idms,
        Form::Itms,
    ];
    for form in forms {
        for file in emit(form, &read, &options, &[]).files {
            let named = |part: &str| !part.is_empty() && part != "." && part != ".." && !part.contains(['\\', '\0']);
            assert!(file.path.split('/').all(named), "{}", file.path);
            for line in file.text.lines().filter(|line| !line.starts_with('#')) {
                assert!(line.matches('"').count() % 2 == 0 && line.matches('\'').count() % 2 == 0, "{line}");
                assert!(line.bytes().all(|b| (b' '..0x7f).contains(&b)), "{line}");
            }
        }
    }
}

/// What is read of a receipt reads back as the same, is told apart from other documents, and is a base that differs from itself in nothing.
pub fn receipt(data: &[u8]) {
    let Ok(read) = Receipt::from_json(data) else { return };
    if read.version == receipts::VERSION {
        let again = read.to_json().expect("json");
        assert_eq!(Receipt::from_json(&again).as_ref(), Ok(&read));
        assert_eq!(detect(&again), Document::Receipt);
    }
    for repository in &read.repositories {
        assert!(read.below_target(&repository.name).is_some_and(|path| !path.is_empty()));
    }
    let base = Base::of_receipt(&read, "receipt.json".to_owned(), Digest::of(data));
    assert!(!base.names.is_empty());
    let held: BTreeSet<&Digest> = read.repositories.iter().flat_map(|r| &r.blobs).map(|blob| &blob.digest).collect();
    assert!(held.iter().all(|digest| !base.blobs[*digest].repositories.is_empty()));
    assert_eq!(base.blobs.len(), held.into_iter().chain(&read.unplaced).collect::<BTreeSet<_>>().len());
    let same = diff(&base, &base);
    assert!(same.is_empty(), "{same:?}");
}

/// What is read of a want list reads back as the same, and a bundle manifest can be made of it.
pub fn want(data: &[u8]) {
    let Ok(read) = Want::from_json(data) else { return };
    let again = read.to_json().expect("json");
    assert_eq!(Want::from_json(&again).as_ref(), Ok(&read));
    assert_eq!(detect(&again), Document::Want);
    assert!(!read.images.is_empty() && read.blobs.is_sorted_by(|a, b| a.digest < b.digest));
    let (manifest, _) = ferry_bundle::patch::manifest(&read, None).expect("without another there is nothing to miss");
    assert!(manifest.name.len() <= 128 && manifest.images.len() == read.images.len());
    for (wanted, image) in read.images.iter().zip(&manifest.images) {
        assert_eq!(wanted.reference, image.reference);
        assert!(!manifest.sources(image).is_empty());
    }
}
