//! The pure heart of meso: resources, wire types, state machines, the allocator

pub mod allocate;
pub mod condition;
pub mod duration;
pub mod filter;
pub mod id;
pub mod json;
pub mod ledger;
pub mod resources;
pub mod role;
pub mod wal;
