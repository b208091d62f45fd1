//! Format 1, frozen: bundles that were written once are read for ever, and a bundle written today is the one written years ago.
//! `golden/README.md` has the rules.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use ferry_archive::{
    Build, Bundle, Error, Head, HeadBase, HeadPlatform, HeadRelied, HeadVerified, PublicKey, SecretKey, Trust,
    TrustedKey,
};
use ferry_image::{Descriptor, Digest, Ignore, Platform, SetRule, media_type};

use crate::fixture::{self, Parts, build, check, empty, parts};

/// A second key pair that is used nowhere else, made by `minisign -G -W`.
const SECOND: &str = "untrusted comment: minisign encrypted secret key\nRWQAAEIyAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA1rz4ARBZTTKe6q2Z0t6cNKL0wePcac1AZ6ytfFUIQfe3scxFXsQgop5nWGVkQzj9S4rgSQxMmIOgsRUNOAPpXxIgtJ0On7/OAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=\n";

/// A bundle of the folder `golden`.
struct Golden {
    file: &'static str,
    parts: Parts,
    signed: bool,
    /// The digest of its sums.
    sums: &'static str,
    /// The digest of the file.
    whole: &'static str,
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/archive/golden")
}

fn all() -> [Golden; 5] {
    [
        Golden {
            file: "signed.tar",
            parts: parts(),
            signed: true,
            sums: "sha256:d36bf1669641d562105ff173828f09124f92bac0f40132529c00c8444c66808e",
            whole: "sha256:3e0855402358fe9f56496a9ec18ee107ef048608ed25248a59e47a7695b1b4c0",
        },
        Golden {
            file: "unsigned.tar",
            parts: unsigned(),
            signed: false,
            sums: "sha256:733cfc9b77dd2cea0c209a53a1110b1c9e28f84b850c720d2f9b4be194c4847a",
            whole: "sha256:6e021b66197ff552f0399f3f1378d4b56b9b913ec9e8339572d1e64f49fe1f66",
        },
        Golden {
            file: "platforms.tar",
            parts: platforms(),
            signed: true,
            sums: "sha256:f6ba046f1c4d6e18ddbf62bd5458553e137f6c3bb5476baf042fcbc210348fcd",
            whole: "sha256:daac244c9116f60dff172ee7338c8f2a213297ba4882eddaf991a1b100bfda1a",
        },
        Golden {
            file: "delta.tar",
            parts: delta(),
            signed: true,
            sums: "sha256:508b63fb7f90c07ce638125b96580ef6978f74d7032b77895cdf74fcb2c9083c",
            whole: "sha256:9d0bc586a692d3256cb2aeed40b494079e8b3b4d618dfebe4d58e7c610740370",
        },
        Golden {
            file: "twice.tar",
            parts: twice(),
            signed: true,
            sums: "sha256:0474f16f44db20eccbe5a4266ed38c12db0eaa2d2bda0f73fb85410b15cb2fed",
            whole: "sha256:8891ba8187fa5bcb0869980528ca9650a9b326de4542324b59c871c77c1fa527",
        },
    ]
}

/// One image, no version, no signature; sizes at the borders of blocks.
fn unsigned() -> Parts {
    let mut parts = empty("unsigned", None);
    let manifest = parts.manifest(false, media_type::OCI_LAYER, &[b"", &[1; 511], &[2; 512], &[3; 513]]);
    parts.image("docker.io/library/one:1", &manifest, &manifest);
    parts
}

