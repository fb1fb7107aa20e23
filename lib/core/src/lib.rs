//! The pure heart of meso: resources, wire types, state machines, the allocator

pub mod agent;
pub mod allocate;
pub mod condition;
pub mod duration;
pub mod explain;
pub mod filter;
pub mod id;
pub mod json;
pub mod launcher;
pub mod lease;
pub mod ledger;
pub mod lend;
pub mod master;
pub mod offerer;
pub mod policy;
pub mod resources;
pub mod role;
pub mod seed;
pub mod task;
pub mod wal;
pub mod wire;
