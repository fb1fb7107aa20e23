//! What a framework says to the leader, what it is answered, and what is pushed to it.

use serde::{Deserialize, Serialize};

use crate::id::{AgentId, FrameworkId, MasterId, Name, Nonce, OfferId, TaskId};
use crate::resources::Request;
use crate::role::Role;
use crate::task::OnUnreachable;
use crate::wire::ack::AckId;
use crate::wire::number::{too_long, uncounted};
use crate::wire::{Offer, Refusal, Task, Update};

/// What one task of a framework needs and how many more it would launch.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Demand {
    /// One task's worth; if it asks for nothing, all that is left of an agent is offered, as in Mesos.
    pub request: Request,
    /// How many more tasks it would launch now.
    pub count: u32,
    /// How many offers it would hold at once; 0 for the leader's own limit.
    #[serde(skip_serializing_if = "is_zero")]
    pub open_max: u32,
    /// A `--where` expression; empty for anywhere.
    #[serde(rename = "where")]
    pub condition: String,
    /// Only this agent: id or host name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub on: Option<String>,
    /// Its tasks may be ended at once when others need the room; for that it is offered what others only hold, too.
    #[serde(skip_serializing_if = "is_false")]
    pub revocable: bool,
}

fn is_zero(count: &u32) -> bool {
    *count == 0
}

fn is_false(flag: &bool) -> bool {
    !*flag
}

/// A task that a framework believes to live, told to a leader that may not know it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Claim {
    /// The task.
    pub task: TaskId,
    /// Where it was launched.
    pub agent: AgentId,
    /// The epoch it was accepted under.
    pub epoch: u64,
    /// The last status seen.
    #[serde(default)]
    pub seq: u64,
}

/// A call to the leader. Each may be repeated: the same call gets the same answer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "meso")]
pub enum Call {
    /// Registers the framework, or comes back to a leader that does not know the session.
    #[serde(rename = "subscribe/1")]
    Subscribe(Subscribe),
    /// Says what is wanted now; replaces what was said before.
    #[serde(rename = "demand/1")]
    Demand {
        /// The framework.
        framework: FrameworkId,
        /// Its session.
        session: Nonce,
        /// Nothing wanted if absent.
        #[serde(default)]
        demand: Option<Demand>,
    },
    /// Launches tasks on offers, all or nothing.
    #[serde(rename = "accept/1")]
    Accept(Accept),
    /// Gives offers back.
    #[serde(rename = "decline/1")]
    Decline {
        /// The framework.
        framework: FrameworkId,
        /// Its session.
        session: Nonce,
        /// The offers.
        offers: Vec<OfferId>,
        /// For how long not to be offered the same again, milliseconds.
        refuse_ms: u64,
        /// Which member; the one that made the session where absent.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        member: Option<Nonce>,
        /// Nobody spoke it out: the leader says for how long, longer each time; `refuse_ms` is not looked at.
        #[serde(default, skip_serializing_if = "is_false")]
        implicit: bool,
    },
    /// Gives offers back from outside of their sessions, by the principal that owns them.
    #[serde(rename = "return/1")]
    Return {
        /// The offers.
        offers: Vec<OfferId>,
        /// For how long not to be offered the same again, milliseconds.
        refuse_ms: u64,
    },
    /// Asks what an offer is and whose, by the principal that owns it: how to join its session.
    #[serde(rename = "look/1")]
    Look {
        /// The offer.
        offer: OfferId,
    },
    /// Wants no offers for now, or wants them again; the last word of anybody of the principal counts.
    #[serde(rename = "suppress/1")]
    Suppress {
        /// Its id or its name.
        framework: String,
        /// False to revive: what was refused may be offered again as well.
        on: bool,
    },
    /// Statuses were seen and need not be sent again; handed on to the session's members.
    #[serde(rename = "ack/1")]
    Ack {
        /// As the status lines give them.
        acks: Vec<AckId>,
    },
    /// All statuses up to here were seen: where the framework's next session goes on.
    #[serde(rename = "seen/1")]
    Seen {
        /// The framework.
        framework: FrameworkId,
        /// Its session.
        session: Nonce,
        /// A sequence number of the event stream.
        upto: u64,
        /// When what stands there was recorded, milliseconds since 1970; 0 from a head of the release before.
        #[serde(default)]
        recorded_ms: u64,
    },
    /// Ends tasks.
    #[serde(rename = "kill/1")]
    Kill {
        /// The tasks.
        tasks: Vec<TaskId>,
        /// Between TERM and KILL; the task's own grace where absent.
        #[serde(default)]
        grace_ms: Option<u64>,
    },
    /// Keeps a member of the session alive.
    #[serde(rename = "beat/1")]
    Beat {
        /// The framework.
        framework: FrameworkId,
        /// Its session.
        session: Nonce,
        /// Which member; the one that made the session where absent.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        member: Option<Nonce>,
        /// It could launch no more now. Once all who joined say so, nothing is offered.
        #[serde(default, skip_serializing_if = "is_false")]
        sated: bool,
    },
    /// Ends a membership. With the last that launches, or the last at all, the session ends: an unnamed framework's
    /// tasks end, except those to keep.
    #[serde(rename = "leave/1")]
    Leave {
        /// The framework.
        framework: FrameworkId,
        /// Its session.
        session: Nonce,
        /// Which member; the one that made the session where absent.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        member: Option<Nonce>,
        /// For how long the session waits for others to join, milliseconds.
        #[serde(default)]
        hold_ms: u64,
    },
    /// Ends a framework and all its tasks.
    #[serde(rename = "teardown/1")]
    Teardown {
        /// Its id or its name.
        framework: String,
    },
    /// Asks what became of tasks; the answers come as updates.
    #[serde(rename = "reconcile/1")]
    Reconcile {
        /// The framework.
        framework: FrameworkId,
        /// Its session.
        session: Nonce,
        /// The tasks; all of the framework's if both are empty.
        #[serde(default)]
        tasks: Vec<Claim>,
        /// Which member; the one that made the session where absent.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        member: Option<Nonce>,
        /// Tasks of which only the id is known: answered at once with what is known now.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        asked: Vec<TaskId>,
    },
}

