//! A bundle in other people's hands: skopeo, containerd, docker, podman, and an auditor with coreutils and minisign.

use std::process::Command;

use ferry_tests::cosign::{self, Signer};
use ferry_tests::daemons::{Containerd, Docker};
use ferry_tests::images::docker_save::{Wrap, write_old};
use ferry_tests::images::{Format, Image, Layer, architecture, busybox, digest};
use ferry_tests::registry::{Access, Registry};
use ferry_tests::site::Site;
use ferry_tests::{require, tools};

use crate::{FOR, SIGN, bundled, one, two_platforms};

/// A bundle that mixes OCI, schema 2, an index, a docker-save image, a chart, signatures and an SBOM; the first two run and say who they are.
struct Mixed {
    site: Site,
    source: Registry,
    oci: Image,
    docker: Image,
    index: Image,
}

impl Mixed {
    fn new() -> Self {
        let (oci, docker) = (busybox(Format::Oci, "the OCI one"), busybox(Format::Docker, "the schema 2 one"));
        let native = format!("linux/{}", architecture());
        let other = Image::single("linux/riscv64", Format::Oci, vec![Layer::random(3, 10)]);
        let third = Image::single(&native, Format::Oci, vec![Layer::random(4, 5000)]);
        let index = Image::index(Format::Oci, &[&other, &third]);
        let chart = Image::artifact("application/vnd.cncf.helm.config.v1+json", b"a chart");
        let signed = [(cosign::payload(oci.digest()), "AAAA".to_owned())];
        let signature = cosign::tagged(&signed, "application/vnd.dev.cosign.simplesigning.v1+json");
        let sbom = Image::referrer(&index, "application/spdx+json", b"inside");
        let sbom_list = Image::index(Format::Oci, &[&sbom]);
        let (sig, list) = (cosign::tag(oci.digest(), "sig"), cosign::referrers_tag(index.digest()));
        let (sig, list) = (format!("app/oci:{sig}"), format!("app/index:{list}"));
        let content = [
            ("app/oci:1", &oci),
            ("app/docker:1", &docker),
            ("app/index:1", &index),
            ("app/chart:1", &chart),
            (sig.as_str(), &signature),
            ("app/index", &sbom),
            (list.as_str(), &sbom_list),
        ];
        let source = Registry::filled(Access::Plain, &content);
        let site = Site::new();
        let saved = Image::single(&native, Format::Docker, vec![Layer::mixed(5, 9000, 0.5)]);
        write_old(&site.at("saved.tar"), &[(&["vendor/saved:1"], &saved)], Wrap::Plain);
        let host = source.host();
        site.write(
            "m.yaml",
            format!(
                "name: mixed\nplatforms: [{native}]\nimages:\n\
             - \"{host}/app/oci:1\"\n- \"{host}/app/docker:1\"\n- \"{host}/app/index:1\"\n- \"{host}/app/chart:1\"\n\
             - {{image: \"vendor/saved:1\", archive: saved.tar}}\n"
            ),
        );
        let _ = site.ferry(&format!("bundle m.yaml -o b.tar {SIGN}")).ok();
        let _ = site.ferry(&format!("bundle m.yaml -o v.tar --volume-size 300K {SIGN}")).ok();
        // everybody here reads what was joined from volumes
        join(&site);
        let index_json = tools::succeed("tar", &["xOf", &site.at("b.tar").display().to_string(), "index.json"]);
        for digest in [chart.digest(), signature.digest(), sbom.digest()] {
            assert!(index_json.contains(digest), "{index_json}");
        }
        Self { site, source, oci, docker, index }
    }

    fn name(&self, image: &str) -> String {
        format!("{}/app/{image}:1", self.source.host())
    }

    fn file(&self) -> String {
        self.site.at("b.tar").display().to_string()
    }
}

