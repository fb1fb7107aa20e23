//! The bus: it delivers, loses, repeats and delays; connections are cut and heal.

use meso_core::id::{AgentId, FrameworkId, MasterId, Nonce, Principal};
use meso_core::lease;
use meso_core::master::{self, Caller};
use meso_core::wire::Update;
use meso_core::wire::agent::{Beat, Command, Hello, Invitation};
use meso_core::wire::call::{Call, Push};
use meso_core::wire::query::Query;
use std::rc::Rc;

use crate::store::Reading;

/// Who is on the bus. The bus itself stands for its store and streams.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Site {
    /// A master.
    Master(usize),
    /// An agent.
    Agent(usize),
    /// A client.
    Client(usize),
    /// A process of a pipeline.
    Member(usize),
    /// Store and streams.
    Bus,
}

/// The most masters, agents and clients.
pub const MASTERS_MAX: usize = 3;
/// See [`MASTERS_MAX`].
pub const AGENTS_MAX: usize = 6;
/// See [`MASTERS_MAX`].
pub const CLIENTS_MAX: usize = 4;
/// See [`MASTERS_MAX`].
pub const PIPES_MAX: usize = 4;
/// How many processes on the bus a pipeline has: a head and up to two tails.
pub const SEATS: usize = 3;
/// How many sites there can be.
pub const SITES_MAX: usize = MASTERS_MAX + AGENTS_MAX + CLIENTS_MAX + PIPES_MAX * SEATS + 1;

impl Site {
    /// A number for tables.
    pub fn index(self) -> usize {
        match self {
            Site::Master(which) => which,
            Site::Agent(which) => MASTERS_MAX + which,
            Site::Client(which) => MASTERS_MAX + AGENTS_MAX + which,
            Site::Member(which) => MASTERS_MAX + AGENTS_MAX + CLIENTS_MAX + which,
            Site::Bus => SITES_MAX - 1,
        }
    }
}

/// A request to the leader.
#[derive(Clone, Debug)]
pub enum Ask {
    /// An agent registers.
    Hello(Box<Hello>),
    /// An agent beats.
    Beat(Beat),
    /// A client or a member calls.
    Call(Principal, Box<Call>),
    /// A member asks what there is.
    Query(Principal, Query),
}

/// What travels.
#[derive(Clone, Debug)]
pub enum Msg {
    /// To a leader.
    Request(Caller, Ask),
    /// To an agent or client.
    Reply(Caller, Box<master::Reply>),
    /// Nobody listens where the request went.
    NoResponders(Caller),
    /// To an agent.
    Command(AgentId, Nonce, Box<Command>),
    /// To an agent.
    Invite(Invitation),
    /// To a client.
    Push(FrameworkId, Box<Push>),
    /// A status to a leader, live.
    Status(Rc<Update>),
    /// A status to a client, live.
    Live(Rc<Update>),
    /// A status to the stream.
    Store(Rc<Update>),
    /// Whether a status was stored, to its agent.
    Stored(Rc<Update>, bool),
    /// A run of a master asks the store or other masters.
    Lease(usize, u64, LeaseAsk),
    /// An answer for the lease of a run of a master.
    LeaseAnswer(u64, Box<lease::Event>),
    /// A run of a master writes a document of the registry: its number, key, the revision expected and the text.
    Write(usize, u64, u64, String, u64, String),
    /// The outcome for a run: the write's number and the new revision, none if it was refused.
    Written(u64, u64, Option<u64>),
    /// A run of a master reads the registry for an epoch.
    ReadDocs(usize, u64, u64),
    /// The registry for a run and its epoch.
    Docs(u64, u64, Reading),
}

/// What the lease of a master asks.
#[derive(Clone, Debug)]
pub enum LeaseAsk {
    /// The record.
    Read {
        /// The number of the attempt.
        attempt: u64,
    },
    /// To write it.
    Cas {
        /// The number of the attempt.
        attempt: u64,
        /// Over this revision.
        expect: u64,
        /// What.
        record: Box<lease::Record>,
    },
    /// Who listens.
    Ping {
        /// The number of the attempt.
        attempt: u64,
        /// Where.
        holder: Option<MasterId>,
    },
}


/// One site's connection.
#[derive(Clone, Debug, Default)]
pub struct Wire {
    /// Nothing leaves.
    pub out_cut: bool,
    /// Nothing arrives.
    pub in_cut: bool,
    /// What waits for the connection to come back.
    pub outbox: Vec<(Site, Msg)>,
    /// Rises with each cut, so that a heal belongs to its cut.
    pub cuts: u64,
}

impl Wire {
    /// Whether it works in both directions.
    pub fn is_whole(&self) -> bool {
        !self.out_cut && !self.in_cut
    }
}
