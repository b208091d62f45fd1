//! What differs between two bundles, receipts or locks. Pure.

use std::collections::{BTreeMap, BTreeSet};

use ferry_image::{Digest, Reference};

use crate::base::{Base, BaseImage, BaseKind};

/// What differs from one to the other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Diff {
    /// Every image of either, sorted by reference.
    pub images: Vec<ImageDiff>,
    /// The blobs; none where one of the two is a lock.
    pub blobs: Option<BlobDiff>,
    /// What could not be compared.
    pub notes: Vec<String>,
}

/// One image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageDiff {
    /// Its reference.
    pub reference: Reference,
    /// What became of it.
    pub change: Change,
    /// What it was.
    pub from: Option<Digest>,
    /// What it is.
    pub to: Option<Digest>,
    /// All its bytes: of what it is, or was where it is removed. None where they are not known for single images.
    pub bytes: Option<u64>,
    /// Those of them that are new.
    pub new_bytes: Option<u64>,
}

/// What became of an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Change {
    /// Only the second has it.
    Added,
    /// Only the first has it.
    Removed,
    /// Another digest, or the same for other platforms.
    Changed,
    /// The same.
    Unchanged,
}

/// Blobs, manifests included.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct BlobDiff {
    /// Only the second has them.
    pub added: Amount,
    /// Only the first has them.
    pub removed: Amount,
    /// Both have them.
    pub unchanged: Amount,
}

/// Some blobs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Amount {
    /// How many.
    pub count: usize,
    /// Their bytes, as far as they are known.
    pub bytes: u64,
    /// How many of them are of unknown size.
    pub unsized_blobs: usize,
}

impl Diff {
    /// Whether anything differs.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.images.iter().all(|image| image.change == Change::Unchanged)
            && self.blobs.is_none_or(|blobs| blobs.added.count + blobs.removed.count == 0)
    }

    /// How many images are of this kind.
    #[must_use]
    pub fn count(&self, change: Change) -> usize {
        self.images.iter().filter(|image| image.change == change).count()
    }
}

impl Change {
    /// `added`, `removed`, `changed`, `unchanged`.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Added => "added",
            Self::Removed => "removed",
            Self::Changed => "changed",
            Self::Unchanged => "unchanged",
        }
    }
}

impl Amount {
    fn add(&mut self, size: Option<u64>) {
        self.count += 1;
        self.bytes += size.unwrap_or_default();
        self.unsized_blobs += usize::from(size.is_none());
    }
}

/// What differs from `a` to `b`.
#[must_use]
pub fn diff(a: &Base, b: &Base) -> Diff {
    let (before, after) = (by_reference(a), by_reference(b));
    let references: BTreeSet<&Reference> = before.keys().chain(after.keys()).copied().collect();
    let images = references.into_iter().map(|reference| {
        let (from, to) = (before.get(reference).copied(), after.get(reference).copied());
        let change = match (from, to) {
            (None, _) => Change::Added,
            (_, None) => Change::Removed,
            (Some(from), Some(to)) if is_same(from, to) => Change::Unchanged,
            _ => Change::Changed,
        };
        let bytes = match to {
            Some(to) => bytes_of(b, to, |_| true),
            None => from.and_then(|from| bytes_of(a, from, |_| true)),
        };
        let is_new = |digest: &Digest| !a.blobs.contains_key(digest);
        let new_bytes = to.filter(|_| a.kind != BaseKind::Lock).and_then(|to| bytes_of(b, to, is_new));
        let digest = |image: Option<&BaseImage>| image.map(|image| image.digest.clone());
        ImageDiff { reference: reference.clone(), change, from: digest(from), to: digest(to), bytes, new_bytes }
    });
    let images = images.collect();
    let locks: Vec<&Base> = [a, b].into_iter().filter(|base| base.kind == BaseKind::Lock).collect();
    let notes =
        locks.iter().map(|lock| format!("{} is a lock: it names images, and knows no blobs and no bytes", lock.file));
    let blobs = locks.is_empty().then(|| blobs(a, b));
    let unknown = blobs.map_or(0, |b| b.added.unsized_blobs + b.removed.unsized_blobs + b.unchanged.unsized_blobs);
    let old = (unknown > 0).then(|| format!("blobs of unknown size: {unknown} (a receipt of version 1 does not say)"));
    let strange = nothing_in_common(&before, &after, [a, b]);
    Diff { images, blobs, notes: notes.chain(old).chain(strange).collect() }
}

