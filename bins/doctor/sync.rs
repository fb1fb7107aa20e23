//! Whether the bus syncs what it stores: no server tells its clients, but one on this machine has a file.

use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};

use meso_bus::Bus;
use meso_cli::service::holder_of;
use tokio::task::spawn_blocking;
use tokio::time::timeout;

use crate::finding::{CHECK, Finding};

/// Servers before this one cannot be told to sync.
const SYNCS_FROM: (u64, u64) = (2, 10);
/// A configuration that is longer is not read.
const CONFIG_BYTES_MAX: u64 = 1 << 20;
/// So begins the configuration of a bus that meso-up brought up.
const BY_MESO_UP: &str = "# Written by meso-up";
/// Where the bus is if its address does not say.
const PORT: u16 = 4222;

/// What a configuration says of syncing.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Told {
    Always,
    /// Each so often.
    Each(String),
    /// Nothing, so it is each 2 minutes.
    Nothing,
    /// Nothing here, but it takes in other files.
    Elsewhere,
}

pub async fn look(bus: &Bus, version: (u64, u64)) -> Finding {
    if version < SYNCS_FROM {
        return Finding::skip("sync", "this server cannot be told to sync, see server");
    }
    let Some(port) = local_port(&bus.options().shown_url()) else { return not_told() };
    let read = timeout(CHECK, spawn_blocking(move || config_of(holder_of(port)?))).await;
    match read {
        Ok(Ok(Some((path, text)))) => of_config(&path, &told(&text), text.starts_with(BY_MESO_UP)),
        _ => not_told(),
    }
}

fn not_told() -> Finding {
    Finding::ok("sync", "not told to clients; for a bus that stays, its configuration wants sync_interval: always")
}

fn of_config(path: &Path, told: &Told, is_by_meso_up: bool) -> Finding {
    let path = path.display();
    let mend = || match is_by_meso_up {
        // It would write the file anew.
        true => "meso-up --state DIR, which keeps what is there; it syncs only what it keeps".to_owned(),
        false => format!("sync_interval: always in the jetstream block of {path}, and nats-server started again"),
    };
    match told {
        Told::Always => Finding::ok("sync", format!("always, says {path}")),
        Told::Each(interval) => Finding::warn("sync", format!("a power cut may lose what the bus stored in the last {interval}, says {path}"), mend()),
        Told::Nothing => Finding::warn("sync", format!("a power cut may lose what the bus stored in the last 2 minutes: {path} says nothing of it"), mend()),
        Told::Elsewhere => not_told(),
    }
}

/// The port, if an address leads to this machine.
fn local_port(url: &str) -> Option<u16> {
    let first = url.split(',').next()?.trim();
    let address = first.split_once("://").map_or(first, |(_, rest)| rest).trim_end_matches('/');
    let is_local = |host: &str| host == "localhost" || host == "[::1]" || host.starts_with("127.");
    match address.rsplit_once(':') {
        Some((host, port)) if is_local(host) => port.parse().ok(),
        _ => is_local(address).then_some(PORT),
    }
}

/// The configuration that a server was started with, if we may read it.
fn config_of(pid: u32) -> Option<(PathBuf, String)> {
    let cmdline = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
    let words: Vec<String> = cmdline.split(|byte| *byte == 0).map(|word| String::from_utf8_lossy(word).into_owned()).collect();
    // Whoever listens there may be anything; only a server's file is for us to read.
    let is_server = Path::new(words.first()?).file_name().is_some_and(|name| name.to_string_lossy().starts_with("nats-server"));
    let path = config_word(words.get(1..)?).filter(|_| is_server)?;
    let path = fs::read_link(format!("/proc/{pid}/cwd")).ok()?.join(path);
    let file = File::open(&path).ok()?;
    let is_plain = file.metadata().is_ok_and(|facts| facts.is_file() && facts.len() <= CONFIG_BYTES_MAX);
    let mut text = String::new();
    let read = file.take(CONFIG_BYTES_MAX).read_to_string(&mut text);
    (is_plain && read.is_ok()).then_some((path, text))
}

/// The value of the flag that names the configuration; Go takes one dash or two, and a `=`.
fn config_word(words: &[String]) -> Option<&str> {
    let mut words = words.iter();
    while let Some(word) = words.next() {
        let Some(flag) = word.strip_prefix("--").or_else(|| word.strip_prefix('-')) else { continue };
        match flag.split_once('=') {
            Some(("c" | "config", path)) => return Some(path),
            None if matches!(flag, "c" | "config") => return words.next().map(String::as_str),
            _ => {}
        }
    }
    None
}

/// What a configuration says of syncing; keys are `key: value`, `key = value` or `key value`, comments begin with # or //.
fn told(config: &str) -> Told {
    let is_comment = |line: &str| line.starts_with('#') || line.starts_with("//");
    let mut includes = false;
    for line in config.lines().map(str::trim).filter(|line| !is_comment(line)) {
        for part in line.split(['{', '}', ',', ';']).map(str::trim) {
            includes |= part.starts_with("include ");
            let value = ["sync_interval", "sync"].iter().find_map(|key| part.strip_prefix(key).filter(|rest| rest.starts_with([':', '=', ' ', '\t'])));
            let value = value.map(|rest| rest.trim_start_matches([':', '=', ' ', '\t']).split('#').next().unwrap_or_default().trim().trim_matches(['"', '\'']).to_owned());
            match value.as_deref() {
                Some("always") => return Told::Always,
                Some(interval) => return Told::Each(interval.to_owned()),
                None => {}
            }
        }
    }
    if includes { Told::Elsewhere } else { Told::Nothing }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::finding::State;

    /// Shows which addresses lead to this machine, and to which port.
    #[test]
    fn addresses() {
        assert_eq!(local_port("nats://127.0.0.1:4333"), Some(4333));
        assert_eq!(local_port("localhost"), Some(4222));
        assert_eq!(local_port("tls://[::1]:7/,nats://far:1"), Some(7));
        assert_eq!(local_port("nats://far:4222"), None);
        assert_eq!(local_port("nats://127.0.0.1:x"), None);
        assert_eq!(local_port(""), None);
    }

    /// Shows that each way to write the setting is read, that comments are not, and that what may stand in another file is not made up.
    #[test]
    fn settings() {
        assert_eq!(told("jetstream {\n  sync_interval: always\n}"), Told::Always);
        assert_eq!(told("jetstream { store_dir: \"/s\", sync_interval = \"always\" }"), Told::Always);
        assert_eq!(told("jetstream {\n  sync_interval 30s # why\n}"), Told::Each("30s".to_owned()));
        assert_eq!(told("# sync_interval: always\njetstream {}"), Told::Nothing);
        assert_eq!(told("include limits.conf\n"), Told::Elsewhere);
        let states = [Told::Always, Told::Each("1s".to_owned()), Told::Nothing, Told::Elsewhere].map(|told| of_config(Path::new("/f"), &told, false).state);
        assert_eq!(states, [State::Ok, State::Warn, State::Warn, State::Ok]);
    }

    /// Shows that the flag is found as Go takes it.
    #[test]
    fn flags() {
        let found = |words: &[&str]| config_word(&words.iter().map(ToString::to_string).collect::<Vec<_>>()).map(str::to_owned);
        for words in [&["-js", "-c", "/f"][..], &["--config", "/f"], &["-config=/f"], &["--c=/f", "-D"]] {
            assert_eq!(found(words).as_deref(), Some("/f"), "{words:?}");
        }
        assert_eq!((found(&["-js"]), found(&["-c"])), (None, None));
    }
}
