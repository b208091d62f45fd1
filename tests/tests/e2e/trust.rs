//! Whose bundles are believed: several signers, machines without ferry, cosign, folders of keys, keys that come and go.

use std::fs;

use ferry_tests::cosign::Signer;
use ferry_tests::images::{Format, Image, Layer};
use ferry_tests::registry::Registry;
use ferry_tests::site::Site;
use ferry_tests::{require, tools};

use crate::{FOR, SIGN, bundled, one};

/// `SHA256SUMS` of `b.tar`, taken out as the guide says.
fn sums(site: &Site) -> Vec<u8> {
    tools::succeed(
        "tar",
        &["xf", &site.at("b.tar").display().to_string(), "-C", &site.path().display().to_string(), "SHA256SUMS"],
    );
    site.bytes("SHA256SUMS")
}

/// A further key pair, `NAME.key` here and `keys/NAME.pub`; its id.
fn person(site: &Site, name: &str) -> String {
    let _ = site.ferry(&format!("keygen --out made-{name} --no-password")).ok();
    fs::rename(site.at(&format!("made-{name}/ferry.key")), site.at(&format!("{name}.key"))).unwrap();
    let public = site.write(&format!("keys/{name}.pub"), site.bytes(&format!("made-{name}/ferry.pub")));
    fs::read_to_string(public).unwrap().lines().next().unwrap().rsplit(' ').next().unwrap().to_owned()
}

/// A bundle `b.tar` signed by alice, and her key and bob's in `keys`; their ids.
fn two_people() -> (Registry, Image, Site, [String; 2]) {
    let (source, image, site) = one();
    let ids = [person(&site, "alice"), person(&site, "bob")];
    let _ = site.ferry(&format!("bundle {}/app/one:1 {FOR} -o b.tar --sign-key alice.key", source.host())).ok();
    (source, image, site, ids)
}

/// A command line for every command that uses a bundle.
fn uses(options: &str) -> Vec<String> {
    vec![
        format!("verify b.tar {options}"),
        format!("install b.tar --store store --out out {options}"),
        format!("rewrite --bundle b.tar --registry registry.local:5000 --print0 {options}"),
        format!("serve b.tar --listen 256.0.0.1:1 {options}"),
    ]
}

/// Those of [`uses`] that end by themselves.
fn all_end(site: &Site, options: &str, code: i32, words: &[&str]) {
    for line in uses(options) {
        // a server that starts does not end: it is asked for what it refuses only
        if line.starts_with("serve") {
            if code != 0 {
                let line = line.replace("256.0.0.1:1", "127.0.0.1:0");
                site.ferry(&line).run().expect_code(code).says(words);
            }
            continue;
        }
        site.ferry(&line).run().expect_code(code).says(words);
    }
}

#[test]
fn a_second_person_signs_and_both_are_required() {
    require!("docker-registry");
    let (_source, _, site, [alice, bob]) = two_people();
    all_end(&site, "--keys keys", 0, &[]);
    let missing = format!("signed by 1 of the trusted keys (alice ({alice})), and 2 are required");
    all_end(&site, "--keys keys --require 2", 3, &[&missing, "ferry sign"]);
    all_end(&site, "--keys keys --require 2 --allow-unsigned", 3, &[&missing]);
    all_end(&site, "--require 2 --allow-unsigned", 2, &["no public key is given"]);
    let signed = site.ferry("sign b.tar --sign-key bob.key --keys keys --require 1 --expect b").ok();
    let file = format!("b.tar.{bob}.minisig");
    signed.says(&[
        "b is whole",
        &format!("until now: signed by alice ({alice})"),
        &format!("signed by {bob}: b.tar.{bob}.minisig"),
    ]);
    all_end(&site, "--keys keys --require 2", 0, &[]);
    all_end(&site, "--keys keys --require 3", 3, &["signed by 2 of the trusted keys"]);
    let told = site.ferry("verify b.tar --keys keys --require 2").ok();
    told.says(&[&format!("signed by alice ({alice}) and bob ({bob})")]);
    let json = site.ferry("verify b.tar --keys keys --json").ok().json();
    assert_eq!(json["signers"][0], serde_json::json!({"name": "alice", "key": alice, "inside": true, "files": []}));
    assert_eq!(json["signers"][1], serde_json::json!({"name": "bob", "key": bob, "inside": false, "files": [file]}));
    assert_eq!(json["signer"], alice.as_str());
    let shown = site.ferry("inspect b.tar --keys keys").ok().stdout;
    assert!(shown.contains(&format!("signed by alice ({alice}) and bob ({bob}), which are trusted here")), "{shown}");
    let json = site.ferry("inspect b.tar --keys keys --json").ok().json();
    assert_eq!(json["signers"].as_array().map(Vec::len), Some(2));
    for how in ["--dry-run --json", "--json"] {
        let line = format!("install b.tar --store store --out out --keys keys --require 2 {how}");
        let installed = site.ferry(&line).ok();
        installed.says(&[&format!("b: signed by alice ({alice}) and bob ({bob})")]);
        let installed = installed.json();
        assert_eq!(installed["bundles"][0]["signers"], json["signers"], "{how}");
    }
    // `--key` names keys after their files, too, and the same key under two names is one
    fs::copy(site.at("keys/alice.pub"), site.at("keys/zoe.pub")).unwrap();
    site.ferry("verify b.tar --keys keys --require 3").run().expect_code(3).says(&["2 of the trusted keys"]);
    site.ferry("verify b.tar --key keys/bob.pub").ok().says(&[&format!("signed by bob ({bob})")]);
}

