//! What a nats-server of ours is told
use std::path::Path;

/// The oldest version that can be told to sync what it stores before it says it has it.
const SYNCS_FROM: (u64, u64, u64) = (2, 10, 0);
/// What every server of a bus is told: the same that we recommend for one that an operator runs.
const LIMITS: &str = include_str!("../../../../examples/nats-server/limits.conf");

/// The configuration of a bus on this machine.
#[derive(Clone, Debug)]
pub(super) struct NatsConfig<'a> {
    /// None takes a free one, which the server then tells in its ports file.
    pub port: Option<u16>,
    /// Where it keeps its streams.
    pub store: &'a Path,
    /// The server's version, major first.
    pub version: (u64, u64, u64),
    /// Whether what it stores has to outlive a power cut; a cluster that ends with a command needs no such thing.
    pub is_kept: bool,
    /// A secret that clients must give; without one, everybody on this machine may connect.
    pub token: Option<&'a str>,
    /// Its place among several; none if it is alone.
    pub peers: Option<Peers<'a>>,
}

/// Servers that are one bus.
#[derive(Clone, Copy, Debug)]
pub(super) struct Peers<'a> {
    /// Which of them this one is, from 1.
    pub number: usize,
    /// Where each listens for the others.
    pub ports: &'a [u16],
}

impl NatsConfig<'_> {
    /// Whether what the server acknowledges survives a power cut.
    pub(super) fn can_sync(&self) -> bool {
        self.version >= SYNCS_FROM
    }

    /// The text of the configuration file.
    pub(super) fn text(&self) -> String {
        // -1 means any free port.
        let port = self.port.map_or_else(|| "-1".to_owned(), |port| port.to_string());
        let sync = if self.is_kept && self.can_sync() { "\n  sync_interval: always" } else { "" };
        let name = self.peers.map_or_else(|| "meso-bus".to_owned(), |peers| format!("bus-{}", peers.number));
        let cluster = self.peers.map_or_else(String::new, Peers::text);
        let access = self.token.map_or_else(String::new, |token| format!("authorization {{ token: {} }}\n", quoted(token)));
        format!(
            "# Written by meso-up at each start\n\
             server_name: {name}\n\
             listen: \"127.0.0.1:{port}\"\n\
             {access}\
             {LIMITS}\
             {cluster}\
             jetstream {{\n  \
               store_dir: {}\n  \
               max_file_store: 10GB\n  \
               max_memory_store: 256MB{sync}\n\
             }}\n",
            quoted(&self.store.to_string_lossy()),
        )
    }
}

impl Peers<'_> {
    /// The block that makes one bus of them.
    fn text(self) -> String {
        let routes: Vec<String> = self.ports.iter().map(|port| format!("\"nats://127.0.0.1:{port}\"")).collect();
        let own = self.ports.get(self.number - 1).copied().unwrap_or_default();
        format!("cluster {{\n  name: meso\n  listen: \"127.0.0.1:{own}\"\n  routes: [ {} ]\n}}\n", routes.join(", "))
    }
}

