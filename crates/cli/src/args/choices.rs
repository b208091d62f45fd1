//! Words that options can have, and what they mean.

use clap::ValueEnum;

#[derive(Debug, Clone, Copy, ValueEnum)]
pub(crate) enum Layout {
    /// The repository path: bitnami/etcd
    Path,
    /// Host and path: docker.io/bitnami/etcd
    Host,
    /// The last segment: etcd
    Flat,
}

impl From<Layout> for ferry_image::Layout {
    fn from(layout: Layout) -> Self {
        match layout {
            Layout::Path => Self::Path,
            Layout::Host => Self::Host,
            Layout::Flat => Self::Flat,
        }
    }
}

#[derive(Debug, Clone, Copy, ValueEnum)]
pub(crate) enum Index {
    /// The original index where a digest or a signature asks for it and the target takes it; else something whole
    Auto,
    /// The original index, though some of its platforms are absent
    Sparse,
    /// An index of what is carried
    Filtered,
    /// The platform's manifest itself
    Platform,
}

impl From<Index> for ferry_install::IndexMode {
    fn from(index: Index) -> Self {
        match index {
            Index::Auto => Self::Auto,
            Index::Sparse => Self::Sparse,
            Index::Filtered => Self::Filtered,
            Index::Platform => Self::Platform,
        }
    }
}

#[derive(Debug, Clone, Copy, ValueEnum)]
pub(crate) enum OnExisting {
    /// Move the tag
    Overwrite,
    /// Leave the tag, and the image out
    Skip,
    /// Push nothing and end with code 7
    Fail,
}

impl From<OnExisting> for ferry_install::OnExisting {
    fn from(choice: OnExisting) -> Self {
        match choice {
            OnExisting::Overwrite => Self::Overwrite,
            OnExisting::Skip => Self::Skip,
            OnExisting::Fail => Self::Fail,
        }
    }
}

#[derive(Debug, Clone, Copy, ValueEnum)]
pub(crate) enum Emit {
    /// Values that override a chart's, from each values file that is rewritten
    HelmValues,
    /// A kustomize component with `images`
    Kustomize,
    /// containerd's certs.d: a hosts.toml for each source host
    HostsToml,
    /// registries.yaml of k3s and RKE2
    RegistriesYaml,
    /// registries.conf of CRI-O, Podman, Buildah and Skopeo
    RegistriesConf,
    /// daemon.json of docker: a mirror for docker.io
    DaemonJson,
    /// OpenShift's ImageDigestMirrorSet
    Idms,
    /// OpenShift's ImageTagMirrorSet
    Itms,
    /// relocation.json
    Relocation,
}

impl From<Emit> for ferry_rewrite::emit::Form {
    fn from(emit: Emit) -> Self {
        match emit {
            Emit::HelmValues => Self::HelmValues,
            Emit::Kustomize => Self::Kustomize,
            Emit::HostsToml => Self::HostsToml,
            Emit::RegistriesYaml => Self::RegistriesYaml,
            Emit::RegistriesConf => Self::RegistriesConf,
            Emit::DaemonJson => Self::DaemonJson,
            Emit::Idms => Self::Idms,
            Emit::Itms => Self::Itms,
            Emit::Relocation => Self::Relocation,
        }
    }
}
