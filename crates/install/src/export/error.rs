//! Why images could not be written down for nodes, or handed to one.

use std::path::{Path, PathBuf};

use ferry_content::{Failure, Kind};
use ferry_image::{Descriptor, Platform};

use crate::error::{counted, listed, quoted};

/// What can be wrong beside the bundles themselves.
#[derive(Debug, thiserror::Error)]
pub enum Fault {
    /// No image is of that name.
    #[error("no bundle carries an image `{pattern}`")]
    NoImage {
        /// As it was asked for.
        pattern: String,
        /// Some that are carried.
        carried: Vec<String>,
    },
    /// The image is carried for other platforms.
    #[error("{0}")]
    Platform(ferry_image::Error),
    /// A form that has one platform for an image, and an image with several.
    #[error("{form} takes an image for one platform, and it is carried for {}", list(.platforms))]
    ManyPlatforms {
        /// The form.
        form: &'static str,
        /// Those that are carried.
        platforms: Vec<Platform>,
    },
    /// Nothing that the form could hold.
    #[error("there is no container image to export: {left_out} left out")]
    Nothing {
        /// How many are something else.
        left_out: usize,
    },
    /// Blobs of an image that no bundle carries.
    #[error("{}", lacking(.blobs, .bases))]
    Lacking {
        /// Which.
        blobs: Vec<Descriptor>,
        /// The bundles that have them, as `NAME[@VERSION]`.
        bases: Vec<String>,
    },
    /// A layer that docker cannot read, and that cannot be changed into one.
    #[error("layer {digest} is `{media_type}`, which {form} does not read")]
    Layer {
        /// Its digest.
        digest: ferry_image::Digest,
        /// Its media type.
        media_type: String,
        /// The form.
        form: &'static str,
    },
    /// The output would replace what it is made from.
    #[error("`{}` is a bundle that is exported", .path.display())]
    Onto {
        /// The file.
        path: PathBuf,
    },
    /// A device, a pipe or a folder under the name of the archive: it would be replaced.
    #[error("`{}` is there and is no file", .path.display())]
    NotAFile {
        /// What is there.
        path: PathBuf,
    },
    /// A folder that holds something else.
    #[error("`{}` is no OCI layout, and not empty: it holds `{found}`", .path.display())]
    NotALayout {
        /// The folder.
        path: PathBuf,
        /// What does not belong into a layout.
        found: String,
    },
    /// The `index.json` of a layout that cannot be read.
    #[error("`{}` is no index: {why}", .path.display())]
    Index {
        /// The file.
        path: PathBuf,
        /// Why.
        why: String,
    },
    /// Somebody else writes there.
    #[error("another export writes to `{}`", .path.display())]
    Busy {
        /// The folder.
        path: PathBuf,
    },
    /// Bytes came out of their order, or wrong ones went into a pipe.
    #[error("{place}: {why}")]
    Order {
        /// Where they went to.
        place: String,
        /// What happened.
        why: String,
    },
    /// A command of the node's that cannot be started.
    #[error("`{program}` cannot be started: {source}")]
    NoProgram {
        /// The program.
        program: &'static str,
        /// What the system says.
        source: std::io::Error,
    },
    /// Nobody listens where the engine should.
    #[error("`{}` is no socket of {}'s: {why}", .path.display(), engine(.program))]
    NoEngine {
        /// The program that would ask there.
        program: &'static str,
        /// Where.
        path: PathBuf,
        /// What is wrong.
        why: String,
        /// Another engine of the same kind that is there.
        other: Option<PathBuf>,
    },
    /// A command of the node's that failed.
    #[error("`{command}` failed{}", said(.words))]
    Failed {
        /// The program.
        program: &'static str,
        /// The command.
        command: String,
        /// What it said last.
        words: String,
    },
    /// The command succeeded, and the image is not there.
    #[error("the node does not have it, though `{command}` succeeded: {found}")]
    NotThere {
        /// The command.
        command: String,
        /// What is there instead.
        found: String,
    },
}

impl Failure for Fault {
    fn kind(&self) -> Kind {
        match self {
            Self::NoImage { .. } | Self::Platform(_) | Self::Lacking { .. } | Self::Nothing { .. } => Kind::Missing,
            Self::ManyPlatforms { .. } => Kind::Usage,
            Self::Layer { .. } | Self::Index { .. } => Kind::Invalid,
            Self::Onto { .. } | Self::NotALayout { .. } | Self::Busy { .. } => Kind::Conflict,
            Self::NotAFile { .. } | Self::Order { .. } => Kind::Local,
            Self::NoEngine { .. } | Self::NoProgram { .. } | Self::Failed { .. } | Self::NotThere { .. } => Kind::Local,
        }
    }

