//! A token server for docker-registry's bearer authentication: ES256 JWTs with the certificate in `x5c`.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rcgen::{CertificateParams, KeyPair, SigningKey};
use serde_json::{Value, json};

use super::{PASSWORD, USER};
use crate::http::{Message, Reply, Server, base64};

/// The name of both the service and the issuer.
pub(super) const SERVICE: &str = "ferry-tests";
/// docker-registry takes a token for so many seconds longer than it holds (its `token.Leeway`).
const LEEWAY: u64 = 60;

/// A running token server; it ends when dropped.
#[derive(Debug)]
pub struct TokenServer {
    server: Server,
    issued: Arc<AtomicU64>,
}

impl TokenServer {
    /// Starts one, and writes `token.crt`, which the registry must trust, into `folder`. Tokens hold as long as the first of `life`
    /// says, and are said to hold as long as the second.
    #[must_use]
    pub fn start(folder: &Path, life: (Duration, Duration)) -> Self {
        let key = KeyPair::generate().unwrap();
        let certificate = CertificateParams::new(vec![SERVICE.to_owned()]).unwrap().self_signed(&key).unwrap();
        fs::write(folder.join("token.crt"), certificate.pem()).unwrap();
        let chain = base64(certificate.der());
        let issued = Arc::new(AtomicU64::new(0));
        let counter = Arc::clone(&issued);
        let server = Server::start(move |request, _| {
            let number = counter.fetch_add(1, Ordering::Relaxed);
            answer(request, &key, &chain, number, life)
        });
        Self { server, issued }
    }

    /// The URL that clients are sent to.
    #[must_use]
    pub fn realm(&self) -> String {
        format!("http://{}/token", self.server.host())
    }

    /// How often it was asked.
    #[must_use]
    pub fn asked(&self) -> u64 {
        self.issued.load(Ordering::Relaxed)
    }
}

fn answer(request: &Message, key: &KeyPair, chain: &str, number: u64, life: (Duration, Duration)) -> Reply {
    let login = format!("Basic {}", base64(format!("{USER}:{PASSWORD}")));
    if request.header("authorization") != Some(login.as_str()) {
        return Reply::new(401, "application/json", r#"{"details":"incorrect username or password"}"#);
    }
    let query = request.path.split_once('?').map_or("", |(_, query)| query);
    let access: Vec<Value> = query
        .split('&')
        .filter_map(|pair| pair.strip_prefix("scope="))
        .flat_map(|scope| scope.split("%20").flat_map(|s| s.split('+')).map(decode).collect::<Vec<_>>())
        .filter_map(|scope| grant(&scope))
        .collect();
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    let header = json!({"typ": "JWT", "alg": "ES256", "x5c": [chain]});
    let claims = json!({
        "iss": SERVICE, "sub": USER, "aud": SERVICE, "exp": now + life.0.as_secs() - LEEWAY, "nbf": now - 90, "iat": now,
        "jti": number.to_string(), "access": access,
    });
    let encode = |value: &Value| URL_SAFE_NO_PAD.encode(serde_json::to_vec(value).unwrap());
    let signed = format!("{}.{}", encode(&header), encode(&claims));
    let signature = fixed(&key.sign(signed.as_bytes()).unwrap());
    let token = format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature));
    let body = json!({"token": token, "access_token": token, "expires_in": life.1.as_secs()});
    Reply::new(200, "application/json", serde_json::to_vec(&body).unwrap())
}

/// `repository:NAME:pull,push` as an access entry.
fn grant(scope: &str) -> Option<Value> {
    let (kind, rest) = scope.split_once(':')?;
    let (name, actions) = rest.rsplit_once(':')?;
    Some(json!({"type": kind, "name": name, "actions": actions.split(',').collect::<Vec<_>>()}))
}

/// Undoes percent-encoding.
pub(super) fn decode(text: &str) -> String {
    let mut parts = text.split('%');
    let mut bytes = parts.next().unwrap_or_default().as_bytes().to_vec();
    for part in parts {
        bytes.push(u8::from_str_radix(&part[..2], 16).unwrap());
        bytes.extend_from_slice(&part.as_bytes()[2..]);
    }
    String::from_utf8(bytes).unwrap()
}

/// ECDSA's DER (a sequence of two integers) as JWTs want it: both in 32 bytes.
fn fixed(der: &[u8]) -> Vec<u8> {
    let mut signature = Vec::new();
    let mut rest = &der[2..];
    for _ in 0..2 {
        let len = usize::from(rest[1]);
        let integer = &rest[2..2 + len];
        rest = &rest[2 + len..];
        let digits = &integer[integer.len().saturating_sub(32)..];
        signature.resize(signature.len() + 32 - digits.len(), 0);
        signature.extend_from_slice(digits);
    }
    signature
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signatures_get_their_fixed_width() {
        let mut der = vec![0x30, 0, 0x02, 33, 0];
        der.extend([0xff; 32]);
        der.extend([0x02, 1, 7]);
        let mut expected = vec![0xff; 32];
        expected.extend([0; 31]);
        expected.push(7);
        assert_eq!(fixed(&der), expected);
    }

    #[test]
    fn scopes_become_grants() {
        assert_eq!(decode("repository%3Aa%2Fb%3Apull"), "repository:a/b:pull");
        assert_eq!(
            grant("repository:h:5/a/b:pull,push").unwrap(),
            json!({"type": "repository", "name": "h:5/a/b", "actions": ["pull", "push"]})
        );
    }
}
