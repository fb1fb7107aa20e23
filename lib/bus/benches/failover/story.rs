//! One cluster from its first agent to its last lost leader.

use std::error::Error;
use std::io::{self, Write as _};
use std::path::Path;
use std::rc::Rc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use meso_bus::testserver::{Server, ServerSpec};
use meso_core::id::{AgentId, Name};
use meso_core::resources::parse_total;
use serde::Serialize;
use tokio::time::sleep;

use crate::crowd::{Crowd, LINES};
use crate::framework::{Caller, Waiter};
use crate::line::Line;
use crate::masters::{Master, Signal, Used, used};
use crate::onlooker::Onlooker;

/// The cluster's name; that of the tools where nobody says otherwise.
const CLUSTER: &str = "default";
/// How long anything may take.
const LIMIT: Duration = Duration::from_secs(180);
/// After a takeover the leader repeats its invitations and offers are returned; the next signal comes later than that.
const CALM: Duration = Duration::from_secs(3);
/// About what a registration without tasks and its answer have, bytes.
const HELLO_BYTES: usize = 640;
const WELCOME_BYTES: usize = 120;

/// See the tables.
#[derive(Serialize)]
pub struct Story {
    pub joined: Joined,
    pub lost: Vec<Lost>,
}

/// Agents that all register at once.
#[derive(Serialize)]
pub struct Joined {
    pub agents: usize,
    pub tasks: usize,
    pub first_ms: f64,
    pub all_ms: f64,
    /// As many questions of that size, answered by nobody who thinks: two for each agent.
    pub floor_ms: f64,
    pub registrations: usize,
    pub cpu_ms: u64,
    pub slowest_ms: f64,
    pub agent_kib: f64,
    /// How long it took to launch all tasks by accepts and to have their statuses stored.
    pub fill_ms: f64,
    pub filled_agent_kib: f64,
}

/// A leader that was lost so often, by one signal; milliseconds where nothing else is said.
#[derive(Serialize)]
pub struct Lost {
    pub by: &'static str,
    pub rounds: usize,
    pub lease: Many,
    pub known: Many,
    pub offer: Many,
    /// `known` less `lease`, and divided by it.
    pub after_lease: Many,
    pub ratio: Many,
    /// What the new leader's process used of a processor meanwhile.
    pub cpu: Many,
    /// The same of nats-server, and of this process, which is all the agents.
    pub bus_cpu: Many,
    pub crowd_cpu: Many,
    pub registrations: Many,
    pub resident_mib: Many,
}

/// The middle one of several, the worst one, and all of them.
#[derive(Default, Serialize)]
pub struct Many {
    pub median: f64,
    pub worst: f64,
    all: Vec<f64>,
}

impl Many {
    fn of(all: impl Iterator<Item = f64>) -> Many {
        let all: Vec<f64> = all.collect();
        let mut sorted = all.clone();
        sorted.sort_by(f64::total_cmp);
        Many { median: sorted.get(sorted.len() / 2).copied().unwrap_or_default(), worst: sorted.last().copied().unwrap_or_default(), all }
    }
}

/// One lost leader.
struct Round {
    lease_ms: f64,
    known_ms: f64,
    offer_ms: f64,
    cpu_ms: f64,
    registrations: f64,
    resident_mib: f64,
    bus_cpu_ms: f64,
    crowd_cpu_ms: f64,
}

/// Everything of one cluster that goes with it.
struct Cluster {
    server: Server,
    masters: Vec<Master>,
    started: usize,
    crowd: Rc<Crowd>,
    onlooker: Onlooker,
    caller: Caller,
    agents: usize,
    tasks: usize,
}

/// Says how far it is, for people.
fn progress(text: &str) {
    // Whoever does not want to hear it has closed the way.
    let _ = writeln!(io::stderr(), "{text}");
}

fn ms(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}

