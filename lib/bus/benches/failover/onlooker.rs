//! Somebody who only looks: when the lease changed hands, when a leader invited, how long it takes to answer.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::error::Error;
use std::rc::Rc;
use std::time::{Duration, Instant};

use meso_core::id::Name;
use meso_core::lease::Record;
use meso_core::wire::agent::Invitation;
use meso_core::wire::query::Table;
use tokio::time::sleep;

use crate::framework::Caller;

/// How often the leader is asked something small, and how long it may take.
const ASK_EVERY: Duration = Duration::from_millis(10);
const ANSWER_LIMIT: Duration = Duration::from_secs(30);

/// See the module.
pub struct Onlooker {
    seen: Rc<RefCell<Seen>>,
}

#[derive(Default)]
struct Seen {
    /// Under which epoch the lease was first taken, when, and by whom.
    taken: BTreeMap<u64, (Instant, String)>,
    /// When a leader first invited under an epoch.
    invited: BTreeMap<u64, Instant>,
    /// Answers of the leader: when, and how long they took.
    answers: Vec<(Instant, Duration)>,
}

/// What it saw of one leader.
#[derive(Clone, Debug)]
pub struct Takeover {
    pub taken: Instant,
    pub host: String,
    pub invited: Instant,
}

impl Onlooker {
    pub async fn start(url: &str, cluster: &Name) -> Result<Onlooker, Box<dyn Error>> {
        let caller = Caller::open(url, cluster, "onlooker").await?;
        let seen: Rc<RefCell<Seen>> = Rc::default();
        let mut records = caller.bus().subscribe(&format!("$KV.meso_{cluster}_lease.leader")).await?;
        let mut invitations = caller.bus().subscribe(&caller.bus().subjects().lead()).await?;
        let to = Rc::clone(&seen);
        tokio::task::spawn_local(async move {
            while let Some(message) = records.next().await {
                if let Ok(record) = serde_json::from_slice::<Record>(&message.payload) {
                    if !record.released {
                        to.borrow_mut().taken.entry(record.epoch).or_insert_with(|| (Instant::now(), record.host));
                    }
                }
            }
        });
        let to = Rc::clone(&seen);
        tokio::task::spawn_local(async move {
            while let Some(message) = invitations.next().await {
                if let Ok(invitation) = serde_json::from_slice::<Invitation>(&message.payload) {
                    to.borrow_mut().invited.entry(invitation.epoch).or_insert_with(Instant::now);
                }
            }
        });
        let to = Rc::clone(&seen);
        tokio::task::spawn_local(async move {
            loop {
                let asked = Instant::now();
                if caller.rows(Table::Masters, String::new(), ANSWER_LIMIT).await.is_ok() {
                    to.borrow_mut().answers.push((Instant::now(), asked.elapsed()));
                }
                sleep(ASK_EVERY).await;
            }
        });
        Ok(Onlooker { seen })
    }

    /// Who leads under this epoch, if it was seen.
    pub fn takeover(&self, epoch: u64) -> Option<Takeover> {
        let seen = self.seen.borrow();
        let (taken, host) = seen.taken.get(&epoch)?;
        Some(Takeover { taken: *taken, host: host.clone(), invited: *seen.invited.get(&epoch)? })
    }

    /// The longest that the leader took to answer in this time, milliseconds.
    pub fn slowest_ms(&self, from: Instant, upto: Instant) -> f64 {
        let seen = self.seen.borrow();
        let within = seen.answers.iter().filter(|(at, _)| *at >= from && *at <= upto);
        within.map(|(_, took)| took.as_secs_f64() * 1e3).fold(0.0, f64::max)
    }
}
