//! A whole cluster on this machine, as a service manager would keep it: what `meso-up` is made of
//!
//! The bus, the masters and the agents are processes of their own, siblings under one parent. None of them
//! outlives the parent, however it ends: each is started through [`guard`], which asks the kernel to end it then.
mod cluster;
mod command;
mod guard;
mod kept;
mod nats_config;
mod port;
mod process;
mod program;
mod share;
mod state;

pub use cluster::{Cluster, ClusterSpec, StateWish};
pub use command::{Signals, run_command};
pub use guard::{GUARD_FLAG, guard};
pub use kept::how_text;
pub use port::holder_of;
pub use program::{nats_server, own_folder};
pub use share::AGENTS_MAX;