/// A text in double quotes, as nats-server reads them.
fn quoted(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{fs, process::Command};

    /// Shows that the server found here takes the text for its version, with names of folders that want quoting.
    #[test]
    fn the_server_understands_it() {
        let Ok(server) = meso_bus::testserver::find_server() else { return };
        let version = meso_bus::testserver::version_of(&server).expect("it says its version");
        let folder = tempfile::tempdir().expect("a folder can be made");
        let store = folder.path().join("a \"b\" \\c");
        let peers = Peers { number: 2, ports: &[6222, 6223, 6224] };
        for (port, is_kept, token, peers) in [(None, false, None, None), (Some(4222), true, Some("s3cret"), None), (Some(4223), true, Some("s3cret"), Some(peers))] {
            let text = NatsConfig { port, store: &store, version, is_kept, token, peers }.text();
            let path = folder.path().join("nats.conf");
            fs::write(&path, &text).expect("it is ours");
            let checked = Command::new(&server).arg("-t").arg("-c").arg(&path).output().expect("it can be started");
            assert!(checked.status.success(), "{text}\n{}", String::from_utf8_lossy(&checked.stderr));
        }
    }

    /// Shows that only a kept store is synced at each write, and only by servers that know how.
    #[test]
    fn only_what_is_kept_is_synced() {
        let text = |version, is_kept| NatsConfig { port: None, store: Path::new("/s"), version, is_kept, token: None, peers: None }.text();
        assert!(text((2, 12, 0), true).contains("sync_interval: always"));
        assert!(!text((2, 12, 0), false).contains("sync_interval"));
        assert!(!text((2, 9, 10), true).contains("sync_interval"));
    }

    /// The settings of a block, one a line.
    fn settings(text: &str, of: &str) -> Vec<String> {
        let inside = text.lines().map(str::trim).skip_while(|line| !line.starts_with(of)).skip(1).take_while(|line| *line != "}");
        inside.filter(|line| !line.starts_with('#')).map(str::to_owned).collect()
    }

    /// Shows that three servers are told of each other as the recommended configuration tells them, but for their addresses.
    #[test]
    fn three_are_told_the_same() {
        let peers = Peers { number: 3, ports: &[1, 2, 6222] };
        let ours = NatsConfig { port: None, store: Path::new("/s"), version: (2, 12, 0), is_kept: true, token: None, peers: Some(peers) }.text();
        let recommended = include_str!("../../../../examples/nats-server/three.conf")
            .replace("0.0.0.0", "127.0.0.1")
            .replace("bus-1:6222", "127.0.0.1:1")
            .replace("bus-2:6222", "127.0.0.1:2")
            .replace("bus-3:6222", "127.0.0.1:6222");
        let cluster = settings(&ours, "cluster {");
        assert!(cluster.len() == 3 && ours.contains("server_name: bus-3\n"), "{ours}");
        assert_eq!(cluster, settings(&recommended, "cluster {"));
    }

    /// Shows that the store of the recommended configurations is like ours, and synced, and that they take in what all servers are told.
    #[test]
    fn the_recommended_ones_agree() {
        let ours = NatsConfig { port: None, store: Path::new("/var/lib/meso/bus"), version: (2, 12, 0), is_kept: true, token: None, peers: None }.text();
        let stored = settings(&ours, "jetstream {");
        assert!(stored.len() == 4 && stored.iter().any(|line| line == "sync_interval: always"), "{stored:?}");
        for recommended in [include_str!("../../../../examples/nats-server/one.conf"), include_str!("../../../../examples/nats-server/three.conf")] {
            assert_eq!(settings(recommended, "jetstream {"), stored);
            assert!(recommended.lines().any(|line| line == "include limits.conf"));
        }
    }

    /// Shows that each server that is here takes the recommended configurations, an old one without the line that it does not know.
    #[test]
    fn servers_understand_the_recommended_ones() {
        let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/nats-server");
        let newer = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/tools/nats-server-2.15.1/bin/nats-server");
        for server in meso_bus::testserver::find_server().into_iter().chain(newer.exists().then_some(newer)) {
            let version = meso_bus::testserver::version_of(&server).expect("it says its version");
            let folder = tempfile::tempdir().expect("a folder can be made");
            for entry in fs::read_dir(&examples).expect("it is ours").flatten().filter(|entry| entry.path().extension().is_some_and(|end| end == "conf")) {
                let text = fs::read_to_string(entry.path()).expect("it is text");
                let known: String = text.lines().filter(|line| version >= SYNCS_FROM || !line.contains("sync_interval")).map(|line| format!("{line}\n")).collect();
                fs::write(folder.path().join(entry.file_name()), known).expect("it is ours");
            }
            for file in ["one.conf", "three-1.conf", "three-2.conf", "three-3.conf"] {
                let checked = Command::new(&server).arg("-t").arg("-c").arg(folder.path().join(file)).env("MESO_BUS_TOKEN", "t0ken").output().expect("it can be started");
                assert!(checked.status.success(), "{file} on {version:?}: {}", String::from_utf8_lossy(&checked.stderr));
            }
        }
    }
}
