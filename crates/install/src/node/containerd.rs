//! containerd, by its `ctr`.

use std::process::Command;

use super::{Had, Node, Stock, shown};
use crate::Error;

impl Node {
    fn ctr(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new("ctr");
        if let Self::Containerd { namespace, address, .. } = self {
            if let Some(address) = address {
                command.args(["--address", address]);
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

    pub(super) fn containerd_stock(&self) -> Result<Stock, Error> {
        let command = self.ctr(&["images", "check"]);
        let typed = shown(&command);
        let ended = self.ask(command)?;
        if !ended.status.success() {
            return Err(ended.failed(typed));
        }
        // what is for another platform is never whole for this one
        let foreign = matches!(self, Self::Containerd { platform: Some(_), .. });
        Ok(read(&ended.out, foreign))
    }
}

/// Reads what `ctr images check` prints: REF TYPE DIGEST STATUS (such as `complete (3/3)`) and more.
fn read(text: &str, any_status: bool) -> Stock {
    let image = |line: &str| {
        let mut words = line.split_whitespace();
        let (name, digest, status) = (words.next()?, words.nth(1)?, words.next()?);
        Some(Had { name: name.to_owned(), digest: digest.parse().ok()?, is_whole: any_status || status == "complete" })
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
REF                    TYPE                                       DIGEST STATUS         SIZE            UNPACKED 
docker.io/library/a:1  application/vnd.oci.image.index.v1+json    {D}    complete (2/2) 277.0 B/277.0 B false
docker.io/library/b:1  application/vnd.oci.image.manifest.v1+json {D}    incomplete (1/2) 27.0 B/277.0 B false
odd
"
        );
        let had = |name: &str, is_whole| Had { name: name.to_owned(), digest: D.parse().expect("digest"), is_whole };
        let names = ["docker.io/library/a:1", "docker.io/library/b:1"];
        assert_eq!(read(&text, false), Stock(vec![had(names[0], true), had(names[1], false)]));
        assert_eq!(read(&text, true), Stock(vec![had(names[0], true), had(names[1], true)]));
        assert_eq!(read("", false), Stock::default());
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
            node(Some("/s"), Some("linux/arm64")).shown(),
            "ctr --address /s --namespace k8s.io images import --no-unpack --platform linux/arm64 -"
        );
    }
}
