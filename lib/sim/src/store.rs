//! The store of lease and registry: records with revisions, written by compare-and-set.

use std::collections::BTreeMap;

use meso_core::lease::Record;

/// How many older lease records a stale read may answer with.
const OLD_RECORDS_MAX: usize = 4;

/// Lease and registry.
#[derive(Clone, Debug, Default)]
pub struct SimStore {
    last: u64,
    lease: Option<(u64, Record)>,
    older: Vec<(u64, Record)>,
    docs: BTreeMap<String, (u64, String)>,
}

impl SimStore {
    /// The lease record and its revision, 0 if there is none.
    pub fn lease(&self) -> (u64, Option<Record>) {
        self.lease.as_ref().map_or((0, None), |(revision, record)| (*revision, Some(record.clone())))
    }

    /// An older lease record, as a replica that is behind answers.
    pub fn old_lease(&self, back: usize) -> Option<(u64, Option<Record>)> {
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

    /// All documents of the registry with their revisions.
    pub fn docs(&self) -> &BTreeMap<String, (u64, String)> {
        &self.docs
    }

    /// Stores a document over exactly this revision, 0 for none; the new revision, or none if it was refused.
    pub fn cas_doc(&mut self, key: &str, expect: u64, doc: String) -> Option<u64> {
        if self.docs.get(key).map_or(0, |(revision, _)| *revision) != expect {
            return None;
        }
        self.last += 1;
        self.docs.insert(key.to_owned(), (self.last, doc));
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
        assert_eq!(store.docs()["a"], (2, "z".to_owned()));
        store.lose();
        assert_eq!(store.cas_doc("a", 2, "x".to_owned()), None);
        assert_eq!(store.cas_doc("a", 0, "x".to_owned()), Some(1));
    }
}
