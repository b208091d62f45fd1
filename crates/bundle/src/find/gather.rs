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

/// All that was read.
#[derive(Debug, Default)]
pub(super) struct Gathered {
    pub(super) sources: Vec<Source>,
    pub(super) charts: Vec<Chart>,
    pub(super) skipped: Vec<String>,
    pub(super) notes: Vec<String>,
    pub(super) problems: Problems,
    pub(super) yaml: Vec<PathBuf>,
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
    let mut overrides: Vec<(String, String)> = Vec::new();
    for path in &request.values {
        match texts::read(path) {
            Ok(text) => overrides.push((shown(path), text)),
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
                if let Err(error) = out.path(path, &overrides) {
                    out.problems.add("", error);
                }
            }
        }
    }
    for (file, text) in overrides {
        if !out.sources.iter().any(|source| source.file == file) {
            let disk = Some(PathBuf::from(&file));
            out.sources.push(Source { file, disk, text, form: Form::Yaml, around: Around::default() });
        }
    }
    out
}

impl Gathered {
    fn path(&mut self, path: &Path, overrides: &[(String, String)]) -> Result<(), ContentError> {
        let metadata = std::fs::metadata(path).map_err(|e| ContentError::io("read", path, e))?;
        if metadata.is_dir() {
            let texts = charts::folder(path, is_image_list)?;
            if texts.texts.iter().any(|(below, _)| texts::is_yaml(Path::new(below)) && !below.contains(".tgz/")) {
                self.yaml.push(path.to_owned());
            }
            self.texts(path, texts, overrides);
            return Ok(());
        }
        if charts::is_archive(path) {
            let texts = charts::archive(path)?;
            self.texts(path, texts, overrides);
            return Ok(());
        }
        let source = self.file(path, overrides)?;
        if source.form == Form::Yaml {
            self.yaml.push(path.to_owned());
        }
        self.sources.push(source);
        Ok(())
    }

    /// A file that is named itself. One of a chart is looked at as the chart sees it.
    pub(super) fn file(&mut self, path: &Path, overrides: &[(String, String)]) -> Result<Source, ContentError> {
        let text = texts::read(path)?;
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        let list = is_list(&name) || !texts::is_yaml(path) && detect(&text) == Kind::List;
        let form = if list { Form::List } else { Form::Yaml };
        let around = match charts::root_of(path).filter(|_| form == Form::Yaml) {
            Some(root) => around(&root, path, overrides)?,
            None => Around::default(),
        };
        Ok(Source { file: shown(path), disk: Some(path.to_owned()), text, form, around })
    }

    /// The texts of a folder or archive.
    fn texts(&mut self, root: &Path, read: Texts, overrides: &[(String, String)]) {
        let archive = root.is_file();
        let overrides: Vec<(&str, &str)> = overrides.iter().map(|(a, b)| (a.as_str(), b.as_str())).collect();
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
                if !self.sources.iter().any(|source| source.file == file) {
                    self.sources.push(Source { file, disk, text: (*text).to_owned(), form: Form::Yaml, around });
                }
            }
        }
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
            self.skipped.push(format!(
                "{folder}: {files}: only images that stand there in full are seen; `--render` runs Helm"
            ));
        }
        self.skipped
            .extend(read.skipped.into_iter().map(|(below, why)| format!("{}: {why}", below_shown(root, &below))));
    }
}
        self.skipped.extend(found.skipped.iter().cloned());

/// What the chart at `root` makes of one of its files.
fn around(root: &Path, file: &Path, overrides: &[(String, String)]) -> Result<Around, ContentError> {
    let read = charts::folder(root, |_| false)?;
    let overrides: Vec<(&str, &str)> = overrides.iter().map(|(a, b)| (a.as_str(), b.as_str())).collect();
    let texts: Vec<(String, String)> = read.texts.into_iter().map(|(p, t)| (below_shown(root, &p), t)).collect();
    let charts = Charts::of(texts.iter().map(|(a, b)| (a.as_str(), b.as_str())), &overrides);
    let below = file.strip_prefix(root).unwrap_or(file);
    let parts: Vec<_> = below.components().map(|c| c.as_os_str().to_string_lossy()).filter(|c| c != ".").collect();
    Ok(charts.around(&below_shown(root, &parts.join("/"))))
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
