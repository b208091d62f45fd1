//! The gate before servers that limit in the ways known from the field, in simulated time.

use std::collections::VecDeque;

use super::*;

const MS: fn(u64) -> Duration = Duration::from_millis;

fn limits(gate: &Gate) -> [usize; 2] {
    let state = gate.state();
    [state.crowds[0].limit, state.crowds[1].limit]
}

#[tokio::test(start_paused = true)]
async fn a_429_halves_what_is_on_its_way_and_time_restores_it() {
    let gate = Gate::new(8);
    let mut places = Vec::new();
    for _ in 0..6 {
        places.push(gate.enter(Kind::Request).await);
    }
    places.push(gate.enter(Kind::Pull).await);
    for place in &places {
        place.refused(None);
    }
    assert_eq!(limits(&gate), [3, 8], "a burst counts once; one alone is not too many");
    drop(places);
    tokio::time::sleep(MS(1100)).await;
    drop(gate.enter(Kind::Request).await);
    assert_eq!(limits(&gate), [4, 8]);
    tokio::time::sleep(MS(60_000)).await;
    drop(gate.enter(Kind::Request).await);
    assert_eq!(limits(&gate), [8, 8], "never above where it began");
}

#[tokio::test(start_paused = true)]
async fn whoever_waits_gets_the_place_that_is_left() {
    let gate = Gate::new(1);
    let first = gate.enter(Kind::Pull).await;
    let second = tokio::spawn({
        let gate = Arc::clone(&gate);
        async move { drop(gate.enter(Kind::Pull).await) }
    });
    drop(gate.enter(Kind::Request).await);
    drop(gate.enter(Kind::Upload).await);
    tokio::time::sleep(MS(5000)).await;
    assert!(!second.is_finished());
    drop(first);
    let start = Instant::now();
    second.await.unwrap();
    assert_eq!(start.elapsed(), MS(0));
}

#[tokio::test(start_paused = true)]
async fn retry_after_holds_everybody_back() {
    let gate = Gate::new(8);
    gate.enter(Kind::Request).await.refused(Some(MS(7000)));
    let start = Instant::now();
    for kind in [Kind::Pull, Kind::Request, Kind::Upload] {
        drop(gate.enter(kind).await);
    }
    assert!(start.elapsed() >= MS(7000), "{:?}", start.elapsed());
    gate.enter(Kind::Request).await.close(MS(3000));
    let start = Instant::now();
    drop(gate.enter(Kind::Request).await);
    assert!(start.elapsed() >= MS(3000), "{:?}", start.elapsed());
}

#[tokio::test(start_paused = true)]
async fn without_a_429_nobody_waits() {
    let gate = Gate::new(64);
    let start = Instant::now();
    for _ in 0..10_000 {
        gate.enter(Kind::Request).await.accepted();
    }
    assert_eq!(start.elapsed(), MS(0));
}

#[tokio::test(start_paused = true)]
async fn a_limit_that_is_gone_is_forgotten() {
    let gate = Gate::new(8);
    assert_eq!(gate.enter(Kind::Request).await.refused(None), MS(0));
    tokio::time::sleep(MS(500)).await;
    let probe = gate.enter(Kind::Request).await;
    assert_eq!(probe.refused(None), MS(500), "for so long by now");
    gate.enter(Kind::Request).await.accepted();
    let start = Instant::now();
    for _ in 0..5000 {
        gate.enter(Kind::Request).await.accepted();
    }
    assert!(start.elapsed() < MS(60_000), "{:?}", start.elapsed());
    let start = Instant::now();
    for _ in 0..1000 {
        gate.enter(Kind::Request).await.accepted();
    }
    assert_eq!(start.elapsed(), MS(0));
}

/// When a request is refused, and for how long.
trait Limit: Send {
    fn ask(&mut self, now: f64) -> Option<f64>;
}

/// So many a second, and some saved up.
struct Bucket {
    rate: f64,
    most: f64,
    tokens: f64,
    at: f64,
}

impl Limit for Bucket {
    fn ask(&mut self, now: f64) -> Option<f64> {
        self.tokens = (self.tokens + (now - self.at) * self.rate).min(self.most);
        self.at = now;
        if self.tokens < 1.0 - 1e-9 {
            return Some((1.0 - self.tokens) / self.rate);
        }
        self.tokens -= 1.0;
        None
    }
}

/// So many from one full period to the next.
struct Window {
    most: u32,
    length: f64,
    current: f64,
    taken: u32,
}

impl Limit for Window {
    fn ask(&mut self, now: f64) -> Option<f64> {
        let at = now / self.length + 0.37;
        if at.floor() > self.current {
            (self.current, self.taken) = (at.floor(), 0);
        }
        if self.taken == self.most {
            return Some((1.0 - at.fract()) * self.length);
        }
        self.taken += 1;
        None
    }
}

/// So many within any period; those refused may count as well.
struct Sliding {
    most: usize,
    length: f64,
    taken: VecDeque<f64>,
    counts_refused: bool,
}

