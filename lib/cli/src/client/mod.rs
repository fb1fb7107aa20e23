//! How a tool speaks with the cluster: calls and questions to the leader, a task's output from its agent

mod follow;
mod leader;
mod task_io;
#[cfg(test)]
pub(crate) mod testagent;

pub use follow::Follower;
pub use leader::{LISTING_MS, Leader, PATIENCE_MS};
pub use task_io::TaskIo;
