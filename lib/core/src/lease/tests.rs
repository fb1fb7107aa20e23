//! Scripts of single candidates

use super::*;

pub(super) fn candidate(number: u64) -> Candidate {
    Candidate {
        id: MasterId::parse(&format!("m{number}")).expect("an id"),
        nonce: Nonce::fresh(0, number),
        host: "h".into(),
        since_ms: 0,
    }
}

fn record_of(number: u64, epoch: u64, released: bool) -> Record {
    let me = candidate(number);
    Record { v: 1, holder: me.id, nonce: me.nonce, epoch, lease_ms: 6_000, released, host: me.host, since_ms: 0 }
}

/// Runs lines of `ms event => effects` over candidate 1 and compares each.
fn script(used_epoch: u64, text: &str) {
    let mut lease = Lease::new(candidate(1), LeaseTimes::SINGLE, used_epoch);
    for line in text.lines().map(str::trim).filter(|line| !line.is_empty()) {
        let (left, expected) = line.split_once("=>").expect("an arrow");
        let words: Vec<&str> = left.split_whitespace().collect();
        let now_ms: u64 = words[0].parse().expect("ms");
        let number = |at: usize| words[at].parse::<u64>().expect("a number");
        let pinging = lease.pinging.map_or(0, |(attempt, _)| attempt);
        let reading = lease.reading.unwrap_or(0);
        let attempt = lease.cas.as_ref().map_or(lease.attempts, |cas| cas.attempt);
        let event = match words[1] {
            "tick" => Event::Tick,
            "none" => Event::Found { attempt: reading, revision: 0, record: None },
            "found" => {
                let released = words.get(5) == Some(&"released");
                Event::Found { attempt: reading, revision: number(2), record: Some(record_of(number(3), number(4), released)) }
            }
            "unread" => Event::ReadFailed { attempt: reading },
            "hint" => Event::Hint,
            "done" => Event::CasDone { attempt, revision: number(2) },
            "refused" => Event::CasRefused { attempt },
            "unknown" => Event::CasUnknown { attempt },
            "unheard" => Event::PingUnheard { attempt: pinging },
            "heard" => Event::PingHeard { attempt: pinging, nonce: words.get(2).map(|_| candidate(number(2)).nonce) },
            "unpinged" => Event::PingFailed { attempt: pinging },
            "disconnected" => Event::Disconnected,
            "connected" => Event::Connected,
            "above" => Event::RaiseAbove { epoch: number(2) },
            "release" => Event::Release,
            other => panic!("{other}"),
        };
        let effects: Vec<String> = lease.step(now_ms, event).iter().map(show).collect();
        assert_eq!(effects.join(", "), expected.trim(), "after: {line}");
    }
}

fn show(effect: &Effect) -> String {
    match effect {
        Effect::Read { .. } => "read".into(),
        Effect::Cas { expect, record, .. } => {
            format!("cas over {expect} epoch {}{}", record.epoch, if record.released { " released" } else { "" })
        }
        Effect::Ping { holder: Some(holder), .. } => format!("ping {holder}"),
        Effect::Ping { holder: None, .. } => "ping any".into(),
        Effect::Lead { epoch, valid_until_ms } => format!("lead {epoch} until {valid_until_ms}"),
        Effect::Suspend { epoch } => format!("suspend {epoch}"),
        Effect::StepDown { epoch, why } => format!("down {epoch} {why:?}"),
        Effect::Standby { holder, epoch } => format!("standby {holder} {epoch}"),
        Effect::Released => "released".into(),
    }
}

/// Where there is no record, a short silence is enough to begin; epochs begin above those in use.
#[test]
fn first_leader() {
    script(
        41,
        "0    tick     => read
         5    none     => ping any
         6    unheard  =>
         106  tick     => ping any
         107  unheard  =>
         207  tick     => ping any
         208  unheard  =>
         308  tick     => ping any
         309  unheard  => cas over 0 epoch 42
         320  done 1   => lead 42 until 4309
         1309 tick     => cas over 1 epoch 42
         1320 done 2   => lead 42 until 5309",
    );
}

/// Validity is counted from before sending; an unknown outcome is read, never counted.
#[test]
fn unknown_outcomes_do_not_extend() {
    script(
        0,
        "0    tick           => read
         5    found 9 1 7    => cas over 9 epoch 8
         600  done 10        => lead 8 until 4005
         1005 tick           => cas over 10 epoch 8
         2005 unknown        => read
         2010 found 11 1 8   =>
         2255 tick           => cas over 11 epoch 8
         3255 unknown        => read
         3260 unread         =>
         3510 tick           => read
         4005 tick           => down 8 Lapsed
         4006 found 12 1 8   => cas over 12 epoch 9
         4010 done 13        => lead 9 until 8006",
    );
}

/// A challenger waits out the whole lease since it saw the last renewal, unless it is released.
#[test]
fn challengers_wait() {
    script(
        0,
        "0    tick            => read
         100  found 9 2 7     => standby m2 7, ping m2
         101  heard 2         =>
         401  tick            => ping m2
         1100 tick            => read
         1101 found 10 2 7    =>
         2101 tick            => read
         2102 found 10 2 7    =>
         3102 tick            => read
         3103 unread          =>
         3353 tick            => read
         3354 found 10 2 7    =>
         4354 tick            => read
         4355 found 10 2 7    =>
         5355 tick            => read
         5356 found 10 2 7    =>
         6356 tick            => read
         6357 found 10 2 7    =>
         7101 tick            => cas over 10 epoch 8
         7110 refused         => read
         7111 found 11 3 9    => standby m3 9, ping m3
         7200 hint            =>
         7215 tick            => read
         7220 found 12 3 9 released => cas over 12 epoch 10
         7225 done 13         => lead 10 until 11220",
    );
}

