//! What can go wrong on the bus

/// Why something on the bus did not happen
///
/// The kinds are those that lead a person, or a retry, to different next steps. The texts of the
/// client library underneath are never passed on whole: they repeat themselves and may hold secrets.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BusError {
    /// Nobody answers there, or the connection is down right now. Nothing was sent.
    #[error("no bus at {url}: {why}")]
    Unreachable { url: String, why: String },
    /// The server knows us not, or our credentials cannot be read.
    #[error("the bus refuses our credentials: {why}")]
    Credentials { why: String },
    /// The options cannot be used as they are: a bad URL, an unreadable file.
    #[error("{what}")]
    Options { what: String },
    /// The permissions of this principal do not cover the subject.
    #[error("the bus does not permit us {subject}")]
    Denied { subject: String },
    /// The server runs without its store.
    #[error("the bus at {url} has no JetStream")]
    NoJetStream { url: String },
    /// Nobody listens on the subject.
    #[error("nobody answers on {subject}")]
    NoResponders { subject: String },
    /// The outcome is unknown: it may have happened, or may yet happen.
    #[error("no answer to {what} within {ms} ms")]
    Timeout { what: String, ms: u64 },
    /// Larger than the bus or our own limit allows. Nothing was sent.
    #[error("a message of {bytes} bytes is over the limit of {limit}")]
    TooBig { bytes: usize, limit: usize },
    /// A reply subject that is not the caller's own inbox; answering would let it aim our answer.
    #[error("the reply subject {reply} is not an inbox of {principal}")]
    ForeignReply { reply: String, principal: String },
    /// More requests wait for an answer than this process allows itself.
    #[error("{limit} requests wait for an answer already")]
    Busy { limit: usize },
    /// This connection was closed, by us or for good.
    #[error("the connection to the bus is closed")]
    Closed,
    /// A compare-and-set found another revision than the expected one. Nothing was stored.
    #[error("{key} was changed by somebody else")]
    WrongRevision { key: String },
    /// The store refuses.
    #[error("the bus cannot {what}: {why}")]
    Store { what: String, why: String },
    /// The store refuses for the moment: its servers are finding each other, or electing who leads.
    #[error("the bus cannot {what} yet: {why}")]
    Unready { what: String, why: String },
    /// Somebody speaks another protocol than ours.
    #[error("not understood: {what}")]
    Protocol { what: String },
}

impl BusError {
    /// Whether the same call may succeed a moment later, with nothing changed by a person.
    pub fn may_pass(&self) -> bool {
        matches!(
            self,
            BusError::Unreachable { .. }
                | BusError::NoResponders { .. }
                | BusError::Timeout { .. }
                | BusError::Busy { .. }
                | BusError::Unready { .. }
        )
    }

    /// Whether the call may have had its effect although it failed.
    pub fn is_ambiguous(&self) -> bool {
        matches!(self, BusError::Timeout { .. } | BusError::Closed | BusError::Protocol { .. })
    }
}
