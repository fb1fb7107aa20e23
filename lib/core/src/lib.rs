//! The pure heart of meso: resources, wire types, state machines, the allocator
