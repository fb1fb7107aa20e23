//! What reaches the machine, and what it asks of the outside.

use crate::id::{FrameworkId, TaskId};
use crate::offerer::statuses::Place;
use crate::wire::call::{Answer, Call, Push};
use crate::wire::{Refusal, Update};

/// What reaches the machine.
#[derive(Clone, Debug)]
pub enum Event {
    /// Time has passed; so many bytes of our output are unread, where that can be told.
    Tick {
        /// None if the output is nothing of which that is known.
        unread: Option<u64>,
    },
    /// The answer to a call; none if nobody answered in time.
    Answer {
        /// The number of the call.
        no: u64,
        /// The answer.
        answer: Option<Answer>,
    },
    /// Somebody says that it leads.
    Led {
        /// Under this epoch.
        epoch: u64,
    },
    /// The leader sends something.
    Push(Push),
    /// A status from the record.
    Status {
        /// The status.
        update: Box<Update>,
        /// Its place in the record.
        place: Place,
    },
    /// Something else of the record.
    Passed {
        /// Its place in the record.
        place: Place,
    },
    /// The line that was given out is wanted by nobody: an offer goes back at once.
    Unwanted,
    /// The framework's tasks that live, as asked for by [`Effect::Snapshot`].
    Snapshot(Vec<Update>),
    /// The line that was given out last went out whole.
    Wrote {
        /// Its bytes, with its end.
        bytes: u64,
    },
    /// The line that was given out last found no room.
    Blocked,
    /// A line of [`Offerer::status_line`](super::Offerer::status_line) went out whole, which counts as read.
    WroteStatus {
        /// Whose it is.
        task: TaskId,
    },
    /// There is room again.
    Room,
    /// Somebody else reads our output from here on, who knows nothing of what was written.
    NewReader,
    /// Nobody reads our output any more.
    ReaderGone,
    /// End the session, as whoever runs us says.
    Leave,
}

/// How it all ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    /// The work is done, or the reader has gone.
    Done,
    /// The name is held by another, or was taken by another; or the framework was torn down.
    Lost(String),
    /// There were too few offers in time for a batch.
    TooFew {
        /// How many there were.
        got: usize,
    },
    /// The leader refused us.
    Refused(Refusal),
}

/// What must become true outside, in this order.
#[derive(Clone, Debug, PartialEq)]
pub enum Effect {
    /// Call the leader; the answer comes as `Answer`.
    Call {
        /// Its number.
        no: u64,
        /// The call.
        call: Box<Call>,
    },
    /// The framework's id is another one than proposed: listen for its pushes before anything else.
    Framework(FrameworkId),
    /// Read the framework's statuses in the record, behind this place.
    Follow {
        /// Where earlier sessions ended. If something else stands there now, the record lost its end and gave its places anew:
        /// then from before the moment of this place.
        after: Place,
    },
    /// Ask which tasks of the framework live; they come as `Snapshot`.
    Snapshot,
    /// The leader knows us; so many agents are there.
    Registered {
        /// How many.
        agents: u32,
    },
    /// The name is held by another, and we wait; said once.
    Waiting(String),
    /// The session is over.
    End(End),
}
