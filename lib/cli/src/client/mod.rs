//! How a tool speaks with the cluster: calls and questions to the leader, tasks found, their output followed

mod absence;
mod explain;
mod fates;
mod find;
mod follow;
mod leader;
mod outlet;
mod rows;
#[cfg(test)]
pub(crate) mod sample;
mod scheduler;
mod seat;
mod signal;
mod snapshot;
mod tail;
mod task_io;
#[cfg(test)]
pub(crate) mod testagent;
#[cfg(test)]
pub(crate) mod testleader;
mod verdict;
mod watch;

pub use absence::{Absence, patience};
pub use explain::{explanation_text, standing_text, task_standing};
pub use fates::{known_tasks, recorded_end};
pub use find::{Found, find_tasks, is_later, read_status, recorded_tasks};
pub use follow::Follower;
pub use leader::{LISTING_MS, Leader, PATIENCE_MS};
pub use outlet::{Outlet, Tagger};
pub use rows::{AGENT_COLUMNS, FRAMEWORK_COLUMNS, MASTER_COLUMNS, OFFER_COLUMNS, ROLE_COLUMNS, TASK_COLUMNS, agent_row, framework_row, master_row, offer_row, role_row, task_row};
pub use scheduler::{LineResult, Scheduler};
pub use seat::{Seat, look, too_late};
pub use signal::{BadSignal, Signal};
pub use snapshot::snapshot_listings;
pub use tail::{Extent, extent, tail_offset};
pub use task_io::TaskIo;
pub use verdict::{task_epitaph, task_exit};
pub use watch::{Watch, fate_unknown};
