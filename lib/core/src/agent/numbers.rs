//! What an agent makes of numbers that nobody can have counted to.

use crate::agent::testagent::{BEAT_MS, TestAgent};
use crate::agent::{Effect, Event};
use crate::duration::DURATION_MS_MAX;
use crate::id::{MasterId, Nonce, TaskId};
use crate::lease::EPOCH_MAX;
use crate::wire::agent::{Beaten, Command, Invitation, Order, Welcome};
use crate::wire::number::tests::at_their_ends;

fn welcome(epoch: u64) -> Welcome {
    Welcome::Welcome { epoch, master: MasterId::fresh(1), beat_ms: BEAT_MS, timeout_ms: Some(60_000) }
}

fn command(epoch: u64, order: Order) -> Command {
    Command { epoch, incarnation: Nonce::fresh(1, 1), order }
}

fn messages() -> Vec<Event> {
    let launches = vec![TestAgent::launch(2, None)];
    let kill = Order::Kill { task: TaskId::fresh(1), grace_ms: Some(5_000), reason: "asked".to_owned() };
    let commands = [Order::Launch { launches }, kill].map(|order| command(1, order));
    let mut all: Vec<Event> = commands.iter().flat_map(at_their_ends).map(Event::Command).collect();
    all.extend(at_their_ends(&welcome(1)).into_iter().map(|welcome| Event::Welcome(Some(welcome))));
    all.extend(at_their_ends(&Beaten { epoch: 1, known: true, seen: 0 }).into_iter().map(|beaten| Event::Beaten(Some(beaten))));
    all.extend(at_their_ends(&Invitation { epoch: 1, master: MasterId::fresh(1) }).into_iter().map(Event::Invitation));
    all.extend(at_their_ends(&1_u64).into_iter().map(|ms| Event::Clock { wall_ms: ms, at_ms: ms }));
    all
}

/// Shows that no number in anything a leader says ends an agent or keeps it from its task: it goes on over all deadlines,
/// can be started anew, registers with numbers that a leader takes, and runs what it is told to.
#[test]
fn numbers_at_their_end() {
    for is_asking in [false, true] {
        for event in messages() {
            let mut agent = TestAgent::joined(Some(60_000));
            agent.run(1, None);
            if is_asking {
                agent.alone();
            }
            let mut effects = agent.step(event);
            effects.extend(agent.wait(100_000));
            let graces = effects.iter().filter_map(|effect| if let Effect::Kill { grace_ms, .. } = effect { Some(*grace_ms) } else { None });
            assert!(graces.max().unwrap_or(0) <= DURATION_MS_MAX);
            agent.now_ms += DURATION_MS_MAX;
            agent.step(Event::Tick);
            agent.end(1);
            let mut agent = agent.restarted().rewritten();
            let effects = agent.wait(10_000);
            let hello = effects.iter().find_map(|effect| if let Effect::Hello(hello) = effect { Some(hello) } else { None }).expect("it registers");
            assert_eq!(hello.fault(), None);
            let epoch = agent.agent.max_epoch();
            assert!(epoch < EPOCH_MAX);
            // As often as it has parts to tell and an epoch to hear of.
            for _ in 0..3 {
                agent.step(Event::Welcome(Some(welcome(epoch))));
            }
            assert!(agent.agent.joined());
            let mut launch = TestAgent::launch(3, None);
            launch.launch.epoch = epoch;
            let effects = agent.step(Event::Command(command(epoch, Order::Launch { launches: vec![launch] })));
            assert!(effects.iter().any(|effect| matches!(effect, Effect::Launch(_))), "{effects:?}");
        }
    }
}
