//! A small certificate authority in a folder, for a site that has none.
//!
//! ```text
//! FOLDER/ca.crt      what nodes are given; it stays the same for twenty years. Lost, it is made anew for the same key
//! FOLDER/ca.key      0600
//! FOLDER/server.pem  0600: the key and the certificate of the server, made anew when it runs out or lacks a name
//! FOLDER/lock        held while any of them is looked at or made
//! ```
//!
//! Several servers may share the folder. They have one authority, and one certificate if it has the names of both; otherwise each goes on
//! with the one that it has, and the file is that of whoever needed a new one last.
//!
//! Two certificates and not one that signs itself: rustls takes no authority for a server, and others take nothing but authorities as roots.

use std::fs::{DirBuilder, File, Permissions, TryLockError};
use std::io::ErrorKind as E;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::Path;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use ferry_content::texts;
use ferry_image::Digest;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    PublicKeyData as _,
};
use rustls::CertificateError::{Expired, ExpiredContext, NotValidYet, NotValidYetContext};
use rustls::client::{verify_server_cert_signed_by_trust_anchor, verify_server_name};
use rustls::crypto::CryptoProvider;
use rustls::server::ParsedCertificate;
use rustls::sign::CertifiedKey;
use rustls::{CertificateError, RootCertStore};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};

use crate::Error;
use crate::server::tls::{Authority, Found, chain, read_key};

const DAY: Duration = Duration::from_secs(24 * 3600);
/// Clocks inside an air gap go wrong, and nobody sets them: a certificate is good from so long ago.
const BEFORE: Duration = DAY.saturating_mul(365);
/// Whoever replaces an authority visits every node.
const AUTHORITY: Duration = DAY.saturating_mul(20 * 365);
const SERVER: Duration = DAY.saturating_mul(397);
/// A certificate with less left is made anew.
const LEFT: Duration = DAY.saturating_mul(30);
/// How long another server is waited for; it needs milliseconds.
const PATIENCE: Duration = Duration::from_secs(10);

/// A server's certificate, and who made it.
pub(crate) struct Made {
    pub(crate) chain: Vec<CertificateDer<'static>>,
    pub(crate) key: PrivateKeyDer<'static>,
    pub(crate) authority: Authority,
}

