//! Users from a file that `htpasswd -B` makes: bcrypt, read again when it changes.

use std::collections::BTreeMap;
use std::fs::Metadata;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use ring::digest::{SHA256, digest};
use ring::rand::{SecureRandom as _, SystemRandom};

use crate::{Error, Passwords, Reread};

/// The largest file that is read, in bytes: some ten thousand users.
const MAX_FILE: u64 = 1 << 20;
/// A second or so; every step more doubles it.
const MOST_COST: u32 = 15;
/// How often the file is looked at, at most.
const GLANCE: Duration = Duration::from_secs(1);

/// An htpasswd file.
pub struct Htpasswd {
    path: PathBuf,
    /// Never held while the disk is waited for.
    state: Mutex<State>,
    /// Goes into the hashes in memory, so that they say nothing outside this process.
    salt: [u8; 32],
}

struct State {
    users: Arc<BTreeMap<String, String>>,
    /// Which file was read.
    version: Version,
    looked: Instant,
    /// Of each user the password that was last found right: its hash here, and the line of the file that it was right for.
    verified: BTreeMap<String, ([u8; 32], String)>,
}

type Version = (u64, u64, i64, i64);

impl Htpasswd {
    /// Reads the file. Blocking.
    ///
    /// # Errors
    /// [`Error::Users`] when it cannot be read, names nobody, or has a line that is no user with a bcrypt hash.
    pub fn open(path: &Path) -> Result<Self, Error> {
        let (users, version) = read(path)?;
        let mut salt = [0; 32];
        let fail = |_| Error::Users { path: path.to_owned(), line: 0, why: "no random numbers to be had".to_owned() };
        SystemRandom::new().fill(&mut salt).map_err(fail)?;
        let (looked, verified) = (Instant::now(), BTreeMap::new());
        let state = Mutex::new(State { users: Arc::new(users), version, looked, verified });
        Ok(Self { path: path.to_owned(), state, salt })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn users(&self) -> Arc<BTreeMap<String, String>> {
        Arc::clone(&self.state().users)
    }

    fn in_memory(&self, password: &str) -> [u8; 32] {
        let mut out = [0; 32];
        out.copy_from_slice(digest(&SHA256, &[&self.salt, password.as_bytes()].concat()).as_ref());
        out
    }
}

impl Passwords for Htpasswd {
    fn is_stale(&self) -> bool {
        self.state().looked.elapsed() >= GLANCE
    }

    /// A file that went away or is wrong changes nothing, and is told: somebody may be writing it.
    fn refresh(&self) -> Reread {
        let (begun, known) = (Instant::now(), self.state().version);
        let now = std::fs::metadata(&self.path).map(|m| version(&m)).ok();
        let found = (now != Some(known)).then(|| read(&self.path));
        let mut state = self.state();
        state.looked = begun;
        match found {
            None => {}
            Some(Ok((users, version))) => {
                tracing::info!(path = %self.path.display(), users = users.len(), "the users were read again");
                (state.users, state.version) = (Arc::new(users), version);
            }
            Some(Err(error)) => {
                tracing::error!(%error, "the users stay those that were read before");
                return Reread::Kept;
            }
        }
        Reread::Done
    }

    fn verify(&self, user: &str, password: &str) -> bool {
        let users = self.users();
        let expected = users.get(user);
        // The same work for a user that is not there: the time taken tells nothing.
        let Some(hash) = expected.or_else(|| users.values().next()) else { return false };
        let same = bcrypt::verify(password, hash).unwrap_or(false);
        if same && expected.is_some() {
            let entry = (self.in_memory(password), hash.clone());
            self.state().verified.insert(user.to_owned(), entry);
        }
        same && expected.is_some()
    }

    fn is_known(&self, user: &str, password: &str) -> bool {
        let users = self.users();
        let state = self.state();
        let Some((known, hash)) = state.verified.get(user) else { return false };
        // a hash of a random salt: comparing it byte by byte tells nothing of the password
        users.get(user) == Some(hash) && *known == self.in_memory(password)
    }

    fn has(&self, user: &str) -> bool {
        self.users().contains_key(user)
    }
}

impl std::fmt::Debug for Htpasswd {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Htpasswd").field("path", &self.path).finish_non_exhaustive()
    }
}

fn version(metadata: &Metadata) -> Version {
    (metadata.ino(), metadata.len(), metadata.mtime(), metadata.mtime_nsec())
}

fn read(path: &Path) -> Result<(BTreeMap<String, String>, Version), Error> {
    let fail = |why: String| Error::Users { path: path.to_owned(), line: 0, why };
    let metadata = std::fs::metadata(path).map_err(|e| fail(e.to_string()))?;
    if metadata.len() > MAX_FILE {
        return Err(fail(format!("it has {} bytes, at most {MAX_FILE} are read", metadata.len())));
    }
    let text = std::fs::read_to_string(path).map_err(|e| fail(e.to_string()))?;
    let users = parse(&text).map_err(|(line, why)| Error::Users { path: path.to_owned(), line, why })?;
    Ok((users, version(&metadata)))
}

