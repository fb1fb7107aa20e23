//! The offers that a session holds, from their arrival until they are used or given back.

use std::collections::{BTreeMap, VecDeque};

use crate::id::OfferId;
use crate::wire::Offer;

/// An offer with less than this left to live is not handed out any more, milliseconds: it could not be used in time.
pub const LEFT_MS_MIN: u64 = 1_000;
/// The most offers held at once, whatever a leader sends.
pub const HELD_MAX: usize = 1_024;

/// An offer that waits to be written.
#[derive(Clone, Debug)]
struct Waiting {
    offer: Offer,
    ends_ms: u64,
}

/// An offer whose line was written.
#[derive(Clone, Debug)]
struct Written {
    id: OfferId,
    ends_ms: u64,
    /// Bytes written when its line was through: it has been read once as many were taken.
    end: u64,
    /// How long the pipe had been empty in all when it was written, milliseconds.
    idle_ms: u64,
}

/// The offers in their order.
#[derive(Clone, Debug, Default)]
pub struct Held {
    waiting: VecDeque<Waiting>,
    /// By the number of the line.
    written: BTreeMap<u64, Written>,
    numbers: BTreeMap<OfferId, u64>,
    last_number: u64,
}

impl Held {
    /// Takes offers in, each once however often it comes; gives back those beyond the bound.
    pub fn add(&mut self, now_ms: u64, offers: Vec<Offer>) -> Vec<OfferId> {
        let mut beyond = Vec::new();
        for offer in offers {
            if self.numbers.contains_key(&offer.id) || self.waiting.iter().any(|waiting| waiting.offer.id == offer.id) {
                continue;
            }
            if self.len() >= HELD_MAX {
                beyond.push(offer.id);
            } else {
                self.waiting.push_back(Waiting { ends_ms: now_ms.saturating_add(offer.lives_ms), offer });
            }
        }
        beyond
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.waiting.len() + self.written.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How many wait to be written.
    pub fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// The next to write, the number of its line and when it ends.
    pub fn next(&self) -> Option<(&Offer, u64, u64)> {
        self.waiting.front().map(|waiting| (&waiting.offer, self.last_number + 1, waiting.ends_ms))
    }

    /// Takes out those that wait and have too little time left.
    pub fn take_stale(&mut self, now_ms: u64) -> Vec<OfferId> {
        let mut stale = Vec::new();
        self.waiting.retain(|waiting| {
            let keeps = waiting.ends_ms > now_ms + LEFT_MS_MIN;
            if !keeps {
                stale.push(waiting.offer.id.clone());
            }
            keeps
        });
        stale
    }

    /// The line of the next offer was written, and ends at this byte.
    pub fn wrote(&mut self, id: &OfferId, end: u64, idle_ms: u64) {
        let Some(place) = self.waiting.iter().position(|waiting| waiting.offer.id == *id) else { return };
        let Some(waiting) = self.waiting.remove(place) else { return };
        self.last_number += 1;
        self.numbers.insert(id.clone(), self.last_number);
        self.written.insert(self.last_number, Written { id: id.clone(), ends_ms: waiting.ends_ms, end, idle_ms });
    }

    /// Offers were used or given back by another member. Those of earlier lines, which their readers passed over, come out.
    pub fn used(&mut self, offers: &[OfferId], ordered: bool) -> Vec<OfferId> {
        let last = offers.iter().filter_map(|id| self.numbers.get(id)).max().copied();
        for id in offers {
            self.remove(id);
        }
        let Some(last) = last.filter(|_| ordered) else { return Vec::new() };
        let skipped: Vec<OfferId> = self.written.range(..last).map(|(_, written)| written.id.clone()).collect();
        for id in &skipped {
            self.remove(id);
        }
        skipped
    }

    /// Takes out those whose lines were read and which nobody touched while the pipe was empty for the grace.
    pub fn take_dropped(&mut self, consumed: u64, idle_ms: u64, grace_ms: u64) -> Vec<OfferId> {
        let is_dropped = |written: &Written| written.end <= consumed && idle_ms >= written.idle_ms + grace_ms;
        let dropped: Vec<OfferId> = self.written.values().filter(|written| is_dropped(written)).map(|written| written.id.clone()).collect();
        for id in &dropped {
            self.remove(id);
        }
        dropped
    }

    /// How much longer the pipe has to be empty until the next is taken for dropped, milliseconds.
    pub fn dropped_in_ms(&self, idle_ms: u64, grace_ms: u64) -> Option<u64> {
        self.written.values().map(|written| (written.idle_ms + grace_ms).saturating_sub(idle_ms)).min()
    }

    /// When the next one ends, or is too old to be written.
    pub fn deadline(&self) -> Option<u64> {
        let waiting = self.waiting.iter().map(|waiting| waiting.ends_ms.saturating_sub(LEFT_MS_MIN)).min();
        let written = self.written.values().map(|written| written.ends_ms).min();
        [waiting, written].into_iter().flatten().min()
    }

    /// Forgets those whose time is over: the leader took them back by itself. Gives those that were written.
    pub fn take_expired(&mut self, now_ms: u64) -> Vec<OfferId> {
        let expired: Vec<OfferId> = self.written.values().filter(|written| written.ends_ms <= now_ms).map(|written| written.id.clone()).collect();
        for id in &expired {
            self.remove(id);
        }
        expired
    }

    /// Takes an offer out; true if its line was written.
    pub fn remove(&mut self, id: &OfferId) -> bool {
        self.waiting.retain(|waiting| waiting.offer.id != *id);
        match self.numbers.remove(id) {
            Some(number) => self.written.remove(&number).is_some(),
            None => false,
        }
    }

    /// Takes out all that were not written.
    pub fn take_waiting(&mut self) -> Vec<OfferId> {
        std::mem::take(&mut self.waiting).into_iter().map(|waiting| waiting.offer.id).collect()
    }

    /// Takes out all that were written and that nobody read.
    pub fn take_unread(&mut self, consumed: u64) -> Vec<OfferId> {
        let unread: Vec<OfferId> = self.written.values().filter(|written| written.end > consumed).map(|written| written.id.clone()).collect();
        for id in &unread {
            self.remove(id);
        }
        unread
    }

    /// Takes out all that were written.
    pub fn take_written(&mut self) -> Vec<OfferId> {
        self.take_unread(0)
    }
}
