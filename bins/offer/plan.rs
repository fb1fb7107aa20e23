//! What one run of meso-offer is to do, read from its flags and checked before anything is done.

use meso_cli::{Access, DEFAULT_REQUEST, Failure, Format, random, who};
use meso_core::condition::Condition;
use meso_core::id::{FrameworkId, Name, Nonce};
use meso_core::offerer::{Config, Once, Shows};
use meso_core::resources::{Request, parse_request};
use meso_core::role::Role;
use meso_core::task::OnUnreachable;

use crate::{Args, Kinds};

/// The flags, checked.
pub struct Plan {
    /// The way to the bus.
    pub access: Access,
    /// What each offer has room for.
    pub request: Request,
    /// Where.
    pub condition: Condition,
    /// The role.
    pub role: Role,
    name: Option<Name>,
}

impl Plan {
    /// Reads the flags.
    ///
    /// # Errors
    /// `Usage`, and `Config` as the bus's flags say it.
    pub fn from_args(args: &Args) -> Result<Self, Failure> {
        let access = args.bus.access()?;
        let request = parse_request(&args.resources.join(",")).map_err(|error| Failure::usage(format!("-R: {error}")).hint("-R cpus=1,mem=512M"));
        let request = if args.resources.is_empty() { Request::default() } else { whole(request?)? };
        let condition = Condition::parse(args.condition.as_deref().unwrap_or_default());
        let condition = condition.map_err(|error| Failure::usage(format!("--where: {error}")).hint("--where 'attr.rack == \"r1\" && cpus >= 4'"))?;
        let role = match args.role.clone().or_else(|| access.config.role.clone()) {
            Some(role) => Role::parse(&role).map_err(|error| Failure::usage(format!("--role: {error}")))?,
            None => Role::default(),
        };
        let name = args.framework.as_deref().map(Name::parse).transpose().map_err(|error| Failure::usage(format!("--framework: {error}")))?;
        if !matches!(args.output, Format::Jsonl | Format::Tsv(_)) {
            return Err(Failure::usage("lines come as jsonl or as tsv=FIELD,FIELD").hint("-o tsv=kind,id,host,cpus,mem"));
        }
        if args.jq.is_some() && args.output != Format::Jsonl {
            return Err(Failure::usage("--jq makes lines of its own, and -o others").hint("--jq '[.id, .host] | @tsv'"));
        }
        if args.once && shows(args) != (Shows { offers: true, ..Shows::default() }) {
            return Err(Failure::usage("a batch has offers only").hint("--once without -e"));
        }
        Ok(Plan { access, request, condition, role, name })
    }

    /// The machine's own configuration, with fresh numbers.
    ///
    /// # Errors
    /// The system gives no random numbers.
    pub fn config(&self, args: &Args) -> Result<Config, Failure> {
        Ok(Config {
            framework: FrameworkId::fresh(random()?),
            session: Nonce::fresh(random()?, random()?),
            name: self.name.clone(),
            takeover: args.takeover,
            standby: args.standby,
            role: self.role.clone(),
            who: who(),
            request: self.request.clone(),
            condition: args.condition.clone().unwrap_or_default(),
            revocable: args.revocable,
            failover_ms: if self.name.is_some() { args.failover } else { 0 },
            on_unreachable: args.on_unreachable.as_deref().and_then(OnUnreachable::parse),
            open_max: if args.once { args.max_open.max(args.min) } else { args.max_open },
            grace_ms: args.grace,
            ordered: !args.unordered,
            shows: shows(args),
            statuses_apart: args.updates_fd.is_some(),
            manual_acks: args.ack == "manual",
            once: args.once.then_some(Once { min: args.min as usize, wait_ms: args.wait, hold_ms: args.hold }),
        })
    }
}

/// With processors and memory of a task that says nothing of them: an offer without any would be of no use.
fn whole(mut request: Request) -> Result<Request, Failure> {
    let default = parse_request(DEFAULT_REQUEST).map_err(|error| Failure::internal(format!("built-in: {error}")))?;
    if request.cpus.is_zero() {
        request.cpus = default.cpus;
    }
    if request.mem.is_zero() {
        request.mem = default.mem;
    }
    Ok(request)
}

fn shows(args: &Args) -> Shows {
    // Whoever is the whole framework wants to know everything; a filter wants offers.
    let default = [if args.exec.is_some() { Kinds::All } else { Kinds::Offers }];
    let wanted: &[Kinds] = if args.events.is_empty() { &default } else { &args.events };
    let has = |kinds: Kinds| wanted.contains(&kinds) || wanted.contains(&Kinds::All);
    Shows {
        offers: has(Kinds::Offers),
        updates: has(Kinds::Updates) || args.updates_fd.is_some(),
        tasks: has(Kinds::Tasks),
        rescinds: has(Kinds::Rescinds),
        inverses: has(Kinds::Inverses),
        failures: has(Kinds::Failures),
        heartbeats: has(Kinds::Heartbeats),
    }
}
