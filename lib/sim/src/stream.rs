//! The stream of statuses: stored once each, in one order for all readers, unless its end is lost.

use std::collections::HashMap;
use std::rc::Rc;

use meso_core::id::{FrameworkId, TaskId};
use meso_core::offerer::Place;
use meso_core::wire::Update;

/// Within this time a status sent again is recognised by its message id, milliseconds.
const DUPLICATE_WINDOW_MS: u64 = 120_000;
/// How far back a reader begins that finds the stream to be another one than it read, milliseconds.
const OVERLAP_MS: u64 = 10_000;

/// The stored statuses, framework by framework.
#[derive(Debug, Default)]
pub struct SimStream {
    frameworks: HashMap<FrameworkId, Kept>,
    ids: HashMap<(TaskId, u64), u64>,
    stored: u64,
}

/// What is stored of a framework.
#[derive(Debug, Default)]
struct Kept {
    updates: Vec<Rc<Update>>,
    marks: Vec<Mark>,
}

/// By what a stored status is told from another in its place: its number among all that were ever stored, and its time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mark {
    number: u64,
    at_ms: u64,
}

/// How much of it was on the disk at some moment.
#[derive(Clone, Copy, Debug)]
pub struct Upto(u64);

impl SimStream {
    /// Stores a status of an agent; false if it was recognised as stored already.
    pub fn store(&mut self, update: &Rc<Update>, now_ms: u64) -> bool {
        if update.agent_seq > 0 {
            let id = (update.task.clone(), update.seq);
            if self.ids.get(&id).is_some_and(|at_ms| at_ms + DUPLICATE_WINDOW_MS > now_ms) {
                return false;
            }
            self.ids.insert(id, now_ms);
        }
        self.stored += 1;
        let kept = self.frameworks.entry(update.framework.clone()).or_default();
        kept.updates.push(Rc::clone(update));
        kept.marks.push(Mark { number: self.stored, at_ms: now_ms });
        true
    }

    /// What is stored of a framework from this place on.
    pub fn after(&self, framework: &FrameworkId, place: usize) -> &[Rc<Update>] {
        self.frameworks.get(framework).and_then(|kept| kept.updates.get(place..)).unwrap_or_default()
    }

    /// The end of a task, by the word of its agent.
    pub fn end_of(&self, framework: &FrameworkId, task: &TaskId) -> Option<&Rc<Update>> {
        self.after(framework, 0).iter().find(|update| update.task == *task && update.is_final && update.agent_seq > 0)
    }

    /// The mark of the last status before this place.
    pub fn mark(&self, framework: &FrameworkId, place: usize) -> Option<Mark> {
        self.frameworks.get(framework)?.marks.get(place.checked_sub(1)?).copied()
    }

    /// Where a reader goes on that has read up to this place, the last with this mark: elsewhere if the stream lost that.
    pub fn resume(&self, framework: &FrameworkId, place: usize, last: Option<Mark>) -> usize {
        let Some(last) = last else { return if self.after(framework, 0).len() < place { 0 } else { place } };
        if self.mark(framework, place) == Some(last) {
            return place;
        }
        self.since(framework, last.at_ms)
    }

    /// Where a reader begins that was told by another up to which place all was seen: elsewhere if something else stands there
    /// by now.
    pub fn begin(&self, framework: &FrameworkId, after: Place) -> usize {
        let place = after.seq as usize;
        if after.recorded_ms == 0 || self.stands(framework, after) { self.resume(framework, place, None) } else { self.since(framework, after.recorded_ms) }
    }

    /// Whether what was read in a place stands there still.
    pub fn stands(&self, framework: &FrameworkId, place: Place) -> bool {
        self.mark(framework, place.seq as usize).map_or(0, |mark| mark.at_ms) == place.recorded_ms
    }

    /// A place as a reader is told it.
    pub fn place(&self, framework: &FrameworkId, seq: usize) -> Place {
        Place { seq: seq as u64, recorded_ms: self.mark(framework, seq).map_or(0, |mark| mark.at_ms) }
    }

    /// What was recorded a little before this moment, and since.
    fn since(&self, framework: &FrameworkId, at_ms: u64) -> usize {
        self.frameworks.get(framework).map_or(0, |kept| kept.marks.partition_point(|mark| mark.at_ms + OVERLAP_MS < at_ms))
    }

    /// All that is stored by now.
    pub fn upto(&self) -> Upto {
        Upto(self.stored)
    }

    /// The power of the store goes: what was not on the disk is lost, and its places are given anew. Says of which
    /// frameworks how much is left, and what is lost.
    pub fn revert(&mut self, upto: Upto) -> Vec<(FrameworkId, usize, Vec<Rc<Update>>)> {
        let mut cut = Vec::new();
        for (framework, kept) in &mut self.frameworks {
            let left = kept.marks.partition_point(|mark| mark.number <= upto.0);
            if left < kept.marks.len() {
                kept.marks.truncate(left);
                let lost = kept.updates.split_off(left);
                for update in &lost {
                    self.ids.remove(&(update.task.clone(), update.seq));
                }
                cut.push((framework.clone(), left, lost));
            }
        }
        cut.sort_by(|(one, ..), (other, ..)| one.cmp(other));
        cut
    }
}
