//! What happens to the connection by itself

use tokio::sync::broadcast;

/// Events kept for a reader that is behind; older ones are replaced by [`BusEvent::Missed`]
pub(crate) const EVENTS_MAX: usize = 256;

/// Something that happened to the connection, and that nobody asked for
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BusEvent {
    Connected,
    Disconnected,
    /// Our reader was too slow and messages were dropped: `lost` so far, at least. What depends on
    /// having seen all must read it again.
    SlowConsumer { subject: String, lost: u64 },
    /// The permissions do not cover what we tried; the server says so afterwards.
    Denied { subject: String, what: Denial },
    /// The server took our login back, or refuses it now that we come again.
    Credentials { why: String },
    /// The server is about to stop; the client moves on by itself.
    LameDuck,
    /// Any other complaint of the server.
    Complaint { text: String },
    /// The reader of these events was too slow for this many of them.
    Missed { events: u64 },
    Closed,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Denial {
    Publish,
    Subscribe,
}

/// A reader of [`BusEvent`]s
pub struct Events {
    receiver: broadcast::Receiver<BusEvent>,
}

impl Events {
    pub(crate) fn new(receiver: broadcast::Receiver<BusEvent>) -> Events {
        Events { receiver }
    }

    /// The next event; none once the connection is gone. Can be dropped while it waits.
    pub async fn next(&mut self) -> Option<BusEvent> {
        match self.receiver.recv().await {
            Ok(event) => Some(event),
            Err(broadcast::error::RecvError::Lagged(events)) => Some(BusEvent::Missed { events }),
            Err(broadcast::error::RecvError::Closed) => None,
        }
    }
}

/// Reads the server's complaint about permissions: what was tried, and on which subject
pub(crate) fn parse_denial(text: &str) -> Option<(Denial, &str)> {
    let rest = text.strip_prefix("Permissions Violation for ")?;
    let what = if rest.starts_with("Publish") {
        Denial::Publish
    } else if rest.starts_with("Subscription") {
        Denial::Subscribe
    } else {
        return None;
    };
    let (_, quoted) = rest.split_once('"')?;
    let (subject, _) = quoted.split_once('"')?;
    Some((what, subject))
}

/// Whether the server's complaint is about who we are
pub(crate) fn is_about_login(text: &str) -> bool {
    let text = text.to_ascii_lowercase();
    ["authorization", "authentication", "account"].iter().any(|word| text.contains(word))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The complaints of all supported servers are understood.
    #[test]
    fn denials() {
        let table = [
            (r#"Permissions Violation for Publish to "a.b""#, Some((Denial::Publish, "a.b"))),
            (r#"Permissions Violation for Publish with Reply of "a.b""#, Some((Denial::Publish, "a.b"))),
            (r#"Permissions Violation for Subscription to "a.>""#, Some((Denial::Subscribe, "a.>"))),
            (r#"Permissions Violation for Subscription to "a" using queue "q" (sid "1")"#, Some((Denial::Subscribe, "a"))),
            (r#"Permissions Violation for Subscription to "a" (sid "1")"#, Some((Denial::Subscribe, "a"))),
            ("Permissions Violation for Publish to a", None),
            ("Unknown Protocol Operation", None),
        ];
        for (text, expected) in table {
            assert_eq!(parse_denial(text), expected, "{text}");
        }
        assert!(is_about_login("User Authentication Expired") && is_about_login("authorization violation"));
        assert!(!is_about_login("Maximum Payload Violation"));
    }
}
