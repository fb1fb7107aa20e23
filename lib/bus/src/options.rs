//! Where the bus is and who we are there

use std::path::{Path, PathBuf};
use std::time::Duration;

use async_nats::{ConnectOptions, ServerAddr};
use meso_core::id::Name;

use crate::BusError;
use crate::bus::SERVER_MS;
use crate::creds::Creds;

/// Messages that one subscription holds for its reader at most; more are dropped, and told
pub const SUBSCRIPTION_MESSAGES_MAX: usize = 65_536;
/// How often an idle connection is checked: three times this and a dead server is noticed
pub const PING_MS: u64 = 1_000;
/// Servers named in one URL list at most
pub const SERVERS_MAX: usize = 64;
/// Size of a file with credentials at most; they have a few hundred bytes
const SECRET_FILE_BYTES_MAX: u64 = 64 * 1024;

/// Where the bus is, how to log in, and what this connection is called
///
/// `Debug` leaves the secrets out.
#[derive(Clone)]
pub struct BusOptions {
    /// `nats://host:4222`, `tls://`, user and password or a token in front of `@`; several are
    /// separated by commas.
    pub url: String,
    /// A credentials file with JWT and seed.
    pub creds: Option<PathBuf>,
    pub user: Option<String>,
    pub password: Option<String>,
    pub token: Option<String>,
    /// A file holding an nkey seed.
    pub nkey: Option<PathBuf>,
    /// Certificate of the authority that signs the servers' certificates.
    pub ca: Option<PathBuf>,
    pub cert: Option<PathBuf>,
    pub key: Option<PathBuf>,
    pub cluster: Name,
    /// Where answers come in: `subjects::inbox_of(principal)`.
    pub inbox: String,
    /// What the server's own listings show of us: tool and id.
    pub name: String,
    pub ping_ms: u64,
    /// Daemons and streams reconnect for ever; a one-shot tool fails at once.
    pub reconnect: bool,
    /// Messages that a subscription of this connection holds for its reader at most.
    pub subscription_messages_max: usize,
}

impl BusOptions {
    /// A plain connection: no credentials, no reconnecting.
    pub fn new(url: &str, cluster: &Name, inbox: String, name: &str) -> BusOptions {
        BusOptions {
            url: url.to_owned(),
            creds: None,
            user: None,
            password: None,
            token: None,
            nkey: None,
            ca: None,
            cert: None,
            key: None,
            cluster: cluster.clone(),
            inbox,
            name: name.to_owned(),
            ping_ms: PING_MS,
            reconnect: false,
            subscription_messages_max: SUBSCRIPTION_MESSAGES_MAX,
        }
    }

    /// The URL list as it may be shown: without user, password and token
    pub fn shown_url(&self) -> String {
        self.url.split(',').map(|url| without_userinfo(url.trim())).collect::<Vec<_>>().join(",")
    }

    /// The servers to try, without their secrets
    pub(crate) fn servers(&self) -> Result<Vec<ServerAddr>, BusError> {
        let mut servers = Vec::new();
        for text in self.url.split(',').map(str::trim).filter(|text| !text.is_empty()) {
            // The parser's own words may repeat the password; ours do not.
            let wrong = |why: &str| BusError::Options {
                what: format!("the bus address {} {why}; nats://HOST:PORT is one", shown(&without_userinfo(text))),
            };
            let server: ServerAddr = text.parse().map_err(|_| wrong("is not an address"))?;
            if !matches!(server.scheme(), "nats" | "tls") {
                return Err(wrong("has a scheme that is neither nats nor tls"));
            }
            if server.host().is_empty() {
                return Err(wrong("names no host"));
            }
            let bare = without_userinfo(&with_scheme(text));
            servers.push(bare.parse().map_err(|_| wrong("is not an address"))?);
        }
        match servers.len() {
            0 => Err(BusError::Options { what: "the bus address is empty; nats://HOST:PORT is one".into() }),
            n if n > SERVERS_MAX => {
                Err(BusError::Options { what: format!("the bus address names {n} servers, over the limit of {SERVERS_MAX}") })
            }
            _ => Ok(servers),
        }
    }

