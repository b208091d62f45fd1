//! Container engines with folders of their own, started by hand and stopped by their own process.

use std::fs::{self, File};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::tools;

/// A running containerd; stopped when dropped.
#[derive(Debug)]
pub struct Containerd(Daemon);

/// A running dockerd (with its own containerd); stopped when dropped.
#[derive(Debug)]
pub struct Docker(Daemon);

impl Containerd {
    /// Starts one. Needs `containerd`, `ctr` and `root`.
    ///
    /// # Panics
    /// When it does not come up.
    #[must_use]
    pub fn start() -> Self {
        Self(Daemon::start("containerd", |folder| {
            let path = |name: &str| folder.join(name).display().to_string();
            // the CRI plugin wants a network that this machine may not have
            fs::write(folder.join("config.toml"), "version = 2\ndisabled_plugins = [\"io.containerd.grpc.v1.cri\"]\n")
                .unwrap();
            [
                "--config",
                &path("config.toml"),
                "--root",
                &path("root"),
                "--state",
                &path("state"),
                "--address",
                &path("sock"),
            ]
            .map(str::to_owned)
            .to_vec()
        }))
    }

    /// Its socket.
    #[must_use]
    pub fn address(&self) -> String {
        self.0.folder.path().join("sock").display().to_string()
    }

    /// `ctr ARGUMENTS`, which must succeed; its stdout.
    pub fn ctr(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        assert!(output.status.success(), "ctr {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// `ctr ARGUMENTS`, which may fail.
    pub fn run(&self, arguments: &[&str]) -> Output {
        tools::run("ctr", &[&["--address", &self.address()], arguments].concat())
    }
}

impl Docker {
    /// Starts one. Needs `dockerd`, `docker` and `root`.
    ///
    /// # Panics
    /// When it does not come up.
    #[must_use]
    pub fn start() -> Self {
        Self::with(serde_json::json!({"insecure-registries": ["127.0.0.0/8"]}))
    }

    /// Starts one with this `daemon.json`, to which is added what this machine needs.
    ///
    /// # Panics
    /// When it does not come up.
    #[must_use]
    pub fn with(mut config: serde_json::Value) -> Self {
        config["iptables"] = false.into();
        config["bridge"] = "none".into();
        Self(Daemon::start("dockerd", |folder| {
            let path = |name: &str| folder.join(name).display().to_string();
            fs::write(folder.join("daemon.json"), config.to_string()).unwrap();
            let host = format!("unix://{}", path("sock"));
            [
                ["--config-file", &path("daemon.json"), "--data-root", &path("root")],
                ["--exec-root", &path("exec"), "--pidfile", &path("pid")],
                ["--host", &host, "--storage-driver", "vfs"],
            ]
            .concat()
            .into_iter()
            .map(str::to_owned)
            .collect()
        }))
    }

    /// Its address.
    #[must_use]
    pub fn host(&self) -> String {
        format!("unix://{}", self.0.folder.path().join("sock").display())
    }

    /// `docker ARGUMENTS`.
    pub fn docker(&self, arguments: &[&str]) -> Output {
        // logins of its own
        let config = self.0.folder.path().join("client").display().to_string();
        tools::run("docker", &[&["--config", &config, "--host", &self.host()], arguments].concat())
    }

    /// `docker ARGUMENTS`, which must succeed; its stdout.
    pub fn succeed(&self, arguments: &[&str]) -> String {
        let output = self.docker(arguments);
        assert!(output.status.success(), "docker {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).into_owned()
    }
}

#[derive(Debug)]
struct Daemon {
    child: Child,
    folder: TempDir,
}

impl Daemon {
    fn start(program: &str, arguments: impl FnOnce(&Path) -> Vec<String>) -> Self {
        // not under /tmp/some/long/name: a socket's path must be shorter than 108 bytes
        let folder = tempfile::Builder::new().prefix("fd-").tempdir_in("/tmp").unwrap();
        let log = File::create(folder.path().join("log")).unwrap();
        let child = Command::new(tools::find(program).expect("the daemon is installed"))
            .args(arguments(folder.path()))
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        let mut daemon = Self { child, folder };
        let deadline = Instant::now() + Duration::from_secs(60);
        while std::os::unix::net::UnixStream::connect(daemon.folder.path().join("sock")).is_err() {
            let log = || fs::read_to_string(daemon.folder.path().join("log")).unwrap();
            assert!(daemon.child.try_wait().unwrap().is_none(), "{program} ended:\n{}", log());
            assert!(Instant::now() < deadline, "{program} does not listen:\n{}", log());
            std::thread::sleep(Duration::from_millis(50));
        }
        daemon
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // by SIGTERM, so that it ends what it started and unmounts what it mounted
        let _ = Command::new("sh").args(["-c", &format!("kill {}", self.child.id())]).status();
        let deadline = Instant::now() + Duration::from_secs(15);
        while self.child.try_wait().is_ok_and(|status| status.is_none()) && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(20));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
        // dockerd leaves the network namespace of the host mounted, and who was killed leaves more; the deepest first
        let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
        let left = mounts.lines().rev().filter_map(|line| line.split(' ').nth(1)).map(Path::new);
        for at in left.filter(|at| at.starts_with(self.folder.path())) {
            let _ = Command::new("umount").arg(at).status();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::images::docker_save::{Wrap, write_new, write_old};
    use crate::images::{Format, Image, Layer, busybox, layout};
    use crate::require;

    #[test]
    fn containerd_imports_and_docker_loads_the_samples() {
        require!("containerd", "ctr", "dockerd", "docker", "root", "busybox-static");
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name).display().to_string();
        let image = busybox(Format::Docker, "hello from the kit");
        let other = Image::single("linux/amd64", Format::Docker, vec![Layer::random(1, 1000)]);
        let both: [(&[&str], &Image); 2] = [(&["kit/busybox:1"], &image), (&["kit/other:1"], &other)];
        write_old(&folder.path().join("old.tar"), &both, Wrap::Plain);
        write_old(&folder.path().join("old.tar.gz"), &both, Wrap::Gzip);
        write_new(&folder.path().join("new.tar"), &both, Wrap::Plain);
        layout::write_tar(&folder.path().join("oci.tar"), &[("kit/oci:1", &busybox(Format::Oci, "x"))]);
        let containerd = Containerd::start();
        containerd.ctr(&["images", "import", &path("old.tar")]);
        containerd.ctr(&["images", "import", &path("oci.tar")]);
        assert!(containerd.ctr(&["images", "ls", "-q"]).contains("docker.io/kit/busybox:1"));
        drop(containerd);
        let docker = Docker::start();
        for file in ["old.tar", "old.tar.gz", "new.tar"] {
            docker.succeed(&["load", "-i", &path(file)]);
            let run = ["run", "--rm", "--network", "host", "kit/busybox:1"];
            assert_eq!(docker.succeed(&run), "hello from the kit", "{file}");
            docker.succeed(&["rmi", "kit/busybox:1", "kit/other:1"]);
        }
    }
}
