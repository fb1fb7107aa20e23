//! Whether the disk takes what tasks need: looked at all the time, so that nothing is launched that it would not take.

use std::cell::RefCell;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use meso_cage::machine::{self, Room};
use meso_cli::{complain, io_text};
use meso_core::agent::Event;
use tokio::sync::mpsc;
use tokio::time::{Duration, sleep};

use crate::journal;
use crate::retained::Retained;

/// How often it is looked at. Less often than a thread without work is kept, so that there always is one to do it.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// With less than this free nothing is launched, bytes.
const FREE_BYTES_MIN: u64 = 1 << 20;
/// With so much free it is well again, bytes.
const FREE_BYTES_WELL: u64 = 2 << 20;

/// The disk of the work directory.
pub struct Disk {
    work_dir: PathBuf,
    /// What is wrong with it.
    fault: RefCell<Option<String>>,
    events: mpsc::Sender<Event>,
}

impl Disk {
    /// Well until something else is seen.
    pub fn new(work_dir: PathBuf, events: mpsc::Sender<Event>) -> Rc<Self> {
        Rc::new(Disk { work_dir, fault: RefCell::default(), events })
    }

    /// Something could not be written: nothing is launched until it can.
    pub fn fails(&self, error: &std::io::Error) {
        self.tell(Some(format!("its disk does not take more: {}", io_text(error))));
    }

    /// Looks at it for ever, and has what is kept of ended tasks removed as it fills.
    pub async fn watch(self: Rc<Self>, retained: Rc<Retained>) {
        loop {
            let (work_dir, is_faulty) = (self.work_dir.clone(), self.fault.borrow().is_some());
            let looked = tokio::task::spawn_blocking(move || look(&work_dir, is_faulty)).await;
            let (room, fault) = match looked {
                Ok(looked) => looked,
                Err(error) => (None, Some(format!("its disk cannot be looked at: {error}"))),
            };
            retained.collect(room, fault.is_some());
            self.tell(fault);
            sleep(LOOK_EVERY).await;
        }
    }

    fn tell(&self, fault: Option<String>) {
        if self.fault.borrow().is_some() == fault.is_some() {
            return;
        }
        // Where the machine is too busy to hear it, the next look says it.
        if self.events.try_send(Event::Disk { fault: fault.clone() }).is_ok() {
            match &fault {
                Some(fault) => complain(&format!("takes no tasks for now: {fault}; what runs goes on")),
                None => complain("takes tasks again: there is room on the disk"),
            }
            *self.fault.borrow_mut() = fault;
        }
    }
}

/// What the file system says of itself, and, where something was wrong, whether it takes something now.
fn look(work_dir: &Path, is_faulty: bool) -> (Option<Room>, Option<String>) {
    let room = match machine::room(work_dir) {
        Ok(room) => room,
        Err(error) => return (None, Some(format!("its disk cannot be looked at: {}", io_text(&error)))),
    };
    let least = if is_faulty { FREE_BYTES_WELL } else { FREE_BYTES_MIN };
    let fault = if room.is_read_only {
        Some("its disk is mounted read-only".to_owned())
    } else if room.free_bytes < least {
        Some(format!("its disk is full: {} KiB are free", room.free_bytes >> 10))
    } else if room.free_files == Some(0) {
        Some("its disk is full: no more files can be made".to_owned())
    } else if is_faulty {
        journal::has_room(work_dir).err().map(|error| format!("its disk does not take more: {}", io_text(&error)))
    } else {
        None
    };
    (Some(room), fault)
}
