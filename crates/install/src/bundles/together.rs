//! What several bundles are together: which of two counts, and what they carry between them. Pure, over their heads.

use std::collections::{BTreeMap, BTreeSet};

use ferry_archive::Head;
use ferry_archive::oci::REF_NAME;
use ferry_image::{Digest, Ignore, Layout, Reference, SetRule, TargetName};

use crate::Error;
use crate::names::{self, Named};

/// A bundle as far as this goes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Part<'a> {
    /// What it is called in messages: its file.
    pub(crate) place: &'a str,
    pub(crate) head: &'a Head,
    /// The digest of its `SHA256SUMS`.
    pub(crate) sums: &'a Digest,
}

/// For each bundle those that it builds on, by its own word or by that of one that it builds on.
pub(crate) fn builds_on(parts: &[Part<'_>]) -> Vec<BTreeSet<usize>> {
    let direct = |part: &Part<'_>| -> BTreeSet<usize> {
        let sums: BTreeSet<&Digest> = part.head.bases.iter().filter_map(|base| base.sums.as_ref()).collect();
        let named = |(_, other): &(usize, &Part<'_>)| sums.contains(other.sums) && other.sums != part.sums;
        parts.iter().enumerate().filter(named).map(|(i, _)| i).collect()
    };
    let mut all: Vec<BTreeSet<usize>> = parts.iter().map(direct).collect();
    loop {
        let further: Vec<BTreeSet<usize>> = all
            .iter()
            .map(|older| older.iter().flat_map(|i| &all[*i]).chain(older).copied().collect::<BTreeSet<_>>())
            .collect();
        if further == all {
            return all;
        }
        all = further;
    }
}

/// The bundles in the order in which they count: what builds on another before that, otherwise as they were given.
pub(crate) fn order(builds_on: &[BTreeSet<usize>]) -> Vec<usize> {
    let mut left: Vec<usize> = (0..builds_on.len()).collect();
    let mut order = Vec::with_capacity(left.len());
    while !left.is_empty() {
        let is_next = |i: &usize| left.iter().all(|other| other == i || !builds_on[*other].contains(i));
        let at = left.iter().position(is_next).unwrap_or(0);
        order.push(left.remove(at));
    }
    order
}

/// The bundles in the order in which they are to be installed: what another builds on before that, otherwise as they were given.
pub(crate) fn oldest_first(builds_on: &[BTreeSet<usize>]) -> Vec<usize> {
    let mut left: Vec<usize> = (0..builds_on.len()).collect();
    let mut order = Vec::with_capacity(left.len());
    while !left.is_empty() {
        let is_next = |i: &usize| left.iter().all(|other| other == i || !builds_on[*i].contains(other));
        let at = left.iter().position(is_next).unwrap_or(0);
        order.push(left.remove(at));
    }
    order
}

/// Bundles in the order of [`order`], and what each of them builds on.
#[derive(Debug, Clone)]
pub(crate) struct Together<'a> {
    pub(crate) parts: Vec<Part<'a>>,
    pub(crate) older: &'a [BTreeSet<usize>],
}

/// What they carry between them.
#[derive(Debug, Default)]
pub(crate) struct Carries {
    /// Each image with the bundles that have it.
    pub(crate) images: Vec<(Named, BTreeSet<usize>)>,
    /// What counts instead of something older.
    pub(crate) notes: Vec<String>,
    /// What cannot be together.
    pub(crate) conflicts: Vec<Error>,
}

/// A carried file, and the bundles that have it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Member {
    pub(crate) path: String,
    pub(crate) digest: Digest,
    pub(crate) of: BTreeSet<usize>,
}