#[test]
fn a_look_without_the_right_key_says_what_that_means_and_how_to_give_one() {
    require!("docker-registry");
    let (_source, _, site, [alice, bob]) = two_people();
    let look = |keys: &str| site.ferry(&format!("inspect b.tar {keys}")).ok();
    let none = look("");
    assert!(none.stdout.contains(&format!("signed by {alice}, and no key was given to check that")), "{}", none.stdout);
    none.says(&["hint: ", "anybody may have written it", "`--key ferry.pub`", "`FERRY_KEYS`"]);
    let wrong = look("--key keys/bob.pub");
    assert!(wrong.stdout.contains(&format!("signed by {alice}, which is none of the keys given")), "{}", wrong.stdout);
    wrong.says(&[&format!("the keys given are bob ({bob})")]);
    assert_eq!(look("--keys keys").stderr, "");
}

#[test]
fn signing_again_changes_nothing_and_never_replaces_another_file() {
    require!("docker-registry");
    let (_source, _, site, [alice, bob]) = two_people();
    let before = site.bytes("b.tar");
    let _ = site.ferry("sign b.tar --sign-key bob.key").ok();
    let file = format!("b.tar.{bob}.minisig");
    let signature = site.bytes(&file);
    let names = site.names();
    site.ferry("sign b.tar --sign-key bob.key").ok().says(&["already"]);
    let json = site.ferry("sign b.tar --sign-key bob.key --keys keys --json").ok().json();
    assert_eq!(
        (&json["new"], &json["key"], &json["file"]),
        (&false.into(), &bob.as_str().into(), &file.as_str().into())
    );
    assert_eq!(json["before"][0]["name"], "alice");
    assert_eq!((site.bytes(&file), site.bytes("b.tar")), (signature.clone(), before.clone()));
    // without public keys nothing is checked of who signed before, and that is said
    site.ferry("sign b.tar --sign-key bob.key").ok().says(&[&format!("names key {alice}, which is not trusted here")]);
    site.write(&file, "something else\n");
    site.ferry("sign b.tar --sign-key bob.key").run().expect_code(7).says(&[&file, "is another file", "--out"]);
    assert_eq!(site.read(&file), "something else\n");
    let _ = site.ferry("sign b.tar --sign-key bob.key --out elsewhere").ok();
    assert_eq!(site.bytes("elsewhere"), signature);
    site.write(&file, &signature);
    fs::remove_file(site.at("elsewhere")).unwrap();
    assert_eq!(site.names(), names, "no stray file");
    // what is signed must be whole, and be the one that is meant
    fs::remove_file(site.at(&file)).unwrap();
    site.ferry("sign b.tar --sign-key bob.key --expect other")
        .run()
        .expect_code(3)
        .says(&["is bundle `b`, and `other` is expected"]);
    let mut damaged = before;
    let at = damaged.len() - 1600;
    damaged[at] ^= 1;
    site.write("b.tar", damaged);
    site.ferry("sign b.tar --sign-key bob.key").run().expect_code(3).says(&["damaged"]);
    assert!(!site.at(&file).exists());
}

