//! Every subject of meso, built and read in one place
//!
//! All stand under `meso.<cluster>.`: first the direction, then the principal who may publish there,
//! so that a bus permission is one prefix.
//!
//! | subject | who publishes | what |
//! |---|---|---|
//! | `a2m.<agent>.<verb>` | agent | requests to the leader |
//! | `m2a.<agent>.<secret>.cmd` | leader | commands; the secret is of the agent's registration |
//! | `f2m.<principal>.<verb>` | framework | requests to the leader |
//! | `o2m.<principal>.<verb>` | operator | changes asked of the leader |
//! | `m2f.<principal>.<framework>` | leader | offers, rescinds |
//! | `q.<principal>.<what>` | anybody | questions to the leader |
//! | `io.<agent>.<principal>.<verb>` | client | output, stdin, signals, straight to the agent |
//! | `ev.<agent>.<framework>.<task>` | agent | statuses; recorded by the event stream |
//! | `ev._master.<framework or ->.<task or kind>` | leader | its own events |
//! | `lead` | leader | its invitation, with its epoch, to all agents |
//! | `lease.ping.<master>` | masters | whether the holder of the lease lives |
//! | `lease.leader` | masters | whether any leader lives |

use std::fmt::Display;

use meso_core::id::{AgentId, FrameworkId, MasterId, Name, Nonce, Principal, TaskId};

/// First token of every subject.
const ROOT: &str = "meso";
/// Where answers go: `_INBOX.<principal>.`
const INBOX: &str = "_INBOX";
/// Stands for the master where events name an agent; no agent id can begin with `_`.
const MASTER: &str = "_master";
/// Stands for "no framework" in events; no framework id can be this.
const NONE: &str = "-";

/// The subjects of one cluster
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subjects {
    cluster: Name,
    /// `meso.<cluster>.`
    prefix: String,
}

/// A subject, taken apart; what is not exactly one of ours is no address
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    AgentCall { agent: AgentId, verb: String },
    Command { agent: AgentId, secret: Nonce },
    FrameworkCall { principal: Principal, verb: String },
    Push { principal: Principal, framework: FrameworkId },
    OperatorCall { principal: Principal, verb: String },
    Query { principal: Principal, what: String },
    Io { agent: AgentId, principal: Principal, verb: String },
    /// `agent` is none for events of the master; `task` is none where the master names a kind.
    Event { agent: Option<AgentId>, framework: Option<FrameworkId>, last: String },
    Lead,
    LeasePing { master: MasterId },
    LeaderPing,
    Standby { master: MasterId },
}

/// Who sent a message, as far as the subject proves it
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Caller {
    /// The permissions of the bus prove this token.
    Principal(String),
    /// Only masters publish there; which one is not said.
    Master,
}

impl Subjects {
    pub fn new(cluster: &Name) -> Subjects {
        Subjects { cluster: cluster.clone(), prefix: format!("{ROOT}.{cluster}.") }
    }

    pub fn cluster(&self) -> &Name {
        &self.cluster
    }

    pub fn agent_call(&self, agent: &AgentId, verb: &'static str) -> String {
        self.join(&["a2m", agent.as_str(), word(verb)])
    }

    /// Everything agents ask of the leader
    pub fn agent_calls(&self) -> String {
        self.join(&["a2m", "*", "*"])
    }

    pub fn command(&self, agent: &AgentId, secret: &Nonce) -> String {
        self.join(&["m2a", agent.as_str(), secret.as_str(), "cmd"])
    }

    pub fn framework_call(&self, principal: &Principal, verb: &'static str) -> String {
        self.join(&["f2m", principal.as_str(), word(verb)])
    }

    /// Everything frameworks ask of the leader
    pub fn framework_calls(&self) -> String {
        self.join(&["f2m", "*", "*"])
    }

    pub fn operator_call(&self, principal: &Principal, verb: &'static str) -> String {
        self.join(&["o2m", principal.as_str(), word(verb)])
    }

    /// Everything operators ask of the leader
    pub fn operator_calls(&self) -> String {
        self.join(&["o2m", "*", "*"])
    }

    pub fn push(&self, principal: &Principal, framework: &FrameworkId) -> String {
        self.join(&["m2f", principal.as_str(), framework.as_str()])
    }

    pub fn query(&self, principal: &Principal, what: &'static str) -> String {
        self.join(&["q", principal.as_str(), word(what)])
    }

    /// Everything anybody asks the leader about
    pub fn queries(&self) -> String {
        self.join(&["q", "*", "*"])
    }

