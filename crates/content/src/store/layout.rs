//! Where things stand in the store's folder, and the lock over it.

use std::fs::{self, File, Metadata, TryLockError};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::{Duration, Instant, SystemTime};

use ferry_image::Digest;
use serde_json::{Value, json};

use super::{Error, durable};

/// How long a turn at the lock is waited for; a single change takes milliseconds.
const PATIENCE: Duration = Duration::from_secs(10);
/// After this long without a change an upload session is given up.
pub(super) const SESSION_AGE: Duration = Duration::from_secs(7 * 24 * 60 * 60);

/// The paths of one store.
#[derive(Debug)]
pub(super) struct Layout {
    root: PathBuf,
    /// Threads of this process queue here, so that only processes poll for the file lock.
    turn: Mutex<()>,
}

/// What became of unfinished uploads, in bytes.
#[derive(Debug, Clone, Default)]
pub(super) struct Swept {
    /// Gone.
    pub(super) freed: u64,
    /// Of those that may still be gone on with.
    pub(super) left: u64,
    /// The names of the sessions that are gone.
    pub(super) sessions: Vec<String>,
}

/// The store's lock while it is held.
pub(super) struct Guard<'a> {
    _file: File,
    _turn: std::sync::MutexGuard<'a, ()>,
}

impl Layout {
    pub(super) fn new(root: &Path) -> Self {
        Self { root: root.to_owned(), turn: Mutex::new(()) }
    }

    pub(super) fn root(&self) -> &Path {
        &self.root
    }

    pub(super) fn index(&self) -> PathBuf {
        self.root.join("index.json")
    }

    pub(super) fn blob(&self, digest: &Digest) -> PathBuf {
        self.root.join(digest.blob_path())
    }

    pub(super) fn uploads(&self) -> PathBuf {
        self.root.join("ferry/uploads")
    }

    pub(super) fn repositories(&self) -> PathBuf {
        self.root.join("ferry/repositories")
    }

    pub(super) fn repository(&self, repository: &str) -> PathBuf {
        self.repositories().join(repository)
    }

    /// The folder of a repository's manifest records. No path segment begins with `_`, so nothing collides.
    pub(super) fn manifests(&self, repository: &str) -> PathBuf {
        self.repository(repository).join("_manifests")
    }

    /// The folder with what refers to `subject` in a repository.
    pub(super) fn referrers(&self, repository: &str, subject: &Digest) -> PathBuf {
        self.repository(repository).join("_referrers").join(record(subject))
    }

    /// The folder with the blobs that a repository has deleted, while their bytes are still here.
    pub(super) fn deleted(&self, repository: &str) -> PathBuf {
        self.repository(repository).join("_deleted")
    }

    /// Makes what is missing of an empty store.
    pub(super) fn create(&self) -> Result<(), Error> {
        durable::create_folders(&self.root)?;
        match self.root.join("oci-layout").exists() {
            true => return self.check(),
            false => self.must_be_empty()?,
        }
        for folder in ["blobs/sha256", "blobs/sha512", "ferry/uploads", "ferry/repositories"] {
            durable::create_folders(&self.root.join(folder))?;
        }
        let _guard = self.lock()?;
        let empty = json!({"schemaVersion": 2, "mediaType": ferry_image::media_type::OCI_INDEX, "manifests": []});
        for (name, content) in [("index.json", empty), ("oci-layout", json!({"imageLayoutVersion": "1.0.0"}))] {
            let path = self.root.join(name);
            if !path.exists() {
                durable::write(&self.uploads(), &path, content.to_string().as_bytes())?;
            }
        }
        self.check()
    }

    /// Removes an empty store, and nothing else: each folder goes only when nothing is in it. The caller holds the lock.
    pub(super) fn remove_if_empty(&self) -> Result<(), crate::Error> {
        let folders = ["blobs/sha256", "blobs/sha512", "ferry/uploads", "ferry/repositories"];
        for folder in folders.map(|name| self.root.join(name)) {
            let mut entries = fs::read_dir(&folder).map_err(|e| crate::Error::io("read", &folder, e))?;
            if entries.next().is_some() {
                return Ok(());
            }
        }
        // first what makes it a store, so that whoever comes between makes it anew
        for file in ["oci-layout", "index.json", "ferry/blobs.lock", "ferry/lock"] {
            durable::remove(&self.root.join(file))?;
        }
        for folder in folders.into_iter().chain(["blobs", "ferry", ""]).map(|name| self.root.join(name)) {
            fs::remove_dir(&folder).map_err(|e| crate::Error::io("remove", &folder, e))?;
        }
        Ok(())
    }