/// Two platforms under a whole index, signatures under cosign's tag and by OCI 1.1, an index that refers to the image, what was verified,
/// rules, what is ignored, names that need the prefix of the header.
fn platforms() -> Parts {
    let mut parts = empty("platforms", Some("2.0.0-rc.1+build@7"));
    let head = &mut parts.contents.head;
    head.platforms = vec!["linux/amd64".to_owned(), "linux/arm64/v8".to_owned()];
    head.layout = ferry_image::Layout::Host;
    head.set.push(SetRule {
        file: Some("app-*.yaml".to_owned()),
        kind: Some("Deployment".to_owned()),
        paths: vec!["spec.image".to_owned()],
        form: ferry_image::Form::RepositoryTag,
        image: "quay.io/team/app:2".parse().expect("reference"),
    });
    head.ignore.push(Ignore { image: "registry.k8s.io/pause:*".to_owned(), reason: "comes with the nodes".to_owned() });
    let amd64 = parts.manifest(false, media_type::OCI_LAYER_GZIP, &[b"shared", b"for amd64"]);
    let arm64 = parts.manifest(false, media_type::OCI_LAYER_ZSTD, &[b"shared zstd", b"for arm64"]);
    let of = |manifest: &Descriptor, architecture: &str, variant: Option<&str>| Descriptor {
        platform: Some(Platform::new("linux", architecture, variant)),
        ..manifest.clone()
    };
    let index = serde_json::json!({
        "schemaVersion": 2, "mediaType": media_type::OCI_INDEX,
        "manifests": [of(&amd64, "amd64", None), of(&arm64, "arm64", Some("v8"))],
    });
    let root = parts.blob(media_type::OCI_INDEX, index.to_string());
    let mut tagged = parts.manifest(false, "application/vnd.dev.cosign.simplesigning.v1+json", &[b"a payload"]);
    let tag = format!("sha256-{}.sig", root.digest.hex());
    tagged.annotations.insert("org.opencontainers.image.ref.name".to_owned(), tag);
    let signature = tagged.digest.clone();
    let mut sbom = referrer(&mut parts, &root, "application/spdx+json", b"an SBOM");
    sbom.artifact_type = Some("application/spdx+json".to_owned());
    let attestation = referrer(&mut parts, &amd64, "application/vnd.in-toto+json", b"an attestation");
    let list = serde_json::json!({
        "schemaVersion": 2, "mediaType": media_type::OCI_INDEX, "manifests": [attestation], "subject": root,
    });
    let list = parts.blob(media_type::OCI_INDEX, list.to_string());
    let bytes = parts.blobs[&list.digest].clone();
    parts.contents.manifests.insert(list.digest.clone(), bytes);
    let image = parts.image("quay.io/team/app:2", &root, &amd64);
    image.platforms[0].platform = Some(Platform::new("linux", "amd64", None));
    let platform = Some(Platform::new("linux", "arm64", Some("v8")));
    image.platforms.push(HeadPlatform { platform, manifest: arm64 });
    image.referrers = vec![tagged, sbom, list];
    image.verified.push(HeadVerified {
        key: Digest::of(b"a key"),
        key_file: "keys/vendor.pub".to_owned(),
        subject: root.digest.clone(),
        signature,
    });
    let deep = format!("files/{}/{}.txt", "a".repeat(90), "b".repeat(80));
    parts.file(&deep, "deep\n");
    parts.file("yaml/app-1.yaml", "kind: Deployment\nspec: {}\n");
    parts.file("yaml/sub/other.yaml", "image: quay.io/team/app:2\n");
    parts.file("bin/ferry", vec![0x7f; 2000]);
    parts
}

/// A manifest that refers to `subject`.
fn referrer(parts: &mut Parts, subject: &Descriptor, kind: &str, layer: &[u8]) -> Descriptor {
    let config = parts.blob("application/vnd.oci.empty.v1+json", "{}");
    let layer = parts.blob(kind, layer.to_vec());
    let json = serde_json::json!({
        "schemaVersion": 2, "mediaType": media_type::OCI_MANIFEST, "artifactType": kind,
        "config": config, "layers": [layer], "subject": subject,
    });
    let descriptor = parts.blob(media_type::OCI_MANIFEST, json.to_string());
    parts.contents.manifests.insert(descriptor.digest.clone(), json.to_string().into());
    descriptor
}

/// A delta: one image lacks a layer, another is whole.
fn delta() -> Parts {
    let mut parts = empty("shop", Some("2"));
    let lacking = parts.manifest(false, media_type::OCI_LAYER_GZIP, &[b"base layer", b"new layer"]);
    let whole = parts.manifest(false, media_type::OCI_LAYER_GZIP, &[b"new layer"]);
    parts.image("quay.io/shop/web:2", &lacking, &lacking);
    parts.image("quay.io/shop/tool:2", &whole, &whole);
    let left = Digest::of(b"base layer");
    parts.blobs.remove(&left);
    let head = &mut parts.contents.head;
    head.blobs.retain(|blob| blob.digest != left);
    head.bases = vec![
        HeadBase { name: "shop".to_owned(), version: Some("1".to_owned()), sums: Some(Digest::of(b"sums")) },
        HeadBase { name: "inventory".to_owned(), version: None, sums: None },
    ];
    let repositories = vec!["shop/tool".to_owned(), "shop/web".to_owned()];
    head.relies = vec![HeadRelied { digest: left, size: 10, repositories }];
    parts
}

