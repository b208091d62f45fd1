//! The page as text. Pure; everything that is not written here is escaped, whoever made it.

use std::fmt::Write as _;

use super::listing::{Image, Kind, Part};
use super::{About, AboutBundle, SCRIPT, STYLE};

/// How the page was reached, which is how images are pulled.
#[derive(Debug, Clone, Copy)]
pub(super) struct Place<'a> {
    /// `HOST[:PORT]`; `None` when the client did not say it in a way that can be repeated.
    pub(super) address: Option<&'a str>,
    pub(super) is_https: bool,
    /// Whether the certificate was made here, and nodes must be given the one at `/ca.crt`.
    pub(super) has_ca: bool,
    pub(super) takes_pushes: bool,
    /// Whether a bundle was written to since it was opened.
    pub(super) has_changed: bool,
}

impl Place<'_> {
    fn address(&self) -> &str {
        self.address.unwrap_or("HOST:PORT")
    }

    fn is_local(&self) -> bool {
        let address = self.address();
        ["localhost", "127.", "[::1]"].iter().any(|start| address.starts_with(start))
    }
}

/// A boat, for the tab.
const ICON: &str = "data:image/svg+xml,%3Csvg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 32 32'%3E%3Cpath fill='%230b7285' \
                    d='M3 19h26l-4 8H8zM9 9h6v8H9zm8-4h6v12h-6z'/%3E%3C/svg%3E";

/// Bytes that an image takes on the page, for the size of the first allocation.
const USUAL: usize = 1500;

pub(super) fn page(about: &About, images: &[Image], place: &Place<'_>) -> String {
    let title = match about.bundles.as_slice() {
        [] => "Image registry".to_owned(),
        [one] => full_name(one),
        many => format!("{} bundles", many.len()),
    };
    let mut out = String::with_capacity(STYLE.len() + SCRIPT.len() + 8192 + images.len() * USUAL);
    let _ = write!(
        out,
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <meta name=\"color-scheme\" content=\"light dark\">\n<title>{0} – ferry</title>\n\
         <link rel=\"icon\" href=\"{ICON}\">\n<style>{STYLE}</style>\n</head>\n<body>\n\
         <a class=\"skip\" href=\"#images\">Skip to the images</a>\n<header>\n<p class=\"brand\">ferry</p>\n<h1>{0}</h1>\n<p class=\"sub\">",
        Escaped(&title)
    );
    let _ = write!(out, "{}", counted(images.len(), "image"));
    out.push_str(if place.takes_pushes { " <span>takes pushes</span>" } else { " <span>read-only</span>" });
    let damaged = images.iter().filter(|image| image.is_damaged).count();
    if damaged > 0 {
        let _ = write!(out, " <span class=\"bad\">{damaged} damaged</span>");
    }
    if let Some(address) = place.address {
        let scheme = if place.is_https { "https" } else { "http" };
        let _ = write!(out, " <span>{scheme}://{}</span>", Escaped(address));
    }
    out.push_str("</p>\n</header>\n<main>\n");
    if place.has_changed {
        out.push_str(
            "<p class=\"hint bad\" role=\"alert\">A bundle has changed on this server’s disk since it was opened. Its images are still listed, \
             and their blobs are refused until the server is started again; its log names the file.</p>\n",
        );
    }
    for bundle in &about.bundles {
        carried(&mut out, bundle);
    }
    if images.is_empty() {
        empty(&mut out, place);
    } else {
        list(&mut out, images, place);
    }
    let _ = write!(
        out,
        "</main>\n<footer><span>ferry {}</span> <a href=\"/v2/_catalog\">catalog</a> <a href=\"/metrics\">metrics</a> \
         <a href=\"/healthz\">health</a></footer>\n<script>{SCRIPT}</script>\n</body>\n</html>\n",
        env!("CARGO_PKG_VERSION")
    );
    out
}

fn full_name(bundle: &AboutBundle) -> String {
    match &bundle.version {
        Some(version) => format!("{} {version}", bundle.name),
        None => bundle.name.clone(),
    }
}

