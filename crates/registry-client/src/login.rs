//! A login is tried once before many use it: a password that was mistyped would fail as many times as there are images, and servers make those
//! who guess wait, or lock them out.
//!
//! The first request that carries it holds the others back until it is answered. One that was refused is refused to all who come after,
//! without a request; once it was accepted, a refusal is about what was asked for and not about the login.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use http::HeaderValue;
use tokio::sync::OwnedMutexGuard;

use crate::Error;

/// Where a login is shown. A registry and its token server may say different things to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Shown {
    ToRegistry,
    ToTokenServer,
}

/// The logins of one registry.
#[derive(Debug, Default)]
pub(crate) struct Logins(Mutex<HashMap<(Shown, HeaderValue), Slot>>);

type Slot = Arc<tokio::sync::Mutex<Standing>>;

/// What is known of one.
#[derive(Debug, Default)]
enum Standing {
    #[default]
    Untried,
    /// It was sent, and the answer said nothing of it, or none came.
    Unsettled,
    Accepted,
    Refused(Error),
}

/// A request with a login, from before it is sent until it was answered.
#[derive(Debug)]
pub(crate) struct Turn {
    slot: Slot,
    /// Held by the first.
    first: Option<OwnedMutexGuard<Standing>>,
}

impl Logins {
    /// Waits while somebody else tries this login for the first time.
    ///
    /// # Errors
    /// What it was refused with.
    pub(crate) async fn enter(&self, shown: Shown, login: &HeaderValue) -> Result<Turn, Error> {
        let slot = {
            let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            Arc::clone(all.entry((shown, login.clone())).or_default())
        };
        let standing = Arc::clone(&slot).lock_owned().await;
        match &*standing {
            Standing::Refused(error) => Err(error.clone()),
            Standing::Untried => Ok(Turn { slot, first: Some(standing) }),
            Standing::Unsettled | Standing::Accepted => Ok(Turn { slot, first: None }),
        }
    }
}

impl Turn {
    /// It was taken for what it is.
    pub(crate) async fn accepted(self) {
        *self.standing().await = Standing::Accepted;
    }

    /// It was refused with `error`; `true` unless it had been accepted before.
    pub(crate) async fn refused(self, error: &Error) -> bool {
        let mut standing = self.standing().await;
        if matches!(*standing, Standing::Accepted) {
            return false;
        }
        *standing = Standing::Refused(error.clone());
        true
    }

    /// Nothing was learnt of it: nobody waits for the next attempt.
    pub(crate) async fn unsettled(self) {
        let mut standing = self.standing().await;
        if matches!(*standing, Standing::Untried) {
            *standing = Standing::Unsettled;
        }
    }

    async fn standing(self) -> OwnedMutexGuard<Standing> {
        match self.first {
            Some(held) => held,
            None => self.slot.lock_owned().await,
        }
    }
}
