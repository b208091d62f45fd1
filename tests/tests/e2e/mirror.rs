//! `ferry serve` as the mirror of a site: engines as they are, told what it prints, pull the original names; and what it does when the disk
//! that it serves from is not what it was.
//!
//! The images are called by names of hosts that cannot be reached: whoever pulls one was served here.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::os::unix::fs::FileExt as _;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use ferry_tests::daemons::{Containerd, Docker};
use ferry_tests::ferry::Running;
use ferry_tests::http::Endpoint;
use ferry_tests::images::{Format, Image, Layer, architecture, busybox};
use ferry_tests::registry::push;
use ferry_tests::site::Site;
use ferry_tests::{require, tools};

use crate::{SIGN, TRUST};

const HUB: &str = "docker.io/library/hello:1";
const QUAY: &str = "quay.invalid/team/hello:2";
const USER: &str = "carrier";
const PASSWORD: &str = "over-the-gap";

/// Two bundles, the second in volumes: an image of docker.io, and one of another host that has another name at a target.
struct Disk {
    site: Site,
}

impl Disk {
    fn new() -> Self {
        let (hub, quay) = (busybox(Format::Oci, "hello from the hub"), busybox(Format::Docker, "hello from quay"));
        let site = Site::new();
        let (public, _public) = site.serve("--store public");
        push(&Endpoint::plain(&public), "library/hello:1", &hub);
        push(&Endpoint::plain(&public), "team/hello:2", &quay);
        let head = |name: &str| {
            format!(
                "name: {name}\nplatforms: [linux/{}]\nmirrors: {{docker.io: [\"{public}\"], quay.invalid: [\"{public}\"]}}\n",
                architecture()
            )
        };
        site.write("hub.yaml", head("hub") + "images: [\"hello:1\"]\n");
        let quay = format!("images:\n  - {{image: \"{QUAY}\", as: \"elsewhere/renamed\"}}\n");
        site.write("quay.yaml", head("quay") + &quay);
        let _ = site.ferry(&format!("bundle hub.yaml -o hub.tar {SIGN}")).ok();
        let _ = site.ferry(&format!("bundle quay.yaml -o quay.tar --volume-size 300K {SIGN}")).ok();
        assert!(site.at("quay.tar.002").exists());
        Self { site }
    }

    fn path(&self, name: &str) -> String {
        self.site.at(name).display().to_string()
    }

    /// An htpasswd file, as htpasswd makes it.
    fn users(&self) -> &'static str {
        self.site.write("users", tools::succeed("htpasswd", &["-Bbn", USER, PASSWORD]));
        "--htpasswd users"
    }
}

/// Runs what was printed for a node, with another folder for `/etc/containerd`; the folder of hosts.
fn paste(disk: &Disk, said: &str) -> PathBuf {
    let lines = said.split("original names:\n\n").nth(1).and_then(|rest| rest.split("\n\n").next()).expect("lines");
    let etc = disk.site.at("etc");
    let _ = std::fs::remove_dir_all(&etc);
    let lines = lines.replace("/etc/containerd", &etc.display().to_string());
    let output = Command::new("sh").args(["-euc", &lines]).output().unwrap();
    assert!(output.status.success(), "{lines}\n{}", String::from_utf8_lossy(&output.stderr));
    etc.join("certs.d")
}

