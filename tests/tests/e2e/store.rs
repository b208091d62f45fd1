//! The store behind `ferry serve --store`: killed at any moment, shared, full, collected, and read by others.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use ferry_tests::disks::SmallDisk;
use ferry_tests::http::Endpoint;
use ferry_tests::images::{Format, Image, Layer, Random, digest};
use ferry_tests::registry::push;
use ferry_tests::site::Site;
use ferry_tests::{kills, require, tools};

use crate::{FOR, SIGN, TRUST, small, two_platforms};

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";

/// What the server has promised to keep: where it can be got, and how.
#[derive(Default)]
struct Promised {
    things: Vec<(String, Vec<u8>)>,
    /// Sessions, and how far they are.
    uploads: Vec<(String, u64)>,
}

/// Pushes images until the server is gone. What was answered is promised.
fn push_on(host: &str, worker: u64, next: &AtomicU64, promised: &Mutex<Promised>, stop: &AtomicBool) {
    let endpoint = Endpoint::plain(host);
    let send = |method: &str, path: &str, kind: &str, bytes: &[u8]| {
        endpoint.send(method, path, &[("Content-Type", kind)], bytes).ok().filter(|answer| answer.status < 300)
    };
    let repository = format!("team/w{worker}");
    while !stop.load(Ordering::Relaxed) {
        let seed = next.fetch_add(1, Ordering::Relaxed);
        let layers = vec![Layer::random(seed, 200_000), Layer::random(seed + 500_000, 10)];
        let image = Image::single("linux/amd64", Format::Oci, layers);
        for (digest, bytes) in &image.blobs {
            let Some(begun) = send("POST", &format!("/v2/{repository}/blobs/uploads/"), "", &[]) else { return };
            let location = begun.header("location").unwrap().to_owned();
            let (first, rest) = bytes.split_at(bytes.len() / 2);
            let Some(_) = send("PATCH", &location, "application/octet-stream", first) else { return };
            promised.lock().unwrap().uploads.push((location.clone(), first.len() as u64));
            // from here on the session may be gone, or there with all
            let put = send("PUT", &format!("{location}?digest={digest}"), "application/octet-stream", rest);
            promised.lock().unwrap().uploads.retain(|(open, _)| *open != location);
            if put.is_none() {
                return;
            }
            let path = format!("/v2/{repository}/blobs/{digest}");
            promised.lock().unwrap().things.push((path, bytes.to_vec()));
        }
        let (_, manifest) = image.manifests.last().unwrap();
        for path in
            [format!("/v2/{repository}/manifests/t{seed}"), format!("/v2/{repository}/manifests/{}", image.digest())]
        {
            let Some(_) = send("PUT", &path, MANIFEST, manifest) else { return };
            promised.lock().unwrap().things.push((path, manifest.clone()));
        }
    }
}

#[test]
fn nothing_acknowledged_is_lost_to_a_kill() {
    let site = Site::without_keys();
    let mut random = Random::new(kills::seed("serve --store"));
    let (promised, next) = (Mutex::new(Promised::default()), AtomicU64::new(1));
    let rounds = kills::count().div_ceil(2);
    for round in 0..rounds {
        let (host, serving) = site.serve("--store shelf");
        let stop = AtomicBool::new(false);
        std::thread::scope(|scope| {
            for worker in 0..3 {
                let (host, next, promised, stop) = (&host, &next, &promised, &stop);
                scope.spawn(move || push_on(host, worker, next, promised, stop));
            }
            std::thread::sleep(Duration::from_millis(20 + random.draw() % 300));
            assert_eq!(serving.kill().code, 137);
            stop.store(true, Ordering::Relaxed);
        });
        let (host, _serving) = site.serve("--store shelf");
        let endpoint = Endpoint::plain(&host);
        let mut promised = promised.lock().unwrap();
        for (path, bytes) in &promised.things {
            let answer = endpoint.send("GET", path, &[], &[]).unwrap();
            assert!(answer.status == 200 && answer.body == *bytes, "round {round}: {path} is {}", answer.status);
        }
        for (location, size) in promised.uploads.drain(..) {
            let answer = endpoint.send("GET", &location, &[], &[]).unwrap();
            let range = answer.header("range").unwrap_or_default().to_owned();
            let end: u64 = range.trim_start_matches("0-").parse().unwrap_or_default();
            assert!(answer.status == 204 && end + 1 >= size, "round {round}: {location} is {} {range}", answer.status);
        }
        // of every tag that is listed the whole image is there
        for worker in 0..3 {
            let tags = endpoint.send("GET", &format!("/v2/team/w{worker}/tags/list"), &[], &[]).unwrap();
            let tags: serde_json::Value = serde_json::from_slice(&tags.body).unwrap();
            for tag in tags["tags"].as_array().into_iter().flatten() {
                let path = format!("/v2/team/w{worker}/manifests/{}", tag.as_str().unwrap());
                let manifest: serde_json::Value =
                    serde_json::from_slice(&endpoint.send("GET", &path, &[], &[]).unwrap().body).unwrap();
                for layer in manifest["layers"].as_array().unwrap() {
                    let path = format!("/v2/team/w{worker}/blobs/{}", layer["digest"].as_str().unwrap());
                    assert_eq!(endpoint.send("HEAD", &path, &[], &[]).unwrap().status, 200, "round {round}: {path}");
                }
            }
        }
    }
    let promised = promised.into_inner().unwrap();
    assert!(promised.things.len() as u64 > rounds, "something was pushed: {}", promised.things.len());
    // nothing that a killed process left stands for a blob, and a collection finds nothing wrong
    let json = site.ferry("gc shelf --dry-run --json").ok().json();
    assert_eq!(json["removed"], serde_json::json!([]), "all is younger than an hour");
}