/// The certificate in `folder`, if it is good for `names` and for a while yet; otherwise a new one. `None` where the one `in_use` is good,
/// and that of the folder is not: another server made it, for itself. Blocking.
pub(crate) fn certificate(
    folder: &Path,
    names: &[String],
    provider: &CryptoProvider,
    now: SystemTime,
    in_use: Option<&CertificateDer<'static>>,
) -> Result<Option<Made>, Error> {
    let fail = |why: String, hint| Error::Authority { folder: folder.to_owned(), why, hint };
    if let Some(name) = names.iter().find(|name| ServerName::try_from(name.replace('*', "x")).is_err()) {
        return Err(Error::Tls { why: format!("`{name}` is no name that a certificate can have") });
    }
    if in_use.is_none() {
        let made = DirBuilder::new().recursive(true).mode(0o700).create(folder);
        made.map_err(|e| fail(format!("it cannot be made: {e}"), WRITABLE))?;
    }
    let _lock = lock(&folder.join("lock"))?;
    let (path, server, key_path) = (folder.join("ca.crt"), folder.join("server.pem"), folder.join("ca.key"));
    let (has_key, has_certificate) = (key_path.exists(), path.exists());
    // a server that is at work, too, makes none that its nodes do not know
    if !has_key && (has_certificate || in_use.is_some()) {
        return Err(fail("`ca.key` is missing".to_owned(), RESTORE));
    }
    let key = if has_key { authority_key(folder, &key_path)? } else { new_key(folder, &key_path)? };
    let params = authority_params(&key, now);
    if !has_certificate {
        let made = params.self_signed(&key).map_err(|e| fail(e.to_string(), RESTORE))?;
        write(&path, made.pem().as_bytes(), 0o644).map_err(|e| unwritable(folder, "ca.crt", &e))?;
    }
    let found = match (has_key, has_certificate) {
        (false, _) => Found::New,
        (true, false) => Found::MadeAnew,
        (true, true) => Found::There { since: path.metadata().and_then(|metadata| metadata.modified()).ok() },
    };
    let root = chain(&path).map_err(|e| fail(format!("`ca.crt`: {}", reason(&e)), ANEW))?.swap_remove(0);
    let foreign = || fail("`ca.crt` does not belong to `ca.key`".to_owned(), RESTORE);
    if !is_of(&root, &key) {
        return Err(foreign());
    }
    let belong = |chain: &[CertificateDer<'static>], key: &PrivateKeyDer<'static>| {
        CertifiedKey::from_der(chain.to_vec(), key.clone_key(), provider).is_ok()
    };
    let does = |certificate: &CertificateDer<'static>| holds(certificate, &root, names, provider, now + LEFT);
    let is_good = |chain: &[CertificateDer<'static>]| chain.first().is_some_and(does);
    let kept = chain(&server).and_then(|chain| Ok((chain, read_key(&server)?)));
    let kept = kept.ok().filter(|(chain, key)| belong(chain, key));
    let (chain, key) = match (kept, wrong_time(&root, provider, now)) {
        (Some((chain, key)), None) if is_good(&chain) => (chain, key),
        (_, None) if in_use.is_some_and(does) => return Ok(None),
        // nodes with a right clock take it, and none would take one of this time
        (Some((chain, key)), Some(wrong)) if chain.first().is_some_and(|certificate| has(certificate, names)) => {
            tracing::warn!("{wrong}; the certificate that is there is served as it is");
            (chain, key)
        }
        (_, Some(wrong)) => return Err(fail(wrong, CLOCK)),
        (_, None) => {
            let pem = sign(names, Issuer::new(params, key), now).map_err(|e| fail(e.to_string(), RESTORE))?;
            let made = CertificateDer::pem_slice_iter(pem.as_bytes()).collect::<Result<Vec<_>, _>>();
            let made = made.and_then(|chain| Ok((chain, PrivateKeyDer::from_pem_slice(pem.as_bytes())?)));
            let (chain, key) = made.map_err(|e| fail(e.to_string(), RESTORE))?;
            // what is there may be better than one that nobody takes
            if !(belong(&chain, &key) && is_good(&chain)) {
                return Err(foreign());
            }
            write(&server, pem.as_bytes(), 0o600).map_err(|e| unwritable(folder, "server.pem", &e))?;
            tracing::info!(names = names.join(" "), "a new certificate was made");
            (chain, key)
        }
    };
    let pem = texts::read(&path)?;
    Ok(Some(Made { chain, key, authority: Authority { path, pem, found } }))
}

/// The turn of this server. None is needed where nothing can be written: what is there may be good, and if not, writing that fails.
fn lock(path: &Path) -> Result<Option<File>, Error> {
    let fail = |why: String| Error::TlsFile { path: path.to_owned(), why };
    let file = match File::options().create(true).truncate(false).write(true).mode(0o600).open(path) {
        Ok(file) => file,
        Err(e)
            if matches!(e.kind(), E::ReadOnlyFilesystem | E::PermissionDenied | E::StorageFull | E::QuotaExceeded) =>
        {
            return Ok(None);
        }
        Err(e) => return Err(fail(e.to_string())),
    };
    let end = Instant::now() + PATIENCE;
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(Some(file)),
            Err(TryLockError::WouldBlock) if Instant::now() < end => std::thread::sleep(Duration::from_millis(2)),
            Err(TryLockError::WouldBlock) => {
                return Err(fail(format!("another process has held it for {} s", PATIENCE.as_secs())));
            }
            Err(TryLockError::Error(e)) => return Err(fail(format!("it cannot be locked: {e}"))),
        }
    }
}

/// Whether the certificate is of this key.
fn is_of(certificate: &CertificateDer<'static>, key: &KeyPair) -> bool {
    ParsedCertificate::try_from(certificate)
        .is_ok_and(|parsed| parsed.subject_public_key_info().as_ref() == key.subject_public_key_info())
}

/// Why the authority is not good at this time, if it is not: it is made for twenty years, so the clock is what is wrong most likely.
/// Clients look at that, while [`holds`] takes an authority whatever the time.
fn wrong_time(root: &CertificateDer<'static>, provider: &CryptoProvider, now: SystemTime) -> Option<String> {
    let found = verify(root, root, provider, now).err()?;
    // a complaint about anything else: that it is no server's
    let rustls::Error::InvalidCertificate(
        error @ (Expired | ExpiredContext { .. } | NotValidYet | NotValidYetContext { .. }),
    ) = found
    else {
        return None;
    };
    let says = jiff::Timestamp::try_from(now).map_or_else(|_| "no date".to_owned(), |now| now.to_string());
    Some(match error {
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            format!("the clock of this machine says {says}, and `ca.crt` was made later: set the clock")
        }
        _ => format!("the clock of this machine says {says}, and `ca.crt` has run out by then: set the clock"),
    })
}