#[test]
fn an_offline_machine_signs_with_plain_minisign() {
    require!("docker-registry", "minisign", "tar");
    let (source, _, site) = one();
    let _ = site.ferry(&format!("bundle {}/app/one:1 {FOR} -o b.tar --unsigned", source.host())).ok();
    let _ = sums(&site);
    let at = |name: &str| site.at(name).display().to_string();
    fs::create_dir(site.at("keys")).unwrap();
    let make = |name: &str| {
        let (public, secret) = (at(&format!("keys/{name}.pub")), at(&format!("{name}.key")));
        tools::succeed("minisign", &["-G", "-W", "-p", &public, "-s", &secret]);
        secret
    };
    let (offline, second) = (make("offline"), make("second"));
    site.ferry("verify b.tar --keys keys").run().expect_code(3).says(&["is not signed", "ferry sign"]);
    tools::succeed("minisign", &["-Sm", &at("SHA256SUMS"), "-s", &offline, "-x", &at("b.tar.offline.minisig")]);
    all_end(&site, "--keys keys", 0, &[]);
    site.ferry("verify b.tar --keys keys").ok().says(&["signed by offline ("]);
    let commented = ["-c", "by two", "-t", "looked at on Monday", "-x", &at("b.tar.2.minisig")];
    tools::succeed("minisign", &[&["-Sm", &at("SHA256SUMS"), "-s", &second], &commented[..]].concat());
    site.ferry("verify b.tar --keys keys --require 2").ok().says(&["second (", " and ", "offline ("]);
    // the old kind, which is not prehashed, is minisign's as well
    tools::succeed("minisign", &["-l", "-Sm", &at("SHA256SUMS"), "-s", &second, "-x", &at("b.tar.2.minisig")]);
    let _ = site.ferry("verify b.tar --keys keys --require 2").ok();
    // and minisign takes what `ferry sign` made
    let _ = site.ferry("sign b.tar --sign-key ferry.key --out b.tar.ferry.minisig").ok();
    tools::succeed("minisign", &["-Vm", &at("SHA256SUMS"), "-p", &at("ferry.pub"), "-x", &at("b.tar.ferry.minisig")]);
    // of another file it is none of this bundle
    site.write("other", "something else");
    tools::succeed("minisign", &["-Sm", &at("other"), "-s", &second, "-x", &at("b.tar.2.minisig")]);
    all_end(&site, "--keys keys", 3, &["b.tar.2.minisig", "bad signature", "second ("]);
}

#[test]
fn cosign_signs_with_its_own_keys() {
    require!("docker-registry", "openssl", "tar");
    let (_source, _, site) = bundled();
    let sums = sums(&site);
    fs::create_dir(site.at("keys")).unwrap();
    for (name, signer) in [("cosign.pub", Signer::p256()), ("release.pem", Signer::ed25519())] {
        let stem = name.split('.').next().unwrap();
        fs::copy(signer.public(), site.at(&format!("keys/{name}"))).unwrap();
        site.write(&format!("b.tar.{stem}.sig"), signer.sign(&sums));
        let key = signer.fingerprint();
        let told = site.ferry(&format!("verify b.tar --key keys/{name} --json")).ok().json();
        assert_eq!(told["signers"][0]["key"], key.as_str());
        let short = &key[..19];
        site.ferry(&format!("verify b.tar --key keys/{name}")).ok().says(&[&format!("signed by {stem} ({short})")]);
    }
    // three signers of three kinds, each counted once
    fs::copy(site.at("ferry.pub"), site.at("keys/ferry.pub")).unwrap();
    fs::copy(site.at("b.tar.cosign.sig"), site.at("b.tar.again.sig")).unwrap();
    all_end(&site, "--keys keys --require 3", 0, &[]);
    all_end(&site, "--keys keys --require 4", 3, &["signed by 3 of the trusted keys"]);
    // one that has the name of a trusted key must be its own
    let stranger = Signer::p256();
    site.write("b.tar.cosign.sig", stranger.sign(&sums));
    all_end(&site, "--keys keys", 3, &["b.tar.cosign.sig", "has the name of key cosign"]);
    fs::rename(site.at("b.tar.cosign.sig"), site.at("b.tar.stranger.sig")).unwrap();
    all_end(&site, "--keys keys", 0, &["note: `b.tar.stranger.sig` does not count", "no key that is trusted here"]);
    // a private key, or what is no key, is named
    site.write("keys/wrong.pem", "-----BEGIN PRIVATE KEY-----\nAA==\n-----END PRIVATE KEY-----\n");
    site.ferry("verify b.tar --keys keys").run().expect_code(1).says(&["keys/wrong.pem", "it is a private key"]);
}