fn carried(out: &mut String, bundle: &AboutBundle) {
    let files = bundle.files.len();
    let _ = write!(out, "<details class=\"bundle\"><summary><b>{}</b> ", Escaped(&full_name(bundle)));
    let _ = write!(out, "<span>{}</span> <span>{}</span>", Escaped(&bundle.signed), bytes(bundle.size));
    if files > 0 {
        let _ = write!(out, " <span>{}</span>", counted(files, "file"));
    }
    out.push_str("</summary>\n<dl>");
    let mut row = |name: &str, value: &str| {
        let _ = write!(out, "<dt>{name}</dt><dd>{}</dd>", Escaped(value));
    };
    row("Bundle", &bundle.name);
    bundle.version.iter().for_each(|version| row("Version", version));
    row("Signature", &bundle.signed);
    row("File", &bundle.file);
    if !bundle.platforms.is_empty() {
        row("Platforms", &bundle.platforms.join(", "));
    }
    if !bundle.files.is_empty() {
        out.push_str("<dt>Files</dt><dd><ul class=\"files\">");
        for (path, size) in &bundle.files {
            let _ = write!(out, "<li><code>{}</code> <span>{}</span></li>", Escaped(path), bytes(*size));
        }
        out.push_str("</ul></dd>");
    }
    if !bundle.absent.is_empty() {
        out.push_str("<dt>Not carried</dt><dd><ul class=\"files\">");
        for reference in &bundle.absent {
            let _ = write!(out, "<li><code>{}</code></li>", Escaped(reference));
        }
        out.push_str("</ul></dd>");
    }
    out.push_str("</dl>\n</details>\n");
}

fn empty(out: &mut String, place: &Place<'_>) {
    out.push_str("<section id=\"images\" class=\"empty\">\n<h2>No images</h2>\n");
    if place.takes_pushes {
        let address = place.address();
        out.push_str("<p>This registry is ready, and nothing was pushed to it yet.</p>\n<div class=\"body\">");
        command(out, "ferry", format_args!("ferry install BUNDLE.tar --registry {}", Escaped(address)));
        command(out, "docker", format_args!("docker push {}/NAME:TAG", Escaped(address)));
        out.push_str("</div>\n");
    } else {
        out.push_str("<p>What is served here has no images.</p>\n");
    }
    out.push_str("</section>\n");
}

fn list(out: &mut String, images: &[Image], place: &Place<'_>) {
    out.push_str(
        "<section id=\"images\" aria-labelledby=\"heading\">\n<div class=\"bar\"><h2 id=\"heading\">Images</h2>\n\
         <div id=\"find\" role=\"search\" hidden><label for=\"q\">Search</label><input id=\"q\" type=\"search\" autocomplete=\"off\" \
         spellcheck=\"false\" placeholder=\"name, tag, platform or digest\"></div>\n\
         <output id=\"count\" aria-live=\"polite\"></output></div>\n",
    );
    hint(out, place);
    out.push_str("<ul id=\"list\">\n");
    for image in images {
        row(out, image, place);
    }
    out.push_str("</ul>\n<p id=\"none\" hidden>No image matches.</p>\n</section>\n");
}

/// What keeps a node from pulling by the commands as they stand.
fn hint(out: &mut String, place: &Place<'_>) {
    if place.is_local() {
        out.push_str("<p class=\"hint\">These commands work on this machine. On another, put this machine’s name in place of <code>");
        let _ = writeln!(out, "{}</code>.</p>", Escaped(place.address()));
    } else if !place.is_https {
        out.push_str("<p class=\"hint\">This registry speaks plain HTTP. Docker takes it once <code>");
        let _ = write!(out, "\"insecure-registries\": [\"{}\"]", Escaped(place.address()));
        out.push_str("</code> stands in <code>/etc/docker/daemon.json</code>.</p>\n");
    }
    if place.is_https {
        let address = Escaped(place.address());
        let what = if place.has_ca {
            "Engines must trust the CA of this server. <a href=\"/ca.crt\">Its certificate</a>"
        } else {
            "Where an engine does not know the CA of this server’s certificate, that of the CA"
        };
        let _ = write!(
            out,
            "<p class=\"hint\">{what} goes to <code>/etc/docker/certs.d/{address}/ca.crt</code> for Docker, to \
             <code>/etc/containers/certs.d/{address}/ca.crt</code> for Podman and CRI-O"
        );
        out.push_str(match place.has_ca {
            true => ". Its SHA-256 must be the one that this server printed when it was started.</p>\n",
            false => ".</p>\n",
        });
    }
}

