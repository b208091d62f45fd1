//! Who signed: tables over signatures inside and beside, keys, and what is asked.

use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use ferry_archive::signers::{Beside, Form};
use ferry_archive::{Error, PublicKey, SecretKey, Signed, Trust, TrustedKey, keys};
use ferry_content::{Failure as _, Kind};
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair as _};

const SUMS: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855  ferry.json\n";
const P256: &str = "3059301306072a8648ce3d020106082a8648ce3d030107034200";
const ED25519: &str = "302a300506032b6570032100";

fn minisign() -> SecretKey {
    let (secret, _) = keys::generate(None).expect("pair");
    SecretKey::from_text(&secret, None).expect("key")
}

fn named(name: &str, key: PublicKey) -> TrustedKey {
    TrustedKey { name: Some(name.to_owned()), key }
}

fn beside(label: &str, form: Form, content: impl Into<Vec<u8>>) -> Beside {
    let end = if form == Form::Minisign { "minisig" } else { "sig" };
    Beside {
        path: PathBuf::from(format!("b.tar.{label}.{end}")),
        label: label.to_owned(),
        form,
        content: Ok(content.into()),
    }
}

fn check(keys: &[TrustedKey], require: usize, inside: Option<&str>, files: &[Beside]) -> Result<Signed, Error> {
    let trust = Trust { keys: keys.to_vec(), require, allow_unsigned: false };
    trust.check(Path::new("b.tar"), SUMS.as_bytes(), inside, files)
}

fn pem(prefix: &str, key: &[u8]) -> String {
    let prefix = (0..prefix.len()).step_by(2).map(|i| u8::from_str_radix(&prefix[i..i + 2], 16).expect("hex"));
    let der: Vec<u8> = prefix.chain(key.iter().copied()).collect();
    format!("-----BEGIN PUBLIC KEY-----\n{}\n-----END PUBLIC KEY-----\n", BASE64.encode(der))
}

/// A key of cosign's usual kind, and its signature of the sums as `cosign sign-blob` writes it.
fn cosign() -> (PublicKey, String) {
    let random = SystemRandom::new();
    let pkcs8 = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, &random).expect("pair");
    let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, pkcs8.as_ref(), &random).expect("pair");
    let signature = pair.sign(&random, SUMS.as_bytes()).expect("signature");
    let key = PublicKey::from_text(&pem(P256, pair.public_key().as_ref())).expect("key");
    (key, BASE64.encode(signature))
}

/// With the first line that plain minisign writes of its own accord.
fn by_minisign(key: &SecretKey) -> String {
    key.sign(SUMS, "demo", None)
        .replace(&format!("signature of a ferry bundle by key {}", key.key_id()), "signature from minisign secret key")
}