    /// The options of the client library, credentials read from their files
    pub(crate) fn connect_options(&self) -> Result<ConnectOptions, BusError> {
        let mut options = ConnectOptions::new()
            .name(&self.name)
            .custom_inbox_prefix(&self.inbox)
            .ping_interval(Duration::from_millis(self.ping_ms.max(1)))
            .subscription_capacity(self.subscription_messages_max.max(1));
        if self.url.contains(',') {
            // One that stands still must not keep us from those that do not.
            options = options.connection_timeout(Duration::from_millis(SERVER_MS));
        }
        if let Some((user, password)) = self.url_login() {
            options = match password {
                Some(password) => options.user_and_password(user, password),
                None => options.token(user),
            };
        }
        match (&self.user, &self.password) {
            (Some(user), Some(password)) => options = options.user_and_password(user.clone(), password.clone()),
            (Some(token), None) => options = options.token(token.clone()),
            (None, _) => {}
        }
        if let Some(token) = &self.token {
            options = options.token(token.clone());
        }
        if let Some(path) = &self.nkey {
            let seed = read_secret(path)?;
            options = options.nkey(seed.trim().to_owned());
        }
        if let Some(path) = &self.creds {
            let creds = Creds::parse(&read_secret(path)?);
            let creds = creds.ok_or_else(|| BusError::Credentials { why: format!("{} holds no JWT and seed", path.display()) })?;
            options = creds.log_in(options);
        }
        if let Some(path) = &self.ca {
            options = options.add_root_certificates(path.clone());
        }
        if let (Some(cert), Some(key)) = (&self.cert, &self.key) {
            options = options.add_client_certificate(cert.clone(), key.clone());
        }
        Ok(options)
    }

    /// User and password, or a token alone, of the first URL that has them
    fn url_login(&self) -> Option<(String, Option<String>)> {
        self.url.split(',').find_map(|url| {
            let server: ServerAddr = url.trim().parse().ok()?;
            let user = percent_decoded(server.username()?);
            Some((user, server.password().map(percent_decoded)))
        })
    }

    /// Takes every secret we hold out of a text that comes from below us.
    pub(crate) fn scrubbed(&self, text: &str) -> String {
        let mut text = text.to_owned();
        let login = self.url_login();
        let secrets = [
            self.password.clone(),
            self.token.clone(),
            login.as_ref().and_then(|(_, password)| password.clone()),
            login.and_then(|(user, password)| password.is_none().then_some(user)),
        ];
        for secret in secrets.into_iter().flatten().filter(|secret| !secret.is_empty()) {
            text = text.replace(&secret, "***");
        }
        text
    }
}

impl std::fmt::Debug for BusOptions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("BusOptions")
            .field("url", &self.shown_url())
            .field("creds", &self.creds)
            .field("nkey", &self.nkey)
            .field("cluster", &self.cluster)
            .field("inbox", &self.inbox)
            .field("name", &self.name)
            .field("reconnect", &self.reconnect)
            .finish_non_exhaustive()
    }
}

fn with_scheme(text: &str) -> String {
    if text.contains("://") { text.to_owned() } else { format!("nats://{text}") }
}

/// Cuts out what stands before the `@`. A password may hold any character, so nothing is parsed.
fn without_userinfo(text: &str) -> String {
    let (scheme, rest) = match text.split_once("://") {
        Some((scheme, rest)) => (format!("{scheme}://"), rest),
        None => (String::new(), text),
    };
    let host = rest.rsplit_once('@').map_or(rest, |(_, host)| host);
    format!("{scheme}{host}")
}

/// Quoted and shortened for a message: the address may be anything at all.
fn shown(text: &str) -> String {
    const SHOWN_CHARS_MAX: usize = 60;
    let mut short: String = text.chars().take(SHOWN_CHARS_MAX).flat_map(char::escape_default).collect();
    if text.chars().count() > SHOWN_CHARS_MAX {
        short.push_str("...");
    }
    format!("\"{short}\"")
}

