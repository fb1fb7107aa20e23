//! A second process that says it is an agent which is there.
//!
//! A work directory that was copied to another machine, with the machine or alone, tells of tasks that do not run there,
//! and would have them told as lost while they run on where they are. A machine that was started anew tells the same, and
//! has the right to. They differ in one thing: where it was a copy, the first process still answers. So it is asked.

use crate::id::Nonce;
use crate::master::{AgentState, Effect, Lead};
use crate::wire::agent::{Command, Hello, Order};

/// For so long the process that is there may leave it unanswered before another takes its place, milliseconds: as long as
/// a registration stays unanswered, so that the next one is decided.
const ANSWER_MS_MAX: u64 = 5_000;

/// See the module.
#[derive(Clone, Debug)]
pub(super) struct Rival {
    incarnation: Nonce,
    since_ms: u64,
    /// The process that is there has registered again since.
    is_refuted: bool,
}

/// Whether a process may take the place of the one that is there.
pub(super) enum Succession {
    Right,
    /// Not known yet: it is to ask again.
    Open,
    Wrong,
}

impl Lead {
    /// Whether a registration comes from the agent itself. On the same boot of the same machine the lock on its work
    /// directory has answered that already.
    pub(super) fn succession(&mut self, hello: &Hello) -> Succession {
        let (now_ms, epoch) = (self.now_ms, self.epoch);
        let Some(entry) = self.agents.get_mut(&hello.agent).filter(|entry| entry.state == AgentState::Active && entry.epoch == epoch) else { return Succession::Right };
        if entry.incarnation.as_ref() == Some(&hello.incarnation) {
            if let Some(rival) = &mut entry.rival {
                rival.is_refuted = true;
            }
            return Succession::Right;
        }
        if entry.boot_id.is_empty() || entry.boot_id == hello.boot_id {
            return Succession::Right;
        }
        match &entry.rival {
            Some(rival) if rival.incarnation == hello.incarnation && rival.is_refuted => return Succession::Wrong,
            Some(rival) if rival.incarnation == hello.incarnation => {
                return if rival.since_ms.saturating_add(ANSWER_MS_MAX) <= now_ms { Succession::Right } else { Succession::Open };
            }
            _ => entry.rival = Some(Rival { incarnation: hello.incarnation.clone(), since_ms: now_ms, is_refuted: false }),
        }
        if let (Some(secret), Some(incarnation)) = (entry.secret.clone(), entry.incarnation.clone()) {
            // It registers again, if it is there.
            let command = Command { epoch, incarnation, order: Order::Hello };
            self.out.push(Effect::Command { agent: hello.agent.clone(), secret, command });
        }
        Succession::Open
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::master::testcluster::{Cluster, EPOCH, nonce};
    use crate::master::{Event, Reply};
    use crate::task::TaskState;
    use crate::wire::RefusalCode;
    use crate::wire::agent::{Held, Welcome};

    /// An agent as a process of its own says it is, on a machine that was started so many times.
    fn claims(process: u64, boot: u64, held: Vec<Held>) -> Hello {
        let status_seq = held.len() as u64;
        Hello { incarnation: nonce(process), generation: process, boot_id: boot.to_string(), max_epoch: EPOCH, status_seq, ..Cluster::hello(1, "cpus=4,mem=1G", held) }
    }

    /// What a registration is answered: whether it is taken in, or why not; nothing if it is to come again.
    fn say(cluster: &mut Cluster, hello: &Hello) -> Option<Result<(), RefusalCode>> {
        let effects = cluster.step(Event::Hello { caller: 1, hello: Box::new(hello.clone()) });
        effects.into_iter().find_map(|effect| match effect {
            Effect::Reply { reply: Reply::Welcome(Welcome::Welcome { .. }), .. } => Some(Ok(())),
            Effect::Reply { reply: Reply::Welcome(Welcome::Refused(refusal)), .. } => Some(Err(refusal.code)),
            _ => None,
        })
    }

    /// A cluster in which the first process of agent 1 runs a task, and what it holds.
    fn with_a_task() -> (Cluster, Vec<Held>) {
        let mut cluster = Cluster::new();
        cluster.join(1, "cpus=4,mem=1G");
        assert_eq!(say(&mut cluster, &claims(1, 1, Vec::new())), Some(Ok(())));
        cluster.subscribe(1, "default");
        cluster.demand(1, "cpus=1", 1);
        cluster.allocate();
        let task = cluster.accept(1, "cpus=1", 1).remove(0);
        let held = cluster.held(&task);
        (cluster, vec![held])
    }

    fn ended(held: &[Held]) -> Vec<Held> {
        let mut ended = held.to_vec();
        for one in &mut ended {
            (one.update.state, one.update.is_final, one.update.seq) = (TaskState::Dropped, true, one.update.seq + 1);
        }
        ended
    }

    /// Shows that a copy on another machine is refused while the agent answers, and that its word on what runs is not taken;
    /// the agent itself goes on.
    #[test]
    fn a_copy() {
        let (mut cluster, held) = with_a_task();
        let copy = claims(2, 2, ended(&held));
        assert_eq!(say(&mut cluster, &copy), None, "it is not known yet");
        cluster.now_ms += 10;
        assert_eq!(say(&mut cluster, &claims(1, 1, held.clone())), Some(Ok(())), "the one that was asked");
        cluster.now_ms += ANSWER_MS_MAX;
        assert_eq!(say(&mut cluster, &copy), Some(Err(RefusalCode::NameHeld)));
        assert_eq!(cluster.cpus(1), 1);
    }

    /// Shows that a machine which was started anew gets its place once its former process leaves a question unanswered, and
    /// that a process on the same boot gets it at once.
    #[test]
    fn an_heir() {
        let (mut cluster, held) = with_a_task();
        assert_eq!(say(&mut cluster, &claims(2, 1, held.clone())), Some(Ok(())));
        let heir = claims(3, 2, ended(&held));
        assert_eq!(say(&mut cluster, &heir), None);
        cluster.now_ms += ANSWER_MS_MAX;
        assert_eq!(say(&mut cluster, &heir), Some(Ok(())));
        assert_eq!(cluster.cpus(1), 0);
    }
}
