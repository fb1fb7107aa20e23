//! The agent's log on disk: appended in groups, fsynced before anything is shown, rewritten when it has grown.
//!
//! Room for more is kept behind its end. When the disk is full, the ends of what runs are still written there.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use meso_cage::machine;
use meso_cli::{Failure, io_text};
use meso_core::agent::record::{RECORD_VERSION, Record};
use meso_core::id::AgentId;
use meso_core::wal;

/// The log's name in the work directory.
const NAME: &str = "journal";
/// Holds a log that is being begun anew.
const NEW_NAME: &str = "journal.new";
/// Made and removed to see whether there is room.
const PROBE_NAME: &str = "journal.room";
/// Links in the work directory are not ours.
const NO_FOLLOW: i32 = machine::NO_FOLLOW;
/// The log is rewritten when it is larger than this, bytes.
const REWRITE_BYTES: u64 = 16 << 20;
/// A frame is closed when it is this large, bytes; one record more always fits.
const FRAME_BYTES: usize = wal::BODY_BYTES_MAX / 2;
/// How much room is kept behind the log's end, bytes: statuses of about a thousand tasks.
const RESERVE_BYTES: u64 = 1 << 20;
/// How much room is asked for beyond that, bytes, so that it is not asked for with each record.
const RESERVE_STEP_BYTES: u64 = 1 << 20;

/// What a log held when the agent started.
pub struct Found {
    /// Whose log it is.
    pub agent: AgentId,
    /// How often it was started.
    pub generation: u64,
    /// The facts, oldest first.
    pub records: Vec<Record>,
    /// Bytes of whole frames.
    pub good_bytes: u64,
    /// Bytes that a crash left half written; they were never seen by anybody.
    pub torn_bytes: u64,
}

