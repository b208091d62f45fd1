//! The forms of a relocation, each taken by who it is for, or held against its documented schema where that cannot run here.
//!
//! The images are called by names of hosts that cannot be reached: whoever pulls one has been redirected.

use std::collections::BTreeMap;

use ferry_tests::daemons::Containerd;
use ferry_tests::images::Image;
use ferry_tests::registry::{Access, Registry};
use ferry_tests::site::Site;
use ferry_tests::{require, tools};
use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::{SIGN, TRUST, small};

/// What `crossing` carries: two tags of one name, one pinned by digest, one of another host, one renamed.
struct Crossing {
    site: Site,
    pinned: String,
    images: Vec<Image>,
}

fn crossing() -> Crossing {
    let images: Vec<Image> = (0..5).map(|at| small(700 + at)).collect();
    let names = ["library/web:1.0", "library/web:1.1", "team/app:v1", "team/csi:v2", "team/renamed:v1"];
    let public = Registry::filled(Access::Plain, &names.into_iter().zip(&images).collect::<Vec<_>>());
    let site = Site::new();
    let pinned = format!("docker.io/team/app@{}", images[2].digest());
    let host = public.host();
    let manifest = format!(
        "\
name: shop
platforms: [linux/amd64]
mirrors:
  docker.io: [{host}]
  quay.invalid: [{host}]
images:
  - web:1.0
  - docker.io/library/web:1.1
  - {pinned}
  - quay.invalid/team/csi:v2
  - image: docker.io/team/renamed:v1
    as: elsewhere/new
"
    );
    site.write("shop.yaml", manifest);
    let _ = site.ferry(&format!("bundle shop.yaml -o b.tar {SIGN}")).ok();
    Crossing { site, pinned, images }
}

impl Crossing {
    /// Installs under a prefix and emits; what was said is returned.
    fn install(&self, target: &Registry, forms: &str, more: &str) -> String {
        let host = target.host();
        let install = format!("install b.tar --registry {host}/mirror {TRUST} --emit {forms} --out ready {more}");
        self.site.ferry(&install).ok().stderr
    }

    fn path(&self, name: &str) -> String {
        self.site.at(name).display().to_string()
    }
}

#[test]
fn containerd_pulls_the_original_names_from_the_target() {
    require!("docker-registry", "containerd", "ctr", "root");
    for access in [Access::Plain, Access::Tls] {
        let crossing = crossing();
        let target = Registry::start(access);
        let more = match access {
            Access::Tls => format!("--ca-file {}", target.certificate().trusted.display()),
            _ => String::new(),
        };
        let said = crossing.install(&target, "hosts-toml", &more);
        assert!(said.contains("hosts-toml leaves out docker.io/team/renamed:v1: it went to"), "{said}");
        let hosts = crossing.path("ready/hosts-toml");
        let containerd = Containerd::start();
        for name in
            ["docker.io/library/web:1.0", "docker.io/library/web:1.1", &crossing.pinned, "quay.invalid/team/csi:v2"]
        {
            containerd.ctr(&["images", "pull", "--hosts-dir", &hosts, "--snapshotter", "native", name]);
        }
        let names = containerd.ctr(&["images", "ls"]);
        for (name, image) in [("library/web:1.0", 0), ("library/web:1.1", 1), ("team/app@", 2), ("team/csi:v2", 3)] {
            let line = names.lines().find(|line| line.contains(name)).expect(name);
            assert!(line.contains(crossing.images[image].digest()), "{line}");
        }
    }
}