#[test]
fn containerd_pulls_and_runs_the_original_names_by_the_lines_that_are_printed() {
    require!("containerd", "ctr", "root", "busybox-static", "htpasswd");
    let disk = Disk::new();
    let users = disk.users();
    let containerd = Containerd::start();
    for (at, options) in ["", "--tls auto --tls-dir tls", users].into_iter().enumerate() {
        let (host, _serving, said) = disk.site.serve_and_hear(&format!("hub.tar quay.tar {TRUST} {options}"));
        assert!(said.contains("serving 2 images (read-only) at http"), "{said}");
        let hosts = paste(&disk, &said);
        if options == users {
            let authorization = ferry_tests::http::base64(format!("{USER}:{PASSWORD}"));
            for host_of in ["docker.io", "quay.invalid"] {
                let file = File::options().append(true).open(hosts.join(host_of).join("hosts.toml"));
                let header = format!("[host.\"http://{host}\".header]\n  Authorization = \"Basic {authorization}\"\n");
                file.unwrap().write_all(header.as_bytes()).unwrap();
            }
        }
        let hosts = hosts.display().to_string();
        for (name, greeting) in [(HUB, "hello from the hub"), (QUAY, "hello from quay")] {
            containerd.ctr(&["images", "pull", "--hosts-dir", &hosts, "--snapshotter", "native", name]);
            let id = format!("run{at}-{}", name.len());
            let run = containerd.ctr(&["run", "--rm", "--snapshotter", "native", "--net-host", name, &id]);
            assert_eq!(run.trim(), greeting);
            containerd.ctr(&["images", "rm", "--sync", name]);
        }
        let absent = ["images", "pull", "--hosts-dir", &hosts, "docker.io/team/hello:2"];
        assert!(!containerd.run(&absent).status.success(), "another host's image of that path is not docker.io's");
    }

    // a store does not know which hosts there are: all are sent to it
    let _ = disk.site.ferry(&format!("install hub.tar --store shelf --layout host {TRUST}")).ok();
    let (_, _serving, said) = disk.site.serve_and_hear("--store shelf");
    let hosts = paste(&disk, &said);
    assert!(hosts.join("_default/hosts.toml").is_file());
    containerd.ctr(&["images", "pull", "--hosts-dir", &hosts.display().to_string(), "--snapshotter", "native", HUB]);
    let (_, _serving, said) = disk.site.serve_and_hear("--store shelf --emit nodes");
    assert!(!said.contains("leaves out"), "{said}");
    assert!(disk.site.read("nodes/registries-conf/registries.conf").contains("prefix = \"docker.io/library/hello\""));
}

#[test]
fn docker_pulls_pushes_and_runs() {
    require!("dockerd", "docker", "root", "busybox-static", "htpasswd");
    let disk = Disk::new();
    let (host, _serving, said) = disk.site.serve_and_hear(&format!("hub.tar quay.tar {TRUST} --emit nodes"));
    assert!(said.contains("nodes/daemon-json/daemon.json"), "{said}");
    assert!(said.contains(&format!("daemon-json leaves out {QUAY}: docker has mirrors for docker.io only")), "{said}");
    let (store, _store) = disk.site.serve(&format!("--store shelf {}", disk.users()));
    let (open, _open) = disk.site.serve("--store open --htpasswd users --anonymous-read");
    let mut config: serde_json::Value = serde_json::from_str(&disk.site.read("nodes/daemon-json/daemon.json")).unwrap();
    assert_eq!(config["registry-mirrors"], serde_json::json!([format!("http://{host}")]));
    assert_eq!(config["insecure-registries"], serde_json::json!([host]));
    config["insecure-registries"].as_array_mut().unwrap().extend([store.clone().into(), open.clone().into()]);
    let docker = Docker::with(config);
    let run = |name: &str| docker.succeed(&["run", "--rm", "--network", "host", name]);
    docker.succeed(&["pull", "hello:1"]);
    assert_eq!(run("hello:1"), "hello from the hub");
    // of other hosts there are no mirrors, but names here
    let direct = format!("{host}/elsewhere/renamed:2");
    docker.succeed(&["pull", &direct]);
    assert_eq!(run(&direct), "hello from quay");

    for (registry, guests_read) in [(&store, false), (&open, true)] {
        let name = format!("{registry}/team/pushed:1");
        docker.succeed(&["tag", "hello:1", &name]);
        assert!(!docker.docker(&["push", &name]).status.success(), "a push takes a login");
        let login = |password: &str| {
            docker.docker(&["login", "--username", USER, "--password", password, registry]).status.success()
        };
        assert!(!login("wrong") && login(PASSWORD), "{registry}");
        docker.succeed(&["push", &name]);
        docker.succeed(&["rmi", &name]);
        docker.succeed(&["pull", &name]);
        docker.succeed(&["rmi", &name]);
        docker.succeed(&["logout", registry]);
        assert_eq!(docker.docker(&["pull", &name]).status.success(), guests_read, "{registry}");
        assert!(!docker.docker(&["push", &name]).status.success());
    }
}

