//! The invariants. The judge sees what really happens, which no machine does, and compares it with what is said.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use meso_core::agent::Ending;
use meso_core::id::{AgentId, TaskId};
use meso_core::lease::LeaseTimes;
use meso_core::task::TaskState;
use meso_core::wire::{Launch, LaunchId, Update};

/// The names of the invariants, as the design lists them.
pub mod law {
    /// A launch is spawned at most once, ever, anywhere.
    pub const ONCE: &str = "1 a launch is spawned once";
    /// Per agent: free + offered + used = total, each thing in one hand.
    pub const BOOKS: &str = "2 the books balance";
    /// What runs on an agent never exceeds what it has.
    pub const ROOM: &str = "3 an agent runs no more than it has";
    /// One leader acts per epoch, epochs rise, agents obey no lower one.
    pub const EPOCH: &str = "4 epochs";
    /// States follow the machine, in order, and a final one is final and true.
    pub const STATES: &str = "5 states of a task";
    /// A status that anyone saw is on its agent's disk.
    pub const DURABLE: &str = "6 durable before it is seen";
    /// No failure kills a task whose framework lives.
    pub const LIVES: &str = "7 no failure kills a task";
    /// What is said of a task is what became of it.
    pub const TRUTH: &str = "8 outcomes are true";
    /// Of a name one session is obeyed, an offer is used once, by the session it was made to, and free again in its time.
    pub const SESSIONS: &str = "10 sessions";
    /// Statuses reach a framework's reader in order, and again until they are acknowledged.
    pub const STATUSES: &str = "11 statuses are told until acknowledged";
    /// Only who holds more than an even part of the cluster has to make room for others.
    pub const REVOKED: &str = "12 nobody is revoked of what is its share";
    /// Whom an operator declared gone is never taken in again, and nothing of it runs on once it knows.
    pub const GONE: &str = "13 gone is for good";
    /// Nothing is offered of what an agent has that told its leader of a full disk.
    pub const CLOSED: &str = "15 a full disk is given nothing";
    /// A process of others is neither adopted nor ended, whatever its number.
    pub const STRANGERS: &str = "16 processes of others are left alone";
    /// What is not to run on out of reach does not.
    pub const UNKEPT: &str = "14 what is not kept ends";
    /// A leader gives up before another may take the lease, whatever its clock says.
    pub const LEASE: &str = "17 a leader gives up in time";
    /// After the faults everything comes to its end.
    pub const LIVENESS: &str = "9 everything comes to an end";
}

/// A broken invariant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// When, milliseconds of the simulated clock.
    pub at_ms: u64,
    /// One of [`law`].
    pub law: &'static str,
    /// What happened.
    pub what: String,
}

/// What really became of a task.
#[derive(Clone, Debug, Default)]
struct Truth {
    client: usize,
    spawned: Option<LaunchId>,
    ended: Option<Ending>,
    lost: bool,
    kill_ordered: bool,
    /// It had to make room for others.
    revoked: bool,
    /// It was not to run on out of reach, and its end was ordered for that.
    unkept: bool,
    /// A final state was shown to somebody.
    final_seen: Option<TaskState>,
    /// On the agent's disk.
    written: Option<(u64, TaskState)>,
    /// In the stream, by the agent's word.
    stored: Option<(u64, TaskState)>,
    /// As its client was told.
    told: Option<TaskState>,
}

/// The judge.
#[derive(Debug, Default)]
pub struct Judge {
    /// The first broken invariant.
    pub violation: Option<Violation>,
    now_ms: u64,
    spawned: BTreeMap<LaunchId, usize>,
    tasks: HashMap<TaskId, Truth>,
    owners: HashMap<(u64, Option<usize>), (usize, u64)>,
    /// When the store took the last record of the lease of each run of a master.
    renewed: HashMap<(usize, u64), u64>,
    /// The numbers of the statuses on each agent's disk: all up to this one.
    written: Vec<u64>,
    obeyed: Vec<u64>,
    /// Whom an operator asked to declare gone.
    declared: BTreeSet<AgentId>,
    /// Of whom somebody was told that its tasks are gone.
    gone: BTreeSet<AgentId>,
    /// Whose log was rewritten: what was not stored by then is told as its last status only.
    rewritten: Vec<bool>,
}