    /// A folder that has files, but not ours, is somebody else's. `oci-layout` is written last: a `ferry` folder alone is a store whose
    /// making was cut short, or is going on in another process.
    fn must_be_empty(&self) -> Result<(), Error> {
        let entries = fs::read_dir(&self.root).map_err(|e| crate::Error::io("read", &self.root, e))?;
        for entry in entries {
            let name = entry.map_err(|e| crate::Error::io("read", &self.root, e))?.file_name();
            let is_ours = ["blobs", "ferry", "index.json", "oci-layout"].iter().any(|known| name == *known);
            if !is_ours && !crate::disk::is_of_file_system(&name) {
                let why = format!("it has no `oci-layout`, but `{}`", name.to_string_lossy());
                return Err(Error::NotAStore { path: self.root.clone(), why });
            }
        }
        Ok(())
    }

    /// Refuses what is not a store of a version that we know.
    pub(super) fn check(&self) -> Result<(), Error> {
        let fail = |why: String| Error::NotAStore { path: self.root.clone(), why };
        let bytes = durable::read(&self.root.join("oci-layout"), 64 << 10)?;
        let bytes = bytes.ok_or_else(|| fail("there is no `oci-layout` in it".to_owned()))?;
        let version = serde_json::from_slice::<Value>(&bytes).ok();
        match version.as_ref().and_then(|v| v["imageLayoutVersion"].as_str()) {
            Some("1.0.0") => {}
            Some(other) => return Err(fail(format!("its layout version is {other}, this program knows 1.0.0"))),
            None => return Err(fail("its `oci-layout` states no version".to_owned())),
        }
        if !self.uploads().is_dir() || !self.repositories().is_dir() {
            return Err(fail("it is an OCI layout without a `ferry` folder, made by another tool".to_owned()));
        }
        Ok(())
    }

    /// Whether everything that a push changes can be written to, as this user and on this disk. Nothing is written to find out.
    pub(super) fn check_writable(&self) -> Result<(), crate::Error> {
        let made = ["", "blobs", "blobs/sha256", "ferry", "ferry/uploads", "ferry/repositories"];
        // by whoever pushed first, who may be another user
        let perhaps = ["blobs/sha512", "ferry/lock", "ferry/blobs.lock"];
        let all = made.iter().map(|name| (name, true)).chain(perhaps.iter().map(|name| (name, false)));
        for (path, must_be) in all.map(|(name, must_be)| (self.root.join(name), must_be)) {
            match may_write(&path) {
                Err(e) if e.kind() == std::io::ErrorKind::NotFound && !must_be => {}
                found => found.map_err(|e| crate::Error::io("write to", &path, e))?,
            }
        }
        Ok(())
    }

