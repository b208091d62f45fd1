//! Volumes and pipes: the same bytes in other pieces.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use ferry_archive::{Build, Bundle, Error, Inflow, Location, Partial, Trust, list, volumes};
use ferry_content::{Failure as _, Kind};

use crate::fixture::{self, build, build_split, check, fill, parts, pipe, runtime, secret, split, stream, trust};

/// The room of the volumes here: small enough that members and headers cross their borders.
const ROOM: u64 = 3000;

fn how(volume: u64) -> Build {
    Build { sign: Some(secret()), inputs: "i".to_owned(), lock: "l".to_owned(), volume: Some(volume) }
}

fn joined(base: &Path) -> Vec<u8> {
    (1..).map_while(|number| fs::read(volumes::name(base, number)).ok()).collect::<Vec<_>>().concat()
}

fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(folder)
        .expect("list")
        .map(|e| e.expect("entry").file_name().into_string().expect("name"))
        .collect();
    names.sort();
    names
}

#[test]
fn volumes_and_pipes_give_the_same_bytes_as_one_file() {
    let folder = tempfile::tempdir().expect("folder");
    let whole = folder.path().join("whole.tar");
    build(&parts(), &whole, Some(secret()), false).expect("build");
    let bytes = fs::read(&whole).expect("bytes");
    let piped = folder.path().join("piped.tar");
    let sealed = stream(&parts(), &piped, Some(&secret())).expect("stream");
    assert!(fs::read(&piped).expect("bytes") == bytes);
    assert_eq!(sealed.size, bytes.len() as u64);
    for (room, backwards) in
        [(512, false), (ROOM, true), (bytes.len() as u64 - 1, false), (bytes.len() as u64, true), (1 << 40, false)]
    {
        let folder = tempfile::tempdir().expect("folder");
        let base = folder.path().join("b.tar");
        let sealed = build_split(&parts(), &base, how(room), backwards).expect("build");
        assert_eq!(sealed.volumes as u64, (bytes.len() as u64).div_ceil(room));
        assert!(joined(&base) == bytes, "{room}");
        let bundle = Bundle::open(&base, &trust()).expect("open");
        bundle.verify(2, true, &|_| {}).expect("verify");
        let listed = Command::new("sha256sum")
            .args(["--strict", "--quiet", "-c", "b.tar.sha256"])
            .current_dir(folder.path())
            .status();
        assert!(listed.expect("sha256sum").success());
        assert_eq!(names(folder.path()).len(), sealed.volumes + 2, "nothing else is left: {:?}", names(folder.path()));
    }
}

#[test]
fn volumes_are_found_by_any_of_their_names_and_in_several_folders() {
    let folder = tempfile::tempdir().expect("folder");
    let base = folder.path().join("b.tar");
    build_split(&parts(), &base, how(ROOM), false).expect("build");
    for path in [base.clone(), volumes::name(&base, 1), volumes::name(&base, 3)] {
        Bundle::open(&path, &trust()).expect("open").verify(1, false, &|_| {}).expect("verify");
    }
    let other = tempfile::tempdir().expect("folder");
    let moved = other.path().join("b.tar.002");
    fs::rename(volumes::name(&base, 2), &moved).expect("move");
    let error = Bundle::open(&base, &trust()).expect_err("one is elsewhere");
    assert_eq!(error.kind(), Kind::Missing, "{error}");
    assert!(error.to_string().contains("b.tar.002` is not there"), "{error}");
    let group = Location::group(&[volumes::name(&base, 1), moved.clone()]).expect("group");
    let [location] = group.as_slice() else { panic!("{group:?}") };
    Bundle::open_at(location, &trust()).expect("open").verify(1, false, &|_| {}).expect("verify");
    fs::copy(&moved, volumes::name(&base, 2)).expect("copy");
    assert!(matches!(Location::group(&[base, moved]), Err(Error::VolumeTwice { .. })));
}

/// All that is wrong with the volumes of `base`, as text.
fn faults(base: &Path) -> String {
    let location = Location::of(base).expect("location");
    let faults = match Bundle::open_damaged(&location, &trust()) {
        Ok((bundle, _)) => bundle.check(1, false, &|_| {}).expect_err("faults"),
        Err(error) => [error].into_iter().chain(list::judge(&location, &trust())).collect(),
    };
    assert!(
        faults.iter().all(|f| matches!(f.kind(), Kind::Untrusted | Kind::Missing) && f.hint().is_some()),
        "{faults:?}"
    );
    let strict = Bundle::open(base, &trust()).and_then(|b| b.verify(1, false, &|_| {}));
    assert!(strict.is_err());
    faults.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
}

