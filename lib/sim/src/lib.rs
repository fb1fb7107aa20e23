//! Whole clusters in one thread: the real machines of masters, agents and clients on a simulated bus, with simulated
//! disks, clocks and processes, under every fault, driven by one number.
//!
//! ```sh
//! cargo run --release -p meso-sim -- --seed 42          # one run and, if an invariant breaks, its story
//! cargo run --release -p meso-sim -- --seeds 0..100000  # a long run: on one core some ten minutes
//! cargo run --release -p meso-sim -- --rate             # steps per second on one core
//! cargo run --release -p meso-sim -- --plants           # which planted bugs are caught, how soon and by what
//! ```

mod adopting;
pub mod agenda;
mod agents;
mod bus;
mod clients;
pub mod clock;
pub mod disk;
mod faults;
mod filter;
mod full;
mod gone;
mod heads;
pub mod judge;
mod leading;
mod masters;
mod net;
mod older;
mod pipes;
pub mod plan;
pub mod plant;
mod procs;
mod program;
mod reverts;
mod sessions;
mod store;
pub mod story;
pub mod stream;
mod tails;
pub mod tally;
pub mod world;

pub use judge::Violation;
pub use plan::Plan;
pub use plant::Plant;
pub use tally::{Count, Tally};
pub use world::{Outcome, World};
