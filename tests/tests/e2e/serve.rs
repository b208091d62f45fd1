//! The embedded registry, under the hands of skopeo and of ferry itself.

use ferry_tests::disks::SmallDisk;
use ferry_tests::http::Endpoint;
use ferry_tests::images::{Format, Image, Layer, digest, layout};
use ferry_tests::registry::{Access, Registry, push};
use ferry_tests::site::Site;
use ferry_tests::{require, tools};

use crate::{FOR, SIGN, TRUST, bundled, small, two_platforms};

#[test]
fn a_bundle_answers_pulls_out_of_itself() {
    require!("docker-registry", "skopeo");
    let (_source, image, site) = bundled();
    let before = site.names();
    let (host, _serving) = site.serve(&format!("b.tar {TRUST}"));
    let to = site.at("pulled").display().to_string();
    let source = format!("docker://{host}/app/one:1");
    tools::succeed("skopeo", &["copy", "--src-tls-verify=false", &source, &format!("dir:{to}")]);
    assert_eq!(digest(&site.bytes("pulled/manifest.json")), image.digest());
    std::fs::remove_dir_all(&to).unwrap();
    assert_eq!(site.names(), before, "nothing is unpacked");

    let endpoint = Endpoint::plain(&host);
    let layer = &image.single.as_ref().unwrap().layers[0];
    let path = format!("/v2/app/one/blobs/{}", layer.digest());
    let part = endpoint.send("GET", &path, &[("Range", "bytes=10-19")], &[]).unwrap();
    assert_eq!((part.status, part.body.as_slice()), (206, &layer.stored[10..20]));
    let refused = endpoint.send("POST", "/v2/app/one/blobs/uploads/", &[], &[]).unwrap();
    assert!((400..500).contains(&refused.status), "a bundle is read-only: {}", refused.status);
    let absent = endpoint.send("GET", "/v2/app/none/manifests/1", &[], &[]).unwrap();
    assert_eq!(absent.status, 404);
}

#[test]
fn a_store_takes_pushes_and_gives_them_back() {
    require!("skopeo");
    let site = Site::without_keys();
    let index = two_platforms(Format::Oci, 1);
    layout::write_folder(&site.at("layout"), &[("v1", &index)]);
    let (host, serving) = site.serve("--store shelf");
    let from = format!("oci:{}:v1", site.at("layout").display());
    let there = format!("docker://{host}/team/app:v1");
    tools::succeed("skopeo", &["copy", "--all", "--dest-tls-verify=false", &from, &there]);
    let raw = tools::succeed("skopeo", &["inspect", "--raw", "--tls-verify=false", &there]);
    assert_eq!(digest(raw.as_bytes()), index.digest());
    drop(serving);
    // killed and started again, it still has everything
    let (host, _serving) = site.serve("--store shelf");
    let there = format!("docker://{host}/team/app:v1");
    let to = format!("dir:{}", site.at("back").display());
    tools::succeed("skopeo", &["copy", "--all", "--src-tls-verify=false", &there, &to]);
}

#[test]
fn a_crossing_between_two_stores_needs_nothing_else() {
    let site = Site::new();
    let image = small(1);
    let (public, _public) = site.serve("--store public");
    push(&Endpoint::plain(&public), "app/one:1", &image);
    let (closed, _closed) = site.serve("--store closed");
    let _ = site.ferry(&format!("bundle {public}/app/one:1 {FOR} -o b.tar {SIGN}")).ok();
    let _ = site.ferry(&format!("install b.tar --registry {closed} {TRUST}")).ok();
    let _ = site.ferry(&format!("bundle {closed}/app/one@{} {FOR} -o back.tar {SIGN}", image.digest())).ok();
    let json = site.ferry(&format!("inspect back.tar --json {TRUST}")).ok().json();
    assert_eq!(json["images"][0]["platforms"][0]["digest"], image.digest());
}