#[test]
fn distinct_trusted_keys_are_counted() {
    let (a, b, stranger) = (minisign(), minisign(), minisign());
    let (c, c_signature) = cosign();
    let keys = [named("a", a.public_key()), named("b", b.public_key()), named("c", c)];
    let text = |key: &SecretKey| key.sign(SUMS, "demo", Some("1"));
    let file = |key: &SecretKey| beside(&key.key_id().to_string(), Form::Minisign, text(key));
    let cosign = || beside("c", Form::Cosign, c_signature.clone());
    let (a_inside, s_inside) = (text(&a), text(&stranger));
    type Case<'a> = (&'a str, Option<&'a str>, Vec<Beside>, &'a [&'a str], usize);
    let table: Vec<Case<'_>> = vec![
        ("inside only", Some(&a_inside), vec![], &["a"], 0),
        ("beside only", None, vec![file(&a)], &["a"], 0),
        ("inside and beside are one", Some(&a_inside), vec![file(&a)], &["a"], 0),
        ("the same file twice is one", None, vec![file(&a), file(&a)], &["a"], 0),
        ("two", Some(&a_inside), vec![file(&b)], &["a", "b"], 0),
        ("three, in every form", Some(&a_inside), vec![file(&b), cosign()], &["a", "b", "c"], 0),
        ("cosign only", None, vec![cosign()], &["c"], 0),
        ("a stranger inside, a friend beside", Some(&s_inside), vec![file(&b)], &["b"], 0),
        ("a stranger beside", Some(&a_inside), vec![file(&stranger)], &["a"], 1),
        ("minisign's own comments", None, vec![beside("x", Form::Minisign, by_minisign(&b))], &["b"], 0),
        ("line ends of Windows", None, vec![beside("x", Form::Minisign, text(&a).replace('\n', "\r\n"))], &["a"], 0),
        (
            "base64 in lines",
            None,
            vec![beside("x", Form::Cosign, format!("{}\n{}\n", &c_signature[..64], &c_signature[64..]))],
            &["c"],
            0,
        ),
    ];
    for (what, inside, files, names, uncounted) in table {
        for require in 0..4 {
            let found = check(&keys, require, inside, &files);
            if require > names.len() {
                let error = found.expect_err(what);
                assert!(
                    matches!(&error, Error::TooFewSignatures { found, .. } if found.len() == names.len()),
                    "{what}: {error}"
                );
                assert!(names.iter().all(|name| error.to_string().contains(name)), "{what}: {error}");
                continue;
            }
            let found = found.unwrap_or_else(|e| panic!("{what}: {e}"));
            let signers: Vec<_> = found.signers.iter().filter_map(|s| s.key.name.as_deref()).collect();
            assert_eq!((signers.as_slice(), found.uncounted.len()), (names, uncounted), "{what}");
        }
    }
}

#[test]
fn who_is_not_trusted_is_named() {
    let (a, stranger) = (minisign(), minisign());
    let (_, by_c) = cosign();
    let keys = [named("release-2026", a.public_key())];
    let strange = beside("x", Form::Minisign, stranger.sign(SUMS, "demo", None));
    let inside = stranger.sign(SUMS, "demo", None);
    let id = stranger.key_id().to_string();
    let own = format!("release-2026 ({})", a.key_id());
    let table: [(Option<&str>, Vec<Beside>, Vec<&str>); 5] = [
        (None, vec![], vec!["is not signed"]),
        (Some(&inside), vec![], vec!["signed by key", &id, "not trusted here", &own]),
        (None, vec![strange.clone()], vec!["no key that is trusted here", &own, "b.tar.x.minisig", &id]),
        (None, vec![beside("c", Form::Cosign, by_c)], vec!["no key that is trusted here", "b.tar.c.sig", "by no key"]),
        (None, vec![beside("y", Form::Minisign, "hello")], vec!["b.tar.y.minisig", "no signature in minisign's form"]),
    ];
    for (inside, files, says) in table {
        let error = check(&keys, 1, inside, &files).expect_err("not trusted");
        assert_eq!(error.kind(), Kind::Untrusted);
        for words in says {
            assert!(error.to_string().contains(words), "{words}: {error}");
        }
        let lenient = Trust { keys: keys.to_vec(), require: 1, allow_unsigned: true };
        let found = lenient.check(Path::new("b.tar"), SUMS.as_bytes(), inside, &files).expect("lenient");
        assert_eq!((found.signers.len(), found.uncounted.len()), (0, files.len()));
        let strict = Trust { require: 2, ..lenient };
        assert!(strict.check(Path::new("b.tar"), SUMS.as_bytes(), inside, &files).is_err(), "two are two");
    }
}

