//! Small file systems to fill, and to lose power under. They need `root` and `mount`, those in a file `mkfs.ext4` and loop devices as well.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::ferry::Running;
use crate::tools;

/// A tmpfs of a set size, unmounted when dropped.
#[derive(Debug)]
pub struct SmallDisk(PathBuf);

impl SmallDisk {
    /// Mounts one: `4m`.
    #[must_use]
    pub fn mount(at: &Path, size: &str) -> Self {
        fs::create_dir_all(at).unwrap();
        tools::succeed("mount", &["-t", "tmpfs", "-o", &format!("size={size}"), "tmpfs", at.to_str().unwrap()]);
        Self(at.to_owned())
    }

    /// Gives it another size.
    pub fn resize(&self, size: &str) {
        tools::succeed("mount", &["-o", &format!("remount,size={size}"), self.0.to_str().unwrap()]);
    }

    /// From now on it can only be read.
    pub fn protect(&self) {
        tools::succeed("mount", &["-o", "remount,ro", self.0.to_str().unwrap()]);
    }

    /// The names of everything at its top, sorted.
    #[must_use]
    pub fn names(&self) -> Vec<String> {
        names(&self.0)
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        unmount(&self.0);
    }
}

/// An ext file system in a file, mounted over a loop device; unmounted when dropped.
#[derive(Debug)]
pub struct FileDisk {
    file: PathBuf,
    at: PathBuf,
}

impl FileDisk {
    /// Makes one of a type (`ext4`, or `ext2`, which has no `fallocate`) and mounts it. Nothing reaches the file unless somebody asks for it.
    #[must_use]
    pub fn new(file: &Path, at: &Path, kind: &str, bytes: u64) -> Self {
        File::create(file).unwrap().set_len(bytes).unwrap();
        tools::succeed(&format!("mkfs.{kind}"), &["-q", "-F", "-m", "0", file.to_str().unwrap()]);
        Self::mount(file, at, kind)
    }

    /// Mounts what stands in a file; its journal is replayed.
    #[must_use]
    pub fn mount(file: &Path, at: &Path, kind: &str) -> Self {
        fs::create_dir_all(at).unwrap();
        // no commit by itself, no data written because of a rename: only what is synced is there
        let options = if kind == "ext4" { "loop,commit=600,noauto_da_alloc" } else { "loop" };
        tools::succeed("mount", &["-t", kind, "-o", options, file.to_str().unwrap(), at.to_str().unwrap()]);
        Self { file: file.to_owned(), at: at.to_owned() }
    }

    /// What a loss of power would leave right now: `ferry` stands still while the file is copied.
    pub fn lose_power(&self, running: &Running, copy: &Path) {
        running.signal("STOP");
        running.stands_still(Duration::from_secs(20));
        fs::copy(&self.file, copy).unwrap();
        running.signal("CONT");
    }

    /// The names of everything at its top, sorted.
    #[must_use]
    pub fn names(&self) -> Vec<String> {
        names(&self.at)
    }
}

impl Drop for FileDisk {
    fn drop(&mut self) {
        unmount(&self.at);
    }
}

fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned());
    let mut names: Vec<String> = entries.filter(|name| name != "lost+found").collect();
    names.sort();
    names
}

fn unmount(at: &Path) {
    let at = at.to_str().unwrap();
    // somebody may still look at it; the loop device goes with it
    if !tools::run("umount", &[at]).status.success() {
        let _ = tools::run("umount", &["-l", at]);
    }
}
