//! The page of `ferry serve` in a real browser, and what monitoring reads.

use ferry_tests::browser::Browser;
use ferry_tests::disks::SmallDisk;
use ferry_tests::http::Endpoint;
use ferry_tests::images::Format;
use ferry_tests::registry::{Access, Registry, push};
use ferry_tests::require;
use ferry_tests::site::Site;

use crate::{SIGN, TRUST, bundled, small, two_platforms};

const NAMES: &str = "#list summary b";

/// The lowest contrast of text with what is behind it (WCAG 2.2, 1.4.3 asks for 4.5).
const LEAST_CONTRAST: &str = r#"(() => {
    const channels = (color) => color.match(/[\d.]+/g).map(Number);
    const light = (color) => channels(color).slice(0, 3).map((c) => c / 255)
        .map((c) => c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4)
        .reduce((sum, c, at) => sum + c * [0.2126, 0.7152, 0.0722][at], 0);
    const behind = (element) => {
        const color = getComputedStyle(element).backgroundColor;
        return channels(color)[3] === 0 ? behind(element.parentElement) : color;
    };
    const texts = [...document.querySelectorAll('body *')]
        .filter((e) => e.checkVisibility() && [...e.childNodes].some((n) => n.nodeType === 3 && n.data.trim()));
    return Math.min(...texts.map((e) => {
        const [low, high] = [light(getComputedStyle(e).color), light(behind(e))].sort((a, b) => a - b);
        return (high + 0.05) / (low + 0.05);
    }));
})()"#;

#[test]
fn the_page_of_a_bundle_lists_every_image_and_can_be_searched() {
    require!("docker-registry", "chromium", "chromedriver");
    let (plain, both) = (small(1), two_platforms(Format::Oci, 2));
    let long = format!("team/{}", ["a-very-long-name"; 6].join("/"));
    let images =
        [("app/one:1", &plain), ("app/two:2.5", &both), ("db/three:latest", &plain), (&*format!("{long}:1"), &both)];
    let source = Registry::filled(Access::Plain, &images);
    let site = Site::new();
    site.write("notes.txt", "read me");
    let references: String = images.iter().map(|(name, _)| format!("  - {}/{name}\n", source.host())).collect();
    let manifest = format!("name: shop\nversion: '1.4'\nplatforms: [all]\nfiles: [notes.txt]\nimages:\n{references}");
    site.write("shop.yaml", manifest);
    let _ = site.ferry(&format!("bundle shop.yaml -o b.tar {SIGN}")).ok();
    let (host, serving) = site.serve(&format!("b.tar {TRUST}"));

    let browser = Browser::open(1200, 900);
    browser.go(&format!("http://{host}/"));
    assert_eq!(browser.sees("h1"), ["shop 1.4"]);
    assert_eq!(browser.sees(NAMES), ["app/one", "app/two", "db/three", long.as_str()]);
    assert!(browser.sees(".sub")[0].starts_with("4 images read-only http://"), "{:?}", browser.sees(".sub"));
    assert!(browser.sees(".bundle summary")[0].contains("signed by"), "{:?}", browser.sees(".bundle summary"));

    browser.types("#q", "APP/ 2.5");
    assert_eq!(
        (browser.sees(NAMES), browser.sees("#count")),
        (vec!["app/two".to_owned()], vec!["1 of 4 images".to_owned()])
    );
    browser.presses("\u{e00c}"); // Escape
    assert_eq!(browser.sees(NAMES).len(), 4);
    browser.types("#q", "arm64");
    assert_eq!(browser.sees(NAMES), ["app/two", long.as_str()]);
    browser.presses("\u{e00c}");
    browser.types("#q", &plain.digest()[7..30]);
    assert_eq!(browser.sees(NAMES), ["app/one", "db/three"]);
    browser.types("#q", "x");
    assert_eq!((browser.sees(NAMES).len(), browser.sees("#none")), (0, vec!["No image matches.".to_owned()]));
    browser.presses("\u{e00c}");

    // by keyboard: the first image is opened, its command copied
    assert_eq!(browser.sees("#list .c code").len(), 0);
    let _ = browser.asks("document.querySelector('#list summary').focus()");
    browser.presses("\u{e007}"); // Enter
    let commands = browser.sees("#list .c code");
    assert_eq!(commands[0], format!("docker pull {host}/app/one:1"));
    assert!(commands[1].ends_with(&format!(" --plain-http {host}/app/one:1")), "{commands:?}");
    browser.clicks("#list .c button");
    // the browser tells the page when it has it, and the page takes the word back after a while
    let copied =
        std::iter::repeat_with(|| browser.sees("#list .c button").remove(0)).take(300).any(|text| text == "Copied");
    assert!(copied, "{:?}", browser.sees("#list .c button"));
    browser.presses("/");
    assert_eq!(browser.asks("document.activeElement.id"), "q");
    browser.clicks(".bundle summary");
    assert!(browser.sees(".bundle .files li")[0].starts_with("files/notes.txt"), "{:?}", browser.sees(".bundle dl"));

    // nothing is wider than its window, on a telephone or on a wall, and everything can be read
    for (width, scheme) in [(320, "light"), (400, "dark"), (1200, "dark"), (3840, "light")] {
        browser.resize(width, 900);
        browser.prefers(scheme);
        let over = browser.asks("document.documentElement.scrollWidth - document.documentElement.clientWidth");
        assert_eq!(over, 0, "at {width} pixels");
        let least = browser.asks(LEAST_CONTRAST).as_f64().unwrap();
        assert!(least >= 4.5, "{scheme}: a contrast of {least}");
    }

    assert_eq!(browser.console(), Vec::<String>::new());
    let asked = browser.requests();
    assert!(asked.contains(&format!("http://{host}/")), "{asked:?}");
    let outside = |url: &&String| **url != format!("http://{host}/") && !url.starts_with("data:");
    assert_eq!(asked.iter().find(outside), None, "{asked:?}");
    assert_eq!(browser.asks("performance.getEntriesByType('resource').length"), 0);
    let log = serving.stderr();
    let lines: Vec<&str> = log.lines().filter(|line| line.contains("\"GET ")).collect();
    assert!(!lines.is_empty() && lines.iter().all(|line| line.contains("\"GET / HTTP/1.1\" 200 ")), "{log}");
}

