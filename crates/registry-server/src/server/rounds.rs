//! What is looked at from time to time for as long as a server runs, whatever its connections do.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use tokio::time::MissedTickBehavior;

use crate::server::connections::Connections;
use crate::server::tls::Current;

/// How often idle connections are looked for.
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
