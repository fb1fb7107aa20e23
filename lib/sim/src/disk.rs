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
}

/// What a start found.
#[derive(Debug)]
pub struct Found {
    /// The records in order.
    pub records: Vec<Record>,
    /// Whether a torn tail was cut.
    pub torn: bool,
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
        let (texts, good_len, torn) = {
            let found = wal::recover(&self.synced).map_err(|error| error.to_string())?;
            let texts: Result<Vec<Record>, _> = found.records.iter().map(|text| serde_json::from_slice(text)).collect();
            (texts.map_err(|error| error.to_string())?, found.good_len, found.torn)
        };
        self.synced.truncate(good_len);
        Ok(Found { records: texts, torn })
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
}