#[test]
fn podman_and_skopeo_find_the_original_names_and_log_in() {
    require!("skopeo", "podman", "root", "busybox-static", "htpasswd");
    let disk = Disk::new();
    let (_, _serving, said) = disk.site.serve_and_hear(&format!("hub.tar quay.tar {TRUST} --emit nodes"));
    let conf = disk.path("nodes/registries-conf/registries.conf");
    for name in [HUB, QUAY] {
        let copy = format!("dir:{}", disk.path("copy"));
        tools::succeed("skopeo", &["--registries-conf", &conf, "copy", &format!("docker://{name}"), &copy]);
        assert!(!said.contains(&format!("registries-conf leaves out {name}")), "a mirror of a repository: {said}");
    }
    let root = disk.path("podman");
    let run = format!("{root}/run");
    let podman = Command::new(tools::find("podman").unwrap())
        .args(["--root", &root, "--runroot", &run, "--storage-driver", "vfs", "--cgroup-manager", "cgroupfs"])
        .args(["pull", "--quiet", HUB])
        .env("CONTAINERS_REGISTRIES_CONF", &conf)
        .output()
        .unwrap();
    assert!(podman.status.success(), "{}", String::from_utf8_lossy(&podman.stderr));

    let users = disk.users();
    for options in ["", "--anonymous-read"] {
        let (store, mut serving) = disk.site.serve(&format!("--store shelf{options} {users} {options}"));
        let auth = disk.path(&format!("auth{options}.json"));
        let from = format!("docker://{HUB}");
        let to = format!("docker://{store}/team/pushed:1");
        let copy = ["--registries-conf", &conf, "copy", "--dest-tls-verify=false", "--authfile", &auth, &from, &to];
        disk.site.write(&format!("auth{options}.json"), "{}");
        assert!(!tools::run("skopeo", &copy).status.success(), "a push takes a login");
        let login = |password: &str| {
            let login = ["login", "--tls-verify=false", "--authfile", &auth, "-u", USER, "-p", password, &store];
            tools::run("skopeo", &login).status.success()
        };
        assert!(!login("wrong") && login(PASSWORD), "{options}");
        tools::succeed("skopeo", &copy);
        let guest = tools::run("skopeo", &["inspect", "--raw", "--tls-verify=false", "--no-creds", &to]);
        assert_eq!(guest.status.success(), !options.is_empty());
        serving.until_it_says("a login failed");
        let said = serving.stderr();
        assert!(said.contains("127.0.0.1") && said.contains(USER), "{said}");
        assert!(!said.contains(PASSWORD), "{said}");
    }
}

