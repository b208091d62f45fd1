//! A command killed at random moments, many times over, and what must hold after that.

use std::path::PathBuf;
use std::time::{Duration, Instant, SystemTime};

use crate::ferry::{Ferry, Outcome};
use crate::images::Random;
use crate::numbers;

/// What is killed, and how it is looked at.
pub struct Trial<'a> {
    /// What it is called in the numbers.
    pub what: &'static str,
    /// The command.
    pub command: &'a dyn Fn() -> Ferry,
    /// Files whose appearance is a moment of its own: phases that are too short to be met by chance.
    pub moments: Vec<PathBuf>,
    /// Puts everything back to the start.
    pub reset: &'a dyn Fn(),
    /// What must hold after every kill.
    pub killed: &'a dyn Fn(),
    /// What must hold when the same command has ended right after so many kills.
    pub ended: &'a dyn Fn(u64),
}

/// How often: `$FERRY_KILLS`, or 20.
#[must_use]
pub fn count() -> u64 {
    std::env::var("FERRY_KILLS").map_or(20, |text| text.parse().expect("FERRY_KILLS is a number"))
}

/// Of the moments: `$FERRY_KILL_SEED`, or another each time. It is said on standard error.
#[must_use]
pub fn seed(what: &str) -> u64 {
    let now = || SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_nanos() as u64;
    let seed = std::env::var("FERRY_KILL_SEED").map_or_else(|_| now(), |text| text.parse().expect("a number"));
    numbers::say(&format!("{what}: FERRY_KILL_SEED={seed}"));
    seed
}

impl Trial<'_> {
    /// Kills it [`count`] times, one to four times in a row, each row ended by an undisturbed run.
    ///
    /// # Panics
    /// When something does not hold.
    pub fn run(&self) {
        let mut random = Random::new(seed(self.what));
        (self.reset)();
        let undisturbed = (self.command)().ok().took;
        (self.ended)(0);
        let (mut killed, mut rows, mut early) = (0, 0, 0);
        while killed < count() {
            (self.reset)();
            let row = 1 + random.draw() % 4;
            let mut kills = 0;
            for _ in 0..row {
                let outcome = self.strike(&mut random, undisturbed);
                match outcome.code {
                    137 => kills += 1,
                    0 => {
                        early += 1;
                        break;
                    }
                    code => panic!("{}: it ended with {code} by itself:\n{}", self.what, outcome.stderr),
                }
                (self.killed)();
            }
            let _ = (self.command)().ok();
            (self.ended)(kills);
            killed += kills;
            rows += 1;
            assert!(early < 20 + 4 * count(), "{}: it is too fast to be killed", self.what);
        }
        numbers::tell(&format!("{}: kills", self.what), killed as f64, "");
        numbers::tell(&format!("{}: ended right after them", self.what), rows as f64, "");
        numbers::tell(&format!("{}: were faster", self.what), early as f64, "");
    }

    fn strike(&self, random: &mut Random, undisturbed: Duration) -> Outcome {
        let mut running = (self.command)().start();
        let share = (random.draw() % 1000) as f64 / 1000.0;
        let started = Instant::now();
        match random.draw() % 3 {
            0 if !self.moments.is_empty() => {
                let moment = &self.moments[usize::try_from(random.draw()).unwrap() % self.moments.len()];
                while !moment.exists() && running.runs() && started.elapsed() < undisturbed * 3 {
                    std::hint::spin_loop();
                }
                // right then, or a little later
                std::thread::sleep(Duration::from_micros(random.draw() % 3000));
            }
            // the last tenth, where names are given
            1 => std::thread::sleep(undisturbed.mul_f64(0.9 + share / 8.0)),
            _ => std::thread::sleep(undisturbed.mul_f64(share)),
        }
        running.kill()
    }
}
