//! Keeps what the machine must not forget, on a disk that may fail.

use std::rc::Rc;

use meso_cli::{Failure, complain, io_text};
use meso_core::agent::{Agent, Effect};

use crate::disk::Disk;
use crate::journal::Journal;

/// What is said to do where the log cannot be written at all.
const MEND: &str = "free some space or mend the disk, and start the agent again: running tasks go on meanwhile";

/// The log, and what is known of its disk.
pub struct Keeper {
    journal: Option<Journal>,
    disk: Rc<Disk>,
}

impl Keeper {
    /// Over an open log.
    pub fn new(journal: Journal, disk: Rc<Disk>) -> Self {
        let keeper = Keeper { journal: Some(journal), disk };
        keeper.note_shortage();
        keeper
    }

    /// One write and one fsync for all facts of the batch, off the runtime's thread.
    ///
    /// # Errors
    /// 74: neither the log nor a new one could be written, and nothing of the batch may be shown.
    pub async fn persist(&mut self, machine: &Agent, effects: &[Effect]) -> Result<(), Failure> {
        let records: Vec<_> = effects.iter().filter_map(|effect| if let Effect::Persist(record) = effect { Some(record.clone()) } else { None }).collect();
        if records.is_empty() {
            return Ok(());
        }
        // A long log is begun anew from what the machine knows now, which includes this batch.
        let anew = self.journal.as_ref().filter(|journal| journal.is_long()).map(|_| machine.snapshot());
        let written = self.with_journal(move |journal| match anew {
            Some(all) => match journal.renew(&all) {
                // Only that there is no room for another one: it goes on in the one there is.
                Err(_) if !journal.is_spoiled() => journal.append(&records),
                renewed => renewed,
            },
            None => journal.append(&records),
        });
        if let Err(error) = written.await? {
            complain(&format!("cannot write {}: {}; it is begun anew", self.path(), io_text(&error)));
            let all = machine.snapshot();
            if let Err(error) = self.with_journal(move |journal| journal.renew(&all)).await? {
                return Err(Failure::storage(format!("cannot write {}: {}", self.path(), io_text(&error))).hint(MEND));
            }
        }
        self.note_shortage();
        Ok(())
    }

    async fn with_journal(&mut self, work: impl FnOnce(&mut Journal) -> std::io::Result<()> + Send + 'static) -> Result<std::io::Result<()>, Failure> {
        let mut journal = self.journal.take().expect("the journal is put back after each use");
        let done = tokio::task::spawn_blocking(move || {
            let outcome = work(&mut journal);
            (journal, outcome)
        });
        let (journal, outcome) = done.await.map_err(|error| Failure::internal(format!("writing the log failed: {error}")))?;
        self.journal = Some(journal);
        Ok(outcome)
    }

    fn note_shortage(&self) {
        if let Some(error) = self.journal.as_ref().and_then(Journal::shortage) {
            self.disk.fails(error);
        }
    }

    fn path(&self) -> String {
        self.journal.as_ref().map_or_else(String::new, |journal| journal.path().display().to_string())
    }
}