    pub fn io(&self, agent: &AgentId, principal: &Principal, verb: &'static str) -> String {
        self.join(&["io", agent.as_str(), principal.as_str(), word(verb)])
    }

    /// Everything clients ask of one agent
    pub fn ios(&self, agent: &AgentId) -> String {
        self.join(&["io", agent.as_str(), "*", "*"])
    }

    /// Where an agent reports on a task
    pub fn status(&self, agent: &AgentId, framework: &FrameworkId, task: &TaskId) -> String {
        self.join(&["ev", agent.as_str(), framework.as_str(), task.as_str()])
    }

    /// Where the leader reports on a task: what only a master can know of it
    pub fn master_status(&self, framework: &FrameworkId, task: &TaskId) -> String {
        self.join(&["ev", MASTER, framework.as_str(), task.as_str()])
    }

    /// Where the leader reports anything else, of a framework or of nobody
    pub fn master_event(&self, framework: Option<&FrameworkId>, kind: &'static str) -> String {
        self.join(&["ev", MASTER, framework.map_or(NONE, FrameworkId::as_str), word(kind)])
    }

    /// All events; also what the event stream records
    pub fn events(&self) -> String {
        self.join(&["ev", "*", "*", "*"])
    }

    pub fn events_of_framework(&self, framework: &FrameworkId) -> String {
        self.join(&["ev", "*", framework.as_str(), "*"])
    }

    pub fn events_of_task(&self, framework: &FrameworkId, task: &TaskId) -> String {
        self.join(&["ev", "*", framework.as_str(), task.as_str()])
    }

    /// A task's statuses, for who knows only its id; others may publish of a task of that id too
    pub fn events_of_any(&self, task: &TaskId) -> String {
        self.join(&["ev", "*", "*", task.as_str()])
    }

    pub fn events_of_agent(&self, agent: &AgentId) -> String {
        self.join(&["ev", agent.as_str(), "*", "*"])
    }

    /// Events the leader itself makes
    pub fn events_of_master(&self) -> String {
        self.join(&["ev", MASTER, "*", "*"])
    }

    pub fn lead(&self) -> String {
        self.join(&["lead"])
    }

    /// A master says that it is there.
    pub fn standby(&self, master: &MasterId) -> String {
        self.join(&["standby", master.as_str()])
    }

    pub fn standbys(&self) -> String {
        self.join(&["standby", "*"])
    }

    pub fn lease_ping(&self, master: &MasterId) -> String {
        self.join(&["lease", "ping", master.as_str()])
    }

    /// Answered by whoever leads, and by nobody else
    pub fn leader_ping(&self) -> String {
        self.join(&["lease", "leader"])
    }

    /// Takes a subject apart; none if it is not of this cluster or not one of ours.
    pub fn parse(&self, subject: &str) -> Option<Address> {
        let rest = subject.strip_prefix(&self.prefix)?;
        let tokens: Vec<&str> = rest.split('.').collect();
        Some(match tokens.as_slice() {
            ["a2m", agent, verb] => {
                Address::AgentCall { agent: AgentId::parse(agent).ok()?, verb: read_word(verb)? }
            }
            ["m2a", agent, secret, "cmd"] => {
                Address::Command { agent: AgentId::parse(agent).ok()?, secret: Nonce::parse(secret).ok()? }
            }
            ["f2m", principal, verb] => {
                Address::FrameworkCall { principal: Principal::parse(principal).ok()?, verb: read_word(verb)? }
            }
            ["o2m", principal, verb] => {
                Address::OperatorCall { principal: Principal::parse(principal).ok()?, verb: read_word(verb)? }
            }
            ["m2f", principal, framework] => Address::Push {
                principal: Principal::parse(principal).ok()?,
                framework: FrameworkId::parse(framework).ok()?,
            },
            ["q", principal, what] => {
                Address::Query { principal: Principal::parse(principal).ok()?, what: read_word(what)? }
            }
            ["io", agent, principal, verb] => Address::Io {
                agent: AgentId::parse(agent).ok()?,
                principal: Principal::parse(principal).ok()?,
                verb: read_word(verb)?,
            },
            ["ev", agent, framework, last] => Address::Event {
                agent: if *agent == MASTER { None } else { Some(AgentId::parse(agent).ok()?) },
                framework: if *framework == NONE { None } else { Some(FrameworkId::parse(framework).ok()?) },
                last: read_word(last)?,
            },
            ["lead"] => Address::Lead,
            ["lease", "ping", master] => Address::LeasePing { master: MasterId::parse(master).ok()? },
            ["standby", master] => Address::Standby { master: MasterId::parse(master).ok()? },
            ["lease", "leader"] => Address::LeaderPing,
            _ => return None,
        })
    }