/// The open log.
pub struct Journal {
    work_dir: PathBuf,
    path: PathBuf,
    file: File,
    bytes: u64,
    /// Up to where the file system keeps room.
    kept_bytes: u64,
    /// Why no more room can be kept.
    shortage: Option<io::Error>,
    /// What of it is on the disk is not known.
    is_spoiled: bool,
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
            Err(error) => return Err(Failure::config(format!("cannot read {}: {}", path.display(), io_text(&error)))),
        };
        let damaged = |offset: usize, why: String| {
            Failure::config(format!("{} is damaged at byte {offset}: {why}", path.display()))
                .hint("keep the directory for a look, and start the agent with a new --work-dir; running tasks of this one are not adopted then")
        };
        let recovered = wal::recover(&bytes).map_err(|error| damaged(error.offset, error.why.to_string()))?;
        let Some(first) = recovered.records.first() else {
            // Nothing but a torn first record: the agent never got so far as to be known to anybody.
            return Ok(None);
        };
        // Before anything else is made of it: a newer release may write records that are not known here.
        if let Some(v) = version_of(first).filter(|v| *v > u64::from(RECORD_VERSION)) {
            return Err(Failure::config(format!("{} was written by a newer release (format {v}, this one reads {RECORD_VERSION})", path.display()))
                .hint("start the newer meso-agent on it"));
        }
        let mut records = Vec::with_capacity(recovered.records.len());
        for text in &recovered.records {
            // A record is a part of the log's bytes, so that this is its place there.
            let offset = text.as_ptr().addr() - bytes.as_ptr().addr();
            let record: Record = serde_json::from_slice(text).map_err(|error| damaged(offset, format!("a record is not one of ours: {error}")))?;
            records.push(record);
        }
        let Some(Record::Head { agent, .. }) = records.first() else { return Err(damaged(0, "it does not begin with its head".to_owned())) };
        // An agent that found no room for a new log went on in the one it had, with a head of its own.
        let starts = records.iter().filter_map(|record| if let Record::Head { generation, .. } = record { Some(*generation) } else { None });
        let (agent, generation) = (agent.clone(), starts.max().unwrap_or(0));
        Ok(Some(Found { agent, generation, records, good_bytes: recovered.good_len as u64, torn_bytes: (bytes.len() - recovered.good_len) as u64 }))
    }

    /// Writes a new log that begins with these records, in place of the one there is.
    ///
    /// Where there is no room for it, and `before` bytes of the old one are whole, it goes on in that with the first of
    /// the records, which is the head.
    pub fn begin(work_dir: &Path, records: &[Record], before: Option<u64>) -> io::Result<Journal> {
        let path = work_dir.join(NAME);
        let (file, bytes) = match (write_new(work_dir, records), before) {
            (Err(_), Some(before)) => return Journal::resume(work_dir, before, &records[..1]),
            (written, _) => written?,
        };
        put_in_place(work_dir)?;
        let mut journal = Journal { work_dir: work_dir.to_owned(), path, file, bytes, kept_bytes: 0, shortage: None, is_spoiled: false };
        journal.keep_room(0);
        Ok(journal)
    }

    fn resume(work_dir: &Path, good_bytes: u64, head: &[Record]) -> io::Result<Journal> {
        let path = work_dir.join(NAME);
        let mut file = OpenOptions::new().write(true).custom_flags(NO_FOLLOW).open(&path)?;
        // Cutting also gives up the room behind the end.
        if file.metadata()?.len() > good_bytes {
            file.set_len(good_bytes)?;
        }
        file.seek(SeekFrom::Start(good_bytes))?;
        let mut journal = Journal { work_dir: work_dir.to_owned(), path, file, bytes: good_bytes, kept_bytes: 0, shortage: None, is_spoiled: false };
        journal.append(head)?;
        Ok(journal)
    }

    /// Appends the records and waits until they are on the disk.
    ///
    /// # Errors
    /// It is spoiled: what the kernel could not write once it may never write, and says so only once.
    pub fn append(&mut self, records: &[Record]) -> io::Result<()> {
        let bytes = group(records);
        self.keep_room(bytes.len() as u64);
        let written = self.file.write_all(&bytes).and_then(|()| self.file.sync_data());
        self.is_spoiled |= written.is_err();
        self.bytes += bytes.len() as u64;
        written
    }

    /// Begins it anew with these records.
    ///
    /// # Errors
    /// The old one is as it was, unless it is spoiled.
    pub fn renew(&mut self, records: &[Record]) -> io::Result<()> {
        let (file, bytes) = write_new(&self.work_dir, records)?;
        let placed = put_in_place(&self.work_dir);
        self.is_spoiled = placed.is_err();
        placed?;
        // The old one goes with its descriptor, and its room is free for the new one.
        (self.file, self.bytes, self.kept_bytes) = (file, bytes, 0);
        self.keep_room(0);
        Ok(())
    }

    /// Whether nothing may be appended to it any more: what of it is on the disk is not known.
    pub fn is_spoiled(&self) -> bool {
        self.is_spoiled
    }

    /// Whether it has grown so much that it should be begun anew.
    pub fn is_long(&self) -> bool {
        self.bytes > REWRITE_BYTES
    }

    /// Why there is no more room to be kept behind its end, if there is none: what is kept already is for what runs.
    pub fn shortage(&self) -> Option<&io::Error> {
        self.shortage.as_ref()
    }

    /// Where it is, for messages.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Has the file system keep room behind so many bytes more.
    fn keep_room(&mut self, more_bytes: u64) {
        let wanted = self.bytes + more_bytes + RESERVE_BYTES;
        if self.kept_bytes >= wanted {
            return;
        }
        let kept = [wanted + RESERVE_STEP_BYTES, wanted].into_iter().map(|upto| machine::keep_room(&self.file, self.bytes, upto - self.bytes).map(|()| upto));
        let mut outcome = Ok(self.kept_bytes);
        for kept in kept {
            outcome = kept;
            if outcome.is_ok() {
                break;
            }
        }
        match outcome {
            Ok(upto) => (self.kept_bytes, self.shortage) = (upto, None),
            Err(error) => self.shortage = Some(error),
        }
    }
}

/// Whether room for another log of the smallest size could be had now.
pub fn has_room(work_dir: &Path) -> io::Result<()> {
    let path = work_dir.join(PROBE_NAME);
    let file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).custom_flags(NO_FOLLOW).open(&path)?;
    let outcome = machine::keep_room(&file, 0, RESERVE_BYTES);
    let _ = fs::remove_file(&path);
    outcome
}

/// Writes a log beside the one there is, and waits until it is on the disk.
fn write_new(work_dir: &Path, records: &[Record]) -> io::Result<(File, u64)> {
    let new = work_dir.join(NEW_NAME);
    let bytes = group(records);
    let write = || {
        let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).custom_flags(NO_FOLLOW).open(&new)?;
        file.write_all(&bytes)?;
        file.sync_all()?;
        Ok((file, bytes.len() as u64))
    };
    write().inspect_err(|_| {
        // What is left of it would only take the room that is missing.
        let _ = fs::remove_file(&new);
    })
}

/// Puts the new log in place of the old one, for good.
fn put_in_place(work_dir: &Path) -> io::Result<()> {
    fs::rename(work_dir.join(NEW_NAME), work_dir.join(NAME))?;
    File::open(work_dir)?.sync_all()
}

/// The version that the first record of a log says.
fn version_of(head: &[u8]) -> Option<u64> {
    serde_json::from_slice::<serde_json::Value>(head).ok()?.get("v")?.as_u64()
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