#[test]
fn bad_volumes_are_named_one_by_one() {
    let source = tempfile::tempdir().expect("folder");
    let whole = source.path().join("b.tar");
    build_split(&parts(), &whole, how(ROOM), false).expect("build");
    let count = volumes_of(&whole);
    let fresh = || {
        let folder = tempfile::tempdir().expect("folder");
        for name in names(source.path()) {
            fs::copy(source.path().join(&name), folder.path().join(name)).expect("copy");
        }
        folder
    };
    let expect = |change: &dyn Fn(&Path), expected: &[&str]| {
        let folder = fresh();
        let base = folder.path().join("b.tar");
        change(&base);
        let said = faults(&base);
        for text in expected {
            assert!(said.contains(text), "`{text}` is not in: {said}");
        }
    };
    let remove = |base: &Path, number| fs::remove_file(volumes::name(base, number)).expect("remove");
    let cut = |base: &Path, number: u32| {
        let path = volumes::name(base, number);
        let file = fs::File::options().write(true).open(&path).expect("open");
        file.set_len(file.metadata().expect("metadata").len() - 1).expect("cut");
    };
    let flip = |base: &Path, number: u32| {
        let path = volumes::name(base, number);
        let mut bytes = fs::read(&path).expect("read");
        let at = bytes.len() / 2;
        bytes[at] ^= 4;
        fs::write(&path, bytes).expect("write");
    };
    let last = count;
    expect(&|base| remove(base, 1), &["b.tar.001` is not there"]);
    expect(&|base| remove(base, 3), &["b.tar.003` is not there"]);
    expect(&|base| remove(base, last), &[&format!("b.tar.{last:03}` is not there")]);
    expect(
        &|base| {
            remove(base, last - 2);
            remove(base, last);
        },
        &[&format!("b.tar.{:03}` is not there", last - 2), &format!("b.tar.{last:03}` is not there")],
    );
    expect(&|base| cut(base, 3), &["b.tar.003` is truncated: it has 2999 bytes of 3000"]);
    expect(&|base| cut(base, last), &[&format!("b.tar.{last:03}` is truncated")]);
    expect(&|base| flip(base, 4), &["b.tar.004`: its content is damaged"]);
    expect(
        &|base| {
            let (a, b) = (volumes::name(base, 3), volumes::name(base, 4));
            let kept = fs::read(&a).expect("read");
            fs::rename(&b, &a).expect("rename");
            fs::write(&b, kept).expect("write");
        },
        &["b.tar.003`: it holds what volume 004 must hold", "b.tar.004`: it holds what volume 003 must hold"],
    );
    expect(
        &|base| fs::write(volumes::name(base, last + 1), b"x").expect("write"),
        &[&format!("b.tar.{:03}` does not belong to it", last + 1)],
    );
    expect(
        &|base| {
            let path = volumes::name(base, 3);
            let more = [fs::read(&path).expect("read"), vec![0; 5]].concat();
            fs::write(&path, more).expect("write");
        },
        &["b.tar.003` has 5 bytes too many"],
    );
}

fn volumes_of(base: &Path) -> u32 {
    (1..).take_while(|number| volumes::name(base, *number).exists()).count() as u32
}

#[test]
fn every_bit_of_the_list_counts() {
    let folder = tempfile::tempdir().expect("folder");
    let base = folder.path().join("b.tar");
    build_split(&parts(), &base, how(ROOM), false).expect("build");
    for path in [list::path(&base), list::signature_path(&base)] {
        let whole = fs::read(&path).expect("read");
        for at in (0..whole.len()).step_by(7) {
            let mut bytes = whole.clone();
            bytes[at] ^= 1 << (at % 8);
            fs::write(&path, &bytes).expect("write");
            let error = check(&base, &trust()).map(|_| ()).expect_err("flipped");
            assert_eq!(error.kind(), Kind::Untrusted, "byte {at}: {error}");
        }
        fs::write(&path, whole).expect("write");
    }
    check(&base, &trust()).expect("whole again");
    // the list of another build
    let other = tempfile::tempdir().expect("folder");
    let mut changed = parts();
    changed.file("yaml/more.yaml", "a: b\n");
    build_split(&changed, &other.path().join("b.tar"), how(ROOM), false).expect("build");
    for path in [list::path(&base), list::signature_path(&base)] {
        fs::copy(other.path().join(path.file_name().expect("name")), &path).expect("copy");
    }
    let error = check(&base, &trust()).map(|_| ()).expect_err("another list");
    assert!(error.to_string().contains("names another bundle"), "{error}");
    // and none at all is no fault
    for path in [list::path(&base), list::signature_path(&base)] {
        fs::remove_file(path).expect("remove");
    }
    check(&base, &trust()).expect("without a list");
    fs::remove_file(volumes::name(&base, 2)).expect("remove");
    let lenient = Trust { allow_unsigned: true, ..Trust::default() };
    assert!(check(&base, &lenient).is_err());
}

