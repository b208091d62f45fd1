//! `ferry rewrite`, and the gate that it shares with `bundle` and `install`.

use std::os::unix::fs::PermissionsExt;

use ferry_tests::images::Format;
use ferry_tests::registry::{Access, Registry};
use ferry_tests::require;
use ferry_tests::site::Site;

use crate::{FOR, SIGN, TRUST, bundled, one, three_platforms, two_platforms};

/// A pod of `image`, of something that is not carried, and of something that only looks like an image.
fn pod(image: &str) -> String {
    format!(
        "\
# a pod
kind: Pod
spec:
  containers:
    - image: {image}
    - image: quay.io/other/thing:2
      args: ['--helper=quay.io/other/helper:3']
"
    )
}

#[test]
fn what_is_not_carried_stops_all_three_before_anything_is_written() {
    require!("docker-registry");
    let (source, _, site) = one();
    let reference = format!("{}/app/one:1", source.host());
    site.write("pod.yaml", pod(&reference));
    let manifest = |more: &str| format!("name: n\nimages: [\"{reference}\"]\nyaml: [pod.yaml]\n{more}");
    site.write("m.yaml", manifest(""));
    let lacking = "pod.yaml:6: `quay.io/other/thing:2` is not carried";

    let mut before = site.names();
    site.ferry(&format!("bundle m.yaml {FOR} -o b.tar {SIGN}")).run().expect_code(4).says(&[lacking, "`ignore:`"]);
    // what was read of registries that count is kept for the next try
    before.insert(0, "b.tar.manifests".to_owned());
    assert_eq!(site.names(), before, "nothing of the bundle");
    let _ = site.ferry(&format!("bundle {reference} {FOR} -o b.tar {SIGN}")).ok();

    let target = Registry::start(Access::Plain);
    let install = format!("install b.tar --registry {} --yaml pod.yaml --out ready {TRUST}", target.host());
    site.ferry(&install).run().expect_code(4).says(&[lacking, "--no-strict"]);
    assert!(target.repositories().is_empty() && !site.at("ready").exists());
    let waved = site.ferry(&format!("{install} --no-strict")).ok();
    waved.says(&[
        "warning: pod.yaml:6: `quay.io/other/thing:2`",
        "warning: pod.yaml:7: `--helper=quay.io/other/helper:3`",
    ]);

    let before = site.names();
    let rewrite = "rewrite pod.yaml --relocation ready/relocation.json";
    for way in ["", "--check", "--diff", "--out over", "--in-place", "--emit relocation --out over"] {
        let told = site.ferry(&format!("{rewrite} {way}")).run().expect_code(4);
        told.says(&[lacking]);
        assert_eq!(told.stdout.is_empty(), way != "--diff", "{way}");
        assert_eq!(site.names(), before, "{way}");
        assert_eq!(site.read("pod.yaml"), pod(&reference), "{way}");
    }
    let waved = site.ferry(&format!("{rewrite} --no-strict")).ok();
    assert_eq!(waved.stdout, site.read("ready/pod.yaml"));

    // left out on purpose, with a reason: on this side, on that one, and in between
    site.write("m.yaml", manifest("ignore:\n  - {image: \"quay.io/other/thing:2\", reason: it is there already}\n"));
    site.ferry(&format!("bundle m.yaml {FOR} -o i.tar {SIGN}")).ok().says(&["warning: pod.yaml:7"]);
    let _ = site.ferry(&format!("install i.tar --registry {} --out ignored {TRUST}", target.host())).ok();
    let _ = site.ferry(&format!("{rewrite} --bundle i.tar {TRUST} --check")).ok();
    let _ = site.ferry(&format!("rewrite --bundle i.tar --registry {} {TRUST} --check", target.host())).ok();
    site.write("m.yaml", manifest("ignore:\n  - {image: \"quay.io/other/thing:2\"}\n"));
    site.ferry(&format!("bundle m.yaml {FOR} -o i.tar {SIGN}")).run().expect_code(1).says(&["reason"]);
}

#[test]
fn what_points_to_the_target_already_is_fine() {
    require!("docker-registry");
    let (_source, _, site) = bundled();
    site.write("there.yaml", "image: reg.local:5000/mirror/app/other:7\n");
    let command = "rewrite there.yaml --bundle b.tar --key ferry.pub --registry";
    let same = site.ferry(&format!("{command} reg.local:5000/mirror")).ok();
    assert_eq!(same.stdout, site.read("there.yaml"));
    site.ferry(&format!("{command} reg.local:5000/else --check")).run().expect_code(4).says(&["there.yaml:1"]);
}