#[test]
fn skopeo_finds_the_original_names_at_the_target() {
    require!("docker-registry", "skopeo");
    let crossing = crossing();
    let target = Registry::start(Access::Plain);
    let said = crossing.install(&target, "registries-conf", "");
    assert!(!said.contains("leaves out"), "a mirror for each repository can rename: {said}");
    let conf = crossing.path("ready/registries-conf/registries.conf");
    let pinned = crossing.pinned.as_str();
    for (at, name) in ["web:1.0", "docker.io/library/web:1.1", pinned, "quay.invalid/team/csi:v2", "team/renamed:v1"]
        .into_iter()
        .enumerate()
    {
        let (name, copy) = (format!("docker://{name}"), format!("dir:{}", crossing.path(&format!("copy{at}"))));
        let shown = tools::succeed("skopeo", &["--registries-conf", &conf, "inspect", "--no-tags", &name]);
        tools::succeed("skopeo", &["--registries-conf", &conf, "copy", &name, &copy]);
        let shown: serde_json::Value = serde_json::from_str(&shown).unwrap();
        assert_eq!(shown["Digest"], crossing.images[at].digest(), "{name}");
    }
}

/// What k3s documents of `registries.yaml`, and nothing else.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Registries {
    mirrors: BTreeMap<String, Mirror>,
    #[serde(default)]
    configs: BTreeMap<String, Config>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Mirror {
    endpoint: Vec<String>,
    #[serde(default)]
    rewrite: BTreeMap<String, String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Config {
    tls: Tls,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Tls {
    ca_file: String,
}

fn yaml<T: DeserializeOwned>(site: &Site, name: &str) -> T {
    let text = site.read(name);
    serde_saphyr::from_str(&text).unwrap_or_else(|e| panic!("{name}: {e}\n{text}"))
}

#[test]
fn registries_yaml_sends_every_repository_where_it_went() {
    require!("docker-registry");
    let crossing = crossing();
    let target = Registry::start(Access::Tls);
    let ca = target.certificate().trusted.display().to_string();
    let said = crossing.install(&target, "registries-yaml", &format!("--ca-file {ca}"));
    assert!(!said.contains("leaves out"), "{said}");
    let registries: Registries = yaml(&crossing.site, "ready/registries-yaml/registries.yaml");
    assert_eq!(registries.mirrors.keys().collect::<Vec<_>>(), ["docker.io", "quay.invalid"]);
    assert_eq!(registries.configs[&target.host()].tls.ca_file, "/etc/rancher/ferry-ca.crt");
    assert_eq!(crossing.site.read("ready/registries-yaml/ferry-ca.crt"), std::fs::read_to_string(ca).unwrap());
    let relocation: serde_json::Value = serde_json::from_str(&crossing.site.read("ready/relocation.json")).unwrap();
    for image in relocation["images"].as_array().unwrap() {
        let reference = image["reference"].as_str().unwrap();
        let (host, rest) = reference.split_once('/').unwrap();
        let path = rest.split(['@', ':']).next().unwrap();
        let mirror = &registries.mirrors[host];
        assert_eq!(mirror.endpoint, [format!("https://{}", target.host())]);
        // the order of several expressions is not fixed: just one may fit
        let expression = |text: &str| regex::Regex::new(text).unwrap();
        let fits: Vec<_> = mirror.rewrite.iter().filter(|(from, _)| expression(from).is_match(path)).collect();
        assert_eq!(fits.len(), 1, "{reference}: {fits:?}");
        let there = expression(fits[0].0).replace(path, fits[0].1.as_str());
        assert_eq!(format!("{}/{there}", target.host()), image["repository"].as_str().unwrap());
        assert!(!mirror.rewrite.keys().any(|from| expression(from).is_match(&format!("{path}x"))), "anchored");
    }
}

/// What OpenShift's API documents of the two kinds, and nothing else.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct MirrorSet {
    api_version: String,
    kind: String,
    metadata: BTreeMap<String, String>,
    spec: Spec,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Spec {
    #[serde(default)]
    image_digest_mirrors: Vec<Mirrors>,
    #[serde(default)]
    image_tag_mirrors: Vec<Mirrors>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Mirrors {
    source: String,
    mirrors: Vec<String>,
}

#[test]
fn openshift_gets_one_kind_for_digests_and_one_for_tags() {
    require!("docker-registry");
    let crossing = crossing();
    let target = Registry::start(Access::Plain);
    let said = crossing.install(&target, "idms,itms", "");
    assert!(said.contains("idms leaves out quay.invalid/team/csi:v2: named by tag"), "{said}");
    assert!(said.contains(&format!("itms leaves out {}: pinned by digest", crossing.pinned)), "{said}");
    let idms: MirrorSet = yaml(&crossing.site, "ready/idms/idms.yaml");
    let itms: MirrorSet = yaml(&crossing.site, "ready/itms/itms.yaml");
    // the pattern that the API sets for both fields: no scheme, no tag, no digest
    let name = regex::Regex::new(r"^[a-zA-Z0-9.-]+(:[0-9]+)?(/[a-z0-9]+([._-]+[a-z0-9]+)*)*$").unwrap();
    let pairs = |mirrors: &[Mirrors]| -> Vec<(String, String)> {
        for text in mirrors.iter().flat_map(|m| m.mirrors.iter().chain([&m.source])) {
            assert!(name.is_match(text), "{text}");
        }
        mirrors.iter().map(|m| (m.source.clone(), m.mirrors.join(" "))).collect()
    };
    let at = |path: &str| format!("{}/mirror/{path}", target.host());
    for (set, kind) in [(&idms, "ImageDigestMirrorSet"), (&itms, "ImageTagMirrorSet")] {
        assert_eq!((set.api_version.as_str(), set.kind.as_str()), ("config.openshift.io/v1", kind));
        assert_eq!(set.metadata["name"], "ferry");
    }
    assert!(idms.spec.image_tag_mirrors.is_empty() && itms.spec.image_digest_mirrors.is_empty());
    let by_digest = pairs(&idms.spec.image_digest_mirrors);
    assert!(by_digest.contains(&("docker.io/team/app".to_owned(), at("team/app"))), "{by_digest:?}");
    let expected = [
        ("docker.io/library/web".to_owned(), at("library/web")),
        ("docker.io/team/renamed".to_owned(), at("elsewhere/new")),
        ("quay.invalid/team/csi".to_owned(), at("team/csi")),
    ];
    assert_eq!(pairs(&itms.spec.image_tag_mirrors), expected);
}

#[test]
fn kustomize_gives_what_rewriting_gives() {
    require!("docker-registry", "kubectl");
    let crossing = crossing();
    let target = Registry::start(Access::Plain);
    let pod = format!(
        "\
apiVersion: v1
kind: Pod
metadata: {{name: shop}}
spec:
  initContainers:
    - {{name: a, image: web:1.0}}
    - {{name: b, image: docker.io/library/web:1.1}}
  containers:
    - {{name: c, image: {}}}
    - {{name: d, image: quay.invalid/team/csi:v2}}
    - {{name: e, image: team/renamed:v1}}
    - {{name: f, image: docker.io/web:1.1}}
",
        crossing.pinned
    );
    crossing.site.write("pod.yaml", pod);
    let said = crossing.install(&target, "kustomize", "--yaml pod.yaml");
    assert!(!said.contains("leaves out"), "{said}");
    crossing.site.write("kustomization.yaml", "resources: [pod.yaml]\ncomponents: [ready/kustomize]\n");
    let built = tools::succeed("kubectl", &["kustomize", &crossing.path("")]);
    let images = |text: &str| -> Vec<String> {
        let text = text.replace('}', "");
        let mut images: Vec<String> =
            text.split("image: ").skip(1).map(|rest| rest.split_whitespace().next().unwrap().to_owned()).collect();
        images.sort();
        images
    };
    let rewritten = crossing.site.read("ready/pod.yaml");
    assert_eq!(images(&rewritten).len(), 6);
    assert_eq!(images(&built), images(&rewritten));
}

const VALUES: &str = "\
# what this site wants
replicas: 2
web:
  image:
    registry: docker.io   # hub
    repository: library/web
    tag: '1.0'
    pullPolicy: Always
csi: {image: \"quay.invalid/team/csi:v2\"}
extraContainers:
  - name: one
    image: web:1.1
    weight: 1.50
    enabled: 'yes'
  - {name: two, args: [\"a b\", 8], none: null}
";

/// Prints its values, and refuses images from elsewhere unless it is told to take them.
const TEMPLATE: &str = "\
{{- $security := default dict (default dict .Values.global).security }}
{{- if and (ne .Values.web.image.registry \"docker.io\") (not $security.allowInsecureImages) }}
{{- fail \"unrecognized images; set global.security.allowInsecureImages\" }}
{{- end }}
image: {{ .Values.web.image.registry }}/{{ .Values.web.image.repository }}:{{ .Values.web.image.tag }}
values: {{ omit .Values \"global\" | toJson }}
";

#[test]
fn helm_renders_the_same_from_the_override_as_from_the_rewritten_values() {
    require!("docker-registry", "helm");
    let crossing = crossing();
    let site = &crossing.site;
    site.write("chart/Chart.yaml", "apiVersion: v2\nname: shop\nversion: 1.0.0\n");
    // the chart has other defaults for what the values name in pieces
    let defaults = "replicas: 1\nglobal: {security: {allowInsecureImages: false}}\nweb: {image: {registry: docker.io, repository: \
                    library/web, tag: '0.9', digest: ''}}\n";
    site.write("chart/values.yaml", defaults);
    site.write("chart/templates/all.yaml", TEMPLATE);
    site.write("values.yaml", format!("{VALUES}global: {{security: {{allowInsecureImages: false}}}}\n"));
    let target = Registry::start(Access::Plain);
    let _ = crossing.install(&target, "helm-values", "--yaml values.yaml");
    let over = site.read("ready/helm-values/values.yaml");
    assert!(!over.contains("replicas") && !over.contains("pullPolicy"), "only what changed: {over}");
    let chart = crossing.path("chart");
    let template = |files: &[&str], more: &[&str]| {
        let files: Vec<String> = files.iter().map(|file| crossing.path(file)).collect();
        let files = files.iter().flat_map(|file| ["-f", file]);
        let arguments: Vec<&str> =
            ["template", "shop", &chart].into_iter().chain(files).chain(more.iter().copied()).collect();
        tools::run("helm", &arguments)
    };
    let rendered = |output: std::process::Output| {
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    let allowed = ["--set", "global.security.allowInsecureImages=true"];
    let rewritten = rendered(template(&["ready/values.yaml"], &allowed));
    assert!(rewritten.contains(&format!("image: {}/mirror/library/web:1.0", target.host())), "{rewritten}");
    assert_eq!(rendered(template(&["values.yaml", "ready/helm-values/values.yaml"], &[])), rewritten);
    // as the chart ships it, the rewritten file alone is refused
    assert!(!template(&["ready/values.yaml"], &[]).status.success());
}

#[test]
fn helm_renders_a_chart_with_sub_charts_as_it_renders_the_rewritten_chart() {
    require!("docker-registry", "helm");
    let crossing = crossing();
    let site = &crossing.site;
    let dependencies = "dependencies:\n  - {name: cache, alias: hot, version: 1.0.0}\n  - {name: cache, alias: cold, version: 1.0.0}\n";
    site.write(
        "shop/Chart.yaml",
        format!("apiVersion: v2\nname: shop\nversion: 1.0.0\nappVersion: v1\n{dependencies}"),
    );
    site.write("shop/values.yaml", "image: {repository: team/renamed, tag: ''}\nhot: {image: {tag: '1.1'}}\n");
    site.write("shop/charts/cache/Chart.yaml", "apiVersion: v2\nname: cache\nversion: 1.0.0\nappVersion: '1.0'\n");
    site.write("shop/charts/cache/values.yaml", "image: {registry: docker.io, repository: library/web, tag: ''}\n");
    let template = |image: &str| {
        format!(
            "image: \"{image}{{{{ .Values.image.repository }}}}:{{{{ .Values.image.tag | default .Chart.AppVersion }}}}\"\n"
        )
    };
    site.write("shop/templates/all.yaml", template(""));
    site.write("shop/charts/cache/templates/all.yaml", template("{{ .Values.image.registry }}/"));
    let target = Registry::start(Access::Plain);
    let said = crossing.install(&target, "helm-values", "--yaml shop --no-strict");
    let rendered = |chart: &str, more: &[&str]| {
        let chart = crossing.path(chart);
        tools::succeed(
            "helm",
            &["template", "shop", &chart].into_iter().chain(more.iter().copied()).collect::<Vec<_>>(),
        )
    };
    // the output folder has the YAML alone; the helpers of a chart are its own
    let over = crossing.path("ready/helm-values/shop/values.yaml");
    let over = rendered("shop", &["-f", &over]);
    assert_eq!(over, rendered("ready/shop", &[]), "{said}");
    for image in ["library/web:1.0", "library/web:1.1", "elsewhere/new:v1"] {
        assert!(over.contains(&format!("{}/mirror/{image}", target.host())), "{over}");
    }
}

#[test]
fn a_kustomization_and_what_it_uses_are_not_rewritten_apart_in_silence() {
    require!("docker-registry", "kubectl");
    let crossing = crossing();
    let site = &crossing.site;
    let pod = "apiVersion: v1\nkind: Pod\nmetadata: {name: shop}\nspec:\n  containers:\n    - {name: a, image: \"web:1.0\"}\n";
    site.write("k/base/pod.yaml", pod);
    site.write("k/base/kustomization.yaml", "resources: [pod.yaml]\n");
    site.write("k/over/kustomization.yaml", "resources: [../base]\nimages: [{name: web, newTag: '1.1'}]\n");
    let target = Registry::start(Access::Plain);
    let _ = crossing.install(&target, "relocation", "");
    let rewrite = |more: &str| site.ferry(&format!("rewrite {more} --relocation ready/relocation.json --in-place"));
    let told = rewrite("k").run().expect_code(4);
    told.says(&[
        "k/base/pod.yaml:6: `web` becomes another name here",
        "k/over/kustomization.yaml:2",
        "--emit kustomize",
    ]);
    assert_eq!(site.read("k/base/pod.yaml"), pod);
    // what is advised gives the image that was meant
    let _ = rewrite("k/over/kustomization.yaml").ok();
    let built = tools::succeed("kubectl", &["kustomize", &crossing.path("k/over")]);
    assert!(built.contains(&format!("image: {}/mirror/library/web:1.1", target.host())), "{built}");
}

#[test]
fn a_form_that_can_say_nothing_stops_the_install_before_anything_is_pushed() {
    require!("docker-registry");
    let crossing = crossing();
    let target = Registry::start(Access::Plain);
    let install = format!("install b.tar --registry {} {TRUST} --emit helm-values,kustomize", target.host());
    let told = crossing.site.ferry(&install).run().expect_code(1);
    told.says(&["`helm-values` cannot express any of the images", "no values that were given name it", "docs/emit.md"]);
    assert!(target.repositories().is_empty() && !crossing.site.at("ferry-out").exists());
}

#[test]
fn what_would_be_emitted_is_told_before() {
    require!("docker-registry");
    let crossing = crossing();
    let target = Registry::start(Access::Plain);
    let install = format!("install b.tar --registry {}/mirror {TRUST} --emit hosts-toml,relocation", target.host());
    let plan = crossing.site.ferry(&format!("{install} --dry-run --json")).ok().json();
    let forms = &plan["emitted"];
    assert_eq!(forms[0]["form"], "hosts-toml");
    assert_eq!(forms[0]["files"].as_array().unwrap().len(), 2, "{forms}");
    assert_eq!(forms[0]["leftOut"][0]["image"], "docker.io/team/renamed:v1");
    assert!(!crossing.site.at("ferry-out").exists());
    let done = crossing.site.ferry(&format!("{install} --json")).ok().json();
    assert_eq!(done["emitted"], plan["emitted"]);
    for file in done["emitted"][0]["files"].as_array().unwrap() {
        assert!(crossing.site.at(file.as_str().unwrap()).is_file(), "{file}");
    }
}