/// Signed inside, and beside by two more: `twice.tar.KEYID.minisig` as `ferry sign` writes it, `twice.tar.cosign.sig` by openssl.
fn twice() -> Parts {
    let mut parts = empty("twice", Some("1.0"));
    let manifest = parts.manifest(true, media_type::DOCKER_LAYER_GZIP, &[b"a layer"]);
    parts.image("nginx:1.27", &manifest, &manifest);
    parts
}

fn key(file: &str) -> TrustedKey {
    let path = folder().join("keys").join(file);
    let key = PublicKey::from_text(&fs::read_to_string(path).expect("key")).expect("key");
    TrustedKey { name: file.split('.').next().map(ToOwned::to_owned), key }
}

fn trust(golden: &Golden) -> Trust {
    Trust { keys: vec![key("first.pub")], allow_unsigned: !golden.signed, require: 1 }
}

#[test]
fn what_was_written_once_is_read() {
    for golden in all() {
        let path = folder().join(golden.file);
        let bundle = check(&path, &trust(&golden)).unwrap_or_else(|e| panic!("{}: {e}", golden.file));
        assert_eq!(Digest::of(&fs::read(&path).expect("bytes")).to_string(), golden.whole, "{}", golden.file);
        assert_eq!(bundle.sums_digest().to_string(), golden.sums, "{}", golden.file);
        assert_eq!(bundle.signed().signers.len(), usize::from(golden.signed), "{}", golden.file);
        let expected = Head { blobs: bundle.head().blobs.clone(), ..golden.parts.contents.head.clone() };
        let found = Head { yaml: Vec::new(), files: Vec::new(), ..bundle.head().clone() };
        assert_eq!(found, expected, "{}", golden.file);
        let order: Vec<&Digest> = bundle.head().blobs.iter().map(|blob| &blob.digest).collect();
        assert_eq!(order, golden.parts.contents.head.blobs.iter().map(|blob| &blob.digest).collect::<Vec<_>>());
        for (digest, bytes) in &golden.parts.blobs {
            assert_eq!(&bundle.read_small(digest, 1 << 20).expect("blob"), bytes, "{} {digest}", golden.file);
        }
        for file in &golden.parts.contents.files {
            let ferry_archive::FileContent::Bytes(bytes) = &file.content else { panic!("bytes") };
            assert_eq!(&bundle.file(&file.name).expect("file"), bytes, "{} {}", golden.file, file.name);
        }
        assert_eq!(bundle.head().yaml.len() + bundle.head().files.len(), golden.parts.contents.files.len());
    }
}

#[test]
fn what_is_written_today_is_what_was_written() {
    let temporary = tempfile::tempdir().expect("folder");
    for golden in all() {
        for backwards in [false, true] {
            let path = temporary.path().join(golden.file);
            let secret = fixture::secret();
            let sealed = build(&golden.parts, &path, golden.signed.then_some(secret), backwards).expect("build");
            let bytes = fs::read(&path).expect("bytes");
            assert_eq!(sealed.sums_digest.to_string(), golden.sums, "{}", golden.file);
            assert_eq!(Digest::of(&bytes).to_string(), golden.whole, "{}", golden.file);
            assert!(bytes == fs::read(folder().join(golden.file)).expect("bytes"), "{}", golden.file);
        }
    }
}

#[test]
fn signatures_that_were_made_once_hold() {
    let path = folder().join("twice.tar");
    let keys = vec![key("first.pub"), key("second.pub"), key("cosign.pub")];
    let trust = Trust { keys: keys.clone(), allow_unsigned: false, require: 3 };
    let bundle = check_beside(&path, &trust).expect("three");
    let names: Vec<_> = bundle.signed().signers.iter().filter_map(|s| s.key.name.as_deref()).collect();
    assert_eq!(names, ["first", "second", "cosign"]);
    let second = SecretKey::from_text(SECOND, None).expect("key");
    let file = folder().join(format!("twice.tar.{}.minisig", second.key_id()));
    assert_eq!(bundle.sign(&second), fs::read_to_string(file).expect("signature"));
    let error = check_beside(&path, &Trust { keys: keys[..2].to_vec(), ..trust }).map(|_| ()).expect_err("two");
    assert!(matches!(error, Error::TooFewSignatures { required: 3, .. }), "{error}");
}

