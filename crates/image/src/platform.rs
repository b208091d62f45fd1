//! Platforms (image-spec, image-index.md) and the choice of the best match.
//!
//! Names are normalised and variants compared as containerd does (`platforms.Normalize`, `platforms.Only`):
//! `arm` means `arm/v7`, `arm64` means `arm64/v8`, `amd64` means `amd64/v1`; a CPU runs its own variant and every
//! lower one, the highest of those is best. Unlike `Only`, another architecture is never taken (`386` for `amd64`):
//! who asks for `amd64` is told that it is missing.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::Error;

/// `os/architecture[/variant]`, normalised.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Platform {
    /// `linux`, `windows`, …
    pub os: String,
    /// Go's name: `amd64`, `arm64`, …
    pub architecture: String,
    /// `v7` and the like; empty where the architecture's usual one is meant.
    pub variant: String,
}

impl Platform {
    /// A platform from the fields of an index entry or a config.
    #[must_use]
    pub fn new(os: &str, architecture: &str, variant: Option<&str>) -> Self {
        let os = match os.to_ascii_lowercase().as_str() {
            "macos" => "darwin".to_owned(),
            other => other.to_owned(),
        };
        let given = variant.unwrap_or_default().to_ascii_lowercase();
        let (architecture, variant) = match (architecture.to_ascii_lowercase().as_str(), given.as_str()) {
            ("x86_64" | "x86-64" | "amd64", "" | "v1") => ("amd64".to_owned(), String::new()),
            ("x86_64" | "x86-64" | "amd64", v) => ("amd64".to_owned(), v.to_owned()),
            ("i386" | "i486" | "i586" | "i686" | "386", _) => ("386".to_owned(), String::new()),
            ("aarch64" | "arm64", "" | "8" | "v8") => ("arm64".to_owned(), String::new()),
            ("aarch64" | "arm64", v) => ("arm64".to_owned(), v.to_owned()),
            ("armhf", _) => ("arm".to_owned(), "v7".to_owned()),
            ("armel", _) => ("arm".to_owned(), "v6".to_owned()),
            ("arm", "" | "7") => ("arm".to_owned(), "v7".to_owned()),
            ("arm", v @ ("5" | "6" | "8")) => ("arm".to_owned(), format!("v{v}")),
            (a, v) => (a.to_owned(), v.to_owned()),
        };
        Self { os, architecture, variant }
    }

    /// The same from fields that may hold anything: `None` where they cannot be written as `os/architecture[/variant]`. Some tools
    /// write an empty platform where they mean none.
    #[must_use]
    pub fn stated(os: &str, architecture: &str, variant: Option<&str>) -> Option<Self> {
        let platform = Self::new(os, architecture, variant);
        (platform.to_string().parse().as_ref() == Ok(&platform)).then_some(platform)
    }

    /// BuildKit lists attestations under `unknown/unknown`: they are no platform of the image.
    #[must_use]
    pub fn is_unknown(&self) -> bool {
        self.os == "unknown" || self.architecture == "unknown"
    }

    /// How well an image for `other` runs on `self`: `None` not at all, else higher is better.
    #[must_use]
    pub fn rank(&self, other: &Self) -> Option<u32> {
        if self.os != other.os || self.architecture != other.architecture {
            return None;
        }
        if self.variant == other.variant {
            return Some(u32::MAX);
        }
        let (mine, theirs) = (self.level()?, other.level()?);
        (theirs <= mine).then_some(theirs)
    }

    fn level(&self) -> Option<u32> {
        let usual = match self.architecture.as_str() {
            "amd64" => 1,
            "arm" => 7,
            "arm64" => 8,
            _ => return None,
        };
        if self.variant.is_empty() { Some(usual) } else { self.variant.strip_prefix('v')?.parse().ok() }
    }

    /// The index of the best match for `self` among `candidates`; the first of equals.
    ///
    /// # Errors
    /// [`Error::PlatformMissing`], listing what there is.
    pub fn best(&self, candidates: &[Self]) -> Result<usize, Error> {
        let mut best: Option<(u32, usize)> = None;
        for (i, candidate) in candidates.iter().enumerate() {
            if let Some(rank) = self.rank(candidate)
                && best.is_none_or(|(top, _)| rank > top)
            {
                best = Some((rank, i));
            }
        }
        best.map(|(_, i)| i).ok_or_else(|| {
            let mut available: Vec<Self> = candidates.iter().filter(|p| !p.is_unknown()).cloned().collect();
            available.sort();
            available.dedup();
            Error::PlatformMissing { wanted: self.clone(), available }
        })
    }
}