#[test]
fn servers_installs_and_collections_share_one_store() {
    let site = Site::new();
    let (one, two, three) = (small(1), small(2), small(3));
    let (first, first_serves) = site.serve("--store shelf --allow-delete");
    let (second, _second_serves) = site.serve("--store shelf");
    push(&Endpoint::plain(&first), "app/one:1", &one);
    let manifest = |host: &str, path: &str| Endpoint::plain(host).send("GET", path, &[], &[]).unwrap();
    assert_eq!(manifest(&second, "/v2/app/one/manifests/1").body, one.manifests[0].1, "seen by the other at once");

    push(&Endpoint::plain(&second), "app/two:1", &two);
    let _ = site.ferry(&format!("bundle {second}/app/two:1 {FOR} -o b.tar {SIGN}")).ok();
    let _ = site.ferry(&format!("install b.tar --store shelf --registry {first}/copy {TRUST}")).ok();
    assert_eq!(manifest(&first, "/v2/copy/app/two/manifests/1").body, two.manifests[0].1, "without a restart");

    // what is deleted leaves the disk, while both serve and one takes a push
    let delete = |host: &str| {
        let path = format!("/v2/app/one/manifests/{}", one.digest());
        Endpoint::plain(host).send("DELETE", &path, &[], &[]).unwrap().status
    };
    assert_eq!((delete(&second), delete(&first), delete(&first)), (405, 202, 404));
    let begun = Endpoint::plain(&first).send("POST", "/v2/app/one/blobs/uploads/", &[], &[]).unwrap();
    let session = begun.header("location").unwrap().to_owned();
    let looked = site.ferry("gc shelf --grace 0 --dry-run").ok();
    let freed = one.blob_bytes() + one.manifests[0].1.len() as u64;
    for digest in one.blobs.keys().map(String::as_str).chain([one.digest()]) {
        assert!(looked.stdout.contains(digest), "{}", looked.stdout);
        assert!(site.at("shelf/blobs").join(digest.replace(':', "/")).exists(), "it only looked");
    }
    let _ = looked.says(&["4 blobs would be removed", "4 needed"]);
    let kept = site.ferry("gc shelf --json").ok().json();
    assert_eq!((&kept["bytes"], &kept["young"]["blobs"]), (&0.into(), &4.into()), "all is young");
    let json = site.ferry("gc shelf --grace 0 --json").ok().json();
    assert_eq!((&json["bytes"], json["removed"].as_array().unwrap().len()), (&freed.into(), 4));
    for digest in one.blobs.keys() {
        assert!(!site.at("shelf/blobs").join(digest.replace(':', "/")).exists(), "{digest}");
    }
    assert_eq!(manifest(&first, &session).status, 204, "an upload goes on");
    push(&Endpoint::plain(&first), "app/one:1", &one);
    push(&Endpoint::plain(&second), "app/three:1", &three);
    assert_eq!(manifest(&second, "/v2/app/one/manifests/1").body, one.manifests[0].1);
    drop(first_serves);
    assert_eq!(manifest(&second, "/v2/app/three/manifests/1").status, 200);
}

#[test]
fn a_collection_is_of_a_store_and_says_so() {
    let site = Site::without_keys();
    site.write("other/file", "x");
    let _ = site.ferry("gc other").run().expect_code(6).says(&["`other` is not a store", "oci-layout"]);
    let _ = site.ferry("gc other/file").run().expect_code(2).says(&["`other/file` is a file, and no store", "--store"]);
    let _ = site.ferry("gc absent").run().expect_code(2).says(&["`absent` is not there", "--store"]);
    assert!(!site.at("absent").exists(), "it makes none");
    let _ = site.ferry("gc other --grace 5x").run().expect_code(2).says(&["90s, 30m, 2h or 1d"]);
    let _ = site.ferry("serve --allow-delete").run().expect_code(2).says(&["--store"]);
    let _ = site.ferry("serve b.tar --allow-delete").run().expect_code(2).says(&["--allow-delete", "BUNDLE"]);
}

