//! The texts of what is named, each with what is around it.

use std::path::{Path, PathBuf};

use ferry_content::charts::{self, Texts};
use ferry_content::{Error as ContentError, Problems, texts};
use ferry_rewrite::{Around, Charts, Confidence, Found, find, find_around, find_list, is_list};

use super::{Input, Request};
use crate::manifest::{Kind, detect};

/// What one text is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    /// YAML or JSON.
    Yaml,
    /// One reference a line.
    List,
    /// A template of a chart.
    Template,
}

/// One text to look at.
#[derive(Debug)]
pub(super) struct Source {
    /// As people name it.
    pub(super) file: String,
    /// Where it is, when it is a file of its own.
    pub(super) disk: Option<PathBuf>,
    pub(super) text: String,
    pub(super) form: Form,
    pub(super) around: Around,
}

/// A chart that Helm could render.
#[derive(Debug)]
pub(super) struct Chart {
    pub(super) disk: PathBuf,
    pub(super) name: Option<String>,
    pub(super) version: Option<String>,
}

impl Chart {
    /// Whether a file of that name is one of this chart's.
    pub(super) fn holds(&self, file: &str) -> bool {
        let whole = if self.disk == Path::new(".") {
            Some(Path::new(file))
        } else {
            Path::new(file).strip_prefix(&self.disk).ok()
        };
        whole.is_some_and(Path::is_relative)
    }
}

/// All that was read.
#[derive(Debug, Default)]
pub(super) struct Gathered {
    pub(super) sources: Vec<Source>,
    pub(super) charts: Vec<Chart>,
    pub(super) skipped: Vec<String>,
    /// What is skipped unless Helm runs.
    pub(super) unrendered: Vec<String>,
    pub(super) notes: Vec<String>,
    pub(super) problems: Problems,
    pub(super) yaml: Vec<PathBuf>,
    /// `--values` files and their texts.
    pub(super) overrides: Vec<(String, String)>,
    /// The charts of files that were named themselves.
    known: charts::Known<Charts>,
}

impl Source {
    pub(super) fn find(&self) -> Found {
        match self.form {
            Form::Yaml => find_around(&self.text, &self.around),
            Form::List => find_list(&self.text),
            Form::Template => literal(&self.text),
        }
    }
}

pub(super) fn gather(request: &Request) -> Gathered {
    let mut out = Gathered::default();
    for path in &request.values {
        match texts::read(path) {
            Ok(text) => out.overrides.push((shown(path), text)),
            Err(error) => out.problems.add("--values", error),
        }
    }
    for input in &request.inputs {
        match input {
            Input::Text(text) => {
                let form = if detect(text) == Kind::List { Form::List } else { Form::Yaml };
                let text = text.clone();
                out.sources.push(Source { file: "-".to_owned(), disk: None, text, form, around: Around::default() });
            }
            Input::Path(path) => {
                if let Err(error) = out.path(path) {
                    out.problems.add("", error);
                }
            }
        }
    }
    for (file, text) in out.overrides.clone() {
        if !out.sources.iter().any(|source| source.file == file) {
            let disk = Some(PathBuf::from(&file));
            out.sources.push(Source { file, disk, text, form: Form::Yaml, around: Around::default() });
        }
    }
    out
}

impl Gathered {
    fn path(&mut self, path: &Path) -> Result<(), ContentError> {
        let metadata = std::fs::metadata(path).map_err(|e| ContentError::io("read", path, e))?;
        if metadata.is_dir() {
            let mut texts = charts::folder(path, is_image_list)?;
            for error in texts.unread.drain(..) {
                self.problems.add("", error);
            }
            if texts.texts.iter().any(|(below, _)| texts::is_yaml(Path::new(below)) && !below.contains(".tgz/")) {
                self.yaml.push(path.to_owned());
            }
            self.texts(path, texts);
            return Ok(());
        }
        if charts::is_archive(path) {
            let texts = charts::archive(path)?;
            self.texts(path, texts);
            return Ok(());
        }
        let source = self.file(path)?;
        if source.form == Form::Yaml {
            self.yaml.push(path.to_owned());
        }
        self.sources.push(source);
        Ok(())
    }

    /// A file that is named itself. One of a chart is looked at as the chart sees it.
    pub(super) fn file(&mut self, path: &Path) -> Result<Source, ContentError> {
        let text = texts::read(path)?;
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        let list = is_list(&name) || !texts::is_yaml(path) && detect(&text) == Kind::List;
        let form = if list { Form::List } else { Form::Yaml };
        let root = charts::root_of(path).filter(|_| form == Form::Yaml).unwrap_or_default();
        let overrides = pairs(&self.overrides);
        // under the names that people read, because reasons name them
        let chart = |texts: &Texts| {
            let texts: Vec<_> = texts.iter().map(|(below, text)| (below_shown(&root, below), text)).collect();
            Charts::of(texts.iter().map(|(path, text)| (path.as_str(), *text)), &overrides)
        };
        let found = if form == Form::Yaml { self.known.of(path, chart) } else { None };
        let around = found.map(|(charts, below)| charts.around(&below_shown(&root, &below))).unwrap_or_default();
        Ok(Source { file: shown(path), disk: Some(path.to_owned()), text, form, around })
    }

