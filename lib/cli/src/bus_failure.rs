//! What goes wrong on the bus, as a person needs to hear it
use crate::exit::{Failure, FailureKind};
use meso_bus::BusError;

/// The start of a cluster on this machine, for whoever has none.
const START_ONE: &str = "meso-up, which starts a cluster here, or --nats URL of one that runs";

impl From<BusError> for Failure {
    fn from(error: BusError) -> Self {
        let said = error.to_string();
        let failure = |kind, next_step: &str| Failure::new(kind, said.as_str()).hint(next_step);
        match error {
            BusError::Unreachable { .. } => failure(FailureKind::Unreachable, START_ONE),
            BusError::Closed => failure(FailureKind::Unreachable, "the same again"),
            BusError::Credentials { .. } => failure(FailureKind::Denied, "--creds FILE with credentials that this bus knows"),
            BusError::Options { .. } => failure(FailureKind::Usage, "an address like nats://127.0.0.1:4222"),
            BusError::Denied { .. } | BusError::ForeignReply { .. } => failure(FailureKind::Denied, "the --principal that your credentials are for, or ask who runs the bus"),
            BusError::NoJetStream { .. } => failure(FailureKind::Config, "nats-server -js -sd DIR, or jetstream {} in its configuration"),
            BusError::NoResponders { subject } => no_responders(&subject),
            BusError::Timeout { .. } => failure(FailureKind::Unreachable, "the same again, or meso-ps masters to see who leads"),
            BusError::TooBig { .. } => failure(FailureKind::Failed, "less at once"),
            BusError::Busy { .. } | BusError::WrongRevision { .. } => failure(FailureKind::Failed, "the same again"),
            BusError::Unready { .. } => failure(FailureKind::Unreachable, "the same again, and meso-doctor if it stays so"),
            BusError::Store { .. } => failure(FailureKind::Failed, "the log of nats-server, which says why"),
            BusError::Protocol { .. } => failure(FailureKind::Failed, "the same version of meso everywhere"),
        }
    }
}

/// Who is missing, by the subject that nobody listens on.
fn no_responders(subject: &str) -> Failure {
    let mut tokens = subject.split('.').skip(1);
    match (tokens.next(), tokens.next(), tokens.next()) {
        (Some(_), Some("io"), Some(agent)) => Failure::unreachable(format!("{agent} does not answer")).hint("meso-ps agents"),
        (Some(cluster), Some("q" | "f2m" | "o2m" | "a2m"), _) => Failure::unreachable(format!("no master leads the cluster {cluster}")).hint(START_ONE),
        _ => Failure::unreachable(format!("nobody answers on {subject}")).hint(START_ONE),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ToolKind;

    /// Shows the exit code of each failure that a person can do something about, and that each has a next step.
    #[test]
    fn codes_and_next_steps() {
        let url = || "nats://h:1".to_owned();
        let table = [
            (BusError::Unreachable { url: url(), why: "connection refused".into() }, 69),
            (BusError::Credentials { why: "unknown user".into() }, 77),
            (BusError::Denied { subject: "meso.x.q.me.tasks".into() }, 77),
            (BusError::Options { what: "the bus address is empty".into() }, 2),
            (BusError::NoJetStream { url: url() }, 78),
            (BusError::NoResponders { subject: "meso.x.q.me.tasks".into() }, 69),
            (BusError::Timeout { what: "the question".into(), ms: 5000 }, 69),
            (BusError::Closed, 69),
            (BusError::TooBig { bytes: 2, limit: 1 }, 1),
        ];
        for (error, code) in table {
            let failure = Failure::from(error.clone());
            assert_eq!(failure.exit(ToolKind::Plain).code(), code, "{error}");
            assert_eq!(failure.exit(ToolKind::Speaks).code(), 125, "{error}");
            assert!(failure.next_step().is_some(), "{error}");
        }
    }

    /// Shows that a missing listener is named as the master or agent that it is, not as a subject.
    #[test]
    fn who_is_missing() {
        let what = |subject: &str| no_responders(subject).what().to_owned();
        assert_eq!(what("meso.prod.f2m.me.accept"), "no master leads the cluster prod");
        assert_eq!(what("meso.prod.io.agent_1.me.read"), "agent_1 does not answer");
    }
}
