//! The pure heart of meso: resources, wire types, state machines, the allocator

pub mod condition;
pub mod duration;
pub mod id;
pub mod json;
pub mod resources;
