//! The simulated bus, disk, clock and process table; the invariants; the seeded runner
