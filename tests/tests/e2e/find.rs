//! `ferry find`: charts, lists, kustomizations, compose files, standard input, hostile archives; a bundle manifest that `ferry bundle`
//! takes; the gate and the rewriting of a chart's values.

use std::fs;
use std::path::Path;
use std::process::Command;

use ferry_tests::registry::{Access, Registry};
use ferry_tests::site::Site;
use ferry_tests::{require, tools};
use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::Value;

use crate::{FOR, SIGN, TRUST, small};

/// `file:line reference confidence` of every item.
fn lines(json: &Value) -> Vec<String> {
    let text = |v: &Value| v.as_str().unwrap_or("-").to_owned();
    let line =
        |i: &Value| format!("{}:{} {} {}", text(&i["file"]), i["line"], text(&i["reference"]), text(&i["confidence"]));
    json.as_array().unwrap().iter().map(line).collect()
}

fn found(site: &Site, arguments: &str) -> Vec<String> {
    lines(&site.ferry(&format!("find {arguments} --json")).ok().json())
}

/// A chart with a sub-chart under an alias, in the manner of those that share a registry in `global`.
fn chart(site: &Site) {
    site.write(
        "web/Chart.yaml",
        "apiVersion: v2\nname: web\nversion: 1.2.0\nappVersion: \"3.4\"\nannotations:\n  images: |\n    - name: web\n      image: quay.io/team/web:3.4\ndependencies:\n  - name: cache\n    alias: sessions\n    version: 0.1.0\n    repository: https://charts.example.com\n    condition: sessions.enabled\n",
    );
    site.write(
        "web/values.yaml",
        "global:\n  imageRegistry: \"\"\nimage:\n  registry: quay.io\n  repository: team/web\n  tag: \"\"\nsessions:\n  enabled: true\n  image:\n    tag: \"7.2\"\n",
    );
    site.write(
        "web/templates/deployment.yaml",
        "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: web}\nspec:\n  selector: {matchLabels: {app: web}}\n  template:\n    metadata: {labels: {app: web}}\n    spec:\n      initContainers:\n        - name: wait\n          image: docker.io/library/busybox:1.36\n      containers:\n        - name: web\n          image: \"{{ .Values.image.registry }}/{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}\"\n",
    );
    site.write("web/charts/cache/Chart.yaml", "apiVersion: v2\nname: cache\nversion: 0.1.0\nappVersion: \"7.0\"\n");
    site.write(
        "web/charts/cache/values.yaml",
        "image:\n  registry: docker.io\n  repository: team/cache\n  tag: \"\"\nname: x\n",
    );
    site.write(
        "web/charts/cache/templates/pod.yaml",
        "apiVersion: v1\nkind: Pod\nmetadata: {name: cache}\nspec:\n  containers:\n    - name: cache\n      image: \"{{ .Values.image.registry }}/{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}\"\n",
    );
}

const CHART: [&str; 5] = [
    "web/Chart.yaml:6 quay.io/team/web:3.4 certain",
    "web/charts/cache/values.yaml:2 docker.io/team/cache:7.2 certain",
    "web/templates/deployment.yaml:11 docker.io/library/busybox:1.36 computed",
    "web/values.yaml:4 quay.io/team/web:3.4 certain",
    "skipped: web/templates: 1 Go template",
];

#[test]
fn a_chart_is_read_with_all_that_belongs_to_it() {
    let site = Site::without_keys();
    chart(&site);
    assert_eq!(found(&site, "web"), CHART[..4]);
    let outcome = site.ferry("find web").ok();
    let _ = outcome.says(&[CHART[4], "3 images in 4 places: 3 certain, 1 computed"]);
    assert!(outcome.stdout.contains("`7.2` stands in web/values.yaml:10"), "{}", outcome.stdout);
    // one of its files is read as the chart sees it
    assert_eq!(found(&site, "web/values.yaml"), [CHART[3]]);
    // values that are handed over go first
    site.write("mine.yaml", "image: {tag: \"9\"}\nsessions: {enabled: false}\n");
    let mine = found(&site, "web -f mine.yaml");
    assert!(mine.contains(&"web/values.yaml:4 quay.io/team/web:9 certain".to_owned()), "{mine:?}");
    assert!(mine.contains(&"web/charts/cache/values.yaml:2 docker.io/team/cache:7.2 computed".to_owned()), "{mine:?}");
}

