//! Counters of what really happened, so that a simulator which stopped simulating is noticed.

use std::fmt;

macro_rules! counts {
    ($($name:ident $word:literal,)*) => {
        /// Something that a suite must have met.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Count { $(#[doc = $word] $name,)* }

        impl Count {
            /// All counters with their words.
            pub const ALL: &[(Count, &str)] = &[$((Count::$name, $word),)*];
        }
    };
}

counts! {
    Lost "message lost",
    Duplicated "message duplicated",
    Reordered "message overtaken",
    Echoed "command delivered once more much later",
    Overdue "command delivered much later",
    Late "message flushed after a reconnect",
    Unheard "request with no responders",
    TimedOut "request without an answer in time",
    LateAnswer "answer after its request was given up",
    MasterCrash "master crashed",
    AgentCrash "agent crashed",
    CrashBetweenEffects "agent crashed between two effects",
    MasterBetweenEffects "master crashed between two effects",
    ClientBetweenEffects "client crashed between two effects",
    CrashInWrite "agent crashed with unsynced records",
    TornLog "torn log tail cut",
    ZeroedLog "zeroed log tail cut",
    LogRewritten "log rewritten as a snapshot",
    DiskFull "disk of an agent full",
    DiskClosed "agent told that its disk is full",
    DiskReopened "agent told that its disk has room again",
    DiskRefused "task dropped for a full disk",
    DiskNotMade "container not made for a full disk",
    LogAbandoned "log abandoned after a failed write and begun anew",
    WriteRefused "record refused by a disk and the agent ended",
    StartRefused "agent not begun for a full disk",
    Reboot "machine rebooted",
    ClientCrash "client crashed",
    ClientLeft "client left",
    Cancelled "client cancelled",
    KillAsked "client asked for the end of its tasks",
    Cut "connection cut",
    CutOneWay "connection cut in one direction",
    Frozen "process frozen",
    StoreDown "store out of service",
    StoreLost "store of lease and registry lost",
    StoreReverted "store back at an older state",
    StreamOnlyReverted "stream back at an older state, lease and registry kept",
    EpochReverted "lease back at a lower epoch",
    StreamReverted "end of the stream of a framework lost",
    StreamReset "reader of a stream that lost its end began elsewhere",
    PlaceLost "place up to which all was seen lost with its record",
    FastClock "clock that runs far too fast",
    CasAmbiguous "write applied and its answer lost",
    CasDelayed "write applied after its writer gave up",
    CasRefused "write refused by its revision",
    StaleRead "read answered with an older record",
    RegistryInParts "registry read from a copy that was being filled",
    RegistryOld "registry read from a copy that was behind",
    RegistryReadAgain "registry read again as it was not whole",
    LeaseClaimed "lease claimed",
    LeaseLapsed "leader stood down by its own clock",
    LeaseLost "leader stood down because another leads",
    LeaseSuspended "leader suspended",
    LeaseReleased "lease released",
    EpochRaised "epoch raised above an agent's",
    EffectsDropped "effects of a former leader dropped",
    RegistryWritten "registry written",
    RegistryFailed "registry write failed and the leader stood down",
    AgentJoined "agent registered",
    FencedFirst "registration asked for again under the new epoch",
    StaleHello "registration that was overtaken ignored",
    StaleCommand "command of a lower epoch refused",
    FormerCommand "command to a former process ignored",
    RepeatedLaunch "repeated launch not spawned",
    AgentUnreachable "agent marked unreachable",
    AgentBack "unreachable agent came back",
    KilledBeforeStart "task killed before it started",
    Offered "offers made",
    Granted "grants of an allocation program",
    ProgramFailed "allocation program failed",
    ProgramLate "allocation program answered too late",
    Expired "offer expired",
    Rescinded "offer rescinded",
    Declined "offers declined",
    Accepted "accept answered yes",
    OfferGone "accept refused: offer gone",
    Recovering "call refused: recovering",
    UnknownFramework "call refused: unknown framework",
    NameHeld "call refused: name held",
    NotLeading "call refused: not leading",
    SessionLapsed "tasks of a lapsed framework ended",
    Revoked "task revoked to make room",
    Joined "member joined a session",
    MemberKilled "member killed",
    MemberLapsed "member lapsed and had to join again",
    AcceptedByMember "accept of a member answered yes",
    SessionDone "session done with its last tail",
    SessionsTailsLapsed "session over since its tails lapsed",
    TakenOver "head told that its name was taken over",
    NameResumed "name resumed by a later session",
    HeadLost "head ended since its name is another's",
    Standby "head waited for its name",
    FencedCall "call of a fenced session refused",
    ReaderGone "head lost its reader",
    PipeFull "head found its pipe full",
    LineDropped "line dropped by a filter",
    DeclinedUnspoken "offers declined that nobody spoke of",
    LineSkipped "dropped line returned: a later one was used",
    LineUntouched "dropped line returned: nobody touched it",
    LineExpired "dropped line returned: it expired",
    LineTooLate "line read too late",
    StatusAcked "status acknowledged by hand",
    StatusResent "status told again",
    StatusStored "status stored",
    StatusRepeated "status stored once though sent again",
    StatusUnstored "status not stored and sent again",
    DroppedEarned "task declared dropped by a master",
    RestartAdopted "running task adopted after a restart",
    EndedWhileDown "task ended while its agent was down",
    NeverSpawned "launch recorded and never spawned",
    LostInReboot "task lost in a reboot",
    SupervisorKilled "supervisor killed without a record",
    SupervisorMissed "supervisor killed while its agent was down",
    NumberReused "process number given to another task",
    StrangerFound "process of others found under a task's number",
    StrangerAfterBoot "the same, with the same birth, after a reboot",
    StrangerSpared "task to be ended whose number is another's",
    TermIgnored "task ignored TERM",
    Finished "job ended: finished",
    Failed "job ended: failed",
    Killed "job ended: killed",
    Dropped "job ended: dropped",
    Gone "job ended: gone",
    Retried "job tried again",
    DeclaredGone "agent declared gone",
    LeftGone "gone agent ended its tasks and itself",
    EndedAlone "task ended by its agent, which was alone",
    EndedOnReturn "end of a task ordered as its agent was back",
    Paced "silent agents waited for their mark",
    OlderAgent "agent of the release before registered",
    OlderRefused "newer protocol refused by a master of the release before",
    OlderSpoken "older protocol spoken to a master of the release before",
}

/// How often each was met.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tally {
    counts: Vec<u64>,
}

impl Default for Tally {
    fn default() -> Self {
        Tally { counts: vec![0; Count::ALL.len()] }
    }
}

impl Tally {
    /// Counts one.
    pub fn add(&mut self, count: Count) {
        self.counts[count as usize] += 1;
    }

    /// How often it was met.
    pub fn of(&self, count: Count) -> u64 {
        self.counts[count as usize]
    }

    /// Adds another run's counts.
    pub fn join(&mut self, other: &Tally) {
        for (mine, theirs) in self.counts.iter_mut().zip(&other.counts) {
            *mine += theirs;
        }
    }

    /// The words of what was never met.
    pub fn missing(&self) -> Vec<&'static str> {
        Count::ALL.iter().filter(|(count, _)| self.of(*count) == 0).map(|(_, word)| *word).collect()
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Count::ALL.iter().try_for_each(|(count, word)| writeln!(f, "{:>10}  {word}", self.of(*count)))
    }
}
