//! Bundles, their signatures, and the journal of an unfinished one.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::io::Read as _;
use std::path::Path;
use std::sync::Arc;

use ferry_archive::fuzz as archive;
use ferry_archive::signers::{Beside, Form};
use ferry_archive::{Bundle, Error, Head, MinisignKey, PublicKey, SecretKey, Trust, member};
use ferry_content::{Failure as _, Kind, Problems};
use ferry_image::{Descriptor, Digest, Manifest};
use ferry_install::{Bundles, FormKind, IndexMode, form, preflight};

use crate::pieces::{Piece, pieces};
use crate::sources::Folder;

/// A key pair that is used nowhere else.
const SECRET: &str = "untrusted comment: minisign encrypted secret key\nRWQAAEIyAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAmboFMlHeBxjII8XKDc7ParQVGr0Gz0km2PkqP9Ny8tAPa8KtrH5v4OYIfhuKfowFkFlfay4ZzF1C1HcVwqJZrdfyCjPyVTKrAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=\n";
const PUBLIC: &str = "RWSZugUyUd4HGOYIfhuKfowFkFlfay4ZzF1C1HcVwqJZrdfyCjPyVTKr";

thread_local! {
    static FOLDER: RefCell<Folder> = RefCell::new(Folder::new());
    static KEY: SecretKey = SecretKey::from_text(SECRET, None).expect("key");
    static TRUST: Trust = Trust { keys: vec![PublicKey::from_text(PUBLIC).expect("key").into()], ..Trust::default() };
}

/// A bundle as it comes, believed without a signature.
pub fn bundle(data: &[u8]) {
    open(data);
}

/// The documents of a bundle, see [`pieces`]: sums, headers and places are made right around them.
pub fn documents(data: &[u8]) {
    let Some((out, members)) = built(pieces(data)) else { return };
    if let Some(bundle) = open(&out) {
        for (name, bytes) in &members {
            let found = match name.strip_prefix("blobs/sha256/") {
                Some(hex) => bundle.read_small(&Digest::sha256(hex).expect("digest"), 1 << 20),
                None if FRONT.contains(&name.as_str()) => continue,
                None => bundle.file(name),
            };
            assert_eq!(found.expect("what is listed can be read"), bytes);
        }
        forms(bundle);
    }
}

/// The members before files and blobs.
const FRONT: [&str; 4] = [member::HEAD, member::OCI_LAYOUT, member::INDEX, member::MANIFEST];

/// Names and bytes.
pub(crate) type Members = Vec<(String, Vec<u8>)>;

/// A bundle of these documents, and its members; `None` when a name fits in no header.
pub(crate) fn built(pieces: Vec<Piece>) -> Option<(Vec<u8>, Members)> {
    let (mut front, mut files, mut blobs) = (BTreeMap::new(), Vec::new(), Vec::new());
    front.insert(member::OCI_LAYOUT.to_owned(), b"{\"imageLayoutVersion\":\"1.0.0\"}".to_vec());
    for Piece { name, bytes } in pieces {
        match name.as_str() {
            member::HEAD | member::OCI_LAYOUT | member::INDEX | member::MANIFEST => _ = front.insert(name, bytes),
            name if name.starts_with("blobs/") => blobs.push((name.to_owned(), bytes)),
            _ => files.push((name, bytes)),
        }
    }
    let front = FRONT.map(|name| (name.to_owned(), front.remove(name).unwrap_or_default()));
    let members: Members = front.into_iter().chain(files).chain(blobs).collect();
    let sums: String = members.iter().map(|(name, bytes)| format!("{}  {name}\n", Digest::of(bytes).hex())).collect();
    let mut out = Vec::new();
    for (name, bytes) in [(member::SUMS.to_owned(), sums.into_bytes())].iter().chain(&members) {
        out.extend_from_slice(&member::header(name, bytes.len() as u64)?);
        out.extend_from_slice(bytes);
        out.resize(out.len().next_multiple_of(512), 0);
    }
    out.resize(out.len() + 1024, 0);
    Some((out, members))
}

