//! Recovery files: what is damaged within the budget comes back, the rest is named, and nothing is made worse.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use ferry_archive::recovery::page::Page;
use ferry_archive::recovery::{Budget, Protected, Protection, Repair, Report, Was, protection};
use ferry_archive::{Bundle, Error, Location, Trust, volumes};

use crate::fixture;

/// A folder with a protected bundle: one file, or volumes.
struct Case {
    folder: tempfile::TempDir,
    whole: BTreeMap<PathBuf, Vec<u8>>,
}

fn noise(length: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = || {
        state = state.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f);
        (state >> 33) as u8
    };
    (0..length).map(|_| next()).collect()
}

impl Case {
    fn new(budget: &str, volume: Option<usize>) -> Self {
        Self::with_files(budget, volume, 0)
    }

    /// With so many small files in it, for long sums.
    fn with_files(budget: &str, volume: Option<usize>, files: usize) -> Self {
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().join("b.tar");
        let mut parts = fixture::empty("shop", Some("1"));
        let layer = noise(600_000);
        let manifest = parts.manifest(false, ferry_image::media_type::OCI_LAYER_GZIP, &[&layer, b"small"]);
        parts.image("example.org/shop:1", &manifest, &manifest);
        (0..files).for_each(|n| parts.file(&format!("files/{n:04}"), "small"));
        fixture::build(&parts, &path, Some(fixture::secret()), false).expect("build");
        if let Some(volume) = volume {
            let bytes = fs::read(&path).expect("bundle");
            for (number, slice) in (1..).zip(bytes.chunks(volume)) {
                fs::write(volumes::name(&path, number), slice).expect("volume");
            }
            fs::remove_file(&path).expect("remove");
        }
        let bundle = Bundle::open(&path, &fixture::trust()).expect("bundle");
        let protection = Protection::plan(&bundle, budget.parse::<Budget>().expect("budget")).expect("plan");
        protection.write(&bundle, 2, &|_| ()).expect("protect");
        let case = Self { whole: BTreeMap::new(), folder };
        Self { whole: case.files(), ..case }
    }

    fn files(&self) -> BTreeMap<PathBuf, Vec<u8>> {
        let entries = fs::read_dir(self.folder.path()).expect("folder").map(|e| e.expect("entry").path());
        entries.map(|path| (path.clone(), fs::read(&path).expect("file"))).collect()
    }

