//! containerd, by its `ctr`.

use std::collections::BTreeSet;
use std::process::Command;

use ferry_image::Digest;

use super::{Had, Node, Stock, shown};
use crate::Error;
use crate::export::Export;

impl Node {
    fn ctr(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new("ctr");
        if let Self::Containerd { namespace, address, .. } = self {
            if let Some(address) = address {
                // it wants a path
                command.args(["--address", address.strip_prefix("unix://").unwrap_or(address)]);
            }
            command.args(["--namespace", namespace]);
        }
        command.args(arguments);
        command
    }

    /// Layers are not unpacked: into which snapshotter the cluster's pods go, `ctr` does not know. It is done when the first of them starts.
    pub(super) fn ctr_import(&self) -> Command {
        let mut command = self.ctr(&["images", "import", "--no-unpack"]);
        if let Self::Containerd { platform: Some(platform), .. } = self {
            command.args(["--platform", &platform.to_string()]);
        }
        command.arg("-");
        command
    }

    /// What it has under which names, and whether all that the export would bring of it is there. `ctr images check` does not say that: to
    /// it, no image for another platform is whole, and where one has lost its manifest, it fails for all.
    pub(super) async fn containerd_stock(&self, export: &Export) -> Result<Stock, Error> {
        let mut stock = read(&self.ctr_says(&["images", "ls"]).await?);
        let content = self.ctr_says(&["content", "ls", "--quiet"]).await?;
        let content: BTreeSet<&str> = content.lines().map(str::trim).collect();
        for had in &mut stock.0 {
            let mut same = export.images.iter().filter(|chosen| chosen.exported.name == had.name);
            let is_there = |digest: &Digest| content.contains(digest.to_string().as_str());
            had.is_whole = same.any(|chosen| chosen.digests().all(is_there));
        }
        Ok(stock)
    }

    /// What it prints.
    async fn ctr_says(&self, arguments: &[&str]) -> Result<String, Error> {
        let command = self.ctr(arguments);
        let typed = shown(&command);
        let ended = self.ask(command).await?;
        if ended.status.success() { ended.printed(typed) } else { Err(ended.failed(typed)) }
    }
}

/// Reads what `ctr images ls` prints: REF TYPE DIGEST and more. Whether an image is whole is not in it.
fn read(text: &str) -> Stock {
    let image = |line: &str| {
        let mut words = line.split_whitespace();
        let (name, digest) = (words.next()?, words.nth(1)?);
        Some(Had { name: name.to_owned(), digest: digest.parse().ok()?, is_whole: false })
    };
    Stock(text.lines().filter_map(image).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    const D: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    #[test]
    fn what_ctr_prints_is_read() {
        let text = format!(
            "\
REF                    TYPE                                       DIGEST SIZE      PLATFORMS   LABELS
docker.io/library/a:1  application/vnd.oci.image.index.v1+json    {D}    277.0 B   linux/amd64 -
docker.io/library/b:1  application/vnd.oci.image.manifest.v1+json {D}    0.0 B     -           -
odd
"
        );
        let had = |name: &str| Had { name: name.to_owned(), digest: D.parse().expect("digest"), is_whole: false };
        assert_eq!(read(&text), Stock(vec![had("docker.io/library/a:1"), had("docker.io/library/b:1")]));
        assert_eq!(read(""), Stock::default());
    }

    #[test]
    fn the_command_is_the_nodes_own() {
        let node = |address: Option<&str>, platform: Option<&str>| Node::Containerd {
            namespace: "k8s.io".to_owned(),
            address: address.map(ToOwned::to_owned),
            platform: platform.map(|text| text.parse().expect("platform")),
        };
        assert_eq!(node(None, None).shown(), "ctr --namespace k8s.io images import --no-unpack -");
        assert_eq!(
            node(Some("unix:///s"), Some("linux/arm64")).shown(),
            "ctr --address /s --namespace k8s.io images import --no-unpack --platform linux/arm64 -"
        );
    }
}