/// The key in the file.
fn authority_key(folder: &Path, path: &Path) -> Result<KeyPair, Error> {
    let fail = |why: String, hint| Error::Authority { folder: folder.to_owned(), why, hint };
    let text = texts::read(path).map_err(|e| fail(format!("`ca.key` cannot be read: {}", reason(&e.into())), OWNER))?;
    KeyPair::from_pem(&text).map_err(|_| fail("`ca.key` is no private key".to_owned(), RESTORE))
}

/// A new key. The caller has seen that there is none, and holds the lock.
fn new_key(folder: &Path, path: &Path) -> Result<KeyPair, Error> {
    let fail = |why: String| Error::Authority { folder: folder.to_owned(), why, hint: RESTORE };
    let made = KeyPair::generate().map_err(|e| fail(e.to_string()))?;
    // whole or not at all: half a key would be refused for ever
    let written = texts::write_new_as(path, made.serialize_pem().as_bytes(), 0o600);
    match written.map_err(|e| unwritable(folder, "ca.key", &e.into()))? {
        true => Ok(made),
        // where nothing can be locked, another server may have been faster
        false => authority_key(folder, path),
    }
}

fn unwritable(folder: &Path, name: &str, error: &Error) -> Error {
    let why = format!("`{name}` cannot be written: {}", reason(error));
    Error::Authority { folder: folder.to_owned(), why, hint: WRITABLE }
}

/// Without the path, which is said already.
fn reason(error: &Error) -> String {
    match error {
        Error::TlsFile { why, .. } => why.clone(),
        Error::Content(ferry_content::Error::Io { source, .. }) => source.to_string(),
        other => other.to_string(),
    }
}

const RESTORE: &str =
    "put it back from a backup; if no node trusts that CA yet, move the folder away, and a new one is made";
const ANEW: &str = "put it back from a backup or from a node that has it; moved away, it is made anew from `ca.key`";
const OWNER: &str = "serve as the user who owns the folder, or name another folder with `--tls-dir`";
const WRITABLE: &str = "name a folder that this user can write to with `--tls-dir`, on a disk that is not read-only";
const CLOCK: &str = "where the clock is right, move the folder away: a new CA is made, which all nodes must be given";

/// They follow from the key, so that they need not be read out of the certificate.
fn authority_params(key: &KeyPair, now: SystemTime) -> CertificateParams {
    let mut params = CertificateParams::default();
    let digest = Digest::of(key.public_key_raw()).to_string();
    let name = digest.trim_start_matches("sha256:").chars().take(8).collect::<String>();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, format!("ferry serve {name}"));
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature];
    (params.not_before, params.not_after) = ((now - BEFORE).into(), (now + AUTHORITY).into());
    params
}

/// Key and certificate, in one file so that both are of one making.
fn sign(names: &[String], issuer: Issuer<'_, KeyPair>, now: SystemTime) -> Result<String, rcgen::Error> {
    let mut params = CertificateParams::new(names.to_vec())?;
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, "ferry serve");
    params.use_authority_key_identifier_extension = true;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    (params.not_before, params.not_after) = ((now - BEFORE).into(), (now + SERVER).into());
    let key = KeyPair::generate()?;
    let certificate = params.signed_by(&key, &issuer)?;
    Ok(key.serialize_pem() + &certificate.pem())
}

/// Whether a client that trusts `root` takes the certificate, at `when` and for each name: its own way of looking is what counts.
fn holds(
    certificate: &CertificateDer<'static>,
    root: &CertificateDer<'static>,
    names: &[String],
    provider: &CryptoProvider,
    when: SystemTime,
) -> bool {
    verify(certificate, root, provider, when).is_ok() && has(certificate, names)
}

fn verify(
    certificate: &CertificateDer<'static>,
    root: &CertificateDer<'static>,
    provider: &CryptoProvider,
    when: SystemTime,
) -> Result<(), rustls::Error> {
    let mut roots = RootCertStore::empty();
    roots.add(root.clone())?;
    let parsed = ParsedCertificate::try_from(certificate)?;
    let when = UnixTime::since_unix_epoch(when.duration_since(UNIX_EPOCH).unwrap_or_default());
    let algorithms = provider.signature_verification_algorithms.all;
    verify_server_cert_signed_by_trust_anchor(&parsed, &roots, &[], when, algorithms)
}

