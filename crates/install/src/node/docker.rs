//! Docker, by its `docker`.

use std::process::Command;

use ferry_image::Digest;
use serde::Deserialize;

use super::{Had, Node, Stock, names, shown};
use crate::Error;
use crate::export::Exported;

/// Names that are asked for with one command.
const AT_ONCE: usize = 200;

/// What is asked of an image.
const FORMAT: &str = r#"{"id":{{json .Id}},"tags":{{json .RepoTags}}}"#;

#[derive(Deserialize)]
struct Inspected {
    id: Digest,
    tags: Option<Vec<String>>,
}

impl Node {
    pub(super) fn docker(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new("docker");
        if let Self::Docker { host: Some(host) } = self {
            command.args(["--host", host]);
        }
        command.args(arguments);
        command
    }

    pub(super) async fn docker_stock<'a>(&self, images: impl Iterator<Item = &'a Exported>) -> Result<Stock, Error> {
        let asked: Vec<String> = images.flat_map(names).collect();
        let mut stock = Stock::default();
        for some in asked.chunks(AT_ONCE) {
            let mut command = self.docker(&["image", "inspect", "--format", FORMAT]);
            command.args(some);
            let typed = shown(&self.docker(&["image", "inspect"]));
            let ended = self.ask(command).await?;
            if !ended.status.success() && !is_only_absence(&ended.said) {
                return Err(ended.failed(typed));
            }
            stock.0.extend(read(&ended.printed(typed)?));
        }
        Ok(stock)
    }
}

/// Whether nothing else is said than that images are not there.
fn is_only_absence(said: &str) -> bool {
    let lines = || said.lines().filter(|line| !line.trim().is_empty());
    lines().count() > 0 && lines().all(|line| line.to_ascii_lowercase().contains("no such image"))
}

/// Reads a line for each image that is there: under its id, and under each of its tags.
fn read(text: &str) -> Vec<Had> {
    let mut all = Vec::new();
    for image in text.lines().filter_map(|line| serde_json::from_str::<Inspected>(line).ok()) {
        let tags = image.tags.unwrap_or_default();
        let names = std::iter::once(image.id.to_string()).chain(tags);
        all.extend(names.map(|name| Had { name, digest: image.id.clone(), is_whole: true }));
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    const D: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    #[test]
    fn what_docker_prints_is_read() {
        let text = format!("{{\"id\":\"{D}\",\"tags\":[\"a:1\",\"b:1\"]}}\n\n{{\"id\":\"{D}\",\"tags\":null}}\n[]\n");
        let found: Vec<String> = read(&text).into_iter().map(|had| had.name).collect();
        assert_eq!(found, [D, "a:1", "b:1", D]);
    }

    #[test]
    fn a_daemon_that_is_away_is_no_absent_image() {
        assert!(is_only_absence("Error: No such image: a:1\nError response from daemon: No such image: b:1\n"));
        assert!(!is_only_absence("Cannot connect to the Docker daemon at unix:///x. Is the docker daemon running?\n"));
        assert!(!is_only_absence("Error: No such image: a:1\npermission denied\n"));
        assert!(!is_only_absence(""));
    }
}
