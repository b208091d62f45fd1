//! Everything that is read from the environment and the home directory, in one place.

use std::ffi::OsString;
use std::path::PathBuf;

fn var(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|v| !v.is_empty())
}

fn home() -> Option<PathBuf> {
    var("HOME").map(PathBuf::from)
}

/// The password of the signing key.
pub(crate) fn key_password() -> Option<String> {
    var("FERRY_KEY_PASSWORD")
}

/// Where credential programs are looked for.
pub(crate) fn path() -> OsString {
    std::env::var_os("PATH").unwrap_or_default()
}

/// A proxy's variable, in lower case first, as curl reads them.
pub(crate) fn proxy(name: &str) -> Option<String> {
    var(&name.to_ascii_lowercase()).or_else(|| var(&name.to_ascii_uppercase()))
}

/// Files that may hold registry credentials, the most important first: docker's, then podman's.
pub(crate) fn credential_files() -> Vec<PathBuf> {
    let mut files = Vec::new();
    files.extend(var("REGISTRY_AUTH_FILE").map(PathBuf::from));
    let docker = var("DOCKER_CONFIG").map(PathBuf::from).or_else(|| Some(home()?.join(".docker")));
    files.extend(docker.map(|d| d.join("config.json")));
    files.extend(var("XDG_RUNTIME_DIR").map(|d| PathBuf::from(d).join("containers/auth.json")));
    let config = var("XDG_CONFIG_HOME").map(PathBuf::from).or_else(|| Some(home()?.join(".config")));
    files.extend(config.map(|d| d.join("containers/auth.json")));
    files
}

/// Folders laid out as `/etc/docker/certs.d`.
pub(crate) fn certificate_folders() -> Vec<PathBuf> {
    let mut folders: Vec<PathBuf> = home().into_iter().map(|h| h.join(".config/containers/certs.d")).collect();
    folders.extend(["/etc/docker/certs.d", "/etc/containers/certs.d"].map(PathBuf::from));
    folders
}