/// A build that ends at any moment of its naming goes on where it was.
#[test]
fn a_build_that_ends_while_it_names_its_volumes_goes_on() {
    let whole = tempfile::tempdir().expect("folder");
    let expected = {
        let base = whole.path().join("b.tar");
        build_split(&parts(), &base, how(ROOM), false).expect("build");
        joined(&base)
    };
    let count = volumes_of(&whole.path().join("b.tar"));
    for (volume, named) in
        [(Some(ROOM), 0), (Some(ROOM), 1), (Some(ROOM), count - 1), (Some(ROOM), count), (None, 0), (None, 1)]
    {
        let folder = tempfile::tempdir().expect("folder");
        let base = folder.path().join("b.tar");
        let build = || Build { volume, ..how(ROOM) };
        let all = parts();
        let create = || Partial::create(&base, all.layout(), build()).expect("create");
        let partial = create();
        runtime().block_on(async {
            for (digest, bytes) in &all.blobs {
                fill(&partial, &all.descriptor(digest), bytes, 1 << 20).await;
            }
        });
        drop(partial);
        // as far as it came
        let journal = folder.path().join("b.tar.partial.journal");
        let mut text = fs::read_to_string(&journal).expect("journal");
        text.push_str(&ferry_archive::fuzz::journal_line("sealing"));
        fs::write(&journal, text).expect("write");
        match volume {
            None if named == 1 => fs::rename(folder.path().join("b.tar.partial"), &base).expect("rename"),
            None => {}
            Some(_) => {
                for number in 1..=named {
                    let from = volumes::name(&folder.path().join("b.tar.partial"), number);
                    fs::rename(from, volumes::name(&base, number)).expect("rename");
                }
            }
        }
        let partial = create();
        assert_eq!(
            partial.resumed_bytes(),
            all.blobs.values().map(|b| b.len() as u64).sum::<u64>(),
            "{volume:?} {named}"
        );
        runtime().block_on(async {
            for (digest, bytes) in &all.blobs {
                fill(&partial, &all.descriptor(digest), bytes, 1 << 20).await;
            }
        });
        partial.seal(&|_| {}).expect("seal");
        let bytes = if volume.is_some() { joined(&base) } else { fs::read(&base).expect("read") };
        assert!(bytes == expected);
        let left = names(folder.path());
        assert!(left.iter().all(|name| !name.contains("partial")), "{left:?}");
    }
}

#[test]
fn one_name_is_one_bundle() {
    let folder = tempfile::tempdir().expect("folder");
    let base = folder.path().join("b.tar");
    build_split(&parts(), &base, how(ROOM), false).expect("build");
    let error = build(&parts(), &base, None, false).expect_err("volumes are there");
    assert!(matches!(error, Error::InTheWay { .. }), "{error}");
    // fewer and larger volumes replace more and smaller ones
    build_split(&parts(), &base, how(2 * ROOM), false).expect("build");
    check(&base, &trust()).expect("no old volume is left");
    for number in 1..=volumes_of(&base) {
        fs::remove_file(volumes::name(&base, number)).expect("remove");
    }
    build(&parts(), &base, None, false).expect("build");
    assert!(matches!(build_split(&parts(), &base, how(ROOM), false), Err(Error::InTheWay { .. })));
    assert!(names(folder.path()).iter().all(|name| !name.contains("partial")), "{:?}", names(folder.path()));
}