impl FromStr for Platform {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let fail = |why| Error::Platform { text: text.chars().take(80).collect(), why };
        let parts: Vec<&str> = text.split('/').collect();
        let clean = |p: &str| !p.is_empty() && p.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b));
        if !parts.iter().all(|p| clean(p)) {
            return Err(fail("write os/architecture[/variant], for example linux/amd64"));
        }
        match parts.as_slice() {
            [os, architecture] => Ok(Self::new(os, architecture, None)),
            [os, architecture, variant] => Ok(Self::new(os, architecture, Some(variant))),
            _ => Err(fail("write os/architecture[/variant], for example linux/amd64")),
        }
    }
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.os, self.architecture)?;
        if self.variant.is_empty() { Ok(()) } else { write!(f, "/{}", self.variant) }
    }
}

impl Serialize for Platform {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Platform {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn p(text: &str) -> Platform {
        text.parse().expect("platform")
    }

    #[test]
    fn other_names_for_the_same_platform() {
        for (written, normal) in [
            ("linux/x86_64", "linux/amd64"),
            ("linux/amd64/v1", "linux/amd64"),
            ("linux/aarch64", "linux/arm64"),
            ("linux/arm64/v8", "linux/arm64"),
            ("linux/arm", "linux/arm/v7"),
            ("Linux/armhf", "linux/arm/v7"),
            ("linux/armel", "linux/arm/v6"),
            ("linux/arm/6", "linux/arm/v6"),
            ("linux/i386", "linux/386"),
            ("linux/s390x", "linux/s390x"),
        ] {
            assert_eq!(p(written).to_string(), normal);
        }
        for bad in ["", "linux", "linux/", "linux/a b", "a/b/c/d"] {
            assert!(bad.parse::<Platform>().is_err(), "{bad}");
        }
    }

    #[test]
    fn the_highest_variant_that_runs_is_taken() {
        let have = [
            p("linux/386"),
            p("linux/arm/v5"),
            p("linux/arm/v6"),
            p("linux/amd64"),
            p("linux/amd64/v2"),
            p("linux/arm64"),
        ];
        assert_eq!(p("linux/arm/v7").best(&have), Ok(2));
        assert_eq!(p("linux/arm/v5").best(&have), Ok(1));
        assert_eq!(p("linux/amd64").best(&have), Ok(3));
        assert_eq!(p("linux/amd64/v3").best(&have), Ok(4));
        assert_eq!(p("linux/arm64/v9").best(&have), Ok(5));
    }

    #[test]
    fn a_missing_platform_names_those_there_are() {
        let have = [p("linux/amd64"), p("linux/arm64"), p("unknown/unknown")];
        let error = p("linux/s390x").best(&have).expect_err("missing").to_string();
        assert_eq!(error, "platform linux/s390x is missing; there are: linux/amd64, linux/arm64");
        assert!(p("linux/amd64").best(&[p("linux/386")]).is_err());
    }

    fn platforms() -> impl Strategy<Value = Platform> {
        let architecture =
            "amd64|x86_64|x86-64|arm64|aarch64|arm|armhf|armel|386|i686|s390x|riscv64|[A-Za-z0-9._-]{1,5}";
        let variant = prop::option::of("v[5-9]|[5-9]|V8|v1|v2|[A-Za-z0-9._-]{1,4}");
        ("linux|Linux|windows|macos|[A-Za-z0-9._-]{1,5}", architecture, variant)
            .prop_map(|(os, architecture, variant)| Platform::new(&os, &architecture, variant.as_deref()))
    }

    proptest! {
        #[test]
        fn a_normal_platform_stays_as_it_is(platform in platforms()) {
            prop_assert_eq!(platform.to_string().parse(), Ok(platform.clone()));
            let variant = Some(platform.variant.as_str()).filter(|v| !v.is_empty());
            prop_assert_eq!(&Platform::new(&platform.os, &platform.architecture, variant), &platform);
            prop_assert_eq!(platform.rank(&platform), Some(u32::MAX));
        }

        #[test]
        fn the_first_of_the_best_is_taken(wanted in platforms(), have in prop::collection::vec(platforms(), 0..8)) {
            let ranks: Vec<Option<u32>> = have.iter().map(|p| wanted.rank(p)).collect();
            let best = ranks.iter().max().copied().flatten();
            let first = best.and_then(|best| ranks.iter().position(|rank| *rank == Some(best)));
            prop_assert_eq!(wanted.best(&have).ok(), first);
            for (platform, rank) in have.iter().zip(ranks) {
                let same = platform.os == wanted.os && platform.architecture == wanted.architecture;
                prop_assert!(rank.is_none() || same, "{} for {}", platform, wanted);
            }
        }

        #[test]
        fn no_text_panics(text in "\\PC{0,30}") {
            let _ = text.parse::<Platform>();
        }
    }
}
