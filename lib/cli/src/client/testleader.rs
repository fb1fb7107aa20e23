//! A leader made for tests: answers as the test says, on a bus of its own
use crate::client::Leader;
use bytes::Bytes;
use meso_bus::subjects::inbox_of;
use meso_bus::testserver::{Server, ServerSpec};
use meso_bus::{Bus, BusOptions, Message, Store};
use meso_core::id::{AgentId, Name, Principal};
use meso_core::wire::Update;
use meso_core::wire::call::{Answer, Call};
use meso_core::wire::operator::{Operation, Outcome};
use meso_core::wire::query::{Query, Rows};
use std::time::Duration;

const LIMIT: Duration = Duration::from_secs(10);

pub(crate) struct TestLeader {
    bus: Bus,
    own: Bus,
    _server: Server,
}

impl TestLeader {
    /// A bus on which nobody leads yet.
    pub async fn start() -> Self {
        let server = Server::start(ServerSpec::default()).expect("nats-server is installed");
        let connect = async |who: &str| {
            let options = BusOptions::new(&server.url(), &Name::parse("test").expect("a name"), inbox_of(who), "test");
            Bus::connect(&options, LIMIT).await.expect("it listens")
        };
        Self { bus: connect("me").await, own: connect("master_1").await, _server: server }
    }

    /// The same, where events are recorded.
    pub async fn with_record() -> Self {
        let cluster = Self::start().await;
        Store::new(&cluster.own).ensure(1).await.expect("the bus has a store");
        cluster
    }

    pub fn leader(&self) -> Leader {
        Leader::new(self.bus.clone(), Principal::parse("me").expect("a principal"))
    }

    pub async fn answer_calls(&self, answer: impl Fn(Call) -> Answer + Send + 'static) {
        self.serve(self.own.subjects().framework_calls(), move |message| {
            serde_json::to_vec(&answer(serde_json::from_slice(&message.payload).expect("it is a call"))).expect("it has a JSON form")
        })
        .await;
    }

    pub async fn answer_operations(&self, answer: impl Fn(Operation) -> Outcome + Send + 'static) {
        self.serve(self.own.subjects().operator_calls(), move |message| {
            serde_json::to_vec(&answer(serde_json::from_slice(&message.payload).expect("it is an operation"))).expect("it has a JSON form")
        })
        .await;
    }

    pub async fn answer_queries(&self, answer: impl Fn(Query) -> Rows + Send + 'static) {
        self.serve(self.own.subjects().queries(), move |message| {
            serde_json::to_vec(&answer(serde_json::from_slice(&message.payload).expect("it is a query"))).expect("it has a JSON form")
        })
        .await;
    }

    /// Records a status as its own agent does.
    pub async fn record(&self, update: &Update) {
        self.record_as(&update.agent.clone().expect("it has a place"), update).await;
    }

    /// Records a status under the name of some agent.
    pub async fn record_as(&self, agent: &AgentId, update: &Update) {
        let subject = self.own.subjects().status(agent, &update.framework, &update.task);
        let payload = serde_json::to_vec(update).expect("it has a JSON form");
        self.own.publish_stored(&subject, Bytes::from(payload), &format!("{agent}.{}", update.seq)).await.expect("the stream is there");
    }

    async fn serve(&self, subject: String, answer: impl Fn(&Message) -> Vec<u8> + Send + 'static) {
        let mut questions = self.own.subscribe(&subject).await.expect("it is connected");
        self.own.settle(LIMIT).await.expect("it is connected");
        let own = self.own.clone();
        tokio::spawn(async move {
            while let Some(question) = questions.next().await {
                own.respond(&question, "me", Bytes::from(answer(&question))).await.expect("it is connected");
            }
        });
    }
}
