//! The texts of folders and of Helm charts, packed ones included, with a limit to everything: nothing is written anywhere, and an
//! archive that is made to hurt is refused.
//!
//! Not here: what the texts say (`ferry-rewrite`).

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, BufReader, Read};
use std::path::{Path, PathBuf};

use tar::{Archive, EntryType};

use crate::Error;
use crate::texts::{self, MAX_FILES, MAX_TEXT};

/// The most bytes that the archives of a folder may unpack to together, those of archives inside them included.
pub const MAX_UNPACKED: u64 = 128 << 20;
/// How deep archives may stand in each other: a chart's sub-charts are packed, and theirs in them.
pub const MAX_NESTED: usize = 4;

/// Texts by their paths below what was read, segments joined by `/`.
#[derive(Debug, Default)]
pub struct Texts {
    /// In order of path; an archive counts as a folder of its name.
    pub texts: Vec<(String, String)>,
    /// What cannot be looked at, and why.
    pub skipped: Vec<(String, String)>,
    /// What could not be read.
    pub unread: Vec<Error>,
}

/// Whether a file is a packed chart by its name.
#[must_use]
pub fn is_archive(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy().to_ascii_lowercase();
    [".tgz", ".tar.gz"].iter().any(|end| name.ends_with(end))
}

/// Whether a folder is a chart.
#[must_use]
pub fn is_chart(folder: &Path) -> bool {
    folder.join("Chart.yaml").is_file()
}

/// The topmost chart that `file` is a part of: its sub-charts stand below `charts/`.
#[must_use]
pub fn root_of(file: &Path) -> Option<PathBuf> {
    let folders = || file.ancestors().skip(1).map(|f| if f.as_os_str().is_empty() { Path::new(".") } else { f });
    let mut root = folders().find(|folder| is_chart(folder))?;
    while let Some(above) = root.parent().filter(|above| above.ends_with("charts")).and_then(Path::parent)
        && is_chart(if above.as_os_str().is_empty() { Path::new(".") } else { above })
    {
        root = if above.as_os_str().is_empty() { Path::new(".") } else { above };
    }
    Some(root.to_owned())
}

/// What was made of the charts that files are parts of, each chart read once.
#[derive(Debug)]
pub struct Known<T>(HashMap<PathBuf, T>);

impl<T> Default for Known<T> {
    fn default() -> Self {
        Self(HashMap::new())
    }
}

impl<T> Known<T> {
    /// What `make` makes of the chart that `file` is a part of, and the file's path in it. `None` where there is no chart; one that cannot
    /// be read has no texts.
    pub fn of(&mut self, file: &Path, make: impl FnOnce(&Texts) -> T) -> Option<(&T, String)> {
        let root = root_of(file)?;
        let below = file.strip_prefix(&root).unwrap_or(file);
        let parts: Vec<_> = below.components().map(|c| c.as_os_str().to_string_lossy().into_owned()).collect();
        let made = self.0.entry(root).or_insert_with_key(|root| make(&folder(root, |_| false).unwrap_or_default()));
        Some((made, parts.join("/")))
    }
}

/// Reads the texts below `folder`: YAML and JSON, templates, what else is `wanted` by its path, and what packed charts hold of these.
/// Folders that hold no sources of one's own (`.git`, `node_modules`) are passed over.
///
/// # Errors
/// When there is too much of it.
pub fn folder(folder: &Path, wanted: impl Fn(&Path) -> bool) -> Result<Texts, Error> {
    let own = |path: &Path| !path.file_name().is_some_and(|name| name == ".git" || name == "node_modules");
    let (files, unread) = texts::walk_in(folder, own, |path| is_text(path) || is_archive(path) || wanted(path))?;
    let mut out = Texts { unread, ..Texts::default() };
    let mut left = Left::default();
    for (below, path) in files {
        if is_archive(&path) {
            match archive_within(&path, &mut left) {
                Ok(inside) => out.add(&below, inside),
                Err(error @ Error::Io { .. }) => out.unread.push(error),
                // any other archive that happens to lie there
                Err(error) => out.skipped.push((below, why(&error))),
            }
            continue;
        }
        match texts::read(&path) {
            Ok(text) => out.texts.push((below, text)),
            Err(error @ Error::Io { .. }) => out.unread.push(error),
            Err(error) => out.skipped.push((below, why(&error))),
        }
    }
    Ok(out)
}