#[test]
fn what_does_not_count_is_told() {
    require!("docker-registry");
    let (_source, _, site, [alice, bob]) = two_people();
    let stranger = person(&site, "stranger");
    fs::remove_file(site.at("keys/stranger.pub")).unwrap();
    for key in ["bob", "stranger"] {
        let _ = site.ferry(&format!("sign b.tar --sign-key {key}.key")).ok();
    }
    site.write("b.tar.notes.minisig", "see the wiki\n");
    site.write("b.tar.large.sig", vec![b'A'; 5000]);
    fs::create_dir(site.at("b.tar.folder.minisig")).unwrap();
    // neither of these is looked at: another bundle's, the volumes' list, another end
    for other in ["b.tar.sha256.minisig", "b.tar.minisig", "b.tar.x.minisig.bak", "bb.tar.x.minisig"] {
        site.write(other, "nothing");
    }
    let told = site.ferry("verify b.tar --keys keys --require 2").ok();
    told.says(&[
        &format!("note: `b.tar.{stranger}.minisig` does not count as a signature: it is by key {stranger}"),
        "warning: `b.tar.notes.minisig` does not count",
        "warning: `b.tar.large.sig` does not count as a signature: it has more than",
        "warning: `b.tar.folder.minisig` does not count as a signature: it is not a regular file",
    ]);
    assert_eq!(told.stderr.matches("does not count").count(), 4, "{}", told.stderr);
    // a damaged one by a key that is trusted stops everything, whoever else signed
    let file = format!("b.tar.{bob}.minisig");
    let mut signature = site.bytes(&file);
    let at = signature.len() - 20;
    signature[at] ^= 1;
    site.write(&file, &signature);
    all_end(&site, "--keys keys", 3, &[&file, "bad signature", &format!("bob ({bob})")]);
    all_end(&site, "--keys keys --allow-unsigned", 3, &[&file, "bad signature"]);
    all_end(&site, "--key keys/alice.pub", 0, &[&format!("note: `{file}` does not count")]);
    site.ferry("inspect b.tar --keys keys").run().expect_code(3).says(&[&file]);
    site.ferry("sign b.tar --sign-key alice.key --keys keys").run().expect_code(3).says(&[&file]);
    assert!(!site.at(&format!("b.tar.{alice}.minisig")).exists());
}

#[test]
fn a_key_is_replaced() {
    require!("docker-registry");
    let (source, _, site) = one();
    let (old, new) = (person(&site, "release-2025"), person(&site, "release-2026"));
    let bundle = |name: &str, key: &str| {
        let line = format!("bundle {}/app/one:1 {FOR} --name {name} -o {name}.tar --sign-key {key}.key", source.host());
        let _ = site.ferry(&line).ok();
    };
    bundle("before", "release-2025");
    bundle("during", "release-2025");
    let _ = site.ferry("sign during.tar --sign-key release-2026.key").ok();
    bundle("after", "release-2026");
    let verify = |name: &str| site.ferry(&format!("verify {name}.tar --keys keys")).run();
    // both keys are here
    for (name, by) in [("before", "release-2025"), ("during", "release-2026"), ("after", "release-2026")] {
        verify(name).expect_code(0).says(&[by]);
    }
    // one that was not reached by the new key yet
    fs::rename(site.at("keys/release-2026.pub"), site.at("new.pub")).unwrap();
    let _ = verify("before").expect_code(0);
    verify("during").expect_code(0).says(&[&format!("note: `during.tar.{new}.minisig` does not count")]);
    verify("after").expect_code(3).says(&[&format!("signed by key {new}, which is not trusted"), "release-2025"]);
    // the old key is given up
    fs::rename(site.at("new.pub"), site.at("keys/release-2026.pub")).unwrap();
    fs::remove_file(site.at("keys/release-2025.pub")).unwrap();
    let known = format!("trusted: release-2026 ({new})");
    verify("before").expect_code(3).says(&[
        &format!("signed by key {old}, which is not trusted"),
        &known,
        "ferry sign",
    ]);
    verify("during").expect_code(0).says(&[&format!("signed by release-2026 ({new})")]);
    let _ = verify("after").expect_code(0);
    // and what was signed by it alone is signed anew
    let _ = site.ferry("sign before.tar --sign-key release-2026.key").ok();
    let _ = verify("before").expect_code(0);
    let ready = site.ferry("verify before.tar").env("FERRY_KEYS", site.at("keys")).ok();
    ready.says(&["release-2026"]);
}