/// Two files that use `app/one`, installed and rewritten below `ready`.
fn installed() -> (Registry, Registry, Site) {
    let (source, _, site) = bundled();
    let reference = format!("{}/app/one:1", source.host());
    site.write("k8s/pod.yaml", format!("kind: Pod   # kept\r\nspec:\r\n  containers: [{{image: '{reference}'}}]\r\n"));
    site.write("k8s/deep/values.yaml", format!("web:\n  image: \"{reference}\"\n"));
    let target = Registry::start(Access::Plain);
    let _ = site.ferry(&format!("install b.tar --registry {}/p --yaml k8s --out ready {TRUST}", target.host())).ok();
    (source, target, site)
}

#[test]
fn it_gives_what_the_install_gave() {
    require!("docker-registry");
    let (_source, target, site) = installed();
    let ready = [site.read("ready/k8s/pod.yaml"), site.read("ready/k8s/deep/values.yaml")];
    let names = ["k8s/pod.yaml", "k8s/deep/values.yaml"];
    let of_bundle = format!("--bundle b.tar --registry {}/p {TRUST}", target.host());
    for (at, whence) in ["--relocation ready/relocation.json", &of_bundle].into_iter().enumerate() {
        // one to standard output, one from standard input, a folder to a folder
        let one = site.ferry(&format!("rewrite k8s/pod.yaml {whence}")).ok();
        assert_eq!(one.stdout, ready[0]);
        let piped = site.ferry(&format!("rewrite - {whence}")).stdin(&site.at("k8s/pod.yaml")).ok();
        assert_eq!((piped.stdout.as_str(), piped.stderr.as_str()), (ready[0].as_str(), ""));
        let _ = site.ferry(&format!("rewrite k8s {whence} --out over{at}")).ok();
        for (name, ready) in names.iter().zip(&ready) {
            assert_eq!(site.read(&format!("over{at}/{name}")), *ready, "{name}");
        }
    }
    // and a second run changes nothing
    let again = site.ferry("rewrite over0/k8s/pod.yaml --relocation ready/relocation.json").ok();
    assert_eq!(again.stdout, ready[0]);

    let diff = site.ferry("rewrite k8s --relocation ready/relocation.json --diff").ok().stdout;
    let patch = site.write("change.patch", &diff);
    assert!(diff.contains("--- a/k8s/pod.yaml") && diff.contains("+++ b/k8s/deep/values.yaml"), "{diff}");
    if ferry_tests::tools::has("git") {
        let folder = site.path().display().to_string();
        let patch = patch.display().to_string();
        ferry_tests::tools::succeed("git", &["-C", &folder, "apply", "--whitespace=nowarn", &patch]);
        assert_eq!(site.read(names[0]), ready[0], "the diff is a patch");
        ferry_tests::tools::succeed("git", &["-C", &folder, "apply", "-R", "--whitespace=nowarn", &patch]);
    }

    let json = site.ferry("rewrite k8s --relocation ready/relocation.json --json --check").ok().json();
    assert_eq!(json["target"], format!("{}/p", target.host()));
    assert_eq!(json["yaml"][1]["changes"][0]["line"], 3, "{json}");
    assert_eq!(json["yaml"][0]["written"], serde_json::Value::Null);
}

