//! The mark on a status line by which it is acknowledged.

use std::fmt;
use std::str::FromStr;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::id::{FrameworkId, TaskId};

/// What every mark begins with.
const KIND: &str = "u_";

/// One status of one task: `u_<framework>.<task>.<seq>`, so that it says by itself whose session wants to know.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct AckId {
    /// Whose task it is.
    pub framework: FrameworkId,
    /// The task.
    pub task: TaskId,
    /// The number of the status within the task.
    pub seq: u64,
}

impl fmt::Display for AckId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{KIND}{}.{}.{}", self.framework, self.task, self.seq)
    }
}

/// A text that is no mark.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0} is not the \"ack\" of an update line")]
pub struct BadAck(String);

impl FromStr for AckId {
    type Err = BadAck;

    fn from_str(text: &str) -> Result<Self, BadAck> {
        let bad = || BadAck(crate::json::quoted(text));
        let mut parts = text.strip_prefix(KIND).ok_or_else(bad)?.split('.');
        let (Some(framework), Some(task), Some(seq), None) = (parts.next(), parts.next(), parts.next(), parts.next()) else { return Err(bad()) };
        Ok(AckId {
            framework: FrameworkId::parse(framework).map_err(|_| bad())?,
            task: TaskId::parse(task).map_err(|_| bad())?,
            seq: seq.parse().map_err(|_| bad())?,
        })
    }
}

impl Serialize for AckId {
    fn serialize<S: Serializer>(&self, out: S) -> Result<S::Ok, S::Error> {
        out.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for AckId {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        String::deserialize(from)?.parse().map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Shows that a mark comes back as it was written, and that nothing else is taken for one.
    #[test]
    fn marks() {
        let text = "u_fw_9d2kx0q4ht.task_1.4";
        assert_eq!(text.parse::<AckId>().map(|ack| ack.to_string()).as_deref(), Ok(text));
        for bad in ["", "u_", "u_a.b", "u_a.b.x", "u_a.b.1.2", "a.b.1", "u_a..1", "u_-.b.1", "u_a.b.-1", "u_a.b.99999999999999999999"] {
            assert!(bad.parse::<AckId>().is_err(), "{bad}");
        }
    }
}