#[test]
fn only_the_bundle_that_is_expected_is_used() {
    require!("docker-registry");
    let (source, _, site) = one();
    site.write(
        "m.yaml",
        format!("name: shop\nversion: 2.4.0\nplatforms: [linux/amd64]\nimages: [\"{}/app/one:1\"]\n", source.host()),
    );
    let _ = site.ferry(&format!("bundle m.yaml -o b.tar {SIGN}")).ok();
    for good in ["shop", "shop@2.4.0", "other --expect shop"] {
        all_end(&site, &format!("--key ferry.pub --expect {good}"), 0, &[]);
    }
    for wrong in ["other", "shop@2.4", "shop@2.5.0", "other@2.4.0"] {
        let says = format!("`b.tar` is bundle `shop@2.4.0`, and `{wrong}` is expected");
        all_end(&site, &format!("--key ferry.pub --expect {wrong}"), 3, &[&says, "look for the right one"]);
        site.ferry(&format!("sign b.tar --sign-key ferry.key --expect {wrong}")).run().expect_code(3).says(&[&says]);
    }
    site.ferry("rewrite --relocation r.json --expect shop").run().expect_code(2).says(&["`--bundle`"]);
    for (slip, meant) in [("shp", "shop"), ("Shop", "shop"), ("shpo@2.4.0", "shop@2.4.0")] {
        let says = format!("did you mean `--expect {meant}`?");
        all_end(&site, &format!("--key ferry.pub --expect {slip}"), 3, &[&says]);
    }
    // recovery files are no way to another bundle, nor to another signature
    let _ = site.ferry("protect b.tar --key ferry.pub").ok();
    for options in ["--expect other", "--require 2"] {
        let told = site.ferry(&format!("verify b.tar --key ferry.pub {options}")).run().expect_code(3);
        assert!(!told.stderr.contains("ferry repair"), "{}", told.stderr);
    }
    let mut bytes = site.bytes("b.tar");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    site.write("b.tar", bytes);
    for line in ["verify b.tar", "install b.tar --store store"] {
        site.ferry(&format!("{line} --key ferry.pub")).run().expect_code(3).says(&["`ferry repair b.tar`"]);
    }
}

#[test]
fn what_is_no_key_is_told_with_what_to_do() {
    require!("docker-registry", "openssl");
    let (_source, _, site) = bundled();
    fs::create_dir(site.at("keys")).unwrap();
    let rsa = "openssl genrsa 1024 | openssl rsa -pubout -out rsa.pem";
    let made = std::process::Command::new("sh").args(["-c", rsa]).current_dir(site.path()).output().unwrap();
    assert!(made.status.success());
    for (options, code, words) in [
        ("--keys keys", 2, ["no public key is in `keys`", "put the signers' public keys there"]),
        ("--keys ferry.pub", 2, ["`ferry.pub` is a file", "`--key ferry.pub`"]),
        ("--key keys", 2, ["`keys` is a folder", "`--keys keys`"]),
        ("--key rsa.pem", 1, ["it is an RSA key", "as `ferry keygen`"]),
        ("--key ferry.key", 1, ["it is a secret key", "NAME.pub"]),
        ("", 2, ["no public key is given", "`FERRY_KEYS`"]),
    ] {
        site.ferry(&format!("verify b.tar {options}")).run().expect_code(code).says(&words);
    }
    site.ferry("sign b.tar --sign-key ferry.pub").run().expect_code(1).says(&["it is a public key", "NAME.key"]);
    site.ferry("sign b.tar --sign-key keys").run().expect_code(2).says(&["`keys` is a folder", "keys/ferry.key"]);
    // keys that are named add to those of the folder
    let _ = site.ferry("keygen --out keys --name release-2026 --no-password").ok();
    let _ = site.ferry("sign b.tar --sign-key keys/release-2026.key").ok();
    let told = site.ferry("verify b.tar --key ferry.pub --require 2").env("FERRY_KEYS", "keys").ok();
    told.says(&["signed by ferry (", " and release-2026 ("]);
    for bad in ["", "a/b", ".hidden"] {
        let _ = site.ferry("keygen --no-password --name").arg(bad).run().expect_code(2);
    }
}

