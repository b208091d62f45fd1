//! What is looked at from time to time for as long as a server runs, whatever its connections do.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use tokio::time::MissedTickBehavior;

use crate::server::connections::Connections;
use crate::server::tls::Current;

/// How often idle connections are looked for, usually.
pub(super) const ROUND: Duration = Duration::from_secs(5);
/// After how many rounds certificates are looked at: each minute.
const CERTIFICATES: u64 = 12;

/// Until it is dropped.
pub(super) async fn run(every: Duration, connections: Arc<Connections>, certificate: Option<Arc<Current>>) {
    let (mut rounds, mut round) = (tokio::time::interval(every), 0_u64);
    rounds.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        rounds.tick().await;
        connections.end_idle(Instant::now());
        round += 1;
        if let Some(current) = &certificate
            && round % CERTIFICATES == 0
        {
            let current = Arc::clone(current);
            // nobody waits for it, at the end least of all: the disk may not answer
            drop(tokio::task::spawn_blocking(move || current.refresh(SystemTime::now())));
        }
    }
}

#[cfg(test)]
mod tests {
    use ferry_content::store::Store;

    use super::*;
    use crate::server::authority;
    use crate::{Limits, Registry, Server, Settings, Tls};

    #[tokio::test]
    async fn a_certificate_on_a_disk_that_does_not_answer_does_not_hold_up_the_end() {
        let folder = tempfile::tempdir().expect("folder");
        let (names, provider) = (["a.site".to_owned()], rustls::crypto::ring::default_provider());
        authority::certificate(folder.path(), &names, &provider, SystemTime::now(), None).expect("made");
        let file = folder.path().join("server.pem");
        let store = Store::open(folder.path().join("store")).expect("store");
        let tls = Tls::Files { certificate: file.clone(), key: file.clone() };
        let registry = Registry::new(Arc::new(store), Settings::default());
        let server = Server::bind(([127, 0, 0, 1], 0).into(), registry, Some(&tls), Limits::default()).await;
        let server = Server { round: Duration::from_millis(2), ..server.expect("bind") };
        let current = Arc::clone(&server.tls.as_ref().expect("TLS").current);
        // whoever opens a pipe that nobody writes into waits
        std::fs::remove_file(&file).expect("remove");
        rustix::fs::mkfifoat(rustix::fs::CWD, &file, rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR).expect("a pipe");
        let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
        let serving = tokio::spawn(server.serve(async { drop(stopped.await) }, std::future::pending()));
        tokio::time::timeout(Duration::from_secs(5), async {
            while !current.is_looking() {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        })
        .await
        .expect("it is looked at");
        stop.send(()).expect("running");
        let ended = tokio::time::timeout(Duration::from_secs(5), serving).await;
        let is_looking = current.is_looking();
        drop(std::fs::File::options().write(true).open(&file).expect("it answers"));
        ended.expect("in time").expect("well");
        assert!(is_looking, "it was held all the while");
    }
}