fn percent_decoded(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        let decoded = match (first, tail) {
            (b'%', [hi, lo, ..]) => char::from(*hi).to_digit(16).zip(char::from(*lo).to_digit(16)),
            _ => None,
        };
        match decoded {
            Some((hi, lo)) => {
                bytes.push((hi * 16 + lo) as u8);
                rest = &tail[2..];
            }
            None => {
                bytes.push(*first);
                rest = tail;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

fn read_secret(path: &Path) -> Result<String, BusError> {
    let refuse = |why: String| BusError::Credentials { why: format!("{}: {why}", path.display()) };
    let size = std::fs::metadata(path).map_err(|e| refuse(plain_io(&e)))?.len();
    if size > SECRET_FILE_BYTES_MAX {
        return Err(refuse(format!("{size} bytes are too many for credentials")));
    }
    std::fs::read_to_string(path).map_err(|e| refuse(plain_io(&e)))
}

/// An I/O error in the words of `errno`, without the "(os error 2)" of the library
pub(crate) fn plain_io(error: &std::io::Error) -> String {
    let text = error.to_string();
    match text.find(" (os error") {
        Some(at) => text[..at].to_lowercase(),
        None => text.to_lowercase(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(url: &str) -> BusOptions {
        BusOptions::new(url, &Name::parse("c1").expect("a name"), "_INBOX.ann".into(), "test")
    }

    /// Neither shown URLs nor debug texts nor errors ever hold the password or token.
    #[test]
    fn secrets_are_never_shown() {
        for url in ["nats://ann:s3cret@host:1", "ann:s3cret@host", "nats://s3cret@host", "nats://ann:s3c@s3cret@h:x"] {
            let options = options(url);
            let shown = [
                options.shown_url(),
                format!("{options:?}"),
                options.servers().map_or_else(|e| e.to_string(), |s| format!("{s:?}")),
                options.scrubbed("user s3cret said s3cret"),
            ];
            for text in &shown[..3] {
                assert!(!text.contains("s3c"), "{url}: {text}");
            }
        }
        assert_eq!(options("nats://ann:s3cret@h").scrubbed("a s3cret b"), "a *** b");
    }

    /// Login data of a URL is decoded and used; a lone user is a token.
    #[test]
    fn login_in_the_url() {
        assert_eq!(options("nats://ann:p%40ss@h").url_login(), Some(("ann".into(), Some("p@ss".into()))));
        assert_eq!(options("nats://tok@h").url_login(), Some(("tok".into(), None)));
        assert_eq!(options("nats://h,nats://tok@h2").url_login(), Some(("tok".into(), None)));
        assert_eq!(options("nats://h").url_login(), None);
    }

    /// Addresses that cannot be used are refused in one harmless line that says what one looks like.
    #[test]
    fn bad_addresses() {
        let long = format!("nats://{}", "x".repeat(5000));
        for url in ["", ",", "http://h", "ws://h", "nats://", "nats://h:99999999", "nats://h h", "\u{1b}[31m://", long.as_str()] {
            match options(url).servers() {
                Ok(servers) => assert_eq!(url, long, "{servers:?}"),
                Err(error) => {
                    let text = error.to_string();
                    assert!(text.contains("nats://HOST:PORT") && text.len() < 300 && !text.contains('\u{1b}'), "{text}");
                }
            }
        }
    }

    /// Plain hosts, ports, IPv6 and lists are all addresses.
    #[test]
    fn good_addresses() {
        let servers = options("localhost, tls://[::1]:7 ,nats://a:b@h:1").servers().expect("addresses");
        let shown: Vec<_> = servers.iter().map(|s| (s.scheme(), s.host(), s.port(), s.username())).collect();
        assert_eq!(shown, [("nats", "localhost", 4222, None), ("tls", "::1", 7, None), ("nats", "h", 1, None)]);
    }
}
