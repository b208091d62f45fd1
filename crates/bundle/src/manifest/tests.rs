use super::*;

const FULL: &str = r#"
name: shop
version: 3.6
platforms: linux/amd64
layout: flat
layers: zstd
mirrors:
  docker.io: mirror.example.com/hub
  quay.io: [a.example.com, b.example.com:5000/q]
referrers: [signature, sbom]
verify:
  registry.k8s.io/*: keys/k8s.pub
  docker.io/bitnami/etcd: [a.pub, ../b.pub]
images:
  - image: docker.io/bitnami/etcd:3.5.9
    from: [docker.io/bitnamilegacy/etcd, quay.io/x/etcd:other]
    as: etcd
  - image: alluxio/operator:3.2.1
    archive: tars/operator.tar
    archiveImage: localhost/AI:latest
    optional: true
    platforms: [linux/amd64, linux/arm64]
    referrers: false
    verify: /etc/keys/c.pub
  - registry.k8s.io/sig-storage/csi-provisioner:v2.0.5
yaml:
  - ./values.yaml
  - ../shared/cluster.yaml
set:
  - file: values*.yaml
    kind: AlluxioCluster
    paths: [spec.etcd.image, 'spec."a.b".image']
    form: registry+repository+tag
    image: bitnami/etcd:3.5.9
  - path: global
    form: image+imageTag
    image: alluxio/operator:3.2.1
ignore:
  - image: docker.io/library/busybox*
    reason: init containers of the demo
files: notes.pdf
"#;

fn read(text: &str) -> Result<BundleManifest, ManifestError> {
    parse(text, Path::new("/m/shop.yaml"))
}

#[test]
fn every_key_is_read() {
    let m = read(FULL).expect("manifest");
    assert_eq!((m.name.as_str(), m.version.as_deref()), ("shop", Some("3.6")));
    assert_eq!(m.platforms.as_ref().map(ToString::to_string).as_deref(), Some("linux/amd64"));
    assert_eq!((m.layout, m.layers), (Layout::Flat, Layers::Zstd));
    assert_eq!(m.images.len(), 3);
    let lines: Vec<usize> = m.images.iter().map(|i| i.line).collect();
    assert_eq!(lines, [15, 18, 25]);
    let archive = m.images[1].archive.as_ref().expect("archive");
    assert_eq!(archive.path, Path::new("/m/tars/operator.tar"));
    assert_eq!(archive.image.as_deref(), Some("localhost/AI:latest"));
    assert!(m.images[1].optional);
    assert_eq!(m.images[1].platforms.as_ref().map(ToString::to_string).as_deref(), Some("linux/amd64, linux/arm64"));
    let carries = |i: usize| ReferrerKind::ALL.map(|kind| m.referrers_of(&m.images[i]).has(kind));
    assert_eq!((carries(0), carries(1)), ([true, false, true, false], [false; 4]));
    let keys = |i: usize| -> Vec<(&str, usize)> {
        m.keys_of(&m.images[i]).iter().map(|key| (key.path.to_str().expect("path"), key.line)).collect()
    };
    assert_eq!(keys(0), [("/m/a.pub", 13), ("/m/../b.pub", 13)]);
    assert_eq!(keys(1), [("/etc/keys/c.pub", 24)]);
    assert_eq!(keys(2), [("/m/keys/k8s.pub", 12)]);
    let names: Vec<&str> = m.yaml.iter().map(|y| y.name.as_str()).collect();
    assert_eq!(names, ["values.yaml", "cluster.yaml"]);
    assert_eq!(m.set.len(), 2);
    assert_eq!(m.set[0].paths.len(), 2);
    assert_eq!(m.set[0].form, ferry_image::Form::RegistryRepositoryTag);
    assert_eq!(m.files[0].path, Path::new("/m/notes.pdf"));
    assert_eq!(m.target_of(&m.images[0]).to_string(), "etcd:3.5.9");
}

#[test]
fn the_first_entry_that_names_an_image_says_who_must_have_signed_it() {
    let text = "name: n\nverify:\n  docker.io/library/busybox: false\n  quay.io/a/b:2: two.pub\n  '*': all.pub\nimages:\n  \
                - busybox:1\n  - quay.io/a/b:2\n  - quay.io/a/b:1\n  - {image: quay.io/a/c:1, verify: false}\n";
    let m = read(text).expect("manifest");
    let keys: Vec<Vec<&str>> =
        m.images.iter().map(|i| m.keys_of(i).iter().map(|key| key.written.as_str()).collect()).collect();
    assert_eq!(keys, [vec![], vec!["two.pub"], vec!["all.pub"], vec![]]);
}

/// Each manifest with everything that is said of it.
#[test]
fn problems_come_with_their_lines_all_together() {
    let cases: &[(&str, &[&str])] = &[
        ("", &[": `name:` is missing", ": `images:` is missing"]),
        ("name: n\nimages: []\n", &[":2: no image is listed"]),
        ("name: n\nimages:\n", &[":2: `images:` is missing"]),
        ("- a\n- b\n", &[":1: a mapping (`key: value`) is expected here"]),
        ("name: n\nimages: nginx\n", &[":2: a list is expected here"]),
        ("name: [n]\nimages: [a]\n", &[":1: a text is expected here"]),
        ("name: n\nimages: [a]\nname: m\n", &[":3: the key `name` is there twice"]),
        ("name: n\nimages: [a]\n---\nx: 1\n", &[":4: a second document begins here; there may be only one"]),
        (
            "name: n\nimages:\n  - 1.5\n",
            &[":3: an image reference, or a mapping with `image:` is expected here, not floating point `1.5`"],
        ),
        ("name: n\nimages:\n  - image: a\n    optional: maybe\n", &[":4: `true` or `false` is expected here"]),
        ("name: n\nimages: [*a]\n", &[":2: reference to unknown value"]),
        (
            "nam: n\nimages:\n  - imag: a\n    optinal: true\n  - a b\nfoo: 1\n",
            &[
                ": `name:` is missing",
                ":1: unknown key `nam`",
                ":3: unknown key `imag` in an entry of `images:`",
                ":3: `image:` is missing in an entry of `images:`",
                ":4: unknown key `optinal` in an entry of `images:`",
                ":5: `a b` is not an image reference: `library/a b` is not a repository path",
                ":6: unknown key `foo`",
            ],
        ),
        (
            "name: a@b\nversion: ''\nplatforms: [linux, all]\nlayout: x\nlayers: y\nimages: [a]\n",
            &[
                ":1: `name: a@b` may hold letters, digits, `.`, `_`, `+` and `-` only, at most 128, a letter or digit first",
                ":2: `version: ` may hold letters, digits, `.`, `_`, `+` and `-` only, at most 128, a letter or digit first",
                ":3: `all` is not a platform: it stands alone",
                ":4: `layout: x` is none of path, host, flat",
                ":5: `layers: y` is none of gzip, zstd, verbatim",
            ],
        ),
        (
            "name: n\nplatforms:\n  - linux/amd64\n  - linux\n  - linux/x86_64\nimages: [a]\n",
            &[
                ":4: `linux` is not a platform: write os/architecture[/variant], for example linux/amd64",
                ":5: the platform `linux/amd64` is already listed at line 3",
            ],
        ),
        (
            "name: n\nreferrers: [signature, tests]\nverify:\n  nginx: true\n  quay.io/:\n    - a.pub\nimages:\n  - image: nginx\n    referrers: []\n    verify: []\n",
            &[
                ":2: `referrers: tests` is none of signature, attestation, sbom, other",
                ":4: `verify: true` names no key: write the path of a public key",
                ":5: `verify:` names `quay.io/`, and no image that is listed is one of those",
                ":9: `referrers: []` names none; write `false`",
                ":10: `verify: []` names no key; where no signature is needed, write `false`",
            ],
        ),
        (
            "name: n\nverify: {nginx: https://x/a.pub}\nimages: [nginx]\n",
            &[":2: `verify: https://x/a.pub` is not the path of a public key"],
        ),
        (
            "name: n\nreferrers: 7\nimages: [a]\n",
            &[":2: `true`, `false`, a text, or a list of texts is expected here, not integer `7`"],
        ),
        (
            "name: n\nimages:\n  - nginx\n  - docker.io/library/nginx:latest\n  - image: b/c\n    as: library/nginx\n  - image: c\n    as: X\n",
            &[
                ":4: the image `docker.io/library/nginx:latest` is already listed at line 3",
                ":5: `docker.io/b/c:latest` would be `library/nginx:latest` at the target, as `docker.io/library/nginx:latest` at line 3 is",
                ":8: `X` is not an image reference: a target name is `path[:tag]` in lower case, without a host",
            ],
        ),
        (
            "name: n\nimages:\n  - image: a\n    archive: a.tar\n    from: [b]\n  - image: c\n    archiveImage: c\n  - image: d\n    archive: http://x/d.tar\n",
            &[
                ":5: `archive:` does not go with `from:`",
                ":7: `archiveImage:` needs `archive:`",
                ":9: `archive: http://x/d.tar` is not a path to a docker-save tar or an OCI layout",
            ],
        ),
        (
            "name: n\nimages: [a]\nmirrors:\n  http://x: m.io\n  docker.io: [m.io, 'http://m.io']\n  index.docker.io: m.io\n",
            &[
                ":4: `mirrors: http://x` is not a host: write `HOST[:PORT]`, and the mirror's path on the right",
                ":5: `http://m.io` is not a registry: leave `http://` out (for plain HTTP there is `--plain-http`)",
                ":6: the host `docker.io` is already listed at line 5",
            ],
        ),
        (
            "name: n\nimages: [a]\nset:\n  - image: b\n    path: a..b\n  - path: x\n    paths: [y]\n    image: a\n    form: z\n  - {image: a, kind: K}\n  - {image: a, paths: ['a.\"b', '\"a\"b', '', 'a\"b']}\n",
            &[
                ":4: `docker.io/library/b:latest` is not one of the images listed",
                ":5: `path: a..b` has an empty key",
                ":6: `path:` does not go with `paths:`",
                ":9: `form: z` is none of whole, image+imageTag, image+tag, repository+tag, registry+repository+tag",
                ":10: `path:` is missing in an entry of `set:`",
                ":11: `path: a.\"b` has a `\"` without its second",
                ":11: `path: \"a\"b` needs a `.` after a quoted key",
                ":11: `path: ` has an empty key",
                ":11: `path: a\"b` has a `\"` within a key",
            ],
        ),
        (
            "name: n\nimages: [a]\nignore:\n  - image: a b\n    reason:\n  - reason: r\n  - image: a b\n    reason: r\n",
            &[
                ":4: `reason:` is missing in an entry of `ignore:`",
                ":6: `image:` is missing in an entry of `ignore:`",
                ":7: `a b` is not an image reference: `library/a b` is not a repository path",
            ],
        ),
        (
            "name: n\r\nimages: [a]\r\nyaml:\r\n  - v.yaml\r\n  - ./V.yaml\r\n  - ''\r\n  - ..\r\nfiles: [\"a\\\\b\", ä]\r\n",
            &[
                ":5: the name `V.yaml` is already listed at line 4",
                ":6: `yaml: ` names no file or folder",
                ":7: `yaml: ..` names no file or folder",
                ":8: `files: a\\b` cannot stand in a bundle: the name `files/a\\\\b` has characters other than printable ASCII, or a backslash",
                ":8: `files: ä` cannot stand in a bundle: the name `files/ä` has characters other than printable ASCII, or a backslash",
            ],
        ),
    ];
    for (text, expected) in cases {
        let error = read(text).map(|m| m.name).expect_err(text).to_string();
        let expected: Vec<String> = expected.iter().map(|line| format!("/m/shop.yaml{line}")).collect();
        assert_eq!(error.lines().collect::<Vec<_>>(), expected, "{text}");
    }
}

#[test]
fn limits_are_stated() {
    let text = format!("name: n\nimages: [a]\n# {}", "x".repeat(MAX_BYTES));
    let error = read(&text).map(|_| ()).expect_err("too large").to_string();
    assert_eq!(error, format!("/m/shop.yaml: the file has {} bytes; the limit is 1048576", text.len()));
    let mut text = "name: n\nimages:\n".to_owned();
    for i in 0..=MAX_IMAGES {
        text.push_str(&format!("- a:{i}\n"));
    }
    let error = read(&text).map(|_| ()).expect_err("too many").to_string();
    assert_eq!(error, "/m/shop.yaml:3: there are 10001 images; the limit is 10000");
    let most = text.rsplit_once("- a").map(|(most, _)| most.to_owned()).expect("lines");
    assert_eq!(read(&most).map(|m| m.images.len()), Ok(MAX_IMAGES));
}

#[test]
fn nesting_and_aliases_are_limited() {
    for text in ["[".repeat(5000), "{a: ".repeat(5000), "- ".repeat(5000)] {
        assert!(read(&text).is_err());
    }
    let mut bomb = "name: n\na: &a [x, x, x, x, x, x, x, x, x]\n".to_owned();
    for (this, last) in "bcdefghijk".chars().zip("abcdefghij".chars()) {
        bomb.push_str(&format!("{this}: &{this} [{}]\n", vec![format!("*{last}"); 9].join(", ")));
    }
    assert!(read(&bomb).is_err());
}

#[test]
fn hints_name_the_slip_or_the_choices() {
    let hint = |text: &str| ferry_content::Failure::hint(&read(text).map(|_| ()).expect_err(text));
    let slip = "name: n\nimages: [{image: a, archiveimage: x, archive: y}]\n";
    assert_eq!(hint(slip).as_deref(), Some("did you mean `archiveImage`?"));
    let other = "name: n\nimages: [{image: a, tag: x}]\n";
    assert_eq!(
        hint(other).as_deref(),
        Some("known here: image, from, archive, archiveImage, as, optional, platforms, referrers, verify")
    );
    let kubernetes = "apiVersion: v1\nname: n\nimages: [a]\n";
    assert_eq!(
        hint(kubernetes).as_deref(),
        Some("this looks like Kubernetes YAML; a bundle manifest lists images, and may name such files under `yaml:`")
    );
}

#[test]
fn collisions_alone_end_as_a_conflict() {
    let kind = |text: &str| ferry_content::Failure::kind(&read(text).map(|_| ()).expect_err(text));
    assert_eq!(kind("name: n\nimages: [{image: a, as: x}, {image: b, as: x}]\n"), ferry_content::Kind::Conflict);
    assert_eq!(kind("name: n\nimages: [{image: a, as: x}, {image: b, as: x}, a b]\n"), ferry_content::Kind::Invalid);
}

#[test]
fn sources_are_tried_in_the_documented_order() {
    let sources = |entry: &str| {
        let text =
            format!("name: n\nmirrors: {{docker.io: [m1.example.com/hub, m2.example.com]}}\nimages:\n  - {entry}\n");
        let manifest = read(&text).expect("manifest");
        manifest.sources(&manifest.images[0]).iter().map(|candidate| candidate.at.to_string()).collect::<Vec<_>>()
    };
    assert_eq!(
        sources("{image: 'bitnami/etcd:3.5', from: [bitnamilegacy/etcd, 'quay.io/x/etcd:other']}"),
        [
            "m1.example.com/hub/bitnami/etcd:3.5",
            "m2.example.com/bitnami/etcd:3.5",
            "docker.io/bitnami/etcd:3.5",
            "m1.example.com/hub/bitnamilegacy/etcd:3.5",
            "m2.example.com/bitnamilegacy/etcd:3.5",
            "docker.io/bitnamilegacy/etcd:3.5",
            "quay.io/x/etcd:other",
        ]
    );
    assert_eq!(
        sources("{image: 'quay.io/a/b:1', from: ['ghcr.io/a/b', 'quay.io/a/b']}"),
        ["ghcr.io/a/b:1", "quay.io/a/b:1"]
    );
    assert_eq!(sources("{image: 'a:1', archive: a.tar}"), Vec::<String>::new());
}

#[test]
fn a_mirror_knows_its_origin_and_more_of_them_come_after_the_manifests_own() {
    let mut manifest = read("name: n\nmirrors: {docker.io: m1.example.com/hub}\nimages: [a/b:1]\n").expect("manifest");
    let target = |text: &str| text.parse::<Target>().expect("target");
    manifest.add_mirrors("docker.io", &[target("m2.example.com"), target("m1.example.com/hub")]);
    manifest.add_mirrors("quay.io", &[target("m3.example.com")]);
    let sources: Vec<(String, bool)> =
        manifest.sources(&manifest.images[0]).iter().map(|c| (c.at.to_string(), c.mirror_of.is_some())).collect();
    let expected = [("m1.example.com/hub/a/b:1", true), ("m2.example.com/a/b:1", true), ("docker.io/a/b:1", false)];
    assert_eq!(sources, expected.map(|(at, mirror)| (at.to_owned(), mirror)));
}

#[test]
fn a_fallback_is_held_to_the_images_digest() {
    let d = ferry_image::Digest::of(b"x");
    let text = format!("name: n\nimages:\n  - image: a:1@{d}\n    from: [quay.io/a, 'ghcr.io/a:2', 'x.io/a@{d}']\n");
    let manifest = read(&text).expect("manifest");
    let from: Vec<String> = manifest.images[0].from.iter().map(ToString::to_string).collect();
    assert_eq!(from, [format!("quay.io/a:1@{d}"), format!("ghcr.io/a:1@{d}"), format!("x.io/a:1@{d}")]);
    let other = ferry_image::Digest::of(b"y");
    let text = format!("name: n\nimages:\n  - image: a@{d}\n    from: quay.io/a@{other}\n");
    let error = read(&text).map(|_| ()).expect_err("another digest").to_string();
    assert!(error.starts_with("/m/shop.yaml:4: ") && error.contains("another digest"), "{error}");
}

#[test]
fn platforms_come_from_the_image_then_the_command_then_the_manifest() {
    let text = "name: n\nplatforms: [linux/amd64]\nimages:\n  - image: a\n    platforms: [linux/arm64]\n  - b\n";
    let manifest = read(text).expect("manifest");
    let chosen = Platforms::try_from(vec!["all".to_owned()]).expect("all");
    let of = |i: usize, chosen| manifest.platforms_of(&manifest.images[i], chosen).map(ToString::to_string);
    assert_eq!(of(0, Some(&chosen)).as_deref(), Some("linux/arm64"));
    assert_eq!(of(1, Some(&chosen)).as_deref(), Some("all"));
    assert_eq!(of(1, None).as_deref(), Some("linux/amd64"));
}

#[test]
fn a_list_and_a_manifest_are_told_apart() {
    for (text, kind) in [
        ("name: n\nimages: [a]\n", Kind::Manifest),
        ("\u{feff}# x\n\nimages:\r\n- a\r\n", Kind::Manifest),
        ("{images: [a]}", Kind::Manifest),
        ("---\nimages: [a]", Kind::Manifest),
        ("images:\n\t- a: [\n", Kind::Manifest),
        ("apiVersion: v1\n", Kind::Manifest),
        ("nginx:1.27\n", Kind::List),
        ("localhost:5000/a\n", Kind::List),
        ("## core: images\nquay.io/a/b:1 # note: x\n", Kind::List),
        ("", Kind::List),
    ] {
        assert_eq!(detect(text), kind, "{text}");
    }
}

/// Every ready-made bundle manifest of the project.
#[test]
fn ready_made_manifests_parse() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../bundle-manifests");
    let mut names = Vec::new();
    for entry in std::fs::read_dir(&folder).expect("folder") {
        let path = entry.expect("entry").path();
        let text = std::fs::read_to_string(&path).expect("file");
        assert_eq!(detect(&text), Kind::Manifest, "{}", path.display());
        match parse(&text, &path) {
            Ok(manifest) => names.push(manifest.name),
            Err(error) => panic!("{error}"),
        }
    }
    names.sort();
    assert_eq!(names, ["alluxio-ai", "cert-manager", "ingress-nginx", "longhorn"]);
}

#[test]
fn the_first_customers_manifest_is_complete() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../bundle-manifests/alluxio-ai-3.6.yaml");
    let manifest = parse(&std::fs::read_to_string(&path).expect("file"), &path).expect("manifest");
    let at: Vec<(String, bool, bool)> =
        manifest.images.iter().map(|i| (manifest.target_of(i).to_string(), i.archive.is_some(), i.optional)).collect();
    let expected = [
        ("alluxio-operator:3.2.1", true, false),
        ("alluxio-enterprise:AI-3.6-12.0.2", true, false),
        ("alluxio-gateway:AI-3.6-12.0.2", true, true),
        ("alluxio-dashboard:AI-3.6-12.0.2", true, true),
        ("csi-node-driver-registrar:v2.0.0", false, false),
        ("csi-provisioner:v2.0.5", false, false),
        ("bitnami/etcd:3.5.9-debian-11-r24", false, false),
        ("bitnami/os-shell:11-debian-11-r2", false, false),
        ("grafana:10.4.5", false, false),
        ("prometheus:v2.52.0", false, false),
    ];
    assert_eq!(at, expected.map(|(name, archive, optional)| (name.to_owned(), archive, optional)));
    let etcd = manifest.sources(&manifest.images[6]);
    assert_eq!(etcd[1].at.to_string(), "docker.io/bitnamilegacy/etcd:3.5.9-debian-11-r24");
    assert_eq!(manifest.set.len(), 8);
    assert_eq!(manifest.set[6].paths, ["spec.alluxio-monitor.prometheus", "spec.prometheus"]);
    assert!(manifest.yaml.is_empty());
    assert_eq!(manifest.rules_for(|r| r.path() != "bitnami/os-shell").len(), 7);
}

/// The examples of the reference are manifests, and it has every key and every message that a user may look up.
#[test]
fn the_reference_is_in_step() {
    let text = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/bundle-manifest.md"))
        .expect("file");
    let guide =
        std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/guide.md")).expect("file");
    let examples: Vec<String> = [text.as_str(), guide.as_str()]
        .iter()
        .flat_map(|page| page.split("```yaml\n").skip(1))
        .filter_map(|block| block.split("```").next())
        .filter(|block| block.contains("name: "))
        .map(ToOwned::to_owned)
        .collect();
    assert_eq!(examples.len(), 3);
    for example in &examples {
        if let Err(error) = read(example) {
            panic!("{error}\n{example}");
        }
    }
    let keys = [raw::Document::KEYS, raw::ImageItem::KEYS, raw::Set::KEYS, raw::IgnoreItem::KEYS].concat();
    for key in keys {
        assert!(
            text.contains(&format!("| `{key}` |")) || text.contains(&format!("| [`{key}`]")),
            "`{key}` is not in the reference"
        );
    }
    let list = text.split("```text\n").nth(1).and_then(|block| block.split("```").next()).expect("list");
    assert_eq!(crate::list::parse(list, Path::new("list")).map(|l| l.images.len()), Ok(3));
}

#[test]
fn a_list_lends_its_name() {
    for (path, name) in [
        ("a/longhorn-images.txt", "longhorn-images"),
        ("my images (1).txt", "my-images--1-"),
        (".hidden", "hidden"),
        ("äö", "bundle"),
        ("-", "bundle"),
        ("", "bundle"),
    ] {
        assert_eq!(name_of(Path::new(path)), name, "{path}");
        let text = format!("name: {}\nimages: [a]\n", name_of(Path::new(path)));
        assert!(read(&text).is_ok(), "{text}");
    }
}

proptest::proptest! {
    /// Any slip of the pen is told, at a line that exists, and never a panic.
    #[test]
    fn slips_never_panic(at in 0..FULL.len(), drop in 0..12_usize, put in "[ \\n:\\-\\[\\]{}*&!#'\"a-z@/\\t\u{e4}]{0,6}") {
        let end = (at + drop).min(FULL.len());
        let text = format!("{}{put}{}", &FULL[..at], &FULL[end..]);
        if let Err(error) = read(&text) {
            let lines = text.lines().count() + 1;
            proptest::prop_assert!(!error.problems.is_empty());
            proptest::prop_assert!(error.problems.iter().all(|p| p.line <= lines && !p.what.to_string().is_empty()));
            proptest::prop_assert!(error.problems.is_sorted_by_key(|p| p.line));
        }
        let _ = crate::list::parse(&text, Path::new("list"));
    }
}

/// The first customer's two files, with little in them, become what the vendor's procedure asks for at a private registry.
#[test]
fn the_first_customers_rules_give_the_yaml_that_is_wanted() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../bundle-manifests/alluxio-ai-3.6.yaml");
    let manifest = parse(&std::fs::read_to_string(&path).expect("file"), &path).expect("manifest");
    let target: Target = "reg.local:5000/ai".parse().expect("target");
    let mut relocation = ferry_image::Relocation::new(&target);
    for image in &manifest.images {
        let name = manifest.target_of(image);
        relocation.images.push(ferry_image::Relocated {
            reference: image.reference.clone(),
            repository: format!("{}/{}", target.host(), target.path_of(&name)),
            tag: name.tag,
            source_digest: ferry_image::Digest::of(b"source"),
            digest: ferry_image::Digest::of(b"target"),
        });
    }
    let rewrite = |name: &str, text: &str| {
        let out = ferry_rewrite::rewrite(text, name, &relocation, &manifest.set, &manifest.ignore);
        assert!(out.uncarried.is_empty() && out.refused.is_empty(), "{name}: {:?} {:?}", out.uncarried, out.refused);
        out.text
    };
    let values = rewrite("alluxio-operator.yaml", "# ours\nglobal:\n  image: alluxio/operator\n  imageTag: 3.2.1\n");
    assert_eq!(
        values,
        "\
# ours
global:
  image: reg.local:5000/ai/alluxio-operator
  imageTag: 3.2.1
alluxio-csi:
  controllerPlugin:
    provisioner:
      image: reg.local:5000/ai/csi-provisioner:v2.0.5
  nodePlugin:
    driverRegistrar:
      image: reg.local:5000/ai/csi-node-driver-registrar:v2.0.0
"
    );
    let head = "apiVersion: k8s-operator.alluxio.com/v1\nkind: AlluxioCluster\nmetadata: {name: alluxio-cluster, namespace: alx-ns}\nspec:\n";
    let cluster = format!("{head}  image: alluxio/alluxio-enterprise\n  imageTag: AI-3.6-12.0.2\n");
    let etcd = "  etcd:
    image:
      registry: reg.local:5000
      repository: ai/bitnami/etcd
      tag: 3.5.9-debian-11-r24
    volumePermissions:
      image:
        registry: reg.local:5000
        repository: ai/bitnami/os-shell
        tag: 11-debian-11-r2
";
    let enterprise = "  image: reg.local:5000/ai/alluxio-enterprise\n  imageTag: AI-3.6-12.0.2\n";
    let monitor = "  alluxio-monitor:
    prometheus:
      image: reg.local:5000/ai/prometheus
      imageTag: v2.52.0
    grafana:
      image: reg.local:5000/ai/grafana
      imageTag: 10.4.5
";
    assert_eq!(rewrite("alluxio-cluster.yaml", &cluster), format!("{head}{enterprise}{etcd}{monitor}"));
    // the other placement of the monitor is kept where it is found
    let direct = format!("{head}  prometheus:\n    enabled: true\n  grafana: {{image: grafana/grafana}}\n");
    let direct = rewrite("cluster.yml", &direct);
    assert!(!direct.contains("alluxio-monitor"), "{direct}");
    assert!(
        direct.contains("    enabled: true\n    image: reg.local:5000/ai/prometheus\n    imageTag: v2.52.0\n"),
        "{direct}"
    );
    assert!(direct.contains("grafana: {image: reg.local:5000/ai/grafana, imageTag: 10.4.5}"), "{direct}");
}