fn by_reference(base: &Base) -> BTreeMap<&Reference, &BaseImage> {
    base.images.iter().map(|image| (&image.reference, image)).collect()
}

/// A target knows images by their names there.
fn nothing_in_common(
    before: &BTreeMap<&Reference, &BaseImage>,
    after: &BTreeMap<&Reference, &BaseImage>,
    bases: [&Base; 2],
) -> Option<String> {
    let is_inventory = |base: &&Base| base.kind == BaseKind::Receipt && base.names.iter().all(|n| n.sums.is_none());
    let inventory = bases.into_iter().find(is_inventory)?;
    let strangers = !before.is_empty() && !after.is_empty() && before.keys().all(|name| !after.contains_key(name));
    let file = &inventory.file;
    strangers.then(|| {
        format!("{file} names images as the target does: made with `ferry inventory --from`, it has their references")
    })
}

fn is_same(from: &BaseImage, to: &BaseImage) -> bool {
    let platforms = from.manifests.as_ref().zip(to.manifests.as_ref());
    from.digest == to.digest && platforms.is_none_or(|(from, to)| from == to)
}

fn bytes_of(base: &Base, image: &BaseImage, counts: impl Fn(&Digest) -> bool) -> Option<u64> {
    let of_image = image.blobs.as_ref()?.iter().filter(|digest| counts(digest));
    of_image.map(|digest| base.blobs.get(digest)?.size).sum()
}

fn blobs(a: &Base, b: &Base) -> BlobDiff {
    let mut diff = BlobDiff::default();
    for (digest, blob) in &a.blobs {
        match b.blobs.get(digest) {
            Some(other) => diff.unchanged.add(blob.size.or(other.size)),
            None => diff.removed.add(blob.size),
        }
    }
    for (_, blob) in b.blobs.iter().filter(|(digest, _)| !a.blobs.contains_key(digest)) {
        diff.added.add(blob.size);
    }
    diff
}

#[cfg(test)]
mod tests {
    use ferry_archive::HeadBase;

    use super::*;
    use crate::base::BaseBlob;

    fn d(name: &str) -> Digest {
        Digest::of(name.as_bytes())
    }

    /// `images` are `reference=root:blob,blob`; each blob has as many bytes as its name is long, `?` none that are known.
    fn base(kind: BaseKind, images: &[&str]) -> Base {
        let mut blobs = BTreeMap::new();
        let mut listed = Vec::new();
        for image in images {
            let (reference, rest) = image.split_once('=').expect("=");
            let (root, names) = rest.split_once(':').expect(":");
            let names: Vec<&str> = names.split(',').collect();
            for name in &names {
                let size = (*name != "?").then_some(name.len() as u64);
                blobs.insert(d(name), BaseBlob { size, ..BaseBlob::default() });
            }
            let is_bundle = kind == BaseKind::Bundle;
            listed.push(BaseImage {
                reference: reference.parse().expect("reference"),
                digest: d(root),
                manifests: (kind != BaseKind::Receipt).then(|| [d(names[0])].into()),
                blobs: is_bundle.then(|| names.iter().map(|name| d(name)).collect()),
            });
        }
        if kind == BaseKind::Lock {
            blobs.clear();
        }
        let names = vec![HeadBase { name: "b".to_owned(), version: None, sums: None }];
        let file = format!("{kind:?}");
        Base { kind, file, names, images: listed, blobs, unread: Vec::new(), fingerprint: d("") }
    }

