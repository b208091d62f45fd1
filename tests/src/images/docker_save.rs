//! Writes what `docker save` writes, without docker: the layout of docker before 25, and the one since, which is also an OCI
//! layout. Raw layers in both, as docker keeps no compressed ones.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::Write;
use std::path::Path;

use serde_json::{Value, json};

use super::layout::{append, blob_path};
use super::{Compression, Format, Image, Layer, digest, gzip, hex};

/// What wraps the tar.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wrap {
    /// A plain tar.
    Plain,
    /// `.tar.gz`.
    Gzip,
    /// `.tar.zst`.
    Zstd,
}

/// Writes the old layout: `manifest.json`, `<id>/layer.tar`, and a symbolic link for a layer that an earlier image holds already.
pub fn write_old(file: &Path, images: &[(&[&str], &Image)], wrap: Wrap) {
    let mut builder = tar::Builder::new(Vec::new());
    let mut written: BTreeMap<String, String> = BTreeMap::new();
    let mut folders: BTreeSet<String> = BTreeSet::new();
    let mut manifest: Vec<Value> = Vec::new();
    let mut repositories = BTreeMap::<String, BTreeMap<String, String>>::new();
    for (tags, image) in images {
        let single = image.single.as_ref().expect("docker save knows single images only");
        let config = format!("{}.json", hex(&single.config));
        append(&mut builder, &config, &single.config);
        let mut paths = Vec::new();
        let mut parent = String::new();
        for (at, layer) in single.layers.iter().enumerate() {
            // docker's v1 ids: a chain, in which the topmost knows the config, so that two images never share it
            let top = if at + 1 == single.layers.len() { config.as_str() } else { "" };
            let id = hex(format!("{parent}{}{top}", layer.diff_id()).as_bytes());
            let path = format!("{id}/layer.tar");
            if folders.insert(id.clone()) {
                append(&mut builder, &format!("{id}/VERSION"), b"1.0");
                append(&mut builder, &format!("{id}/json"), format!(r#"{{"id":"{id}"}}"#).as_bytes());
                match written.get(&layer.diff_id()) {
                    Some(first) => link(&mut builder, &path, &format!("../{first}/layer.tar")),
                    None => append(&mut builder, &path, &layer.tar),
                }
                written.entry(layer.diff_id()).or_insert_with(|| id.clone());
            }
            paths.push(path);
            parent = id;
        }
        for tag in *tags {
            let (name, tag) = tag.rsplit_once(':').expect("NAME:TAG");
            repositories.entry(name.into()).or_default().insert(tag.into(), parent.clone());
        }
        manifest.push(json!({"Config": config, "RepoTags": null_if_empty(tags), "Layers": paths}));
    }
    append(&mut builder, "manifest.json", &serde_json::to_vec(&manifest).unwrap());
    append(&mut builder, "repositories", &serde_json::to_vec(&repositories).unwrap());
    write(file, &builder.into_inner().unwrap(), wrap);
}

/// Writes the layout of docker 25 and later: an OCI layout with raw layers, and `manifest.json` beside it.
pub fn write_new(file: &Path, images: &[(&[&str], &Image)], wrap: Wrap) {
    let mut builder = tar::Builder::new(Vec::new());
    let mut written = BTreeSet::new();
    let mut blob = |builder: &mut tar::Builder<Vec<u8>>, bytes: &[u8]| {
        let path = blob_path(&digest(bytes));
        if written.insert(path.clone()) {
            append(builder, &path, bytes);
        }
        path
    };
    let mut manifest: Vec<Value> = Vec::new();
    let mut entries: Vec<Value> = Vec::new();
    for (tags, image) in images {
        let raw = uncompressed(image);
        let single = raw.single.as_ref().expect("docker save knows single images only");
        let layers: Vec<String> = single.layers.iter().map(|layer| blob(&mut builder, &layer.tar)).collect();
        let config = blob(&mut builder, &single.config);
        blob(&mut builder, raw.manifest(raw.digest()).unwrap());
        manifest.push(json!({"Config": config, "RepoTags": null_if_empty(tags), "Layers": layers}));
        let mut root = raw.root.clone();
        root.platform = None;
        if tags.is_empty() {
            entries.push(json!(root));
        }
        for tag in *tags {
            let (name, version) = tag.rsplit_once(':').expect("NAME:TAG");
            let full =
                if name.contains('/') { format!("docker.io/{name}") } else { format!("docker.io/library/{name}") };
            root.annotations = BTreeMap::from([
                ("io.containerd.image.name".to_owned(), format!("{full}:{version}")),
                ("org.opencontainers.image.ref.name".to_owned(), version.to_owned()),
            ]);
            entries.push(json!(root));
        }
    }
    let index =
        json!({"schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json", "manifests": entries});
    append(&mut builder, "index.json", &serde_json::to_vec(&index).unwrap());
    append(&mut builder, "manifest.json", &serde_json::to_vec(&manifest).unwrap());
    append(&mut builder, "oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#);
    write(file, &builder.into_inner().unwrap(), wrap);
}

/// The image as docker holds it: OCI media types, raw layers.
fn uncompressed(image: &Image) -> Image {
    let single = image.single.as_ref().expect("docker save knows single images only");
    let layers: Vec<Layer> = single.layers.iter().map(|l| l.clone().with(Compression::None)).collect();
    let config: Value = serde_json::from_slice(&single.config).unwrap();
    let text = |key: &str| config[key].as_str().unwrap().to_owned();
    let platform = format!("{}/{}", text("os"), text("architecture"));
    Image::with_config(&platform, Format::Oci, layers, &config["config"])
}

fn null_if_empty(tags: &[&str]) -> Value {
    if tags.is_empty() { Value::Null } else { json!(tags) }
}

fn link(builder: &mut tar::Builder<Vec<u8>>, path: &str, to: &str) {
    let mut header = tar::Header::new_ustar();
    header.set_mode(0o777);
    header.set_mtime(0);
    header.set_size(0);
    header.set_entry_type(tar::EntryType::Symlink);
    // `append_link` would make a GNU long-link member of these paths; docker's fit the header
    header.set_path(path).unwrap();
    header.set_link_name_literal(to).unwrap();
    header.set_cksum();
    builder.append(&header, std::io::empty()).unwrap();
}

fn write(file: &Path, tar: &[u8], wrap: Wrap) {
    let bytes = match wrap {
        Wrap::Plain => tar.to_vec(),
        Wrap::Gzip => gzip(tar),
        Wrap::Zstd => zstd::encode_all(tar, 1).unwrap(),
    };
    File::create(file).unwrap().write_all(&bytes).unwrap();
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{require, tools};

    fn two() -> (Image, Image) {
        let base = Layer::mixed(1, 20_000, 0.5);
        let image = |seed| Image::single("linux/amd64", Format::Docker, vec![base.clone(), Layer::random(seed, 5000)]);
        (image(2), image(3))
    }

    /// What skopeo finds in `file` under `name`: the diff ids.
    fn layers(transport: &str, file: &Path, name: &str) -> Vec<Value> {
        let source = format!("{transport}:{}:{name}", file.display());
        let config: Value = serde_json::from_str(&tools::succeed("skopeo", &["inspect", "--config", &source])).unwrap();
        config["rootfs"]["diff_ids"].as_array().unwrap().clone()
    }

    #[test]
    fn skopeo_reads_both_layouts() {
        require!("skopeo");
        let folder = tempfile::tempdir().unwrap();
        let (a, b) = two();
        let images: [(&[&str], &Image); 2] = [(&["vendor/a:1", "vendor/a:latest"], &a), (&["vendor/b:1"], &b)];
        let expected = |image: &Image| -> Vec<Value> {
            image.single.as_ref().unwrap().layers.iter().map(|layer| json!(layer.diff_id())).collect()
        };
        for (name, write) in [("old", write_old as fn(&Path, &[(&[&str], &Image)], Wrap)), ("new", write_new)] {
            // skopeo 1.9 cannot read any gzipped one ("unexpected EOF"), gzip's own included
            let file = folder.path().join(format!("{name}.tar"));
            write(&file, &images, Wrap::Plain);
            assert_eq!(layers("docker-archive", &file, "vendor/a:latest"), expected(&a), "{name}");
            assert_eq!(layers("docker-archive", &file, "vendor/b:1"), expected(&b), "{name}");
        }
        let file = folder.path().join("new.tar");
        assert_eq!(layers("oci-archive", &file, "latest"), expected(&a));
    }

    #[test]
    fn a_layer_of_two_images_is_linked_in_the_old_layout() {
        let folder = tempfile::tempdir().unwrap();
        let (a, b) = two();
        // the same layer on top of another one: docker gives it another id, and links it
        let top = a.single.as_ref().unwrap().layers[1].clone();
        let c = Image::single("linux/amd64", Format::Docker, vec![Layer::random(9, 10), top]);
        let file = folder.path().join("old.tar");
        write_old(&file, &[(&["a:1"], &a), (&["b:1"], &b), (&["c:1"], &c)], Wrap::Plain);
        let mut archive = tar::Archive::new(File::open(&file).unwrap());
        let links: Vec<String> = archive
            .entries()
            .unwrap()
            .map(Result::unwrap)
            .filter(|entry| entry.header().entry_type().is_symlink())
            .map(|entry| entry.link_name().unwrap().unwrap().display().to_string())
            .collect();
        assert_eq!(links.len(), 1, "{links:?}");
        assert!(links[0].starts_with("../") && links[0].ends_with("/layer.tar"), "{links:?}");
    }
}