/// Checks the volumes `v.tar` by their list, and joins them to `b.tar`, which they must be already.
fn join(site: &Site) {
    let script = r"
        set -eu
        test -e v.tar.002
        sha256sum --strict --quiet -c v.tar.sha256
        cat v.tar.[0-9][0-9][0-9] >joined.tar
        cmp joined.tar b.tar
        mv joined.tar b.tar
    ";
    let output = Command::new("sh").args(["-c", script]).current_dir(site.path()).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn skopeo_reads_every_image() {
    require!("docker-registry", "skopeo", "busybox-static");
    let mixed = Mixed::new();
    let raw = |source: &str| digest(tools::succeed("skopeo", &["inspect", "--raw", source]).as_bytes());
    let oci_archive = |name: &str| format!("oci-archive:{}:{name}", mixed.file());
    assert_eq!(raw(&oci_archive(&mixed.name("oci"))), mixed.oci.digest());
    let copy = |from: String, to: &str| {
        tools::succeed("skopeo", &["copy", &from, &format!("dir:{}", mixed.site.at(to).display())]);
    };
    copy(oci_archive(&mixed.name("oci")), "oci");
    copy(oci_archive(&mixed.name("index")), "index");
    copy(oci_archive("docker.io/vendor/saved:1"), "saved");
    // Debian's skopeo takes schema 2 out of an OCI archive by its docker side only
    copy(format!("docker-archive:{}:{}", mixed.file(), mixed.name("docker")), "docker");
    assert!(mixed.site.at("docker/manifest.json").is_file());
    assert!(mixed.index.digest().starts_with("sha256:"));
}

#[test]
fn containerd_imports_and_runs_it() {
    require!("docker-registry", "containerd", "ctr", "root", "busybox-static");
    let mixed = Mixed::new();
    let containerd = Containerd::start();
    containerd.ctr(&["images", "import", "--snapshotter", "native", &mixed.file()]);
    let names = containerd.ctr(&["images", "ls", "-q"]);
    for name in [mixed.name("oci"), mixed.name("docker"), mixed.name("index"), "docker.io/vendor/saved:1".into()] {
        assert!(names.lines().any(|line| line == name), "{name} is not in\n{names}");
    }
    let all = containerd.ctr(&["images", "ls"]);
    assert!(all.contains(mixed.oci.digest()) && all.contains(mixed.docker.digest()), "{all}");
    for (name, greeting) in [("oci", "the OCI one"), ("docker", "the schema 2 one")] {
        let run = ["run", "--rm", "--snapshotter", "native", "--net-host", &mixed.name(name), name];
        assert_eq!(containerd.ctr(&run).trim(), greeting);
    }
}

#[test]
fn docker_loads_and_runs_it() {
    require!("docker-registry", "dockerd", "docker", "root", "busybox-static");
    let mixed = Mixed::new();
    let docker = Docker::start();
    docker.succeed(&["load", "-i", &mixed.file()]);
    for (name, greeting) in [("oci", "the OCI one"), ("docker", "the schema 2 one")] {
        assert_eq!(docker.succeed(&["run", "--rm", "--network", "host", &mixed.name(name)]), greeting);
    }
    docker.succeed(&["image", "inspect", "vendor/saved:1"]);
    docker.succeed(&["image", "inspect", &mixed.name("index")]);
}

#[test]
fn podman_loads_it() {
    require!("docker-registry", "podman", "root", "busybox-static");
    let mixed = Mixed::new();
    let root = mixed.site.at("podman");
    let root = root.to_str().unwrap();
    let run = format!("{root}/run");
    let options = ["--root", root, "--runroot", &run, "--storage-driver", "vfs", "--cgroup-manager", "cgroupfs"];
    let source = format!("oci-archive:{}:{}", mixed.file(), mixed.name("oci"));
    tools::succeed("podman", &[&options[..], &["pull", "--quiet", &source]].concat());
    tools::succeed("podman", &[&options[..], &["load", "--quiet", "--input", &mixed.file()]].concat());
    let images = tools::succeed("podman", &[&options[..], &["images", "--noheading"]].concat());
    assert!(images.contains("app/oci") || images.contains("vendor/saved"), "{images}");
}

/// The audit of the documentation: its own lines.
struct Audit {
    /// The five steps.
    steps: Vec<&'static str>,
    /// How volumes become one file.
    join: &'static str,
    /// In place of the lines of step 2: minisign's signature beside the bundle, and cosign's.
    beside: [&'static str; 2],
}

impl Audit {
    fn documented() -> Self {
        let format = include_str!("../../../docs/format.md");
        let section = format.split("\n## ").find(|section| section.starts_with("By hand\n")).expect("the section");
        let blocks: Vec<&str> =
            section.split("```sh\n").skip(1).map(|rest| rest.split("```").next().unwrap()).collect();
        let [steps, join, minisign, cosign] = blocks.as_slice() else { panic!("{} blocks", blocks.len()) };
        Self { steps: steps.lines().collect(), join, beside: [minisign, cosign] }
    }

    /// All steps, with these lines in place of step 2.
    fn signed(&self, by: &[&str]) -> String {
        let at = self.steps.iter().position(|line| line.starts_with("minisign ")).expect("a signature");
        let (before, after) = (&self.steps[..at - 1], &self.steps[at + 1..]);
        [before, by, after].concat().join("\n")
    }

    /// Whether all lines succeed in a folder with these files, and what they print.
    fn run(script: &str, site: &Site, files: &[&str]) -> (bool, String) {
        let _ = std::fs::remove_dir_all(site.at("audit"));
        for file in files {
            site.write(&format!("audit/{file}"), site.bytes(file));
        }
        let script = format!("set -eu\n{script}");
        let output = Command::new("sh").args(["-c", &script]).current_dir(site.at("audit")).output().unwrap();
        let said = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
        (output.status.success(), said)
    }
}

/// The five steps over `b.tar`; what they print.
fn audit(site: &Site) -> (bool, String) {
    Audit::run(&Audit::documented().steps.join("\n"), site, &["b.tar", "ferry.pub"])
}

#[test]
fn an_auditor_checks_what_is_signed_beside_it_or_by_nobody() {
    require!("docker-registry", "minisign", "sha256sum", "tar", "openssl");
    let (source, _, site) = one();
    let _ = site.ferry(&format!("bundle {}/app/one:1 {FOR} -o b.tar --unsigned", source.host())).ok();
    let audit = Audit::documented();
    let (passed, said) = Audit::run(&audit.signed(&[]), &site, &["b.tar"]);
    assert!(passed, "{said}");
    let (passed, _) = Audit::run(&audit.steps.join("\n"), &site, &["b.tar", "ferry.pub"]);
    assert!(!passed, "there is no signature inside");
    let _ = site.ferry("keygen --name bob --no-password").ok();
    let _ = site.ferry("sign b.tar --sign-key bob.key --out b.tar.LABEL.minisig").ok();
    let signer = Signer::p256();
    for (name, signer) in [("cosign.pub", &signer), ("mallory.pub", &Signer::p256())] {
        site.write(name, std::fs::read(signer.public()).unwrap());
    }
    let sums = tools::succeed("tar", &["xOf", &site.at("b.tar").display().to_string(), "SHA256SUMS"]);
    site.write("b.tar.LABEL.sig", signer.sign(sums.as_bytes()));
    for (line, files) in
        audit.beside.iter().zip([["b.tar.LABEL.minisig", "bob.pub"], ["b.tar.LABEL.sig", "cosign.pub"]])
    {
        let script = audit.signed(&[line]);
        let (passed, said) = Audit::run(&script, &site, &[&["b.tar"], &files[..]].concat());
        assert!(passed, "{said}");
        let other = script.replace("bob.pub", "ferry.pub").replace("cosign.pub", "mallory.pub");
        let (passed, said) = Audit::run(&other, &site, &["b.tar", files[0], "ferry.pub", "mallory.pub"]);
        assert!(!passed, "{said}");
    }
}

#[test]
fn an_auditor_needs_no_ferry() {
    require!("docker-registry", "minisign", "sha256sum", "tar");
    let (_source, _, site) = bundled();
    let (passed, said) = audit(&site);
    assert!(passed, "{said}");
    // an extra file, planted behind everything that is listed
    site.write("planted.txt", "surprise");
    let planted = Command::new("tar").args(["rf", "b.tar", "planted.txt"]).current_dir(site.path()).status().unwrap();
    assert!(planted.success());
    let (passed, said) = audit(&site);
    assert!(!passed && said.contains("> planted.txt"), "{said}");
    let _ = site.ferry("verify b.tar --key ferry.pub").run().expect_code(3);
}

#[test]
fn an_auditor_joins_volumes() {
    require!("docker-registry", "busybox-static", "minisign", "sha256sum", "tar");
    let mixed = Mixed::new();
    let documented = Audit::documented();
    let script = [documented.join, &documented.steps.join("\n")].concat();
    let volumes =
        (1..).map(|number| format!("tar.{number:03}")).take_while(|end| mixed.site.at(&format!("v.{end}")).exists());
    let mut files: Vec<String> = volumes.map(|end| format!("b.{end}")).collect();
    for file in &files {
        mixed.site.write(file, mixed.site.bytes(&file.replacen('b', "v", 1)));
    }
    assert!(files.len() > 1, "{files:?}");
    files.push("ferry.pub".to_owned());
    let files: Vec<&str> = files.iter().map(String::as_str).collect();
    let (passed, said) = Audit::run(&script, &mixed.site, &files);
    assert!(passed, "{said}");
    let at = |name: &str| mixed.site.at(name).display().to_string();
    tools::succeed("minisign", &["-Vm", &at("v.tar.sha256"), "-p", &at("ferry.pub")]);
}

#[test]
fn minisign_and_ferry_take_each_others_keys() {
    require!("docker-registry", "minisign");
    let (source, _, site) = bundled();
    // a key pair made by minisign, without a password
    let at = |name: &str| site.at(name).display().to_string();
    tools::succeed("minisign", &["-G", "-W", "-p", &at("m.pub"), "-s", &at("m.key")]);
    let _ = site
        .ferry(&format!("bundle {}/app/one:1 --platform linux/amd64 -o m.tar --sign-key m.key", source.host()))
        .ok();
    let _ = site.ferry("verify m.tar --key m.pub").ok();
    let told = site.ferry("verify m.tar --key ferry.pub").run().expect_code(3);
    told.says(&["key"]);
}

#[test]
fn a_bundle_of_two_platforms_is_read_too() {
    require!("docker-registry", "skopeo");
    let index = two_platforms(Format::Oci, 1);
    let source = Registry::filled(Access::Plain, &[("app/two:1", &index)]);
    let site = Site::new();
    let name = format!("{}/app/two:1", source.host());
    let _ = site.ferry(&format!("bundle {name} --platform all -o b.tar {SIGN}")).ok();
    let file = site.at("b.tar").display().to_string();
    let to = site.at("out").display().to_string();
    tools::succeed("skopeo", &["copy", "--all", &format!("oci-archive:{file}:{name}"), &format!("dir:{to}")]);
}