/// Reads the texts of a packed chart, without the folder that all of them stand in.
///
/// # Errors
/// When it cannot be read, is no archive or no chart, or is made to hurt.
pub fn archive(path: &Path) -> Result<Texts, Error> {
    archive_within(path, &mut Left::default())
}

fn archive_within(path: &Path, left: &mut Left) -> Result<Texts, Error> {
    let file = File::open(path).map_err(|e| Error::io("read", path, e))?;
    let out = unpack(&mut BufReader::new(file), left, 0).map_err(|why| unusable(path, why))?;
    if !out.texts.iter().any(|(path, _)| path == "Chart.yaml") {
        return Err(unusable(path, "it is not a packed chart: there is no `Chart.yaml` in its folder".to_owned()));
    }
    Ok(out)
}

impl Texts {
    /// Each text by its path.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.texts.iter().map(|(path, text)| (path.as_str(), text.as_str()))
    }

    fn add(&mut self, below: &str, inside: Texts) {
        let under = |(path, text): (String, String)| (format!("{below}/{path}"), text);
        self.texts.extend(inside.texts.into_iter().map(under));
        self.skipped.extend(inside.skipped.into_iter().map(under));
    }
}

/// What may still be unpacked.
struct Left {
    bytes: u64,
    entries: usize,
}

impl Default for Left {
    fn default() -> Self {
        Self { bytes: MAX_UNPACKED, entries: MAX_FILES }
    }
}

/// Decompressed bytes, counted.
struct Counted<'a, R> {
    inner: R,
    left: &'a mut u64,
}

impl<R: Read> Read for Counted<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.inner.read(buffer)?;
        *self.left = self.left.checked_sub(n as u64).ok_or_else(|| {
            io::Error::other(format!("the archives here unpack to more than {} MiB", MAX_UNPACKED >> 20))
        })?;
        Ok(n)
    }
}

fn unpack(input: &mut dyn Read, left: &mut Left, depth: usize) -> Result<Texts, String> {
    if depth >= MAX_NESTED {
        return Err(format!("archives stand in each other more than {MAX_NESTED} deep"));
    }
    let mut nested: Vec<(String, Vec<u8>)> = Vec::new();
    let mut out = Texts::default();
    let Left { bytes, entries } = left;
    let counted = Counted { inner: flate2::read::MultiGzDecoder::new(input), left: bytes };
    let mut archive = Archive::new(counted);
    for entry in archive.entries().map_err(words)? {
        let mut entry = entry.map_err(words)?;
        *entries =
            entries.checked_sub(1).ok_or_else(|| format!("the archives here hold more than {MAX_FILES} files"))?;
        let name = String::from_utf8(entry.path_bytes().into_owned()).map_err(|_| "a name in it is not UTF-8")?;
        let Some(below) = inside(&name)? else { continue };
        match entry.header().entry_type() {
            EntryType::Regular | EntryType::Continuous => {}
            EntryType::Symlink | EntryType::Link => {
                out.skipped.push((below, "a link in an archive is not followed".to_owned()));
                continue;
            }
            _ => continue,
        }
        let path = Path::new(&below);
        let packed = is_archive(path);
        if !packed && !is_text(path) {
            continue;
        }
        if entry.size() > MAX_TEXT {
            out.skipped.push((below, format!("it is larger than {MAX_TEXT} bytes")));
            continue;
        }
        let mut content = Vec::new();
        entry.read_to_end(&mut content).map_err(words)?;
        if packed {
            nested.push((below, content));
            continue;
        }
        match String::from_utf8(content) {
            Ok(text) => out.texts.push((below, text)),
            Err(error) => out.skipped.push((below, format!("it is not UTF-8: {error}"))),
        }
    }
    for (below, content) in nested {
        let inside = unpack(&mut content.as_slice(), left, depth + 1).map_err(|why| format!("{below}: {why}"))?;
        out.add(&below, inside);
    }
    out.texts.sort();
    Ok(out)
}

