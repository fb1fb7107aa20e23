//! How a tool speaks with the cluster: calls and questions to the leader, tasks found, their output followed

mod find;
mod follow;
mod leader;
mod rows;
#[cfg(test)]
pub(crate) mod sample;
mod task_io;
#[cfg(test)]
pub(crate) mod testagent;
mod verdict;

pub use find::{Found, find_tasks, is_later, read_status, recorded_tasks};
pub use follow::Follower;
pub use leader::{LISTING_MS, Leader, PATIENCE_MS};
pub use rows::{AGENT_COLUMNS, FRAMEWORK_COLUMNS, MASTER_COLUMNS, OFFER_COLUMNS, TASK_COLUMNS, agent_row, framework_row, master_row, offer_row, task_row};
pub use task_io::TaskIo;
pub use verdict::{task_epitaph, task_exit};
