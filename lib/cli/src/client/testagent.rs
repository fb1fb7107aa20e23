//! An agent made for tests: one task whose output the test writes, on a bus of its own
use crate::client::{Follower, TaskIo};
use bytes::Bytes;
use meso_bus::{Bus, BusOptions, Message, own_inbox, testserver::{Server, ServerSpec}, subjects::inbox_of};
use meso_core::id::{AgentId, Name, Principal, TaskId};
use meso_core::wire::io::{Ask, Stream, Told, What};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio::time::timeout;

const LIMIT: Duration = Duration::from_secs(10);

#[derive(Default)]
struct Output {
    bytes: Vec<u8>,
    first: u64,
    ended: bool,
    answer_max: Option<usize>,
    refusal: Option<(String, String)>,
    asked: usize,
}

pub(crate) struct TestAgent {
    // Dropped first: it kills the bus under everybody else.
    serving: Option<JoinHandle<()>>,
    output: Arc<Mutex<Output>>,
    news: Arc<Notify>,
    pub bus: Bus,
    own: Bus,
    _server: Server,
}

impl TestAgent {
    pub async fn start() -> Self {
        let server = Server::start(ServerSpec::default()).expect("nats-server is installed");
        let connect = async |who: &str| {
            let mut options = BusOptions::new(&server.url(), &Name::parse("test").expect("a name"), inbox_of(who), "test");
            options.reconnect = true;
            Bus::connect(&options, LIMIT).await.expect("it listens")
        };
        let (bus, own) = (connect("me").await, connect("agent_1").await);
        let mut agent = Self { serving: None, output: Arc::default(), news: Arc::default(), bus, own, _server: server };
        agent.come_back().await;
        agent
    }

    pub fn io(&self) -> TaskIo {
        TaskIo { bus: self.bus.clone(), principal: Principal::parse("me").expect("a principal"), agent: AgentId::parse("agent_1").expect("an id"), task: TaskId::parse("task_1").expect("an id"), token: None }
    }

    pub fn follower(&self, offset: u64) -> Follower {
        Follower::new(self.io(), Stream::Stdout, offset)
    }

    pub fn write(&self, bytes: &[u8]) {
        self.change(|output| output.bytes.extend_from_slice(bytes));
    }

    pub fn end(&self) {
        self.change(|output| output.ended = true);
    }

    pub fn rotate(&self, first: u64) {
        self.change(|output| output.first = first);
    }

    pub fn answer_at_most(&self, bytes: usize) {
        self.change(|output| output.answer_max = Some(bytes));
    }

    pub fn refuse(&self, code: &str, message: &str) {
        self.change(|output| output.refusal = Some((code.to_owned(), message.to_owned())));
    }

    pub fn asked(&self) -> usize {
        self.output.lock().expect("no test panics holding it").asked
    }

    /// Goes away, as an agent process that ends: nobody listens.
    pub fn stop(&mut self) {
        if let Some(serving) = self.serving.take() {
            serving.abort();
        }
    }

    pub async fn come_back(&mut self) {
        let agent = self.io().agent;
        let mut questions = self.own.subscribe(&self.own.subjects().ios(&agent)).await.expect("it is connected");
        self.own.settle(LIMIT).await.expect("it is connected");
        let (own, output, news) = (self.own.clone(), Arc::clone(&self.output), Arc::clone(&self.news));
        self.serving = Some(tokio::spawn(async move {
            while let Some(question) = questions.next().await {
                let (own, output, news) = (own.clone(), Arc::clone(&output), Arc::clone(&news));
                tokio::spawn(async move { answer(&own, &question, &output, &news).await });
            }
        }));
    }

    fn change(&self, change: impl FnOnce(&mut Output)) {
        change(&mut self.output.lock().expect("no test panics holding it"));
        self.news.notify_waiters();
    }
}

async fn answer(own: &Bus, question: &Message, output: &Mutex<Output>, news: &Notify) {
    let ask: Ask = serde_json::from_slice(&question.payload).expect("it is a question");
    output.lock().expect("no test panics holding it").asked += 1;
    if let What::Follow { offset, .. } = ask.what {
        return flow(own, question, output, news, offset).await;
    }
    let wait = match &ask.what {
        What::Read { wait_ms, .. } => Duration::from_millis(*wait_ms),
        _ => Duration::ZERO,
    };
    let told = timeout(wait, async {
        loop {
            let changed = news.notified();
            if let Some(told) = tell(&ask.what, &output.lock().expect("no test panics holding it")) {
                return told;
            }
            changed.await;
        }
    });
    let (told, bytes) = told.await.unwrap_or_else(|_| match ask.what {
        What::Read { offset, .. } => (Told::Bytes { offset, end: false }, Vec::new()),
        _ => unreachable!("only reads wait"),
    });
    let mut payload = serde_json::to_vec(&told).expect("it has a JSON form");
    payload.push(b'\n');
    payload.extend(bytes);
    assert!(own_inbox("me", question.reply.as_deref().unwrap_or_default()));
    let sent = own.respond(question, "me", Bytes::from(payload)).await;
    sent.expect("it is connected and small enough");
}

/// Sends everything as it comes, without a look at the credit.
async fn flow(own: &Bus, question: &Message, output: &Mutex<Output>, news: &Notify, offset: u64) {
    let mut at = offset;
    loop {
        let changed = news.notified();
        let read = What::Read { stream: Stream::Stdout, offset: at, max: 50_000, wait_ms: 0, follow: false };
        let told = tell(&read, &output.lock().expect("no test panics holding it"));
        match told {
            Some((told, bytes)) => {
                let mut payload = serde_json::to_vec(&told).expect("it has a JSON form");
                payload.push(b'\n');
                payload.extend(&bytes);
                own.respond(question, "me", Bytes::from(payload)).await.expect("it is connected and small enough");
                match told {
                    Told::Bytes { offset, end: false } => at = offset + bytes.len() as u64,
                    _ => return,
                }
            }
            None => changed.await,
        }
    }
}

/// The answer there is now, if there is one.
fn tell(what: &What, output: &Output) -> Option<(Told, Vec<u8>)> {
    if let Some((code, message)) = &output.refusal {
        return Some((Told::No { code: code.clone(), message: message.clone() }, Vec::new()));
    }
    let last = output.bytes.len() as u64;
    match what {
        What::Read { offset, max, .. } => {
            let from = (*offset).max(output.first).min(last.max(*offset));
            let most = (*max as usize).min(output.answer_max.unwrap_or(usize::MAX));
            let bytes: Vec<u8> = output.bytes.get(from as usize..).unwrap_or_default().iter().take(most).copied().collect();
            let end = output.ended && from + bytes.len() as u64 >= last;
            (!bytes.is_empty() || end).then_some((Told::Bytes { offset: from, end }, bytes))
        }
        What::Follow { .. } | What::More { .. } => None,
        What::Size { .. } => Some((Told::Size { first: output.first, last, end: output.ended }, Vec::new())),
        What::Write { offset, .. } => Some((Told::Taken { offset: *offset, closed: false }, Vec::new())),
        What::Signal { .. } => Some((Told::Taken { offset: 0, closed: false }, Vec::new())),
    }
}
