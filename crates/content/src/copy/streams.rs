//! How many streams there are at a time: more, as long as more streams bring more bytes.
//!
//! A long line gives each connection so much and no more, and there every stream counts. Where the machine at either end is the limit,
//! more streams share what there is: the largest blob, which ends last, only gets less of it, and caches are lost to the others. Which of
//! the two it is, only trying tells. Pure: the queue measures.

use std::time::Duration;

/// How long is measured before the next decision.
pub(super) const WINDOW: Duration = Duration::from_millis(250);
/// Streams that are let in at once.
const STEP: usize = 1;
/// Windows until the next try after one that brought nothing.
const REST: u32 = 8;

#[derive(Debug)]
pub(super) struct Streams {
    limit: usize,
    most: usize,
    state: State,
}

#[derive(Debug)]
enum State {
    /// Nothing is tried for so many windows: connections are being made, or the last try brought nothing.
    Rest(u32),
    /// The next window says what there is without more.
    Measure,
    /// More were let in, where fewer (so many) brought so many bytes in a window.
    Try(usize, u64),
}

impl Streams {
    pub(super) fn new(first: usize, most: usize) -> Self {
        Self { limit: first.clamp(1, most.max(1)), most: most.max(1), state: State::Rest(1) }
    }

    /// How many there may be now.
    pub(super) fn limit(&self) -> usize {
        self.limit
    }

    /// Whether it is decided once and for all.
    pub(super) fn is_fixed(&self) -> bool {
        self.limit == self.most
    }

    /// A window is over, in which `bytes` have arrived.
    pub(super) fn measured(&mut self, bytes: u64) {
        self.state = match self.state {
            State::Rest(windows) if windows > 1 => State::Rest(windows - 1),
            State::Rest(_) => State::Measure,
            State::Try(fewer, before) if bytes < before + before / 10 => {
                self.limit = fewer;
                State::Rest(REST)
            }
            State::Measure | State::Try(..) => {
                let before = self.limit;
                self.limit = (before + STEP).min(self.most);
                State::Try(before, bytes)
            }
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The limits after each window, where `rate` says what so many streams bring.
    fn limits(first: usize, most: usize, windows: usize, rate: impl Fn(usize) -> u64) -> Vec<usize> {
        let mut streams = Streams::new(first, most);
        (0..windows)
            .map(|_| {
                streams.measured(rate(streams.limit()));
                streams.limit()
            })
            .collect()
    }

    #[test]
    fn a_line_that_limits_each_stream_gets_all_of_them() {
        assert_eq!(limits(4, 8, 7, |n| n as u64 * 50), [4, 5, 6, 7, 8, 8, 8]);
    }

    #[test]
    fn where_more_bring_nothing_they_are_sent_away_and_tried_again_later() {
        assert_eq!(limits(4, 8, 13, |_| 400), [4, 5, 4, 4, 4, 4, 4, 4, 4, 4, 4, 5, 4]);
    }

    #[test]
    fn what_was_no_help_once_may_be_one_later() {
        let mut streams = Streams::new(2, 8);
        for bytes in [0, 100, 90] {
            streams.measured(bytes);
        }
        assert_eq!(streams.limit(), 2);
        for _ in 0..REST {
            streams.measured(50);
        }
        streams.measured(50);
        assert_eq!(streams.limit(), 3);
        streams.measured(100);
        assert_eq!(streams.limit(), 4);
    }

    #[test]
    fn never_more_than_asked_for_and_never_none() {
        assert_eq!(limits(4, 1, 3, |n| n as u64), [1, 1, 1]);
        assert_eq!(Streams::new(0, 0).limit(), 1);
        assert!(Streams::new(8, 8).is_fixed() && !Streams::new(4, 8).is_fixed());
    }
}