impl Together<'_> {
    /// The images with their names. One that two bundles have is one, with all that either knows of it.
    pub(crate) fn images(&self, layout: Option<Layout>) -> Carries {
        let mut carries = Carries::default();
        let mut seen: BTreeMap<Reference, usize> = BTreeMap::new();
        let all = self.parts.iter().enumerate();
        let all = all.flat_map(|(i, part)| names::place(part.head, layout).into_iter().map(move |named| (i, named)));
        for (i, named) in all {
            let what = format!("image `{}`", named.image.reference);
            let at = *seen.entry(named.image.reference.clone()).or_insert(carries.images.len());
            match carries.images.get_mut(at) {
                None => carries.images.push((named, BTreeSet::from([i]))),
                Some((had, of)) if had.name == named.name && had.image.root.digest == named.image.root.digest => {
                    of.insert(i);
                    join(had, named, &mut carries.notes);
                }
                Some((_, of)) => match self.newer(of, i) {
                    Ok(newer) => carries.notes.push(self.counts(&what, newer, i)),
                    Err(first) => carries.conflicts.push(self.conflict(what, first, i)),
                },
            }
        }
        self.one_for_each_name(&mut carries);
        names::share(carries.images.iter_mut().map(|(named, _)| named));
        carries
    }

    /// Of references that share a name and differ, those of older bundles give way. Where none is older the preflight tells of the collision.
    fn one_for_each_name(&self, carries: &mut Carries) {
        let mut kept: Vec<(Named, BTreeSet<usize>)> = Vec::with_capacity(carries.images.len());
        let mut seen: BTreeMap<TargetName, usize> = BTreeMap::new();
        for (named, of) in std::mem::take(&mut carries.images) {
            let at = *seen.entry(named.name.clone()).or_insert(kept.len());
            let had = kept.get(at).filter(|(had, _)| had.name.tag.is_some());
            let had = had.filter(|(had, _)| had.image.root.digest != named.image.root.digest);
            let older = of.first().copied().unwrap_or_default();
            match had.map(|(_, newer)| newer).filter(|newer| of.iter().all(|i| self.newer(newer, *i).is_ok())) {
                Some(newer) => {
                    let newer = self.newer(newer, older).unwrap_or(older);
                    carries.notes.push(self.counts(&format!("image `{}`", named.image.reference), newer, older));
                }
                None => kept.push((named, of)),
            }
        }
        carries.images = kept;
    }

    /// The carried YAML of all, each path once.
    pub(crate) fn yaml(&self) -> (Vec<Member>, Vec<String>, Vec<Error>) {
        let (mut members, mut notes, mut conflicts) = (Vec::<Member>::new(), Vec::new(), Vec::new());
        for (i, part) in self.parts.iter().enumerate() {
            for file in &part.head.yaml {
                let what = format!("`{}`", file.path);
                match members.iter_mut().find(|member| member.path == file.path) {
                    None => {
                        let (path, digest) = (file.path.clone(), file.digest.clone());
                        members.push(Member { path, digest, of: BTreeSet::from([i]) });
                    }
                    Some(member) if member.digest == file.digest => drop(member.of.insert(i)),
                    Some(member) => match self.newer(&member.of, i) {
                        Ok(newer) => notes.push(self.counts(&what, newer, i)),
                        Err(first) => conflicts.push(self.conflict(what, first, i)),
                    },
                }
            }
        }
        (members, notes, conflicts)
    }

    /// The rules of all; two for one place that differ are a conflict, unless one is newer. Of rules that meet, the later ones win: so those of
    /// newer bundles stand after those of older ones.
    pub(crate) fn rules(&self) -> (Vec<SetRule>, Vec<String>, Vec<Error>) {
        let (mut rules, mut notes, mut conflicts) = (Vec::<(usize, &SetRule)>::new(), Vec::new(), Vec::new());
        for i in oldest_first(self.older) {
            let part = &self.parts[i];
            for rule in &part.head.set {
                let place = |rule: &SetRule| (rule.file.clone(), rule.kind.clone(), rule.paths.clone());
                let what = || format!("the rule for `{}`", rule.paths.join(", "));
                // within one bundle, rules follow one another as they are written
                let meets = |(other, had): &(usize, &SetRule)| *other != i && place(had) == place(rule);
                let had: Vec<(usize, &SetRule)> = rules.iter().filter(|one| meets(one)).copied().collect();
                let (older, strangers): (Vec<_>, Vec<_>) =
                    had.into_iter().partition(|(other, _)| self.older[i].contains(other));
                match strangers.iter().find(|(_, had)| *had != rule) {
                    Some((first, _)) => conflicts.push(self.conflict(what(), *first, i)),
                    None if !strangers.is_empty() => {}
                    None => {
                        rules.retain(|one| !(meets(one) && self.older[i].contains(&one.0)));
                        rules.push((i, rule));
                    }
                }
                if let Some((older, _)) = older.iter().find(|(_, had)| *had != rule) {
                    notes.push(self.counts(&what(), i, *older));
                }
            }
        }
        (rules.into_iter().map(|(_, rule)| rule.clone()).collect(), notes, conflicts)
    }

    /// What is left alone on purpose, by any of them.
    pub(crate) fn ignore(&self) -> Vec<Ignore> {
        let mut all: Vec<Ignore> = Vec::new();
        for ignore in self.parts.iter().flat_map(|part| &part.head.ignore) {
            if !all.contains(ignore) {
                all.push(ignore.clone());
            }
        }
        all
    }

    /// One of `of` that builds on `older`; the first of `of` where none does.
    fn newer(&self, of: &BTreeSet<usize>, older: usize) -> Result<usize, usize> {
        match of.iter().find(|i| self.older[**i].contains(&older)) {
            Some(newer) => Ok(*newer),
            None => Err(of.first().copied().unwrap_or_default()),
        }
    }

    fn counts(&self, what: &str, newer: usize, older: usize) -> String {
        let (newer, older) = (self.parts[newer].place, self.parts[older].place);
        format!("{what}: as in `{newer}`, which builds on `{older}` and is newer")
    }

    fn conflict(&self, what: String, first: usize, second: usize) -> Error {
        let place = |i: usize| self.parts[i].place.to_owned();
        Error::Differ { what, first: place(first), second: place(second) }
    }
}

