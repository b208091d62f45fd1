//! Nodes without a registry: what `ferry export` writes, and what `ferry install` hands to this node, in the hands of docker,
//! containerd, podman and skopeo. What is run says who it is.

use std::collections::BTreeSet;

use ferry_tests::daemons::{Containerd, Docker};
use ferry_tests::disks::SmallDisk;
use ferry_tests::ferry::Ferry;
use ferry_tests::images::{Compression, Format, Image, Layer, architecture, busybox, digest};
use ferry_tests::registry::{Access, Registry};
use ferry_tests::site::Site;
use ferry_tests::{require, tools};
use serde_json::{Value, json};

use crate::{FOR, SIGN, TRUST, bundled, small, two_platforms};

/// A bundle as sites have them: a tag, a schema 2 image, an index pinned by digest, one by tag and digest, zstd layers, a chart.
struct Shop {
    site: Site,
    /// An index over two platforms of which one is carried, known by its digest only.
    pinned: Image,
    both: Image,
}

/// An image that says who it is, with zstd layers.
fn zstd(greeting: &str) -> Image {
    let single = busybox(Format::Oci, greeting).single.unwrap();
    let layers = single.layers.into_iter().map(|layer| layer.with(Compression::Zstd)).collect();
    let run = json!({"Cmd": ["/bin/cat", "/etc/greeting"], "Env": ["PATH=/bin"]});
    Image::with_config(&native(), Format::Oci, layers, &run)
}

fn native() -> String {
    format!("linux/{}", architecture())
}

impl Shop {
    fn new() -> Self {
        let other = Image::single("linux/riscv64", Format::Oci, vec![Layer::random(3, 10)]);
        let pinned = Image::index(Format::Oci, &[&other, &busybox(Format::Oci, "the pinned one")]);
        let both = busybox(Format::Docker, "tag and digest");
        let content = [
            ("library/web:1.0", &busybox(Format::Oci, "the web")),
            ("team/csi:v2", &busybox(Format::Docker, "the driver")),
            ("team/pinned:v1", &pinned),
            ("team/both:v1", &both),
            ("team/zstd:v1", &zstd("zstd layers")),
            ("team/chart:v1", &Image::artifact("application/vnd.cncf.helm.config.v1+json", b"a chart")),
        ];
        let source = Registry::filled(Access::Plain, &content);
        let site = Site::new();
        let (host, native) = (source.host(), native());
        let (pin, both_digest) = (pinned.digest(), both.digest());
        let manifest = format!(
            "\
name: shop
platforms: [{native}]
mirrors: {{docker.io: [{host}], quay.invalid: [{host}]}}
images:
  - web:1.0
  - quay.invalid/team/csi:v2
  - team/pinned@{pin}
  - team/both:v1@{both_digest}
  - team/zstd:v1
  - team/chart:v1
"
        );
        site.write("shop.yaml", manifest);
        let _ = site.ferry(&format!("bundle shop.yaml -o shop.tar --volume-size 900K {SIGN}")).ok();
        Self { site, pinned, both }
    }

    fn export(&self, arguments: &str) -> String {
        self.site.ferry(&format!("export shop.tar {TRUST} {arguments}")).ok().stderr
    }

    fn path(&self, name: &str) -> String {
        self.site.at(name).display().to_string()
    }

