//! Lists of what refers to a manifest.

use bytes::Bytes;
use ferry_content::{Failure as _, Kind};
use ferry_image::{Descriptor, Digest, media_type, referrer};
use ferry_registry_client::ListedBy;
use serde_json::json;

use crate::server::{Answer, Seen, Server, answer};
use crate::{repository, status};

fn subject() -> Digest {
    Digest::of(b"subject")
}

fn named(n: usize) -> Descriptor {
    Descriptor::of(media_type::OCI_MANIFEST, format!("referrer {n}").as_bytes())
}

fn index(of: impl IntoIterator<Item = usize>) -> String {
    let manifests: Vec<Descriptor> = of.into_iter().map(named).collect();
    json!({"schemaVersion": 2, "mediaType": media_type::OCI_INDEX, "manifests": manifests}).to_string()
}

fn page(body: String) -> Answer {
    answer(200).header("content-type", media_type::OCI_INDEX).body(body)
}

fn is_api(seen: &Seen) -> bool {
    seen.path.contains("/referrers/")
}

#[tokio::test]
async fn the_api_is_read_page_by_page() {
    let server = Server::start(|seen| match seen.path.split_once("page=").map(|(_, n)| n.parse().unwrap()) {
        _ if !is_api(seen) => answer(200),
        None => page(index([0, 1])).header("link", "</v2/team/app/referrers/x?page=1>; rel=\"next\""),
        // an empty page is a page
        Some(1) => page(index([])).header("link", "<?page=2>; rel=next"),
        Some(n) => page(index([n])),
    })
    .await;
    let found = repository(&server).referrers(&subject(), 100).await.unwrap();
    assert_eq!((found.manifests, found.listed_by), (vec![named(0), named(1), named(2)], ListedBy::Api));
    let seen = server.seen();
    assert_eq!(seen[0].path, format!("/v2/team/app/referrers/{}", subject()));
    assert_eq!(seen[0].header("accept"), Some(media_type::OCI_INDEX));
    assert_eq!(seen.len(), 3);
}

#[tokio::test]
async fn pages_end_at_the_limit_or_are_an_error() {
    let endless = |seen: &Seen| match seen.path.split_once("page=").map_or(0, |(_, n)| n.parse::<usize>().unwrap()) {
        _ if !is_api(seen) => answer(200),
        n => page(index(if seen.path.contains("app") { vec![n] } else { vec![] }))
            .header("link", format!("<?page={}>; rel=next", n + 1)),
    };
    let server = Server::start(endless).await;
    let found = repository(&server).referrers(&subject(), 3).await.unwrap();
    assert_eq!(found.manifests.len(), 4, "one more than the limit tells that it is passed");
    let empty = Server::start(move |seen| {
        let mut seen = seen.clone();
        seen.path = seen.path.replace("app", "other");
        endless(&seen)
    });
    let error = repository(&empty.await).referrers(&subject(), 3).await.unwrap_err();
    assert!(error.to_string().contains("do not end"), "{error}");
    for link in ["<https://elsewhere.example/x>; rel=next", "<>; rel=next"] {
        let server = Server::start(move |seen| match is_api(seen) {
            true => page(index([0])).header("link", link),
            false => answer(200),
        });
        let error = repository(&server.await).referrers(&subject(), 3).await.unwrap_err();
        assert!(error.to_string().contains("next page"), "{link}: {error}");
    }
}

#[tokio::test]
async fn without_an_api_the_tag_is_asked() {
    for refusal in [404, 400, 405, 406, 501] {
        let server = Server::start(move |seen| match seen.path.rsplit('/').next() {
            _ if is_api(seen) => answer(refusal),
            Some(tag) if tag == referrer::fallback_tag(&subject()) => page(index([7])),
            Some(tag) if tag.starts_with("sha256-") => answer(404),
            _ => answer(200),
        })
        .await;
        let repository = repository(&server);
        let found = repository.referrers(&subject(), 100).await.unwrap();
        assert_eq!(found.manifests, [named(7)]);
        let ListedBy::Tag(fetched) = found.listed_by else { panic!("{:?}", found.listed_by) };
        assert_eq!(fetched.bytes, index([7]));
        let found = repository.referrers(&Digest::of(b"other"), 100).await.unwrap();
        assert_eq!((found.manifests.len(), found.listed_by), (0, ListedBy::Nobody));
        let apis = server.seen().iter().filter(|seen| is_api(seen)).count();
        assert_eq!(apis, 1, "what is not there is not asked for again");
    }
}

#[tokio::test]
async fn a_web_page_is_no_list() {
    let server = Server::start(|seen| match is_api(seen) {
        true => answer(200).header("content-type", "text/html; charset=utf-8").body("<html>"),
        false if seen.path == "/v2/" => answer(200),
        false => answer(404),
    });
    let found = repository(&server.await).referrers(&subject(), 100).await.unwrap();
    assert_eq!(found.listed_by, ListedBy::Nobody);
    for body in ["<html>", "{}", r#"{"errors":[]}"#] {
        let server = Server::start(move |_| answer(200).header("content-type", "application/json").body(body));
        let error = repository(&server.await).referrers(&subject(), 100).await.unwrap_err();
        assert_eq!(error.kind(), Kind::Remote, "{body}: {error}");
    }
}

#[tokio::test]
async fn a_refusal_is_not_an_absence() {
    for refusal in [401, 403] {
        let server = Server::start(move |seen| answer(if is_api(seen) { refusal } else { 200 }));
        let error = repository(&server.await).referrers(&subject(), 100).await.unwrap_err();
        assert_eq!(status(&error), Some(refusal));
    }
}

#[tokio::test]
async fn something_else_under_the_tag_lists_nothing() {
    let image = json!({"schemaVersion": 2, "config": named(0), "layers": []}).to_string();
    let server = Server::start(move |seen| match is_api(seen) {
        true => answer(404),
        false => answer(200).header("content-type", media_type::OCI_MANIFEST).body(image.clone()),
    });
    let found = repository(&server.await).referrers(&subject(), 100).await.unwrap();
    assert!(found.manifests.is_empty() && matches!(found.listed_by, ListedBy::Tag(_)));
}

#[tokio::test]
async fn a_registry_says_whether_it_takes_note_of_a_subject() {
    let bytes = Bytes::from_static(b"{}");
    for (says, takes_note) in [(Some(subject().to_string()), true), (Some("nonsense".to_owned()), false), (None, false)]
    {
        let server = Server::start(move |seen| match (seen.method.as_str(), &says) {
            ("PUT", Some(says)) => answer(201).header("oci-subject", says.clone()),
            ("PUT", None) => answer(201),
            _ => answer(200),
        });
        let put = repository(&server.await).put_referrer("t", media_type::OCI_MANIFEST, &bytes, &subject()).await;
        assert_eq!(put.unwrap(), takes_note);
    }
}
