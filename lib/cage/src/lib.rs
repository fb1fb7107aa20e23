//! Containers: cgroups, the task supervisor's mechanics, process facts
//!
//! One small supervisor process stands over each task. It outlives the agent that started it, owns the task's
//! output files, knows how the task ended and ends everything the task left behind. The agent's side is
//! [`Cage`]: it makes the container's directory and cgroups, spawns the supervisor, and finds it again after a
//! restart. The two sides speak through files in the container's directory:
//!
//! ```text
//! <control>/<id>/spec      what to run; held by flock as long as the supervisor lives; its head names the supervisor
//! <control>/<id>/exit      how it ended; there once, complete, at the end
//! <control>/<id>/stdin     a socket, if the task has a standard input
//! <control>/<id>/kill      a kill that came before the supervisor could hear signals
//! <control>/<id>/lost      the supervisor died without a record; nothing of the container is left
//! <control>/<id>/output    a link to where the output is, once there is some, if that is elsewhere
//! <run_dir>/<id>/stdout[.N]  output; N is the offset in the stream at which a later segment begins
//! ```
//!
//! `<control>` is in memory where that is possible, for speed; see `place.rs`.
//!
//! Nothing here knows of frameworks, of the bus, or of an async runtime. Every call blocks, shortly; file
//! descriptors are handed out for the agent to wait on.

mod birth;
mod cage;
mod clear;
mod container;
mod descendants;
mod error;
mod exit;
mod in_use;
mod layout;
mod leaf;
pub mod machine;
mod output;
mod place;
mod pump;
mod recover;
mod spec;
mod stdin;
pub mod supervisor;
mod sys;
mod watch;
mod worklock;

pub use cage::{Cage, CgroupUse, Options};
pub use clear::clear;
pub use container::Container;
pub use error::{CageError, LaunchError};
pub use exit::{Exit, Why};
pub use in_use::InUse;
pub use output::{Chunk, OutputReader, Stream};
pub use recover::Recovered;
pub use spec::Spec;
pub use stdin::{StdinReply, StdinSocket};
pub use watch::OutputWatch;
pub use worklock::WorkLock;