#[test]
fn a_store_that_was_not_there_is_said_to_be_new_and_others_say_how_many_images_they_have() {
    let site = Site::without_keys();
    let (host, serving, said) = site.serve_and_hear("--store typo/srv/images");
    for words in
        ["a new, empty store was made in `typo/srv/images`, and `typo` was not there", "images: 0 images at http"]
    {
        assert!(said.contains(words), "{words}: {said}");
    }
    let endpoint = Endpoint::plain(&host);
    for tag in ["1", "2"] {
        push(&endpoint, &format!("app/one:{tag}"), &small(1));
    }
    push(&endpoint, "app/two:1", &small(2));
    drop(serving);
    let (host, _serving, said) = site.serve_and_hear("--store typo/srv/images");
    assert!(!said.contains("new, empty") && said.contains("the store typo/srv/images: 2 images at http"), "{said}");
    let page = String::from_utf8(Endpoint::plain(&host).send("GET", "/", &[], &[]).unwrap().body).unwrap();
    assert!(page.contains("2 images"), "two tags of one are one, as on the page: {page}");
    site.write("shop.tar", "a bundle");
    let told = site.ferry("serve --store shop.tar --listen 127.0.0.1:0").run().expect_code(2);
    told.says(&["a store is a folder", "`ferry serve shop.tar`"]);
}

#[test]
fn nodes_of_a_proxy_that_does_tls_are_told_to_speak_https() {
    let site = Site::without_keys();
    let advertised = "--store shelf --advertise https://registry.site";
    let (_host, serving, said) = site.serve_and_hear(advertised);
    for words in [
        "0 images at https://registry.site (listening on 127.0.0.1:",
        "[host.\"https://registry.site\"]",
        "  # ca = \"/etc/containerd/ferry-ca.crt\"",
        "/etc/docker/certs.d/registry.site/ca.crt",
    ] {
        assert!(said.contains(words), "{words}: {said}");
    }
    assert!(!said.contains("http://"), "{said}");
    drop(serving);
    let (_host, _serving, _) = site.serve_and_hear(&format!("{advertised}:8443 --emit nodes"));
    for file in ["hosts-toml/_default/hosts.toml", "registries-yaml/registries.yaml", "daemon-json/daemon.json"] {
        let text = site.read(&format!("nodes/{file}"));
        assert!(text.contains("https://registry.site:8443") && !text.contains("insecure"), "{file}: {text}");
    }
}

#[test]
fn who_gets_no_tls_is_told_in_the_log_with_the_time_and_who_speaks_http_is_answered() {
    require!("curl");
    let site = Site::without_keys();
    let (host, mut serving) = site.serve("--store shelf --tls auto --tls-dir tls");
    let ask = |url: String| tools::run("curl", &["-s", "--noproxy", "*", "-w", "%{http_code}", &url]);
    let refused = String::from_utf8(ask(format!("http://{host}/v2/")).stdout).unwrap();
    assert_eq!(refused, "this port speaks HTTPS: say https:// instead of http://\n400");
    serving.until_it_says("WARN no TLS with a client (told once a minute): it spoke plain HTTP");
    assert!(!ask(format!("https://{host}/v2/")).status.success(), "nobody knows that CA");
    let line =
        |said: &str| said.lines().filter(|line| line.contains("no TLS with")).map(str::to_owned).collect::<Vec<_>>();
    let said = line(&serving.stderr());
    assert_eq!(said.len(), 1, "once a minute: {said:?}");
    assert!(said[0].starts_with('[') && said[0].contains(" +0000]  WARN no TLS"), "{said:?}");
    drop(serving);
    let (host, mut serving) = site.serve("--store shelf --tls auto --tls-dir tls");
    assert!(!ask(format!("https://{host}/v2/")).status.success(), "nobody knows that CA");
    serving.until_it_says("it does not take the certificate (UnknownCA)");
}