    fn at(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn repair_to(&self, output: Option<&Path>, dry_run: bool) -> Result<Report, Error> {
        let location = Location::of(&self.at("b.tar"))?;
        Repair { location: &location, recovery: &[], output, trust: &fixture::trust(), threads: 2, dry_run }
            .run(&|_| ())
    }

    fn repair(&self) -> Report {
        self.repair_to(None, false).expect("repair")
    }

    /// Everything is as it was before it was damaged.
    fn is_whole(&self, what: &str) {
        let files = self.files();
        assert_eq!(files.keys().collect::<Vec<_>>(), self.whole.keys().collect::<Vec<_>>(), "{what}");
        for (path, bytes) in &self.whole {
            assert!(files[path] == *bytes, "{what}: {}", path.display());
        }
    }

    fn damage(&self, name: &str, change: impl FnOnce(&mut Vec<u8>)) {
        let path = self.at(name);
        let mut bytes = fs::read(&path).expect("file");
        change(&mut bytes);
        fs::write(path, bytes).expect("write");
    }

    fn restore(&self) {
        for path in self.files().keys() {
            fs::remove_file(path).expect("remove");
        }
        for (path, bytes) in &self.whole {
            fs::write(path, bytes).expect("write");
        }
    }
}

#[test]
fn the_same_bundle_gives_the_same_files_on_any_number_of_threads() {
    for volume in [None, Some(100_000)] {
        let case = Case::new("10%", volume);
        let bundle = Bundle::open(&case.at("b.tar"), &fixture::trust()).expect("bundle");
        let protection = Protection::plan(&bundle, Budget::Percent(10)).expect("plan");
        for threads in [1, 5] {
            protection.write(&bundle, threads, &|_| ()).expect("protect");
            case.is_whole("again");
        }
        let sizes: BTreeMap<PathBuf, u64> = protection.files().into_iter().collect();
        let found = case.files().into_iter().filter(|(path, _)| path.to_string_lossy().contains("recovery"));
        assert_eq!(found.map(|(path, bytes)| (path, bytes.len() as u64)).collect::<BTreeMap<_, _>>(), sizes);
        // fewer recovery files than before: none of the earlier ones stays
        Protection::plan(&bundle, Budget::Percent(1)).expect("plan").write(&bundle, 2, &|_| ()).expect("protect");
        let left = case.files().keys().filter(|path| path.to_string_lossy().contains("recovery")).count();
        assert_eq!(left, 1);
    }
}

#[test]
fn a_whole_bundle_is_left_alone() {
    let case = Case::new("5%", None);
    let report = case.repair();
    assert!(report.succeeds() && report.verified.is_some() && report.patients.is_empty());
    assert!(report.recovery.is_empty() && report.misnamed.is_empty());
    case.is_whole("nothing to do");
}

#[test]
fn flipped_bits_anywhere_are_mended() {
    let case = Case::new("5%", None);
    let size = case.whole[&case.at("b.tar")].len();
    // head, signature, sums, headers, blobs, padding, the end marker: whatever stands there
    for at in (0..size).step_by(7919).chain([0, 512, 700, size - 1, size - 1024, size - 1025]) {
        case.damage("b.tar", |bytes| bytes[at] ^= 0x10);
        let report = case.repair();
        assert!(report.succeeds() && report.verified.is_some(), "byte {at}");
        assert!(report.patients[0].mended.iter().any(|range| range.contains(&(at as u64))), "byte {at}");
        case.is_whole(&format!("byte {at}"));
    }
}

#[test]
fn a_stretch_a_cut_and_what_was_appended_are_mended() {
    let case = Case::new("5%", None);
    let size = case.whole[&case.at("b.tar")].len();
    case.damage("b.tar", |bytes| bytes[200_000..225_000].fill(0));
    assert_eq!(case.repair().patients[0].was, Was::Damaged);
    case.is_whole("a stretch");
    case.damage("b.tar", |bytes| bytes.truncate(size - 25_000));
    assert_eq!(case.repair().patients[0].was, Was::Short(size as u64 - 25_000));
    case.is_whole("cut");
    case.damage("b.tar", |bytes| bytes.extend_from_slice(&[1; 3000]));
    assert_eq!(case.repair().patients[0].was, Was::Long(size as u64 + 3000));
    case.is_whole("appended");
}

#[test]
fn recovery_files_are_mended_too() {
    let case = Case::new("5%", None);
    let (name, size) = ("b.tar.recovery-001", case.whole[&case.at("b.tar.recovery-001")].len());
    for at in [0, 50, 4000, 4096, size / 2, size - 4096, size - 1] {
        case.damage(name, |bytes| bytes[at] ^= 1);
        assert_eq!(case.repair().recovery, [case.at(name)], "byte {at}");
        case.is_whole(&format!("byte {at}"));
        // with the bundle damaged as well
        case.damage(name, |bytes| bytes[at] ^= 1);
        case.damage("b.tar", |bytes| bytes[100_000..110_000].fill(7));
        assert!(case.repair().succeeds());
        case.is_whole(&format!("both, byte {at}"));
    }
    for change in [
        |b: &mut Vec<u8>| b.truncate(b.len() / 2),
        |b: &mut Vec<u8>| b.drain(..4096).for_each(drop),
        |b: &mut Vec<u8>| b.push(0),
    ] {
        case.damage(name, change);
        assert_eq!(case.repair().recovery, [case.at(name)]);
        case.is_whole("size");
    }
}

#[test]
fn lost_volumes_come_back() {
    for (budget, lost) in [("1vol", vec![2]), ("2vol", vec![1, 7]), ("2vol", vec![3, 4])] {
        let case = Case::new(budget, Some(100_000));
        for number in &lost {
            fs::remove_file(case.at(&format!("b.tar.{number:03}"))).expect("remove");
        }
        let dry = case.repair_to(None, true).expect("dry run");
        assert!(dry.succeeds() && dry.verified.is_none());
        let report = case.repair();
        assert!(report.patients.iter().all(|p| p.was == Was::Lost) && report.patients.len() == lost.len());
        case.is_whole(&format!("{lost:?}"));
    }
    let case = Case::new("1vol", Some(100_000));
    case.damage("b.tar.002", |bytes| bytes.truncate(10));
    case.repair();
    case.is_whole("a volume cut to nearly nothing");
    let largest =
        case.whole.iter().filter(|(p, _)| p.to_string_lossy().contains("recovery")).map(|(_, b)| b.len()).max();
    assert!(largest <= Some(100_000), "{largest:?}");
    // a recovery file is lost as well, and the budget is smaller for it
    fs::remove_file(case.at("b.tar.recovery-002")).expect("remove");
    case.damage("b.tar.003", |bytes| bytes[..20_000].fill(0));
    assert!(case.repair().succeeds());
    case.is_whole("and a recovery file");
}

#[test]
fn swapped_volumes_get_their_names_back() {
    let case = Case::new("1vol", Some(100_000));
    let (a, b, c) = (case.at("b.tar.001"), case.at("b.tar.002"), case.at("b.tar.003"));
    let swap = |x: &Path, y: &Path| {
        fs::rename(x, case.at("t")).expect("rename");
        fs::rename(y, x).expect("rename");
        fs::rename(case.at("t"), y).expect("rename");
    };
    swap(&a, &b);
    let report = case.repair();
    assert_eq!((report.misnamed.len(), report.patients.len()), (1, 0));
    case.is_whole("two");
    swap(&a, &b);
    swap(&b, &c);
    assert_eq!(case.repair().misnamed.len(), 2);
    case.is_whole("three");
    fs::rename(&a, &c).expect("rename");
    let report = case.repair();
    assert_eq!((report.misnamed[0].found.clone(), report.misnamed[0].belongs.clone()), (c, a));
    assert_eq!(report.patients[0].was, Was::Lost);
    case.is_whole("one lost, another in its place");
}

#[test]
fn beyond_the_budget_what_can_be_mended_is_and_the_rest_is_named() {
    let case = Case::new("5%", None);
    let size = case.whole[&case.at("b.tar")].len();
    case.damage("b.tar", |bytes| {
        bytes[0] ^= 1;
        bytes[200_000..260_000].fill(0);
    });
    let damaged = case.files();
    let dry = case.repair_to(None, true).expect("dry run");
    assert!(!dry.succeeds());
    assert!(case.files() == damaged, "a dry run writes nothing");
    let report = case.repair();
    assert!(!report.succeeds() && report.verified.is_none());
    assert_eq!(report.patients[0].beyond.total() / 10_000, 6);
    let now = case.files();
    let whole = &case.whole[&case.at("b.tar")];
    // never worse, byte by byte
    for (path, bytes) in &now {
        let pairs = bytes.iter().zip(&damaged[path]).zip(&case.whole[path]);
        assert!(pairs.filter(|((now, before), right)| before == right && now != right).count() == 0);
    }
    assert_eq!((now.len(), now[&case.at("b.tar")].len(), whole.len()), (2, size, size));
}

#[test]
fn a_copy_elsewhere_leaves_the_damaged_bundle_alone() {
    for volume in [None, Some(100_000)] {
        let case = Case::new("10%", volume);
        let name = if volume.is_some() { "b.tar.002" } else { "b.tar" };
        case.damage(name, |bytes| bytes[50_000..60_000].fill(0));
        let damaged = case.files();
        let other = tempfile::tempdir().expect("folder");
        for output in [other.path().to_owned(), other.path().join("c.tar")] {
            let report = case.repair_to(Some(&output), false).expect("repair");
            assert!(report.verified.is_some() && case.files() == damaged);
            Bundle::open_at(&report.bundle, &fixture::trust()).expect("open").verify(1, false, &|_| ()).expect("whole");
        }
        let names: Vec<PathBuf> =
            fs::read_dir(other.path()).expect("folder").map(|e| e.expect("entry").path()).collect();
        assert!(names.iter().all(|name| !name.to_string_lossy().ends_with(".partial")), "{names:?}");
        let error = case.repair_to(Some(&case.at("b.tar")), false).expect_err("the same file");
        assert!(error.to_string().contains("the damaged bundle itself"), "{error}");
    }
}

#[test]
fn recovery_files_of_another_bundle_are_no_help_and_no_harm() {
    let (case, other) = (Case::new("5%", None), Case::new("100%", None));
    // the same name, and most of the layer stands where it stood
    let mut parts = fixture::empty("shop", Some("2"));
    let manifest = parts.manifest(false, ferry_image::media_type::OCI_LAYER_GZIP, &[&noise(500_000)]);
    parts.image("example.org/shop:2", &manifest, &manifest);
    fs::remove_file(other.at("b.tar")).expect("remove");
    fixture::build(&parts, &other.at("b.tar"), Some(fixture::secret()), false).expect("build");
    let before = other.files();
    assert!(matches!(other.repair_to(None, false), Err(Error::OtherRecovery { .. })));
    other.damage("b.tar", |bytes| bytes[300_000] ^= 1);
    let damaged = other.files();
    assert!(matches!(other.repair_to(None, false), Err(Error::OtherRecovery { .. })));
    assert!(other.files() == damaged && before != damaged);
    // beside those that belong to it they are passed over
    fs::copy(other.at("b.tar.recovery-001"), case.at("b.tar.recovery-002")).expect("copy");
    case.damage("b.tar", |bytes| bytes[300_000] ^= 1);
    let report = case.repair();
    assert_eq!((report.strangers, report.succeeds()), (1, true));
    fs::remove_file(case.at("b.tar.recovery-002")).expect("remove");
    case.is_whole("strangers");
    fs::remove_file(case.at("b.tar.recovery-001")).expect("remove");
    assert!(matches!(case.repair_to(None, false), Err(Error::NoRecovery { .. })));
    case.restore();
}

#[test]
fn a_damaged_bundle_is_not_protected() {
    let case = Case::new("5%", None);
    case.damage("b.tar", |bytes| bytes[300_000] ^= 1);
    let before = case.files();
    let bundle = Bundle::open(&case.at("b.tar"), &fixture::trust()).expect("bundle");
    let protection = Protection::plan(&bundle, Budget::Percent(20)).expect("plan");
    assert!(matches!(protection.write(&bundle, 2, &|_| ()), Err(Error::Damaged { .. })));
    assert!(case.files() == before);
}

#[test]
fn who_is_not_trusted_is_told_before_anything_is_written() {
    for volume in [None, Some(100_000)] {
        let case = Case::new("20%", volume);
        let first = if volume.is_some() { "b.tar.001" } else { "b.tar" };
        // the rest, and the front: of a mended one the same would be said
        for at in [60_000, 0, 700, 2000] {
            case.damage(first, |bytes| bytes[at] ^= 1);
            let damaged = case.files();
            let other = tempfile::tempdir().expect("folder");
            let stranger = Trust { keys: Vec::new(), ..fixture::trust() };
            let two = Trust { require: 2, ..fixture::trust() };
            for trust in [stranger, two] {
                for output in [None, Some(other.path())] {
                    let location = Location::of(&case.at("b.tar")).expect("location");
                    let recovery = &[];
                    let repair =
                        Repair { location: &location, recovery, output, trust: &trust, threads: 2, dry_run: false };
                    let error = repair.run(&|_| ()).expect_err("not trusted");
                    let fits = matches!(error, Error::UnknownKey { .. } | Error::TooFewSignatures { .. });
                    assert!(fits, "byte {at}: {error}");
                }
            }
            assert!(case.files() == damaged, "byte {at}");
            assert_eq!(fs::read_dir(other.path()).expect("folder").count(), 0);
            let location = Location::of(&case.at("b.tar")).expect("location");
            let trust = fixture::trust();
            let repair =
                Repair { location: &location, recovery: &[], output: None, trust: &trust, threads: 2, dry_run: false };
            let decided = repair.decide().expect("decided");
            assert_eq!(decided.head().map(|head| head.name.as_str()), Some("shop"));
            decided.mend(&|_| ()).expect("mended");
            case.is_whole(&format!("byte {at}"));
        }
    }
}

/// Recovery files that say that a chunk of the bundle is damaged which is not.
fn slander(case: &Case) {
    for path in case.files().into_keys().filter(|path| path.to_string_lossy().contains("recovery")) {
        let mut bytes = fs::read(&path).expect("file");
        for block in bytes.chunks_exact_mut(4096) {
            if let Some(mut page) = Page::parse(block) {
                page.sums[3] ^= 1;
                block.copy_from_slice(&page.print());
            }
        }
        fs::write(&path, bytes).expect("write");
    }
}

#[test]
fn a_trusted_bundle_is_whole_whatever_recovery_files_and_a_list_say() {
    let case = Case::new("20%", Some(100_000));
    fs::write(case.at("b.tar.sha256"), "nothing\n").expect("write");
    slander(&case);
    let report = case.repair();
    assert!(report.patients.is_empty() && report.verified.is_some(), "{report:?}");
    assert!(report.list.is_some(), "what is wrong with the list is told with everything else");
}

#[test]
fn a_damaged_list_does_not_hide_what_was_mended() {
    let case = Case::new("20%", Some(100_000));
    fs::write(case.at("b.tar.sha256"), "nothing\n").expect("write");
    case.damage("b.tar.002", |bytes| bytes[70] ^= 1);
    let report = case.repair();
    assert_eq!((report.patients.len(), report.verified.is_some()), (1, true));
    assert!(report.list.is_some_and(|error| error.to_string().contains("b.tar.sha256")));
}

#[test]
fn a_copy_is_not_taken_for_another_bundle_of_its_name() {
    for volume in [None, Some(100_000)] {
        let case = Case::new("20%", volume);
        let other = tempfile::tempdir().expect("folder");
        let output = other.path().join("out.tar");
        let in_the_way = match volume {
            None => volumes::name(&output, 3),
            Some(_) => output.clone(),
        };
        fs::write(&in_the_way, "another").expect("write");
        let error = case.repair_to(Some(&output), false).expect_err("in the way");
        assert!(matches!(&error, Error::InTheWay { path } if *path == in_the_way), "{error}");
        assert_eq!(fs::read_dir(other.path()).expect("folder").count(), 1, "nothing is written");
        let numbered = case.repair_to(Some(&other.path().join("out.tar.001")), true).expect_err("a volume's name");
        assert!(matches!(numbered, Error::VolumeName { .. }), "{numbered}");
    }
}

#[test]
fn recovery_files_of_an_earlier_bundle_are_told_even_where_the_new_one_has_lost_its_beginning() {
    let case = Case::new("100%", None);
    let mut parts = fixture::empty("shop", Some("2"));
    let manifest = parts.manifest(false, ferry_image::media_type::OCI_LAYER_GZIP, &[&noise(590_000)[1..]]);
    parts.image("example.org/shop:2", &manifest, &manifest);
    fs::remove_file(case.at("b.tar")).expect("remove");
    fixture::build(&parts, &case.at("b.tar"), Some(fixture::secret()), false).expect("build");
    let location = Location::of(&case.at("b.tar")).expect("location");
    let sums = Bundle::open(&case.at("b.tar"), &fixture::trust()).expect("bundle").sums_digest().clone();
    assert_eq!(protection(&location, Some(&sums)), Protected::ByOthers);
    case.damage("b.tar", |bytes| bytes[0] ^= 1);
    let damaged = case.files();
    assert!(matches!(case.repair_to(None, false), Err(Error::OtherRecovery { .. })));
    assert!(case.files() == damaged, "nothing is written");
}

#[test]
fn what_another_run_is_writing_is_not_taken_from_it() {
    let case = Case::new("5%", None);
    let bundle = Bundle::open(&case.at("b.tar"), &fixture::trust()).expect("bundle");
    let protection = Protection::plan(&bundle, Budget::Percent(20)).expect("plan");
    let held = |name: &str| {
        let file = fs::File::create(case.at(name)).expect("create");
        file.lock().expect("lock");
        file
    };
    let _first = held("b.tar.recovery-001.partial");
    let _copy = held("c.tar.partial");
    assert!(matches!(protection.write(&bundle, 2, &|_| ()), Err(Error::Busy { .. })));
    assert!(matches!(case.repair_to(Some(&case.at("c.tar")), false), Err(Error::Busy { .. })));
    assert!(case.at("b.tar.recovery-001.partial").exists() && case.at("c.tar.partial").exists());
}

#[test]
fn sums_that_go_on_in_the_second_volume_are_those_of_the_bundle() {
    let case = Case::with_files("1vol", Some(66_000), 1000);
    let other = Case::new("100%", None);
    // another's recovery files are more of them: those of its own are found by the sums all the same
    fs::remove_file(case.at("b.tar.recovery-002")).expect("remove");
    for (number, (path, bytes)) in
        (50..).zip(other.whole.iter().filter(|(p, _)| p.to_string_lossy().contains("recovery")))
    {
        let _ = path;
        fs::write(case.at(&format!("b.tar.recovery-{number:03}")), bytes).expect("write");
    }
    let fewest = case.files().into_keys().filter(|p| p.to_string_lossy().contains("recovery-00"));
    fewest.skip(1).for_each(|path| fs::remove_file(path).expect("remove"));
    // the head, which is in the third, does not hold
    case.damage("b.tar.003", |bytes| bytes[30_000] ^= 1);
    assert!(case.repair_to(None, true).is_ok_and(|report| report.succeeds()));
}

#[test]
fn an_exchange_of_names_that_was_interrupted_is_finished_by_the_next_run() {
    let case = Case::new("1vol", Some(100_000));
    let [a, b, aside] = ["b.tar.001", "b.tar.002", "b.tar.002.renaming"].map(|name| case.at(name));
    let steps = [(&a, &aside), (&b, &a), (&aside, &b)];
    for done in 0..=steps.len() {
        // swapped, then so many of the renames that bring them back
        fs::rename(&a, case.at("t")).expect("rename");
        fs::rename(&b, &a).expect("rename");
        fs::rename(case.at("t"), &b).expect("rename");
        for (from, to) in &steps[..done] {
            fs::rename(from, to).expect("rename");
        }
        let before = case.files();
        assert!(case.repair_to(None, true).is_ok_and(|report| report.succeeds()) && case.files() == before);
        let report = case.repair();
        assert!(report.patients.is_empty() && report.verified.is_some(), "{done}: {report:?}");
        case.is_whole(&format!("{done} steps"));
    }
}
