//! What may run here: the agent's own check, should the leader's books be wrong.
//!
//! There are two pools, and each is checked apart. What the agent has is given to tasks for good. What these hold and do
//! not use is lent to others; how much that is changes all the time, and when it shrinks below what is lent, those
//! others run on until the leader takes it back from them: it alone knows who should go first.

use crate::resources::Resources;
use crate::wire::Launch;

/// The reason of what is not launched for the disk's sake.
const DISK: &str = "agent_disk";

/// What the tasks here hold.
#[derive(Debug, Default)]
pub(super) struct Admission {
    total: Resources,
    used: Resources,
    /// How much may be lent; none where nothing is known of it.
    lent: Option<Resources>,
    lent_used: Resources,
    /// What the leader was told may be lent.
    told: Option<Resources>,
    /// The leader's books hold all that is lent, though it is more than may be: what is given back is not to be lent again.
    is_over: bool,
    /// Something was given back that the leader would lend again.
    is_stale: bool,
    /// What is wrong with the agent's disk: nothing is launched until it is well.
    disk_fault: Option<String>,
    /// Whether the leader believes that the agent takes no tasks.
    told_closed: bool,
}

impl Admission {
    /// Nothing runs yet.
    pub(super) fn new(total: Resources) -> Self {
        Admission { total, ..Admission::default() }
    }

    /// What tasks hold for good.
    pub(super) fn used(&self) -> &Resources {
        &self.used
    }

    /// What is lent to tasks.
    pub(super) fn lent_used(&self) -> &Resources {
        &self.lent_used
    }

    /// Why there is no room for a launch that is not charged yet, if there is none: a stable word, and for people.
    pub(super) fn why_not(&self, launch: &Launch) -> Option<(&'static str, String)> {
        if let Some(fault) = &self.disk_fault {
            return Some((DISK, fault.clone()));
        }
        let needed = &launch.resources;
        let nothing = Resources::default();
        let (all, used, what) = if launch.lent {
            (self.lent.as_ref().unwrap_or(&nothing), &self.lent_used, "may be lent here")
        } else {
            (&self.total, &self.used, "free here")
        };
        let free = all.checked_sub(used).unwrap_or_default();
        (!free.contains(needed)).then(|| ("agent_full", format!("it needs {needed}, {what} is {free}")))
    }

    /// The disk is not well, or is again.
    pub(super) fn set_disk_fault(&mut self, fault: Option<String>) {
        self.disk_fault = fault;
    }

    /// Counts what a launch holds, unless it clashes with what is held: then it is about to be refused. Says whether it counts.
    pub(super) fn charge(&mut self, launch: &Launch) -> bool {
        let used = self.used_of(launch);
        match used.checked_add(&launch.resources) {
            Some(sum) => {
                *used = sum;
                true
            }
            None => false,
        }
    }

    /// A launch that was charged holds nothing any more.
    pub(super) fn refund(&mut self, launch: &Launch) {
        self.is_stale |= launch.lent && (self.is_over || self.lent.is_none());
        let used = self.used_of(launch);
        *used = used.checked_sub(&launch.resources).expect("what was charged is part of what is used");
    }

    /// Nobody holds anything.
    pub(super) fn clear(&mut self) {
        self.used = Resources::default();
        self.lent_used = Resources::default();
    }

    /// So much may be lent from now on.
    pub(super) fn set_lent(&mut self, lent: Resources) {
        self.lent = Some(lent);
    }

    /// Whether the leader has to hear at once: less may be lent than it counts on, or no tasks are taken, or are again.
    pub(super) fn is_pressed(&self) -> bool {
        self.is_stale || self.disk_fault.is_some() != self.told_closed || (self.lent.as_ref().is_some_and(|lent| !lent.contains(&self.lent_used)) && self.lent != self.told)
    }

    /// What to tell the leader of it; it counts as told. While nothing is known, those who have something keep it, and
    /// nobody gets more.
    pub(super) fn tell_lent(&mut self) -> Option<Resources> {
        let has_ever_lent = self.told.is_some() || !self.lent_used.is_empty();
        let lent = self.lent.as_ref().filter(|_| self.disk_fault.is_none());
        self.told = lent.cloned().or_else(|| has_ever_lent.then(|| self.lent_used.clone()));
        self.is_over = self.told.as_ref().is_some_and(|lent| !lent.contains(&self.lent_used));
        self.is_stale = false;
        self.told.clone()
    }