#[test]
fn an_unfinished_build_of_another_size_makes_room() {
    let folder = tempfile::tempdir().expect("folder");
    let base = folder.path().join("b.tar");
    for volume in [Some(ROOM), Some(2 * ROOM), None, Some(ROOM)] {
        drop(Partial::create(&base, parts().layout(), Build { volume, ..how(ROOM) }).expect("create"));
        let size = Partial::create(&base, parts().layout(), Build { volume, ..how(ROOM) }).map(|_| ()).map(|()| {
            names(folder.path())
                .iter()
                .map(|n| fs::metadata(folder.path().join(n)).expect("metadata").len())
                .sum::<u64>()
        });
        let whole = parts().layout().total_size(true);
        assert!((whole..whole + 2000).contains(&size.expect("create")), "{volume:?}: {:?}", names(folder.path()));
    }
    build_split(&parts(), &base, how(ROOM), false).expect("build");
    assert!(names(folder.path()).iter().all(|name| !name.contains("partial")));
}

#[test]
fn volumes_come_one_after_the_other() {
    let folder = tempfile::tempdir().expect("folder");
    let whole = folder.path().join("b.tar");
    build(&parts(), &whole, Some(secret()), false).expect("build");
    let length = fs::metadata(&whole).expect("metadata").len() as usize;
    for room in [3000, length / 4, length / 3 + 1] {
        let volumes = Arc::new(split(&whole, room));
        let base = volumes.path().join("b.tar");
        let last = volumes_of(&base);
        let next = move |number| {
            assert!(number <= last, "no more than there are is asked for");
            fs::File::open(volumes::name(&base, number))
        };
        let inflow =
            Inflow::volumes(&Location { base: whole.clone(), volumes: BTreeMap::new() }, next).expect("signatures");
        pipe(inflow, &whole, &trust()).expect("read");
    }
}

#[test]
fn a_bundle_whose_front_holds_is_read_as_far_as_it_goes() {
    let folder = tempfile::tempdir().expect("folder");
    let path = folder.path().join("b.tar");
    build(&parts(), &path, Some(secret()), false).expect("build");
    let bundle = Bundle::open(&path, &trust()).expect("open");
    let blob = bundle.head().blobs.last().expect("blob").clone();
    let at = fs::metadata(&path).expect("metadata").len() - 1024 - blob.size.next_multiple_of(512);
    let file = fs::File::options().write(true).open(&path).expect("open");
    // the header of the last blob, and the end marker
    file.write_all_at(b"x", at - 300).expect("write");
    file.write_all_at(b"x", at + blob.size.next_multiple_of(512) + 700).expect("write");
    let (bundle, faults) = Bundle::open_damaged(&Location::of(&path).expect("location"), &trust()).expect("open");
    assert_eq!(faults.len(), 2, "{faults:?}");
    assert!(bundle.read_small(&blob.digest, 1 << 20).is_ok(), "its content is whole");
    assert_eq!(bundle.check(1, false, &|_| {}).expect_err("faults").len(), 2);
    file.set_len(at + 1).expect("cut");
    let (bundle, faults) = Bundle::open_damaged(&Location::of(&path).expect("location"), &trust()).expect("open");
    assert!(matches!(faults.last(), Some(Error::Truncated { .. })), "{faults:?}");
    let faults = bundle.check(2, false, &|_| {}).expect_err("faults");
    let Some(Error::Damaged { members, .. }) = faults.last() else { panic!("{faults:?}") };
    assert_eq!(members.iter().map(|m| m.name.clone()).collect::<Vec<_>>(), [blob.digest.blob_path()]);
    assert!(Bundle::open(&path, &trust()).is_err());
}

#[test]
fn nothing_stays_of_a_build_that_could_not_begin() {
    let folder = tempfile::tempdir().expect("folder");
    let base = folder.path().join("b.tar");
    let mut parts = fixture::empty("shop", None);
    let manifest = parts.manifest(false, ferry_image::media_type::OCI_LAYER_GZIP, &[&[7; 200_000]]);
    parts.image("example.org/shop:1", &manifest, &manifest);
    // the second volume cannot be made
    fs::create_dir(folder.path().join("b.tar.partial.002")).expect("folder");
    assert!(Partial::create(&base, parts.layout(), how(65_536)).is_err());
    assert_eq!(names(folder.path()), ["b.tar.partial.002"]);
}

#[test]
fn one_file_by_two_names_is_one_volume() {
    let folder = tempfile::tempdir().expect("folder");
    for number in 1..=2 {
        fs::write(folder.path().join(format!("b.tar.{number:03}")), "x").expect("write");
    }
    let paths = [
        folder.path().join("b.tar.001"),
        folder.path().join("../").join(folder.path().file_name().expect("name")).join("b.tar.002"),
    ];
    assert_eq!(Location::group(&paths).expect("one bundle").len(), 1);
}
