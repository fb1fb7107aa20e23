//! What a bus tells of itself to whoever looks after it; nothing is changed by asking

use meso_core::duration::parse_rfc3339;
use serde_json::{Value, json};

use crate::api::call;
use crate::store::event_stream_name;
use crate::{Bus, BusError, Store};

/// What the server says when it takes us in
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ServerTold {
    pub name: String,
    pub version: String,
    /// Bytes of any message at most.
    pub payload_bytes_max: usize,
    /// Name of the cluster of servers; none if it is alone.
    pub cluster: Option<String>,
    /// Addresses at which it says that servers of its cluster can be reached; some servers have several.
    pub addresses: usize,
}

/// What its store says of all that we may keep there
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AccountTold {
    pub streams: u64,
    pub bytes: u64,
    /// None if only the server's own limit holds, which it does not tell.
    pub bytes_max: Option<u64>,
}

/// What a stream of ours says
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StreamTold {
    pub name: String,
    /// How many servers are to have it.
    pub replicas: u64,
    /// Its leader among them; an old server that is alone does not say.
    pub leader: Option<String>,
    /// Those that follow, by name, and whether each is there and has everything.
    pub followers: Vec<(String, bool)>,
    pub bytes: u64,
    /// None if there is no limit.
    pub bytes_max: Option<u64>,
    /// When its last message was stored, by the server's clock, in Unix ms; none if it has none.
    pub last_ms: Option<u64>,
    /// The server's clock when it answered, in Unix ms; old servers do not say.
    pub now_ms: Option<u64>,
}

/// One of the four that masters keep
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kept {
    /// `events`, `lease`, `registry` or `checkpoint`.
    pub what: &'static str,
    /// None if it is not there.
    pub stream: Option<StreamTold>,
}

impl Bus {
    /// What the server told at the connection, and since
    pub fn server_told(&self) -> ServerTold {
        let info = self.server_info();
        let mut addresses = info.connect_urls;
        addresses.sort();
        addresses.dedup();
        ServerTold { name: info.server_name, version: info.version, payload_bytes_max: info.max_payload, cluster: info.cluster, addresses: addresses.len() }
    }

    /// Asks the store what we keep there and may; [`BusError::NoJetStream`] if there is none.
    pub async fn account_told(&self) -> Result<AccountTold, BusError> {
        match call(self, "INFO", &json!({})).await? {
            Ok(info) => Ok(AccountTold {
                streams: info["streams"].as_u64().unwrap_or(0),
                bytes: info["storage"].as_u64().unwrap_or(0),
                // -1 is none.
                bytes_max: info["limits"]["max_storage"].as_u64().filter(|max| *max > 0),
            }),
            Err(error) => Err(error.into_error(self, "tell what it keeps")),
        }
    }
}

impl Store {
    /// Asks for each stream that masters keep, the lease first; one that is not there is told as that.
    pub async fn told(&self) -> Result<Vec<Kept>, BusError> {
        let bus = self.bus();
        let kinds = [("lease", self.lease().stream()), ("registry", self.registry().stream()), ("checkpoint", self.checkpoint().stream()), ("events", event_stream_name(bus.subjects()))];
        let mut all = Vec::with_capacity(kinds.len());
        for (what, name) in kinds {
            let stream = match call(bus, &format!("STREAM.INFO.{name}"), &json!({})).await? {
                Ok(info) => Some(stream_told(name, &info)),
                Err(error) if error.is_stream_not_found() => None,
                Err(error) => return Err(error.into_error(bus, &format!("tell of the stream {name}"))),
            };
            all.push(Kept { what, stream });
        }
        Ok(all)
    }
}

fn stream_told(name: String, info: &Value) -> StreamTold {
    let instant = |value: &Value| value.as_str().and_then(|text| parse_rfc3339(text).ok());
    let cluster = &info["cluster"];
    let follower = |replica: &Value| {
        let is_there = replica["current"].as_bool().unwrap_or(false) && !replica["offline"].as_bool().unwrap_or(false);
        (replica["name"].as_str().unwrap_or("?").to_owned(), is_there)
    };
    StreamTold {
        name,
        replicas: info["config"]["num_replicas"].as_u64().unwrap_or(1),
        leader: cluster["leader"].as_str().filter(|name| !name.is_empty()).map(str::to_owned),
        followers: cluster["replicas"].as_array().into_iter().flatten().map(follower).collect(),
        bytes: info["state"]["bytes"].as_u64().unwrap_or(0),
        bytes_max: info["config"]["max_bytes"].as_u64().filter(|max| *max > 0),
        // A stream without messages tells the first day of the year 1, which is no instant since 1970.
        last_ms: instant(&info["state"]["last_ts"]),
        now_ms: instant(&info["ts"]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Shows what is read of an answer of a cluster of servers, and that an old server's, which says less, is understood.
    #[test]
    fn answers_of_old_and_new() {
        let new = json!({
            "config": { "num_replicas": 3, "max_bytes": 1024 },
            "state": { "bytes": 7, "last_ts": "2026-11-22T06:16:01.5Z" },
            "cluster": { "leader": "n1", "replicas": [
                { "name": "n2", "current": true }, { "name": "n3", "current": false }, { "name": "n4", "current": true, "offline": true } ] },
            "ts": "2026-11-22T06:16:02Z",
        });
        let told = stream_told("S".to_owned(), &new);
        assert_eq!((told.replicas, told.leader.as_deref(), told.bytes, told.bytes_max), (3, Some("n1"), 7, Some(1024)));
        assert_eq!(told.followers, [("n2".to_owned(), true), ("n3".to_owned(), false), ("n4".to_owned(), false)]);
        assert_eq!(told.now_ms.zip(told.last_ms).map(|(now, last)| now - last), Some(500));
        let old = json!({ "config": { "num_replicas": 1, "max_bytes": -1 }, "state": { "last_ts": "0001-01-01T00:00:00Z" } });
        assert_eq!(stream_told("S".to_owned(), &old), StreamTold { name: "S".to_owned(), replicas: 1, ..StreamTold::default() });
    }
}
