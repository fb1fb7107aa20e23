//! Requests that wait for their answer
//!
//! The client library forgets a request that timed out only when the whole client goes. Here a
//! waiting request is one entry that goes with whoever waits for it, and there is a limit.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot;

use crate::BusError;

/// Requests of one connection that wait for an answer at most
pub(crate) const REQUESTS_MAX: usize = 65_536;

pub(crate) type Answer = Result<async_nats::Message, BusError>;

/// The requests of one connection that wait
#[derive(Default)]
pub(crate) struct Pending {
    table: Mutex<Table>,
}

#[derive(Default)]
struct Table {
    next: u64,
    waiting: HashMap<u64, Waiting>,
}

struct Waiting {
    subject: String,
    answer: oneshot::Sender<Answer>,
}

/// One request's place in the table; dropping it gives the place up
pub(crate) struct Place<'a> {
    pending: &'a Pending,
    pub key: u64,
    pub answer: oneshot::Receiver<Answer>,
}

impl Pending {
    pub fn open(&self, subject: &str) -> Result<Place<'_>, BusError> {
        let (sender, receiver) = oneshot::channel();
        let mut table = self.table();
        if table.waiting.len() >= REQUESTS_MAX {
            return Err(BusError::Busy { limit: REQUESTS_MAX });
        }
        let key = table.next;
        table.next += 1;
        table.waiting.insert(key, Waiting { subject: subject.to_owned(), answer: sender });
        Ok(Place { pending: self, key, answer: receiver })
    }

    /// Hands an answer to who waits for it; an answer that comes too late finds nobody.
    pub fn answer(&self, key: u64, message: async_nats::Message) {
        if let Some(waiting) = self.table().waiting.remove(&key) {
            // Who gave up in this moment is gone, and nobody misses the answer.
            let _ = waiting.answer.send(Ok(message));
        }
    }

    /// Fails what waits on the subject, or all if none is given.
    pub fn fail(&self, subject: Option<&str>, error: &BusError) {
        let mut table = self.table();
        let keys: Vec<u64> = table
            .waiting
            .iter()
            .filter(|(_, waiting)| subject.is_none_or(|subject| waiting.subject == subject))
            .map(|(key, _)| *key)
            .collect();
        for key in keys {
            if let Some(waiting) = table.waiting.remove(&key) {
                let _ = waiting.answer.send(Err(error.clone()));
            }
        }
    }

    pub fn len(&self) -> usize {
        self.table().waiting.len()
    }

    /// The table is whole between any two statements, so a panic elsewhere cannot have torn it.
    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.pending.table().waiting.remove(&self.key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A place goes with its request, however that ends; the limit holds and is no trap.
    #[test]
    fn places_are_given_up() {
        let pending = Pending::default();
        let places: Vec<_> = (0..REQUESTS_MAX).map(|_| pending.open("a").expect("a place")).collect();
        assert_eq!(pending.open("a").err(), Some(BusError::Busy { limit: REQUESTS_MAX }));
        drop(places);
        assert_eq!(pending.len(), 0);
        assert!(pending.open("a").is_ok());
    }

    /// A failure reaches exactly the requests on its subject.
    #[test]
    fn failures_find_their_subject() {
        let pending = Pending::default();
        let mut hit = pending.open("a").expect("a place");
        let mut other = pending.open("b").expect("a place");
        pending.fail(Some("a"), &BusError::Closed);
        assert_eq!(hit.answer.try_recv().map(|a| a.err()), Ok(Some(BusError::Closed)));
        assert!(other.answer.try_recv().is_err());
        pending.fail(None, &BusError::Closed);
        assert_eq!(other.answer.try_recv().map(|a| a.err()), Ok(Some(BusError::Closed)));
    }
}