impl Limit for Sliding {
    fn ask(&mut self, now: f64) -> Option<f64> {
        while self.taken.front().is_some_and(|at| *at <= now - self.length) {
            self.taken.pop_front();
        }
        let refused = (self.taken.len() >= self.most).then(|| self.taken[0] + self.length - now);
        if refused.is_none() || self.counts_refused {
            self.taken.push_back(now);
        }
        refused
    }
}

fn bucket(rate: f64, most: f64) -> Box<dyn Limit> {
    Box::new(Bucket { rate, most, tokens: most, at: 0.0 })
}

fn window(most: u32, length: f64) -> Box<dyn Limit> {
    Box::new(Window { most, length, current: 0.0, taken: 0 })
}

fn sliding(most: usize, length: f64, counts_refused: bool) -> Box<dyn Limit> {
    Box::new(Sliding { most, length, taken: VecDeque::new(), counts_refused })
}

/// What a server says with a 429.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Says {
    Nothing,
    Seconds,
}

/// Lets `tasks` make `count` requests in all; returns the seconds it took, and how many were refused.
async fn run(limit: Box<dyn Limit>, says: Says, count: usize, tasks: usize, latency: Duration) -> (f64, usize) {
    let gate = Gate::new(64);
    let start = Instant::now();
    let limit = Arc::new(Mutex::new(limit));
    let (left, refused) = (Arc::new(Mutex::new(count)), Arc::new(Mutex::new(0)));
    let mut all = tokio::task::JoinSet::new();
    for _ in 0..tasks {
        let (gate, limit, left, refused) =
            (Arc::clone(&gate), Arc::clone(&limit), Arc::clone(&left), Arc::clone(&refused));
        all.spawn(async move {
            loop {
                {
                    let mut left = left.lock().unwrap();
                    let Some(less) = left.checked_sub(1) else { return };
                    *left = less;
                }
                loop {
                    let place = gate.enter(Kind::Request).await;
                    tokio::time::sleep(latency.mul_f64(0.4 + jitter() / 5.0)).await;
                    let answer = limit.lock().unwrap().ask(start.elapsed().as_secs_f64());
                    tokio::time::sleep(latency.mul_f64(0.4 + jitter() / 5.0)).await;
                    let Some(wait) = answer else {
                        place.accepted();
                        break;
                    };
                    *refused.lock().unwrap() += 1;
                    place.refused((says == Says::Seconds).then(|| Duration::from_secs_f64(wait.ceil().max(1.0))));
                }
            }
        });
    }
    all.join_all().await;
    let refused = *refused.lock().unwrap();
    (start.elapsed().as_secs_f64(), refused)
}

/// No more than `most` times the time that the limit allows, and no hammering, in each of several settings.
async fn keeps_to(name: &str, limit: impl Fn() -> Box<dyn Limit>, rate: f64, count: usize, most: f64) {
    for says in [Says::Nothing, Says::Seconds] {
        for (tasks, latency) in [(8, 2), (8, 100), (64, 100)] {
            let (took, refused) = run(limit(), says, count, tasks, MS(latency)).await;
            let ideal = f64::from(u32::try_from(count).unwrap()) / rate;
            let case =
                format!("{name}, {says:?}, {tasks} tasks, {latency} ms: {took:.1} s of {ideal:.1}, {refused} refused");
            assert!(took < ideal * most, "{case}");
            // besides those that were on their way when the limit was met first
            assert!(refused < tasks + count / 4 + 20, "{case}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn ten_a_second_take_little_more_than_they_must() {
    for saved in [10.0, 50.0] {
        keeps_to("bucket", || bucket(10.0, saved), 10.0, 100, 1.5).await;
        keeps_to("bucket", || bucket(10.0, saved), 10.0, 400, 1.3).await;
    }
    keeps_to("window", || window(10, 1.0), 10.0, 100, 1.5).await;
    keeps_to("window", || window(10, 1.0), 10.0, 400, 1.4).await;
    keeps_to("sliding", || sliding(10, 1.0, false), 10.0, 100, 1.5).await;
    keeps_to("sliding, refused count", || sliding(10, 1.0, true), 10.0, 100, 1.6).await;
    keeps_to("fifty in five seconds", || window(50, 5.0), 10.0, 200, 1.5).await;
    // nothing saved up: the network's own jitter brings some too close together
    keeps_to("evenly spaced", || bucket(10.0, 1.0), 10.0, 200, 2.1).await;
}

#[tokio::test(start_paused = true)]
async fn a_hundred_a_minute_are_used_up() {
    let rate = 100.0 / 60.0;
    keeps_to("window", || window(100, 60.0), rate, 250, 1.5).await;
    keeps_to("sliding", || sliding(100, 60.0, false), rate, 250, 1.5).await;
}

#[tokio::test(start_paused = true)]
async fn a_limit_that_a_burst_met_is_used_in_full() {
    for says in [Says::Nothing, Says::Seconds] {
        let (took, refused) = run(bucket(200.0, 50.0), says, 4000, 64, MS(100)).await;
        assert!(took < 30.0 && refused < 200, "{says:?}: {took:.1} s of 20, {refused} refused");
    }
}
