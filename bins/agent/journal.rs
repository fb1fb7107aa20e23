//! The agent's log on disk: appended in groups, fsynced before anything is shown, rewritten when it has grown.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use meso_cli::Failure;
use meso_core::agent::record::{RECORD_VERSION, Record};
use meso_core::id::AgentId;
use meso_core::wal;

/// The log's name in the work directory.
const NAME: &str = "journal";
/// The log is rewritten when it is larger than this, bytes.
const REWRITE_BYTES: u64 = 16 << 20;
/// A frame is closed when it is this large, bytes; one record more always fits.
const FRAME_BYTES: usize = wal::BODY_BYTES_MAX / 2;

/// What a log held when the agent started.
pub struct Found {
    /// Whose log it is.
    pub agent: AgentId,
    /// How often it was started.
    pub generation: u64,
    /// The facts, oldest first.
    pub records: Vec<Record>,
    /// Bytes that a crash left half written; they were never seen by anybody.
    pub torn_bytes: u64,
}

/// The open log.
pub struct Journal {
    path: PathBuf,
    file: File,
    bytes: u64,
}

impl Journal {
    /// Reads the log of a work directory; none if it is new.
    ///
    /// # Errors
    /// A log that is damaged before its end, of another release, or no log of ours: 78, naming file, place and reason.
    pub fn read(work_dir: &Path) -> Result<Option<Found>, Failure> {
        let path = work_dir.join(NAME);
        let bytes = match fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(Failure::config(format!("cannot read {}: {}", path.display(), meso_cli::io_text(&error)))),
        };
        let damaged = |offset: usize, why: String| {
            Failure::config(format!("{} is damaged at byte {offset}: {why}", path.display()))
                .hint("keep the directory for a look, and start the agent with a new --work-dir; running tasks of this one are not adopted then")
        };
        let recovered = wal::recover(&bytes).map_err(|error| damaged(error.offset, error.why.to_string()))?;
        let mut records = Vec::with_capacity(recovered.records.len());
        for text in &recovered.records {
            let record: Record = serde_json::from_slice(text).map_err(|error| damaged(0, format!("a record is not one of ours: {error}")))?;
            records.push(record);
        }
        let torn_bytes = (bytes.len() - recovered.good_len) as u64;
        match records.first().cloned() {
            Some(Record::Head { v, agent, generation, .. }) => {
                if v > RECORD_VERSION {
                    return Err(Failure::config(format!("{} was written by a newer release (format {v}, this one reads {RECORD_VERSION})", path.display()))
                        .hint("start the newer meso-agent on it"));
                }
                Ok(Some(Found { agent, generation, records, torn_bytes }))
            }
            // Nothing but a torn first record: the agent never got so far as to be known to anybody.
            None => Ok(None),
            Some(_) => Err(damaged(0, "it does not begin with its head".to_owned())),
        }
    }

    /// Writes a new log that begins with these records, in place of the one there is.
    pub fn begin(work_dir: &Path, records: &[Record]) -> io::Result<Journal> {
        let path = work_dir.join(NAME);
        let new = work_dir.join("journal.new");
        let bytes = group(records);
        let mut file = OpenOptions::new().write(true).create(true).truncate(true).open(&new)?;
        file.write_all(&bytes)?;
        file.sync_all()?;
        fs::rename(&new, &path)?;
        File::open(work_dir)?.sync_all()?;
        Ok(Journal { path, file, bytes: bytes.len() as u64 })
    }

    /// Appends the records and waits until they are on the disk.
    pub fn append(&mut self, records: &[Record]) -> io::Result<()> {
        let bytes = group(records);
        self.file.write_all(&bytes)?;
        self.file.sync_data()?;
        self.bytes += bytes.len() as u64;
        Ok(())
    }

    /// Whether it has grown so much that it should be begun anew.
    pub fn is_long(&self) -> bool {
        self.bytes > REWRITE_BYTES
    }

    /// Where it is, for messages.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

/// One frame for the group: after a crash all of it is there or nothing. A group too large for a frame takes several.
fn group(records: &[Record]) -> Vec<u8> {
    let texts: Vec<Vec<u8>> = records.iter().map(|record| serde_json::to_vec(record).expect("a record is plain data")).collect();
    let mut bytes = Vec::new();
    let mut frame: Vec<&[u8]> = Vec::new();
    let mut length = 0;
    for text in &texts {
        if length + text.len() > FRAME_BYTES && !frame.is_empty() {
            bytes.extend_from_slice(&wal::encode_group(&frame));
            frame.clear();
            length = 0;
        }
        length += text.len() + 1;
        frame.push(text);
    }
    bytes.extend_from_slice(&wal::encode_group(&frame));
    bytes
}