/// Adds what another bundle knows of the same image.
fn join(had: &mut Named, other: Named, notes: &mut Vec<String>) {
    let image = &mut had.image;
    for platform in other.image.platforms {
        if !image.platforms.contains(&platform) {
            image.platforms.push(platform);
        }
    }
    for verified in other.image.verified {
        if !image.verified.contains(&verified) {
            image.verified.push(verified);
        }
    }
    for referrer in other.image.referrers {
        let tag = referrer.annotations.get(REF_NAME);
        let at_tag = |had: &&ferry_image::Descriptor| tag.is_some() && had.annotations.get(REF_NAME) == tag;
        if image.referrers.iter().any(|had| had.digest == referrer.digest) {
            continue;
        }
        match image.referrers.iter().find(at_tag) {
            Some(there) => notes.push(format!(
                "image `{}`: two bundles differ in what stands under `{}`: {} is pushed, and not {}",
                image.reference,
                tag.map(String::as_str).unwrap_or_default(),
                there.digest,
                referrer.digest
            )),
            None => image.referrers.push(referrer),
        }
    }
}

#[cfg(test)]
mod tests {
    use ferry_archive::{HeadBase, HeadFile, HeadImage};
    use ferry_image::{Descriptor, media_type};

    use super::*;

    /// A bundle that builds on those of these names: its sums are those of its own name.
    fn head(bases: &[&str], images: &[(&str, &str)]) -> Head {
        let base =
            |name: &&str| HeadBase { name: "x".to_owned(), version: None, sums: Some(Digest::of(name.as_bytes())) };
        let image = |(reference, root): &(&str, &str)| {
            let root = Descriptor::of(media_type::OCI_MANIFEST, root.as_bytes());
            HeadImage {
                reference: reference.replace("ROOT", &root.digest.to_string()).parse().expect("reference"),
                target: None,
                source: String::new(),
                root,
                platforms: vec![],
                referrers: vec![],
                verified: vec![],
            }
        };
        Head {
            format: 1,
            name: "x".to_owned(),
            version: None,
            platforms: vec![],
            layout: Layout::Path,
            images: images.iter().map(image).collect(),
            absent: vec![],
            yaml: vec![],
            files: vec![],
            set: vec![],
            ignore: vec![],
            bases: bases.iter().map(base).collect(),
            relies: vec![],
            blobs: vec![],
        }
    }