/// `user:hash` lines, with empty ones and comments between. What is wrong is said with its line.
fn parse(text: &str) -> Result<BTreeMap<String, String>, (usize, String)> {
    let mut users = BTreeMap::new();
    for (line, entry) in text.lines().enumerate().map(|(i, entry)| (i + 1, entry.trim())) {
        if entry.is_empty() || entry.starts_with('#') {
            continue;
        }
        let Some((user, hash)) = entry.split_once(':').filter(|(user, _)| !user.is_empty()) else {
            return Err((line, "this is not USER:HASH".to_owned()));
        };
        match hash.parse::<bcrypt::HashParts>() {
            Ok(parts) if parts.get_cost() <= MOST_COST => {}
            Ok(parts) => {
                let why = format!("the hash of `{user}` has cost {}: each login would take minutes", parts.get_cost());
                return Err((line, why));
            }
            Err(_) => {
                let why = format!(
                    "the password of `{user}` is not hashed with bcrypt ($2y$…), the only way that is safe to keep"
                );
                return Err((line, why));
            }
        }
        if users.insert(user.to_owned(), hash.to_owned()).is_some() {
            return Err((line, format!("`{user}` is there twice")));
        }
    }
    if users.is_empty() { Err((0, "it names no user".to_owned())) } else { Ok(users) }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A hash that was cut off.
    const ANN: &str = "ann:$2y$05$";

    fn line(user: &str, password: &str) -> String {
        let hash = bcrypt::hash_with_salt(password, 4, *b"0123456789abcdef").expect("hash");
        format!("{user}:{}\n", hash.format_for_version(bcrypt::Version::TwoY))
    }

    #[test]
    fn lines_that_are_no_user_with_a_bcrypt_hash_are_refused_with_their_number() {
        let users = parse(&format!("# ours\n\n{}  {}", line("ann", "a"), line("bob", "b"))).expect("users");
        assert_eq!(users.keys().collect::<Vec<_>>(), ["ann", "bob"]);
        let good = line("ann", "a");
        for (text, at, why) in [
            (String::new(), 0, "names no user"),
            ("# none\n".to_owned(), 0, "names no user"),
            (format!("{good}bob\n"), 2, "not USER:HASH"),
            (":x".to_owned(), 1, "not USER:HASH"),
            (format!("{good}bob:$apr1$x$y"), 2, "`bob` is not hashed with bcrypt"),
            ("bob:{SHA}x".to_owned(), 1, "bcrypt"),
            ("bob:plain".to_owned(), 1, "bcrypt"),
            (ANN.to_owned(), 1, "bcrypt"),
            (format!("{good}{good}"), 2, "twice"),
            (good.replace("$04$", "$29$"), 1, "cost 29"),
        ] {
            let (line, told) = parse(&text).expect_err(&text);
            assert_eq!(line, at, "{text}");
            assert!(told.contains(why), "{told}");
        }
    }

    #[test]
    fn passwords_are_remembered_until_the_file_says_otherwise() {
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().join("users");
        std::fs::write(&path, line("ann", "s:cret")).expect("write");
        let users = Htpasswd::open(&path).expect("users");
        assert!(!users.is_known("ann", "s:cret"), "not yet");
        assert!(!users.verify("ann", "wrong") && !users.verify("eve", "s:cret"));
        assert!(users.verify("ann", "s:cret") && users.is_known("ann", "s:cret"));
        assert!(!users.is_known("ann", "wrong") && !users.is_known("eve", "s:cret"));
        let wait = || {
            std::thread::sleep(GLANCE);
            assert!(users.is_stale());
            let reread = users.refresh();
            assert!(!users.is_stale());
            reread
        };
        // a file that is half-written changes nothing
        std::fs::write(&path, "ann").expect("write");
        assert_eq!(wait(), Reread::Kept);
        assert!(users.is_known("ann", "s:cret"));
        std::fs::write(&path, line("ann", "new") + &line("bob", "b")).expect("write");
        assert_eq!(wait(), Reread::Done);
        assert!(!users.is_known("ann", "s:cret") && !users.verify("ann", "s:cret"));
        assert!(users.verify("ann", "new") && users.verify("bob", "b") && users.has("bob") && !users.has("eve"));
        // one who is not in it any more has no token that is good
        std::fs::write(&path, line("ann", "new")).expect("write");
        users.refresh();
        assert!(!users.has("bob") && !users.is_known("bob", "b") && users.is_known("ann", "new"));
    }
}
