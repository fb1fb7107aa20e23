//! What an operator asks of the leader: changes that outlive it. They have subjects of their own, so that the bus can
//! keep them from others.

use serde::{Deserialize, Serialize};

use crate::id::AgentId;
use crate::policy::{Change, Subject};
use crate::wire::Refusal;
use crate::wire::query::RoleRow;

/// An operator's call. Each may be repeated: what is so already is answered as done.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "meso")]
pub enum Operation {
    /// Changes the policy of a role or framework, or gives it one.
    #[serde(rename = "set_role/1")]
    SetRole {
        /// Whose.
        subject: Subject,
        /// What is to be another.
        change: Change,
        /// Guarantees beyond what the cluster has, and limits below what is held, go through.
        #[serde(default)]
        force: bool,
        /// Only says what would be.
        #[serde(default)]
        dry_run: bool,
    },
    /// Takes the policy of a role or framework away.
    #[serde(rename = "remove_role/1")]
    RemoveRole {
        /// Whose.
        subject: Subject,
        /// Only says what would be.
        #[serde(default)]
        dry_run: bool,
    },
    /// Declares an agent gone for good (Mesos MARK_AGENT_GONE): its tasks end as `gone`, and it is never taken in again.
    #[serde(rename = "mark_gone/1")]
    MarkGone {
        /// Which.
        agent: AgentId,
        /// Also one that is not unreachable.
        #[serde(default)]
        force: bool,
    },
}

/// The leader's answer to an operation.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "meso")]
pub enum Outcome {
    /// It is so, durably; or would be.
    #[serde(rename = "operated/1")]
    Done {
        /// The role or framework as it stands now, or would; absent if its policy is gone and nobody is in it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        role: Option<Box<RoleRow>>,
        /// How many offers were taken back for it, or would be.
        rescinded: u32,
        /// What else an operator should know, a sentence each.
        #[serde(default)]
        notes: Vec<String>,
    },
    /// No, and why; nothing was changed.
    #[serde(rename = "refused/1")]
    Refused(Refusal),
}
