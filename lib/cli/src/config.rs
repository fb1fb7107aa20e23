//! The configuration file: what one would otherwise type with every command
use crate::{exit::Failure, io_text, surroundings::Surroundings};
use serde::Deserialize;
use std::{
    fs::File,
    io::{self, Read},
    path::{Path, PathBuf},
};

/// What a task needs if nobody says: one processor and 256 MiB.
pub const DEFAULT_REQUEST: &str = "cpus=1,mem=256M";
/// A larger configuration file is not one.
const CONFIG_BYTES_MAX: u64 = 64 * 1024;
/// The keys, for the message about one that is not among them.
const KEYS: &str = "nats, creds, context, cluster, principal, role, resources";

/// What `~/.config/meso/config.toml` and `/etc/meso/config.toml` say; the former wins, key by key.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Address of the bus.
    pub nats: Option<String>,
    /// File with credentials for the bus; relative to the configuration file.
    pub creds: Option<PathBuf>,
    /// NATS context to take the address and credentials from.
    pub context: Option<String>,
    /// Name of the cluster.
    pub cluster: Option<String>,
    /// Who one is on the bus.
    pub principal: Option<String>,
    /// Role of one's frameworks.
    pub role: Option<String>,
    /// What a task gets that does not ask, as for `-R`.
    pub resources: Option<String>,
}

impl Config {
    /// Reads the files there are; without any, nothing is configured.
    ///
    /// # Errors
    /// `Config`, naming file and place: a file that cannot be read, is not TOML, or has a key or type we do not know.
    pub fn read(surroundings: &Surroundings) -> Result<Self, Failure> {
        let mut config = Self::default();
        for path in surroundings.config_files() {
            if let Some(text) = read_small(&path, CONFIG_BYTES_MAX)? {
                let mut found = Self::parse(&text, &path)?;
                found.creds = found.creds.map(|creds| beside(&path, surroundings.expand_home(&creds.to_string_lossy())));
                config.fill_from(found);
            }
        }
        Ok(config)
    }

    fn parse(text: &str, path: &Path) -> Result<Self, Failure> {
        toml::from_str(text).map_err(|e| {
            let line = e.span().map_or(1, |span| 1 + text.as_bytes().iter().take(span.start).filter(|byte| **byte == b'\n').count());
            // Only the first line: toml draws a picture below it.
            let why = e.message().lines().next().unwrap_or("not TOML").to_owned();
            Failure::config(format!("{} line {line}: {why}", path.display())).hint(format!("mend it; it may have the keys {KEYS}"))
        })
    }

    /// Takes what is still open.
    fn fill_from(&mut self, other: Self) {
        let Self { nats, creds, context, cluster, principal, role, resources } = other;
        self.nats = self.nats.take().or(nats);
        self.creds = self.creds.take().or(creds);
        self.context = self.context.take().or(context);
        self.cluster = self.cluster.take().or(cluster);
        self.principal = self.principal.take().or(principal);
        self.role = self.role.take().or(role);
        self.resources = self.resources.take().or(resources);
    }
}

/// A small text file; `None` if there is none.
///
/// # Errors
/// `Config`, naming the file: not readable, larger than `bytes_max`, not UTF-8.
pub(crate) fn read_small(path: &Path, bytes_max: u64) -> Result<Option<String>, Failure> {
    let failure = |why: &str| Failure::config(format!("{}: {why}", path.display()));
    let file = match File::open(path) {
        Ok(file) => file,
        Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => return Ok(None),
        Err(e) => return Err(failure(&io_text(&e)).hint("make it readable, or move it away")),
    };
    let mut bytes = Vec::new();
    file.take(bytes_max + 1).read_to_end(&mut bytes).map_err(|e| failure(&io_text(&e)).hint("mend it, or move it away"))?;
    if bytes.len() as u64 > bytes_max {
        return Err(failure(&format!("larger than {bytes_max} bytes")).hint("see that it is the right file"));
    }
    String::from_utf8(bytes).map(Some).map_err(|_| failure("not UTF-8").hint("see that it is the right file"))
}

/// A path in a file is meant relative to that file, whatever the working directory.
fn beside(file: &Path, path: PathBuf) -> PathBuf {
    file.parent().map_or_else(|| path.clone(), |folder| folder.join(&path))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::FailureKind;
    use std::fs;

    fn surroundings(home: &Path) -> Surroundings {
        Surroundings::of([("HOME", home.to_str().expect("a temporary path is UTF-8"))], home.join("etc.toml"))
    }

    /// Shows that one's own file wins key by key, and that paths in it are relative to it.
    #[test]
    fn own_file_wins_key_by_key() {
        let home = tempfile::tempdir().expect("a folder can be made");
        let own = home.path().join(".config/meso");
        fs::create_dir_all(&own).expect("it is ours");
        fs::write(own.join("config.toml"), "cluster = \"mine\"\ncreds = \"me.creds\"\n").expect("it is ours");
        fs::write(home.path().join("etc.toml"), "cluster = \"theirs\"\nrole = \"batch\"\n").expect("it is ours");
        let config = Config::read(&surroundings(home.path())).expect("both are right");
        assert_eq!((config.cluster.as_deref(), config.role.as_deref()), (Some("mine"), Some("batch")));
        assert_eq!(config.creds, Some(own.join("me.creds")));
    }

    /// Shows that no file is no failure.
    #[test]
    fn nothing_is_configured() {
        let home = tempfile::tempdir().expect("a folder can be made");
        assert_eq!(Config::read(&surroundings(home.path())).expect("none is needed"), Config::default());
    }

    /// Shows that each kind of wrong file is refused with its name and the line.
    #[test]
    fn wrong_files_are_named() {
        let home = tempfile::tempdir().expect("a folder can be made");
        let file = home.path().join("etc.toml");
        let cases: [(&[u8], &str); 6] = [
            (b"nats = \"x\"\nclustr = \"y\"\n", "line 2: unknown field `clustr`"),
            (b"\n\nnats = 7\n", "line 3: invalid type"),
            (b"nats = \n", "line 1: "),
            (b"nats = \"a\"\nnats = \"b\"\n", "line 2: duplicate key"),
            (b"nats = \"\xff\"\n", "not UTF-8"),
            (&[b'#'; 70_000], "larger than 65536 bytes"),
        ];
        for (text, why) in cases {
            fs::write(&file, text).expect("it is ours");
            let failure = Config::read(&surroundings(home.path())).expect_err(why);
            assert_eq!(failure.kind(), FailureKind::Config);
            assert!(failure.what().contains(why) && failure.what().contains("etc.toml"), "{why}: {}", failure.what());
        }
    }
}