    /// The texts of a folder or archive.
    fn texts(&mut self, root: &Path, read: Texts) {
        let archive = root.is_file();
        let overrides = pairs(&self.overrides);
        // under the names that people read, because reasons name them
        let read = Texts { texts: read.texts.into_iter().map(|(p, t)| (below_shown(root, &p), t)).collect(), ..read };
        let found = Charts::of(read.texts.iter().map(|(a, b)| (a.as_str(), b.as_str())), &overrides);
        for chart in &found.charts {
            let folder = if chart.folder.is_empty() { Path::new(".") } else { Path::new(&chart.folder) };
            let disk = if archive { root.to_owned() } else { folder.to_owned() };
            self.charts.push(Chart { disk, name: chart.name.clone(), version: chart.version.clone() });
        }
        for absent in &found.absent {
            self.notes.push(format!(
                "{}:{}: the sub-chart `{}` is not in `charts/`, so its images are not known: run `helm dependency build`",
                absent.path,
                absent.line,
                absent.name
            ));
        }
        if !found.charts.is_empty() {
            for (path, text) in &overrides {
                let (file, disk) = ((*path).to_owned(), Some(PathBuf::from(path)));
                let around = found.around(path);
                match self.sources.iter_mut().find(|source| source.file == file) {
                    Some(source) => source.around = std::mem::take(&mut source.around).and(around),
                    None => {
                        self.sources.push(Source { file, disk, text: (*text).to_owned(), form: Form::Yaml, around })
                    }
                }
            }
        }
        self.skipped.extend(found.skipped.iter().cloned());
        let mut templates: Vec<(String, usize)> = Vec::new();
        for (file, text) in read.texts {
            let form = match template_folder(&found, &file) {
                Some(folder) => {
                    match templates.iter_mut().find(|(known, _)| *known == folder) {
                        Some((_, count)) => *count += 1,
                        None => templates.push((folder, 1)),
                    }
                    Form::Template
                }
                None if file.ends_with(".tpl") => continue,
                None if is_list(&file) => Form::List,
                None => Form::Yaml,
            };
            let disk = (!archive).then(|| PathBuf::from(&file)).filter(|disk| disk.is_file());
            let around = found.around(&file);
            self.sources.push(Source { file, disk, text, form, around });
        }
        for (folder, count) in templates {
            let files = if count == 1 { "1 Go template".to_owned() } else { format!("{count} Go templates") };
            self.unrendered.push(format!(
                "{folder}: {files}: only images that stand there in full are seen; `--render` runs Helm"
            ));
        }
        self.skipped
            .extend(read.skipped.into_iter().map(|(below, why)| format!("{}: {why}", below_shown(root, &below))));
    }
}

fn pairs(texts: &[(String, String)]) -> Vec<(&str, &str)> {
    texts.iter().map(|(a, b)| (a.as_str(), b.as_str())).collect()
}

/// The `templates` folder of a chart that `below` stands in.
fn template_folder(charts: &Charts, below: &str) -> Option<String> {
    let chart = charts.holding(below)?;
    let folder = if chart.is_empty() { "templates".to_owned() } else { format!("{chart}/templates") };
    below.strip_prefix(folder.as_str())?.starts_with('/').then_some(folder)
}

/// Images that stand in a template in full. Whether they are rendered, the template's conditions decide.
fn literal(text: &str) -> Found {
    let mut out = Found::default();
    for (i, line) in text.lines().enumerate() {
        let entry = line.trim().strip_prefix("- ").unwrap_or(line.trim());
        if !entry.starts_with("image:") || entry.contains("{{") {
            continue;
        }
        for mut finding in find(entry).findings {
            finding.line = i + 1;
            finding.path = format!("line {}", i + 1);
            finding.confidence = finding.confidence.max(Confidence::Computed);
            finding.reason = Some("it stands in a Go template, whose conditions decide".to_owned());
            out.findings.push(finding);
        }
    }
    out
}

/// A plain list by a common name: `images.txt`, `shop-images-amd64.txt`.
fn is_image_list(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy().to_ascii_lowercase();
    is_list(&name) && name.contains("image")
}

pub(super) fn shown(path: &Path) -> String {
    path.display().to_string()
}

fn below_shown(root: &Path, below: &str) -> String {
    if root == Path::new(".") { below.to_owned() } else { shown(&root.join(below)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_that_are_handed_over_count_for_every_chart() {
        let folder = tempfile::tempdir().expect("folder");
        let at = |path: &str| folder.path().join(path);
        for (path, text) in [
            ("a/Chart.yaml", "name: a\n"),
            ("a/values.yaml", "image: {repository: q.io/a, tag: '1'}\n"),
            ("b/Chart.yaml", "name: b\n"),
            ("b/values.yaml", "image: {repository: q.io/b, tag: '2'}\n"),
            ("v.yaml", "image: {repository: r.io/x}\nside: {image: 'q.io/s:1'}\n"),
        ] {
            std::fs::create_dir_all(at(path).parent().expect("parent")).expect("create");
            std::fs::write(at(path), text).expect("write");
        }
        let found = |inputs: &[&str]| {
            let inputs = inputs.iter().map(|input| Input::Path(at(input))).collect();
            let gathered = gather(&Request { inputs, values: vec![at("v.yaml")], render: None });
            let all = gathered.sources.iter().flat_map(|source| source.find().findings);
            all.map(|f| f.reference.map(|r| r.to_string()).unwrap_or_default()).collect::<Vec<_>>()
        };
        assert_eq!(found(&["a", "b"]), ["r.io/x:1", "r.io/x:2", "q.io/s:1"]);
        // a file of a chart is looked at with it, and what one has is said once
        assert_eq!(found(&["a/values.yaml", "a"]), ["r.io/x:1", "q.io/s:1"]);
    }
}
