//! The disk of an agent: a log whose synced part survives everything and whose unsynced tail may be lost or torn.

use meso_core::agent::record::Record;
use meso_core::seed::Seed;
use meso_core::wal;

/// A log is rewritten as a snapshot when it has grown by this, bytes.
const COMPACT_BYTES: usize = 48 * 1024;

/// One log file.
#[derive(Clone, Debug, Default)]
pub struct SimDisk {
    synced: Vec<u8>,
    unsynced: Vec<u8>,
    compact_at: usize,
    /// How much more it takes, bytes, while it is full.
    room: Option<usize>,
    fails_once: bool,
}

/// What a start found.
#[derive(Debug)]
pub struct Found {
    /// The records in order.
    pub records: Vec<Record>,
    /// Whether a torn tail was cut.
    pub torn: bool,
    /// Whether that ended in zeroes: room that the file had been given, and nothing was written there.
    pub zeroed: bool,
}

impl SimDisk {
    /// Appends records as one group; they are not safe yet.
    pub fn append(&mut self, records: &[Record]) {
        let texts: Vec<Vec<u8>> = records.iter().map(|record| serde_json::to_vec(record).expect("a record is JSON")).collect();
        let bodies: Vec<&[u8]> = texts.iter().map(Vec::as_slice).collect();
        self.unsynced.extend(wal::encode_group(&bodies));
    }

    /// What was appended is safe from here on.
    pub fn sync(&mut self) {
        self.synced.append(&mut self.unsynced);
    }

    /// Writes a group down for good, or does not: then it is left behind torn, or whole and not synced.
    pub fn put(&mut self, records: &[Record], syncs: bool) -> bool {
        let before = self.unsynced.len();
        self.append(records);
        let bytes = self.unsynced.len() - before;
        let fits = self.room.is_none_or(|left| bytes <= left);
        if std::mem::take(&mut self.fails_once) || !fits {
            if !fits {
                let left = self.room.unwrap_or(bytes);
                self.unsynced.truncate(before + left);
            }
            return false;
        }
        self.room = self.room.map(|left| left - bytes);
        if syncs {
            self.sync();
        }
        true
    }

    /// Begins the log anew where what is in it cannot be relied on; false if there is no room for another one beside it.
    pub fn renew(&mut self, records: &[Record]) -> bool {
        let mut anew = SimDisk::default();
        anew.rewrite(records);
        let bytes = anew.synced.len();
        if self.room.is_some_and(|left| bytes > left) {
            return false;
        }
        *self = SimDisk { room: self.room.map(|left| left - bytes), ..anew };
        true
    }

    /// The next write fails.
    pub fn fail_once(&mut self) {
        self.fails_once = true;
    }

    /// It takes so many bytes more, and then nothing.
    pub fn fill(&mut self, left: usize) {
        self.room = Some(left);
    }

    /// It takes whatever there is.
    pub fn free(&mut self) {
        self.room = None;
    }

    /// Whether it is full, but for what is kept for the log.
    pub fn is_full(&self) -> bool {
        self.room.is_some()
    }

    /// Whether the log is long enough to be rewritten.
    pub fn is_long(&self) -> bool {
        self.synced.len() > self.compact_at + COMPACT_BYTES
    }

    /// Replaces the log, atomically and durably, as a rename after a sync does.
    pub fn rewrite(&mut self, records: &[Record]) {
        self.synced.clear();
        self.unsynced.clear();
        for record in records {
            self.append(std::slice::from_ref(record));
        }
        self.sync();
        self.compact_at = self.synced.len();
    }

    /// The power goes or the process dies: of the unsynced tail any part may be there, whole, torn or as zeroes.
    pub fn crash(&mut self, seed: &mut Seed) {
        let tail = std::mem::take(&mut self.unsynced);
        let kept = seed.below(tail.len() as u64 + 1) as usize;
        self.synced.extend_from_slice(&tail[..kept]);
        if seed.below(4) == 0 {
            self.synced.resize(self.synced.len() + (tail.len() - kept), 0);
        }
    }

    /// Reads the log as an agent does when it starts, and cuts a torn tail.
    ///
    /// # Errors
    /// What an agent refuses to start with: a damaged middle, or a record it cannot read.
    pub fn recover(&mut self) -> Result<Found, String> {
        self.unsynced.clear();
        let (texts, good_len, torn) = {
            let found = wal::recover(&self.synced).map_err(|error| error.to_string())?;
            let texts: Result<Vec<Record>, _> = found.records.iter().map(|text| serde_json::from_slice(text)).collect();
            (texts.map_err(|error| error.to_string())?, found.good_len, found.torn)
        };
        let zeroed = torn && self.synced.last() == Some(&0);
        self.synced.truncate(good_len);
        Ok(Found { records: texts, torn, zeroed })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Shows that what was synced survives every crash, that the rest survives as a prefix, and that a torn tail is met.
    #[test]
    fn synced_records_survive() {
        let mut seed = Seed::new([3, 4]);
        let mut torn = 0;
        for _ in 0..200 {
            let mut disk = SimDisk::default();
            let epochs: Vec<Record> = (1..=6).map(|epoch| Record::Epoch { epoch, timeout_ms: None }).collect();
            disk.append(&epochs[..2]);
            disk.append(&epochs[2..3]);
            disk.sync();
            disk.append(&epochs[3..5]);
            disk.append(&epochs[5..]);
            disk.crash(&mut seed);
            let found = disk.recover().expect("a cut tail is no damage");
            assert!(found.records.len() >= 3 && epochs.starts_with(&found.records));
            torn += u32::from(found.torn);
            assert!(!disk.recover().expect("it was cut").torn);
        }
        assert!(torn > 50);
    }

    /// Shows that a full disk takes what it has room for and tears the rest, that a log begun anew needs room beside the
    /// old one, and that what was taken before is there in the end.
    #[test]
    fn a_full_disk() {
        let epoch = |epoch| [Record::Epoch { epoch, timeout_ms: None }];
        let mut disk = SimDisk::default();
        assert!(disk.put(&epoch(1), true));
        disk.fill(disk.synced.len());
        assert!(disk.put(&epoch(2), true));
        assert!(!disk.put(&epoch(3), true) && !disk.renew(&epoch(3)));
        assert_eq!(disk.recover().expect("no damage").records, [epoch(1), epoch(2)].concat());
        disk.free();
        disk.fail_once();
        assert!(!disk.put(&epoch(3), true) && disk.renew(&epoch(3)) && disk.put(&epoch(4), true));
        assert_eq!(disk.recover().expect("no damage").records, [epoch(3), epoch(4)].concat());
    }
}
