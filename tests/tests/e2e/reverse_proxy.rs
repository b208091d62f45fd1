//! `ferry serve` behind nginx, with the configuration that docs/serve.md shows.

use std::fs;
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use ferry_tests::images::{Format, Image, Layer, layout};
use ferry_tests::registry::certificate::self_signed;
use ferry_tests::registry::{PASSWORD, USER, free_port};
use ferry_tests::site::Site;
use ferry_tests::{require, tools};

const DOCUMENT: &str = include_str!("../../../docs/serve.md");

/// A running nginx; stopped when dropped.
struct Nginx(Child);

impl Nginx {
    /// The configuration of the document, with the addresses and files of this test.
    fn start(folder: &Path, listen: &str, before: &str) -> Self {
        let (_, rest) = DOCUMENT.split_once("```nginx\n").unwrap();
        let mut server = rest.split_once("```").unwrap().0.to_owned();
        let certificate = self_signed(folder);
        let path = |path: &Path| path.display().to_string();
        for (documented, here) in [
            ("listen 443 ssl;", format!("listen {listen} ssl;")),
            ("http://127.0.0.1:5000", format!("http://{before}")),
            ("/etc/nginx/registry.crt", path(&certificate.chain)),
            ("/etc/nginx/registry.key", path(&certificate.key)),
        ] {
            assert_eq!(server.matches(documented).count(), 1, "{documented}");
            server = server.replace(documented, &here);
        }
        let temporary = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"];
        let temporary = temporary.map(|name| format!("{name}_temp_path {};", path(&folder.join(name)))).concat();
        let config = format!(
            "daemon off; pid {0}/nginx.pid; error_log {0}/nginx.log;\nevents {{}}\nhttp {{ access_log off; {temporary}\n{server}}}\n",
            folder.display(),
        );
        fs::write(folder.join("nginx.conf"), config).unwrap();
        let mut command = Command::new(tools::find("nginx").unwrap());
        let log = fs::File::create(folder.join("nginx.err")).unwrap();
        command.arg("-c").arg(folder.join("nginx.conf")).stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        let mut nginx = Self(command.spawn().unwrap());
        let deadline = Instant::now() + Duration::from_secs(20);
        while TcpStream::connect(listen).is_err() {
            let said = || fs::read_to_string(folder.join("nginx.err")).unwrap();
            assert!(nginx.0.try_wait().unwrap().is_none() && Instant::now() < deadline, "{}", said());
            std::thread::sleep(Duration::from_millis(20));
        }
        nginx
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        // by SIGTERM, so that it ends its workers
        let _ = Command::new("sh").args(["-c", &format!("kill {}", self.0.id())]).status();
        let _ = self.0.wait();
    }
}

/// What curl gets as the client at `from`: the status, and the headers.
fn curl(from: &str, url: &str, more: &[&str]) -> (String, String) {
    let format = ["-sk", "--noproxy", "*", "--interface", from, "-o", "/dev/null", "-D", "-", "-w", "%{http_code}"];
    let all = tools::succeed("curl", &[&format[..], more, &[url]].concat());
    let (headers, status) = all.rsplit_once('\n').unwrap();
    (status.to_owned(), headers.to_owned())
}

#[test]
fn clients_behind_nginx_are_told_apart() {
    require!("nginx", "curl", "htpasswd", "openssl", "skopeo");
    let site = Site::without_keys();
    site.write("users", tools::succeed("htpasswd", &["-Bbn", USER, PASSWORD]));
    let options = "--store shelf --htpasswd users --anonymous-read --trusted-proxy 127.0.0.1 --access-log requests";
    let (before, _serving) = site.serve(options);
    let folder = tempfile::tempdir().unwrap();
    let host = format!("127.0.0.1:{}", free_port());
    let _nginx = Nginx::start(folder.path(), &host, &before);
    let (ping, health) = (format!("https://{host}/v2/"), format!("https://{host}/healthz"));

    // larger than what nginx takes when it is not told, and by the login that it is sent to
    let image = Image::single("linux/amd64", Format::Oci, vec![Layer::random(1, 3_000_000)]);
    layout::write_folder(&site.at("layout"), &[("v1", &image)]);
    let (_, told) = curl("127.0.0.2", &ping, &[]);
    assert!(told.contains(&format!("realm=\"https://{host}/token\"")), "{told}");
    let (from, to) = (format!("oci:{}:v1", site.at("layout").display()), format!("docker://{host}/team/app:v1"));
    let login = format!("{USER}:{PASSWORD}");
    tools::succeed("skopeo", &["copy", "--dest-tls-verify=false", "--dest-creds", &login, &from, &to]);

    // one who guesses does not make others wait, whoever it says to be
    let guess = ["-u", "ann:wrong", "-H", "X-Forwarded-For: 127.0.0.3", "-H", "Forwarded: for=127.0.0.3"];
    let timed = |from: &str| {
        let begun = Instant::now();
        assert_eq!(curl(from, &ping, &guess).0, "401");
        begun.elapsed()
    };
    let waits: Vec<Duration> = (0..4).map(|_| timed("127.0.0.2")).collect();
    assert!(waits[3] > Duration::from_millis(900), "{waits:?}");
    let other = timed("127.0.0.3");
    assert!(other < waits[3] / 2, "{other:?} after {waits:?}");

    assert_eq!(curl("127.0.0.4", &health, &[]).0, "200");
    // not by the proxy: its word counts for nothing
    let direct = format!("http://{before}/healthz");
    assert_eq!(curl("127.0.0.5", &direct, &["-H", "X-Forwarded-For: 127.0.0.3"]).0, "200");
    let logged = |client: &str, what: &str| {
        let log = site.read("requests");
        log.lines().filter(|line| line.starts_with(&format!("{client} ")) && line.contains(what)).count()
    };
    let deadline = Instant::now() + Duration::from_secs(5);
    while logged("127.0.0.5", "/healthz") == 0 && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(10));
    }
    let found = ["127.0.0.2", "127.0.0.3"].map(|client| logged(client, "- ann ["));
    assert_eq!(found, [4, 1], "{}", site.read("requests"));
    assert_eq!((logged("127.0.0.4", "/healthz"), logged("127.0.0.5", "/healthz")), (1, 1));
}