#[test]
fn signatures_stand_beside_volumes() {
    require!("docker-registry");
    let (_source, _, site, [alice, bob]) = two_people();
    let bytes = site.bytes("b.tar");
    let room = bytes.len() / 3 + 1;
    for (i, volume) in bytes.chunks(room).enumerate() {
        site.write(&format!("disk{}/b.tar.{:03}", i % 2, i + 1), volume);
    }
    fs::remove_file(site.at("b.tar")).unwrap();
    let volumes = "disk0/b.tar.001 disk1/b.tar.002";
    site.ferry(&format!("sign {volumes} --sign-key bob.key --keys keys")).ok().says(&[&format!("alice ({alice})")]);
    let file = format!("disk0/b.tar.{bob}.minisig");
    let signature = site.bytes(&file);
    site.ferry(&format!("sign {volumes} --sign-key alice.key --keys keys --require 2")).ok().says(&["and bob ("]);
    // from whatever folder a volume is in
    fs::rename(site.at(&file), site.at(&format!("disk1/b.tar.{bob}.minisig"))).unwrap();
    site.ferry(&format!("sign {volumes} --sign-key alice.key --keys keys --require 2")).ok().says(&["and bob ("]);
    // also where they come one after the other
    fs::rename(site.at("disk0/b.tar.003"), site.at("kept")).unwrap();
    let mut waiting = site.ferry(&format!("verify {volumes} --wait-for-volume=30 --keys keys --require 2")).start();
    waiting.until("it asks for the third", || true);
    for _ in 0..300 {
        if waiting.stderr().contains("b.tar.003") {
            break;
        }
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    fs::rename(site.at("kept"), site.at("disk0/b.tar.003")).unwrap();
    waiting.wait().expect_code(0).says(&["alice", "bob"]);
    site.write(&format!("disk1/b.tar.{bob}.minisig"), &signature[..signature.len() - 9]);
    site.ferry(&format!("sign {volumes} --sign-key alice.key --keys keys"))
        .run()
        .expect_code(3)
        .says(&["disk1/b.tar."]);
}

#[test]
fn volumes_that_nobody_signed_are_signed_beside() {
    require!("docker-registry", "tar");
    let (source, _, site) = one();
    let [alice, bob] = ["alice", "bob"].map(|name| person(&site, name));
    // the smallest volumes that there are, of an image that needs several
    let large = Image::single("linux/amd64", Format::Oci, vec![Layer::random(7, 150_000)]);
    source.push("app/large:1", &large);
    let line = format!("bundle {}/app/large:1 {FOR} -o b.tar --unsigned --volume-size 64KiB", source.host());
    let _ = site.ferry(&line).ok();
    assert!(site.at("b.tar.002").exists() && site.at("b.tar.sha256").exists(), "{:?}", site.names());
    site.ferry("verify b.tar.001 --keys keys").run().expect_code(3).says(&["is not signed"]);
    for person in ["alice", "bob"] {
        let _ = site.ferry(&format!("sign b.tar.001 --sign-key {person}.key")).ok();
    }
    // under the common name, by any volume, cold, and as its volumes come one after the other
    for named in ["b.tar", "b.tar.002", "--cold b.tar"] {
        let told = site.ferry(&format!("verify {named} --keys keys --require 2")).ok();
        told.says(&[&format!("alice ({alice})"), &format!("bob ({bob})")]);
    }
    let _ = site.ferry("install b.tar.001 --store store --out out --keys keys --require 2").ok();
    // who signed says nothing of a damaged volume
    let mut volume = site.bytes("b.tar.002");
    volume[40_000] ^= 1;
    site.write("b.tar.002", volume);
    site.ferry("verify b.tar --keys keys --require 2").run().expect_code(3).says(&["damaged", "b.tar.002"]);
    let _ = site.ferry("sign b.tar --sign-key alice.key --out again").run().expect_code(3);
    assert!(!site.at("again").exists());
}

#[test]
fn a_pipe_has_nothing_beside_it() {
    require!("docker-registry");
    let (_source, _, site, [_, bob]) = two_people();
    let _ = site.ferry("sign b.tar --sign-key bob.key").ok();
    let pipe = |options: &str| site.ferry(&format!("verify - --keys keys {options}")).stdin(&site.at("b.tar")).run();
    let _ = pipe("").expect_code(0);
    pipe("--require 2").expect_code(3).says(&["signed by 1 of the trusted keys"]);
    assert!(site.at(&format!("b.tar.{bob}.minisig")).exists());
}