/// Begins a cluster, fills it, and loses its leader again and again.
pub async fn tell(agents: usize, tasks_each: usize, rounds: usize) -> Result<Story, Box<dyn Error>> {
    let server = Server::start(ServerSpec::default())?;
    let (url, cluster) = (server.url(), Name::parse(CLUSTER)?);
    let dir = tempfile::Builder::new().prefix("meso-failover-").tempdir()?;
    let floor_ms = floor(&url, agents).await?;

    let onlooker = Onlooker::start(&url, &cluster).await?;
    let masters = vec![Master::start(&url, dir.path(), 1).await?];
    let caller = Caller::open(&url, &cluster, "bench").await?;
    while onlooker.takeover(1).is_none() || masters[0].used().resident_kib == 0 {
        sleep(Duration::from_millis(20)).await;
    }
    let before = masters[0].used();
    // Half a processor more than its tasks hold: too little for one more of them, and enough for who waits.
    let total = parse_total(&format!("cpus={tasks_each}.5,mem={}G", tasks_each + 1))?;
    let (crowd, began) = Crowd::begin(&url, &cluster, agents, &total).await?;
    let known = crowd.all_known(0, LIMIT).await?;
    let ended = known.last.unwrap_or(began);
    let after = masters[0].used();
    let each_kib = |kib: u64| kib.saturating_sub(before.resident_kib) as f64 / agents as f64;
    let mut joined = Joined {
        agents,
        tasks: agents * tasks_each,
        first_ms: known.first.map_or(0.0, |at| ms(at - began)),
        all_ms: ms(ended - began),
        floor_ms,
        registrations: crowd.take_registrations(),
        cpu_ms: after.cpu_ms - before.cpu_ms,
        slowest_ms: onlooker.slowest_ms(began, ended),
        agent_kib: each_kib(after.resident_max_kib),
        fill_ms: 0.0,
        filled_agent_kib: 0.0,
    };
    let mut cluster = Cluster { server, masters, started: 1, crowd, onlooker, caller, agents, tasks: agents * tasks_each };
    let began = Instant::now();
    cluster.caller.fill(agents, tasks_each).await?;
    cluster.crowd.all_stored(cluster.tasks, LIMIT).await?;
    joined.fill_ms = ms(began.elapsed());
    joined.filled_agent_kib = each_kib(cluster.masters[0].used().resident_kib);
    cluster.check().await?;
    progress(&format!("{agents} agents registered within {:.0} ms, their tasks ran after {:.0} ms", joined.all_ms, joined.fill_ms));

    cluster.add_master(&url, dir.path()).await?;
    let waiter = Waiter::start(&url)?;
    waiter.offer_since(began, LIMIT).await?;
    let mut lost = Vec::new();
    for by in Signal::ALL {
        let mut all = Vec::new();
        for _ in 0..rounds {
            let one = cluster.lose(by, &waiter, &url, dir.path()).await?;
            progress(&format!("{agents} agents, {}: another led after {:.0} ms, all was known after {:.0} ms, offers came after {:.0} ms", by.name(), one.lease_ms, one.known_ms, one.offer_ms));
            all.push(one);
        }
        lost.push(Lost {
            by: by.name(),
            rounds,
            lease: Many::of(all.iter().map(|one| one.lease_ms)),
            known: Many::of(all.iter().map(|one| one.known_ms)),
            offer: Many::of(all.iter().map(|one| one.offer_ms)),
            after_lease: Many::of(all.iter().map(|one| one.known_ms - one.lease_ms)),
            ratio: Many::of(all.iter().map(|one| one.known_ms / one.lease_ms)),
            cpu: Many::of(all.iter().map(|one| one.cpu_ms)),
            bus_cpu: Many::of(all.iter().map(|one| one.bus_cpu_ms)),
            crowd_cpu: Many::of(all.iter().map(|one| one.crowd_cpu_ms)),
            registrations: Many::of(all.iter().map(|one| one.registrations)),
            resident_mib: Many::of(all.iter().map(|one| one.resident_mib)),
        });
    }
    Ok(Story { joined, lost })
}

impl Cluster {
    async fn add_master(&mut self, url: &str, dir: &Path) -> Result<(), Box<dyn Error>> {
        self.started += 1;
        self.masters.push(Master::start(url, dir, self.started).await?);
        Ok(())
    }

    /// What a master, nats-server and this process have used.
    fn all_used(&self, master: &Master) -> [Used; 3] {
        [master.used(), self.server.pid().map(used).unwrap_or_default(), used(std::process::id())]
    }