#[test]
fn what_is_emitted_says_what_goes_where_and_takes_away_what_an_earlier_run_left() {
    let site = Site::without_keys();
    let (host, serving, said) = site.serve_and_hear("--store shelf --emit nodes --tls auto --tls-dir tls");
    assert!(said.contains("nodes/README says what goes where"), "{said}");
    let readme = site.read("nodes/README");
    let certificate = format!("daemon-json/certs.d/{host}/");
    for words in [
        &format!("to pull from https://{host} under"),
        "/etc/containerd/certs.d/",
        "/etc/rancher/ferry-ca.crt",
        "systemctl reload docker",
        &certificate,
        &digest(&site.bytes("tls/ca.crt")).replace("sha256:", "its sha256: "),
        "mkdir -p /etc/containerd\ncat >/etc/containerd/ferry-ca.crt",
    ] {
        assert!(readme.contains(words), "{words}: {readme}");
    }
    assert_eq!(site.bytes("nodes/ferry-ca.crt"), site.bytes("tls/ca.crt"));
    for file in readme.lines().filter_map(|line| line.trim().split_once("  ->").map(|(file, _)| file)) {
        let file = file.split(", ").next().unwrap().trim_start_matches("each folder in ");
        assert!(site.at("nodes").join(file).exists(), "{file} is not there");
    }
    drop(serving);
    site.write("nodes/mine", "mine");
    let (_host, _serving, said) = site.serve_and_hear("--store shelf --emit nodes");
    assert!(said.contains("it was removed:\n  nodes/daemon-json/certs.d/"), "{said}");
    for gone in ["ferry-ca.crt", "hosts-toml/_default/ca.crt", "registries-yaml/ferry-ca.crt", "daemon-json/certs.d"] {
        assert!(!site.at("nodes").join(gone).exists(), "{gone}");
    }
    assert!(site.at("nodes/mine").exists() && !site.read("nodes/README").contains("ca.crt"));
}

#[test]
fn it_ends_on_a_signal() {
    let site = Site::without_keys();
    // as soon as it listens: many times, for a signal was lost while it began
    for signal in ["TERM", "INT"].repeat(10) {
        let (_, serving) = site.serve("--store shelf");
        serving.signal(signal);
        let ended = serving.timeout_after(std::time::Duration::from_secs(10)).wait();
        assert!(matches!(ended.code, 0 | 130), "{signal}: {} {}", ended.code, ended.stderr);
        let said = &ended.stderr;
        assert!(said.ends_with("\nended\n") && !said.contains("ending:"), "nothing was under way: {said}");
    }
}

#[test]
fn memory_does_not_grow_with_the_layers() {
    require!("docker-registry");
    let image = Image::single("linux/amd64", Format::Oci, vec![Layer::random(1, 150_000_000)]);
    let source = Registry::filled(Access::Plain, &[("app/huge:1", &image)]);
    let site = Site::new();
    let limit = 100 << 20;
    let peak = |command: &str| {
        let time = tools::find("time").expect("GNU time");
        let output = std::process::Command::new(time)
            .args(["-f", "%M", "-o"])
            .arg(site.at("peak"))
            .arg(ferry_tests::ferry::binary())
            .args(command.split_whitespace())
            .current_dir(site.path())
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let kilobytes: u64 = site.read("peak").trim().parse().unwrap();
        assert!(kilobytes * 1024 < limit, "{command}: {kilobytes} kB");
    };
    if tools::find("time").is_none() {
        tools::skip("memory_does_not_grow_with_the_layers: needs time");
        return;
    }
    peak(&format!("bundle {}/app/huge:1 {FOR} -o b.tar {SIGN}", source.host()));
    peak(&format!("verify b.tar {TRUST}"));
    let target = Registry::start(Access::Plain);
    peak(&format!("install b.tar --registry {} {TRUST}", target.host()));
    let (host, serving) = site.serve(&format!("b.tar {TRUST}"));
    let layer = &image.single.as_ref().unwrap().layers[0];
    let path = format!("/v2/app/huge/blobs/{}", layer.digest());
    let got = Endpoint::plain(&host).send("GET", &path, &[], &[]).unwrap();
    assert!(got.body == **layer.stored);
    assert!(serving.peak_memory() < limit, "serve: {}", serving.peak_memory());
}

#[test]
fn what_is_damaged_in_one_bundle_comes_from_another() {
    let site = Site::new();
    let image = small(3);
    let (public, _public) = site.serve("--store public");
    push(&Endpoint::plain(&public), "app/one:1", &image);
    let _ = site.ferry(&format!("bundle {public}/app/one:1 {FOR} -o whole.tar {SIGN}")).ok();
    let mut bytes = site.bytes("whole.tar");
    let layer = &image.single.as_ref().unwrap().layers[0];
    let at = bytes.windows(layer.stored.len()).position(|window| *window == **layer.stored).unwrap();
    bytes[at + layer.stored.len() / 2] ^= 1;
    site.write("hurt.tar", bytes);
    let (host, mut serving) = site.serve(&format!("hurt.tar whole.tar {TRUST}"));
    let path = format!("/v2/app/one/blobs/{}", layer.digest());
    let endpoint = Endpoint::plain(&host);
    let first = endpoint.send("GET", &path, &[], &[]);
    assert!(first.is_err() || first.unwrap().body != **layer.stored, "the transfer breaks, once");
    assert!(endpoint.send("GET", &path, &[], &[]).unwrap().body == **layer.stored);
    serving.until_it_says("from another");
}

