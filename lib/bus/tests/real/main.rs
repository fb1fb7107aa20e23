//! The bus on a real nats-server: the one found on this machine, or the one `MESO_NATS_SERVER` names

mod connection;
mod lease;
mod store;

use std::time::Duration;

use meso_bus::testserver::{Server, ServerSpec};
use meso_bus::{Bus, BusEvent, BusOptions, Events, inbox_of};
use meso_core::id::Name;

/// Longer than anything takes on a busy machine; nothing is measured with it
pub const PATIENCE: Duration = Duration::from_secs(30);
pub const SECOND: Duration = Duration::from_secs(1);

pub fn server() -> Server {
    Server::start(ServerSpec::default()).expect("a nats-server on this machine")
}

pub fn server_with(config: &str) -> Server {
    Server::start(ServerSpec { config: config.to_owned(), ..ServerSpec::default() }).expect("a nats-server on this machine")
}

pub fn options(server: &Server, principal: &str) -> BusOptions {
    let cluster = Name::parse("c1").expect("a name");
    BusOptions::new(&server.url(), &cluster, inbox_of(principal), "test")
}

pub fn daemon_options(server: &Server, principal: &str) -> BusOptions {
    BusOptions { reconnect: true, ping_ms: 200, ..options(server, principal) }
}

pub async fn connect(options: &BusOptions) -> Bus {
    Bus::connect(options, PATIENCE).await.expect("a connection")
}

/// Waits for an event that matches, letting others pass.
pub async fn wait_for(events: &mut Events, what: &str, matches: impl Fn(&BusEvent) -> bool) -> BusEvent {
    let waiting = async {
        loop {
            let event = events.next().await.expect("the connection is there");
            if matches(&event) {
                return event;
            }
        }
    };
    tokio::time::timeout(PATIENCE, waiting).await.unwrap_or_else(|_| panic!("no event: {what}"))
}

/// Waits until something is so.
pub async fn eventually(what: &str, is_so: impl AsyncFn() -> bool) {
    let waiting = async {
        while !is_so().await {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(PATIENCE, waiting).await.unwrap_or_else(|_| panic!("never: {what}"));
}
