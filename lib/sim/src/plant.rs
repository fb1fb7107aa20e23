//! Protocol bugs planted at the border between a machine and the outside, to prove that the invariants bite.

/// A planted bug.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Plant {
    /// The rules as they are.
    None,
    /// An agent spawns a task before the launch is on its disk.
    SpawnBeforePersist,
    /// An agent writes its log and does not sync it.
    NoSync,
    /// An agent forgets in a restart which epoch it obeyed.
    ForgetEpoch,
    /// An agent obeys commands of a former leader, which come late.
    NoFence,
    /// An agent spawns a launch again when it is repeated.
    SpawnRepeated,
    /// An agent takes a status as stored before the stream says so.
    AckBeforeStored,
    /// An agent sends a status before it is on its disk.
    SendBeforePersist,
    /// A task that ended while its agent was down is reported as lost.
    EndedReportedLost,
    /// A running task is killed when its agent restarts.
    KillOnRestart,
    /// An agent says that it has twice as much as it has, and believes it.
    TwiceTheTotal,
    /// An agent does not tell what it runs when it registers.
    HelloWithoutTasks,
    /// A new leader takes the epoch of the one before.
    EpochReused,
    /// A write to the lease without an answer counts as done.
    AmbiguousIsDone,
    /// A leader goes on acting after its lease has lapsed.
    NoSelfStop,
    /// Both: leaders go on, and agents obey them.
    NoSelfStopNoFence,
    /// A leader believes that agents have twice as much. Their own admission holds against it.
    TwiceTheBooks,
    /// Clients make the same task ids as one another.
    IdsReused,
    /// A client takes a call without an answer as refused: it launches the job anew.
    UnknownIsRefused,
    /// A new leader does not know which sessions were fenced.
    FenceForgotten,
    /// A leader answers before what it says is in the registry.
    AnswerBeforeRegistry,
    /// A member that is silent is never taken for gone.
    LapsedStays,
    /// Offers never expire.
    OffersStay,
    /// What a fenced session says counts as said by the one that fenced it.
    FencedSpeaks,
    /// A head takes statuses as acknowledged once they are read, though its reader acknowledges by hand.
    AcksForgotten,
    /// A head reads the record from its end, not from where the session before it ended.
    StatusesSkipped,
    /// A head is not told which offers its tails used. That what nobody touches is given back holds against it.
    UsedUntold,
    /// A head is not told that its session is over. The end of its pipe and its next beat hold against it.
    RemovedUntold,
    /// A leader tells that tasks are gone before the registry knows it of their agent.
    GoneBeforeRegistry,
    /// A new leader does not know which agents are gone.
    GoneForgotten,
    /// A leader does not look for tasks that were not to run on when their agent is back.
    UnkeptForgotten,
    /// An agent does not count for how long no leader has answered it.
    AloneRunsOn,
    /// Nobody says that it leaves. The lease of each member holds against it.
    LeaveUnsent,
    /// An agent goes on as if its disk had taken what it refused.
    FullIgnored,
    /// A leader does not hear that an agent's disk is full.
    ClosedUnheard,
    /// An agent takes whoever has the number of a task's process for it.
    AdoptByNumber,
    /// An agent does not look whether its machine was started anew.
    BootIgnored,
    /// A leader goes by the epoch in the store, though an agent has obeyed a higher one: the store went back to an older state.
    RevertedBelieved,
    /// A leader takes an agent in that obeys its epoch, though another leader had that number.
    EpochShared,
    /// The first master counts by a clock of half the rate how long it may lead.
    SlowLease,
    /// What a head declines for its reader is not said. That offers expire holds against it.
    DeclinesUnsent,
    /// Both: heads do not decline, and offers never expire.
    DeclinesUnsentOffersStay,
    /// A new leader takes the registry as the first server has it that it asks, also one whose copy is still being filled.
    PartsTaken,
    /// A new leader takes a copy of the registry for whole that has as many documents, and older ones.
    OldTaken,
    /// Both: leaders believe that agents have twice as much, and agents admit it.
    TwiceTheBooksAdmitted,
    /// Both: heads do not hear what was used, and offers never expire.
    UsedUntoldOffersStay,
    /// Both: heads do not hear that their session is over, neither from their leader nor by the end of their pipe.
    RemovedUntoldPipeUnseen,
    /// Both: nobody says that it leaves, and a silent member is never taken for gone.
    LeaveUnsentLapsedStays,
}