fn row(out: &mut String, image: &Image, place: &Place<'_>) {
    let summary = &image.summary;
    let _ = write!(out, "<li><details><summary><b>{}</b> <span class=\"t\">", Escaped(&image.repository));
    for tag in &image.tags {
        let _ = write!(out, "<i>{}</i> ", Escaped(tag));
    }
    if image.tags.is_empty() {
        let _ = write!(out, "<i>@{}</i>", image.digest.short());
    }
    out.push_str("</span> <span class=\"p\">");
    match &summary.kind {
        Kind::Image => platforms(out, &summary.parts),
        Kind::Chart => out.push_str("Helm chart"),
        Kind::Artifact(what) => {
            let _ = write!(out, "{}", Escaped(what));
        }
        Kind::Damaged => out.push_str("cannot be read"),
    }
    for what in &image.attached {
        let _ = write!(out, " <em>{what}</em>");
    }
    if image.is_damaged {
        out.push_str(" <em class=\"bad\">damaged</em>");
    }
    let _ = write!(out, "</span> <span class=\"s\">{}</span></summary>\n<div class=\"body\">", bytes(summary.size));
    if image.is_damaged {
        remedy(out, place);
    }
    commands(out, image, place);
    let _ = write!(out, "<dl><dt>Digest</dt><dd><code class=\"o\">{}</code></dd>", image.digest);
    for original in &image.originals {
        let _ = write!(out, "<dt>Original name</dt><dd><code class=\"o\">{}</code></dd>", Escaped(original));
    }
    if let [_, _, ..] = summary.parts.as_slice() {
        out.push_str("<dt>Platforms</dt><dd><ul class=\"files\">");
        for part in &summary.parts {
            let platform = part.platform.as_deref().unwrap_or("unknown");
            let size = bytes(part.size);
            let _ = write!(
                out,
                "<li>{} <span>{size}</span> <code class=\"o\">{}</code></li>",
                Escaped(platform),
                part.digest
            );
        }
        out.push_str("</ul></dd>");
    }
    out.push_str("</dl></div></details></li>\n");
}

/// What becomes whole again by what.
fn remedy(out: &mut String, place: &Place<'_>) {
    out.push_str(
        "<p class=\"hint\"><span class=\"bad\">Damaged:</span> a blob of this image is not what its digest says, and is not given out; the \
         log names it. ",
    );
    out.push_str(match place.takes_pushes {
        // what asks for the manifest first finds it, and sends nothing
        true => {
            "<code>ferry install BUNDLE.tar --recheck</code> brings it again, as does a push with <code>skopeo copy</code>, Docker or \
             Podman, which ask for each blob.</p>\n"
        }
        false => {
            "<code>ferry verify BUNDLE.tar</code> says what else is damaged, <code>ferry repair BUNDLE.tar</code> mends a bundle with \
             recovery files. Or copy it anew, and start again with the copy, or with both.</p>\n"
        }
    });
}

fn platforms(out: &mut String, parts: &[Part]) {
    if parts.is_empty() {
        out.push_str("none of its platforms is here");
    }
    for (at, part) in parts.iter().enumerate() {
        let comma = if at == 0 { "" } else { ", " };
        let _ = write!(out, "{comma}{}", Escaped(part.platform.as_deref().unwrap_or("unknown platform")));
    }
}

fn commands(out: &mut String, image: &Image, place: &Place<'_>) {
    let (address, repository) = (Escaped(place.address()), Escaped(&image.repository));
    let digest = image.digest.to_string();
    let (mark, name) = match image.tags.first() {
        Some(tag) => (':', tag.as_str()),
        None => ('@', digest.as_str()),
    };
    let name = Escaped(name);
    match image.summary.kind {
        Kind::Image => {
            let (ctr, podman) = match (place.is_https, place.has_ca) {
                (false, _) => ("--plain-http ", "--tls-verify=false "),
                (true, true) => ("--tlscacert ca.crt ", ""),
                (true, false) => ("", ""),
            };
            command(out, "docker", format_args!("docker pull {address}/{repository}{mark}{name}"));
            let pull = format_args!("ctr -n k8s.io images pull {ctr}{address}/{repository}{mark}{name}");
            command(out, "containerd", pull);
            command(out, "podman", format_args!("podman pull {podman}{address}/{repository}{mark}{name}"));
        }
        Kind::Chart => {
            let plain = match (place.is_https, place.has_ca) {
                (false, _) => " --plain-http",
                (true, true) => " --ca-file ca.crt",
                (true, false) => "",
            };
            // a chart's version has `+` where its tag has `_`
            let version = image.tags.first().map(|tag| tag.replace('_', "+"));
            let version = version.map(|version| format!(" --version {}", Escaped(&version))).unwrap_or_default();
            command(out, "helm", format_args!("helm pull oci://{address}/{repository}{version}{plain}"));
        }
        Kind::Artifact(_) | Kind::Damaged => {}
    }
}