/// Whatever is pushed is a document that the target can check, and so is all that it names.
fn forms(bundle: Bundle) {
    let bundles = Bundles::from(Arc::new(bundle));
    let Ok(documents) = preflight::documents(&bundles) else { return };
    let (mut notes, mut problems) = (Vec::new(), Problems::default());
    for named in preflight::served(&bundles, &documents, None, &mut notes, &mut problems) {
        for mode in [IndexMode::Auto, IndexMode::Sparse, IndexMode::Filtered, IndexMode::Platform] {
            let Ok(forms) = form::choose(&named, &documents, mode) else { continue };
            for form in [Some(forms.first), forms.second].into_iter().flatten() {
                let found = Descriptor::of(&form.root.media_type, &form.bytes);
                assert_eq!((&found.digest, found.size), (&form.root.digest, form.root.size));
                let Manifest::Index(index) = parsed(&form) else { continue };
                let mut there = BTreeSet::new();
                for child in &form.children {
                    assert!(documents.contains_key(&child.digest) && there.insert(&child.digest), "{child:?}");
                }
                let whole = index.manifests.iter().all(|entry| there.contains(&entry.digest));
                assert!(form.sparse || whole, "{:?}", form.kind);
                assert!(form.kind != FormKind::Filtered || (whole && !form.sparse));
            }
        }
    }
}

fn parsed(form: &form::Form) -> Manifest {
    let declared = Some(form.root.media_type.as_str()).filter(|media_type| !media_type.is_empty());
    Manifest::parse(&form.bytes, declared).expect("what is pushed is a manifest")
}

/// What opens is what another reader finds, member by member; whatever else comes is not believed.
fn open(bytes: &[u8]) -> Option<Bundle> {
    let path = FOLDER.with_borrow(|folder| folder.write("b.tar", bytes));
    let trust = Trust { allow_unsigned: true, ..Trust::default() };
    let strict = TRUST.with(|trust| Bundle::open(&path, trust));
    let bundle = match Bundle::open(&path, &trust) {
        Ok(bundle) => bundle,
        Err(error) => {
            is_not_believed(&error);
            assert!(strict.is_err(), "trusted, but {error}");
            return None;
        }
    };
    assert_eq!(strict.is_ok(), bundle.signed().claimed == Some(KEY.with(SecretKey::key_id)) && strict.is_ok());
    let verified = match bundle.verify(1, false, &|_| {}) {
        Ok(verified) => verified,
        Err(error) => {
            is_not_believed(&error);
            return None;
        }
    };
    let head = bundle.head();
    assert_eq!((head.check(), verified.blobs), (Ok(()), head.blobs.len()));
    let json = head.to_json().expect("json");
    assert_eq!(&serde_json::from_slice::<Head>(&json).expect("json"), head);
    audit(bytes);
    for blob in &head.blobs {
        assert_eq!(bundle.blob(&blob.digest).map(|d| d.size), Some(blob.size));
    }
    if let Err(error) = bundle.without_docker() {
        is_not_believed(&error);
    }
    Some(bundle)
}

pub(crate) fn is_not_believed(error: &Error) {
    assert_eq!(error.kind(), Kind::Untrusted, "{error}");
    assert!(error.hint().is_some(), "{error}");
}

/// The five steps of the format's document, with the `tar` crate for tar.
fn audit(bytes: &[u8]) {
    let mut found: BTreeMap<String, Vec<u8>> = BTreeMap::new();
    for entry in tar::Archive::new(bytes).entries().expect("entries") {
        let mut entry = entry.expect("entry");
        assert!(entry.header().entry_type().is_file());
        let name = String::from_utf8(entry.path_bytes().into_owned()).expect("name");
        let mut content = Vec::new();
        entry.read_to_end(&mut content).expect("content");
        assert!(found.insert(name, content).is_none(), "twice");
    }
    let sums = String::from_utf8(found.remove(member::SUMS).expect("sums")).expect("text");
    found.remove(member::SIGNATURE);
    for line in sums.lines() {
        let (hex, name) = line.split_once("  ").expect("a line of sha256sum");
        let content = found.remove(name).expect("what is listed is there");
        assert_eq!(Digest::of(&content).hex(), hex, "{name}");
    }
    assert!(found.is_empty(), "not listed: {:?}", found.keys());
}

