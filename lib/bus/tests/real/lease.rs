use std::time::Duration;

use meso_bus::testserver::Server;
use meso_bus::{Leadership, LeadershipOptions, Standing, inbox_of};
use meso_core::id::{MasterId, Nonce};
use meso_core::lease::{Candidate, LeaseTimes};

use crate::{PATIENCE, connect, daemon_options, eventually, options, server};

/// Short enough for a test, and the margin is kept
fn times() -> LeaseTimes {
    LeaseTimes::new(3_000, 250, 1_000).expect("times")
}

fn stand_options(server: &Server, number: u64) -> LeadershipOptions {
    let id = MasterId::fresh(number);
    let mut bus = daemon_options(server, id.as_str());
    bus.inbox = inbox_of(&id);
    let candidate = Candidate { id, nonce: Nonce::fresh(7, number), host: "h".into(), since_ms: 0 };
    LeadershipOptions { bus, candidate, times: times(), replicas: 1, used_epoch: 0 }
}

async fn stand(server: &Server, number: u64) -> Leadership {
    Leadership::start(stand_options(server, number), |_, _| {}).await.expect("a candidacy")
}

/// Waits until it leads above that epoch; returns the epoch.
async fn leads_above(leadership: &Leadership, epoch: u64) -> u64 {
    let mut standing = leadership.standing();
    let waiting = standing.wait_for(|standing| standing.leads().is_some_and(|leads| leads > epoch));
    let standing = *tokio::time::timeout(PATIENCE, waiting).await.expect("somebody leads in time").expect("it lives");
    match standing {
        Standing::Leading { epoch, .. } => epoch,
        other => panic!("{other:?}"),
    }
}

fn now(leadership: &Leadership) -> Standing {
    *leadership.standing().borrow()
}

/// One leads, the other knows of whom; a release lets it in under a higher epoch.
#[tokio::test]
async fn release() {
    let server = server();
    let first = stand(&server, 1).await;
    let epoch = leads_above(&first, 0).await;
    let second = stand(&server, 2).await;
    let mut holder = second.holder();
    let seen = holder.wait_for(Option::is_some).await.expect("it lives").clone();
    assert_eq!(seen, Some((MasterId::fresh(1), epoch)));
    assert!(first.release().await);
    assert_eq!(now(&first), Standing::Released);
    assert!(leads_above(&second, epoch).await > epoch);
    assert!(first.release().await, "a second release changes nothing");
}

/// A leader that dies is followed; the follower does not wait for the lease to run out.
#[tokio::test]
async fn death() {
    let server = server();
    // So long a lease cannot run out within the test.
    let long = |number| LeadershipOptions { times: LeaseTimes::new(200_000, 250, 1_000).expect("times"), ..stand_options(&server, number) };
    let first = Leadership::start(long(1), |_, _| {}).await.expect("a candidacy");
    let epoch = leads_above(&first, 0).await;
    let second = Leadership::start(long(2), |_, _| {}).await.expect("a candidacy");
    first.bus().abandon().await;
    drop(first);
    assert!(leads_above(&second, epoch).await > epoch);
}

/// A leader that hangs does not lead when it wakes: somebody else does.
#[test]
fn freeze() {
    let server = server();
    let runtime = || tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let (first_runtime, second_runtime) = (runtime(), runtime());
    let first = first_runtime.block_on(stand(&server, 1));
    let epoch = first_runtime.block_on(leads_above(&first, 0));
    // From here on nothing drives the first one; its connection stays open.
    let second = second_runtime.block_on(stand(&server, 2));
    let followed = second_runtime.block_on(leads_above(&second, epoch));
    assert!(followed > epoch);
    assert_eq!(now(&first).leads(), None, "its own clock says so, before it looks at anything");
    std::thread::scope(|scope| {
        scope.spawn(|| second_runtime.block_on(async { tokio::time::sleep(Duration::from_secs(2)).await }));
        first_runtime.block_on(async {
            let mut standing = first.standing();
            let down = standing.wait_for(|standing| *standing == Standing::Standby);
            tokio::time::timeout(PATIENCE, down).await.expect("it notices").expect("it lives");
        });
    });
    assert_eq!(second_runtime.block_on(leads_above(&second, epoch)), followed);
}

/// A short restart of the server suspends the leader and ends no term.
#[tokio::test]
async fn server_restart() {
    let mut server = server();
    let long = LeadershipOptions { times: LeaseTimes::new(62_000, 250, 60_000).expect("times"), ..stand_options(&server, 1) };
    let first = Leadership::start(long, |_, _| {}).await.expect("a candidacy");
    let epoch = leads_above(&first, 0).await;
    let mut standing = first.standing();
    server.kill().expect("killed");
    let suspended = standing.wait_for(|standing| *standing == Standing::Suspended { epoch });
    tokio::time::timeout(PATIENCE, suspended).await.expect("suspended in time").expect("it lives");
    server.restart().expect("a server");
    assert_eq!(leads_above(&first, 0).await, epoch);
}

/// With the store lost, the epochs go on rising.
#[tokio::test]
async fn lost_store() {
    let mut server = server();
    let first = stand(&server, 1).await;
    first.raiser().raise_above(41).await;
    let epoch = leads_above(&first, 41).await;
    server.kill().expect("killed");
    server.wipe().expect("wiped");
    server.restart().expect("a server");
    assert!(leads_above(&first, epoch).await > epoch);
}

/// A higher epoch somewhere is passed; the leader leads on, under a new one.
#[tokio::test]
async fn raise() {
    let server = server();
    let first = stand(&server, 1).await;
    let epoch = leads_above(&first, 0).await;
    first.raiser().raise_above(epoch).await;
    let raised = leads_above(&first, epoch).await;
    first.raiser().raise_above(epoch + 1_000).await;
    assert_eq!(leads_above(&first, raised).await, epoch + 1_001);
    let second = stand(&server, 2).await;
    assert!(first.release().await);
    assert!(leads_above(&second, epoch + 1_001).await > epoch + 1_001);
}

/// Of many candidates one leads, and when it ends, one again, until nobody is left.
#[tokio::test]
async fn succession() {
    let server = server();
    let mut standing = Vec::new();
    for number in 0..5 {
        standing.push(stand(&server, number).await);
    }
    let mut epoch = 0;
    while !standing.is_empty() {
        eventually("one leads", async || standing.iter().any(|one| now(one).leads().is_some())).await;
        let leading: Vec<usize> = (0..standing.len()).filter(|at| now(&standing[*at]).leads().is_some()).collect();
        assert_eq!(leading.len(), 1);
        let leader = standing.swap_remove(leading[0]);
        let led = leads_above(&leader, epoch).await;
        assert!(led > epoch);
        epoch = led;
        assert!(leader.release().await);
    }
}

/// A lease is renewed without the servers' API, which is away while they elect who leads them.
#[tokio::test]
async fn renewals_need_no_api() {
    let server = server();
    let leading = stand(&server, 1).await;
    leads_above(&leading, 0).await;
    let spy = connect(&options(&server, "spy")).await;
    let mut asked = spy.subscribe("$JS.API.>").await.expect("whoever may see all");
    spy.settle(PATIENCE).await.expect("it listens");
    let mut standing = leading.standing();
    for _ in 0..6 {
        standing.changed().await.expect("it is renewed");
    }
    let heard = tokio::time::timeout(Duration::ZERO, asked.next()).await.ok().flatten().map(|message| message.subject);
    assert_eq!(heard, None);
}
