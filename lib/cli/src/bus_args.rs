//! The flags of every tool that talks to the bus, and how flag, environment, context and configuration decide
use crate::{config::Config, exit::Failure, io_text, nats_context::NatsContext, say::tool_name, surroundings::Surroundings};
use meso_bus::{BusOptions, subjects::inbox_of};
use meso_core::id::{Name, Principal};
use std::{
    fs::{self, File},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

/// Where the bus is if nobody says otherwise.
pub const DEFAULT_URL: &str = "nats://127.0.0.1:4222";
/// Name of the cluster, and of the principal, if nobody says otherwise.
const DEFAULT_NAME: &str = "default";
/// A context says by this and a name who one is.
const INBOX_PREFIX: &str = "_INBOX.";
/// These flags stand together at the end of the help.
const HEADING: &str = "Bus";
/// Bits of a file's mode that let others in.
const MODE_OF_OTHERS: u32 = 0o077;

/// How to reach the bus
#[derive(clap::Args, Clone, Debug, Default)]
pub struct BusArgs {
    /// Address of the bus
    ///
    /// Without it: $MESO_NATS_URL, $NATS_URL, the NATS context, the configuration file, nats://127.0.0.1:4222.
    #[arg(long, value_name = "URL", global = true, help_heading = HEADING)]
    pub nats: Option<String>,
    /// File with credentials for the bus
    ///
    /// It must belong to you and be closed to others. Without it: $MESO_NATS_CREDS, $NATS_CREDS, those of the NATS context, the configuration file.
    #[arg(long, value_name = "FILE", global = true, help_heading = HEADING)]
    pub creds: Option<PathBuf>,
    /// NATS context to take address and credentials from
    ///
    /// Without it: $MESO_CONTEXT, $NATS_CONTEXT, the configuration file. Contexts are those of the nats command.
    #[arg(long, value_name = "NAME", global = true, help_heading = HEADING)]
    pub context: Option<String>,
    /// Name of the cluster
    ///
    /// Without it: $MESO_CLUSTER, the configuration file, default.
    #[arg(long, value_name = "NAME", global = true, help_heading = HEADING)]
    pub cluster: Option<String>,
    /// Who you are on the bus
    ///
    /// Without it: $MESO_PRINCIPAL, the configuration file, default.
    #[arg(long, value_name = "NAME", global = true, help_heading = HEADING)]
    pub principal: Option<String>,
}

/// Everything a tool needs to know to reach the bus, decided and checked.
///
/// Has no `Debug`: it holds secrets.
#[derive(Clone, PartialEq, Eq)]
pub struct Access {
    /// One or more server addresses, with commas between them.
    pub url: String,
    pub creds: Option<PathBuf>,
    pub user: Option<String>,
    pub password: Option<String>,
    pub token: Option<String>,
    /// File with an nkey seed.
    pub nkey: Option<PathBuf>,
    /// Authority that signs the server's certificate, and a certificate and key of our own.
    pub ca: Option<PathBuf>,
    pub cert: Option<PathBuf>,
    pub key: Option<PathBuf>,
    pub cluster: Name,
    pub principal: Principal,
    /// What else the configuration file says.
    pub config: Config,
}

impl BusArgs {
    /// Decides where the bus is, from this process's environment and files.
    ///
    /// # Errors
    /// `Usage`: a flag that is no address or name. `Config`: a variable, context or configuration file that is wrong, or credentials that
    /// are not readable, not ours or open to others; each naming which.
    pub fn access(&self) -> Result<Access, Failure> {
        self.access_in(&Surroundings::here())
    }

    /// The same in given surroundings.
    pub fn access_in(&self, surroundings: &Surroundings) -> Result<Access, Failure> {
        let config = Config::read(surroundings)?;
        let given_url = match &self.nats {
            Some(url) => Some(url.clone()),
            None => surroundings.first(&["MESO_NATS_URL", "NATS_URL"])?,
        };
        // A context that was not asked for on this command line stands and falls with its address: its password is not for another server.
        let context_name = match (&self.context, &given_url) {
            (Some(name), _) => Some(name.clone()),
            (None, Some(_)) => None,
            (None, None) => surroundings.first(&["MESO_CONTEXT", "NATS_CONTEXT"])?.or_else(|| config.context.clone()),
        };
        let context = context_name.map(|name| NatsContext::read(&name, surroundings)).transpose()?.unwrap_or_default();
        let url = given_url.or_else(|| said(&context.url)).or_else(|| config.nats.clone()).unwrap_or_else(|| DEFAULT_URL.to_owned());
        let creds = match &self.creds {
            Some(creds) => Some(creds.clone()),
            None => surroundings
                .path("MESO_NATS_CREDS")
                .or_else(|| surroundings.path("NATS_CREDS"))
                .or_else(|| said(&context.creds).map(|path| surroundings.expand_home(&path)))
                .or_else(|| config.creds.clone()),
        };
        let file = |path: &str| said(path).map(|path| surroundings.expand_home(&path));
        let nkey = file(&context.nkey);
        for secret in creds.iter().chain(&nkey) {
            check_secret(secret)?;
        }
        let cluster = named("--cluster", &self.cluster, "MESO_CLUSTER", None, &config.cluster, surroundings)?;
        let principal = named("--principal", &self.principal, "MESO_PRINCIPAL", said(&context.inbox_prefix), &config.principal, surroundings)?;
        Ok(Access {
            url,
            creds,
            user: said(&context.user),
            password: said(&context.password),
            token: said(&context.token),
            nkey,
            ca: file(&context.ca),
            cert: file(&context.cert),
            key: file(&context.key),
            cluster: Name::parse(&cluster.text).map_err(|e| cluster.failure(&e))?,
            principal: Principal::parse(&principal.text).map_err(|e| principal.failure(&e))?,
            config,
        })
    }
}

impl Access {
    /// The options of a connection that goes by the tool's name and fails at once; a daemon sets `reconnect`.
    pub fn options(&self) -> BusOptions {
        BusOptions {
            creds: self.creds.clone(),
            user: self.user.clone(),
            password: self.password.clone(),
            token: self.token.clone(),
            nkey: self.nkey.clone(),
            ca: self.ca.clone(),
            cert: self.cert.clone(),
            key: self.key.clone(),
            ..BusOptions::new(&self.url, &self.cluster, inbox_of(self.principal.as_str()), tool_name())
        }
    }
}

/// A name, and who said it, for the message when it is wrong.
struct Named {
    text: String,
    source: Source,
}

enum Source {
    Flag(&'static str),
    Variable(&'static str),
    Context,
    ConfigFile,
}

impl Named {
    fn failure(&self, why: &dyn std::fmt::Display) -> Failure {
        match self.source {
            Source::Flag(flag) => Failure::usage(format!("{flag}: {why}")),
            Source::Variable(name) => Failure::config(format!("the variable {name}: {why}")).hint(format!("set it right, or unset {name}")),
            Source::Context => Failure::config(format!("the inbox_prefix of the NATS context: {why}")).hint("an inbox_prefix like _INBOX.NAME, or --principal NAME"),
            Source::ConfigFile => Failure::config(format!("the configuration file: {why}")).hint("mend ~/.config/meso/config.toml or /etc/meso/config.toml"),
        }
    }
}

fn named(flag: &'static str, given: &Option<String>, variable: &'static str, inbox_prefix: Option<String>, configured: &Option<String>, surroundings: &Surroundings) -> Result<Named, Failure> {
    if let Some(text) = given {
        return Ok(Named { text: text.clone(), source: Source::Flag(flag) });
    }
    if let Some(text) = surroundings.first(&[variable])? {
        return Ok(Named { text, source: Source::Variable(variable) });
    }
    if let Some(prefix) = inbox_prefix {
        // Replies go nowhere else, so whose inbox it is, is who one is.
        let text = prefix.strip_prefix(INBOX_PREFIX).map_or_else(|| prefix.clone(), str::to_owned);
        return Ok(Named { text, source: Source::Context });
    }
    let text = configured.clone().unwrap_or_else(|| DEFAULT_NAME.to_owned());
    Ok(Named { text, source: Source::ConfigFile })
}

/// Context files write what is not set as empty text.
fn said(text: &str) -> Option<String> {
    (!text.is_empty()).then(|| text.to_owned())
}

/// A file with a secret must be readable, a file, ours, and closed to others.
fn check_secret(path: &Path) -> Result<(), Failure> {
    let failure = |why: &str, hint: String| Err(Failure::config(format!("credentials {}: {why}", path.display())).hint(hint));
    let opened = File::open(path).and_then(|file| file.metadata());
    let facts = match opened {
        Ok(facts) => facts,
        Err(e) => return failure(&io_text(&e), "--creds with a file that you can read".to_owned()),
    };
    if !facts.is_file() {
        return failure("not a file", "--creds with the file itself".to_owned());
    }
    if own_uid().is_some_and(|uid| uid != facts.uid()) {
        return failure("it belongs to somebody else", format!("a copy of your own: install -m 600 {0} ~/.config/meso/", path.display()));
    }
    if facts.mode() & MODE_OF_OTHERS != 0 {
        return failure(&format!("mode {:04o} lets others read it", facts.mode() & 0o7777), format!("chmod 600 {}", path.display()));
    }
    Ok(())
}

/// Who we are, as the owner of our own entry in /proc: asking the system directly takes unsafe code.
fn own_uid() -> Option<u32> {
    fs::metadata("/proc/self").ok().map(|facts| facts.uid())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::FailureKind;
    use std::os::unix::fs::PermissionsExt;

    /// A home with a context `prod` (with a password) and, if asked for, a configuration file.
    struct Home {
        folder: tempfile::TempDir,
    }

    impl Home {
        fn new(config: &str) -> Self {
            let folder = tempfile::tempdir().expect("a folder can be made");
            let home = Self { folder };
            home.write(".config/nats/context/prod.json", r#"{"url":"nats://context:1","user":"u","password":"p","inbox_prefix":"_INBOX.ops"}"#);
            home.write(".config/meso/config.toml", config);
            home
        }

        fn write(&self, path: &str, text: &str) -> PathBuf {
            let path = self.folder.path().join(path);
            fs::create_dir_all(path.parent().expect("it has one")).expect("it is ours");
            fs::write(&path, text).expect("it is ours");
            fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).expect("it is ours");
            path
        }

        fn access(&self, args: &BusArgs, variables: &[(&str, &str)]) -> Result<Access, Failure> {
            let home = self.folder.path().to_str().expect("UTF-8");
            let all = variables.iter().copied().chain([("HOME", home)]);
            args.access_in(&Surroundings::of(all, self.folder.path().join("none.toml")))
        }
    }

    /// Shows the whole order of addresses: each step wins over all below it.
    #[test]
    fn the_order_of_addresses() {
        let home = Home::new("nats = \"nats://config:1\"\n");
        let everything = [("MESO_NATS_URL", "nats://meso-env:1"), ("NATS_URL", "nats://env:1"), ("MESO_CONTEXT", "prod")];
        let flag = BusArgs { nats: Some("nats://flag:1".into()), ..BusArgs::default() };
        let url = |args: &BusArgs, variables: &[(&str, &str)]| home.access(args, variables).map(|a| a.url).expect("all of it is right");
        assert_eq!(url(&flag, &everything), "nats://flag:1");
        assert_eq!(url(&BusArgs::default(), &everything), "nats://meso-env:1");
        assert_eq!(url(&BusArgs::default(), &everything[1..]), "nats://env:1");
        assert_eq!(url(&BusArgs::default(), &everything[2..]), "nats://context:1");
        assert_eq!(url(&BusArgs::default(), &[("NATS_CONTEXT", "prod")]), "nats://context:1");
        assert_eq!(url(&BusArgs { context: Some("prod".into()), ..BusArgs::default() }, &[("NATS_CONTEXT", "none")]), "nats://context:1");
        assert_eq!(url(&BusArgs::default(), &[]), "nats://config:1");
        let bare = Surroundings::of([], "/nonexistent");
        assert_eq!(BusArgs::default().access_in(&bare).map(|a| a.url).expect("nothing is set"), DEFAULT_URL);
    }

    /// Shows that a context's password goes to another server only if both were asked for by name.
    #[test]
    fn a_password_stays_with_its_server() {
        let home = Home::new("");
        let elsewhere = [("MESO_NATS_URL", "nats://127.0.0.1:9"), ("NATS_CONTEXT", "prod")];
        let access = home.access(&BusArgs::default(), &elsewhere).expect("all of it is right");
        assert!(access.password.is_none() && access.user.is_none());
        assert_eq!(access.options().inbox, "_INBOX.default");
        let asked = BusArgs { context: Some("prod".into()), ..BusArgs::default() };
        let access = home.access(&asked, &elsewhere).expect("all of it is right");
        assert_eq!((access.url.as_str(), access.password.as_deref(), access.options().inbox.as_str()), ("nats://127.0.0.1:9", Some("p"), "_INBOX.ops"));
    }

    /// Shows the order of names, and that a wrong one is refused in the name of who said it.
    #[test]
    fn names_are_checked_where_they_come_from() {
        let home = Home::new("cluster = \"configured\"\nprincipal = \"no.dots\"\n");
        let both = |cluster: &str| BusArgs { cluster: Some(cluster.into()), principal: Some("me".into()), ..BusArgs::default() };
        let access = home.access(&both("flagged"), &[("MESO_CLUSTER", "env")]).expect("both are names");
        assert_eq!((access.cluster.as_str(), access.options().inbox.as_str()), ("flagged", "_INBOX.me"));
        let principal = BusArgs { principal: Some("me".into()), ..BusArgs::default() };
        assert_eq!(home.access(&principal, &[("MESO_CLUSTER", "env")]).map(|a| a.cluster.to_string()).expect("it is a name"), "env");
        assert_eq!(home.access(&principal, &[]).map(|a| a.cluster.to_string()).expect("it is a name"), "configured");

        let refused = |args: &BusArgs, variables: &[(&str, &str)]| home.access(args, variables).err().expect("it is no name");
        let flag = refused(&both("a b"), &[]);
        assert!(flag.kind() == FailureKind::Usage && flag.what().starts_with("--cluster: "), "{flag}");
        let variable = refused(&principal, &[("MESO_CLUSTER", "a.b")]);
        assert!(variable.kind() == FailureKind::Config && variable.what().contains("MESO_CLUSTER"), "{variable}");
        let configured = refused(&BusArgs::default(), &[]);
        assert!(configured.kind() == FailureKind::Config && configured.what().contains("configuration file"), "{configured}");
    }

    /// Shows that credentials that are missing, no file, or open to others are refused by name with 78's kind.
    #[test]
    fn credentials_are_private() {
        let home = Home::new("");
        let path = home.write("me.creds", "secret");
        let args = BusArgs { creds: Some(path.clone()), ..BusArgs::default() };
        assert_eq!(home.access(&args, &[]).map(|a| a.creds).ok().flatten(), Some(path.clone()));
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).expect("it is ours");
        let open = home.access(&args, &[]).err().expect("the group can read it");
        assert!(open.kind() == FailureKind::Config && open.what().contains("me.creds") && open.what().contains("0640"), "{open}");
        for wrong in ["none.creds", "."] {
            let args = BusArgs { creds: Some(home.folder.path().join(wrong)), ..BusArgs::default() };
            assert_eq!(home.access(&args, &[]).err().expect(wrong).kind(), FailureKind::Config);
        }
        let env = home.access(&BusArgs::default(), &[("MESO_NATS_CREDS", "/nonexistent/x")]).err().expect("it is not there");
        assert!(env.what().contains("/nonexistent/x: no such file"), "{env}");
    }
}