    /// Waits for the turn to change index.json.
    pub(super) fn lock(&self) -> Result<Guard<'_>, Error> {
        self.lock_within(PATIENCE)
    }

    pub(super) fn lock_within(&self, patience: Duration) -> Result<Guard<'_>, Error> {
        let end = Instant::now() + patience;
        let path = self.root.join("ferry/lock");
        // One deadline for both: who waits behind others of this process waits no longer than who waits for another's.
        let turn = loop {
            match self.turn.try_lock() {
                Ok(turn) => break turn,
                Err(std::sync::TryLockError::Poisoned(turn)) => break turn.into_inner(),
                Err(std::sync::TryLockError::WouldBlock) if Instant::now() < end => {
                    std::thread::sleep(Duration::from_millis(1));
                }
                Err(std::sync::TryLockError::WouldBlock) => {
                    let holder = "other requests of this process".to_owned();
                    return Err(Error::Locked { path, holder, seconds: patience.as_secs() });
                }
            }
        };
        let file = durable::open_lock(&path)?;
        loop {
            match file.try_lock() {
                Ok(()) => {
                    // Only told to others: a lock without it is as good.
                    let _ = file.set_len(0).and_then(|()| (&file).write_all(std::process::id().to_string().as_bytes()));
                    return Ok(Guard { _file: file, _turn: turn });
                }
                Err(TryLockError::WouldBlock) if Instant::now() < end => {
                    std::thread::sleep(Duration::from_millis(2));
                }
                Err(TryLockError::WouldBlock) => {
                    let holder = holder(&path);
                    return Err(Error::Locked { path, holder, seconds: patience.as_secs() });
                }
                Err(TryLockError::Error(e)) => return Err(crate::Error::io("lock", path, e).into()),
            }
        }
    }

    /// What is written into `blobs/` and relied on there while this is held is not removed by a garbage collection at that moment.
    fn keep(&self) -> Result<File, crate::Error> {
        let (file, path) = self.blobs_lock()?;
        file.lock_shared().map_err(|e| crate::Error::io("lock", path, e))?;
        Ok(file)
    }

    fn blobs_lock(&self) -> Result<(File, PathBuf), crate::Error> {
        let path = self.root.join("ferry/blobs.lock");
        Ok((durable::open_lock(&path)?, path))
    }

    /// Gives a file in `uploads/` the name of its blob, durably.
    pub(super) fn place_blob(&self, file: &File, path: &Path, digest: &Digest) -> Result<(), crate::Error> {
        file.sync_all().map_err(|e| crate::Error::io("write", path, e))?;
        let target = self.blob(digest);
        let kept = self.keep()?;
        // The last byte may have come long ago.
        let _ = file.set_modified(SystemTime::now());
        fs::rename(path, &target).map_err(|e| crate::Error::io("rename a file to", &target, e))?;
        drop(kept);
        durable::sync_parent(&target)
    }

    /// Makes a blob as young as one that was just written, so that no garbage collection takes it before its manifest comes. Whether it is
    /// here, and will be.
    pub(super) fn renew(&self, digest: &Digest) -> Result<bool, crate::Error> {
        let path = self.blob(digest);
        let _kept = match self.keep() {
            // nobody collects on a disk that cannot be written to
            Err(crate::Error::Io { source, .. }) if source.kind() == std::io::ErrorKind::ReadOnlyFilesystem => {
                return Ok(path.exists());
            }
            kept => kept?,
        };
        durable::touch(&path)
    }

    /// Removes a blob unless it was written or asked about since `cutoff`. Whether it is gone.
    pub(super) fn remove_blob(&self, digest: &Digest, cutoff: SystemTime) -> Result<bool, crate::Error> {
        let (file, lock) = self.blobs_lock()?;
        file.lock().map_err(|e| crate::Error::io("lock", lock, e))?;
        let path = self.blob(digest);
        let modified = match path.metadata().and_then(|metadata| metadata.modified()) {
            Ok(modified) => modified,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(false),
            Err(e) => return Err(crate::Error::io("read", path, e)),
        };
        if modified >= cutoff {
            return Ok(false);
        }
        fs::remove_file(&path).map_err(|e| crate::Error::io("remove", path, e))?;
        Ok(true)
    }

    /// Removes what killed processes left in `uploads/`: locked by nobody; an upload session of a client's only when it is old. How many
    /// bytes that were.
    pub(super) fn sweep(&self, dry_run: bool, age_of_sessions: Duration) -> Result<Swept, Error> {
        let mut swept = Swept::default();
        let uploads = self.uploads();
        let entries = fs::read_dir(&uploads).map_err(|e| crate::Error::io("read", &uploads, e))?;
        for entry in entries.filter_map(Result::ok) {
            let path = entry.path();
            let name = entry.file_name();
            let metadata = entry.metadata().ok();
            let size = metadata.as_ref().map_or(0, Metadata::len);
            let age = metadata.and_then(|m| m.modified().ok()).and_then(|m| SystemTime::now().duration_since(m).ok());
            let waits = name.to_string_lossy().starts_with("session-") && age.is_none_or(|age| age <= age_of_sessions);
            // Locked until it is gone: who is making a file of this name waits for that, and sees it.
            let Some(_lock) = File::open(&path).ok().filter(|file| !waits && file.try_lock().is_ok()) else {
                swept.left += size;
                continue;
            };
            if dry_run {
                swept.freed += size;
            } else if fs::remove_file(&path).is_ok() {
                swept.freed += size;
                let session = name.to_str().and_then(|name| name.strip_prefix("session-")?.split('-').next());
                swept.sessions.extend(session.map(str::to_owned));
                tracing::info!(path = %path.display(), "removed an upload that was never finished");
            }
        }
        Ok(swept)
    }
}

fn may_write(path: &Path) -> std::io::Result<()> {
    let (cwd, flags) = (rustix::fs::CWD, rustix::fs::AtFlags::EACCESS);
    Ok(rustix::fs::accessat(cwd, path, rustix::fs::Access::WRITE_OK, flags)?)
}

/// Who holds the lock: its number, and its name where the system tells it.
fn holder(lock: &Path) -> String {
    let id = fs::read_to_string(lock).unwrap_or_default();
    match id.parse::<u32>() {
        Ok(id) => match fs::read_to_string(format!("/proc/{id}/comm")) {
            Ok(name) => format!("process {id} ({})", name.trim()),
            Err(_) => format!("process {id}, perhaps of another machine"),
        },
        Err(_) => "another process".to_owned(),
    }
}

/// A digest as a file name.
pub(super) fn record(digest: &Digest) -> String {
    format!("{}-{}", digest.algorithm().name(), digest.hex())
}