    /// What to tell the leader of whether tasks are taken; it counts as told.
    pub(super) fn tell_closed(&mut self) -> Option<String> {
        self.told_closed = self.disk_fault.is_some();
        self.told_closed.then(|| DISK.to_owned())
    }

    /// A leader that takes this agent in is told who holds what, and nothing else yet.
    pub(super) fn forget_told(&mut self) {
        self.told = None;
        self.told_closed = false;
        self.is_over = false;
        self.is_stale = false;
    }

    fn used_of(&mut self, launch: &Launch) -> &mut Resources {
        if launch.lent { &mut self.lent_used } else { &mut self.used }
    }
}

#[cfg(test)]
mod tests {
    use crate::agent::record::Record;
    use crate::agent::testagent::{self, TestAgent};
    use crate::agent::{Agent, Config, Effect, Ending, Event, Usage};
    use crate::id::{MasterId, Nonce, TaskId};
    use crate::resources::{Resources, parse_total};
    use crate::task::TaskState;
    use crate::wire::Launch;
    use crate::wire::agent::{Beat, Beaten, Command, Order, Welcome};

    const BEAT_MS: u64 = 15_000;

    fn resources(text: &str) -> Resources {
        parse_total(text).expect("plain resources")
    }

    fn config() -> Config {
        Config { total: resources("cpus=4,mem=1024,ports=[31000-31003]"), ..testagent::config() }
    }

    fn launch(no: u64, lent: bool, needs: &str) -> Launch {
        Launch { resources: resources(needs), revocable: lent, lent, ..TestAgent::launch(no, None) }
    }

    /// An agent that a leader has taken in, and all that it has written down.
    struct World {
        agent: Agent,
        now_ms: u64,
        records: Vec<Record>,
    }

    impl World {
        fn new(agent: Agent) -> Self {
            let mut world = World { agent, now_ms: 0, records: Vec::new() };
            world.step(Event::Tick);
            for _ in 0..2 {
                world.step(Event::Welcome(Some(Welcome::Welcome { epoch: 1, master: MasterId::fresh(1), beat_ms: BEAT_MS, timeout_ms: None })));
            }
            assert!(world.agent.joined());
            world
        }

        fn step(&mut self, event: Event) -> Vec<Effect> {
            self.now_ms += 1;
            let effects = self.agent.step(self.now_ms, event);
            self.records.extend(effects.iter().filter_map(|effect| if let Effect::Persist(record) = effect { Some(record.clone()) } else { None }));
            effects
        }

        /// Whether a launch is obeyed; if not, with what message it is refused.
        fn launch(&mut self, no: u64, lent: bool, needs: &str) -> Result<(), String> {
            let order = Order::Launch { launches: vec![launch(no, lent, needs)] };
            let effects = self.step(Event::Command(Command { epoch: 1, incarnation: Nonce::fresh(1, 1), order }));
            let refusal = effects.iter().find_map(|effect| match effect {
                Effect::Send(update) => Some(update.clone()),
                _ => None,
            });
            match refusal {
                Some(update) => {
                    assert_eq!((update.state, update.reason.as_deref()), (TaskState::Dropped, Some("agent_full")));
                    Err(update.message.unwrap_or_default())
                }
                None => {
                    assert!(effects.iter().any(|effect| matches!(effect, Effect::Launch(_))));
                    Ok(())
                }
            }
        }

        /// What it says in a beat at once, if it beats.
        fn lend(&mut self, text: &str) -> Option<Beat> {
            beat_of(self.step(Event::Lent { resources: resources(text) }))
        }

        fn beaten(&mut self) -> Option<Beat> {
            beat_of(self.step(Event::Beaten(Some(Beaten { epoch: 1, known: true, seen: 0 }))))
        }

        /// A task ends; what it says in a beat at once, if it beats.
        fn end(&mut self, no: u64) -> Option<Beat> {
            beat_of(self.step(Event::Ended { task: TaskId::fresh(no), ending: Ending::Exited { code: Some(0), signal: None }, usage: Usage::default() }))
        }

        /// The next beat in its own time.
        fn next_beat(&mut self) -> Beat {
            self.now_ms += BEAT_MS;
            beat_of(self.step(Event::Tick)).expect("it beats")
        }
    }

    fn beat_of(effects: Vec<Effect>) -> Option<Beat> {
        effects.into_iter().find_map(|effect| if let Effect::Beat(beat) = effect { Some(beat) } else { None })
    }