#[test]
fn helm_pushes_and_pulls_charts_and_curl_takes_parts_of_them_over_tls() {
    require!("helm", "curl", "htpasswd");
    let site = Site::without_keys();
    site.write("shop/Chart.yaml", "apiVersion: v2\nname: shop\nversion: 1.2.3\n");
    site.write("shop/templates/one.yaml", "kind: ConfigMap\n");
    site.write("users", tools::succeed("htpasswd", &["-Bbn", USER, PASSWORD]));
    let at = |name: &str| site.at(name).display().to_string();
    let config = at("helm.json");
    let helm = |arguments: &[&str]| tools::run("helm", &[arguments, &["--registry-config", &config]].concat());
    let must = |arguments: &[&str]| {
        let output = helm(arguments);
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    };
    must(&["package", &at("shop"), "--destination", &at("")]);
    let chart = site.bytes("shop-1.2.3.tgz");
    // helm speaks plain HTTP to this machine itself, whatever it is told
    let (host, serving) = site.serve("--store shelf --htpasswd users --anonymous-read");
    let charts = format!("oci://{host}/charts");
    assert!(!helm(&["push", &at("shop-1.2.3.tgz"), &charts, "--plain-http"]).status.success());
    must(&["registry", "login", &host, "--username", USER, "--password", PASSWORD]);
    must(&["push", &at("shop-1.2.3.tgz"), &charts, "--plain-http"]);
    // also where all of it is here already, and the manifest is all that it sends
    must(&["push", &at("shop-1.2.3.tgz"), &format!("oci://{host}/other"), "--plain-http"]);
    must(&["registry", "logout", &host]);
    std::fs::create_dir(site.at("back")).unwrap();
    must(&["pull", &format!("{charts}/shop"), "--version", "1.2.3", "--plain-http", "--destination", &at("back")]);
    assert_eq!(site.bytes("back/shop-1.2.3.tgz"), chart);
    drop(serving);

    let (host, serving, said) = site.serve_and_hear("--store shelf --tls auto --tls-dir tls");
    let ca = at("tls/ca.crt");
    let sum = tools::succeed("sha256sum", &[&ca]);
    assert!(said.contains("tls/ca.crt") && said.contains(sum.split(' ').next().unwrap()), "{said}");
    let url = format!("https://{host}/v2/charts/shop/blobs/{}", ferry_tests::images::digest(&chart));
    let curl = |more: &[&str]| {
        let fixed = ["--silent", "--show-error", "--fail", "--cacert", &ca, &url];
        let output = tools::run("curl", &[&fixed, more].concat());
        (output.status.success(), output.stdout)
    };
    assert_eq!(curl(&["--range", "10-19"]), (true, chart[10..20].to_vec()));
    assert_eq!(curl(&["--range", "-5", "--http1.1"]), (true, chart[chart.len() - 5..].to_vec()));
    assert!(!curl(&["--range", "999999-"]).0, "416");
    // a download that broke off goes on
    site.write("part", &chart[..7]);
    assert!(curl(&["--continue-at", "-", "--output", &at("part")]).0);
    assert_eq!(site.bytes("part"), chart);
    let untrusted = tools::run("curl", &["--silent", &format!("https://{host}/v2/")]);
    assert!(!untrusted.status.success(), "nobody trusts that CA unasked");
    drop(serving);

    // the CA stays, whatever names are added
    let before = site.bytes("tls/ca.crt");
    let (host, _serving) = site.serve("--store shelf --tls auto --tls-dir tls --tls-name registry.site");
    let (resolve, url) =
        (format!("registry.site:{}:127.0.0.1", port(&host)), format!("https://registry.site:{}/v2/", port(&host)));
    tools::succeed("curl", &["--silent", "--fail", "--cacert", &ca, "--resolve", &resolve, &url]);
    assert_eq!(site.bytes("tls/ca.crt"), before);
}

fn port(host: &str) -> &str {
    host.rsplit_once(':').unwrap().1
}

/// Where the content of a blob stands in a bundle.
fn find(file: &File, content: &[u8]) -> u64 {
    let mut bytes = Vec::new();
    (&*file).read_to_end(&mut bytes).unwrap();
    bytes.windows(content.len()).position(|window| window == content).expect("it is there") as u64
}

/// A bundle of one image with a layer of 3 MB, served; its layer, and where that stands in the file.
fn one_large(site: &Site) -> (String, Running, Layer, u64) {
    let image = Image::single("linux/amd64", Format::Oci, vec![Layer::random(9, 3_000_000)]);
    let (public, _public) = site.serve("--store public");
    push(&Endpoint::plain(&public), "app/large:1", &image);
    let _ = site.ferry(&format!("bundle {public}/app/large:1 --platform linux/amd64 -o b.tar {SIGN}")).ok();
    let layer = image.single.as_ref().unwrap().layers[0].clone();
    let at = find(&File::open(site.at("b.tar")).unwrap(), &layer.stored[..64]);
    let (host, serving) = site.serve(&format!("b.tar {TRUST}"));
    (host, serving, layer, at)
}

