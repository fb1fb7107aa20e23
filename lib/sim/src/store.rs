//! The store of lease and registry: records with revisions, written by compare-and-set.

use std::collections::{BTreeMap, VecDeque};

use meso_core::lease::Record;
use meso_core::seed::Seed;

/// How many older lease records a stale read may answer with.
pub const OLD_RECORDS_MAX: usize = 4;
/// How many of the latest writes a copy that is behind may lack, and one more.
const BEHIND_MAX: u64 = 4;
/// How many documents that were written over a copy which is behind may still hold.
const OLD_DOCS_MAX: usize = 16;

/// Lease and registry.
#[derive(Clone, Debug, Default)]
pub struct SimStore {
    last: u64,
    lease: Option<(u64, Record)>,
    older: Vec<(u64, Record)>,
    docs: BTreeMap<String, (u64, String)>,
    /// Documents that were written over, the latest last.
    old_docs: VecDeque<(String, u64, String)>,
}

/// What one server answers that is asked for the whole registry: its copy may be behind, or still be filled.
#[derive(Clone, Debug)]
pub struct Reading {
    /// The documents of its copy with their revisions.
    pub docs: Vec<(String, u64, String)>,
    /// How many there are by the word of the server that knows it for sure.
    pub keys: usize,
    /// The revision of the latest of them, by the same word.
    pub last: u64,
}

impl Reading {
    /// Whether the copy holds as many documents as there are.
    pub fn is_counted(&self) -> bool {
        self.docs.len() >= self.keys
    }

    /// Whether it holds all that there is, as it is.
    pub fn is_whole(&self) -> bool {
        self.is_counted() && self.docs.iter().map(|(_, revision, _)| *revision).max().unwrap_or(0) >= self.last
    }
}

impl SimStore {
    /// The lease record and its revision, 0 if there is none.
    pub fn lease(&self) -> (u64, Option<Record>) {
        self.lease.as_ref().map_or((0, None), |(revision, record)| (*revision, Some(record.clone())))
    }

    /// An older lease record, as a replica that is behind answers; behind all that are kept there was none.
    pub fn old_lease(&self, back: usize) -> Option<(u64, Option<Record>)> {
        if back == OLD_RECORDS_MAX {
            return Some((0, None));
        }
        let place = self.older.len().checked_sub(back + 1)?;
        self.older.get(place).map(|(revision, record)| (*revision, Some(record.clone())))
    }

    /// Stores the lease over exactly this revision; the new one, or none if it was refused.
    pub fn cas_lease(&mut self, expect: u64, record: Record) -> Option<u64> {
        if self.lease.as_ref().map_or(0, |(revision, _)| *revision) != expect {
            return None;
        }
        if let Some(old) = self.lease.take() {
            self.older.push(old);
            if self.older.len() > OLD_RECORDS_MAX {
                self.older.remove(0);
            }
        }
        self.last += 1;
        self.lease = Some((self.last, record));
        Some(self.last)
    }

    /// The whole registry.
    pub fn reading(&self) -> Reading {
        self.reading_upto(u64::MAX, &VecDeque::new())
    }

    /// The registry from a copy that is behind at one of its writes, or from one that is being filled up to there: what was
    /// written over later such a one does not hold at all.
    pub fn reading_behind(&self, is_filled: bool, seed: &mut Seed) -> Reading {
        let mut revisions: Vec<u64> = self.docs.values().map(|(revision, _)| *revision).chain(self.old_docs.iter().map(|(_, revision, _)| *revision)).collect();
        revisions.sort_unstable();
        let writes = revisions.len() as u64;
        let back = seed.below(if is_filled { writes + 1 } else { (writes + 1).min(BEHIND_MAX) });
        let place = (writes - back) as usize;
        let upto = place.checked_sub(1).map_or(0, |place| revisions[place]);
        if is_filled { self.reading_upto(upto, &VecDeque::new()) } else { self.reading_upto(upto, &self.old_docs) }
    }

    fn reading_upto(&self, upto: u64, old_docs: &VecDeque<(String, u64, String)>) -> Reading {
        let as_of = |key: &String, now: &(u64, String)| {
            let old = || old_docs.iter().rev().find(|(of, revision, _)| of == key && *revision <= upto).map(|(_, revision, doc)| (*revision, doc.clone()));
            let (revision, doc) = if now.0 <= upto { now.clone() } else { old()? };
            Some((key.clone(), revision, doc))
        };
        Reading {
            docs: self.docs.iter().filter_map(|(key, now)| as_of(key, now)).collect(),
            keys: self.docs.len(),
            last: self.docs.values().map(|(revision, _)| *revision).max().unwrap_or(0),
        }
    }

    /// Stores a document over exactly this revision, 0 for none; the new revision, or none if it was refused.
    pub fn cas_doc(&mut self, key: &str, expect: u64, doc: String) -> Option<u64> {
        if self.docs.get(key).map_or(0, |(revision, _)| *revision) != expect {
            return None;
        }
        self.last += 1;
        if let Some((revision, old)) = self.docs.insert(key.to_owned(), (self.last, doc)) {
            self.old_docs.push_back((key.to_owned(), revision, old));
            if self.old_docs.len() > OLD_DOCS_MAX {
                self.old_docs.pop_front();
            }
        }
        Some(self.last)
    }

    /// All is lost, and revisions begin anew.
    pub fn lose(&mut self) {
        *self = SimStore::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Shows that a write over another revision than the current one changes nothing, and that a lost store begins anew.
    #[test]
    fn compare_and_set() {
        let mut store = SimStore::default();
        assert_eq!(store.cas_doc("a", 0, "x".to_owned()), Some(1));
        assert_eq!(store.cas_doc("a", 0, "y".to_owned()), None);
        assert_eq!(store.cas_doc("a", 1, "z".to_owned()), Some(2));
        assert_eq!(store.reading().docs, [("a".to_owned(), 2, "z".to_owned())]);
        store.lose();
        assert_eq!(store.cas_doc("a", 2, "x".to_owned()), None);
        assert_eq!(store.cas_doc("a", 0, "x".to_owned()), Some(1));
    }

    /// Shows that a copy which is behind is told from a whole one, whether documents are missing there or older.
    #[test]
    fn a_copy_that_is_behind() {
        let mut store = SimStore::default();
        store.cas_doc("a", 0, "x".to_owned());
        store.cas_doc("b", 0, "y".to_owned());
        store.cas_doc("a", 1, "z".to_owned());
        assert!(store.reading().is_whole());
        let behind = store.reading_upto(2, &store.old_docs);
        assert_eq!(behind.docs, [("a".to_owned(), 1, "x".to_owned()), ("b".to_owned(), 2, "y".to_owned())]);
        assert!(behind.is_counted() && !behind.is_whole());
        let filled = store.reading_upto(2, &VecDeque::new());
        assert_eq!(filled.docs, [("b".to_owned(), 2, "y".to_owned())]);
        assert!(!filled.is_counted());
    }
}