    fn hint(&self) -> Option<String> {
        Some(match self {
            Self::NoImage { carried, .. } => {
                let all = "`ferry inspect` lists all; `*` stands for any characters";
                match carried.as_slice() {
                    [] => all.to_owned(),
                    some => format!("there is {}; {all}", some.join(", ")),
                }
            }
            Self::Platform(_) => "choose one that is carried, or build the bundle with `--platform` for it".to_owned(),
            Self::ManyPlatforms { .. } => "choose that of the nodes with `--platform`".to_owned(),
            Self::Nothing { .. } => {
                "charts and other artifacts go to registries; `--to oci` writes them too".to_owned()
            }
            Self::Lacking { bases, .. } => {
                let base = bases.first().map_or("the bundle that has them".to_owned(), |base| format!("`{base}`"));
                format!("give {base} together with it: `ferry export BASE.tar THIS.tar …`")
            }
            Self::Layer { .. } => "export it with `--to containerd` or `--to oci`, or build the image anew".to_owned(),
            Self::Onto { .. } => "choose another name or folder with `-o`".to_owned(),
            Self::NotAFile { .. } => {
                "name a file that may be created or replaced; `-o -` writes into a pipe".to_owned()
            }
            Self::NotALayout { .. } => "name an empty folder, or a new one".to_owned(),
            Self::Index { .. } => "name an empty folder, or mend that file".to_owned(),
            Self::Busy { .. } => "wait for it to end".to_owned(),
            Self::Order { .. } => "run the same command again; into a file, if a bundle is damaged".to_owned(),
            Self::NoProgram { program, source } => no_program(program, source),
            Self::NoEngine { program, why, other, .. } => no_engine(program, why, other.as_deref()),
            Self::Failed { program, words, .. } => failed(program, words),
            Self::NotThere { .. } => {
                "look at the log of the container engine, and run the same command again".to_owned()
            }
        })
    }
}

fn no_program(program: &str, source: &std::io::Error) -> String {
    if source.kind() != std::io::ErrorKind::NotFound {
        return format!("run `{program}` by hand to see why");
    }
    match program {
        "ctr" => {
            "run this on a node with containerd, whose `ctr` must be on PATH (on k3s: `ln -s \"$(command -v k3s)\" \
                  /usr/local/bin/ctr`); or write files for it with `ferry export --to containerd`"
                .to_owned()
        }
        _ => "run this where docker is installed and on PATH, or write a file for it with `ferry export --to docker`"
            .to_owned(),
    }
}

/// The engine that a program asks.
fn engine(program: &str) -> &'static str {
    if program == "ctr" { "containerd" } else { "docker" }
}

/// What to do where no engine listens.
fn no_engine(program: &str, why: &str, other: Option<&Path>) -> String {
    if why == DENIED {
        return MAY.to_owned();
    }
    match (program, other) {
        (_, Some(other)) => format!("there is that of k3s: `--containerd-address {}`", other.display()),
        ("ctr", None) => NO_CONTAINERD.to_owned(),
        _ => NO_DOCKER.to_owned(),
    }
}

/// What systems and engines say of a socket that is closed to us.
pub(crate) const DENIED: &str = "permission denied";
const MAY: &str = "run it as root, or as a member of the group that may use the socket";
const NO_CONTAINERD: &str =
    "is it running? name its socket with `--containerd-address` (k3s: /run/k3s/containerd/containerd.sock)";
const NO_DOCKER: &str = "is it running? name its address, such as `--docker-host unix:///var/run/docker.sock`";

/// What to do about the complaint of a container engine.
fn failed(program: &str, words: &str) -> String {
    let lower = words.to_ascii_lowercase();
    let says = |text: &str| lower.contains(text);
    if says(DENIED) {
        MAY
    } else if says("cannot connect")
        || says("failed to dial")
        || says("no such file or directory")
        || says("connection refused")
    {
        if program == "ctr" { NO_CONTAINERD } else { NO_DOCKER }
    } else if says("no space left") {
        "make room on the node's disk (`docker image prune`, `crictl rmi --prune`), then run the same command again"
    } else {
        "run the same command again; if it fails again, write a file with `ferry export` and load that by hand"
    }
    .to_owned()
}

fn said(words: &str) -> String {
    if words.is_empty() { String::new() } else { format!(": {words}") }
}

fn list(platforms: &[Platform]) -> String {
    platforms.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

fn lacking(blobs: &[Descriptor], bases: &[String]) -> String {
    let are = if blobs.len() == 1 { "is" } else { "are" };
    let who = match quoted(bases) {
        bases if bases.is_empty() => String::new(),
        bases => format!(", only {bases} has"),
    };
    format!("{} {are} in no bundle that is given{who}:{}", counted(blobs), listed(blobs))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_engine_that_does_not_listen_has_a_remedy_of_its_own() {
        let k3s = Path::new("/run/k3s/containerd/containerd.sock");
        for (program, why, other, hint) in [
            ("ctr", "it is not there", None, "--containerd-address"),
            ("ctr", "it is not there", Some(k3s), "`--containerd-address /run/k3s/containerd/containerd.sock`"),
            ("docker", "it is not there", None, "--docker-host"),
            ("ctr", DENIED, Some(k3s), "as root"),
            ("docker", DENIED, None, "as root"),
        ] {
            assert!(no_engine(program, why, other).contains(hint), "{program} {why}");
        }
    }

    #[test]
    fn complaints_of_engines_have_remedies() {
        for (words, hint) in [
            ("Cannot connect to the Docker daemon at unix:///x. Is the docker daemon running?", "is it running?"),
            (
                "ctr: failed to dial \"/x\": context deadline exceeded: connection error: dial unix /x: connect: no such file or directory",
                "is it running?",
            ),
            ("ctr: failed to dial \"/x\": context deadline exceeded: dial unix:///x: timeout", "is it running?"),
            ("dial unix /var/run/docker.sock: connect: permission denied", "as root"),
            ("write /var/lib/x: no space left on device", "make room"),
            ("unrecognised", "run the same command again"),
        ] {
            for (program, names) in [("ctr", "--containerd-address"), ("docker", "--docker-host")] {
                let told = failed(program, words);
                assert!(told.contains(hint) && (hint != "is it running?" || told.contains(names)), "{words}: {told}");
            }
        }
    }
}
