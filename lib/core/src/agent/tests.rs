use super::*;
use crate::agent::testagent::TestAgent;
use crate::wire::agent::Beaten;

fn settled(effects: &[Effect]) -> Vec<TaskId> {
    effects.iter().filter_map(|effect| if let Effect::Settled { task } = effect { Some(task.clone()) } else { None }).collect()
}

/// Shows that a status counts as stored by the word on that very status, and as seen by the word of the leader that is
/// obeyed: an answer of another settles nothing, whatever it says.
#[test]
fn answers_of_others() {
    let mut agent = TestAgent::joined(None);
    agent.run(1, None);
    agent.end(1);
    let task = TaskId::fresh(1);
    let stored = |seq| Event::Stored { task: TaskId::fresh(1), seq, ok: true };
    let beaten = |epoch| Event::Beaten(Some(Beaten { epoch, known: true, seen: 99 }));
    // Of what is not on its way, or of another task.
    for event in [stored(2), stored(9), Event::Stored { task: TaskId::fresh(2), seq: 1, ok: true }] {
        assert_eq!(agent.step(event), []);
    }
    agent.step(beaten(1));
    assert_eq!(agent.agent.unsettled().count(), 1, "seen, but not known to be stored");
    agent.step(stored(1));
    // Of a leader before, and of one that it has not registered with.
    for epoch in [0, 2] {
        let mut agent = TestAgent::joined(None);
        agent.run(1, None);
        agent.end(1);
        let effects = [stored(1), stored(2), beaten(epoch)].map(|event| agent.step(event)).concat();
        assert_eq!(settled(&effects), []);
        assert!(effects.iter().any(|effect| matches!(effect, Effect::Hello(_))), "it asks who leads: {effects:?}");
        agent.welcomed(None);
        assert_eq!(settled(&agent.step(beaten(1))), [task.clone()]);
    }
    assert_eq!(settled(&agent.step(stored(2))), [task]);
}