    /// Shows that each pool has its own room: what is lent takes nothing from what is given for good, nor the other way.
    #[test]
    fn pools_are_apart() {
        let mut world = World::new(Agent::new(config(), 0));
        assert_eq!(world.launch(1, true, "cpus=0.1"), Err("it needs cpus=0.1, may be lent here is cpus=0".to_owned()), "nothing is known of it");
        world.lend("cpus=2,mem=512");
        assert_eq!(world.launch(2, true, "cpus=1.5,mem=512"), Ok(()));
        assert_eq!(world.launch(3, false, "cpus=4,mem=1024,ports=[31000-31003]"), Ok(()));
        assert_eq!(world.launch(4, true, "cpus=0.6"), Err("it needs cpus=0.6, may be lent here is cpus=0.5".to_owned()));
        assert_eq!(world.launch(5, false, "cpus=0.5"), Err("it needs cpus=0.5, free here is cpus=0".to_owned()));
        assert!(world.launch(6, true, "cpus=0.1,ports=[31000]").is_err(), "ports are not lent");
        assert_eq!((world.agent.used().clone(), world.agent.lent_used().clone()), (resources("cpus=4,mem=1024,ports=[31000-31003]"), resources("cpus=1.5,mem=512")));
        world.end(2);
        assert_eq!(world.launch(7, true, "cpus=2"), Ok(()), "it is given back");
        world.end(3);
        assert_eq!(world.launch(8, false, "cpus=4"), Ok(()));
    }

    /// Shows that nothing is said of lending before anything is known of it, that what is known is in every beat, and that
    /// it is said at once, and once, when less may be lent than is.
    #[test]
    fn said_in_beats() {
        let mut world = World::new(Agent::new(config(), 0));
        assert_eq!(world.next_beat().lent, None);
        world.beaten();
        assert_eq!(world.lend("cpus=3"), None, "more can wait");
        assert_eq!(world.next_beat().lent, Some(resources("cpus=3")));
        world.beaten();
        assert_eq!(world.launch(1, true, "cpus=2"), Ok(()));
        assert_eq!(world.lend("cpus=2"), None, "it is still enough");
        assert_eq!(world.lend("cpus=1.9").map(|beat| beat.lent), Some(Some(resources("cpus=1.9"))));
        assert_eq!(world.lend("cpus=1"), None, "a beat is on its way");
        assert_eq!(world.beaten().map(|beat| beat.lent), Some(Some(resources("cpus=1"))), "and the next one follows it");
        assert_eq!(world.beaten(), None);
        assert_eq!(world.lend("cpus=1"), None, "that was said");
        assert_eq!(world.launch(2, true, "cpus=0.1"), Err("it needs cpus=0.1, may be lent here is cpus=0".to_owned()));
        world.end(1);
        assert_eq!(world.launch(3, true, "cpus=1"), Ok(()));
    }

    /// Shows that nothing is launched while the disk is not well, that what runs ends as ever, and that the leader hears of both at once, and once.
    #[test]
    fn closed_for_its_disk() {
        let mut world = World::new(Agent::new(config(), 0));
        world.lend("cpus=2");
        assert_eq!((world.launch(1, false, "cpus=1"), world.launch(2, true, "cpus=1")), (Ok(()), Ok(())));
        let disk = |fault: Option<&str>| Event::Disk { fault: fault.map(str::to_owned) };
        let beat = beat_of(world.step(disk(Some("the disk is full")))).expect("it cannot wait");
        assert_eq!((beat.closed.as_deref(), beat.lent), (Some("agent_disk"), Some(resources("cpus=1"))), "nothing more is lent either");
        assert_eq!(beat_of(world.step(disk(Some("the disk is still full")))), None, "that was said");
        assert_eq!(world.beaten(), None);
        for (no, lent) in [(3, false), (4, true)] {
            let order = Order::Launch { launches: vec![launch(no, lent, "cpus=0.1")] };
            let effects = world.step(Event::Command(Command { epoch: 1, incarnation: Nonce::fresh(1, 1), order }));
            let refused = effects.iter().find_map(|effect| if let Effect::Send(update) = effect { Some((update.state, update.reason.as_deref(), update.message.as_deref())) } else { None });
            assert_eq!(refused, Some((TaskState::Dropped, Some("agent_disk"), Some("the disk is still full"))));
            assert!(!effects.iter().any(|effect| matches!(effect, Effect::Launch(_))));
        }
        world.end(1);
        assert_eq!(world.next_beat().closed.as_deref(), Some("agent_disk"));
        world.beaten();
        let beat = beat_of(world.step(disk(None))).expect("it cannot wait");
        assert_eq!((beat.closed, beat.lent), (None, Some(resources("cpus=2"))));
        world.beaten();
        assert_eq!((world.launch(5, false, "cpus=1"), world.launch(6, true, "cpus=0.5")), (Ok(()), Ok(())));
        // Another leader knows nothing of it.
        beat_of(world.step(disk(Some("the disk is full"))));
        world.step(Event::Beaten(None));
        let welcome = || Event::Welcome(Some(Welcome::Welcome { epoch: 2, master: MasterId::fresh(2), beat_ms: BEAT_MS, timeout_ms: None }));
        world.step(welcome());
        assert_eq!(beat_of(world.step(welcome())).and_then(|beat| beat.closed).as_deref(), Some("agent_disk"));
    }