    /// Who may have published there, by the permissions of the bus; none where no answer is due.
    pub fn caller(&self, subject: &str) -> Option<Caller> {
        match self.parse(subject)? {
            Address::AgentCall { agent, .. } => Some(Caller::Principal(agent.to_string())),
            Address::FrameworkCall { principal, .. }
            | Address::OperatorCall { principal, .. }
            | Address::Query { principal, .. }
            | Address::Io { principal, .. } => Some(Caller::Principal(principal.to_string())),
            Address::Command { .. } | Address::LeasePing { .. } | Address::LeaderPing => Some(Caller::Master),
            Address::Push { .. } | Address::Event { .. } | Address::Lead | Address::Standby { .. } => None,
        }
    }

    fn join(&self, tokens: &[&str]) -> String {
        let mut subject = self.prefix.clone();
        for (at, token) in tokens.iter().enumerate() {
            if at > 0 {
                subject.push('.');
            }
            subject.push_str(token);
        }
        subject
    }
}

/// The inbox prefix of a principal, an agent or a master: answers to it, and to nobody else, go below
pub fn inbox_of(principal: impl Display) -> String {
    format!("{INBOX}.{principal}")
}

/// Whether a reply subject lies in the principal's own inbox
///
/// The server does not check the reply subject of a message. Who answers to any other one can be
/// used to write where the caller itself may not.
pub fn own_inbox(principal: &str, reply: &str) -> bool {
    below_inbox(reply).and_then(|rest| rest.strip_prefix(principal)).is_some_and(|rest| {
        rest.strip_prefix('.').is_some_and(|rest| !rest.is_empty() && rest.split('.').all(is_plain))
    })
}

/// Whether a reply subject lies in somebody's inbox: enough where only masters can be the caller
pub fn any_inbox(reply: &str) -> bool {
    below_inbox(reply).is_some_and(|rest| rest.split('.').count() >= 2 && rest.split('.').all(is_plain))
}

/// Whether messages can be published to the subject: whole tokens, no wildcards, nothing that would
/// break the protocol's lines
pub(crate) fn is_publishable(subject: &str) -> bool {
    subject.split('.').all(|token| is_graphic(token) && token != "*" && token != ">")
}

/// Whether the subject can be subscribed to; wildcards stand as whole tokens, `>` last
pub(crate) fn is_subscribable(subject: &str) -> bool {
    let mut tokens = subject.split('.').peekable();
    while let Some(token) = tokens.next() {
        if !is_graphic(token) || (token == ">" && tokens.peek().is_some()) {
            return false;
        }
    }
    true
}

fn below_inbox(reply: &str) -> Option<&str> {
    reply.strip_prefix(INBOX)?.strip_prefix('.')
}

fn is_graphic(token: &str) -> bool {
    !token.is_empty() && token.bytes().all(|b| b.is_ascii_graphic())
}

/// A token of letters, digits, `_` and `-`: all that ids, words and our inboxes are made of
fn is_plain(token: &str) -> bool {
    !token.is_empty() && token.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-')
}

