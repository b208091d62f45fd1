//! Bundles as they are read: by position, through a pipe, as volumes; and the list of volumes.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::Cursor;
use std::path::{Path, PathBuf};

use ferry_archive::{Bundle, Error, Incoming, Inflow, Location, Trust, list, volumes};
use ferry_image::Digest;

use crate::bundles::{built, is_not_believed};
use crate::pieces::{Piece, pieces};
use crate::sources::Folder;

/// Faults in one input at most, and bytes that they may make of a bundle.
const FAULTS: usize = 8;
const LONGEST: usize = 1 << 20;
/// Volumes of one input at most: each is a file.
const VOLUMES: usize = 5;

thread_local! {
    static FOLDER: RefCell<Folder> = RefCell::new(Folder::new());
}

/// A bundle of documents (see [`pieces`]) with what a section `faults` does to its bytes, a fault a line: `flip AT BITS`, `cut AT`,
/// `twice FROM TO`, `drop FROM TO`, `append HEX`. `split COUNT` says how many volumes it is then cut into. However it is read, the verdict
/// is the same.
pub fn incoming(data: &[u8]) {
    let (faults, documents): (Vec<Piece>, Vec<Piece>) = pieces(data).into_iter().partition(|p| p.name == "faults");
    let Some((mut bytes, _)) = built(documents) else { return };
    let good = bytes.clone();
    let mut count = 2;
    for line in faults.iter().flat_map(|piece| piece.bytes.split(|byte| *byte == b'\n')).take(FAULTS) {
        let line = String::from_utf8_lossy(line);
        match line.strip_prefix("split ").and_then(|count| count.parse::<usize>().ok()) {
            Some(number) => count = number.clamp(1, VOLUMES),
            None => apply(&mut bytes, &line),
        }
    }
    let trust = Trust { allow_unsigned: true, ..Trust::default() };
    let one = FOLDER.with_borrow(|folder| folder.write("b.tar", &bytes));
    let by_position = verdict(&Location { base: one, volumes: [].into() }, &trust);
    let piped = passed(Box::new(Cursor::new(bytes.clone())), Path::new("pipe"), &trust);
    assert_eq!(by_position.is_ok(), piped.is_ok(), "{by_position:?}, and through a pipe {piped:?}");
    [&by_position, &piped].into_iter().filter_map(|verdict| verdict.as_ref().err()).for_each(is_not_believed);
    assert!(by_position.is_err() || bytes == good, "a bundle that was changed is taken for whole");

    let each = bytes.len().div_ceil(count).max(1);
    let parts = bytes.chunks(each).zip(1..);
    let cut = |(slice, number)| {
        let name = format!("v.tar.{number:03}");
        (number, FOLDER.with_borrow(|folder| folder.write(&name, slice)))
    };
    let base = PathBuf::from("v.tar");
    let location = Location { base: base.clone(), volumes: parts.map(cut).collect() };
    if location.is_split() {
        let split = verdict(&location, &trust);
        assert_eq!(by_position.is_ok(), split.is_ok(), "{by_position:?}, and as volumes {split:?}");
        let files = location.volumes;
        let next = move |number| files.get(&number).map_or(Err(std::io::ErrorKind::NotFound.into()), File::open);
        let folder = FOLDER.with_borrow(|folder| folder.write("none", b"")).with_file_name("v.tar");
        let one_by_one = passed(
            Inflow::volumes(&Location { base: folder.clone(), volumes: BTreeMap::new() }, next).expect("folder"),
            &base,
            &trust,
        );
        // what follows the end of the last volume is another file's, and nobody asks for it
        let surplus = bytes.len() > good.len() && bytes.starts_with(&good) && good.len().is_multiple_of(each);
        assert!(surplus || by_position.is_ok() == one_by_one.is_ok(), "{by_position:?}, and one by one {one_by_one:?}");
    }
}

fn apply(bytes: &mut Vec<u8>, line: &str) {
    let words: Vec<&str> = line.split(' ').collect();
    let number = |i: usize| words.get(i).and_then(|word| word.parse::<usize>().ok());
    let range =
        || Some(number(1)?.min(bytes.len())..number(2)?.min(bytes.len())).filter(|range| range.start <= range.end);
    match (words.first(), number(1), number(2)) {
        (Some(&"flip"), Some(at), Some(bits)) => {
            if let Some(byte) = bytes.get_mut(at) {
                *byte ^= bits.to_le_bytes()[0];
            }
        }
        (Some(&"cut"), Some(at), _) => bytes.truncate(at),
        (Some(&"twice"), ..) => {
            if let Some(range) = range().filter(|range| bytes.len() + range.len() <= LONGEST) {
                let again = bytes[range.clone()].to_vec();
                bytes.splice(range.end..range.end, again);
            }
        }
        (Some(&"drop"), ..) => {
            if let Some(range) = range() {
                bytes.drain(range);
            }
        }
        (Some(&"append"), ..) => bytes.extend_from_slice(words.get(1).unwrap_or(&"").as_bytes()),
        _ => {}
    }
}

/// Read by position, every byte.
fn verdict(location: &Location, trust: &Trust) -> Result<(), Error> {
    Bundle::open_at(location, trust)?.verify(1, false, &|_| {}).map(drop)
}

/// Read once, from front to end.
fn passed(inflow: impl Into<Inflow>, path: &Path, trust: &Trust) -> Result<(), Error> {
    let mut incoming = Incoming::open(inflow, path, trust)?;
    let mut damaged = Vec::new();
    while incoming.advance()?.is_some() {
        damaged.extend(incoming.check(&|_| {})?);
    }
    incoming.finish()?;
    match damaged.is_empty() {
        true => Ok(()),
        false => Err(Error::Damaged { path: path.to_owned(), members: damaged }),
    }
}

/// The bytes of a list of volumes: what is taken for one is what would be written, and it says of no other volumes that they are whole.
pub fn volume_list(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let base = FOLDER.with_borrow(|folder| folder.write("none", b"")).with_file_name("l.tar");
    let Ok(digests) = list::parse(&base, text) else { return };
    assert_eq!(ferry_archive::fuzz::volume_list(&base, &digests), text);
    assert!(digests.len() <= text.len() / 64);
    // two volumes, of which the list says what it says
    FOLDER.with_borrow(|folder| folder.write("l.tar.sha256", text.as_bytes()));
    let contents: [&[u8]; 2] = [b"a", b"b"];
    let write =
        |(number, bytes): (u32, &[u8])| (number, FOLDER.with_borrow(|f| f.write(&format!("l.tar.{number:03}"), bytes)));
    let location = Location { base: base.clone(), volumes: (1..).zip(contents).map(write).collect() };
    assert_eq!(volumes::parse(&location.volumes[&2]), Some((base, 2)));
    let is_right =
        digests.len() == 2 && digests.iter().zip(contents).all(|(digest, bytes)| *digest == Digest::of(bytes));
    let trust = Trust { allow_unsigned: true, ..Trust::default() };
    let judged = list::judge(&location, &trust);
    assert_eq!(judged.is_some(), digests.len() == 2 && !is_right, "{judged:?}");
    // nobody signed it
    assert!(list::judge(&location, &Trust::default()).is_none());
}
