//! A headless Chromium that is led by the WebDriver protocol, as a person would lead it: opens, types, clicks, and tells what it asked
//! the network for. Needs `chromium` and `chromedriver`.

use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::http::Endpoint;
use crate::proxy::{Proxy, Rules};
use crate::registry::free_port;
use crate::tools;

/// The key under which the protocol hides an element's name.
const ELEMENT: &str = "element-6066-11e4-a52e-4f735466cecf";

/// A window; closed when dropped.
#[derive(Debug)]
pub struct Browser {
    driver: Child,
    endpoint: Endpoint,
    session: String,
    _profile: TempDir,
}

impl Browser {
    /// Opens a window of this size. Whatever is not on this machine goes to a proxy that refuses it: what the browser asks for on its own
    /// account, too.
    ///
    /// # Panics
    /// When it does not come up.
    #[must_use]
    pub fn open(width: u32, height: u32) -> Self {
        let endpoint = Endpoint::plain(&format!("127.0.0.1:{}", free_port()));
        let port = endpoint.host.rsplit(':').next().unwrap();
        let driver = Command::new(tools::find("chromedriver").expect("chromedriver"))
            .arg(format!("--port={port}"))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let profile = tempfile::tempdir().unwrap();
        let proxy = Proxy::start(Rules { refuse: Some(("403 Forbidden", 2)), ..Rules::default() });
        let mut browser = Self { driver, endpoint, session: String::new(), _profile: profile };
        let arguments = [
            "--headless=new".to_owned(),
            "--no-sandbox".to_owned(), // the tests may be root's
            "--disable-gpu".to_owned(),
            "--disable-dev-shm-usage".to_owned(),
            "--disable-background-networking".to_owned(),
            "--disable-component-update".to_owned(),
            "--no-first-run".to_owned(),
            format!("--user-data-dir={}", browser._profile.path().display()),
            format!("--proxy-server={}", proxy.host()),
            format!("--window-size={width},{height}"),
        ];
        let chromium = tools::find("chromium").expect("chromium");
        let wanted = json!({"capabilities": {"alwaysMatch": {
            "browserName": "chrome",
            // scripts add to the page when they get to it
            "timeouts": {"implicit": 10_000},
            "goog:chromeOptions": {"binary": chromium, "args": arguments},
            "goog:loggingPrefs": {"browser": "ALL", "performance": "ALL"},
        }}});
        let started = Instant::now();
        while std::net::TcpStream::connect(&browser.endpoint.host).is_err() {
            assert!(started.elapsed() < Duration::from_secs(20), "chromedriver does not listen");
            std::thread::sleep(Duration::from_millis(20));
        }
        let session = browser.send("POST", "/session", &wanted);
        browser.session = format!("/session/{}", session["sessionId"].as_str().unwrap());
        browser
    }

    /// One command of the protocol; its value.
    fn send(&self, method: &str, path: &str, body: &Value) -> Value {
        let body = if method == "POST" { body.to_string() } else { String::new() };
        let headers = [("Content-Type", "application/json; charset=utf-8")];
        let answer = self.endpoint.send(method, path, &headers, body.as_bytes()).unwrap();
        let value: Value = serde_json::from_slice(&answer.body).unwrap();
        assert_eq!(answer.status, 200, "{method} {path}: {value}");
        value["value"].clone()
    }

    fn post(&self, path: &str, body: &Value) -> Value {
        self.send("POST", &format!("{}{path}", self.session), body)
    }

    fn element(&self, css: &str) -> String {
        let found = self.post("/element", &json!({"using": "css selector", "value": css}));
        format!("/element/{}", found[ELEMENT].as_str().unwrap())
    }

    /// Goes to an address and waits until it is loaded.
    pub fn go(&self, address: &str) {
        self.post("/url", &json!({"url": address}));
    }

    /// Types into an element, key by key.
    pub fn types(&self, css: &str, text: &str) {
        self.post(&format!("{}/value", self.element(css)), &json!({"text": text}));
    }

    /// Presses keys, wherever the focus is.
    pub fn presses(&self, keys: &str) {
        let actions: Vec<Value> = keys
            .chars()
            .flat_map(|key| ["keyDown", "keyUp"].map(|what| json!({"type": what, "value": key.to_string()})))
            .collect();
        self.post("/actions", &json!({"actions": [{"type": "key", "id": "keys", "actions": actions}]}));
    }

    /// Clicks on an element that can be seen.
    pub fn clicks(&self, css: &str) {
        self.post(&format!("{}/click", self.element(css)), &json!({}));
    }

    /// Gives the page another size, as a telephone has it.
    pub fn resize(&self, width: u32, height: u32) {
        let size = json!({"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 500});
        self.post("/goog/cdp/execute", &json!({"cmd": "Emulation.setDeviceMetricsOverride", "params": size}));
    }

    /// Asks for the light or the dark form of pages.
    pub fn prefers(&self, scheme: &str) {
        let media = json!({"features": [{"name": "prefers-color-scheme", "value": scheme}]});
        self.post("/goog/cdp/execute", &json!({"cmd": "Emulation.setEmulatedMedia", "params": media}));
    }

    /// What a script returns.
    #[must_use]
    pub fn asks(&self, script: &str) -> Value {
        self.post("/execute/sync", &json!({"script": format!("return {script}"), "args": []}))
    }

    /// The texts of all elements that can be seen.
    #[must_use]
    pub fn sees(&self, css: &str) -> Vec<String> {
        let script =
            format!("[...document.querySelectorAll({css:?})].filter(e => e.checkVisibility()).map(e => e.innerText)");
        serde_json::from_value(self.asks(&script)).unwrap()
    }

    /// What its console said: errors of scripts, refusals of the content security policy, what could not be loaded.
    #[must_use]
    pub fn console(&self) -> Vec<String> {
        let entries = self.post("/se/log", &json!({"type": "browser"}));
        entries.as_array().unwrap().iter().map(|entry| entry["message"].to_string()).collect()
    }

    /// The addresses that pages asked for, those of the browser's own pages left out.
    #[must_use]
    pub fn requests(&self) -> Vec<String> {
        let entries = self.post("/se/log", &json!({"type": "performance"}));
        let message = |entry: &Value| -> Value { serde_json::from_str(entry["message"].as_str().unwrap()).unwrap() };
        let asked = |entry: &Value| {
            let message = message(entry)["message"].clone();
            let url = message["params"]["request"]["url"].as_str().map(str::to_owned);
            url.filter(|url| message["method"] == "Network.requestWillBeSent" && !url.starts_with("chrome:"))
        };
        entries.as_array().unwrap().iter().filter_map(asked).collect()
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        if !self.session.is_empty() {
            // ends the browser; the driver alone would leave it
            let _ = self.endpoint.send("DELETE", &self.session, &[], &[]);
        }
        let _ = self.driver.kill();
        let _ = self.driver.wait();
    }
}