/// Whether the certificate is for each name.
fn has(certificate: &CertificateDer<'static>, names: &[String]) -> bool {
    let Ok(parsed) = ParsedCertificate::try_from(certificate) else { return false };
    names.iter().all(|name| {
        // a client asks for one of those that `*.site` stands for
        let name = ServerName::try_from(name.replace('*', "x"));
        name.is_ok_and(|name| verify_server_name(&parsed, &name).is_ok())
    })
}

fn write(path: &Path, bytes: &[u8], mode: u32) -> Result<(), Error> {
    Ok(texts::write_as(path, bytes, Permissions::from_mode(mode))?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn made(folder: &Path, names: &[&str], now: SystemTime) -> Made {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        made_for(folder, &names, now)
    }

    fn made_for(folder: &Path, names: &[String], now: SystemTime) -> Made {
        let made = certificate(folder, names, &rustls::crypto::ring::default_provider(), now, None);
        made.expect("a certificate").expect("one that is not in use")
    }

    fn mode(path: &Path) -> u32 {
        std::fs::metadata(path).expect("a file").permissions().mode() & 0o777
    }

    #[test]
    fn the_authority_stays_and_the_certificate_is_made_anew_when_it_must_be() {
        let folder = tempfile::tempdir().expect("folder");
        let (folder, now) = (folder.path().join("a/tls"), SystemTime::now());
        let names = ["registry.site", "*.dc.site", "10.0.0.5", "fd00::5", "node"];
        let first = made(&folder, &names, now);
        assert_eq!((&first.authority.path, first.authority.found), (&folder.join("ca.crt"), Found::New));
        assert_eq!(
            (mode(&folder), mode(&folder.join("ca.key")), mode(&folder.join("server.pem"))),
            (0o700, 0o600, 0o600)
        );
        let same = |made: &Made| made.chain == first.chain;
        assert!(same(&made(&folder, &names, now + 300 * DAY)), "good, and for a while yet");
        assert!(same(&made(&folder, &names[1..3], now)), "it has those names");
        let later = made(&folder, &names, now + 380 * DAY);
        assert!(!same(&later), "it would run out");
        let other = made(&folder, &["other.site"], now);
        assert!(!same(&other) && later.chain != other.chain, "it lacked a name");
        for made in [&later, &other] {
            assert_eq!(made.authority.pem, first.authority.pem, "nodes need not be visited");
            assert!(matches!(made.authority.found, Found::There { since: Some(_) }));
        }
        std::fs::remove_file(folder.join("server.pem")).expect("remove");
        assert_eq!(made(&folder, &names, now).authority.pem, first.authority.pem);
    }

    #[test]
    fn a_clock_that_is_far_off_makes_no_certificate_and_takes_none_away() {
        let folder = tempfile::tempdir().expect("folder");
        let (folder, now) = (folder.path(), SystemTime::now());
        let first = made(folder, &["registry.site"], now);
        let bytes = || std::fs::read(folder.join("server.pem")).expect("a file");
        let there = bytes();
        let provider = rustls::crypto::ring::default_provider();
        for (time, words) in [
            (UNIX_EPOCH + 30 * 365 * DAY, "says 1999-12-25T00:00:00Z, and `ca.crt` was made later: set the clock"),
            (now + 30 * 365 * DAY, "`ca.crt` has run out by then: set the clock"),
        ] {
            assert_eq!(
                made(folder, &["registry.site"], time).chain,
                first.chain,
                "it is good for whose clock is right"
            );
            let told = certificate(folder, &["other.site".to_owned()], &provider, time, None).err().expect("refused");
            assert!(told.to_string().contains(words), "{told}");
            assert_eq!(bytes(), there);
        }
        assert_ne!(made(folder, &["other.site"], now).chain, first.chain);
    }

    #[test]
    fn what_does_not_belong_together_is_refused() {
        let (one, two) = (tempfile::tempdir().expect("folder"), tempfile::tempdir().expect("folder"));
        made(one.path(), &["a"], SystemTime::now());
        made(two.path(), &["a"], SystemTime::now());
        let there = std::fs::read(one.path().join("server.pem")).expect("a file");
        std::fs::copy(two.path().join("ca.crt"), one.path().join("ca.crt")).expect("copy");
        let provider = rustls::crypto::ring::default_provider();
        let certificate = || certificate(one.path(), &["a".to_owned()], &provider, SystemTime::now(), None).err();
        let told = certificate().expect("refused").to_string();
        assert!(told.contains("`ca.crt` does not belong to `ca.key`"), "{told}");
        assert_eq!(std::fs::read(one.path().join("server.pem")).expect("a file"), there, "nothing was written");
        std::fs::write(one.path().join("ca.key"), "junk").expect("write");
        assert!(certificate().expect("refused").to_string().contains("`ca.key` is no private key"));
        let named = super::certificate(two.path(), &["a b".to_owned()], &provider, SystemTime::now(), None).err();
        assert!(named.expect("refused").to_string().contains("`a b` is no name that a certificate can have"));
    }

    #[test]
    fn what_is_missing_is_said_and_no_foreign_key_is_made() {
        let (folder, now) = (tempfile::tempdir().expect("folder"), SystemTime::now());
        let (folder, provider) = (folder.path(), rustls::crypto::ring::default_provider());
        let first = made(folder, &["a.site"], now);
        let (path, key) = (folder.join("ca.crt"), folder.join("ca.key"));
        let old = chain(&path).expect("chain").swap_remove(0);
        std::fs::remove_file(&path).expect("remove");
        std::fs::remove_file(folder.join("server.pem")).expect("remove");
        let second = made(folder, &["a.site"], now + DAY);
        assert_eq!(second.authority.found, Found::MadeAnew);
        assert_ne!(second.authority.pem, first.authority.pem);
        assert!(holds(&second.chain[0], &old, &["a.site".to_owned()], &provider, now), "who has the old one trusts it");

        let names = ["a.site".to_owned()];
        let refused = |in_use| {
            use ferry_content::Failure as _;
            let error = certificate(folder, &names, &provider, now, in_use).err().expect("refused");
            (error.to_string(), error.hint().expect("a hint"))
        };
        std::fs::write(&path, "junk").expect("write");
        let (told, hint) = refused(None);
        assert!(
            told.ends_with("`ca.crt`: there is no certificate in it") && hint.contains("made anew"),
            "{told} {hint}"
        );
        std::fs::remove_file(&key).expect("remove");
        let (told, hint) = refused(None);
        assert!(told.ends_with("`ca.key` is missing") && hint.contains("backup"), "{told} {hint}");
        std::fs::remove_file(&path).expect("remove");
        assert!(refused(Some(&second.chain[0])).0.ends_with("`ca.key` is missing"), "while it serves");
        assert!(!key.exists() && !path.exists(), "nothing was written");
    }

    #[test]
    fn servers_that_start_at_once_with_one_folder_have_one_authority() {
        let (now, provider) = (SystemTime::now(), rustls::crypto::ring::default_provider());
        for round in 0..60 {
            let folder = tempfile::tempdir().expect("folder");
            // the same names, some names of the other's, and other names
            let names =
                [["a.site", "b.site"], [["a.site", "b.site"], ["b.site", "b.site"], ["b.site", "c.site"]][round % 3]];
            let names = names.map(|names| names.map(str::to_owned));
            let barrier = std::sync::Barrier::new(2);
            let made = std::thread::scope(|scope| {
                let threads = names.each_ref().map(|names| {
                    scope.spawn(|| {
                        barrier.wait();
                        made_for(folder.path(), names, now)
                    })
                });
                threads.map(|thread| thread.join().expect("no panic"))
            });
            assert_eq!(made[0].authority.pem, made[1].authority.pem);
            let root = chain(&folder.path().join("ca.crt")).expect("chain").swap_remove(0);
            for (made, names) in made.iter().zip(&names) {
                assert!(holds(&made.chain[0], &root, names, &provider, now + LEFT), "{round}");
            }
            assert!(round % 3 != 0 || made[0].chain == made[1].chain, "the one that the other made does");
        }
    }

    #[test]
    fn a_server_waits_for_its_turn() {
        let folder = tempfile::tempdir().expect("folder");
        let first = made(folder.path(), &["a.site"], SystemTime::now());
        let path = folder.path().join("lock");
        assert_eq!(mode(&path), 0o600);
        let held = lock(&path).expect("free").expect("a file");
        std::thread::scope(|scope| {
            let waits = scope.spawn(|| made(folder.path(), &["a.site"], SystemTime::now()));
            std::thread::sleep(Duration::from_millis(100));
            assert!(!waits.is_finished());
            drop(held);
            assert_eq!(waits.join().expect("no panic").chain, first.chain);
        });
    }
}
