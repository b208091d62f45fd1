//! Files and YAML that travel with the images, read and checked on the near side.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use ferry_archive::FileContent;
use ferry_content::{Problems, texts};
use ferry_image::{Algorithm, Hasher};

use crate::manifest::Carried;
use crate::{Error, output};

/// A YAML file that will be carried.
#[derive(Debug, Clone)]
pub struct Yaml {
    /// The member: `yaml/…`.
    pub member: String,
    /// Where it was read.
    pub path: PathBuf,
    /// Its text.
    pub text: String,
}

/// Reads the YAML of `entries`: files as named, from folders every `.yaml`, `.yml` and `.json`, in order of name.
pub(crate) fn yaml(entries: &[Carried]) -> Result<Vec<Yaml>, Problems> {
    let mut problems = Problems::default();
    let mut texts = Vec::new();
    for (member, path) in expand("yaml", entries, &mut problems, texts::is_yaml) {
        match texts::read(&path) {
            Ok(text) => texts.push(Yaml { member, path, text }),
            Err(error) => problems.add("", error),
        }
    }
    problems.or(texts)
}

/// Looks at the other files of `entries`; they are copied from the disk when the bundle is written.
pub(crate) fn files(entries: &[Carried], output: &Path) -> Result<Vec<ferry_archive::File>, Problems> {
    let mut problems = Problems::default();
    for entry in entries.iter().filter(|entry| output::is_below(output, &entry.path)) {
        let why = format!("the bundle itself would be written into `{}`", entry.path.display());
        problems.add(format!("line {}", entry.line), Error::File { why });
    }
    if !problems.is_empty() {
        return Err(problems);
    }
    let mut files = Vec::new();
    for (member, path) in expand("files", entries, &mut problems, |_| true) {
        match digest(&path) {
            Ok(content) => files.push(ferry_archive::File { name: member, content }),
            Err(error) => problems.add("", error),
        }
    }
    problems.or(files)
}

/// The files below each entry with their members' names; no member twice.
fn expand(
    prefix: &str,
    entries: &[Carried],
    problems: &mut Problems,
    wanted: impl Fn(&Path) -> bool,
) -> Vec<(String, PathBuf)> {
    let mut found = Vec::new();
    let mut names = BTreeSet::new();
    for entry in entries {
        let subject = format!("line {}", entry.line);
        let files = match texts::walk(&entry.path, &wanted) {
            Ok(files) => files,
            Err(error) => {
                problems.add(subject, error);
                continue;
            }
        };
        for (below, path) in files {
            let separator = if below.is_empty() { "" } else { "/" };
            let member = format!("{prefix}/{}{separator}{below}", entry.name);
            if names.insert(member.to_ascii_lowercase()) {
                found.push((member, path));
            } else {
                let why = format!("`{member}` is there already, or differs only in case");
                problems.add(subject.clone(), Error::File { why });
            }
        }
    }
    found
}

/// The program at `path` as `bin/ferry`.
pub(crate) fn installer(path: &Path) -> Result<ferry_archive::File, Error> {
    Ok(ferry_archive::File { name: "bin/ferry".to_owned(), content: digest(path)? })
}

fn digest(path: &Path) -> Result<FileContent, Error> {
    let io = |e| ferry_content::Error::io("read", path, e);
    let mut file = File::open(path).map_err(io)?;
    let mut hasher = Hasher::new(Algorithm::Sha256);
    let mut buffer = vec![0; 1 << 20];
    let mut size = 0;
    loop {
        let n = file.read(&mut buffer).map_err(io)?;
        if n == 0 {
            return Ok(FileContent::Path { path: path.to_owned(), digest: hasher.finish(), size });
        }
        hasher.update(&buffer[..n]);
        size += n as u64;
    }
}

impl From<&Yaml> for ferry_archive::File {
    fn from(yaml: &Yaml) -> Self {
        let content = FileContent::Bytes(Bytes::copy_from_slice(yaml.text.as_bytes()));
        Self { name: yaml.member.clone(), content }
    }
}

#[cfg(test)]
mod tests {
    use ferry_content::Kind;

    use super::*;

    fn entry(name: &str, path: PathBuf) -> Carried {
        Carried { name: name.to_owned(), path, line: 3 }
    }

    #[test]
    fn folders_are_carried_in_order_of_name() {
        let folder = tempfile::tempdir().expect("folder");
        let path = |name: &str| folder.path().join(name);
        std::fs::create_dir_all(path("app/sub")).expect("create");
        for name in ["app/b.yaml", "app/a.yml", "app/sub/c.json", "app/notes.txt"] {
            std::fs::write(path(name), name).expect("write");
        }
        let yaml = yaml(&[entry("app", path("app"))]).expect("yaml");
        let members: Vec<_> = yaml.iter().map(|y| (y.member.as_str(), y.text.as_str())).collect();
        assert_eq!(
            members,
            [
                ("yaml/app/a.yml", "app/a.yml"),
                ("yaml/app/b.yaml", "app/b.yaml"),
                ("yaml/app/sub/c.json", "app/sub/c.json")
            ]
        );
        let output = path("out/b.tar");
        let files = files(&[entry("n", path("app/notes.txt")), entry("app", path("app"))], &output).expect("files");
        assert_eq!(files.len(), 5);
        assert_eq!((files[0].name.as_str(), files[0].content.size()), ("files/n", 13));
    }

    #[test]
    fn all_problems_come_together() {
        let folder = tempfile::tempdir().expect("folder");
        let path = |name: &str| folder.path().join(name);
        std::fs::write(path("x"), "x").expect("write");
        let output = folder.path().parent().expect("parent").join("b.tar");
        let twice = [entry("A", path("x")), entry("gone", path("gone")), entry("a", path("x"))];
        let problems = files(&twice, &output).map(|_| ()).expect_err("problems");
        let texts: Vec<String> = problems.iter().map(ToString::to_string).collect();
        assert_eq!(texts.len(), 2, "{texts:?}");
        assert_eq!(texts[1], "line 3: cannot be carried: `files/a` is there already, or differs only in case");
        assert_eq!(problems.kind(), Kind::Local);
    }

    #[test]
    fn the_bundle_does_not_carry_itself() {
        let folder = tempfile::tempdir().expect("folder");
        std::fs::create_dir(folder.path().join("out")).expect("create");
        let all = [entry("all", folder.path().to_owned())];
        let problems = files(&all, &folder.path().join("out/b.tar")).map(|_| ()).expect_err("itself");
        assert!(problems.to_string().contains("the bundle itself"), "{problems}");
    }
}
