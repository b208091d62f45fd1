//! Text that must not be shown: passwords and tokens.

use std::fmt;

/// A password or token. Neither `Debug` nor `Display` shows it.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Takes the text.
    #[must_use]
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The text itself, for the one place that sends it.
    #[must_use]
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret")
    }
}

impl From<String> for Secret {
    fn from(text: String) -> Self {
        Self(text)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use bytes::Bytes;
    use http::Method;
    use url::Url;

    use super::*;
    use crate::auth::{Authorization, basic, bearer};
    use crate::config::{Config, Proxies};
    use crate::credentials::{Credentials, Login, Source};
    use crate::host::Host;
    use crate::pool::Pool;
    use crate::registry::Registry;
    use crate::transport::{Call, Who};
    use crate::{Client, Commands, Repository, What};

    const WORD: &str = "hunter2";

    /// Whatever a log or an error may print.
    #[test]
    fn no_secret_is_printed_by_what_holds_it() {
        let secret = Secret::new(WORD);
        let sources = || {
            let file = format!(r#"{{"auths":{{"r.example":{{"identitytoken":"{WORD}"}}}}}}"#);
            let login = Login { place: "q.example".to_owned(), username: "me".to_owned(), password: secret.clone() };
            let given = Source::Logins { origin: "the command line".to_owned(), logins: vec![login] };
            [given, Source::File { path: "config.json".into(), bytes: file.into_bytes() }]
        };
        let credentials = Credentials::from_sources(sources(), Commands::default()).unwrap();
        let proxy = Some(Secret::new(format!("http://me:{WORD}@proxy.example")));
        let proxies = Proxies { http: proxy.clone(), https: proxy.clone(), all: proxy, no_proxy: None };
        let config = Config { credentials, proxy: proxies, ..Config::default() };
        let url = Url::parse(&format!("https://r.example/token?signature={WORD}")).unwrap();
        let mut call = Call::new(Method::POST, url, What::Registry);
        call.body = Some(Bytes::from(WORD));
        let made = Authorization::configured(basic("me", &secret).unwrap());
        let token = Authorization::configured(bearer(&secret).unwrap());
        let printed = [
            format!("{secret:?}"),
            format!("{config:?}"),
            format!("{:?}", sources()),
            format!("{call:?}"),
            format!("{made:?} {token:?} {:?}", Who::Given(Some(&token))),
            format!("{:?}", Client::new(config.clone()).unwrap()),
            {
                let (config, pool) = (Arc::new(config.clone()), Arc::new(Pool::new(&config).unwrap()));
                let registry = Arc::new(Registry::new(Host::parse("r.example").unwrap(), config, pool));
                format!("{:?} {:?}", registry.auth, Repository::new(Arc::clone(&registry), "a").unwrap())
            },
        ];
        // as it is, and as `Debug` prints bytes and base64 hides it
        let shapes = [
            WORD.to_owned(),
            format!("{:?}", WORD.as_bytes()).replace(['[', ']'], ""),
            "aHVudGVyM".to_owned(),
            "odW50ZXIy".to_owned(),
        ];
        for text in &printed {
            assert!(!shapes.iter().any(|shape| text.contains(shape)), "{text}");
        }
        assert!(printed[2].contains("q.example") && printed[2].contains("config.json"), "{}", printed[2]);
    }
}