    /// `a+ …` for what is added, `-`, `~`, `=`, with bytes and new bytes.
    fn shown(diff: &Diff) -> Vec<String> {
        let number = |n: Option<u64>| n.map_or("-".to_owned(), |n| n.to_string());
        let show = |image: &ImageDiff| {
            let sign = match image.change {
                Change::Added => "+",
                Change::Removed => "-",
                Change::Changed => "~",
                Change::Unchanged => "=",
            };
            format!("{}{sign} {}/{}", image.reference.name(), number(image.bytes), number(image.new_bytes))
        };
        diff.images.iter().map(show).collect()
    }

    #[test]
    fn images_and_bytes() {
        use BaseKind::{Bundle, Lock, Receipt};
        let old = ["a:1=r1:m,xx", "b:1=r2:m,yyy", "c:1=r3:m"];
        let new = ["b:1=r4:m,yyy,zzzz", "c:1=r3:m", "d:1=r5:n,xx"];
        for (from, to, images, blobs) in [
            (Bundle, Bundle, ["a- 3/-", "b~ 8/4", "c= 1/0", "d+ 3/1"], Some((2, 5, 0, 0, 3))),
            (Receipt, Bundle, ["a- -/-", "b~ 8/4", "c= 1/0", "d+ 3/1"], Some((2, 5, 0, 0, 3))),
            (Bundle, Receipt, ["a- 3/-", "b~ -/-", "c= -/-", "d+ -/-"], Some((2, 5, 0, 0, 3))),
            (Lock, Bundle, ["a- -/-", "b~ 8/-", "c= 1/-", "d+ 3/-"], None),
            (Bundle, Lock, ["a- 3/-", "b~ -/-", "c= -/-", "d+ -/-"], None),
        ] {
            let diff = diff(&base(from, &old), &base(to, &new));
            assert_eq!(shown(&diff), images, "{from:?} {to:?}");
            let found =
                diff.blobs.map(|b| (b.added.count, b.added.bytes, b.removed.count, b.removed.bytes, b.unchanged.count));
            assert_eq!(found, blobs, "{from:?} {to:?}");
            assert_eq!(diff.notes.len(), usize::from(blobs.is_none()), "{:?}", diff.notes);
            assert!(!diff.is_empty());
        }
    }

    #[test]
    fn the_same_index_for_other_platforms_is_another_image() {
        let (one, two) = (base(BaseKind::Bundle, &["a:1=r:m"]), base(BaseKind::Bundle, &["a:1=r:n"]));
        assert_eq!(diff(&one, &two).images[0].change, Change::Changed);
        assert!(diff(&one, &one).is_empty());
        let receipt = base(BaseKind::Receipt, &["a:1=r:n"]);
        assert_eq!(diff(&one, &receipt).images[0].change, Change::Unchanged, "a receipt does not say");
    }

    #[test]
    fn an_inventory_under_other_names_is_told() {
        let (one, two) = (base(BaseKind::Bundle, &["a:1=r:m"]), base(BaseKind::Receipt, &["r.example/a:1=r:m"]));
        assert!(diff(&one, &two).notes[0].contains("ferry inventory --from"), "{:?}", diff(&one, &two).notes);
        let same = base(BaseKind::Receipt, &["a:1=r:m"]);
        assert!(diff(&one, &same).notes.is_empty() && diff(&same, &same).notes.is_empty());
    }

    #[test]
    fn sizes_that_are_not_known_are_told() {
        let (one, two) = (base(BaseKind::Receipt, &["a:1=r:m,?"]), base(BaseKind::Bundle, &["a:1=r:m"]));
        let diff = diff(&one, &two);
        assert_eq!(diff.blobs.expect("blobs").removed, Amount { count: 1, bytes: 0, unsized_blobs: 1 });
        assert!(diff.notes[0].contains("unknown size: 1 "), "{:?}", diff.notes);
    }
}