#[test]
fn a_packed_chart_is_read_like_its_folder() {
    require!("helm");
    let site = Site::without_keys();
    chart(&site);
    let packed =
        Command::new(tools::find("helm").unwrap()).current_dir(site.path()).args(["package", "web"]).output().unwrap();
    assert!(packed.status.success(), "{}", String::from_utf8_lossy(&packed.stderr));
    // Helm writes `Chart.yaml` anew, its keys in another order
    let wanted: Vec<String> = CHART[..4]
        .iter()
        .map(|line| line.replacen("web/", "web-1.2.0.tgz/", 1).replace("Chart.yaml:6", "Chart.yaml:2"))
        .collect();
    let mut have = found(&site, "web-1.2.0.tgz");
    have.sort();
    assert_eq!(have, wanted);
    // and as a packed sub-chart of another
    site.write("all/Chart.yaml", "apiVersion: v2\nname: all\nversion: 1.0.0\n");
    site.write("all/values.yaml", "web: {image: {tag: \"5\"}}\n");
    fs::create_dir_all(site.at("all/charts")).unwrap();
    fs::copy(site.at("web-1.2.0.tgz"), site.at("all/charts/web-1.2.0.tgz")).unwrap();
    let all = found(&site, "all");
    assert!(all.contains(&"all/charts/web-1.2.0.tgz/values.yaml:4 quay.io/team/web:5 certain".to_owned()), "{all:?}");
    assert!(
        all.contains(
            &"all/charts/web-1.2.0.tgz/charts/cache/values.yaml:2 docker.io/team/cache:7.2 certain".to_owned()
        )
    );
}

/// `PATH` with the folder of a program that is not there otherwise.
fn path_with(program: &str) -> String {
    let folder = tools::find(program).unwrap().parent().unwrap().display().to_string();
    format!("{folder}:{}", std::env::var("PATH").unwrap())
}

#[test]
fn what_helm_renders_is_merged() {
    require!("helm");
    let site = Site::without_keys();
    chart(&site);
    // its tag is made in the template, which no reading of values can know
    site.write("web/templates/job.yaml", "apiVersion: v1\nkind: Pod\nmetadata: {name: job}\nspec:\n  containers:\n    - name: job\n      image: {{ printf \"quay.io/team/%s:1\" \"job\" }}\n");
    site.write(
        "web/values.yaml",
        site.read("web/values.yaml")
            + "unused: {image: quay.io/team/unused:1}\nhalf: {image: {repository: quay.io/team/half}}\n",
    );
    site.write("web/templates/half.yaml", "apiVersion: v1\nkind: Pod\nmetadata: {name: half}\nspec:\n  containers:\n    - name: half\n      image: {{ .Values.half.image.repository }}:2\n");
    let outcome = site.ferry("find web --render --json").env("PATH", path_with("helm")).ok();
    assert!(!outcome.stderr.contains("`--render` runs Helm"), "{}", outcome.stderr);
    let json = outcome.json();
    let of = |reference: &str| {
        let items: Vec<&Value> = json.as_array().unwrap().iter().filter(|i| i["reference"] == reference).collect();
        assert!(!items.is_empty(), "{reference}: {json:#}");
        items[0].clone()
    };
    assert_eq!(of("quay.io/team/web:3.4")["from"], "both");
    assert_eq!(of("docker.io/team/cache:7.2")["from"], "both");
    let busybox = of("docker.io/library/busybox:1.36");
    assert_eq!((busybox["from"].as_str(), busybox["confidence"].as_str()), (Some("both"), Some("certain")));
    assert_eq!(of("quay.io/team/unused:1")["from"], "source");
    let job = of("quay.io/team/job:1");
    assert_eq!((job["from"].as_str(), job["file"].as_str()), (Some("rendered"), Some("web/templates/job.yaml")));
    assert_eq!(of("quay.io/team/half:2")["from"], "rendered");
    // a chart that Helm refuses: its own words, and what was found all the same
    site.write("web/templates/bad.yaml", "{{ fail \"no such luck\" }}\n");
    let outcome = site.ferry("find web --render").env("PATH", path_with("helm")).run().expect_code(1);
    let _ = outcome.says(&["`helm template` failed", "no such luck"]);
    assert!(outcome.stdout.contains("quay.io/team/web:3.4"), "{}", outcome.stdout);
}