impl Judge {
    /// A judge of so many agents.
    pub fn new(agents: usize) -> Self {
        Judge { written: vec![0; agents], obeyed: vec![0; agents], rewritten: vec![false; agents], ..Judge::default() }
    }

    /// Says what time it is.
    pub fn at(&mut self, now_ms: u64) {
        self.now_ms = now_ms;
    }

    /// Notes a broken invariant, if it is the first.
    pub fn fail(&mut self, law: &'static str, what: impl FnOnce() -> String) {
        if self.violation.is_none() {
            self.violation = Some(Violation { at_ms: self.now_ms, law, what: what() });
        }
    }

    /// A client asks for this task to be launched.
    pub fn wanted(&mut self, client: usize, task: &TaskId) {
        match self.tasks.get(task) {
            Some(truth) if truth.client != client => self.fail(law::TRUTH, || format!("task {task} is of two clients")),
            Some(_) => {}
            None => {
                self.tasks.insert(task.clone(), Truth { client, ..Truth::default() });
            }
        }
    }

    /// Whose task it is.
    pub fn client_of(&self, task: &TaskId) -> Option<usize> {
        self.tasks.get(task).map(|truth| truth.client)
    }

    /// A process is made for a launch.
    pub fn spawn(&mut self, agent: usize, launch: &Launch) {
        if let Some(before) = self.spawned.insert(launch.launch.clone(), agent) {
            return self.fail(law::ONCE, || format!("launch {:?} of task {} was spawned on agent {before} and again on {agent}", launch.launch, launch.task));
        }
        let Some(truth) = self.tasks.get_mut(&launch.task) else {
            return self.fail(law::TRUTH, || format!("task {} was spawned and nobody asked for it", launch.task));
        };
        if let Some(before) = &truth.spawned {
            let what = format!("task {} was spawned as {before:?} and again as {:?}", launch.task, launch.launch);
            return self.fail(law::ONCE, || what);
        }
        truth.spawned = Some(launch.launch.clone());
        if let Some(state) = truth.final_seen.filter(|state| *state != TaskState::Gone) {
            self.fail(law::STATES, || format!("task {} was spawned after somebody was told that it is {state}", launch.task));
        }
    }

    /// An operator asks to declare an agent gone.
    pub fn declare(&mut self, agent: &AgentId) {
        self.declared.insert(agent.clone());
    }

    /// Whether an operator did.
    pub fn is_declared(&self, agent: &AgentId) -> bool {
        self.declared.contains(agent)
    }

    /// A leader says that tasks of an agent are gone.
    pub fn gone_told(&mut self, agent: &AgentId) {
        self.gone.insert(agent.clone());
        if !self.declared.contains(agent) {
            self.fail(law::GONE, || format!("agent {agent} is said to be gone, and nobody declared it so"));
        }
    }

    /// A leader takes an agent in.
    pub fn taken_in(&mut self, master: usize, agent: &AgentId) {
        if self.gone.contains(agent) {
            self.fail(law::GONE, || format!("master {master} takes agent {agent} in, whose tasks were told to be gone"));
        }
    }

    /// A machine of a gone agent is given out anew, with an empty disk.
    pub fn begins_anew(&mut self, agent: usize) {
        (self.written[agent], self.obeyed[agent], self.rewritten[agent]) = (0, 0, false);
    }

    /// A task that is not to run on out of reach is to end for that.
    pub fn unkept(&mut self, task: &TaskId) {
        if let Some(truth) = self.tasks.get_mut(task) {
            truth.unkept = true;
        }
    }

    /// Whether a task may end though nobody of its framework asked for it.
    pub fn may_end(&self, task: &TaskId) -> bool {
        self.tasks.get(task).is_some_and(|truth| truth.revoked || truth.unkept)
    }

    /// A process ended.
    pub fn ended(&mut self, task: &TaskId, ending: Ending) {
        if let Some(truth) = self.tasks.get_mut(task) {
            truth.ended = Some(ending);
        }
    }

    /// A process went down with its machine.
    pub fn lost(&mut self, task: &TaskId) {
        if let Some(truth) = self.tasks.get_mut(task) {
            truth.lost = true;
        }
    }

