//! All emulated agents together, and how many of them a leader has taken in.

use std::cell::RefCell;
use std::error::Error;
use std::rc::Rc;
use std::time::{Duration, Instant};

use meso_bus::driver::Clock;
use meso_core::id::Name;
use meso_core::resources::Resources;
use tokio::sync::Notify;
use tokio::time::timeout;

use crate::agent::Prepared;
use crate::line::Line;

/// Over how many connections agents speak: descriptors are few, and both ends would need one for each agent.
pub const LINES: usize = 32;

/// See the module.
pub struct Crowd {
    size: usize,
    inner: RefCell<Inner>,
    changed: Notify,
}

#[derive(Default)]
struct Inner {
    /// Under which epoch each agent was last taken in, and with how many tasks.
    standing: Vec<(u64, usize)>,
    known: Known,
    stored: usize,
    registrations: usize,
    failure: Option<String>,
}

/// How far the leader of the highest epoch is.
#[derive(Clone, Debug, Default)]
pub struct Known {
    pub epoch: u64,
    pub agents: usize,
    pub tasks: usize,
    /// When the first and the latest agent learnt that it is in.
    pub first: Option<Instant>,
    pub last: Option<Instant>,
}

impl Crowd {
    /// Connects, gives each agent its place on the bus, and then lets all begin at once; says when that was.
    pub async fn begin(url: &str, cluster: &Name, size: usize, total: &Resources) -> Result<(Rc<Crowd>, Instant), Box<dyn Error>> {
        let inner = RefCell::new(Inner { standing: vec![(0, 0); size], ..Inner::default() });
        let crowd = Rc::new(Crowd { size, inner, changed: Notify::new() });
        let mut lines = Vec::new();
        for number in 0..LINES.min(size) {
            lines.push(Line::open(url, cluster, number).await?);
        }
        let mut prepared = Vec::new();
        for number in 0..size {
            prepared.push(Prepared::new(number, Rc::clone(&lines[number % lines.len()]), total.clone()).await?);
        }
        for line in &lines {
            line.bus().settle(Duration::from_secs(10)).await?;
        }
        let clock = Clock::default();
        let began = Instant::now();
        for one in prepared {
            tokio::task::spawn_local(one.run(clock, Rc::clone(&crowd)));
        }
        Ok((crowd, began))
    }

    /// An agent is one of the cluster under this epoch.
    pub fn joined(&self, number: usize, epoch: u64, tasks: usize) {
        let mut inner = self.inner.borrow_mut();
        if inner.standing[number].0 >= epoch {
            return;
        }
        inner.standing[number] = (epoch, tasks);
        let known = &mut inner.known;
        if epoch > known.epoch {
            *known = Known { epoch, first: Some(Instant::now()), ..Known::default() };
        }
        if epoch == known.epoch {
            known.agents += 1;
            known.tasks += tasks;
            if known.agents == self.size {
                known.last = Some(Instant::now());
                self.changed.notify_waiters();
            }
        }
    }

    pub fn registers(&self) {
        self.inner.borrow_mut().registrations += 1;
    }

    /// A status was stored by the bus, or was not and is sent again.
    pub fn stored(&self, ok: bool) {
        self.inner.borrow_mut().stored += usize::from(ok);
        self.changed.notify_waiters();
    }

    /// What ends the benchmark.
    pub fn fail(&self, why: String) {
        self.inner.borrow_mut().failure.get_or_insert(why);
        self.changed.notify_waiters();
    }

    /// The epoch under which the first agent was taken in last.
    pub fn epoch(&self) -> u64 {
        self.inner.borrow().known.epoch
    }

    /// How many registrations, and parts of them, were sent since it was asked last.
    pub fn take_registrations(&self) -> usize {
        std::mem::take(&mut self.inner.borrow_mut().registrations)
    }

    /// Waits until all agents are taken in under an epoch above this one.
    pub async fn all_known(&self, above: u64, limit: Duration) -> Result<Known, Box<dyn Error>> {
        self.until(limit, |inner| (inner.known.epoch > above && inner.known.agents == self.size).then(|| inner.known.clone())).await
    }

    /// Waits until so many statuses are stored.
    pub async fn all_stored(&self, count: usize, limit: Duration) -> Result<(), Box<dyn Error>> {
        self.until(limit, |inner| (inner.stored >= count).then_some(())).await
    }

    async fn until<T>(&self, limit: Duration, mut is_so: impl FnMut(&Inner) -> Option<T>) -> Result<T, Box<dyn Error>> {
        let waited = timeout(limit, async {
            loop {
                let changed = self.changed.notified();
                tokio::pin!(changed);
                changed.as_mut().enable();
                if let Some(why) = self.inner.borrow().failure.clone() {
                    return Err(why);
                }
                if let Some(found) = is_so(&self.inner.borrow()) {
                    return Ok(found);
                }
                changed.await;
            }
        });
        match waited.await {
            Ok(found) => Ok(found?),
            Err(_) => {
                let inner = self.inner.borrow();
                Err(format!("after {limit:?} the leader of epoch {} knows {} of {} agents, and {} statuses are stored", inner.known.epoch, inner.known.agents, self.size, inner.stored).into())
            }
        }
    }
}