#[test]
fn a_damaged_blob_is_never_served_whole_and_the_log_names_it() {
    require!("skopeo", "curl", "containerd", "ctr", "root");
    let site = Site::new();
    let (_, first, layer, at) = one_large(&site);
    drop(first);
    let file = File::options().write(true).open(site.at("b.tar")).unwrap();
    file.write_all_at(&[!layer.stored[2_000_000]], at + 2_000_000).unwrap();
    let (host, mut serving, _) = site.serve_and_hear(&format!("b.tar {TRUST}"));
    let blob = format!("http://{host}/v2/app/large/blobs/{}", layer.digest());
    let out = site.at("out").display().to_string();
    let got = tools::run("curl", &["--silent", "--fail", "--output", &out, &blob]);
    assert_eq!(got.status.code(), Some(18), "the transfer breaks");
    assert!(site.bytes("out").len() < layer.stored.len());
    assert_eq!(
        tools::run("curl", &["--silent", "--fail", &blob]).status.code(),
        Some(22),
        "from then on it is not there"
    );
    serving.until_it_says("a damaged blob is refused from now on");
    let said = serving.stderr();
    assert!(said.contains(&layer.digest()) && said.contains("b.tar"), "{said}");
    drop(serving);
    // and so for clients that would have noticed themselves
    let (host, _serving) = site.serve(&format!("b.tar {TRUST}"));
    let (name, copy) = (format!("docker://{host}/app/large:1"), format!("dir:{}", site.at("copy").display()));
    assert!(!tools::run("skopeo", &["copy", "--src-tls-verify=false", &name, &copy]).status.success());
    let containerd = Containerd::start();
    let pull = ["images", "pull", "--plain-http", "--snapshotter", "native", &format!("{host}/app/large:1")];
    assert!(!containerd.run(&pull).status.success());
}

#[test]
fn a_file_that_changes_while_it_is_served_gives_no_wrong_byte() {
    let site = Site::new();
    let (host, mut serving, layer, at) = one_large(&site);
    let endpoint = Endpoint::plain(&host);
    let path = format!("/v2/app/large/blobs/{}", layer.digest());
    let get = |headers: &[(&str, &str)]| endpoint.send("GET", &path, headers, &[]);
    // once read, it counts as good
    assert!(get(&[]).unwrap().body == *layer.stored);
    // another file of that name is not the one that is served
    std::fs::copy(site.at("b.tar"), site.at("copy.tar")).unwrap();
    std::fs::rename(site.at("b.tar"), site.at("old.tar")).unwrap();
    site.write("b.tar", "something else");
    assert!(get(&[]).unwrap().body == *layer.stored);
    assert_eq!(endpoint.send("GET", "/v2/_catalog", &[], &[]).unwrap().header("warning"), None);

    let file = File::options().write(true).open(site.at("old.tar")).unwrap();
    file.write_all_at(&[!layer.stored[2_000_000]], at + 2_000_000).unwrap();
    for headers in [&[][..], &[("Range", "bytes=1999990-2000009")]] {
        let got = get(headers);
        assert!(got.is_err() || got.unwrap().status == 500, "not a byte of it");
    }
    serving.until_it_says("was written to after it was opened");
    assert!(serving.stderr().contains("b.tar"), "{}", serving.stderr());
    // what still lists it says so
    for list in ["/v2/_catalog", "/v2/app/large/tags/list"] {
        let answer = endpoint.send("GET", list, &[], &[]).unwrap();
        assert!(answer.status == 200 && answer.header("warning").unwrap().starts_with("299 - \"a bundle has changed"));
    }
    let page = String::from_utf8(endpoint.send("GET", "/", &[], &[]).unwrap().body).unwrap();
    assert!(page.contains("role=\"alert\">A bundle has changed"), "{page}");
    drop(serving);

    std::fs::rename(site.at("copy.tar"), site.at("b.tar")).unwrap();
    let (host, mut serving) = site.serve(&format!("b.tar {TRUST}"));
    let endpoint = Endpoint::plain(&host);
    File::options().write(true).open(site.at("b.tar")).unwrap().set_len(at + 1_000_000).unwrap();
    let got = endpoint.send("GET", &path, &[], &[]);
    assert!(got.is_err() || got.unwrap().status == 500);
    serving.until_it_says("was written to after it was opened");
    // and what is in memory is still answered
    assert_eq!(endpoint.send("GET", "/v2/app/large/manifests/1", &[], &[]).unwrap().status, 200);
}