/// A store that was away may have lost what it had: what was seen before is claimed only once it is read again.
#[test]
fn a_store_that_was_away() {
    let until_away = "
         0    tick            => read
         100  found 9 2 7     => standby m2 7, ping m2
         101  heard 2         =>
         401  tick            => ping m2
         1100 tick            => read
         1101 unread          =>
         1351 tick            => read
         6101 tick            =>";
    script(0, &format!("{until_away}\n 6200 found 9 2 7 => cas over 9 epoch 8"));
    script(0, &format!("{until_away}\n 6200 found 7 3 8 => standby m3 8, ping m3"));
}

/// A second of uninterrupted silence ends the waiting; any doubt begins the second anew, and so
/// does a renewal. A stranger who answers under the holder's name counts as silence.
#[test]
fn silence() {
    script(
        0,
        "0    tick            => read
         10   found 9 2 7     => standby m2 7, ping m2
         11   unheard         =>
         111  tick            => ping m2
         112  unpinged        =>
         412  tick            => ping m2
         413  unheard         =>
         513  tick            => ping m2
         514  unheard         =>
         1011 tick            => read, ping m2
         1012 found 10 2 7    =>
         1013 unheard         =>
         1113 tick            => ping m2
         1400 heard 5         =>
         1500 tick            => ping m2
         1501 unheard         =>
         1901 tick            => ping m2
         2012 tick            => read
         2014 unheard         => cas over 10 epoch 8",
    );
}

/// A lost connection suspends the leader in that moment; only the store lets it go on.
#[test]
fn disconnection() {
    script(
        0,
        "0    tick           => read
         5    found 9 1 7    => cas over 9 epoch 8
         10   done 10        => lead 8 until 4005
         500  disconnected   => suspend 8
         900  connected      => read
         905  found 10 1 8   => cas over 10 epoch 8
         910  done 11        => lead 8 until 4905
         1500 disconnected   => suspend 8
         1900 connected      => read
         1905 none           => down 8 StoreLost
         1910 tick           =>
         2600 tick           => ping any
         2601 unheard        =>
         2701 tick           => ping any
         2702 unheard        =>
         2802 tick           => ping any
         2803 unheard        =>
         2903 tick           => ping any
         2904 unheard        => cas over 0 epoch 9",
    );
}

/// Another holder in the store ends a leader at once.
#[test]
fn another_holder() {
    script(
        0,
        "0    tick           => read
         5    found 9 1 7    => cas over 9 epoch 8
         10   done 10        => lead 8 until 4005
         1005 tick           => cas over 10 epoch 8
         1010 refused        => suspend 8, read
         1015 found 11 2 9   => down 8 Lost, standby m2 9, ping m2",
    );
}

/// A higher epoch on an agent is passed by a new write before anything else is commanded.
#[test]
fn higher_epochs() {
    script(
        0,
        "0    tick           => read
         5    found 9 1 7    => cas over 9 epoch 8
         10   done 10        => lead 8 until 4005
         20   above 7        =>
         30   above 50       => suspend 8, cas over 10 epoch 51
         40   done 11        => lead 51 until 4030
         50   above 9007199254740992 =>
         60   above 51       => suspend 51, cas over 11 epoch 52
         65   above 60       =>
         70   done 12        => cas over 12 epoch 61
         75   done 13        => lead 61 until 4070",
    );
}

/// A release first stops acting, then tells the store; a standby has nothing to tell.
#[test]
fn releasing() {
    script(
        0,
        "0    tick           => read
         5    found 9 1 7    => cas over 9 epoch 8
         10   done 10        => lead 8 until 4005
         20   release        => down 8 Released, cas over 10 epoch 8 released
         30   unknown        => read
         35   found 10 1 8   =>
         280  tick           => cas over 10 epoch 8 released
         285  done 11        => released
         290  tick           =>",
    );
    script(0, "0 tick => read\n 5 found 9 2 7 => standby m2 7, ping m2\n 6 release => released");
}

/// Times without the margin, and renewals outside the self-stop, are refused.
#[test]
fn bad_times() {
    assert!(LeaseTimes::new(3_000, 250, 1_000).is_ok());
    assert!(matches!(LeaseTimes::new(3_000, 250, 1_001), Err(BadLeaseTimes::Margin { .. })));
    assert!(matches!(LeaseTimes::new(6_000, 4_000, 4_000), Err(BadLeaseTimes::Renewal { .. })));
    assert!(matches!(LeaseTimes::new(6_000, 0, 4_000), Err(BadLeaseTimes::Renewal { .. })));
    assert!(matches!(LeaseTimes::new(u64::MAX, 1, 2), Err(BadLeaseTimes::TooLong { .. })));
    for times in [LeaseTimes::SINGLE, LeaseTimes::REPLICATED] {
        assert_eq!(LeaseTimes::new(times.lease_ms(), times.renew_ms(), times.stop_ms()), Ok(times));
    }
}

/// A record survives the store; damage and other versions read as none.
#[test]
fn records() {
    let record = record_of(1, 7, false);
    assert_eq!(Record::decode(&record.encode()), Some(record.clone()));
    let damaged = [
        Record { v: 2, ..record.clone() },
        Record { epoch: u64::MAX, ..record.clone() },
        Record { lease_ms: u64::MAX, ..record },
    ];
    for record in damaged {
        assert_eq!(Record::decode(&record.encode()), None);
    }
    assert_eq!(Record::decode(b"\xff{"), None);
}
