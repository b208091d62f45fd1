//! Work that is shared among threads.

use std::sync::{Mutex, PoisonError};

use crate::Error;

/// Does `work` on every item, on at most `threads` threads, each with a `state` of its own. The first error ends it.
pub(super) fn share<I, S>(
    threads: usize,
    items: I,
    state: impl Fn() -> Result<S, Error> + Sync,
    work: impl Fn(&mut S, I::Item) -> Result<(), Error> + Sync,
) -> Result<(), Error>
where
    I: Iterator + Send,
    I::Item: Send,
{
    let queue = Mutex::new((items, None::<Error>));
    let lock = || queue.lock().unwrap_or_else(PoisonError::into_inner);
    let next = || {
        let mut queue = lock();
        if queue.1.is_some() { None } else { queue.0.next() }
    };
    let run = || {
        let mut own = match state() {
            Ok(own) => own,
            Err(error) => {
                lock().1.get_or_insert(error);
                return;
            }
        };
        while let Some(item) = next() {
            if let Err(error) = work(&mut own, item) {
                lock().1.get_or_insert(error);
                return;
            }
        }
    };
    std::thread::scope(|scope| {
        for _ in 1..threads {
            // Where no thread can be had, the others do the work.
            let _ = std::thread::Builder::new().name("recovery".to_owned()).spawn_scoped(scope, run);
        }
        run();
    });
    let (_, error) = queue.into_inner().unwrap_or_else(PoisonError::into_inner);
    error.map_or(Ok(()), Err)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[test]
    fn everything_is_done_once_and_an_error_ends_it() {
        let done = AtomicUsize::new(0);
        let count = |_: &mut (), n| {
            done.fetch_add(n, Ordering::Relaxed);
            Ok(())
        };
        share(3, 0..100, || Ok(()), count).expect("done");
        assert_eq!(done.load(Ordering::Relaxed), 4950);
        let fail = |_: &mut (), n| if n == 10 { Err(Error::PasswordNeeded) } else { Ok(()) };
        assert!(share(3, 0.., || Ok(()), fail).is_err());
    }
}