#[test]
fn transfers_end_within_the_grace_and_a_second_signal_ends_them_at_once() {
    let site = Site::new();
    for (grace, signals) in [(1, 1), (60, 2)] {
        let image = Image::single("linux/amd64", Format::Oci, vec![Layer::random(3, 30_000_000)]);
        let (host, mut serving) = site.serve(&format!("--store shelf --grace {grace}"));
        push(&Endpoint::plain(&host), "app/large:1", &image);
        let mut stands = std::net::TcpStream::connect(&host).unwrap();
        let digest = image.single.as_ref().unwrap().layers[0].digest();
        write!(stands, "GET /v2/app/large/blobs/{digest} HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
        stands.read_exact(&mut [0; 100]).unwrap();
        let begun = Instant::now();
        serving.signal("TERM");
        serving.until_it_says("once more ends them now");
        if signals == 2 {
            assert!(serving.runs());
            serving.signal("TERM");
        }
        let ended = serving.timeout_after(Duration::from_secs(20)).wait();
        assert_eq!(ended.code, 0, "{}", ended.stderr);
        assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
        let line = ended
            .stderr
            .lines()
            .find(|line| line.contains(digest.as_str()) && line.contains("\"GET "))
            .expect("its line");
        assert!(line.contains(" 200 ") && line.ends_with("broken=\"cut off at the end of the server\""), "{line}");
    }
}

#[test]
fn what_is_not_safe_is_said() {
    require!("htpasswd");
    let site = Site::without_keys();
    site.write("users", tools::succeed("htpasswd", &["-Bbn", USER, PASSWORD]));
    let hear = |options: &str| {
        let mut serving = site.ferry(&format!("serve --store shelf {options}")).start();
        serving.until_it_says("docs/serve.md");
        serving.stderr()
    };
    let said = hear("--listen 127.0.0.1:0");
    assert!(!said.contains("warning") && said.contains("only this machine reaches it"), "{said}");
    let said = hear("--listen 0.0.0.0:0 --advertise registry.site:5000");
    assert!(said.contains("without TLS") && said.contains("can push into the store"), "{said}");
    assert!(said.contains("[host.\"http://registry.site:5000\"]") && said.contains("for host in _default"), "{said}");
    let said = hear("--listen 0.0.0.0:0 --htpasswd users");
    assert!(said.contains("passwords cross the network") && !said.contains("can push"), "{said}");
    assert!(!hear("--tls auto --tls-dir tls --listen 0.0.0.0:0 --htpasswd users").contains("warning"));
    for name in ["a b", "x:5000", "*.site", "[::1]"] {
        let refused =
            site.ferry("serve --store shelf --tls auto --tls-dir tls --tls-name").arg(name).run().expect_code(2);
        refused.says(&["not a host name or an IP address"]);
    }
    let mut emits = site.ferry("serve --store shelf --listen 127.0.0.1:0 --emit nodes").start();
    emits.until_it_says("note: registries-conf has nothing: it needs names of hosts");
    for (content, why) in [("ann:$apr1$x$y\n", "users:1`: the password of `ann`"), ("", "names no user")] {
        site.write("users", content);
        let refused = site.ferry("serve --store shelf --listen 127.0.0.1:0 --htpasswd users").run().expect_code(6);
        refused.says(&[why, "htpasswd -B"]);
    }
}
