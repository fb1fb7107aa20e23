//! What a launcher is told, and what it has done.

use crate::id::{AgentId, FrameworkId, Name, Nonce, TaskId};
use crate::resources::Request;
use crate::role::Role;
use crate::wire::call::{Answer, Call, Push};
use crate::wire::{Offer, Refusal, Task, Update};

/// What one run of the tool is.
#[derive(Clone, Debug)]
pub struct Config {
    /// The framework's id, fresh.
    pub framework: FrameworkId,
    /// Its session.
    pub session: Nonce,
    /// Which session of its name it joins; 0 for a new one.
    pub session_no: u64,
    /// This process, where it joins a session that another began: then offers are handed in, not asked for.
    pub member: Option<Nonce>,
    /// It joins for one launch only, and leaves the session as it is.
    pub guest: bool,
    /// How many tasks one offer is used for at most.
    pub per_offer_max: u32,
    /// A durable name, if asked for.
    pub name: Option<Name>,
    /// The role its share counts in.
    pub role: Role,
    /// Who runs it, for people.
    pub who: String,
    /// What each task needs.
    pub request: Request,
    /// A `--where` expression, or empty.
    pub condition: String,
    /// Whether its tasks may be ended at once when others need the room.
    pub revocable: bool,
    /// Only this agent.
    pub on: Option<String>,
    /// How many tasks at once.
    pub at_once_max: u32,
    /// How often a failed task is run again.
    pub retries: u32,
    /// How often a lost task is run again.
    pub retries_lost: u32,
    /// By when a job must have been accepted, milliseconds from its arrival.
    pub start_deadline_ms: Option<u64>,
    /// How long a named framework's tasks live on without a session, milliseconds.
    pub failover_ms: u64,
    /// True randomness for task ids and tokens.
    pub seed: [u64; 2],
}

/// A job: one task to be run to its end.
#[derive(Clone, Debug)]
pub struct Job {
    /// Its number, from 1.
    pub index: u64,
    /// The task; a fresh id is made for each attempt unless it has one.
    pub task: Task,
}

/// What reaches the machine.
#[derive(Clone, Debug)]
pub enum Event {
    /// A deadline passed.
    Tick,
    /// A job to run.
    Job(Box<Job>),
    /// The answer to a call; none if nobody answered in time.
    Answer {
        /// The number of the call.
        no: u64,
        /// The answer.
        answer: Option<Answer>,
    },
    /// The leader sends something.
    Push(Push),
    /// A status.
    Update(Box<Update>),
    /// Statuses may have been missed: the connection was away, or fell behind.
    Gap,
    /// An offer of the session that was joined.
    Offer(Box<Offer>),
    /// No more offers will come.
    NoMore,
    /// Launch no more; jobs without a task end as interrupted.
    Cancel,
    /// End all tasks.
    Kill {
        /// Between TERM and KILL, milliseconds.
        grace_ms: Option<u64>,
    },
    /// All is done: end the session.
    Leave,
}

/// Why a job ended without a status of a task.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Failure {
    /// The leader refused it.
    Refused(Refusal),
    /// No offer came by the deadline.
    StartDeadline,
    /// The offers came to their end.
    NoOffer,
    /// Interrupted before it had a task.
    Interrupted,
    /// The framework was torn down, or its name is held by another.
    Removed(String),
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
    /// The framework's id is another one than proposed: listen for its statuses.
    Framework(FrameworkId),
    /// A job's task is accepted: its output can be followed.
    Begun {
        /// The job.
        index: u64,
        /// The task.
        task: TaskId,
        /// Where.
        agent: AgentId,
        /// Its host name, as the offer told it.
        host: String,
        /// Opens its output and input.
        token: Nonce,
        /// From 1.
        attempt: u32,
    },
    /// A status that is news.
    News {
        /// The job.
        index: u64,
        /// The status.
        update: Box<Update>,
    },
    /// A task ended and its job is tried again.
    Again {
        /// The job.
        index: u64,
        /// How the attempt ended.
        update: Box<Update>,
    },
    /// A job ended with its task's last status.
    Ended {
        /// The job.
        index: u64,
        /// The last status.
        update: Box<Update>,
        /// How many attempts it took.
        attempts: u32,
    },
    /// A job ended without.
    Failed {
        /// The job.
        index: u64,
        /// Why.
        failure: Failure,
    },
    /// The leader answered: so many agents are known.
    Registered {
        /// How many.
        agents: u32,
    },
    /// An offer that was handed in could not be used any more.
    TooLate(Refusal),
    /// The session is over.
    Left,
}