    struct All(Vec<(&'static str, Head)>);

    impl All {
        /// In the order in which they count.
        fn see<T>(&self, look: impl FnOnce(&Together<'_>) -> T) -> T {
            let sums: Vec<Digest> = self.0.iter().map(|(name, _)| Digest::of(name.as_bytes())).collect();
            let parts = self.0.iter().zip(&sums).map(|((place, head), sums)| Part { place, head, sums });
            let parts: Vec<Part<'_>> = parts.collect();
            let parts: Vec<Part<'_>> = order(&builds_on(&parts)).into_iter().map(|i| parts[i]).collect();
            let older = builds_on(&parts);
            look(&Together { parts, older: &older })
        }

        fn shown(&self) -> (Vec<String>, usize, Vec<String>) {
            let carries = self.see(|all| all.images(None));
            let image = |(named, of): &(Named, BTreeSet<usize>)| {
                let root = ["X", "Y", "Z"].into_iter().find(|x| Digest::of(x.as_bytes()) == named.image.root.digest);
                format!("{}={} {}", named.image.reference.path(), root.unwrap_or("?"), of.len())
            };
            let conflicts = carries.conflicts.iter().map(ToString::to_string).collect();
            (carries.images.iter().map(image).collect(), carries.notes.len(), conflicts)
        }
    }

    #[test]
    fn what_builds_on_another_comes_before_it_whatever_the_order() {
        let chain =
            || [("a", head(&[], &[])), ("b", head(&["a"], &[])), ("c", head(&["b"], &[])), ("d", head(&[], &[]))];
        for (turn, expected) in [(0, "cbad"), (1, "dcba"), (2, "cdba"), (3, "dcba")] {
            let mut all = All(chain().into());
            match turn {
                1 => all.0.reverse(),
                2 => all.0.rotate_left(2),
                3 => all.0.rotate_right(1),
                _ => {}
            }
            let order = all.see(|all| all.parts.iter().map(|part| part.place).collect::<String>());
            assert_eq!(order, expected, "{turn}");
            assert!(all.see(|all| all.older.iter().any(|older| older.len() == 2)), "the base of a base");
        }
    }

    #[test]
    fn the_same_image_is_one_and_another_counts_only_if_it_is_newer() {
        let one = &[("a/app:1", "X")][..];
        let other = &[("a/app:1", "Y")][..];
        let image = |text: &str| vec![text.to_owned()];
        for (bundles, images, notes, conflicts) in [
            (vec![("v1", head(&[], one)), ("v2", head(&[], one))], image("a/app=X 2"), 0, 0),
            (vec![("v1", head(&[], one)), ("v2", head(&["v1"], other))], image("a/app=Y 1"), 1, 0),
            (vec![("v2", head(&["v1"], other)), ("v1", head(&[], one))], image("a/app=Y 1"), 1, 0),
            (vec![("v1", head(&[], one)), ("v2", head(&[], other))], image("a/app=X 1"), 0, 1),
            // a base that is not here decides nothing
            (vec![("v1", head(&[], one)), ("v2", head(&["v0"], other))], image("a/app=X 1"), 0, 1),
        ] {
            let (found, told, clashes) = All(bundles).shown();
            assert_eq!((found, told, clashes.len()), (images, notes, conflicts), "{clashes:?}");
            assert!(clashes.iter().all(|c| c.contains("`v1`") && c.contains("`v2`")), "{clashes:?}");
        }
    }

    #[test]
    fn a_newer_pin_takes_the_name_of_an_older_one() {
        let (old, new) = ([("a/app:1@ROOT", "X")], [("a/app:1@ROOT", "Y")]);
        let delta = All(vec![("v1", head(&[], &old)), ("v2", head(&["v1"], &new))]);
        assert_eq!(delta.shown(), (vec!["a/app=Y 1".to_owned()], 1, vec![]));
        // the preflight tells of these
        let strangers = All(vec![("v1", head(&[], &old)), ("v2", head(&[], &new))]);
        assert_eq!(strangers.shown().0.len(), 2);
    }

    #[test]
    fn files_and_rules_of_newer_bundles_count() {
        let with = |bases: &[&str], text: &str| {
            let mut head = head(bases, &[]);
            let digest = Digest::of(text.as_bytes());
            head.yaml.push(HeadFile { path: "yaml/a.yaml".to_owned(), digest, size: 1 });
            let rule = |paths: &str, image: &str| SetRule {
                file: None,
                kind: None,
                paths: vec![paths.to_owned()],
                form: ferry_image::rules::Form::Whole,
                image: image.parse().expect("reference"),
            };
            head.set = vec![rule("same", "a:1"), rule("image", text)];
            head
        };
        for (bases, other, members, notes, conflicts, rules) in
            [(&[][..], "a/b:1", 1, 0, 0, 2), (&["v1"][..], "a/b:2", 1, 2, 0, 2), (&[][..], "a/b:2", 1, 0, 2, 2)]
        {
            let all = All(vec![("v1", with(&[], "a/b:1")), ("v2", with(bases, other))]);
            let (found, mut told, mut clashes) = all.see(|all| all.yaml());
            let (kept, also, more) = all.see(|all| all.rules());
            told.extend(also);
            clashes.extend(more);
            assert_eq!((found.len(), told.len(), clashes.len(), kept.len()), (members, notes, conflicts, rules));
            if notes > 0 {
                assert_eq!(found[0].digest, Digest::of(other.as_bytes()));
                assert!(kept.iter().any(|rule| rule.image.to_string().ends_with("a/b:2")), "{kept:?}");
            }
        }
    }

    #[test]
    fn rules_of_newer_bundles_stand_after_those_of_older_ones() {
        let with = |bases: &[&str], rules: &[(&str, &str)]| {
            let mut head = head(bases, &[]);
            let rule = |(path, image): &(&str, &str)| SetRule {
                file: None,
                kind: None,
                paths: vec![(*path).to_owned()],
                form: ferry_image::rules::Form::Whole,
                image: format!("a/{image}:1").parse().expect("reference"),
            };
            head.set = rules.iter().map(rule).collect();
            head
        };
        let shown = |all: Vec<(&'static str, Head)>| {
            let (rules, notes, conflicts) = All(all).see(|all| all.rules());
            assert!(conflicts.is_empty(), "{conflicts:?}");
            let show = |rule: &SetRule| format!("{}={}", rule.paths[0], &rule.image.path()[2..]);
            (rules.iter().map(show).collect::<Vec<_>>().join(" "), notes.len())
        };
        let v1 = || with(&[], &[("same", "x"), ("*.image", "old"), ("image", "x")]);
        let v2 = || with(&["v1"], &[("same", "x"), ("image", "y")]);
        // what is the same in both is said by the newer one
        let expected = ("*.image=old same=x image=y".to_owned(), 1);
        assert_eq!(shown(vec![("v1", v1()), ("v2", v2())]), expected);
        assert_eq!(shown(vec![("v2", v2()), ("v1", v1())]), expected);
        let strangers = vec![("p", with(&[], &[("a", "x")])), ("q", with(&[], &[("b", "y"), ("a", "x")]))];
        assert_eq!(shown(strangers), ("a=x b=y".to_owned(), 0));
    }
}
