//! The statuses of a framework's tasks on their way to its reader: in order per task, again until acknowledged.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use crate::id::TaskId;
use crate::task::TaskState;
use crate::wire::Update;
use crate::wire::ack::AckId;

/// How long a status that was read waits for its acknowledgement before it is written again, milliseconds; doubles up to [`AGAIN_MS_MAX`].
pub const AGAIN_MS: u64 = 10_000;
/// See [`AGAIN_MS`].
pub const AGAIN_MS_MAX: u64 = 600_000;
/// How many statuses are kept without an acknowledgement. Beyond it, of a task only the last word is kept.
pub const UPDATES_MAX: usize = 10_000;
/// How many ended tasks are remembered, so that what comes twice is noticed.
pub const ENDED_MAX: usize = 4_096;

/// A place in the record.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Place {
    /// Its number; 0 before the first.
    pub seq: u64,
    /// When what stands there was recorded, milliseconds since 1970: a record that lost its end gives the number to another.
    pub recorded_ms: u64,
}

/// A status that nobody has acknowledged.
#[derive(Clone, Debug)]
struct Pending {
    update: Update,
    /// Its place in the record; 0 if it did not come from there.
    stream_seq: u64,
    /// How often it was written.
    written: u32,
    /// Where its line ends, while it is not known to be read.
    end: Option<u64>,
    due_ms: Option<u64>,
    wait_ms: u64,
    /// The number of its arrival.
    no: u64,
}

/// A task of the framework.
#[derive(Clone, Debug, Default)]
struct Known {
    /// The number and state of the last status that was taken in.
    last: Option<(u64, TaskState)>,
    is_final: bool,
    pending: VecDeque<Pending>,
}

/// What is on its way.
#[derive(Clone, Debug)]
pub struct Statuses {
    manual: bool,
    tasks: BTreeMap<TaskId, Known>,
    /// Tasks whose first pending status is to be written now.
    ready: VecDeque<TaskId>,
    /// Written and not known to be read.
    unread: VecDeque<(u64, TaskId)>,
    /// Read, and to be written again at a time.
    again: BTreeSet<(u64, TaskId)>,
    /// Whose the pending ones are, in the order of their arrival.
    arrived: BTreeMap<u64, TaskId>,
    arrivals: u64,
    /// Tasks with more than one of them.
    wordy: BTreeSet<TaskId>,
    /// Places in the record that are not acknowledged, each with the one before it.
    open: BTreeMap<u64, Place>,
    heard: Place,
    /// The place before that.
    before: Place,
    ended: VecDeque<TaskId>,
    dropped: u64,
}

impl Statuses {
    /// None yet; `manual` if somebody acknowledges each, else its being read is enough.
    pub fn new(manual: bool) -> Self {
        Statuses {
            manual,
            tasks: BTreeMap::new(),
            ready: VecDeque::new(),
            unread: VecDeque::new(),
            again: BTreeSet::new(),
            arrived: BTreeMap::new(),
            arrivals: 0,
            wordy: BTreeSet::new(),
            open: BTreeMap::new(),
            heard: Place::default(),
            before: Place::default(),
            ended: VecDeque::new(),
            dropped: 0,
        }
    }

    /// Takes a status in; says nothing new if it is known. `stream_seq` is its place in the record, 0 if it came otherwise.
    pub fn hear(&mut self, update: Update, stream_seq: u64) {
        let task = update.task.clone();
        let known = self.tasks.entry(task.clone()).or_default();
        let by_master = update.agent_seq == 0;
        let is_news = match known.last {
            None => true,
            Some((seq, state)) => !known.is_final && (update.seq > seq || (by_master && update.seq == seq && update.state != state)),
        };
        // An agent that is back says its own last word again: what the master laid over it is over.
        let is_back = matches!(known.last, Some((seq, TaskState::Unreachable)) if !by_master && update.seq == seq);
        if !is_news && !is_back {
            // Its place may be another than before, where the record lost its end.
            if let Some(pending) = known.pending.iter_mut().find(|pending| stream_seq > 0 && pending.stream_seq == 0 && pending.update.seq == update.seq) {
                pending.stream_seq = stream_seq;
                self.open.insert(stream_seq, self.before);
            }
            return;
        }
        known.last = Some((update.seq, update.state));
        known.is_final |= update.is_final;
        known.pending.push_back(Pending { update, stream_seq, written: 0, end: None, due_ms: None, wait_ms: AGAIN_MS, no: self.arrivals });
        if known.pending.len() == 1 {
            self.ready.push_back(task.clone());
        } else {
            self.wordy.insert(task.clone());
        }
        if stream_seq > 0 {
            self.open.insert(stream_seq, self.before);
        }
        self.arrived.insert(self.arrivals, task);
        self.arrivals += 1;
        if self.arrived.len() > UPDATES_MAX {
            self.thin_out();
        }
    }

    /// The next status to write, and whether it was written before.
    pub fn next(&self) -> Option<(&Update, bool)> {
        let pending = self.ready.front().and_then(|task| self.tasks.get(task)).and_then(|known| known.pending.front())?;
        Some((&pending.update, pending.written > 0))
    }