#[test]
fn the_page_of_a_store_works_without_script_too() {
    require!("chromium", "chromedriver");
    let site = Site::without_keys();
    let (host, _serving) = site.serve("--store shelf");
    let page = || String::from_utf8(Endpoint::plain(&host).send("GET", "/", &[], &[]).unwrap().body).unwrap();
    assert!(page().contains("nothing was pushed to it yet"));
    for n in 0..3 {
        push(&Endpoint::plain(&host), &format!("team/app-{n}:1"), &small(n));
    }
    // what is there before any script ran
    assert_eq!(page().matches("<li><details>").count(), 3);
    assert!(page().contains("<div id=\"find\" role=\"search\" hidden>"), "a field that does nothing is not shown");
    let browser = Browser::open(1200, 900);
    browser.go(&format!("http://{host}/"));
    assert_eq!(browser.sees("#list summary .p"), ["linux/amd64"; 3]);
    browser.types("#q", "app-1");
    assert_eq!(browser.sees(NAMES), ["team/app-1"]);
    assert_eq!(browser.console(), Vec::<String>::new());

    // the disk rots, and somebody reads what was there
    let digest = small(2).single.as_ref().unwrap().layers[0].digest();
    let file = site.at(&format!("shelf/blobs/{}", digest.replace(':', "/")));
    let mut bytes = std::fs::read(&file).unwrap();
    bytes[0] ^= 1;
    std::fs::write(&file, bytes).unwrap();
    let read = Endpoint::plain(&host).send("GET", &format!("/v2/team/app-2/blobs/{digest}"), &[], &[]);
    assert!(read.is_err() || read.unwrap().status == 404);
    browser.go(&format!("http://{host}/"));
    browser.types("#q", "damaged");
    assert_eq!(browser.sees(NAMES), ["team/app-2"]);
    // not by the mouse: what it stands on has another colour
    let _ = browser.asks("document.querySelector('#list li:not([hidden]) details').open = true");
    let told = browser.sees("#list .hint");
    assert!(told[0].starts_with("Damaged: a blob of this image is not what its digest says"), "{told:?}");
    for scheme in ["light", "dark"] {
        browser.prefers(scheme);
        let least = browser.asks(LEAST_CONTRAST).as_f64().unwrap();
        assert!(least >= 4.5, "{scheme}: a contrast of {least}");
    }
}

