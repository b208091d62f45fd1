//! The page at `/`: which images there are, how to pull them, and what the bundles say of themselves.
//!
//! It is made anew for each request, out of what was learnt of every manifest the first time, and kept once for all who take the same
//! (`Large`). Nothing of it is from elsewhere: style and
//! script stand in it, and the content security policy names them by their hashes and allows nothing else.

mod html;
mod listing;

use std::collections::HashMap;
use std::sync::{LazyLock, Mutex};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ferry_image::{Digest, reference};
use http::Response;
use http::header::{CONTENT_SECURITY_POLICY, HeaderValue, REFERRER_POLICY};
use sha2::{Digest as _, Sha256};

use crate::body::Body;
use crate::refusal::Refusal;
use crate::registry::Asked;
use crate::{Backend, Error, Registry, monitoring};

use listing::Summaries;

const STYLE: &str = include_str!("page/page.css");
const SCRIPT: &str = include_str!("page/page.js");

/// What is known of the images beyond what a registry tells.
#[derive(Debug, Clone, Default)]
pub struct About {
    /// The bundles that are served; none for a store.
    pub bundles: Vec<AboutBundle>,
    /// The images of the bundles.
    pub images: Vec<AboutImage>,
}

/// A bundle in the words that people are shown.
#[derive(Debug, Clone, Default)]
pub struct AboutBundle {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: Option<String>,
    /// Who signed it.
    pub signed: String,
    /// The file, or the volumes' common name.
    pub file: String,
    /// Its size in bytes.
    pub size: u64,
    /// The platforms that were asked for.
    pub platforms: Vec<String>,
    /// The files and YAML that it carries, with their sizes in bytes.
    pub files: Vec<(String, u64)>,
    /// References that should have been carried and could not be had.
    pub absent: Vec<String>,
}

/// An image of a bundle.
#[derive(Debug, Clone)]
pub struct AboutImage {
    /// Where it is served.
    pub repository: String,
    /// The tag that it is served under.
    pub tag: Option<String>,
    /// What it was when it was pulled: by this digest it is served too.
    pub digest: Digest,
    /// The name it has in the YAML of whoever made the bundle.
    pub original: String,
    /// The manifests that are carried, with their platforms.
    pub platforms: Vec<(String, Digest)>,
}

/// What the page is made of, and remembers.
#[derive(Debug, Default)]
pub(crate) struct State {
    about: About,
    /// Places in `about.images` by repository and tag.
    by_name: HashMap<(String, String), Vec<usize>>,
    platforms: HashMap<Digest, String>,
    summaries: Mutex<Summaries>,
}

impl State {
    pub(crate) fn new(about: About) -> Self {
        let mut state = Self::default();
        for (at, image) in about.images.iter().enumerate() {
            let tag = image.tag.clone().unwrap_or_default();
            state.by_name.entry((image.repository.clone(), tag)).or_default().push(at);
            let platforms = image.platforms.iter().map(|(platform, digest)| (digest.clone(), platform.clone()));
            state.platforms.extend(platforms);
        }
        state.about = about;
        state
    }

    /// The original names of what is served under a name; an empty tag is none.
    fn originals(&self, repository: &str, tag: &str) -> impl Iterator<Item = &str> {
        let found = self.by_name.get(&(repository.to_owned(), tag.to_owned()));
        found.into_iter().flatten().filter_map(|at| self.about.images.get(*at)).map(|image| image.original.as_str())
    }
}

/// How many images the page lists.
///
/// # Errors
/// Whatever the backend reports.
pub fn count(backend: &dyn Backend, about: &About) -> Result<usize, Error> {
    Ok(listing::named(backend, about)?.0.len())
}

pub(crate) async fn serve(registry: &Registry, asked: &Asked) -> Result<Response<Body>, Refusal> {
    let turn = registry.large.turn().await;
    let images = listing::images(registry).await?;
    let address = asked.host.as_deref().filter(|host| reference::is_host(host));
    let (takes_pushes, has_ca) = (registry.store().is_some(), registry.authority.is_some());
    let has_changed = monitoring::has_changed(registry).await;
    let place = html::Place { address, is_https: asked.is_secure, has_ca, takes_pushes, has_changed };
    let text = registry.large.share(html::page(&registry.page.about, &images, &place))?;
    drop((images, turn));
    let mut response = monitoring::answer("text/html; charset=utf-8", text);
    let headers = response.headers_mut();
    headers.insert(CONTENT_SECURITY_POLICY, POLICY.clone());
    headers.insert(REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    Ok(response)
}

/// `data:` is the icon, without which browsers ask for `/favicon.ico`.
static POLICY: LazyLock<HeaderValue> = LazyLock::new(|| {
    let hash = |text: &str| STANDARD.encode(Sha256::digest(text.as_bytes()));
    let policy = format!(
        "default-src 'none'; style-src 'sha256-{}'; script-src 'sha256-{}'; img-src data:; base-uri 'none'; form-action 'none'; \
         frame-ancestors 'none'",
        hash(STYLE),
        hash(SCRIPT)
    );
    HeaderValue::try_from(policy).unwrap_or_else(|_| HeaderValue::from_static("default-src 'none'"))
});