#[test]
fn in_place_keeps_links_and_permissions() {
    require!("docker-registry");
    let (_source, _target, site) = installed();
    let real = site.at("k8s/pod.yaml");
    std::fs::set_permissions(&real, PermissionsExt::from_mode(0o600)).unwrap();
    std::os::unix::fs::symlink("k8s/pod.yaml", site.at("link.yaml")).unwrap();
    let done = site.ferry("rewrite link.yaml k8s/deep --relocation ready/relocation.json --in-place").ok();
    done.says(&["link.yaml (1 value changed)"]);
    assert!(site.at("link.yaml").is_symlink());
    assert_eq!(real.metadata().unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(site.read("k8s/pod.yaml"), site.read("ready/k8s/pod.yaml"));
    let again = site.ferry("rewrite k8s --relocation ready/relocation.json --in-place").ok();
    again.says(&["k8s/pod.yaml (nothing to change)"]);
    assert!(!site.at("ferry-out").exists());
    // a link out of the folder that was named is not followed, and nothing is written
    let before =
        site.read("k8s/deep/values.yaml").replace(&format!("{}/p/", _target.host()), &format!("{}/", _source.host()));
    site.write("elsewhere.yaml", &before);
    site.write("k8s/deep/values.yaml", &before);
    std::os::unix::fs::symlink("../elsewhere.yaml", site.at("k8s/x.yaml")).unwrap();
    let refused = site.ferry("rewrite k8s --relocation ready/relocation.json --in-place").run().expect_code(7);
    refused.says(&["k8s/x.yaml", "outside of what was named"]);
    assert_eq!((site.read("elsewhere.yaml"), site.read("k8s/deep/values.yaml")), (before.clone(), before));
}

#[test]
fn a_list_for_other_programs() {
    require!("docker-registry");
    let (source, target, site) = installed();
    let list = site.ferry("rewrite --relocation ready/relocation.json --print0").ok().stdout;
    assert_eq!(list, format!("{}/app/one:1\0{}/p/app/one:1\0", source.host(), target.host()));
}

#[test]
fn digests_that_a_bundle_cannot_tell_are_refused() {
    require!("docker-registry");
    let (partial, whole) = (three_platforms(Format::Oci, 1), two_platforms(Format::Oci, 50));
    let source = Registry::filled(Access::Plain, &[("app/x:1", &partial), ("app/y:1", &whole)]);
    let site = Site::new();
    let name = |path: &str, digest: &str| format!("{}/{path}@{digest}", source.host());
    let (x, y) = (name("app/x", partial.digest()), name("app/y", whole.digest()));
    let images = format!("{}/app/x:1 {}/app/y:1", source.host(), source.host());
    let both = "--platform linux/amd64 --platform linux/arm64/v8";
    let _ = site.ferry(&format!("bundle {images} {both} -o b.tar {SIGN}")).ok();
    site.write("x.yaml", format!("image: {x}\n"));
    site.write("y.yaml", format!("image: {y}\n"));
    site.write("tag.yaml", format!("image: {}/app/x:1\n", source.host()));
    let target = Registry::start(Access::Plain);
    let of_bundle = format!("--bundle b.tar --registry {} {TRUST}", target.host());

    // all platforms of one are carried: it stands there as it was, whatever was chosen
    let _ = site.ferry(&format!("rewrite y.yaml tag.yaml {of_bundle} --check")).ok();
    let told = site.ferry(&format!("rewrite x.yaml {of_bundle} --check")).run().expect_code(4);
    told.says(&[
        "x.yaml:1",
        "is carried but cannot be rewritten",
        "cannot be told from the bundle alone",
        "relocation.json",
    ]);
    // an install knows
    let install = format!("install b.tar --registry {} --index filtered {TRUST}", target.host());
    let _ = site.ferry(&format!("{install} --yaml x.yaml --out ready")).ok();
    let expected = site.read("ready/x.yaml");
    assert!(!expected.contains(partial.digest()), "{expected}");
    let rewritten = |more: &str| site.ferry(&format!("rewrite x.yaml {more}")).ok().stdout;
    assert_eq!(rewritten("--relocation ready/relocation.json"), expected);
    assert_eq!(rewritten(&format!("{of_bundle} --index filtered")), expected);
}

#[test]
fn rules_of_the_bundle_hold() {
    require!("docker-registry");
    let (source, _, site) = one();
    let reference = format!("{}/app/one:1", source.host());
    let rules =
        "set:\n  - {file: app.yaml, path: web.csi.image, image: REF}\n".replace("REF", &format!("\"{reference}\""));
    site.write("m.yaml", format!("name: n\nimages: [\"{reference}\"]\n{rules}"));
    let _ = site.ferry(&format!("bundle m.yaml {FOR} -o b.tar {SIGN}")).ok();
    site.write("app.yaml", "web:\n  replicas: 1\n");
    let of_bundle = format!("--bundle b.tar --registry reg.local/p {TRUST}");
    let added = site.ferry(&format!("rewrite app.yaml {of_bundle}")).ok().stdout;
    assert_eq!(added, "web:\n  replicas: 1\n  csi:\n    image: reg.local/p/app/one:1\n");
    let _ = site.ferry(&format!("rewrite app.yaml {of_bundle} --emit helm-values,hosts-toml --out ready")).ok();
    let over = site.read("ready/helm-values/app.yaml");
    assert!(over.ends_with("\nweb:\n  csi:\n    image: reg.local/p/app/one:1\n"), "{over}");
    let hosts = site.read(&format!("ready/hosts-toml/{}/hosts.toml", source.host()));
    assert!(hosts.contains("[host.\"https://reg.local/v2/p\"]"), "{hosts}");
}

#[test]
fn what_makes_no_sense_is_said() {
    let site = Site::new();
    site.write("a.yaml", "a: 1\n");
    site.write("r.json", "{\"version\": 2, \"target\": \"reg.local\", \"images\": []}\n");
    for (arguments, code, word) in [
        ("rewrite a.yaml", 2, "--relocation"),
        ("rewrite a.yaml --bundle b.tar --key ferry.pub", 6, "b.tar"),
        ("rewrite a.yaml --bundle b.tar --registry reg.local", 2, "no public key"),
        ("rewrite --relocation r.json", 2, "nothing to rewrite"),
        ("rewrite --relocation r.json --in-place", 2, "in place"),
        ("rewrite - a.yaml --relocation r.json", 2, "together with others"),
        ("rewrite a.yaml --relocation r.json", 1, "its version is 2"),
        ("rewrite a.yaml --relocation none.json", 6, "none.json"),
        ("rewrite a.yaml --relocation r.json --registry reg.local", 2, "--registry"),
        ("rewrite a.yaml --relocation r.json --check --diff", 2, "--diff"),
    ] {
        site.ferry(arguments).run().expect_code(code).says(&[word]);
    }
}