#[test]
fn requests_are_logged_where_the_operator_says() {
    require!("docker-registry");
    let (_source, _, site) = bundled();
    for (option, on_stderr, in_file) in [
        ("", true, false),
        ("--access-log -", true, false),
        ("--access-log a.log", false, true),
        ("--access-log off", false, false),
    ] {
        let (host, mut serving) = site.serve(&format!("b.tar {TRUST} {option}"));
        let endpoint = Endpoint::plain(&host);
        assert_eq!(endpoint.send("GET", "/healthz", &[], &[]).unwrap().body, b"ok\n");
        let is_line =
            |text: &str| text.contains("127.0.0.1 - - [") && text.contains("] \"GET /healthz HTTP/1.1\" 200 3 \"-\"");
        let file = || std::fs::read_to_string(site.at("a.log")).unwrap_or_default();
        // a line is written when its answer has gone, which the client may see first
        let mut tries = 0;
        while tries < 200 && (is_line(&serving.stderr()), is_line(&file())) != (on_stderr, in_file) {
            std::thread::sleep(std::time::Duration::from_millis(5));
            tries += 1;
        }
        let said = serving.stderr();
        assert_eq!((is_line(&said), is_line(&file())), (on_stderr, in_file), "{option}: {said}");
        assert!(serving.runs());
        let _ = std::fs::remove_file(site.at("a.log"));
    }
    let metrics = |host: &str| Endpoint::plain(host).send("GET", "/metrics", &[], &[]).unwrap();
    let (host, mut serving) = site.serve(&format!("b.tar {TRUST}"));
    let answer = metrics(&host);
    assert_eq!(answer.header("content-type"), Some("text/plain; version=0.0.4; charset=utf-8"));
    assert!(String::from_utf8(answer.body).unwrap().contains("\nprocess_open_fds "));
    // that of who looked whether it listens is gone in a moment
    serving.until("this connection is counted and no other", || {
        String::from_utf8(metrics(&host).body).unwrap().contains("\nferry_http_connections 1\n")
    });
    let refused = site.ferry(&format!("serve b.tar {TRUST} --listen 127.0.0.1:0 --access-log none/a.log")).run();
    let _ = refused.expect_code(6).says(&["none/a.log"]);
}

#[test]
fn health_is_lost_with_the_disk_and_comes_back() {
    require!("docker-registry", "root", "mount");
    let healthy = |host: &str| {
        // what one probe found holds for a second
        std::thread::sleep(std::time::Duration::from_millis(1050));
        Endpoint::plain(host).send("GET", "/healthz", &[], &[]).unwrap().status
    };
    let site = Site::without_keys();
    std::fs::create_dir(site.at("small")).unwrap();
    let disk = SmallDisk::mount(&site.at("small"), "4m");
    let (host, mut serving) = site.serve("--store small/shelf");
    assert_eq!(healthy(&host), 200);
    site.write("small/filler", vec![0; 3_500_000]);
    assert_eq!(healthy(&host), 503);
    serving.until_it_says("is full");
    std::fs::remove_file(site.at("small/filler")).unwrap();
    assert_eq!(healthy(&host), 200);
    drop((serving, disk));

    let (_source, _, site) = bundled();
    let (host, mut serving) = site.serve(&format!("b.tar {TRUST}"));
    let whole = site.bytes("b.tar");
    assert_eq!(healthy(&host), 200);
    std::fs::File::options().write(true).open(site.at("b.tar")).unwrap().set_len(whole.len() as u64 / 2).unwrap();
    assert_eq!(healthy(&host), 503, "also while the blob that is tried can still be read");
    // a thread of its own writes it
    serving.until_it_says("not healthy");
}