    /// The line of a task's first status was written, and ends at this byte.
    pub fn wrote(&mut self, task: &TaskId, end: u64) {
        self.unready(task);
        if let Some(first) = self.tasks.get_mut(task).and_then(|known| known.pending.front_mut()) {
            first.written = first.written.saturating_add(1);
            first.end = Some(end);
            self.unread.push_back((end, task.clone()));
        }
    }

    /// So many bytes were read: what lies before is acknowledged, or waits for it from now on.
    pub fn consumed(&mut self, now_ms: u64, consumed: u64) {
        while let Some((end, task)) = self.unread.front().cloned() {
            if end > consumed {
                return;
            }
            self.unread.pop_front();
            let Some(first) = self.tasks.get_mut(&task).and_then(|known| known.pending.front_mut()).filter(|first| first.end == Some(end)) else { continue };
            if self.manual {
                first.end = None;
                let due_ms = now_ms + first.wait_ms;
                first.due_ms = Some(due_ms);
                first.wait_ms = (first.wait_ms * 2).min(AGAIN_MS_MAX);
                self.again.insert((due_ms, task));
            } else {
                self.pop(&task);
            }
        }
    }

    /// Whatever was written and not acknowledged is to be written again, for a reader that has seen none of it.
    pub fn tell_again(&mut self) {
        self.unread.clear();
        self.again.clear();
        for (task, known) in &mut self.tasks {
            let Some(first) = known.pending.front_mut() else { continue };
            if first.end.take().is_some() | first.due_ms.take().is_some() {
                first.wait_ms = AGAIN_MS;
                self.ready.push_back(task.clone());
            }
        }
    }

    /// Somebody acknowledged a status; nothing happens if it is none that waits.
    pub fn acked(&mut self, ack: &AckId) {
        while self.tasks.get(&ack.task).and_then(|known| known.pending.front()).is_some_and(|first| first.written > 0 && first.update.seq <= ack.seq) {
            self.pop(&ack.task);
        }
    }

    /// Lines up what has waited long enough to be written again.
    pub fn due(&mut self, now_ms: u64) {
        while let Some((due_ms, task)) = self.again.first().cloned() {
            if due_ms > now_ms {
                return;
            }
            self.again.remove(&(due_ms, task.clone()));
            if let Some(first) = self.tasks.get_mut(&task).and_then(|known| known.pending.front_mut()) {
                first.due_ms = None;
                self.ready.push_back(task);
            }
        }
    }

    /// When [`Statuses::due`] has something to do.
    pub fn deadline(&self) -> Option<u64> {
        self.again.first().map(|(due_ms, _)| *due_ms)
    }

    /// Up to where in the record all statuses are acknowledged; before the first if none is.
    pub fn seen(&self) -> Place {
        self.open.first_key_value().map_or(self.heard, |(_, before)| *before)
    }

    /// The record is read up to here. Where it goes back it has lost its end, and gives the places from this one on anew.
    pub fn passed(&mut self, place: Place) {
        if place.seq == 0 {
            return;
        }
        self.before = self.heard;
        if place.seq <= self.heard.seq {
            self.forget_places(place.seq);
            // What stands before it is not known. Whoever looks there for something of this moment does not find it, and
            // begins a little before the moment.
            self.before = Place { seq: place.seq - 1, ..place };
        }
        self.heard = place;
    }

    /// What is read from here on is another framework's record: no place that is known means anything there.
    pub fn reads_another(&mut self) {
        self.forget_places(1);
        (self.heard, self.before) = (Place::default(), Place::default());
    }

    fn forget_places(&mut self, from: u64) {
        if !self.open.split_off(&from).is_empty() {
            let pending = self.tasks.values_mut().flat_map(|known| &mut known.pending);
            pending.filter(|pending| pending.stream_seq >= from).for_each(|pending| pending.stream_seq = 0);
        }
    }

    /// How many were given up, since nobody acknowledged them.
    pub fn dropped(&self) -> u64 {
        self.dropped
    }

    fn pop(&mut self, task: &TaskId) {
        let Some(known) = self.tasks.get_mut(task) else { return };
        let Some(first) = known.pending.pop_front() else { return };
        self.arrived.remove(&first.no);
        self.open.remove(&first.stream_seq);
        if let Some(due_ms) = first.due_ms {
            self.again.remove(&(due_ms, task.clone()));
        }
        let (left, ended) = (known.pending.len(), known.is_final);
        if first.end.is_none() && first.due_ms.is_none() {
            self.unready(task);
        }
        if left <= 1 {
            self.wordy.remove(task);
        }
        if left > 0 {
            self.ready.push_back(task.clone());
        } else if ended {
            self.ended.push_back(task.clone());
            if let Some(oldest) = self.ended.front().filter(|_| self.ended.len() > ENDED_MAX).cloned() {
                self.ended.pop_front();
                self.tasks.remove(&oldest);
            }
        }
    }

    /// It is not to be written now.
    fn unready(&mut self, task: &TaskId) {
        if self.ready.front() == Some(task) {
            self.ready.pop_front();
        } else {
            self.ready.retain(|ready| ready != task);
        }
    }

    /// Too many wait: of a task with several all but the last word goes, and without such the one that waited longest.
    fn thin_out(&mut self) {
        let Some(task) = self.wordy.first().or_else(|| self.arrived.values().next()).cloned() else { return };
        self.dropped += 1;
        self.pop(&task);
    }
}
