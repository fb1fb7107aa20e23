//! The record of events, where it has to be made anew: what the leader still knows is told again.

use crate::master::{Effect, Lead};
use crate::offerer::Place;

impl Lead {
    /// The record is empty. Those who look up an end there find the ones that this leader remembers, [`ENDED_MAX`] at most;
    /// what lives is asked of the leader itself. Places in the record count from 1 again, so nobody has read any.
    ///
    /// [`ENDED_MAX`]: crate::master::ENDED_MAX
    pub(super) fn record_renewed(&mut self) {
        let ended = self.ended.iter().filter_map(|task| self.ended_rows.get(task)).map(|(update, _)| update.clone());
        let again: Vec<Effect> = ended.map(|update| Effect::Publish(Box::new(update))).collect();
        let message = format!("the record of events could not be read and was made anew, with the {} ends of tasks that are known", again.len());
        self.tell("record_renewed", self.config.master.to_string(), message);
        self.out.extend(again);
        for framework in self.frameworks.values_mut() {
            framework.seen = Place::default();
        }
        self.register_frameworks();
    }
}

#[cfg(test)]
mod tests {
    use crate::master::testcluster::{Cluster, agent, framework};
    use crate::master::{Effect, Event};
    use crate::task::TaskState;
    use crate::wire::Update;

    /// Shows that a record which was made anew gets the ends that are known once more, as they were told, and nothing of
    /// what lives; and that it is said.
    #[test]
    fn ends_are_told_again() {
        let mut cluster = Cluster::new();
        cluster.join(1, "cpus=4,mem=1G");
        cluster.subscribe(1, "default");
        cluster.demand(1, "cpus=1", 2);
        cluster.allocate();
        let tasks = cluster.accept(1, "cpus=1", 2);
        let end = Update { state: TaskState::Finished, is_final: true, seq: 2, agent_seq: 1, ..cluster.held(&tasks[0]).update };
        cluster.step(Event::Status { agent: agent(1), update: Box::new(end.clone()) });
        let effects = cluster.step(Event::RecordRenewed);
        let told: Vec<&Update> = effects.iter().filter_map(|effect| if let Effect::Publish(update) = effect { Some(&**update) } else { None }).collect();
        assert_eq!(told, [&end]);
        assert_eq!(told[0].framework, framework(1));
        assert!(cluster.happened.iter().any(|kind| kind == "record_renewed"));
    }
}
