//! A connection that many agents share: each has its own subjects and its own inbox on it.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use meso_bus::{Bus, BusError, BusOptions, inbox_of};
use meso_core::id::{AgentId, Name};
use tokio::sync::oneshot;
use tokio::time::timeout;

/// How long connecting may take.
const CONNECT_LIMIT: Duration = Duration::from_secs(10);

/// See the module.
pub struct Line {
    bus: Bus,
    /// The token of its inboxes: `_INBOX.<agent>.<place>.<question>`.
    place: String,
    asked: Cell<u64>,
    waiting: RefCell<BTreeMap<u64, oneshot::Sender<Option<Bytes>>>>,
}

impl Line {
    /// Connects, and hands answers on from then on.
    pub async fn open(url: &str, cluster: &Name, number: usize) -> Result<Rc<Line>, BusError> {
        let place = format!("line{number}");
        let mut options = BusOptions::new(url, cluster, inbox_of(&place), &place);
        options.reconnect = true;
        let bus = Bus::connect(&options, CONNECT_LIMIT).await?;
        // The inboxes of all agents, as far as this connection asked for them.
        let mut answers = bus.subscribe(&format!("{}.{place}.*", inbox_of("*"))).await?;
        let line = Rc::new(Line { bus, place, asked: Cell::new(0), waiting: RefCell::default() });
        let to = Rc::clone(&line);
        tokio::task::spawn_local(async move {
            while let Some((subject, answer)) = answers.next_answer().await {
                let number = subject.rsplit('.').next().and_then(|number| number.parse().ok());
                let waits = number.and_then(|number: u64| to.waiting.borrow_mut().remove(&number));
                // Who gave up is gone.
                let _ = waits.map(|waits| waits.send(answer));
            }
        });
        Ok(line)
    }

    pub fn bus(&self) -> &Bus {
        &self.bus
    }

    /// Asks in the name of an agent; none if nobody heard it, or nobody answered in time.
    pub async fn ask(&self, agent: &AgentId, subject: &str, payload: Bytes, limit: Duration) -> Option<Bytes> {
        let number = self.asked.get() + 1;
        self.asked.set(number);
        let reply = format!("{}.{}.{number}", inbox_of(agent), self.place);
        let (to, answer) = oneshot::channel();
        self.waiting.borrow_mut().insert(number, to);
        let answer = match self.bus.publish_with_reply(subject, &reply, payload).await {
            Ok(()) => timeout(limit, answer).await.ok().and_then(Result::ok).flatten(),
            Err(_) => None,
        };
        self.waiting.borrow_mut().remove(&number);
        answer
    }
}
