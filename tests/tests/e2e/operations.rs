//! `ferry serve` as those who run it meet it: under a supervisor, with logs that somebody reads or does not, and signals.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use ferry_tests::disks::SmallDisk;
use ferry_tests::ferry;
use ferry_tests::http::Endpoint;
use ferry_tests::registry::certificate::self_signed;
use ferry_tests::registry::{PASSWORD, USER, free_port};
use ferry_tests::site::Site;
use ferry_tests::{require, tools};

/// Killed when dropped.
struct Serving(Child);

impl Drop for Serving {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn within(seconds: u64, what: &str, mut there: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(seconds);
    while !there() {
        assert!(Instant::now() < deadline, "not within {seconds} s: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn a_log_that_nobody_reads_stops_nothing() {
    require!("curl");
    let site = Site::without_keys();
    let host = format!("127.0.0.1:{}", free_port());
    let mut command = Command::new(ferry::binary());
    command.args(["serve", "--store", "shelf", "-v", "--tls", "auto", "--tls-dir", "tls", "--listen", &host]);
    command.current_dir(site.path()).env("HOME", site.path()).stdin(Stdio::null()).stderr(Stdio::piped());
    let mut serving = Serving(command.spawn().unwrap());
    within(20, "it listens", || TcpStream::connect(&host).is_ok());
    let url = format!("https://{host}/healthz");
    let answers = |most: &str| {
        tools::succeed("curl", &["-sSk", "--noproxy", "*", "--max-time", most, "-o", "/dev/null", &url, &url])
    };
    // each is a line, and so many are more than a pipe holds and more than wait in memory
    for n in 0..6000 {
        let mut stream = TcpStream::connect(&host).unwrap();
        stream.write_all(b"no TLS\r\n\r\n").unwrap();
        let _ = stream.read(&mut [0]);
        if n % 1000 == 999 {
            answers("5");
        }
    }
    // who reads again is told what is missing, and gets what comes
    let mut stderr = serving.0.stderr.take().unwrap();
    let (sender, chunks) = std::sync::mpsc::channel();
    let reader = std::thread::spawn(move || {
        let mut chunk = [0; 65_536];
        while let Ok(size @ 1..) = stderr.read(&mut chunk) {
            let _ = sender.send(String::from_utf8_lossy(&chunk[..size]).into_owned());
        }
    });
    let mut said = String::new();
    within(10, "lines are missing", || {
        said.extend(chunks.try_iter());
        said.contains(" lines are lost: nothing took them\n")
    });
    let _ = Command::new("sh").args(["-c", &format!("kill {}", serving.0.id())]).status().unwrap();
    within(10, "it ends", || serving.0.try_wait().unwrap().is_some());
    reader.join().unwrap();
    said.extend(chunks.try_iter());
    let lost =
        said.lines().filter_map(|line| line.strip_suffix(" lines are lost: nothing took them")?.parse::<usize>().ok());
    let told = said.lines().filter(|line| line.contains("corrupt message")).count();
    assert_eq!(told + lost.sum::<usize>(), 6000, "each is written or counted, up to the end");
}

#[test]
fn a_log_that_nobody_reads_does_not_hold_up_the_end() {
    let site = Site::without_keys();
    let host = format!("127.0.0.1:{}", free_port());
    let mut command = Command::new(ferry::binary());
    command.args(["serve", "--store", "shelf", "--listen", &host]).current_dir(site.path()).env("HOME", site.path());
    let mut serving = Serving(command.stdin(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap());
    within(20, "it listens", || TcpStream::connect(&host).is_ok());
    let target = "x".repeat(2000);
    for _ in 0..100 {
        let mut stream = TcpStream::connect(&host).unwrap();
        stream.write_all(format!("GET /{target} HTTP/1.0\r\n\r\n").as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with("HTTP/1.0 404"), "{answer}");
    }
    let _ = Command::new("sh").args(["-c", &format!("kill {}", serving.0.id())]).status().unwrap();
    within(9, "it ends", || serving.0.try_wait().unwrap().is_some());
}

#[test]
fn a_hangup_reads_certificate_and_users_again_and_opens_the_log_anew() {
    require!("curl", "htpasswd", "openssl");
    let site = Site::without_keys();
    let user = |name: &str| site.write("users", tools::succeed("htpasswd", &["-Bbn", name, PASSWORD]));
    let certificate = |folder: &str| {
        std::fs::create_dir_all(site.at(folder)).unwrap();
        self_signed(&site.at(folder))
    };
    let (first, second) = (certificate("first"), certificate("second"));
    user(USER);
    let options =
        "--store shelf --tls-cert first/server.crt --tls-key first/server.key --htpasswd users --access-log log";
    let (host, mut serving) = site.serve(options);
    let asks = |trusted: &std::path::Path, name: &str| {
        let (login, url) = (format!("{name}:{PASSWORD}"), format!("https://{host}/v2/"));
        let trusted = trusted.display().to_string();
        let command =
            ["-s", "--noproxy", "*", "-u", &login, "--cacert", &trusted, "-o", "/dev/null", "-w", "%{http_code}"];
        String::from_utf8(tools::run("curl", &[&command[..], &[&url]].concat()).stdout).unwrap()
    };
    assert_eq!((asks(&first.chain, USER), asks(&second.chain, USER)), ("200".to_owned(), "000".to_owned()));
    let before = "\"GET /v2/ ";
    within(5, "the line is written", || site.read("log").contains(before));

    std::fs::copy(&second.chain, &first.chain).unwrap();
    std::fs::copy(&second.key, &first.key).unwrap();
    user("eve");
    std::fs::rename(site.at("log"), site.at("log.1")).unwrap();
    serving.signal("HUP");
    serving.until_it_says("read again or opened anew: certificate, users, access log");
    assert_eq!(site.read("log"), "", "it is there at once");
    assert_eq!((asks(&second.chain, "eve"), asks(&second.chain, USER)), ("200".to_owned(), "401".to_owned()));
    within(5, "the lines are written", || site.read("log").lines().count() == 2);
    assert_eq!(site.read("log.1").lines().count(), 1);

    // what is broken changes nothing
    site.write("first/server.crt", "junk");
    site.write("users", "junk");
    serving.signal("HUP");
    serving.until_it_says("the certificate stays");
    serving.until_it_says("the users stay");
    serving.until_it_says("opened anew: access log");
    serving.until_it_says("cannot be read: certificate, users");
    assert_eq!(asks(&second.chain, "eve"), "200");
    assert!(serving.runs());
}

#[test]
fn a_hangup_says_what_there_was_to_read_and_a_disk_that_does_not_answer_does_not_hold_up_the_end() {
    require!("openssl", "mkfifo");
    let site = Site::without_keys();
    let (_host, mut serving) = site.serve("--store shelf --access-log off");
    serving.signal("HUP");
    serving.until_it_says("there is no certificate, users or access log in a file to read again");
    drop(serving);

    let certificate = self_signed(site.path());
    let options = "--store shelf --tls-cert server.crt --tls-key server.key --access-log log";
    let (_host, mut serving) = site.serve(options);
    std::fs::remove_file(&certificate.chain).unwrap();
    tools::succeed("mkfifo", &[&certificate.chain.display().to_string()]);
    std::fs::rename(site.at("log"), site.at("log.1")).unwrap();
    serving.signal("HUP");
    within(5, "the log is opened anew all the same", || site.at("log").exists());
    serving.signal("TERM");
    within(5, "it ends", || !serving.runs());
    assert!(!serving.stderr().contains("read again or opened anew"), "{}", serving.stderr());
}

#[test]
fn an_access_log_on_a_full_disk_is_told_of_once_and_what_it_lacks_is_counted() {
    let site = Site::without_keys();
    std::os::unix::fs::symlink("/dev/full", site.at("log")).unwrap();
    let (host, mut serving) = site.serve("--store shelf --access-log log");
    let ask = || Endpoint::plain(&host).send("GET", "/v2/", &[], &[]).unwrap();
    for _ in 0..5 {
        assert_eq!(ask().status, 200);
    }
    let words = "lines of the access log are lost, and counted";
    serving.until_it_says(words);
    std::fs::remove_file(site.at("log")).unwrap();
    serving.signal("HUP");
    serving.until_it_says("opened anew: access log");
    ask();
    serving.until_it_says("the access log is written again");
    within(5, "the lines are written", || site.read("log").lines().count() == 2);
    let log = site.read("log");
    let lost: usize = log.lines().next().and_then(|line| line.split_once(" lost=")?.1.parse().ok()).unwrap();
    // whatever asked whether it listens counts as well
    assert!(lost >= 5 && log.ends_with('\n'), "{log}");
    assert_eq!(serving.stderr().matches(words).count(), 1, "{}", serving.stderr());
}

#[test]
fn a_certificate_that_is_good_is_served_from_a_disk_without_room_for_a_lock() {
    require!("root", "mount");
    let site = Site::without_keys();
    let disk = SmallDisk::mount(&site.at("disk"), "1m,nr_inodes=12");
    let options = "--store shelf --tls auto --tls-dir disk/tls";
    drop(site.serve(options));
    std::fs::remove_file(site.at("disk/tls/lock")).unwrap();
    let full = (0..100).find_map(|n| std::fs::File::create(site.at(&format!("disk/{n}"))).err());
    assert_eq!(full.map(|error| error.kind()), Some(std::io::ErrorKind::StorageFull));
    let (_host, serving) = site.serve(options);
    drop(serving);
    // without one there must be room to make it
    std::fs::remove_file(site.at("disk/tls/server.pem")).unwrap();
    std::fs::File::create(site.at("disk/last")).unwrap();
    site.ferry(&format!("serve --listen 127.0.0.1:0 {options}"))
        .run()
        .expect_code(6)
        .says(&["No space left on device"]);
    drop(disk);
}
