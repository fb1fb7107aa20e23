//! What one run of `meso-offer` is.

use crate::id::{FrameworkId, Name, Nonce};
use crate::resources::Request;
use crate::role::Role;
use crate::task::OnUnreachable;

/// Which lines are wanted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Shows {
    /// `offer/1`; without, nothing is asked for.
    pub offers: bool,
    /// `update/1`.
    pub updates: bool,
    /// `hello/1`, `task/1` and `synced/1`.
    pub tasks: bool,
    /// `rescind/1`.
    pub rescinds: bool,
    /// `inverse/1`.
    pub inverses: bool,
    /// `failure/1`.
    pub failures: bool,
    /// `heartbeat/1`.
    pub heartbeats: bool,
}

/// One batch in place of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Once {
    /// How many offers it has at least.
    pub min: usize,
    /// How long to wait for them, milliseconds.
    pub wait_ms: u64,
    /// How long the session waits for whoever uses them, milliseconds.
    pub hold_ms: u64,
}

/// What one run of the tool is.
#[derive(Clone, Debug)]
pub struct Config {
    /// The framework's id, fresh.
    pub framework: FrameworkId,
    /// This process.
    pub session: Nonce,
    /// A durable name, if asked for.
    pub name: Option<Name>,
    /// Whether to take the name from whoever holds it.
    pub takeover: bool,
    /// Whether to wait until nobody holds the name.
    pub standby: bool,
    /// The role its share counts in.
    pub role: Role,
    /// Who runs it, for people.
    pub who: String,
    /// What each offer has room for; all that is left of an agent if it asks for nothing.
    pub request: Request,
    /// A `--where` expression, or empty.
    pub condition: String,
    /// Whether what is launched on its offers may be ended at once when others need the room.
    pub revocable: bool,
    /// How long a named framework's tasks live on without a session, milliseconds.
    pub failover_ms: u64,
    /// What becomes of its tasks that say nothing of it when no leader reaches their agent.
    pub on_unreachable: Option<OnUnreachable>,
    /// How many offers to hold at once.
    pub open_max: u32,
    /// How long a line that was read may go untouched while the reader has nothing else to read, milliseconds.
    pub grace_ms: u64,
    /// Whether lines are used in their order.
    pub ordered: bool,
    /// Which lines are wanted.
    pub shows: Shows,
    /// Whether statuses go out by [`Offerer::status_line`](super::Offerer::status_line), to a reader of their own.
    pub statuses_apart: bool,
    /// Whether statuses are acknowledged by hand.
    pub manual_acks: bool,
    /// One batch in place of a stream.
    pub once: Option<Once>,
}
