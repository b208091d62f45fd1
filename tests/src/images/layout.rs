//! Writes OCI image layouts: a folder, or a tar of it.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use serde_json::json;

use super::{Descriptor, Image};

/// Writes a layout folder that holds these images, each under its `org.opencontainers.image.ref.name`.
pub fn write_folder(folder: &Path, images: &[(&str, &Image)]) {
    for (name, bytes) in files(images) {
        let path = folder.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }
}

/// Writes the same as a plain tar.
pub fn write_tar(file: &Path, images: &[(&str, &Image)]) {
    let mut builder = tar::Builder::new(fs::File::create(file).unwrap());
    for (name, bytes) in files(images) {
        append(&mut builder, &name, &bytes);
    }
    builder.finish().unwrap();
}

/// Every file of the layout by its path.
#[must_use]
pub fn files(images: &[(&str, &Image)]) -> BTreeMap<String, Vec<u8>> {
    let mut files = BTreeMap::new();
    let mut roots: Vec<Descriptor> = Vec::new();
    for (name, image) in images {
        let mut root = image.root.clone();
        if !name.is_empty() {
            root.annotations.insert("org.opencontainers.image.ref.name".into(), (*name).to_owned());
        }
        roots.push(root);
        for (descriptor, bytes) in &image.manifests {
            files.insert(blob_path(&descriptor.digest), bytes.clone());
        }
        for (digest, bytes) in &image.blobs {
            files.insert(blob_path(digest), bytes.to_vec());
        }
    }
    let index = json!({
        "schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json", "manifests": roots,
    });
    files.insert("index.json".into(), serde_json::to_vec(&index).unwrap());
    files.insert("oci-layout".into(), br#"{"imageLayoutVersion":"1.0.0"}"#.to_vec());
    files
}

/// `blobs/sha256/…`.
#[must_use]
pub fn blob_path(digest: &str) -> String {
    format!("blobs/{}", digest.replacen(':', "/", 1))
}

pub(super) fn append<W: std::io::Write>(builder: &mut tar::Builder<W>, name: &str, bytes: &[u8]) {
    let mut header = tar::Header::new_ustar();
    header.set_mode(0o644);
    header.set_mtime(0);
    header.set_size(bytes.len() as u64);
    builder.append_data(&mut header, name, bytes).unwrap();
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::images::{Compression, Format, Layer};
    use crate::{require, tools};

    #[test]
    fn skopeo_reads_it() {
        require!("skopeo");
        let folder = tempfile::tempdir().unwrap();
        let layers = vec![Layer::random(1, 1000), Layer::random(2, 1000).with(Compression::Zstd)];
        let image = Image::single("linux/amd64", Format::Oci, layers);
        let index = Image::index(Format::Oci, &[&image]);
        write_folder(&folder.path().join("oci"), &[("one", &image), ("many", &index)]);
        write_tar(&folder.path().join("oci.tar"), &[("one", &image)]);
        for source in ["oci:oci:one", "oci:oci:many", "oci-archive:oci.tar:one"] {
            let (transport, rest) = source.split_once(':').unwrap();
            let source = format!("{transport}:{}/{rest}", folder.path().display());
            let raw = tools::succeed("skopeo", &["inspect", "--raw", &source]);
            let root = if rest.ends_with("many") { &index } else { &image };
            assert_eq!(crate::images::digest(raw.as_bytes()), root.digest(), "{source}");
        }
        tools::succeed(
            "skopeo",
            &[
                "copy",
                &format!("oci:{0}/oci:one", folder.path().display()),
                &format!("dir:{}/d", folder.path().display()),
            ],
        );
    }
}
