//! The tools as a shell sees them, on clusters of real processes
//!
//! Every test has a cluster of its own and waits for events, never for a time, so tests run beside each other; on two
//! processors `--test-threads 4` is a good number. `MESO_TEST_CGROUPS=off` leaves out what needs cgroups, and
//! `MESO_TEST_BINS` names a directory of other programs than those just built, such as installed ones.

mod absence;
mod agents;
mod away;
mod cluster;
mod codes;
mod ends;
mod many;
mod nonsense;
mod outages;
mod process;
mod raw;
mod refusals;
mod shares;
mod signals;
mod state;
mod streams;
mod versions;
