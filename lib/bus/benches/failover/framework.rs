//! Frameworks: one that fills the agents with tasks by real accepts and goes, and one that waits for an offer.

use std::cell::RefCell;
use std::error::Error;
use std::process::Stdio;
use std::rc::Rc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use meso_bus::{Bus, BusOptions, inbox_of};
use meso_core::id::{FrameworkId, Name, Nonce, Principal, TaskId};
use meso_core::resources::parse_request;
use meso_core::role::Role;
use meso_core::wire::call::{Accept, Answer, Call, Demand, Push, Subscribe, TaskToken};
use meso_core::wire::query::{Query, Rows, Table};
use meso_core::wire::{Offer, PROTOCOL, Task};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, Command};
use tokio::sync::Notify;
use tokio::time::timeout;

use crate::masters::program;

/// What one task asks for, and what is asked for by who waits.
const REQUEST: &str = "cpus=1,mem=64";
const WAITS_FOR: &str = "cpus=0.5,mem=64";
/// How long a call may take, and how long connecting.
const CALL_LIMIT: Duration = Duration::from_secs(30);
/// How long the launcher waits for more offers.
const OFFERS_LIMIT: Duration = Duration::from_secs(30);
/// How long tasks live on without their framework: longer than any benchmark.
const FAILOVER_MS: u64 = 7 * 24 * 3_600_000;

/// Who asks the leader in the name of a principal.
pub struct Caller {
    bus: Bus,
    principal: Principal,
}

impl Caller {
    pub async fn open(url: &str, cluster: &Name, principal: &str) -> Result<Caller, Box<dyn Error>> {
        let principal = Principal::parse(principal)?;
        let mut options = BusOptions::new(url, cluster, inbox_of(&principal), principal.as_str());
        options.reconnect = true;
        Ok(Caller { bus: Bus::connect(&options, CALL_LIMIT).await?, principal })
    }

    pub fn bus(&self) -> &Bus {
        &self.bus
    }

    async fn ask<T: DeserializeOwned>(&self, subject: &str, asked: &impl Serialize, limit: Duration) -> Result<T, Box<dyn Error>> {
        let payload = Bytes::from(serde_json::to_vec(asked)?);
        Ok(serde_json::from_slice(&self.bus.request(subject, payload, limit).await?)?)
    }

    async fn call(&self, call: Call) -> Result<Answer, Box<dyn Error>> {
        match self.ask(&self.bus.subjects().framework_call(&self.principal, "call"), &call, CALL_LIMIT).await? {
            Answer::Refused(refusal) => Err(format!("the leader refuses: {}", refusal.message).into()),
            answer => Ok(answer),
        }
    }

    /// One page of a table.
    pub async fn rows(&self, of: Table, from: String, limit: Duration) -> Result<Rows, Box<dyn Error>> {
        let query = Query { of, from, prefix: String::new(), ask: None };
        self.ask(&self.bus.subjects().query(&self.principal, "ask"), &query, limit).await
    }

    /// How many agents are active, and how many tasks they run, in the leader's books.
    pub async fn count(&self) -> Result<(usize, usize), Box<dyn Error>> {
        let (mut agents, mut tasks, mut from) = (0, 0, String::new());
        loop {
            let Rows::Agents { page, next } = self.rows(Table::Agents, from, CALL_LIMIT).await? else { return Err("agents were asked for, and something else was told".into()) };
            for row in page.iter().filter(|row| row.state == "active") {
                agents += 1;
                tasks += row.tasks as usize;
            }
            if next.is_empty() {
                return Ok((agents, tasks));
            }
            from = next;
        }
    }