/// One that can be copied; the button is the script's.
fn command(out: &mut String, program: &str, text: std::fmt::Arguments<'_>) {
    let _ = write!(out, "<p class=\"c\"><span>{program}</span><code>{text}</code></p>");
}

/// `1 image`, `1,000 images`.
fn counted(n: usize, noun: &str) -> String {
    let digits = n.to_string();
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    let plural = if n == 1 { "" } else { "s" };
    format!("{text} {noun}{plural}")
}

/// `1.2 GB`, and exact below 1 kB: decimal, as the command line shows sizes.
fn bytes(n: u64) -> String {
    const UNITS: [&str; 5] = ["kB", "MB", "GB", "TB", "PB"];
    if n < 1000 {
        return format!("{n} B");
    }
    let (mut unit, mut tenths) = (0, n / 100);
    while tenths >= 10_000 && unit + 1 < UNITS.len() {
        tenths /= 1000;
        unit += 1;
    }
    format!("{}.{} {}", tenths / 10, tenths % 10, UNITS[unit])
}

/// Text for between tags and within attributes. What turns text around is shown as its number: nobody shall read another name than the one
/// that stands there.
struct Escaped<'a>(&'a str);

impl std::fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut rest = self.0;
        while let Some(at) = rest.find(|c: char| matches!(c, '&' | '<' | '>' | '"' | '\'') || turns(c)) {
            let (plain, from) = rest.split_at(at);
            f.write_str(plain)?;
            let mut chars = from.chars();
            match chars.next() {
                Some('&') => f.write_str("&amp;")?,
                Some('<') => f.write_str("&lt;")?,
                Some('>') => f.write_str("&gt;")?,
                Some('"') => f.write_str("&quot;")?,
                Some('\'') => f.write_str("&#39;")?,
                Some(other) => write!(f, "{}", other.escape_unicode())?,
                None => {}
            }
            rest = chars.as_str();
        }
        f.write_str(rest)
    }
}

fn turns(c: char) -> bool {
    c.is_control() || matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn numbers_for_people() {
        for (n, text) in [
            (0, "0 images"),
            (1, "1 image"),
            (999, "999 images"),
            (1000, "1,000 images"),
            (1_234_567, "1,234,567 images"),
        ] {
            assert_eq!(counted(n, "image"), text);
        }
        for (n, text) in
            [(0, "0 B"), (999, "999 B"), (1000, "1.0 kB"), (1_550_000_000, "1.5 GB"), (u64::MAX, "18446.7 PB")]
        {
            assert_eq!(bytes(n), text);
        }
    }

    #[test]
    fn what_comes_from_outside_is_text_and_no_more() {
        let text = Escaped("<b onclick='x' a=\"\">&\u{202e}\n").to_string();
        assert_eq!(text, "&lt;b onclick=&#39;x&#39; a=&quot;&quot;&gt;&amp;\\u{202e}\\u{a}");
    }

    proptest! {
        #[test]
        fn no_bundle_can_write_into_the_page(name in ".{0,30}", signed in ".{0,30}", path in ".{0,30}", host in ".{0,20}") {
            let bundle = |name: &str, signed: &str, path: &str| AboutBundle {
                name: name.to_owned(),
                signed: signed.to_owned(),
                files: vec![(path.to_owned(), 1)],
                ..AboutBundle::default()
            };
            let made = |bundle, host: &str| {
                let place = Place { address: Some(host), is_https: false, has_ca: false, takes_pushes: true, has_changed: false };
                page(&About { bundles: vec![bundle], ..About::default() }, &[], &place)
            };
            let tags = |page: &str| (page.matches('<').count(), page.matches('>').count(), page.matches('"').count());
            let plain = made(bundle("a", "a", "a"), "a");
            prop_assert_eq!(tags(&made(bundle(&name, &signed, &path), &host)), tags(&plain));
        }
    }
}
