//! Large answers that are made in memory: pages and lists. The same one is kept once, however many clients take it and at whatever pace, and
//! all together have a limit.

use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use bytes::Bytes;
use http::StatusCode;
use http::header::RETRY_AFTER;
use tokio::sync::{Semaphore, SemaphorePermit};

use crate::refusal::Refusal;

/// Smaller ones are not counted: as much waits in any connection.
const SMALL: usize = 64 << 10;
/// The most bytes that all of them may take, but for one that is larger by itself.
const MOST: usize = 32 << 20;
/// As many are made at once.
const MADE: usize = 2;
/// When whoever was refused may come again.
const AGAIN: Duration = Duration::from_secs(5);

/// The large answers that are being made and sent.
#[derive(Debug)]
pub(crate) struct Large {
    sent: Mutex<Vec<Weak<String>>>,
    made: Semaphore,
    most: usize,
}

impl Default for Large {
    fn default() -> Self {
        Self { sent: Mutex::default(), made: Semaphore::new(MADE), most: MOST }
    }
}

/// What keeps one while it is sent.
struct Sent(Arc<String>);

impl AsRef<[u8]> for Sent {
    fn as_ref(&self) -> &[u8] {
        self.0.as_bytes()
    }
}

impl Large {
    /// The turn to make one: a page of thousands of images, or a walk over a store, is work, and anybody may ask.
    pub(crate) async fn turn(&self) -> Option<SemaphorePermit<'_>> {
        // it is never closed
        self.made.acquire().await.ok()
    }

    /// The bytes of an answer: those of an equal one that is being sent, if there is one. 503 where too much is being sent.
    pub(crate) fn share(&self, text: String) -> Result<Bytes, Refusal> {
        if text.len() < SMALL {
            return Ok(text.into());
        }
        let mut sent = self.sent.lock().unwrap_or_else(PoisonError::into_inner);
        sent.retain(|one| one.strong_count() > 0);
        let others: Vec<Arc<String>> = sent.iter().filter_map(Weak::upgrade).collect();
        if let Some(same) = others.iter().find(|other| ***other == text) {
            return Ok(Bytes::from_owner(Sent(Arc::clone(same))));
        }
        let taken: usize = others.iter().map(|other| other.len()).sum();
        if taken > 0 && taken + text.len() > self.most {
            let message = "too many large pages and lists are being sent to slow clients";
            let refusal = Refusal::new(StatusCode::SERVICE_UNAVAILABLE, "TOOMANYREQUESTS", message);
            return Err(refusal.with(RETRY_AFTER, AGAIN.as_secs().to_string()));
        }
        let text = Arc::new(text);
        sent.push(Arc::downgrade(&text));
        Ok(Bytes::from_owner(Sent(text)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_answers_are_kept_once_and_all_together_have_a_limit() {
        let large = Large { most: 3 * SMALL, ..Large::default() };
        let text = |letter: &str| letter.repeat(SMALL);
        let one = large.share(text("a")).expect("fits");
        let same = large.share(text("a")).expect("is there");
        assert_eq!((one.as_ptr(), one.len()), (same.as_ptr(), SMALL));
        let _others: Vec<Bytes> = ["b", "c"].iter().map(|l| large.share(text(l)).expect("fits")).collect();
        let refusal = large.share(text("d")).expect_err("too much");
        assert_eq!(refusal.status, StatusCode::SERVICE_UNAVAILABLE);
        large.share("d".to_owned()).expect("small ones always go");
        large.share(text("a")).expect("what is sent already, too");
        drop(one);
        large.share(text("d")).expect_err("another still takes it");
        drop(same);
        large.share(text("d")).expect("there is room again");
    }

    #[test]
    fn one_that_is_larger_than_the_limit_is_sent_alone() {
        let large = Large { most: SMALL, ..Large::default() };
        let text = |letter: &str| letter.repeat(2 * SMALL);
        let one = large.share(text("a")).expect("alone");
        large.share(text("b")).expect_err("the second waits");
        drop(one);
        large.share(text("b")).expect("then it goes");
    }
}