    /// What the kubelet asks containerd for, and what each says when it runs.
    fn kubelet(&self) -> [(String, &'static str); 5] {
        [
            ("docker.io/library/web:1.0".to_owned(), "the web"),
            ("quay.invalid/team/csi:v2".to_owned(), "the driver"),
            (format!("docker.io/team/pinned@{}", self.pinned.digest()), "the pinned one"),
            (format!("docker.io/team/both@{}", self.both.digest()), "tag and digest"),
            ("docker.io/team/zstd:v1".to_owned(), "zstd layers"),
        ]
    }
}

fn run(containerd: &Containerd, name: &str, id: &str) -> String {
    let run = ["-n", "k8s.io", "run", "--rm", "--snapshotter", "native", "--net-host", name, id];
    containerd.ctr(&run).trim().to_owned()
}

#[test]
fn docker_loads_and_runs_what_is_exported() {
    require!("docker-registry", "dockerd", "docker", "root", "busybox-static");
    let shop = Shop::new();
    let said = shop.export("--to docker -o images.tar");
    for words in [
        "team/chart:v1` is no container image",
        "team/zstd:v1` has zstd layers",
        "docker tag sha256:",
        "next: docker load -i images.tar",
    ] {
        assert!(said.contains(words), "{said}");
    }
    let docker = Docker::start();
    docker.succeed(&["load", "-i", &shop.path("images.tar")]);
    let id = shop.site.ferry(&format!("export shop.tar {TRUST} --to docker --dry-run --json")).ok().json();
    let pinned = id["images"].as_array().unwrap().iter().find(|image| image["tags"].is_null()).unwrap();
    let pinned = pinned["id"].as_str().unwrap();
    for (name, greeting) in [
        ("web:1.0", "the web"),
        ("quay.invalid/team/csi:v2", "the driver"),
        ("team/both:v1", "tag and digest"),
        ("team/zstd:v1", "zstd layers"),
        (pinned, "the pinned one"),
    ] {
        assert_eq!(docker.succeed(&["run", "--rm", "--network", "host", name]), greeting);
    }
    // straight into the node: what is there is not sent
    let install = |more: &str| {
        let host = docker.host();
        shop.site.ferry(&format!("install shop.tar {TRUST} --docker --docker-host {host} {more}"))
    };
    install("").ok().says(&["0 images imported (0 B), 5 were there"]);
    docker.succeed(&["rmi", "web:1.0", "quay.invalid/team/csi:v2", pinned]);
    let look = install("--dry-run --json").ok().json();
    let states = look["images"].as_array().unwrap().iter().map(|image| image["state"].as_str().unwrap());
    assert_eq!(states.collect::<Vec<_>>(), ["new", "new", "new", "is there", "is there"]);
    install("").ok().says(&["3 images imported", "2 were there"]);
    assert_eq!(docker.succeed(&["run", "--rm", "--network", "host", "web:1.0"]), "the web");
    assert_eq!(docker.succeed(&["run", "--rm", "--network", "host", pinned]), "the pinned one");
    // a tag that stands for something else moves
    docker.succeed(&["tag", "team/both:v1", "web:1.0"]);
    install("--image web").ok().says(&["1 image imported"]);
    assert_eq!(docker.succeed(&["run", "--rm", "--network", "host", "web:1.0"]), "the web");
}

#[test]
fn containerd_imports_and_runs_what_is_exported() {
    require!("docker-registry", "containerd", "ctr", "root", "busybox-static");
    let shop = Shop::new();
    shop.export("--to containerd -o images.tar");
    // as k3s does: every platform that an index names must be there
    let said = shop.export("--to k3s -o images/");
    assert!(said.contains("/var/lib/rancher/k3s/agent/images"), "{said}");
    let said = shop.export("--to k3s --each -o each");
    assert!(said.contains("each/docker.io_library_web_1.0.tar"), "{said}");
    assert_eq!(std::fs::read_dir(shop.site.at("each")).unwrap().count(), 5);
    for files in [vec!["images.tar"], vec!["images/shop.tar"], vec!["each"]] {
        let containerd = Containerd::start();
        let all = if files == ["images.tar"] { vec![] } else { vec!["--all-platforms"] };
        let mut paths: Vec<String> = files.iter().map(|file| shop.path(file)).collect();
        if files == ["each"] {
            let entries = std::fs::read_dir(shop.site.at("each")).unwrap();
            paths = entries.map(|entry| entry.unwrap().path().display().to_string()).collect();
        }
        for path in &paths {
            let import = ["-n", "k8s.io", "images", "import", "--snapshotter", "native"];
            containerd.ctr(&[&import[..], &all, &[path]].concat());
        }
        let names: BTreeSet<String> =
            containerd.ctr(&["-n", "k8s.io", "images", "ls", "-q"]).lines().map(ToOwned::to_owned).collect();
        assert_eq!(names, shop.kubelet().into_iter().map(|(name, _)| name).collect(), "{files:?}");
        for (at, (name, greeting)) in shop.kubelet().into_iter().enumerate() {
            assert_eq!(run(&containerd, &name, &format!("c{at}")), greeting, "{files:?}");
        }
    }
}

#[test]
fn images_go_straight_into_this_nodes_containerd() {
    require!("docker-registry", "containerd", "ctr", "root", "busybox-static");
    let shop = Shop::new();
    let containerd = Containerd::start();
    let install = |more: &str| {
        let address = containerd.address();
        shop.site.ferry(&format!("install shop.tar {TRUST} --containerd --containerd-address {address} {more}"))
    };
    let look = install("--dry-run").ok();
    assert!(look.stdout.contains("5 images") && look.stdout.contains("images import --no-unpack -"), "{}", look.stdout);
    install("--image web:1.0").ok().says(&["1 image imported", "0 were there"]);
    install("").ok().says(&["4 images imported", "1 were there"]);
    for (at, (name, greeting)) in shop.kubelet().into_iter().enumerate() {
        assert_eq!(run(&containerd, &name, &format!("c{at}")), greeting);
    }
    let again = install("--json").ok().json();
    assert_eq!(again["blobs"]["count"], 0, "{again}");
    assert!(again["images"].as_array().unwrap().iter().all(|image| image["state"] == "is there"), "{again}");
    install("--namespace other --image team/zstd").ok().says(&["1 image imported"]);
    assert_eq!(containerd.ctr(&["-n", "other", "images", "ls", "-q"]).trim(), "docker.io/team/zstd:v1");
}

#[test]
fn what_containerd_lost_of_another_platforms_image_comes_again() {
    require!("docker-registry", "containerd", "ctr", "root");
    let (two, one) = (two_platforms(Format::Oci, 1), small(9));
    let source = Registry::filled(Access::Plain, &[("app/two:1", &two), ("app/one:1", &one)]);
    let (site, host) = (Site::new(), source.host());
    let _ = site.ferry(&format!("bundle {host}/app/two:1 --platform all -o b.tar {SIGN}")).ok();
    let containerd = Containerd::start();
    let install = || {
        let address = containerd.address();
        let more = "--platform linux/arm64 --containerd --containerd-address";
        site.ferry(&format!("install b.tar {TRUST} {more} {address}"))
    };
    let content = || containerd.ctr(&["-n", "k8s.io", "content", "ls", "-q"]);
    install().ok().says(&["1 image imported"]);
    let all = content();
    install().ok().says(&["0 images imported (0 B), 1 were there"]);
    // each of what it consists of: its layer, its config, its manifest
    let manifest = two.platform("linux/arm64/v8").unwrap().digest.clone();
    let parsed: Value = serde_json::from_slice(two.manifest(&manifest).unwrap()).unwrap();
    let of = |value: &Value| value["digest"].as_str().unwrap().to_owned();
    for digest in [of(&parsed["layers"][0]), of(&parsed["config"]), manifest] {
        assert!(all.contains(&digest), "{all}");
        containerd.ctr(&["-n", "k8s.io", "content", "rm", &digest]);
        assert!(!content().contains(&digest));
        install().ok().says(&["1 image imported"]);
        assert!(content().contains(&digest), "{digest}");
        install().ok().says(&["0 images imported (0 B), 1 were there"]);
    }
}

#[test]
fn skopeo_and_podman_read_every_form() {
    require!("docker-registry", "skopeo", "podman", "root", "busybox-static");
    let shop = Shop::new();
    let raw = |source: &str| digest(tools::succeed("skopeo", &["inspect", "--raw", source]).as_bytes());
    let copy = |source: &str| {
        let to = tempfile::tempdir().unwrap();
        tools::succeed("skopeo", &["copy", source, &format!("dir:{}", to.path().display())]);
    };
    let said = shop.export("--to oci -o layout");
    assert!(said.contains("next: skopeo copy oci:layout:docker.io/library/web:1.0"), "{said}");
    let layout = shop.path("layout");
    let web = busybox(Format::Oci, "the web");
    assert_eq!(raw(&format!("oci:{layout}:docker.io/library/web:1.0")), web.digest());
    copy(&format!("oci:{layout}:docker.io/library/web:1.0"));
    copy(&format!("oci:{layout}:docker.io/team/zstd:v1"));
    let pinned = format!("oci:{layout}:docker.io/team/pinned@{}", shop.pinned.digest());
    assert_eq!(raw(&pinned), shop.pinned.digest());
    copy(&pinned);
    let index = shop.site.read("layout/index.json");
    assert!(index.contains("docker.io/team/chart:v1"), "{index}");
    // another image beside them; what is there stays
    let (_source, _, one) = bundled();
    let other = one.ferry(&format!("export b.tar {TRUST} --to oci -o {layout}")).ok();
    other.says(&["1 image exported"]);
    copy(&format!("oci:{layout}:docker.io/library/web:1.0"));
    assert!(shop.site.read("layout/index.json").contains("app/one:1"));

    shop.export("--to docker -o docker.tar");
    shop.export("--to containerd -o containerd.tar --image web");
    let (docker, containerd) = (shop.path("docker.tar"), shop.path("containerd.tar"));
    for name in ["web:1.0", "quay.invalid/team/csi:v2", "team/zstd:v1"] {
        copy(&format!("docker-archive:{docker}:{name}"));
    }
    copy(&format!("oci-archive:{containerd}:docker.io/library/web:1.0"));
    let root = shop.path("podman");
    let run = format!("{root}/run");
    let options = ["--root", &root, "--runroot", &run, "--storage-driver", "vfs", "--cgroup-manager", "cgroupfs"];
    for file in [&docker, &containerd] {
        tools::succeed("podman", &[&options[..], &["load", "--quiet", "--input", file]].concat());
    }
    let images = tools::succeed("podman", &[&options[..], &["images", "--noheading"]].concat());
    for name in ["docker.io/library/web", "quay.invalid/team/csi", "docker.io/team/zstd"] {
        assert!(images.contains(name), "{images}");
    }
}

/// The references and platforms of an export.
fn images(value: &Value) -> Vec<(String, String)> {
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let image = |image: &Value| {
        let platforms: Vec<String> = image["platforms"].as_array().unwrap().iter().map(text).collect();
        (text(&image["reference"]), platforms.join(" "))
    };
    value["images"].as_array().unwrap().iter().map(image).collect()
}

#[test]
fn images_and_platforms_are_chosen() {
    require!("docker-registry");
    let (two, one) = (two_platforms(Format::Oci, 1), small(9));
    let source = Registry::filled(Access::Plain, &[("app/two:1", &two), ("app/one:1", &one), ("app/one:2", &small(8))]);
    let (site, host) = (Site::new(), source.host());
    let bundle = format!("bundle {host}/app/two:1 {host}/app/one:1 {host}/app/one:2 --platform all -o b.tar {SIGN}");
    let _ = site.ferry(&bundle).ok();
    let look = |more: &str| site.ferry(&format!("export b.tar {TRUST} --dry-run --json {more}"));
    let (both, amd64) = ("linux/amd64 linux/arm64", "linux/amd64");
    let name = |name: &str| format!("{host}/app/{name}");
    for (more, expected) in [
        ("--to k3s", vec![("two:1", both), ("one:1", amd64), ("one:2", amd64)]),
        ("--to docker --platform linux/amd64", vec![("two:1", amd64), ("one:1", amd64), ("one:2", amd64)]),
        (&*format!("--to oci --image {}", name("one")), vec![("one:1", amd64), ("one:2", amd64)]),
        (&*format!("--to containerd --image {}", name("one:2")), vec![("one:2", amd64)]),
        (&*format!("--to k3s --image {host}/*two* --platform linux/arm64"), vec![("two:1", "linux/arm64")]),
    ] {
        let expected: Vec<_> = expected.into_iter().map(|(image, p)| (name(image), p.to_owned())).collect();
        assert_eq!(images(&look(more).ok().json()), expected, "{more}");
    }
    // the whole index keeps its digest; one platform of it is its manifest
    let digests = |more: &str| look(more).ok().json()["images"][0]["digest"].as_str().unwrap().to_owned();
    assert_eq!(digests("--to k3s"), two.digest());
    let arm64 = digests("--to k3s --platform linux/arm64 --image *two*");
    assert_eq!(arm64, two.platform("linux/arm64/v8").unwrap().digest);
    for (more, code, words) in [
        ("--to docker", 2, "choose that of the nodes with `--platform`"),
        ("--to oci --platform linux/s390x", 4, "linux/s390x is missing; there are: linux/amd64"),
        ("--to k3s --image nginx", 4, "no bundle carries an image `nginx`"),
        ("--to k3s --expect other", 3, "`other` is expected"),
        ("--to k3s --require 2", 3, "signed"),
    ] {
        look(more).run().expect_code(code).says(&[words]);
    }
    let untrusted = site.ferry("export b.tar --to k3s -o x/").run().expect_code(2);
    untrusted.says(&["no public key is given"]);
    tools::succeed("mkfifo", &[&site.at("fifo").display().to_string()]);
    std::os::unix::fs::symlink("fifo", site.at("link")).unwrap();
    for (more, words) in [
        ("--to oci -o -", "a layout is a folder"),
        ("--to oci --each -o x", "a layout holds all images"),
        ("--to containerd --each -o x.tar", "`x.tar` is no folder"),
        ("--to containerd --json -o -", "would both go to standard output"),
        ("--to k3s -o ferry.pub", "`ferry.pub` is no folder"),
        ("--to k3s -o fifo", "`fifo` is no folder"),
        ("--to oci -o fifo", "`fifo` is no folder"),
    ] {
        site.ferry(&format!("export b.tar {TRUST} {more}")).run().expect_code(2).says(&[words]);
    }
    for name in ["fifo", "link"] {
        let other = site.ferry(&format!("export b.tar {TRUST} --to containerd -o {name}")).run().expect_code(6);
        other.says(&[&format!("`{name}` is there and is no file"), "`-o -` writes into a pipe"]);
        let kind = std::fs::metadata(site.at(name)).unwrap().file_type();
        assert!(std::os::unix::fs::FileTypeExt::is_fifo(&kind), "{name} is what it was");
    }
    std::os::unix::fs::symlink("real.tar", site.at("link.tar")).unwrap();
    std::fs::write(site.at("real.tar"), "an earlier export").unwrap();
    let _ = site.ferry(&format!("export b.tar {TRUST} --to containerd -o link.tar")).ok();
    assert!(site.at("link.tar").is_symlink() && site.bytes("real.tar").starts_with(b"oci-layout"));
    // one that leads nowhere yet, too
    std::fs::remove_file(site.at("real.tar")).unwrap();
    let _ = site.ferry(&format!("export b.tar {TRUST} --to containerd -o link.tar")).ok();
    assert!(site.at("link.tar").is_symlink() && site.bytes("real.tar").starts_with(b"oci-layout"));
    assert!(site.names().iter().all(|name| !name.starts_with('x')), "{:?}", site.names());
}

#[test]
fn the_same_bytes_every_time_into_a_file_and_a_pipe() {
    require!("docker-registry");
    let source =
        Registry::filled(Access::Plain, &[("app/two:1", &two_platforms(Format::Docker, 5)), ("app/one:1", &small(9))]);
    let (site, host) = (Site::new(), source.host());
    let _ = site.ferry(&format!("bundle {host}/app/two:1 {host}/app/one:1 --platform all -o b.tar {SIGN}")).ok();
    let _ = site.ferry(&format!("bundle {host}/app/two:1 --platform all -o two.tar {SIGN}")).ok();
    let _ = site.ferry(&format!("bundle {host}/app/one:1 --platform all -o one.tar {SIGN}")).ok();
    for to in ["docker --platform linux/amd64", "containerd", "k3s"] {
        let export =
            |bundles: &str, output: &str| site.ferry(&format!("export {bundles} {TRUST} --to {to} {output}")).ok();
        let file = if to == "k3s" { "-o first/" } else { "-o first.tar" };
        export("b.tar", file);
        let first = if to == "k3s" { site.bytes("first/b.tar") } else { site.bytes("first.tar") };
        let pipe = site.ferry(&format!("export b.tar {TRUST} --to {to} -o -")).stdout(&site.at("pipe.tar")).ok();
        assert!(site.bytes("pipe.tar") == first, "{to}: {}", pipe.stderr);
        let announced = export("b.tar", &format!("{file} --dry-run --json")).json();
        assert_eq!(announced["files"][0]["bytes"], first.len(), "{to}");
        // from several bundles, too, where they have the same images in the same order
        export("two.tar one.tar", if to == "k3s" { "-o several" } else { "-o several.tar" });
        let several = if to == "k3s" { site.bytes("several/two.tar") } else { site.bytes("several.tar") };
        assert!(several == first, "{to}");
        let listed = tools::succeed("tar", &["tf", &site.at("pipe.tar").display().to_string()]);
        assert!(listed.starts_with("oci-layout\nindex.json\n"), "{listed}");
    }
    let (one, two) = (site.at("l1"), site.at("l2"));
    // as the top of a disk has it
    site.write("l1/lost+found/x", "");
    site.write("l2/lost+found/x", "");
    for folder in ["l1", "l2", "l1"] {
        let _ = site.ferry(&format!("export b.tar {TRUST} --to oci -o {folder}")).ok();
    }
    tools::succeed("diff", &["-r", &one.display().to_string(), &two.display().to_string()]);
}

#[test]
fn what_a_delta_leaves_out_must_be_given_too() {
    require!("docker-registry");
    let image = |n| Image::single("linux/amd64", Format::Oci, vec![Layer::random(500, 40_000), Layer::random(n, 2000)]);
    let source = Registry::filled(Access::Plain, &[("shop/app:1", &image(1)), ("shop/app:2", &image(2))]);
    let (site, host) = (Site::new(), source.host());
    let _ = site.ferry(&format!("bundle {host}/shop/app:1 {FOR} -o one.tar {SIGN}")).ok();
    let _ = site.ferry(&format!("bundle {host}/shop/app:2 {FOR} -o two.tar {SIGN} --have one.tar {TRUST}")).ok();
    let alone = site.ferry(&format!("export two.tar {TRUST} --to docker -o x.tar")).run().expect_code(4);
    alone.says(&["in no bundle that is given, only `one` has", "ferry export BASE.tar THIS.tar"]);
    assert!(!site.at("x.tar").exists());
    let _ = site.ferry(&format!("export two.tar one.tar {TRUST} --to docker -o x.tar --image {host}/shop/app:2")).ok();
    let list = tools::succeed("tar", &["xOf", &site.at("x.tar").display().to_string(), "manifest.json"]);
    let list: Value = serde_json::from_str(&list).unwrap();
    assert_eq!(list[0]["RepoTags"][0], format!("{host}/shop/app:2"));
    assert_eq!(list[0]["Layers"].as_array().unwrap().len(), 2);
}

#[test]
fn nothing_damaged_or_half_written_gets_a_name() {
    require!("docker-registry");
    let (_source, image, site) = bundled();
    let good = site.bytes("b.tar");
    let layer = image.single.unwrap().layers[0].stored.clone();
    let at = good.windows(layer.len()).position(|window| window == layer.as_slice()).unwrap();
    let mut bad = good.clone();
    bad[at + 1000] ^= 4;
    site.write("bad.tar", &bad);
    for (to, output) in [("docker", "x.tar"), ("containerd", "x.tar"), ("oci", "x")] {
        let told = site.ferry(&format!("export bad.tar {TRUST} --to {to} -o {output}")).run().expect_code(3);
        told.says(&["image `", "app/one:1`", "has other content"]);
        assert!(!site.at("x.tar").exists() && !site.at("x/index.json").exists(), "{to}: {:?}", site.names());
        assert!(!site.at(".x.tar.new").exists());
        // a whole copy of it makes up for it
        let _ = site.ferry(&format!("export bad.tar b.tar {TRUST} --to {to} -o {output}")).ok();
        let _ = std::fs::remove_file(site.at("x.tar"));
    }
    // what a killed run left is replaced
    site.write(".x.tar.new", "half of it");
    let _ = site.ferry(&format!("export b.tar {TRUST} --to docker -o x.tar")).ok();
    assert!(site.at("x.tar").exists() && !site.at(".x.tar.new").exists());
    // a layout where a blob was damaged later is made whole
    let blob = site.at(&format!("x/blobs/sha256/{}", digest(&layer).trim_start_matches("sha256:")));
    let mut bytes = std::fs::read(&blob).unwrap();
    bytes[7] ^= 1;
    std::fs::write(&blob, bytes).unwrap();
    let _ = site.ferry(&format!("export b.tar {TRUST} --to oci -o x")).ok();
    assert!(std::fs::read(&blob).unwrap() == *layer);
    for (folder, file) in [("mine", "notes.txt"), ("x", "surprise")] {
        site.write(&format!("{folder}/{file}"), "x");
        let told = site.ferry(&format!("export b.tar {TRUST} --to oci -o {folder}")).run().expect_code(7);
        told.says(&["is no OCI layout", file]);
    }
    let told = site.ferry(&format!("export b.tar {TRUST} --to docker -o b.tar")).run().expect_code(7);
    told.says(&["is a bundle that is exported"]);
    let told = site.ferry(&format!("export b.tar {TRUST} --to k3s -o .")).run().expect_code(7);
    told.says(&["`./b.tar` is a bundle that is exported"]);
    assert!(site.bytes("b.tar") == good);
}

#[test]
fn a_disk_that_is_too_small_is_told_before_anything_is_written() {
    require!("docker-registry", "root", "mount");
    let source = Registry::filled(
        Access::Plain,
        &[("app/big:1", &Image::single("linux/amd64", Format::Oci, vec![Layer::random(4, 3 << 20)]))],
    );
    let site = Site::new();
    let _ = site.ferry(&format!("bundle {}/app/big:1 {FOR} -o b.tar {SIGN}", source.host())).ok();
    let disk = SmallDisk::mount(&site.at("disk"), "2m");
    for (to, output) in [("docker", "disk/x.tar"), ("k3s", "disk"), ("oci", "disk/layout")] {
        let told = site.ferry(&format!("export b.tar {TRUST} --to {to} -o {output}")).run().expect_code(6);
        told.says(&["no room for", "bytes are needed there and", "make room there"]);
    }
    assert!(disk.names().iter().all(|name| name.starts_with("layout")), "{:?}", disk.names());
    disk.resize("8m");
    let _ = site.ferry(&format!("export b.tar {TRUST} --to docker -o disk/x.tar")).ok();
}

#[test]
fn memory_stays_flat_while_hundreds_of_megabytes_are_exported() {
    require!("docker-registry");
    let Some(time) = tools::find("time") else {
        return tools::skip("memory_stays_flat_while_hundreds_of_megabytes_are_exported: needs time");
    };
    let layers = vec![Layer::random(1, 150_000_000), Layer::mixed(2, 150_000_000, 0.5).with(Compression::Zstd)];
    let huge = Image::single("linux/amd64", Format::Oci, layers);
    let source = Registry::filled(Access::Plain, &[("app/huge:1", &huge)]);
    let site = Site::new();
    let _ = site.ferry(&format!("bundle {}/app/huge:1 {FOR} -o b.tar {SIGN}", source.host())).ok();
    // docker's form without the compression of zstd layers: twice through the decoder
    for (what, arguments) in
        [("a file", "--to docker -o x.tar"), ("a pipe", "--to docker -o -"), ("a folder", "--to oci -o layout")]
    {
        let mut export = std::process::Command::new(&time)
            .args(["-f", "%M", "-o"])
            .arg(site.at("peak"))
            .arg(ferry_tests::ferry::binary())
            .args(format!("export b.tar {TRUST} {arguments}").split_whitespace())
            .current_dir(site.path())
            .env("HOME", site.path())
            .stdout(std::process::Stdio::piped())
            .stderr(std::process::Stdio::null())
            .spawn()
            .unwrap();
        let piped = std::io::copy(&mut export.stdout.take().unwrap(), &mut std::io::sink()).unwrap();
        assert!(export.wait().unwrap().success(), "{what}");
        assert_eq!(piped > 300_000_000, what == "a pipe", "{piped}");
        let kilobytes: u64 = site.read("peak").trim().parse().unwrap();
        ferry_tests::numbers::tell(&format!("export into {what}: memory"), kilobytes as f64 / 1024.0, "MiB");
        assert!(kilobytes < 80 << 10, "{what}: {kilobytes} kB");
    }
    assert!(std::fs::metadata(site.at("x.tar")).unwrap().len() > 300_000_000);
}

#[test]
fn an_engine_that_is_not_there_or_refuses_is_told() {
    require!("docker-registry", "docker", "ctr");
    let (_source, _, site) = bundled();
    // something listens
    let _listens = std::os::unix::net::UnixListener::bind(site.at("sock")).unwrap();
    let sock = site.at("sock").display().to_string();
    let install = |more: &str| {
        let install = format!("install b.tar {TRUST} --platform linux/amd64 {more}");
        site.ferry(&install).env("CONTAINERD_ADDRESS", &sock)
    };
    for (more, words) in [("--containerd", "ferry export --to containerd"), ("--docker", "ferry export --to docker")] {
        let told = install(more).env("PATH", "/nonexistent").run().expect_code(6);
        told.says(&["cannot be started", words]);
    }
    // nothing does: said once, at once, and with the option for this engine
    site.write("file", "");
    let file = site.at("file").display().to_string();
    for (more, words) in [
        (
            "--docker --docker-host unix:///nonexistent/sock",
            "`/nonexistent/sock` is no socket of docker's: it is not there",
        ),
        ("--containerd --containerd-address /nonexistent/sock", "socket of containerd's: it is not there"),
        ("--containerd --containerd-address unix:///nonexistent/sock", "socket of containerd's: it is not there"),
        (&format!("--containerd --containerd-address {file}"), "socket of containerd's: it is no socket"),
        ("--docker --docker-host tcp://127.0.0.1:1", "Cannot connect to the Docker daemon at tcp://127.0.0.1:1."),
    ] {
        let told = install(more).run().expect_code(6);
        let (ours, others) = match more.starts_with("--docker") {
            true => ("`--docker-host", "--containerd-address"),
            false => ("`--containerd-address", "--docker-host"),
        };
        told.says(&[words, "is it running?", ours]);
        assert!(!told.stderr.contains(others), "{}", told.stderr);
        assert_eq!(told.stderr.matches(words).count(), 1, "{}", told.stderr);
        assert!(told.took < std::time::Duration::from_secs(5), "{more}: {:?}", told.took);
    }
    install("--docker --docker-host /run/docker.sock")
        .run()
        .expect_code(2)
        .says(&["`--docker-host unix:///run/docker.sock`"]);
    // an engine that takes half of it and gives up: its words count
    let fake = site.write("fake/ctr", "#!/bin/sh\ncase \"$*\" in *\" ls\"*) exit 0;; esac\nhead -c 100 >/dev/null\necho 'no space left on device' >&2\nexit 1\n");
    tools::succeed("chmod", &["+x", fake.to_str().unwrap()]);
    let path = format!("{}:/usr/bin:/bin", fake.parent().unwrap().display());
    let told = install("--containerd").env("PATH", &path).run().expect_code(6);
    told.says(&["images import --no-unpack -` failed: no space left on device", "make room on the node's disk"]);
    // one that says it did, and did not
    site.write("fake/ctr", "#!/bin/sh\ncase \"$*\" in *\" ls\"*) exit 0;; esac\ncat >/dev/null\n");
    let told = install("--containerd").env("PATH", &path).run().expect_code(6);
    told.says(&["the node does not have it, though `ctr", "there is no `"]);
    // what belongs to registries has no place there
    for more in
        ["--containerd --docker", "--containerd --registry h:1", "--docker --yaml x.yaml", "--docker --namespace x"]
    {
        let _ = install(more).run().expect_code(2);
    }
    let _ = site.ferry(&format!("install b.tar {TRUST} --registry h:1 --image x")).run().expect_code(2);
    let piped = |more: &str| {
        let install = format!("install - {TRUST} --platform linux/amd64 --containerd {more}");
        site.ferry(&install).env("PATH", &path).env("CONTAINERD_ADDRESS", &sock).stdin(&site.at("b.tar"))
    };
    piped("").run().expect_code(2).says(&["can be read at any place", "--spool DIR"]);
    piped("--spool spool --dry-run").ok();
    // interrupted: the engine's command does not stay behind, be it one that asks or the import
    for asks in ["exit 0", "true"] {
        let fake = "#!/bin/sh\ncase \"$*\" in *\" ls\"*) ASKS;; esac\necho $$ >pid\nexec sleep 60\n";
        site.write("fake/ctr", fake.replace("ASKS", asks));
        interrupted(&site, install("--containerd").env("PATH", &path));
    }
}

/// The command of the engine is gone when ferry is.
fn interrupted(site: &Site, install: Ferry) {
    let _ = std::fs::remove_file(site.at("pid"));
    let mut running = install.start();
    running.until("its command", || std::fs::read_to_string(site.at("pid")).is_ok_and(|pid| pid.ends_with('\n')));
    running.signal("INT");
    let pid = site.read("pid");
    assert_eq!(running.wait().code, 130);
    // gone, or a zombie that nobody has asked about yet
    let gone = || {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", pid.trim())).unwrap_or_default();
        stat.rsplit_once(") ").is_none_or(|(_, rest)| rest.starts_with('Z'))
    };
    let end = std::time::Instant::now() + std::time::Duration::from_secs(5);
    while !gone() {
        assert!(std::time::Instant::now() < end, "the engine's command stays behind");
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
}