#[test]
fn a_program_that_is_missing_is_named() {
    let site = Site::without_keys();
    chart(&site);
    let outcome = site.ferry("find web --render").env("PATH", "/nowhere").run().expect_code(1);
    let _ = outcome.says(&["`--render` needs `helm`", "hint: install Helm"]);
}

fn kustomization(site: &Site) {
    site.write(
        "base/deploy.yaml",
        "kind: Pod\nspec:\n  containers:\n    - image: nginx:1.14\n    - image: quay.io/team/side:1\n",
    );
    site.write("base/kustomization.yaml", "resources: [deploy.yaml]\n");
    site.write(
        "prod/kustomization.yaml",
        "resources:\n  - ../base\n  - https://example.com/far.yaml\nimages:\n  - {name: nginx, newTag: \"1.27\"}\n  - {name: quay.io/team/side, newName: reg.example.com/side}\n",
    );
}

#[test]
fn a_kustomization_is_followed_and_its_images_count() {
    let site = Site::without_keys();
    kustomization(&site);
    assert_eq!(
        found(&site, "prod/kustomization.yaml"),
        [
            "prod/kustomization.yaml:5 docker.io/library/nginx:1.27 certain",
            "prod/kustomization.yaml:6 reg.example.com/side:1 certain",
            "prod/../base/deploy.yaml:4 docker.io/library/nginx:1.27 certain",
            "prod/../base/deploy.yaml:5 reg.example.com/side:1 certain",
        ]
    );
    let _ = site.ferry("find prod").ok().says(&["`https://example.com/far.yaml` is not a file here"]);
    let _ = site.ferry("find prod --write-manifest k.yaml").ok();
    let written = site.read("k.yaml");
    assert!(written.contains("ignore:\n  - image: docker.io/library/nginx:1.14\n"), "{written}");
}

#[test]
fn what_kustomize_builds_is_merged() {
    require!("kubectl");
    let site = Site::without_keys();
    kustomization(&site);
    let name = "apiVersion: v1\nmetadata: {name: x}\n";
    site.write("base/deploy.yaml", format!("{}{name}", site.read("base/deploy.yaml")));
    site.write(
        "prod/kustomization.yaml",
        site.read("prod/kustomization.yaml").replace("  - https://example.com/far.yaml\n", ""),
    );
    let json = site.ferry("find prod --render --json").env("PATH", path_with("kubectl")).ok().json();
    assert!(json.as_array().unwrap().iter().all(|item| item["from"] == "both"), "{json:#}");
}

#[test]
fn a_compose_file_with_its_env() {
    let site = Site::without_keys();
    site.write(
        "compose.yaml",
        "services:\n  a:\n    image: ${REG:-docker.io}/team/a:${TAG}\n  b:\n    image: ${NOWHERE}/b:1\n",
    );
    assert_eq!(found(&site, "compose.yaml"), ["compose.yaml:3 - unresolvable", "compose.yaml:5 - unresolvable"]);
    site.write(".env", "# c\nTAG=1.5\n");
    let json = site.ferry("find compose.yaml --json").ok().json();
    assert_eq!(lines(&json), ["compose.yaml:3 docker.io/team/a:1.5 computed", "compose.yaml:5 - unresolvable"]);
    assert_eq!(json[0]["reason"], "`TAG` from .env:2");
}

