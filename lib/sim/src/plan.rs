//! What one run is: its machines, its work and its faults, all drawn from one number.

use meso_core::seed::Seed;

use crate::net::Site;

/// The kinds of faults; each run is given some of them, so that no kind hides behind another.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Faults {
    /// Of a thousand messages so many are lost.
    pub loss: u64,
    /// Of a thousand messages so many come twice.
    pub dup: u64,
    /// Of a thousand messages so many do not wait for the ones before.
    pub reorder: u64,
    /// Of a thousand messages so many take up to seconds.
    pub slow: u64,
    /// Masters crash.
    pub master_crash: bool,
    /// Agent processes crash, also between two effects.
    pub agent_crash: bool,
    /// Machines of agents start anew.
    pub reboot: bool,
    /// Clients crash and leave.
    pub client_crash: bool,
    /// Clients cancel and kill.
    pub client_kill: bool,
    /// Connections are cut, in both directions or in one, and heal.
    pub cut: bool,
    /// Processes stand still for a while.
    pub freeze: bool,
    /// The store of lease, registry and statuses is out of service, answers late or with old records.
    pub store: bool,
    /// Lease and registry are lost.
    pub store_loss: bool,
    /// Processes of pipelines are killed.
    pub pipe_kill: bool,
    /// An operator declares agents gone.
    pub gone: bool,
    /// Disks of agents are full for a while, or fail once.
    pub disk: bool,
    /// Supervisors of tasks are killed and leave no record.
    pub supervisor: bool,
    /// The power of the store goes: lease, registry and stream are again what they were some time before.
    pub store_revert: bool,
}

impl Faults {
    /// Whether anything goes wrong at all.
    pub fn any(&self) -> bool {
        *self != Faults::default()
    }

    /// Whether what the registry was told may be lost.
    pub fn forget(&self) -> bool {
        self.store_loss || self.store_revert
    }
}

/// A run.
#[derive(Clone, Debug)]
pub struct Plan {
    /// What it was drawn from.
    pub seed: u64,
    /// How many masters, 1 to 3.
    pub masters: usize,
    /// How many agents, 1 to 6.
    pub agents: usize,
    /// How many clients, 1 to 4.
    pub clients: usize,
    /// How many pipelines, 0 to 2; a named one comes with a second that wants its name.
    pub pipes: usize,
    /// How many jobs each client has, 1 to 12.
    pub jobs: u64,
    /// How long things go wrong, milliseconds.
    pub chaos_ms: u64,
    /// The mean time between two faults, milliseconds.
    pub fault_every_ms: u64,
    /// What goes wrong.
    pub faults: Faults,
    /// The longest a message takes, milliseconds, if it is not slow.
    pub delay_ms: u64,
    /// After how long a driver gives up a request of an agent, milliseconds.
    pub agent_request_ms: u64,
    /// Whether clients see statuses live as well as from the stream.
    pub live: bool,
    /// How often agents beat, milliseconds.
    pub agent_beat_ms: u64,
    /// After how long they are unreachable, milliseconds.
    pub agent_timeout_ms: u64,
    /// How long offers live, milliseconds.
    pub offer_ms: u64,
    /// Whether a program says who gets what, in place of the built-in policy.
    pub program: bool,
    /// Of which tasks it is said that they are not to run on out of reach: half of those of clients, and all of pipelines
    /// that say so for all.
    pub unkept: bool,
    /// The masters, agents and clients that are of the release before: a bit for each.
    pub older: Older,
    /// How many silent agents a leader marks unreachable in how long a time; all at once if it is not said.
    pub removal: Option<&'static str>,
    /// Whose clock runs far too fast.
    pub fast: Option<Site>,
}

/// Who is of the release before, a bit for each.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Older {
    /// Masters.
    pub masters: u64,
    /// Agents.
    pub agents: u64,
    /// Clients.
    pub clients: u64,
}

impl Older {
    /// Whether this one is.
    pub fn has(bits: u64, which: usize) -> bool {
        bits >> which & 1 == 1
    }
}

