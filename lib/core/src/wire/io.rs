//! What a tool says to the agent of a task: output by offset, input with credit, signals. Never through the master.

use serde::{Deserialize, Serialize};

use crate::id::{Nonce, TaskId};
use crate::wire::number::uncounted;

/// The most bytes of output or input in one message. The server copies messages that are larger than what it reads at
/// once (64 KiB) into buffers of their own: larger pieces were slower, smaller ones cost more requests.
pub const CHUNK_BYTES_MAX: usize = 56 * 1024;

/// The longest time an agent holds a request open for bytes to come, milliseconds.
pub const HOLD_MS_MAX: u64 = 10_000;

/// How often an agent says that there is nothing new, to one who follows, milliseconds.
pub const ALIVE_MS: u64 = 5_000;

/// The highest number of a signal that Linux has.
pub const SIGNAL_MAX: i32 = 64;

/// Which of a task's two outputs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

/// A request to an agent. Whoever owns the task may ask, by the principal of the subject; the token is that right for others.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Ask {
    /// The task.
    pub task: TaskId,
    /// Its token, for those who do not own it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token: Option<Nonce>,
    /// What is asked.
    pub what: What,
}

/// What can be asked of a task's agent.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "ask", rename_all = "snake_case")]
pub enum What {
    /// Bytes from an offset; waits up to `wait_ms` if there are none yet.
    Read {
        /// Which output.
        stream: Stream,
        /// From where, in bytes since the task began.
        offset: u64,
        /// At most so many, below [`CHUNK_BYTES_MAX`].
        max: u32,
        /// How long to wait for the first byte, milliseconds, at most [`HOLD_MS_MAX`].
        wait_ms: u64,
        /// Whether the reader is one that output waits for.
        #[serde(default)]
        follow: bool,
    },
    /// All bytes from an offset on, as they come: many answers to one question, as far as the credit reaches.
    Follow {
        /// Which output.
        stream: Stream,
        /// From where, in bytes since the task began.
        offset: u64,
        /// How many bytes may be sent before `more` is said.
        credit: u64,
        /// Whether the reader is one that output waits for.
        #[serde(default)]
        follow: bool,
    },
    /// Extends the credit of a `follow`; not answered.
    More {
        /// Where the answers of the `follow` go.
        inbox: String,
        /// Bytes up to here may be sent.
        upto: u64,
    },
    /// Where the output stands: for `meso-logs -n`.
    Size {
        /// Which output.
        stream: Stream,
    },
    /// Bytes for standard input follow the header; answered when they are taken.
    Write {
        /// Bytes sent before these.
        offset: u64,
        /// Nothing follows them.
        #[serde(default)]
        end: bool,
    },
    /// Sends the task a signal.
    Signal {
        /// The signal's number on the agent.
        signal: i32,
    },
}

impl What {
    /// Why its numbers cannot be taken, if they cannot. What is only compared, or cut to its bound, may be of any size.
    pub fn fault(&self) -> Option<String> {
        match self {
            What::Read { offset, .. } | What::Follow { offset, .. } | What::Write { offset, .. } => uncounted("offset", *offset),
            What::Signal { signal } if !(1..=SIGNAL_MAX).contains(signal) => Some(format!("signal is {signal}, and from 1 to {SIGNAL_MAX}")),
            What::More { .. } | What::Size { .. } | What::Signal { .. } => None,
        }
    }
}

/// The header of the answer; for a read the bytes follow it after one newline.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "meso", rename_all = "snake_case")]
pub enum Told {
    /// To a read.
    Bytes {
        /// Where the bytes begin: later than asked for if earlier ones were rotated away.
        offset: u64,
        /// True if nothing follows these bytes, ever.
        end: bool,
    },
    /// To a size.
    Size {
        /// The first offset still kept.
        first: u64,
        /// One past the last byte there is.
        last: u64,
        /// True if the task ended.
        end: bool,
    },
    /// To a write or a signal: all input up to here is taken.
    Taken {
        /// Bytes of input taken since the task began.
        offset: u64,
        /// True if the task reads no more.
        #[serde(default)]
        closed: bool,
    },
    /// No, and why.
    No {
        /// A stable word: `unknown_task`, `not_yours`, `bad_request`, `ended`, `io`.
        code: String,
        /// For people.
        message: String,
    },
}