    /// A run in which anything was lost is void.
    async fn check(&self) -> Result<(), Box<dyn Error>> {
        let found = self.caller.count().await?;
        if found == (self.agents, self.tasks) { Ok(()) } else { Err(format!("the leader knows (agents, tasks) {found:?} of {:?}", (self.agents, self.tasks)).into()) }
    }

    /// Takes the leader away, and waits until another has all and offers again.
    async fn lose(&mut self, by: Signal, waiter: &Waiter, url: &str, dir: &Path) -> Result<Round, Box<dyn Error>> {
        sleep(CALM).await;
        let epoch = self.crowd.epoch();
        let host = self.onlooker.takeover(epoch).ok_or("nobody saw the leader take the lease")?.host;
        let at = self.masters.iter().position(|master| master.host == host).ok_or("a master leads that was not started here")?;
        let standby = self.masters.iter().find(|master| master.host != host).ok_or("there is no standby")?;
        let before = self.all_used(standby);
        self.crowd.take_registrations();

        let began = Instant::now();
        self.masters[at].signal(by.name())?;
        let known = self.crowd.all_known(epoch, LIMIT).await?;
        let ended = known.last.unwrap_or(began);
        let takeover = self.onlooker.takeover(known.epoch).ok_or("nobody saw the new leader take the lease")?;
        let after = self.all_used(self.masters.iter().find(|master| master.host == takeover.host).ok_or("the new leader is no more")?);
        let cpu_ms = |at: usize| after[at].cpu_ms.saturating_sub(before[at].cpu_ms) as f64;
        let registrations = self.crowd.take_registrations();
        let offered = waiter.offer_since(takeover.invited, LIMIT).await?;
        if known.tasks != self.tasks {
            return Err(format!("the new leader was told {} of {} tasks", known.tasks, self.tasks).into());
        }
        self.check().await?;

        let mut old = self.masters.remove(at);
        if by == Signal::Stop {
            old.signal("CONT")?;
            self.masters.push(old);
        } else {
            drop(old);
            self.add_master(url, dir).await?;
        }
        Ok(Round {
            lease_ms: ms(takeover.taken - began),
            known_ms: ms(ended - began),
            offer_ms: ms(offered - began),
            cpu_ms: cpu_ms(0),
            bus_cpu_ms: cpu_ms(1),
            crowd_cpu_ms: cpu_ms(2),
            registrations: registrations as f64,
            resident_mib: after[0].resident_kib as f64 / 1024.0,
        })
    }
}

/// What the bus alone takes for the registration of so many agents at once.
async fn floor(url: &str, agents: usize) -> Result<f64, Box<dyn Error>> {
    let cluster = Name::parse("floor")?;
    let echo = Caller::open(url, &cluster, "echo").await?;
    let mut questions = echo.bus().subscribe(&echo.bus().subjects().agent_calls()).await?;
    let answering = tokio::task::spawn_local(async move {
        while let Some(question) = questions.next().await {
            // A question that is not answered fails whoever asked.
            let _ = echo.bus().answer(&question, Bytes::from_static(&[b'x'; WELCOME_BYTES])).await;
        }
    });
    let mut lines = Vec::new();
    for number in 0..LINES.min(agents) {
        lines.push(Line::open(url, &cluster, number).await?);
    }
    for line in &lines {
        line.bus().settle(LIMIT).await?;
    }
    let began = Instant::now();
    let mut asking = Vec::new();
    for number in 0..agents {
        let line = Rc::clone(&lines[number % lines.len()]);
        asking.push(tokio::task::spawn_local(async move {
            let agent = AgentId::fresh(number as u64);
            let subject = line.bus().subjects().agent_call(&agent, "hello");
            for _ in 0..2 {
                line.ask(&agent, &subject, Bytes::from_static(&[b'x'; HELLO_BYTES]), LIMIT).await?;
            }
            Some(())
        }));
    }
    for one in asking {
        one.await?.ok_or("the bus lost a question")?;
    }
    let took = began.elapsed();
    answering.abort();
    Ok(ms(took))
}