/// Keys read back as they are written, and nothing but a key's own signature is taken for one.
pub fn signature(data: &[u8]) {
    const SUMS: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855  ferry.json\n";
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Ok(PublicKey::Minisign(key)) = PublicKey::from_text(text) {
        assert_eq!(MinisignKey::from_text(&key.to_base64()).as_ref().ok(), Some(&key));
    }
    // never one with a password: unlocking takes a gibibyte
    match SecretKey::from_text(text, None) {
        Ok(key) => {
            let trust = Trust { keys: vec![key.public_key().into()], ..Trust::default() };
            let signed = key.sign(SUMS, "demo", None);
            let found = trust.check(Path::new("b"), SUMS.as_bytes(), Some(&signed), &[]).expect("it is its own");
            assert_eq!((found.claimed, found.signers.len()), (Some(key.key_id()), 1));
        }
        Err(error) => assert!(matches!(error, Error::Key { .. } | Error::PasswordNeeded), "{error}"),
    }
    let checked = TRUST.with(|trust| trust.check(Path::new("b"), SUMS.as_bytes(), Some(text), &[]));
    match checked {
        Ok(signer) => {
            let own = KEY.with(|key| (Some(key.key_id()), key.sign(SUMS, "demo", Some("1.2"))));
            assert_eq!((signer.claimed, text), (own.0, own.1.as_str()));
        }
        Err(error) => is_not_believed(&error),
    }
    beside(SUMS, data);
}

/// The same bytes as a file beside the bundle, under a name of its own and under that of the key.
fn beside(sums: &str, data: &[u8]) {
    let own = KEY.with(|key| (key.key_id().to_string(), key.sign(sums, "demo", None)));
    for (label, form) in [("x", Form::Minisign), (own.0.as_str(), Form::Minisign), ("x", Form::Cosign)] {
        let file = Beside { path: "b.x".into(), label: label.to_owned(), form, content: Ok(data.to_vec()) };
        match TRUST.with(|trust| trust.check(Path::new("b"), sums.as_bytes(), None, &[file])) {
            Ok(signed) => {
                // one signature is all that a key makes of the same bytes; the comments may be others
                let line = own.1.lines().nth(1).expect("signature");
                assert!(signed.signers.len() == 1 && String::from_utf8_lossy(data).contains(line));
            }
            Err(error) => is_not_believed(&error),
        }
    }
}

/// Lines of a journal, each sealed: what is kept is a set of bytes within each blob.
pub fn journal(data: &[u8]) {
    const SIZES: [u64; 4] = [0, 3, 17, 40];
    let Ok(text) = std::str::from_utf8(data) else { return };
    let sealed: String = text.lines().map(archive::journal_line).collect();
    let read = |bytes: &[u8]| {
        let path = FOLDER.with_borrow(|folder| folder.write("b.tar.partial.journal", bytes));
        archive::journal(&path, &SIZES).expect("a journal is never an error")
    };
    read(data);
    let Some(kept) = read(sealed.as_bytes()) else { return };
    let mut expected = SIZES.map(|size| vec![false; usize::try_from(size).unwrap_or_default()]);
    for line in text.lines().skip(1) {
        let words: Vec<&str> = line.split(' ').collect();
        let number = |i: usize| words.get(i).and_then(|w| w.parse::<usize>().ok());
        match (words.first(), words.len(), number(1), number(2), number(3)) {
            (Some(&"kept"), 4, Some(blob), Some(start), Some(end)) => {
                if let Some(bytes) = expected.get_mut(blob).and_then(|all| all.get_mut(start..end)) {
                    bytes.fill(true);
                }
            }
            (Some(&"finished"), 2, Some(blob), ..) => {
                if let Some(all) = expected.get_mut(blob) {
                    all.fill(true);
                }
            }
            (Some(&"forgotten"), 2, Some(blob), ..) => {
                if let Some(all) = expected.get_mut(blob) {
                    all.fill(false);
                }
            }
            _ => {}
        }
    }
    for (ranges, bytes) in kept.iter().zip(&expected) {
        let mut found = vec![false; bytes.len()];
        for range in ranges {
            let (start, end) = (usize::try_from(range.start), usize::try_from(range.end));
            found[start.expect("small")..end.expect("small")].fill(true);
        }
        assert_eq!(&found, bytes);
    }
}