    /// Shows that all tasks can be ended at once, each with its own grace, for one reason.
    #[test]
    fn all_are_ended() {
        let mut world = World::new(Agent::new(config(), 0));
        assert_eq!((world.launch(1, false, "cpus=1"), world.launch(2, false, "cpus=1")), (Ok(()), Ok(())));
        let effects = world.step(Event::EndAll { reason: "agent_cleanup" });
        let killed: Vec<_> = effects.iter().filter_map(|effect| if let Effect::Kill { task, grace_ms } = effect { Some((task.clone(), *grace_ms)) } else { None }).collect();
        assert_eq!(killed, vec![(TaskId::fresh(1), super::super::KILL_GRACE_MS), (TaskId::fresh(2), super::super::KILL_GRACE_MS)]);
        let effects = world.step(Event::Ended { task: TaskId::fresh(1), ending: Ending::Exited { code: None, signal: Some(15) }, usage: Usage::default() });
        let said = effects.iter().find_map(|effect| if let Effect::Persist(Record::Status { update }) = effect { Some((update.state, update.reason.clone())) } else { None });
        assert_eq!(said, Some((TaskState::Killed, Some("agent_cleanup".to_owned()))));
        assert_eq!(world.agent.live().count(), 1);
    }

    /// Shows that the leader hears at once when something is given back that is not to be lent again.
    #[test]
    fn given_back() {
        let mut world = World::new(Agent::new(config(), 0));
        world.lend("cpus=3");
        for no in 1..=3 {
            assert_eq!(world.launch(no, true, "cpus=1"), Ok(()));
        }
        assert_eq!(world.end(1), None, "it may be lent again");
        assert_eq!(world.lend("cpus=0.5").map(|beat| beat.lent), Some(Some(resources("cpus=0.5"))));
        world.beaten();
        for no in 2..=3 {
            assert_eq!(world.end(no).map(|beat| beat.lent), Some(Some(resources("cpus=0.5"))), "{no}");
            assert_eq!(world.beaten(), None);
        }
        assert_eq!(world.launch(4, true, "cpus=0.5"), Ok(()));
        assert_eq!(world.end(4), None);
    }

    /// Shows that after a restart what was lent is known and runs on, whatever may be lent now, and that a leader hears of it first.
    #[test]
    fn recovered() {
        let mut before = World::new(Agent::new(config(), 0));
        before.lend("cpus=3");
        assert_eq!((before.launch(1, true, "cpus=2"), before.launch(2, false, "cpus=3"), before.launch(3, true, "cpus=1")), (Ok(()), Ok(()), Ok(())));
        before.end(3);
        let snapshot = before.agent.snapshot();
        for records in [before.records.clone(), snapshot] {
            let mut world = World::new(Agent::recover(config(), 0, records));
            assert_eq!((world.agent.used().clone(), world.agent.lent_used().clone()), (resources("cpus=3"), resources("cpus=2")));
            assert_eq!(world.next_beat().lent, Some(resources("cpus=2")), "nothing more is lent before anything is known");
            world.beaten();
            let beat = world.lend("cpus=1").expect("it cannot wait");
            assert_eq!((beat.lent, world.agent.live().count()), (Some(resources("cpus=1")), 2));
            // The answer is lost: whoever leads now is told anew.
            world.step(Event::Beaten(None));
            let welcome = || Event::Welcome(Some(Welcome::Welcome { epoch: 2, master: MasterId::fresh(2), beat_ms: BEAT_MS, timeout_ms: None }));
            assert_eq!(beat_of(world.step(welcome())), None, "it registers again under the new epoch");
            assert!(beat_of(world.step(welcome())).is_some_and(|beat| beat.epoch == 2 && beat.lent == Some(resources("cpus=1"))));
        }
    }
}