    /// Launches tasks on agents, so many on each, and leaves; the framework has a name, so its tasks live on.
    pub async fn fill(&self, agents: usize, tasks_each: usize) -> Result<(), Box<dyn Error>> {
        let (framework, session) = (FrameworkId::fresh(1), Nonce::fresh(1, 1));
        let mut pushes = self.bus.subscribe(&self.bus.subjects().push(&self.principal, &framework)).await?;
        let demand = Demand { request: parse_request(REQUEST)?, count: u32::MAX, ..Demand::default() };
        let subscribe = Subscribe {
            v: PROTOCOL,
            framework: framework.clone(),
            session: session.clone(),
            session_no: 0,
            member: None,
            guest: false,
            takeover: false,
            name: Some(Name::parse("fill")?),
            role: Role::parse("default")?,
            who: "failover".to_owned(),
            demand: Some(demand),
            failover_ms: FAILOVER_MS,
            on_unreachable: None,
            claims: Vec::new(),
        };
        self.call(Call::Subscribe(subscribe)).await?;
        let mut filled = 0;
        while filled < agents {
            let message = timeout(OFFERS_LIMIT, pushes.next()).await.map_err(|_| format!("no more offers after {filled} of {agents} agents"))?.ok_or("the bus ended the subscription")?;
            let Push::Offers { epoch, offers, .. } = serde_json::from_slice(&message.payload)? else { continue };
            for offer in offers {
                self.accept(&framework, &session, epoch, offer, filled, tasks_each).await?;
                filled += 1;
            }
        }
        self.call(Call::Leave { framework, session, member: None, hold_ms: 0 }).await?;
        Ok(())
    }

    async fn accept(&self, framework: &FrameworkId, session: &Nonce, epoch: u64, offer: Offer, filled: usize, tasks_each: usize) -> Result<(), Box<dyn Error>> {
        let mut tasks = Vec::new();
        for number in 0..tasks_each {
            let number = (filled * tasks_each + number) as u64;
            // Ids are drawn as clients draw them, not counted: they fall anywhere in the leader's books.
            let id = TaskId::fresh((number + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 14);
            let mut task = Task { id: Some(id), cmd: Some("sleep 1d".to_owned()), ..Task::default() };
            task.set_request(&parse_request(REQUEST)?);
            tasks.push(TaskToken { task, token: Nonce::fresh(number, number) });
        }
        let accept = Accept { framework: framework.clone(), session: session.clone(), epoch, offers: vec![offer.id], agent: offer.agent, tasks, refuse_ms: 0, member: None };
        self.call(Call::Accept(accept)).await.map(drop)
    }
}

/// A real `meso-offer` with a demand, whose offers are used by nobody; dropping it ends it.
pub struct Waiter {
    _child: Child,
    offers: Rc<RefCell<Vec<Instant>>>,
    offered: Rc<Notify>,
}

impl Waiter {
    pub fn start(url: &str) -> Result<Waiter, Box<dyn Error>> {
        let mut child = Command::new(program("meso-offer")?)
            .args(["--nats", url, "-R", WAITS_FOR, "--max-open", "1"])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()?;
        let mut lines = BufReader::new(child.stdout.take().ok_or("meso-offer has no output")?).lines();
        let (offers, offered) = (Rc::new(RefCell::new(Vec::new())), Rc::new(Notify::new()));
        let (to, told) = (Rc::clone(&offers), Rc::clone(&offered));
        tokio::task::spawn_local(async move {
            while let Ok(Some(line)) = lines.next_line().await {
                if line.starts_with("{\"meso\":\"offer/1\"") {
                    to.borrow_mut().push(Instant::now());
                    told.notify_waiters();
                }
            }
        });
        Ok(Waiter { _child: child, offers, offered })
    }

    /// Waits for the first offer that came at this time or later.
    pub async fn offer_since(&self, since: Instant, limit: Duration) -> Result<Instant, Box<dyn Error>> {
        let first = timeout(limit, async {
            loop {
                let offered = self.offered.notified();
                tokio::pin!(offered);
                offered.as_mut().enable();
                let first = self.offers.borrow().iter().copied().find(|at| *at >= since);
                match first {
                    Some(at) => return at,
                    None => offered.await,
                }
            }
        });
        first.await.map_err(|_| format!("no offer within {limit:?}").into())
    }
}
