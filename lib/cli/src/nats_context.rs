//! NATS contexts: addresses and credentials as the `nats` command keeps them
use crate::{config::read_small, exit::Failure, surroundings::Surroundings};
use serde::Deserialize;
use std::path::PathBuf;

/// A larger context file is not one.
const CONTEXT_BYTES_MAX: u64 = 64 * 1024;
/// Longest name of a context, as long as a file name can be with its ending.
const NAME_BYTES_MAX: usize = 250;

/// What we use of `~/.config/nats/context/<name>.json`; keys we do not know are the `nats` command's own.
///
/// The `nats` command writes every key, with empty text for what is not set.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(default)]
pub struct NatsContext {
    pub url: String,
    pub creds: String,
    pub user: String,
    pub password: String,
    pub token: String,
    /// File with an nkey seed.
    pub nkey: String,
    pub inbox_prefix: String,
    /// TLS client certificate, its key, and the authority of the server's.
    pub cert: String,
    pub key: String,
    pub ca: String,
}

impl NatsContext {
    /// Reads the context of a name.
    ///
    /// # Errors
    /// `Usage`: a name that is no name. `Config`: no such context, or a file that is not one; both name the file.
    pub fn read(name: &str, surroundings: &Surroundings) -> Result<Self, Failure> {
        let path = path_of(name, surroundings)?;
        let Some(text) = read_small(&path, CONTEXT_BYTES_MAX)? else {
            return Err(Failure::config(format!("no NATS context '{name}': there is no {}", path.display())).hint("nats context ls, or --nats URL"));
        };
        serde_json::from_str(&text).map_err(|e| Failure::config(format!("{}: {e}", path.display())).hint(format!("nats context edit {name}")))
    }
}

fn path_of(name: &str, surroundings: &Surroundings) -> Result<PathBuf, Failure> {
    // It becomes part of a path: a name must not lead out of the folder.
    let is_name = !name.is_empty() && name.len() <= NAME_BYTES_MAX && !name.starts_with('.') && !name.contains(['/', '\\', '\0']);
    if !is_name {
        return Err(Failure::usage(format!("'{name}' is no name of a NATS context")).hint("nats context ls"));
    }
    let home = surroundings.config_home().ok_or_else(|| Failure::config(format!("NATS context '{name}': neither HOME nor XDG_CONFIG_HOME is set")).hint("--nats URL"))?;
    Ok(home.join("nats/context").join(format!("{name}.json")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::FailureKind;
    use std::fs;

    /// Shows that a file as `nats context add` writes it is understood, with its empty and foreign keys.
    #[test]
    fn reads_what_nats_writes() {
        let home = tempfile::tempdir().expect("a folder can be made");
        let here = Surroundings::of([("HOME", home.path().to_str().expect("UTF-8"))], "/nonexistent");
        let folder = home.path().join(".config/nats/context");
        fs::create_dir_all(&folder).expect("it is ours");
        fs::write(folder.join("prod.json"), r#"{"description":"x","url":"nats://a:1,nats://b:2","token":"","user":"u","password":"p","creds":"","nkey":"","jetstream_domain":"","inbox_prefix":"_INBOX.me","color_scheme":"blue"}"#)
            .expect("it is ours");
        let context = NatsContext::read("prod", &here).expect("it is right");
        assert_eq!((context.url.as_str(), context.user.as_str(), context.creds.as_str()), ("nats://a:1,nats://b:2", "u", ""));

        fs::write(folder.join("bad.json"), "{\"url\":7}").expect("it is ours");
        let bad = NatsContext::read("bad", &here).expect_err("a number is no address");
        assert!(bad.kind() == FailureKind::Config && bad.what().contains("bad.json"), "{bad}");
        let none = NatsContext::read("other", &here).expect_err("it is not there");
        assert!(none.kind() == FailureKind::Config && none.what().contains("other.json"), "{none}");
    }

    /// Shows that a name cannot lead out of the folder of contexts.
    #[test]
    fn names_stay_inside() {
        let here = Surroundings::of([("HOME", "/home/u")], "/nonexistent");
        for name in ["", "../../etc/passwd", "a/b", ".hidden", "a\0b"] {
            assert_eq!(NatsContext::read(name, &here).expect_err(name).kind(), FailureKind::Usage, "{name:?}");
        }
    }
}