impl Plan {
    /// The plan of a seed.
    pub fn of(seed: u64) -> Self {
        let mut draw = Seed::new([seed ^ 0x6d65_736f_2d73_696d, seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1]);
        for _ in 0..4 {
            draw.draw();
        }
        let mut some = |of: u64, max: u64| if draw.below(of) == 0 { 1 + draw.below(max) } else { 0 };
        let (loss, dup, reorder, slow) = (some(2, 60), some(2, 80), some(3, 150), some(3, 20));
        let mut coin = |of: u64| draw.below(of) == 0;
        let faults = Faults {
            loss,
            dup,
            reorder,
            slow,
            master_crash: coin(2),
            agent_crash: coin(2),
            reboot: coin(4),
            client_crash: coin(4),
            client_kill: coin(4),
            cut: coin(2),
            freeze: coin(3),
            store: coin(3),
            store_loss: coin(8),
            pipe_kill: false,
            gone: false,
            disk: false,
            supervisor: false,
            store_revert: false,
        };
        let mut between = |low: u64, high: u64| low + draw.below(high - low + 1);
        let plan = Plan {
            seed,
            masters: between(1, 3) as usize,
            agents: between(1, 6) as usize,
            clients: between(1, 4) as usize,
            pipes: 0,
            jobs: between(1, 12),
            chaos_ms: between(20_000, 120_000),
            fault_every_ms: between(500, 8_000),
            faults,
            delay_ms: [1, 5, 40, 300][between(0, 3) as usize],
            agent_request_ms: [3_000, 7_000][between(0, 1) as usize],
            live: between(0, 1) == 0,
            agent_beat_ms: [2_000, 5_000, 15_000][between(0, 2) as usize],
            agent_timeout_ms: [20_000, 30_000, 75_000][between(0, 2) as usize],
            offer_ms: [3_000, 10_000, 30_000][between(0, 2) as usize],
            program: false,
            unkept: false,
            older: Older::default(),
            removal: None,
            fast: None,
        };
        let pipes = [0, 0, 1, 2][between(0, 3) as usize];
        let pipe_kill = pipes > 0 && between(0, 1) == 0;
        let program = between(0, 3) == 0;
        let unkept = between(0, 1) == 0;
        let gone = between(0, 1) == 0;
        let older = if between(0, 3) == 0 { Older { masters: between(0, 7), agents: between(0, 63), clients: between(0, 15) } } else { Older::default() };
        let removal = [None, None, Some("20/1m"), Some("1/20s")][between(0, 3) as usize];
        let (disk, supervisor, store_revert) = (between(0, 2) == 0, between(0, 2) == 0, between(0, 4) == 0);
        let fast = match between(0, 11) {
            0 => Some(Site::Master(between(0, plan.masters as u64 - 1) as usize)),
            1 => Some(Site::Agent(between(0, plan.agents as u64 - 1) as usize)),
            2 => Some(Site::Client(between(0, plan.clients as u64 - 1) as usize)),
            _ => None,
        };
        // Tasks are short, and are to be there still when their agent is out of reach for too long.
        let (agent_beat_ms, agent_timeout_ms) = if unkept { (2_000, [7_000, 12_000, 20_000][between(0, 2) as usize]) } else { (plan.agent_beat_ms, plan.agent_timeout_ms) };
        // Between the release before and this one nobody remembers ends that are settled: with the record they are lost.
        let older = if plan.faults.store_loss || store_revert { Older { masters: 0, agents: 0, ..older } } else { older };
        // With the store the word of an operator is lost as well.
        let gone = gone && !plan.faults.store_loss && !store_revert;
        let faults = Faults { pipe_kill, gone, disk, supervisor, store_revert, ..plan.faults.clone() };
        Plan { pipes, program, unkept, older, removal, fast, agent_beat_ms, agent_timeout_ms, faults, ..plan }
    }

    /// The same machines and work with nothing going wrong.
    pub fn calm(seed: u64) -> Self {
        Plan { faults: Faults::default(), fast: None, ..Plan::of(seed) }
    }
}