/// A verb in our own code; a wrong one is a mistake of ours, found by the first test that uses it
fn word(verb: &'static str) -> &'static str {
    assert!(is_plain(verb), "{verb:?} cannot be a token");
    verb
}

fn read_word(token: &str) -> Option<String> {
    is_plain(token).then(|| token.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn subjects() -> Subjects {
        Subjects::new(&Name::parse("c1").expect("a name"))
    }

    /// Every subject that is built is read back as what it was built of.
    #[test]
    fn what_is_built_is_read() {
        let subjects = subjects();
        let agent = AgentId::parse("agent_1").expect("an id");
        let framework = FrameworkId::parse("fw_1").expect("an id");
        let task = TaskId::parse("task_1").expect("an id");
        let master = MasterId::parse("master_1").expect("an id");
        let principal = Principal::parse("ann").expect("a principal");
        let secret = Nonce::fresh(1, 2);
        let table = [
            (
                subjects.agent_call(&agent, "hello"),
                "meso.c1.a2m.agent_1.hello",
                Address::AgentCall { agent: agent.clone(), verb: "hello".into() },
            ),
            (
                subjects.command(&agent, &secret),
                "meso.c1.m2a.agent_1.00000000000000010000000000000002.cmd",
                Address::Command { agent: agent.clone(), secret },
            ),
            (
                subjects.framework_call(&principal, "accept"),
                "meso.c1.f2m.ann.accept",
                Address::FrameworkCall { principal: principal.clone(), verb: "accept".into() },
            ),
            (
                subjects.push(&principal, &framework),
                "meso.c1.m2f.ann.fw_1",
                Address::Push { principal: principal.clone(), framework: framework.clone() },
            ),
            (
                subjects.query(&principal, "tasks"),
                "meso.c1.q.ann.tasks",
                Address::Query { principal: principal.clone(), what: "tasks".into() },
            ),
            (
                subjects.io(&agent, &principal, "output"),
                "meso.c1.io.agent_1.ann.output",
                Address::Io { agent: agent.clone(), principal, verb: "output".into() },
            ),
            (
                subjects.status(&agent, &framework, &task),
                "meso.c1.ev.agent_1.fw_1.task_1",
                Address::Event { agent: Some(agent), framework: Some(framework.clone()), last: "task_1".into() },
            ),
            (
                subjects.master_status(&framework, &task),
                "meso.c1.ev._master.fw_1.task_1",
                Address::Event { agent: None, framework: Some(framework), last: "task_1".into() },
            ),
            (
                subjects.master_event(None, "leader"),
                "meso.c1.ev._master.-.leader",
                Address::Event { agent: None, framework: None, last: "leader".into() },
            ),
            (subjects.lead(), "meso.c1.lead", Address::Lead),
            (subjects.lease_ping(&master), "meso.c1.lease.ping.master_1", Address::LeasePing { master }),
            (subjects.leader_ping(), "meso.c1.lease.leader", Address::LeaderPing),
        ];
        for (built, text, address) in table {
            assert_eq!(built, text);
            assert_eq!(subjects.parse(&built), Some(address), "{built}");
            assert!(is_publishable(&built));
        }
    }

    /// Nothing but an exact subject of this cluster is an address.
    #[test]
    fn strangers_are_not_addresses() {
        for subject in [
            "",
            "meso",
            "meso.c1.",
            "meso.c2.lead",
            "xmeso.c1.lead",
            "meso.c1.lead.x",
            "meso.c1.a2m.agent_1",
            "meso.c1.a2m.agent_1.hello.more",
            "meso.c1.a2m..hello",
            "meso.c1.a2m.*.hello",
            "meso.c1.a2m._x.hello",
            "meso.c1.m2a.agent_1.0000.cmd",
            "meso.c1.m2a.agent_1.00000000000000010000000000000002.log",
            "meso.c1.q.ann.a b",
            "meso.c1.ev.-.fw.task",
            "meso.c1.lease.ping",
        ] {
            assert_eq!(subjects().parse(subject), None, "{subject}");
        }
    }

    /// Only a plain subject strictly below the caller's own inbox may be answered.
    #[test]
    fn own_inboxes() {
        for good in ["_INBOX.ann.x", "_INBOX.ann.x.y-1"] {
            assert!(own_inbox("ann", good) && any_inbox(good), "{good}");
        }
        for bad in [
            "",
            "_INBOX.ann",
            "_INBOX.ann.",
            "_INBOX.ann..x",
            "_INBOX.anna.x",
            "_INBOX.bob.x",
            "_INBOX.ann.*",
            "_INBOX.ann.>",
            "_INBOXann.x",
            "meso.c1.m2a.agent_1.x.cmd",
            "$JS.API.STREAM.DELETE.X",
        ] {
            assert!(!own_inbox("ann", bad), "{bad}");
        }
        assert!(!any_inbox("_INBOX.ann") && !any_inbox("meso.c1.lead") && !any_inbox("_INBOX.ann.>"));
    }

    /// The caller is the token that permissions vouch for; where only masters publish, a master.
    #[test]
    fn callers() {
        let caller = |subject: &str| subjects().caller(subject);
        assert_eq!(caller("meso.c1.a2m.agent_1.beat"), Some(Caller::Principal("agent_1".into())));
        assert_eq!(caller("meso.c1.io.agent_1.ann.output"), Some(Caller::Principal("ann".into())));
        assert_eq!(caller("meso.c1.lease.leader"), Some(Caller::Master));
        assert_eq!(caller("meso.c1.lead"), None);
        assert_eq!(caller("other.c1.q.ann.tasks"), None);
    }

    /// Subjects that the server would misread are stopped before they are sent.
    #[test]
    fn malformed_subjects() {
        for bad in ["", ".", "a.", ".a", "a..b", "a b", "a\r\nPUB x", "a\t", "a.\u{fc}"] {
            assert!(!is_publishable(bad) && !is_subscribable(bad), "{bad:?}");
        }
        assert!(!is_publishable("a.*") && is_subscribable("a.*") && is_subscribable("a.>") && !is_subscribable(">.a"));
    }
}