impl Call {
    /// Why its numbers cannot be taken, if they cannot. What the leader shortens anyhow may be of any length.
    pub fn fault(&self) -> Option<String> {
        match self {
            Call::Subscribe(call) => uncounted("session_no", call.session_no).or_else(|| too_long("failover_ms", call.failover_ms)),
            Call::Seen { upto, recorded_ms, .. } => uncounted("upto", *upto).or_else(|| uncounted("recorded_ms", *recorded_ms)),
            Call::Kill { grace_ms, .. } => too_long("grace_ms", grace_ms.unwrap_or(0)),
            _ => None,
        }
    }
}

/// The registration of a framework.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Subscribe {
    /// The protocol major of the caller.
    pub v: u32,
    /// The framework's id, made by its first session.
    pub framework: FrameworkId,
    /// The session; made by the process that begins it.
    pub session: Nonce,
    /// The number that the session was given by an earlier leader, 0 for a new one: the highest of a name wins.
    #[serde(default)]
    pub session_no: u64,
    /// Who joins a session that another process began: what it said of demand and role stands.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub member: Option<Nonce>,
    /// Joins for one launch only: the session's work is not done when it leaves.
    #[serde(default, skip_serializing_if = "is_false")]
    pub guest: bool,
    /// A name that is held is taken from its holder.
    #[serde(default, skip_serializing_if = "is_false")]
    pub takeover: bool,
    /// A durable name; the framework is unnamed without.
    #[serde(default)]
    pub name: Option<Name>,
    /// The role its share counts in.
    pub role: Role,
    /// Who runs it, for people: user@host:pid.
    pub who: String,
    /// What it wants at once.
    #[serde(default)]
    pub demand: Option<Demand>,
    /// How long its tasks live on without a session, milliseconds; for named ones.
    #[serde(default)]
    pub failover_ms: u64,
    /// What becomes of its tasks that say nothing of it when no leader reaches their agent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on_unreachable: Option<OnUnreachable>,
    /// The tasks it believes to live.
    #[serde(default)]
    pub claims: Vec<Claim>,
}

/// An accept: ordered, all or nothing.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Accept {
    /// The framework.
    pub framework: FrameworkId,
    /// Its session.
    pub session: Nonce,
    /// The epoch the offers were made under.
    pub epoch: u64,
    /// The offers, all of one agent.
    pub offers: Vec<OfferId>,
    /// The agent, so that a later leader can tell what became of a launch.
    pub agent: AgentId,
    /// The tasks with ids and tokens.
    pub tasks: Vec<TaskToken>,
    /// For how long not to be offered the rest again, milliseconds.
    #[serde(default)]
    pub refuse_ms: u64,
    /// Which member of the session launches; the one that made the session where absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub member: Option<Nonce>,
}