#[test]
fn a_store_that_can_only_be_read_says_so_and_takes_no_pushes() {
    require!("root", "mount");
    let site = Site::without_keys();
    let disk = SmallDisk::mount(&site.at("disk"), "8m");
    let (_host, serving, said) = site.serve_and_hear("--store disk");
    assert!(said.contains("made in `disk`, on the empty disk that is mounted there"), "{said}");
    drop(serving);
    for name in ["blobs", "ferry"] {
        std::fs::remove_dir_all(site.at("disk").join(name)).unwrap();
    }
    let (host, serving) = site.serve("--store disk/shelf");
    let image = small(1);
    push(&Endpoint::plain(&host), "app/one:1", &image);
    drop(serving);
    disk.protect();

    let (host, _serving, said) = site.serve_and_hear("--store disk/shelf --allow-delete");
    for words in ["(read-only)", "warning: no pushes are taken", "`--allow-delete`", "Read-only file system"] {
        assert!(said.contains(words), "{words}: {said}");
    }
    let endpoint = Endpoint::plain(&host);
    let manifest = "/v2/app/one/manifests/1";
    for method in ["GET", "HEAD"] {
        assert_eq!(endpoint.send(method, manifest, &[], &[]).unwrap().status, 200, "{method}");
    }
    let type_of = [("Content-Type", "application/vnd.oci.image.manifest.v1+json")];
    let refused = [
        endpoint.send("POST", "/v2/app/two/blobs/uploads/", &[], &[]).unwrap(),
        endpoint.send("PUT", "/v2/app/one/manifests/2", &type_of, &image.manifests[0].1).unwrap(),
        endpoint.send("DELETE", manifest, &[], &[]).unwrap(),
    ];
    for answer in refused {
        let body = String::from_utf8(answer.body).unwrap();
        assert_eq!(answer.status, 405, "{body}");
        assert!(body.contains("UNSUPPORTED") && body.contains("can only be read (Read-only file system"), "{body}");
        assert!(!body.contains("shelf"), "no path of ours: {body}");
    }
    let page = String::from_utf8(endpoint.send("GET", "/", &[], &[]).unwrap().body).unwrap();
    assert!(page.contains("<span>read-only</span>"), "{page}");
    assert_eq!(endpoint.send("GET", "/healthz", &[], &[]).unwrap().status, 200, "it was started so");
}

#[test]
fn what_nodes_need_is_written_before_anything_is_said_to_be_served() {
    let site = Site::without_keys();
    site.write("nodes", "a file");
    let told = site.ferry("serve --store shelf --listen 127.0.0.1:0 --emit nodes").run().expect_code(6);
    told.says(&["nodes"]);
    assert!(!told.stderr.contains("serving"), "{}", told.stderr);
}

#[test]
fn two_versions_of_one_image_are_not_served_and_the_way_out_is_one_for_servers() {
    let site = Site::new();
    let (public, _public) = site.serve("--store public");
    for (n, file) in [(1, "old.tar"), (2, "new.tar")] {
        push(&Endpoint::plain(&public), "app/one:1", &small(n));
        let _ = site.ferry(&format!("bundle {public}/app/one:1 {FOR} -o {file} {SIGN}")).ok();
    }
    let told = site.ferry(&format!("serve old.tar new.tar {TRUST} --listen 127.0.0.1:0")).run().expect_code(7);
    told.says(&["app/one:1", "serve each at a port of its own"]);
}