    /// A master ended a task to make room for others, and was right in it.
    pub fn revoked(&mut self, task: &TaskId) {
        if let Some(truth) = self.tasks.get_mut(task) {
            truth.revoked = true;
        }
    }

    /// Whether a task had to make room for others.
    pub fn is_revoked(&self, task: &TaskId) -> bool {
        self.tasks.get(task).is_some_and(|truth| truth.revoked)
    }

    /// An agent was ordered to end a task.
    pub fn kill_ordered(&mut self, task: &TaskId) {
        if let Some(truth) = self.tasks.get_mut(task) {
            truth.kill_ordered = true;
        }
    }

    /// A status is safe on an agent's disk.
    pub fn written(&mut self, agent: usize, update: &Update) {
        self.written[agent] = self.written[agent].max(update.agent_seq);
        let Some(truth) = self.tasks.get_mut(&update.task) else { return };
        let before = truth.written.replace((update.seq, update.state));
        let (seq, state) = before.unwrap_or((0, TaskState::Staging));
        if update.seq != seq + 1 || !state.may_become(update.state) {
            self.fail(law::STATES, || format!("agent {agent} wrote {} number {} of task {} after {state} number {seq}", update.state, update.seq, update.task));
        }
    }

    /// An agent found a status in its log: a write that nobody was told of may have been whole all the same.
    pub fn found(&mut self, agent: usize, update: &Update) {
        if update.agent_seq > self.written[agent] {
            self.written(agent, update);
        }
    }

    /// An agent has rewritten its log.
    pub fn rewritten(&mut self, agent: usize) {
        self.rewritten[agent] = true;
    }

    /// An agent sends a status.
    pub fn sent(&mut self, agent: usize, update: &Update) {
        if update.agent_seq > self.written[agent] {
            self.fail(law::DURABLE, || format!("agent {agent} sends {} of task {}, which is not on its disk", update.state, update.task));
        }
    }

    /// A status is in the stream, where everybody can see it.
    pub fn stored(&mut self, update: &Update, agent: Option<usize>) {
        let gaps = agent.is_none_or(|agent| self.rewritten[agent]);
        let Some(truth) = self.tasks.get_mut(&update.task) else { return };
        if update.agent_seq > 0 {
            let (seq, state) = truth.stored.unwrap_or((0, TaskState::Staging));
            if update.seq <= seq {
                return;
            }
            truth.stored = Some((update.seq, update.state));
            if !state.may_become(update.state) {
                return self.fail(law::STATES, || format!("{} of task {} was stored after {state}", update.state, update.task));
            }
            if update.seq != seq + 1 && !gaps {
                return self.fail(law::STATES, || format!("number {} of task {} was stored after number {seq}", update.seq, update.task));
            }
        }
        self.final_shown(update);
    }

    /// Somebody sees a status; if it is final, nothing of the task may be left, then or later.
    fn final_shown(&mut self, update: &Update) {
        let Some(truth) = self.tasks.get_mut(&update.task).filter(|_| update.is_final) else { return };
        let alive = truth.spawned.is_some() && truth.ended.is_none() && !truth.lost;
        // A master may repeat a guess of its own after the agent has spoken: readers have had the truth before.
        if update.agent_seq == 0 && truth.stored.is_some_and(|(_, state)| state.is_final()) {
            return;
        }
        truth.final_seen = Some(update.state);
        // What becomes of it where nobody can see it is what nobody claims to know.
        if alive && update.state != TaskState::Gone {
            self.fail(law::STATES, || format!("task {} runs and is said to be {} ({:?})", update.task, update.state, update.reason));
        }
    }

    /// A client is told a status.
    pub fn told(&mut self, client: usize, update: &Update) {
        let Some(truth) = self.tasks.get_mut(&update.task) else { return };
        let before = truth.told.replace(update.state).unwrap_or(TaskState::Staging);
        if truth.client != client {
            return self.fail(law::TRUTH, || format!("client {client} was told of task {}, which is another's", update.task));
        }
        if !before.may_become(update.state) {
            return self.fail(law::STATES, || format!("client {client} was told {} of task {} after {before}", update.state, update.task));
        }
        if update.is_final {
            let alive = truth.spawned.is_some() && truth.ended.is_none() && !truth.lost;
            truth.final_seen = Some(update.state);
            let honest = honest(truth, update);
            if alive && update.state != TaskState::Gone {
                self.fail(law::STATES, || format!("task {} runs and client {client} was told that it is {}", update.task, update.state));
            } else if let Err(why) = honest {
                self.fail(law::TRUTH, || format!("client {client} was told {} ({:?}) of task {}: {why}", update.state, update.reason, update.task));
            }
        }
    }