/// A task to launch, and the caller's secret that opens its output and input.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TaskToken {
    /// The task; its id is set.
    pub task: Task,
    /// 128 random bits of the caller.
    pub token: Nonce,
}

/// The leader's answer to a call.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "meso")]
pub enum Answer {
    /// To `subscribe/1`.
    #[serde(rename = "subscribed/1")]
    Subscribed {
        /// The framework's id; another than asked for if its name is known.
        framework: FrameworkId,
        /// The epoch of the answering leader.
        epoch: u64,
        /// Which master leads.
        master: MasterId,
        /// How often to beat, milliseconds.
        beat_ms: u64,
        /// After how long without a beat the session ends, milliseconds.
        session_ms: u64,
        /// How many agents are known, so that a client can say why it waits.
        agents: u32,
        /// Whether the name was known before, with its tasks.
        recovered: bool,
        /// Which session of its name this is, counted from 1.
        #[serde(default)]
        session_no: u64,
        /// Up to where in the event stream earlier sessions saw their statuses.
        #[serde(default)]
        seen: u64,
        /// When what stood there was recorded, milliseconds since 1970; 0 if that is not known.
        #[serde(default)]
        seen_ms: u64,
    },
    /// To `accept/1`: all tasks are on their way.
    #[serde(rename = "accepted/1")]
    Accepted {
        /// The tasks in order.
        tasks: Vec<TaskId>,
    },
    /// To `look/1`.
    #[serde(rename = "seat/1")]
    Seat {
        /// Whose the offer is.
        framework: FrameworkId,
        /// Its session, to be joined.
        session: Nonce,
        /// Which session of its name that is.
        session_no: u64,
        /// The role its share counts in.
        role: Role,
        /// The offer; how long it still lives.
        offer: Offer,
    },
    /// To `kill/1`: one verdict for each task, in order; absent means it is on its way.
    #[serde(rename = "killing/1")]
    Killing {
        /// A refusal in place of each task that is not ended.
        refused: Vec<Option<Refusal>>,
    },
    /// To the other calls: done.
    #[serde(rename = "done/1")]
    Done {},
    /// No, and why; nothing was changed.
    #[serde(rename = "refused/1")]
    Refused(Refusal),
}

/// What the leader sends a framework by itself.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "meso")]
pub enum Push {
    /// New offers.
    #[serde(rename = "offers/1")]
    Offers {
        /// The epoch they are made under.
        epoch: u64,
        /// The session they are made to.
        session: Nonce,
        /// The offers.
        offers: Vec<Offer>,
    },
    /// An offer is taken back.
    #[serde(rename = "rescind/1")]
    Rescind {
        /// The offer.
        id: OfferId,
        /// A stable word.
        reason: String,
    },
    /// A status that the framework may have missed.
    #[serde(rename = "known/1")]
    Known {
        /// The status.
        update: Box<Update>,
    },
    /// The session is over.
    #[serde(rename = "removed/1")]
    Removed {
        /// The session that is over.
        session: Nonce,
        /// A stable word: `done`, `lapsed`, `torn_down`, `taken_over`.
        reason: String,
    },
    /// Offers were accepted or declined by a member of the session; its other members know by this.
    #[serde(rename = "used/1")]
    Used {
        /// The offers.
        offers: Vec<OfferId>,
    },
    /// Statuses were acknowledged by somebody of the principal.
    #[serde(rename = "acked/1")]
    Acked {
        /// Which.
        acks: Vec<AckId>,
    },
    /// An agent that runs tasks of the framework, or whose resources it was offered, is not to be reached or is gone.
    #[serde(rename = "failure/1")]
    Failure {
        /// The agent.
        agent: AgentId,
        /// Its host name.
        host: String,
        /// A stable word.
        reason: String,
    },
    /// Tasks of the framework are to make room: it may end them itself until the deadline; then they are ended.
    #[serde(rename = "inverse/1")]
    Inverse {
        /// Where.
        agent: AgentId,
        /// Its host name.
        host: String,
        /// Which tasks; all there where it is empty.
        tasks: Vec<TaskId>,
        /// The master's wall clock at the deadline, milliseconds since 1970; for display.
        deadline_ms: u64,
        /// How long until then, milliseconds.
        lasts_ms: u64,
        /// A stable word: `revoked`, `drained`.
        reason: String,
    },
    /// Somebody suppressed or revived the framework.
    #[serde(rename = "suppressed/1")]
    Suppressed {
        /// Whether it wants no offers now.
        on: bool,
    },
}