#[test]
fn other_tools_read_the_folder() {
    require!("skopeo");
    let site = Site::without_keys();
    let index = two_platforms(Format::Oci, 1);
    let (host, _serving) = site.serve("--store shelf");
    push(&Endpoint::plain(&host), "team/app:v1", &index);
    push(&Endpoint::plain(&host), "team/other:v1", &small(7));
    let from = format!("oci:{}:team/app:v1", site.at("shelf").display());
    let raw = tools::succeed("skopeo", &["inspect", "--raw", &from]);
    assert_eq!(digest(raw.as_bytes()), index.digest());
    tools::succeed("skopeo", &["copy", "--all", &from, &format!("dir:{}", site.at("out").display())]);
    assert_eq!(digest(&site.bytes("out/manifest.json")), index.digest());
    // and write into it: what they put there stays, though no repository has it
    let to = format!("oci:{}:from-skopeo", site.at("shelf").display());
    tools::succeed("skopeo", &["copy", &format!("oci:{}:team/other:v1", site.at("shelf").display()), &to]);
    let delete = site.ferry("gc shelf --grace 0 --untagged --json").ok().json();
    assert_eq!(delete["removed"], serde_json::json!([]));
    tools::succeed("skopeo", &["inspect", "--raw", &to]);
    assert_eq!(Endpoint::plain(&host).send("GET", "/v2/team/app/manifests/v1", &[], &[]).unwrap().status, 200);
}

#[test]
fn a_full_disk_refuses_a_push_and_loses_nothing() {
    require!("root", "mount");
    let site = Site::without_keys();
    let disk = SmallDisk::mount(&site.at("disk"), "3m");
    let (host, serving) = site.serve("--store disk/shelf");
    let endpoint = Endpoint::plain(&host);
    let image = small(1);
    push(&endpoint, "app/one:1", &image);
    let large: Vec<u8> = Layer::random(9, 6_000_000).stored.to_vec();
    let blob = format!("/v2/app/one/blobs/uploads/?digest={}", digest(&large));
    let refused = endpoint.send("POST", &blob, &[], &large).unwrap();
    let said = String::from_utf8_lossy(&refused.body).into_owned();
    assert!(refused.status == 507 && said.contains("disk is full"), "{} {said}", refused.status);
    assert_eq!(disk_uploads(&site), 0, "nothing stays of what nobody can go on with");

    let begun = endpoint.send("POST", "/v2/app/one/blobs/uploads/", &[], &[]).unwrap();
    let session = begun.header("location").unwrap().to_owned();
    let half = &large[..2_000_000];
    assert_eq!(endpoint.send("PATCH", &session, &[], half).unwrap().status, 202);
    assert_eq!(endpoint.send("PATCH", &session, &[], &large[2_000_000..]).unwrap().status, 507);
    let status = endpoint.send("GET", &session, &[], &[]).unwrap();
    let range = status.header("range").unwrap().to_owned();
    let at = range.trim_start_matches("0-").parse::<usize>().unwrap() + 1;
    assert!((2_000_000..3 << 20).contains(&at), "{range}");
    assert_eq!(endpoint.send("GET", "/v2/app/one/manifests/1", &[], &[]).unwrap().body, image.manifests[0].1);

    disk.resize("16m");
    let put = format!("{session}?digest={}", digest(&large));
    assert_eq!(endpoint.send("PUT", &put, &[], &large[at..]).unwrap().status, 201, "it goes on where it was");
    assert_eq!(endpoint.send("GET", &format!("/v2/app/one/blobs/{}", digest(&large)), &[], &[]).unwrap().body, large);
    push(&endpoint, "app/two:1", &small(2));

    // one that nobody goes on with
    let begun = endpoint.send("POST", "/v2/app/one/blobs/uploads/", &[], &[]).unwrap();
    assert_eq!(endpoint.send("PATCH", begun.header("location").unwrap(), &[], half).unwrap().status, 202);
    let _ = site.ferry("gc disk/shelf").ok().says(&["2.0 MB in unfinished uploads", "--uploads"]);
    let told = site.ferry("gc disk/shelf --uploads 0 --dry-run").ok();
    told.says(&["0 blobs would be removed, 0 B; 2.0 MB in unfinished uploads would be removed"]);
    let freed = site.ferry("gc disk/shelf --uploads 0 --json").ok().json();
    assert_eq!(freed["unfinished_uploads"], serde_json::json!({"bytes": half.len(), "left": 0}));
    assert_eq!(disk_uploads(&site), 0);
    drop(serving);
}

fn disk_uploads(site: &Site) -> usize {
    std::fs::read_dir(site.at("disk/shelf/ferry/uploads")).unwrap().count()
}