/// Opens and verifies by position: what comes through a pipe has nothing beside it.
fn check_beside(path: &Path, trust: &Trust) -> Result<Bundle, Error> {
    let bundle = Bundle::open(path, trust)?;
    bundle.verify(2, false, &|_| {})?;
    Ok(bundle)
}

/// What the reader in Python, which was written from the specification alone, says: its exit code, a line of JSON for each
/// bundle, its errors.
fn python(arguments: &[&str]) -> Option<(Option<i32>, Vec<serde_json::Value>, String)> {
    let reader = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/archive/reader.py");
    let output = Command::new("python3").arg("-B").arg(reader).args(arguments).output();
    let Ok(output) = output else {
        assert!(std::env::var("CI").as_deref() != Ok("true"), "python3 is missing");
        skipped("another reader of bundles: needs python3");
        return None;
    };
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    let lines = String::from_utf8_lossy(&output.stdout);
    let lines = lines.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    Some((output.status.code(), lines, said))
}

/// A line for the summary of `scripts/test`.
fn skipped(what: &str) {
    use std::io::Write as _;
    if let Some(log) = std::env::var_os("FERRY_SKIP_LOG") {
        let mut log = fs::File::options().append(true).create(true).open(log).expect("skip log");
        writeln!(log, "SKIP {what}").expect("skip log");
    }
}

#[test]
fn another_reader_finds_the_same() {
    let keys = folder().join("keys");
    let at = |name: &str| keys.join(name).display().to_string();
    for golden in all() {
        let path = folder().join(golden.file).display().to_string();
        let mut arguments = vec![path.as_str()];
        let (first, second, cosign) = (at("first.pub"), at("second.pub"), at("cosign.pub"));
        let count = if golden.file == "twice.tar" { "3" } else { "1" };
        if golden.signed {
            arguments.extend(["--key", &first, "--key", &second, "--key", &cosign, "--require", count]);
        }
        let Some((code, lines, said)) = python(&arguments) else { return };
        let found = &lines[0];
        assert_eq!(code, Some(0), "{}: {said}", golden.file);
        let head = &golden.parts.contents.head;
        assert_eq!(found["name"], head.name.as_str());
        assert_eq!(found["version"].as_str(), head.version.as_deref());
        assert_eq!(format!("sha256:{}", found["sums"].as_str().expect("sums")), golden.sums);
        assert_eq!(found["blobs"], golden.parts.blobs.len());
        assert_eq!(found["relies"], head.relies.len());
        assert_eq!(found["images"].as_array().map(Vec::len), Some(head.images.len()));
        assert_eq!(found["files"].as_array().map(Vec::len), Some(golden.parts.contents.files.len()));
        assert_eq!(
            found["signers"].as_array().map(|signers| signers.len().to_string()).as_deref(),
            golden.signed.then_some(count).or(Some("0"))
        );
    }
}

#[test]
fn another_reader_refuses_what_is_refused_here() {
    let temporary = tempfile::tempdir().expect("folder");
    let bytes = fs::read(folder().join("platforms.tar")).expect("bytes");
    let trust = Trust { keys: vec![key("first.pub")], ..Trust::default() };
    let mut written = Vec::new();
    let mut refused = |content: &[u8], what: &str| {
        let path = temporary.path().join(format!("{what}.tar"));
        fs::write(&path, content).expect("write");
        assert!(check(&path, &trust).is_err(), "{what}");
        written.push(path.display().to_string());
    };
    // a bit in every kind of place: each member's header, start, end and padding, and the end marker
    let mut at = 0;
    let mut places = Vec::new();
    while at + 1024 < bytes.len() {
        let header: &ferry_archive::member::Header = bytes[at..at + 512].try_into().expect("header");
        let Some(found) = ferry_archive::member::read(header) else { break };
        let size = found.size.expect("size") as usize;
        places.extend([at + 5, at + 150]);
        places.extend((size > 0).then_some([at + 512, at + 512 + size - 1]).into_iter().flatten());
        places.extend((!size.is_multiple_of(512)).then_some(at + 512 + size));
        at += 512 + size.next_multiple_of(512);
    }
    assert!(places.len() > 80 && bytes.len() - at == 1024);
    places.push(bytes.len() - 1);
    for (i, at) in places.into_iter().enumerate() {
        let mut damaged = bytes.clone();
        damaged[at] ^= 1 << (i % 8);
        refused(&damaged, &format!("byte {at}"));
    }
    for end in [0, 100, 512, 5000, bytes.len() - 1024, bytes.len() - 1] {
        refused(&bytes[..end], &format!("cut at {end}"));
    }
    refused(&[bytes.as_slice(), &[0]].concat(), "a byte too many");
    let (other, _) = ferry_archive::keys::generate(None).expect("pair");
    let other = SecretKey::from_text(&other, None).expect("key");
    let path = temporary.path().join("other.tar");
    build(&twice(), &path, Some(std::sync::Arc::new(other)), false).expect("build");
    refused(&fs::read(&path).expect("bytes"), "another key");
    let first = folder().join("keys/first.pub").display().to_string();
    let arguments: Vec<&str> = ["--key", &first].into_iter().chain(written.iter().map(String::as_str)).collect();
    let Some((code, lines, said)) = python(&arguments) else { return };
    assert_eq!((code, lines.len()), (Some(3), written.len()), "{said}");
    let taken: Vec<_> = written.iter().zip(&lines).filter(|(_, line)| !line.is_null()).collect();
    assert!(taken.is_empty(), "{taken:?}");
    assert_eq!(said.lines().filter(|line| line.starts_with("refused: ")).count(), written.len(), "{said}");
}

