use super::*;
use crate::agent::testagent::{TestAgent, config, killed};
use crate::id::MasterId;
use crate::wire::agent::{Beaten, Invitation, Welcome};
use crate::wire::{Refusal, RefusalCode};

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

/// Shows that an agent which is invited to a new epoch tells its tasks once, after it has written that epoch down; and that an invitation
/// that was nothing keeps none of them back.
#[test]
fn tasks_are_told_once() {
    let hellos = |effects: &[Effect]| -> Vec<(u64, usize, bool)> {
        effects.iter().filter_map(|effect| if let Effect::Hello(hello) = effect { Some((hello.max_epoch, hello.tasks.len(), hello.more)) } else { None }).collect()
    };
    let welcome = |epoch| Event::Welcome(Some(Welcome::Welcome { epoch, master: MasterId::fresh(2), beat_ms: 5_000, timeout_ms: None }));
    let invited = || {
        let mut agent = TestAgent::joined(None);
        (1..=3).for_each(|no| agent.run(no, None));
        let mut begun = agent.step(Event::Invitation(Invitation { epoch: 2, master: MasterId::fresh(2) }));
        begun.extend(agent.wait(config().jitter_ms));
        assert_eq!(hellos(&begun), [(1, 0, true)]);
        agent
    };
    let mut agent = invited();
    assert_eq!(hellos(&agent.step(welcome(2))), [(2, 3, false)]);
    assert_eq!(hellos(&agent.step(welcome(2))), []);
    assert!(agent.agent.joined());

    let mut agent = invited();
    assert_eq!(hellos(&agent.step(welcome(1))), [(1, 3, false)], "its leader leads on");
    agent.step(welcome(1));
    assert!(agent.agent.joined());

    let mut agent = invited();
    let gone = || Event::Welcome(Some(Welcome::Refused(Refusal::new(RefusalCode::AgentGone, "declared gone"))));
    assert_eq!(hellos(&agent.step(gone())), [(1, 3, false)], "who says that it is gone hears what it ran, and ends that");
    let effects = agent.step(gone());
    assert_eq!((hellos(&effects), killed(&effects).len()), (Vec::new(), 3));
}