#[test]
fn one_key_in_two_formats_is_one_signer() {
    let a = minisign();
    let PublicKey::Minisign(public) = a.public_key() else { panic!("minisign") };
    let bytes = BASE64.decode(public.to_base64()).expect("base64");
    let same = PublicKey::from_text(&pem(ED25519, &bytes[10..])).expect("key");
    assert!(same.is_same(&a.public_key()) && same != a.public_key());
    let pair = {
        let secret = keys::generate(None).expect("pair").0;
        let raw = BASE64.decode(secret.lines().nth(1).expect("line")).expect("base64");
        ring::signature::Ed25519KeyPair::from_seed_unchecked(&raw[62..94]).map(|pair| (secret, pair)).expect("pair")
    };
    let (secret, pair) = pair;
    let secret = SecretKey::from_text(&secret, None).expect("key");
    let spki = PublicKey::from_text(&pem(ED25519, pair.public_key().as_ref())).expect("key");
    let keys = [named("minisign", secret.public_key()), named("cosign", spki)];
    let raw = beside("cosign", Form::Cosign, BASE64.encode(pair.sign(SUMS.as_bytes())));
    let inside = secret.sign(SUMS, "demo", None);
    let found = check(&keys, 1, Some(&inside), std::slice::from_ref(&raw)).expect("one");
    assert_eq!((found.signers.len(), found.signers[0].inside, found.signers[0].files.len()), (1, true, 1));
    assert!(matches!(check(&keys, 2, Some(&inside), &[raw]), Err(Error::TooFewSignatures { .. })));
}

/// Every bit of `file` flipped, one after the other; `found` says what is made of it.
fn flipped(file: &Beside, mut each: impl FnMut(usize, &Beside)) {
    let content = file.content.clone().expect("content");
    for at in 0..content.len() {
        for bit in 0..8 {
            let mut damaged = content.clone();
            damaged[at] ^= 1 << bit;
            each(at, &Beside { content: Ok(damaged), ..file.clone() });
        }
    }
}

#[test]
fn every_bit_of_a_signature_beside_counts() {
    let (a, b) = (minisign(), minisign());
    let (c, c_signature) = cosign();
    let keys = [named("a", a.public_key()), named("b", b.public_key()), named("c", c)];
    let inside = a.sign(SUMS, "demo", None);
    let check = |file: &Beside| check(&keys, 1, Some(&inside), std::slice::from_ref(file));
    let broken = |file: &Beside, at: usize| {
        let error = check(file).expect_err(&format!("byte {at} of {file:?}"));
        assert!(matches!(&error, Error::Signature { path, .. } if *path == file.path), "byte {at}: {error}");
    };
    // as `ferry sign` makes and names it, or under another name
    for label in [b.key_id().to_string(), "bob".to_owned()] {
        let file = beside(&label, Form::Minisign, b.sign(SUMS, "demo", Some("1")));
        flipped(&file, |at, damaged| broken(damaged, at));
    }
    // as minisign makes it: nothing signs the first line, and nothing rests on it
    let comment = "untrusted comment: signature from minisign secret key";
    let file = beside("bob", Form::Minisign, by_minisign(&b));
    flipped(&file, |at, damaged| {
        if at < "untrusted comment: ".len() || at >= comment.len() {
            broken(damaged, at);
        }
    });
    // named after its key
    let file = beside("c", Form::Cosign, format!("{c_signature}\n"));
    flipped(&file, |at, damaged| broken(damaged, at));
    // named otherwise: it is said not to count
    let file = beside("other", Form::Cosign, c_signature);
    flipped(&file, |at, damaged| {
        let found = check(damaged).expect("a");
        assert_eq!((found.signers.len(), found.uncounted.len()), (1, 1), "byte {at}");
    });
}

#[test]
fn a_signature_of_other_sums_is_named() {
    let (a, b) = (minisign(), minisign());
    let keys = [named("a", a.public_key()), named("b", b.public_key())];
    let inside = a.sign(SUMS, "demo", None);
    let other = b.sign(&SUMS.replace("ferry", "other"), "demo", None);
    for (label, content) in [("bob".to_owned(), other), (b.key_id().to_string(), "nothing".to_owned())] {
        let file = beside(&label, Form::Minisign, content);
        let error = check(&keys, 1, Some(&inside), std::slice::from_ref(&file)).expect_err("other sums");
        assert!(matches!(&error, Error::Signature { path, .. } if *path == file.path), "{error}");
        assert!(error.to_string().contains(&format!("b ({})", b.key_id())), "{error}");
    }
    // what cannot be read at all is not counted
    let unreadable = Beside { content: Err("it is not a regular file".to_owned()), ..beside("x", Form::Minisign, "") };
    let found = check(&keys, 1, Some(&inside), &[unreadable]).expect("a");
    assert!(!found.uncounted[0].is_signature);
}