/// The path below the one folder of a chart's archive; none for that folder itself.
fn inside(name: &str) -> Result<Option<String>, String> {
    let shown: String = name.chars().take(200).collect();
    if name.starts_with('/') || name.contains(['\\', '\0']) || name.split('/').any(|segment| segment == "..") {
        return Err(format!("the name `{shown}` in it leads out of it"));
    }
    let name = name.strip_prefix("./").unwrap_or(name);
    let segments: Vec<&str> = name.split('/').filter(|segment| !segment.is_empty() && *segment != ".").collect();
    Ok((segments.len() > 1).then(|| segments[1..].join("/")))
}

/// YAML, JSON, and what stands among a chart's templates.
fn is_text(path: &Path) -> bool {
    texts::is_yaml(path) || path.extension().is_some_and(|end| end == "tpl")
}

fn words(error: io::Error) -> String {
    // the decoder wraps the reader's own words
    let inner = error.get_ref().map(ToString::to_string);
    inner.unwrap_or_else(|| error.to_string())
}

fn why(error: &Error) -> String {
    match error {
        Error::Text { why, .. } => why.clone(),
        other => other.to_string(),
    }
}

fn unusable(path: &Path, why: String) -> Error {
    Error::Text { path: path.to_owned(), why }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    fn packed(members: &[(&str, EntryType, &[u8])]) -> Vec<u8> {
        let mut tar = Vec::new();
        for (name, kind, content) in members {
            let mut header = tar::Header::new_ustar();
            header.as_mut_bytes()[..name.len()].copy_from_slice(name.as_bytes());
            header.set_entry_type(*kind);
            header.set_size(content.len() as u64);
            header.set_cksum();
            tar.extend_from_slice(header.as_bytes());
            tar.extend_from_slice(content);
            tar.resize(tar.len().next_multiple_of(512), 0);
        }
        tar.resize(tar.len() + 1024, 0);
        gzip(&tar)
    }

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(bytes).expect("gzip");
        encoder.finish().expect("gzip")
    }

    fn read(bytes: &[u8]) -> Result<Texts, Error> {
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().join("c-1.tgz");
        std::fs::write(&path, bytes).expect("write");
        archive(&path)
    }

    const FILE: EntryType = EntryType::Regular;

    #[test]
    fn a_chart_in_a_chart_is_a_folder() {
        let inner = packed(&[("b/Chart.yaml", FILE, b"name: b"), ("b/values.yaml", FILE, b"{}")]);
        let outer = packed(&[
            ("a/Chart.yaml", FILE, b"name: a"),
            ("a/charts/b-1.tgz", FILE, &inner),
            ("a/logo.png", FILE, &[0xff, 0xfe]),
            ("a/templates/_x.tpl", FILE, b"{{ x }}"),
            ("a/bad.yaml", FILE, &[0xff, 0xfe]),
            ("a/link.yaml", EntryType::Symlink, b""),
        ]);
        let texts = read(&outer).expect("chart");
        let paths: Vec<_> = texts.texts.iter().map(|(path, _)| path.as_str()).collect();
        assert_eq!(
            paths,
            ["Chart.yaml", "charts/b-1.tgz/Chart.yaml", "charts/b-1.tgz/values.yaml", "templates/_x.tpl"]
        );
        let skipped: Vec<_> = texts.skipped.iter().map(|(path, _)| path.as_str()).collect();
        assert_eq!(skipped, ["bad.yaml", "link.yaml"]);
    }

    #[test]
    fn archives_that_hurt_are_refused() {
        let many: Vec<String> = (0..=MAX_FILES).map(|i| format!("a/{i}.yaml")).collect();
        let many: Vec<(&str, EntryType, &[u8])> = many.iter().map(|name| (name.as_str(), FILE, &b""[..])).collect();
        let mut deep = packed(&[("a/Chart.yaml", FILE, b"name: a")]);
        for _ in 0..MAX_NESTED {
            deep = packed(&[("a/charts/a.tgz", FILE, &deep)]);
        }
        let zeros = vec![0; (MAX_TEXT / 2) as usize];
        let bomb: Vec<(&str, EntryType, &[u8])> = (0..20).map(|_| ("a/x.png", FILE, &zeros[..])).collect();
        for (bytes, why) in [
            (packed(&[("../Chart.yaml", FILE, b"")]), "leads out of it"),
            (packed(&[("a/../../etc/passwd.yaml", FILE, b"")]), "leads out of it"),
            (packed(&[("/etc/x.yaml", FILE, b"")]), "leads out of it"),
            (packed(&many), "more than 10000 files"),
            (deep, "more than 4 deep"),
            (packed(&bomb), "more than 128 MiB"),
            (packed(&[("a/values.yaml", FILE, b"")]), "no `Chart.yaml`"),
            (b"not gzip".to_vec(), "`"),
            (gzip(b"not a tar"), "`"),
        ] {
            let error = read(&bytes).map(|_| ()).expect_err(why).to_string();
            assert!(error.contains(why), "{why}: {error}");
        }
    }

    #[test]
    fn the_limit_is_for_all_archives_of_a_folder() {
        let folder = tempfile::tempdir().expect("folder");
        let zeros = vec![0; (MAX_TEXT / 2) as usize];
        let mut members: Vec<(&str, EntryType, &[u8])> = (0..7).map(|_| ("a/x.png", FILE, &zeros[..])).collect();
        members.push(("a/Chart.yaml", FILE, b"name: a"));
        for i in 0..4 {
            std::fs::write(folder.path().join(format!("{i}.tgz")), packed(&members)).expect("write");
        }
        let texts = super::folder(folder.path(), |_| false).expect("folder");
        assert_eq!(texts.texts.len(), 2);
        let skipped: Vec<_> = texts.skipped.iter().map(|(path, _)| path.as_str()).collect();
        assert_eq!(skipped, ["2.tgz", "3.tgz"]);
        assert!(texts.skipped[0].1.contains("more than 128 MiB"), "{:?}", texts.skipped);
    }

    #[test]
    fn what_cannot_be_read_does_not_hide_the_rest() {
        let folder = tempfile::tempdir().expect("folder");
        std::fs::write(folder.path().join("b.yaml"), "image: x").expect("write");
        std::os::unix::fs::symlink("nowhere", folder.path().join("a.yaml")).expect("link");
        let read = super::folder(folder.path(), |_| false).expect("folder");
        assert_eq!(read.iter().collect::<Vec<_>>(), [("b.yaml", "image: x")]);
        let unread: Vec<String> = read.unread.iter().map(ToString::to_string).collect();
        assert!(unread.len() == 1 && unread[0].contains("a.yaml"), "{unread:?}");
        assert!(texts::walk(folder.path(), |_| true).is_err(), "what is carried must be whole");
    }

    #[test]
    fn the_topmost_chart_is_found() {
        let folder = tempfile::tempdir().expect("folder");
        let at = |path: &str| folder.path().join(path);
        std::fs::create_dir_all(at("a/charts/b/templates")).expect("create");
        for path in ["a/Chart.yaml", "a/charts/b/Chart.yaml"] {
            std::fs::write(at(path), "name: x").expect("write");
        }
        for file in ["a/values.yaml", "a/charts/b/values.yaml", "a/charts/b/templates/x.yaml"] {
            assert_eq!(root_of(&at(file)), Some(at("a")), "{file}");
        }
        assert_eq!(root_of(&at("x.yaml")), None);
    }
}