/// Writes the bundles that are not there yet: the way in which all of them were made.
#[test]
#[ignore = "run by hand, to add a bundle to the folder"]
fn write_those_that_are_missing() {
    for golden in all() {
        let path = folder().join(golden.file);
        if !path.exists() {
            let secret = fixture::secret();
            let sealed = build(&golden.parts, &path, golden.signed.then_some(secret), false).expect("build");
            let whole = Digest::of(&fs::read(&path).expect("bytes"));
            eprintln!("{}: sums {}, whole {whole}", golden.file, sealed.sums_digest);
        }
    }
    let second = SecretKey::from_text(SECOND, None).expect("key");
    let twice = Bundle::open(&folder().join("twice.tar"), &Trust { allow_unsigned: true, ..Trust::default() });
    let file = folder().join(format!("twice.tar.{}.minisig", second.key_id()));
    if !file.exists() {
        fs::write(file, twice.expect("bundle").sign(&second)).expect("write");
    }
}

/// The folder of the volumes, each of these many bytes but the last.
const VOLUMES: (&str, u64) = ("volumes", 5000);

/// `twice.tar` once more, in volumes with their list.
fn write_volumes(folder: &Path) {
    let base = folder.join("twice.tar");
    let how = Build { sign: Some(fixture::secret()), volume: Some(VOLUMES.1), ..Build::default() };
    fixture::build_split(&twice(), &base, how, false).expect("build");
}

#[test]
fn volumes_and_their_list_do_not_change() {
    let golden = folder().join(VOLUMES.0);
    let files = |folder: &Path| {
        let mut names: Vec<_> = fs::read_dir(folder).expect("list").map(|e| e.expect("entry").file_name()).collect();
        names.sort();
        names.into_iter().map(|name| (name.clone(), fs::read(folder.join(name)).expect("read"))).collect::<Vec<_>>()
    };
    let written = tempfile::tempdir().expect("folder");
    write_volumes(written.path());
    let (now, then) = (files(written.path()), files(&golden));
    assert_eq!(
        now.iter().map(|(name, _)| name).collect::<Vec<_>>(),
        then.iter().map(|(name, _)| name).collect::<Vec<_>>()
    );
    for ((name, now), (_, then)) in now.iter().zip(&then) {
        assert!(now == then, "{} is written otherwise than it was", name.display());
    }
    check(&golden.join("twice.tar"), &fixture::trust()).expect("whole");
    let joined: Vec<u8> =
        then.iter().filter(|(name, _)| is_volume(name)).flat_map(|(_, bytes)| bytes.clone()).collect();
    assert!(joined == fs::read(folder().join("twice.tar")).expect("read"), "the volumes join to the file");
}

fn is_volume(name: &std::ffi::OsStr) -> bool {
    ferry_archive::volumes::parse(Path::new(name)).is_some()
}

#[test]
#[ignore = "writes the volumes of golden/ if they are missing"]
fn write_the_volumes_that_are_missing() {
    let golden = folder().join(VOLUMES.0);
    if !golden.exists() {
        fs::create_dir(&golden).expect("folder");
        write_volumes(&golden);
    }
}