#[test]
fn where_to_listen_is_typed_as_people_type_it() {
    let site = Site::without_keys();
    for (typed, at) in
        [("0", "http://127.0.0.1:"), ("localhost:0", "http://127.0.0.1:"), (":0", "(listening on 0.0.0.0:")]
    {
        let mut serving = site.ferry(&format!("serve --store shelf --listen {typed}")).start();
        serving.until_it_says("docs/serve.md");
        let said = serving.stderr();
        assert!(said.contains(at), "{typed}: {said}");
        let alone = said.contains("only this machine reaches it; for nodes: `--listen 0.0.0.0:");
        assert_eq!(alone, !at.contains("0.0.0.0"), "{typed}: {said}");
    }
    let (_host, _serving, said) = site.serve_and_hear("--store shelf");
    assert!(said.contains("paste this on this machine, as root,"), "{said}");
    let told = site.ferry("serve --store shelf --listen http://localhost:80").run().expect_code(2);
    told.says(&["`0.0.0.0:5000`"]);
    let told = site.ferry("serve --store shelf --listen 127.0.0.1:99999").run().expect_code(2);
    told.says(&["ports end at 65535"]);
    let told = site.ferry("serve shelf --listen 127.0.0.1:0").run().expect_code(2);
    told.says(&["`shelf` is a store", "`ferry serve --store shelf`"]);
    let told = site.ferry("serve --store shelf --layout host --listen 127.0.0.1:0").run().expect_code(2);
    told.says(&["--layout"]);
}

#[test]
fn the_certificate_that_nodes_need_is_to_be_had_from_the_server_and_of_another_it_says_where_it_goes() {
    require!("curl", "htpasswd");
    let site = Site::without_keys();
    site.write("users", tools::succeed("htpasswd", &["-Bbn", "ann", "secret"]));
    let fetch = |url: &str, options: &[&str]| {
        let output = tools::run("curl", &[&["--silent", "--fail"], options, &[url]].concat());
        output.status.success().then_some(output.stdout)
    };
    let (host, serving, said) = site.serve_and_hear("--store shelf --tls auto --tls-dir tls --htpasswd users");
    assert!(said.contains(&format!("https://{host}/ca.crt")), "{said}");
    assert!(said.contains("a new CA was made in tls: no node knows it yet"), "{said}");
    let (certificate, page) = (format!("https://{host}/ca.crt"), format!("https://{host}/"));
    assert_eq!(fetch(&certificate, &["-k"]), Some(site.bytes("tls/ca.crt")), "without a login");
    let trusted = ["--cacert", &site.at("tls/ca.crt").display().to_string()];
    assert_eq!(fetch(&page, &trusted), None, "all else needs one");
    assert_eq!(fetch(&format!("https://{host}/ca.key"), &["-k"]), None);
    drop(serving);

    let (host, serving) = site.serve("--store shelf");
    push(&Endpoint::plain(&host), "app/one:1", &small(1));
    assert_eq!(Endpoint::plain(&host).send("GET", "/ca.crt", &[], &[]).unwrap().status, 404, "there is none");
    drop(serving);
    let (host, _serving, said) = site.serve_and_hear("--store shelf --tls auto --tls-dir tls");
    assert!(said.contains("the CA is that in tls, of 20") && !said.contains("new CA"), "{said}");
    let refused = site.ferry("serve --store shelf --listen 127.0.0.1:0 --tls auto --tls-dir /proc/tls").run();
    refused.expect_code(6).says(&["the CA in `/proc/tls`: it cannot be made", "can write to with `--tls-dir`"]);
    let text = String::from_utf8(fetch(&format!("https://{host}/"), &trusted).unwrap()).unwrap();
    assert!(
        text.contains("href=\"/ca.crt\"") && text.contains(&format!("/etc/docker/certs.d/{host}/ca.crt")),
        "{text}"
    );

    // a chain that was made elsewhere: what the site's own CA is, nobody can tell here
    let mut serving = site
        .ferry("serve --store shelf --listen 127.0.0.1:0 --tls-cert tls/server.pem --tls-key tls/server.pem")
        .start();
    serving.until_it_says("for docker to /etc/docker/certs.d/127.0.0.1:");
    let said = serving.stderr();
    for words in ["  # ca = \"/etc/containerd/ferry-ca.crt\"", "tls: ca_file:", "/etc/containers/certs.d/127.0.0.1:"] {
        assert!(said.contains(words), "{words}: {said}");
    }
}
