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

/// Where a program is, `PATH` searched.
pub(crate) fn program(name: &str) -> Option<PathBuf> {
    use std::os::unix::fs::PermissionsExt as _;
    let runs = |file: &PathBuf| file.metadata().is_ok_and(|m| m.is_file() && m.permissions().mode() & 0o111 != 0);
    std::env::split_paths(&path()).map(|folder| folder.join(name)).find(runs)
}

/// Where `ctr` is told to look for containerd.
pub(crate) fn containerd() -> Option<String> {
    var("CONTAINERD_ADDRESS")
}

/// A proxy's variable, in lower case first, as curl reads them.
pub(crate) fn proxy(name: &str) -> Option<String> {
    var(&name.to_ascii_lowercase()).or_else(|| var(&name.to_ascii_uppercase()))
}

/// Files of registry credentials that the environment names, the most important first.
pub(crate) fn named_credential_files() -> Vec<PathBuf> {
    let docker = var("DOCKER_CONFIG").map(|d| PathBuf::from(d).join("config.json"));
    var("REGISTRY_AUTH_FILE").map(PathBuf::from).into_iter().chain(docker).collect()
}

/// Where docker and then podman keep registry credentials, unless the environment names another place.
pub(crate) fn usual_credential_files() -> Vec<PathBuf> {
    let docker = match var("DOCKER_CONFIG") {
        Some(_) => None,
        None => home().map(|h| h.join(".docker/config.json")),
    };
    let runtime = var("XDG_RUNTIME_DIR").map(PathBuf::from);
    let podman = [runtime, config_home()].into_iter().flatten().map(|d| d.join("containers/auth.json"));
    docker.into_iter().chain(podman).collect()
}

/// Where the user's own config file of ferry stands.
pub(crate) fn config_file() -> Option<PathBuf> {
    Some(config_home()?.join("ferry/config.yaml"))
}

fn config_home() -> Option<PathBuf> {
    var("XDG_CONFIG_HOME").map(PathBuf::from).or_else(|| Some(home()?.join(".config")))
}

/// Where what ferry makes for itself is kept between runs.
pub(crate) fn state_folder() -> Option<PathBuf> {
    let state = var("XDG_STATE_HOME").map(PathBuf::from).or_else(|| Some(home()?.join(".local/state")));
    Some(state?.join("ferry"))
}

/// Folders laid out as `/etc/docker/certs.d`.
pub(crate) fn certificate_folders() -> Vec<PathBuf> {
    let mut folders: Vec<PathBuf> = config_home()
        .into_iter()
        .flat_map(|config| ["containers/certs.d", "docker/certs.d"].map(|name| config.join(name)))
        .collect();
    folders.extend(["/etc/docker/certs.d", "/etc/containers/certs.d"].map(PathBuf::from));
    folders
}