    /// The store took a master's record of the lease.
    pub fn renewed(&mut self, master: usize, run: u64) {
        self.renewed.insert((master, run), self.now_ms);
    }

    /// A master acts as the leader: not beyond the time after which another may take the lease, by true time.
    pub fn leads(&mut self, master: usize, run: u64) {
        let since_ms = self.renewed.get(&(master, run)).map_or(u64::MAX, |renewed_ms| self.now_ms - renewed_ms);
        if since_ms > LeaseTimes::SINGLE.lease_ms() {
            self.fail(law::LEASE, || format!("master {master} acts {since_ms} ms after the store took its last record"));
        }
    }

    /// A master commands an agent under an epoch. Where the record of all epochs can be lost, a leader may take a number
    /// again that none of its agents knows: then the epoch has one owner for each agent.
    pub fn acts(&mut self, master: usize, run: u64, epoch: u64, agent: usize, forgetful: bool) {
        let owner = *self.owners.entry((epoch, forgetful.then_some(agent))).or_insert((master, run));
        if owner != (master, run) {
            self.fail(law::EPOCH, || format!("master {master} (run {run}) acts under epoch {epoch}, which is of master {} (run {})", owner.0, owner.1));
        }
    }

    /// An agent obeyed a command of this epoch, or wrote down that it will.
    pub fn obeyed(&mut self, agent: usize, epoch: u64) {
        if epoch < self.obeyed[agent] {
            let before = self.obeyed[agent];
            return self.fail(law::EPOCH, || format!("agent {agent} obeyed epoch {epoch} after {before}"));
        }
        self.obeyed[agent] = epoch;
    }

    /// An agent says which epoch it obeys.
    pub fn fence(&mut self, agent: usize, epoch: u64) {
        if epoch < self.obeyed[agent] {
            let before = self.obeyed[agent];
            self.fail(law::EPOCH, || format!("agent {agent} would obey epoch {epoch} after it obeyed {before}"));
        }
    }
}

/// Compares a final status with what became of the task.
fn honest(truth: &Truth, update: &Update) -> Result<(), String> {
    let is = |state: TaskState, what: &str| if update.state == state { Ok(()) } else { Err(what.to_owned()) };
    let codes = |code: Option<i32>, signal: Option<i32>| {
        if (update.exit, update.signal) == (code, signal) {
            Ok(())
        } else {
            Err(format!("it ended with {code:?} and signal {signal:?}, not {:?} and {:?}", update.exit, update.signal))
        }
    };
    match (&truth.ended, &truth.spawned) {
        // That its agent was declared so is judged where it is said.
        _ if update.state == TaskState::Gone => Ok(()),
        _ if truth.lost => is(TaskState::Dropped, "it went down with its machine"),
        (None, None) if update.state == TaskState::Killed && update.reason.as_deref() == Some("killed_before_start") => Ok(()),
        (None, _) => is(TaskState::Dropped, "it was never spawned"),
        (Some(Ending::Exited { code, signal }), _) => {
            codes(*code, *signal)?;
            match update.state {
                TaskState::Killed if truth.kill_ordered => Ok(()),
                TaskState::Finished if *code == Some(0) => Ok(()),
                TaskState::Failed if *code != Some(0) => Ok(()),
                _ => Err(format!("it exited with {code:?} and signal {signal:?}")),
            }
        }
        (Some(Ending::Timeout { code, signal }), _) => is(TaskState::Failed, "its time was over").and_then(|()| codes(*code, *signal)),
        (Some(Ending::MemoryLimit { .. }), _) => is(TaskState::Failed, "it was out of memory").and_then(|()| codes(None, Some(9))),
        (Some(Ending::NotStarted { code, .. }), _) => is(TaskState::Failed, "it could not be started").and_then(|()| codes(*code, None)),
        (Some(Ending::Lost { .. }), _) => is(TaskState::Dropped, "it was lost"),
    }
}