#[test]
fn standard_input_lists_json_and_what_is_skipped() {
    let site = Site::without_keys();
    let stdin = |name: &str| lines(&site.ferry("find - --json").stdin(&site.at(name)).ok().json());
    site.write("a.json", "{\"spec\": {\"image\": \"nginx:1.27\"}}");
    assert_eq!(stdin("a.json"), ["-:1 docker.io/library/nginx:1.27 certain"]);
    site.write("list", "nginx:1.27\n# no\nquay.io/a/b:1\n");
    assert_eq!(stdin("list"), ["-:1 docker.io/library/nginx:1.27 certain", "-:3 quay.io/a/b:1 certain"]);
    // in a folder: lists by their names, nothing of `.git`, and templates and the like are said to be left out
    site.write("d/shop-images.txt", "quay.io/a/list:1\n");
    site.write("d/notes.txt", "quay.io/a/notes:1\n");
    site.write("d/.git/x.yaml", "image: quay.io/a/git:1\n");
    site.write("d/t.yaml", "a: 1\nimage: {{ .Values.x }}\n---\nimage: quay.io/a/second:1\n");
    site.write("d/bad.yaml", [0xff, 0xfe]);
    let outcome = site.ferry("find d --json").ok();
    assert_eq!(
        lines(&outcome.json()),
        ["d/shop-images.txt:1 quay.io/a/list:1 certain", "d/t.yaml:4 quay.io/a/second:1 certain"]
    );
    let _ = outcome.says(&["skipped: d/t.yaml:2: a Go template", "skipped: d/bad.yaml: it is not UTF-8"]);
    // nothing found, and nothing there
    site.write("none.yaml", "a: b\n");
    let none = site.ferry("find none.yaml --json").ok();
    assert_eq!(none.stdout, "[]\n");
    let _ = none.says(&["no image is asked for here"]);
    // what cannot be read hides nothing else
    std::os::unix::fs::symlink("nowhere.yaml", site.at("d/link.yaml")).unwrap();
    let outcome = site.ferry("find d").run().expect_code(6);
    let _ = outcome.says(&["d/link.yaml`", "2 images in 2 places"]);
    assert!(outcome.stdout.contains("quay.io/a/second:1"), "{}", outcome.stdout);
    // no folder is made
    let _ =
        site.ferry("find d/t.yaml --write-manifest new/m.yaml").run().expect_code(6).says(&["cannot write in `new`"]);
    assert!(!site.at("new").exists());
    let _ = site.ferry("find absent.yaml none.yaml").run().expect_code(6).says(&["`absent.yaml`"]);
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    use std::io::Write;
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn packed(members: &[(String, Vec<u8>)]) -> Vec<u8> {
    let mut tar = Vec::new();
    for (name, content) in members {
        let mut header = tar::Header::new_ustar();
        header.as_mut_bytes()[..name.len()].copy_from_slice(name.as_bytes());
        header.set_size(content.len() as u64);
        header.set_entry_type(tar::EntryType::Regular);
        header.set_cksum();
        tar.extend_from_slice(header.as_bytes());
        tar.extend_from_slice(content);
        tar.resize(tar.len().next_multiple_of(512), 0);
    }
    tar.resize(tar.len() + 1024, 0);
    gzip(&tar)
}

#[test]
fn hostile_archives_are_refused_and_write_nothing() {
    let site = Site::without_keys();
    let member = |name: &str, content: &[u8]| (name.to_owned(), content.to_vec());
    let chart = member("c/Chart.yaml", b"name: c\n");
    let many: Vec<_> = (0..10_001).map(|i| member(&format!("c/{i}.yaml"), b"")).collect();
    for (what, members, why) in [
        ("dots", vec![chart.clone(), member("c/../../evil.yaml", b"image: a/b:1")], "leads out of it"),
        ("absolute", vec![chart.clone(), member("/evil.yaml", b"image: a/b:1")], "leads out of it"),
        ("many", many, "more than 10000 files"),
        ("bomb", vec![chart.clone(), member("c/zero.bin", &vec![0; 140 << 20])], "more than 128 MiB"),
    ] {
        let site = Site::without_keys();
        site.write("x/c.tgz", packed(&members));
        let _ = site.ferry("find x/c.tgz").run().expect_code(1).says(&["x/c.tgz", why]);
        assert_eq!(site.names(), ["x/"], "{what}");
        assert_eq!(fs::read_dir(site.at("x")).unwrap().count(), 1, "{what}");
    }
    // in a folder it is left out, with a word
    site.write("d/c.tgz", b"no archive");
    site.write("d/a.yaml", "image: q.io/a:1\n");
    let _ = site.ferry("find d").ok().says(&["skipped: d/c.tgz:"]);
}

#[test]
fn a_bundle_manifest_is_written_that_bundle_takes() {
    require!("docker-registry");
    let registry = Registry::filled(Access::Plain, &[("team/web:3.4", &small(1)), ("team/side:1", &small(2))]);
    let (host, site) = (registry.host(), Site::new());
    site.write("shop/Chart.yaml", "apiVersion: v2\nname: shop\nversion: 1.2.0\nappVersion: \"3.4\"\n");
    site.write(
        "shop/values.yaml",
        format!("image: {{registry: \"{host}\", repository: team/web, tag: \"\"}}\nside: {host}/team/side:1\nsideImage: {host}/team/side:1\nopen: {{image: {{repository: \"\"}}}}\n"),
    );
    site.write("shop/templates/a.yaml", "image: x:{{ .Values.image.tag | default .Chart.AppVersion }}\n");
    let _ = site.ferry(&format!("find shop --write-manifest shop.yaml {FOR}")).ok();
    let written = site.read("shop.yaml");
    for part in [
        "name: shop\nversion: 1.2.0\nplatforms: [linux/amd64]\n",
        &format!("  # shop/values.yaml:1\n  - {host}/team/web:3.4\n"),
        &format!("  - {host}/team/side:1\n"),
        "  #   shop/values.yaml:4 `",
        "yaml:\n  - shop\n",
    ] {
        assert!(written.contains(part), "lacks {part}:\n{written}");
    }
    assert_eq!(written.matches(&format!("- {host}/team/side:1")).count(), 1, "{written}");
    let plan = site.ferry("bundle shop.yaml -o b.tar --dry-run --json").ok().json();
    let images: Vec<&str> =
        plan["images"].as_array().unwrap().iter().map(|i| i["reference"].as_str().unwrap()).collect();
    assert_eq!(images.len(), 2, "{images:?}");
    // never silently over another
    let _ = site.ferry("find shop --write-manifest shop.yaml").run().expect_code(2).says(&["--force"]);
    let _ = site.ferry("find shop --write-manifest shop.yaml --force").ok();
    assert!(site.read("shop.yaml").contains("# platforms: [linux/amd64]"), "{}", site.read("shop.yaml"));
    // the whole crossing: the empty tag stays as it is, the name moves
    let _ = site.ferry(&format!("bundle shop.yaml -o b.tar {FOR} {SIGN}")).ok();
    let _ =
        site.ferry(&format!("install b.tar --store s --registry r.local:5000/m {TRUST} --yaml shop --out ready")).ok();
    let values = site.read("ready/shop/values.yaml");
    assert!(values.starts_with("image: {registry: \"r.local:5000\", repository: m/team/web, tag: \"\"}\n"), "{values}");
    // what the chart asks for and nobody carries is found before anything is fetched
    site.write(
        "bad.yaml",
        format!("name: bad\nplatforms: [linux/amd64]\nimages: [\"{host}/team/side:1\"]\nyaml: [shop]\n"),
    );
    let refused = site.ferry("bundle bad.yaml -o c.tar --dry-run").run().expect_code(4);
    let _ = refused.says(&["shop/values.yaml:1: `", "team/web:3.4` is not carried"]);
    assert!(!Path::new(&site.at("c.tar")).exists());
}