impl Plant {
    /// The bugs that break an invariant, with their words.
    pub const ALL: &[(Plant, &str)] = &[
        (Plant::SpawnBeforePersist, "spawn-before-persist"),
        (Plant::NoSync, "no-sync"),
        (Plant::ForgetEpoch, "forget-epoch"),
        (Plant::NoFence, "no-fence"),
        (Plant::SpawnRepeated, "spawn-repeated"),
        (Plant::AckBeforeStored, "ack-before-stored"),
        (Plant::SendBeforePersist, "send-before-persist"),
        (Plant::EndedReportedLost, "ended-reported-lost"),
        (Plant::KillOnRestart, "kill-on-restart"),
        (Plant::TwiceTheTotal, "twice-the-total"),
        (Plant::HelloWithoutTasks, "hello-without-tasks"),
        (Plant::EpochReused, "epoch-reused"),
        (Plant::AmbiguousIsDone, "ambiguous-is-done"),
        (Plant::NoSelfStop, "no-self-stop"),
        (Plant::NoSelfStopNoFence, "no-self-stop-no-fence"),
        (Plant::IdsReused, "ids-reused"),
        (Plant::UnknownIsRefused, "unknown-is-refused"),
        (Plant::FenceForgotten, "fence-forgotten"),
        (Plant::AnswerBeforeRegistry, "answer-before-registry"),
        (Plant::LapsedStays, "lapsed-stays"),
        (Plant::OffersStay, "offers-stay"),
        (Plant::FencedSpeaks, "fenced-speaks"),
        (Plant::AcksForgotten, "acks-forgotten"),
        (Plant::StatusesSkipped, "statuses-skipped"),
        (Plant::GoneBeforeRegistry, "gone-before-registry"),
        (Plant::GoneForgotten, "gone-forgotten"),
        (Plant::UnkeptForgotten, "unkept-forgotten"),
        (Plant::AloneRunsOn, "alone-runs-on"),
        (Plant::FullIgnored, "full-ignored"),
        (Plant::ClosedUnheard, "closed-unheard"),
        (Plant::AdoptByNumber, "adopt-by-number"),
        (Plant::BootIgnored, "boot-ignored"),
        (Plant::RevertedBelieved, "reverted-believed"),
        (Plant::EpochShared, "epoch-shared"),
        (Plant::SlowLease, "slow-lease"),
        (Plant::DeclinesUnsentOffersStay, "declines-unsent-offers-stay"),
        (Plant::PartsTaken, "parts-taken"),
        (Plant::OldTaken, "old-taken"),
        (Plant::TwiceTheBooksAdmitted, "twice-the-books-admitted"),
        (Plant::UsedUntoldOffersStay, "used-untold-offers-stay"),
        (Plant::RemovedUntoldPipeUnseen, "removed-untold-pipe-unseen"),
        (Plant::LeaveUnsentLapsedStays, "leave-unsent-lapsed-stays"),
    ];

    /// Bugs against which a second defence holds, each with the pair that breaks something: nothing breaks while only one is
    /// planted.
    pub const HELD: &[(Plant, &str, Plant)] = &[
        (Plant::TwiceTheBooks, "twice-the-books", Plant::TwiceTheBooksAdmitted),
        (Plant::UsedUntold, "used-untold", Plant::UsedUntoldOffersStay),
        (Plant::RemovedUntold, "removed-untold", Plant::RemovedUntoldPipeUnseen),
        (Plant::LeaveUnsent, "leave-unsent", Plant::LeaveUnsentLapsedStays),
        (Plant::DeclinesUnsent, "declines-unsent", Plant::DeclinesUnsentOffersStay),
    ];

    /// Whether this bug is planted: alone, or as one of a pair.
    pub fn has(self, one: Plant) -> bool {
        let pair: &[Plant] = match self {
            Plant::NoSelfStopNoFence => &[Plant::NoSelfStop, Plant::NoFence],
            Plant::UsedUntoldOffersStay => &[Plant::UsedUntold, Plant::OffersStay],
            Plant::RemovedUntoldPipeUnseen => &[Plant::RemovedUntold],
            Plant::LeaveUnsentLapsedStays => &[Plant::LeaveUnsent, Plant::LapsedStays],
            Plant::TwiceTheBooksAdmitted => &[Plant::TwiceTheBooks, Plant::TwiceTheTotal],
            Plant::DeclinesUnsentOffersStay => &[Plant::DeclinesUnsent, Plant::OffersStay],
            _ => &[],
        };
        self == one || pair.contains(&one)
    }

    /// Reads the word of a bug.
    pub fn parse(word: &str) -> Option<Plant> {
        let held = Plant::HELD.iter().map(|(plant, name, _)| (plant, name));
        Plant::ALL.iter().map(|(plant, name)| (plant, name)).chain(held).find(|(_, name)| **name == word).map(|(plant, _)| *plant)
    }
}
