use super::*;
use crate::resources::parse_total;
use proptest::prelude::*;

const MACHINE_BYTES: u64 = 64 << 30;

fn reading(container: &str, held: &str, cpu_us: u64, mem_mib: u64) -> Reading {
    Reading { container: container.to_owned(), held: parse_total(held).expect("plain resources"), cpu_us: Some(cpu_us), mem_bytes: Some(mem_mib << 20) }
}

/// A sample of a machine with memory to spare.
fn sample(firm: Vec<Reading>) -> Sample {
    Sample { firm, mem_total_bytes: MACHINE_BYTES, mem_available_bytes: MACHINE_BYTES, mem_lent_bytes: 0 }
}

fn lent(text: &str) -> Option<Resources> {
    Some(parse_total(text).expect("plain resources"))
}

/// Shows that a window is a time that can be measured.
#[test]
fn windows() {
    assert_eq!((parse_window("60s"), parse_window("1500ms"), parse_window("1d")), (Ok(WINDOW_MS), Ok(1_500), Ok(WINDOW_MS_MAX)));
    for bad in ["", "0", "900ms", "2d", "soon"] {
        assert!(parse_window(bad).is_err(), "{bad}");
    }
}

/// Shows that nothing is said before a window is over, and then that all but the use and the margin is lent, in whole steps.
#[test]
fn after_a_window() {
    let mut lender = Lender::new(WINDOW_MS);
    for at_ms in (0..WINDOW_MS).step_by(5_000) {
        // A quarter of a processor all the time.
        assert_eq!(lender.sample(at_ms, &sample(vec![reading("a", "cpus=2,mem=1000", at_ms * 250, 100)])), None, "{at_ms}");
    }
    let said = lender.sample(WINDOW_MS, &sample(vec![reading("a", "cpus=2,mem=1000", WINDOW_MS * 250, 100)]));
    // 2 - 0.25 - 0.2 and 1000 - 100 - 100, rounded down to 0.1 and 16.
    assert_eq!(said, lent("cpus=1.5,mem=800"));
}

/// Shows that what is lent shrinks with the first sample of more use, and grows again a window after the last one.
#[test]
fn shrinks_at_once_and_grows_late() {
    let mut lender = Lender::new(10_000);
    let mut cpu_us = 0;
    let mut at = |second: u64, used_milli: u64, mem_mib: u64| {
        cpu_us += used_milli * 1_000;
        lender.sample(second * 1_000, &sample(vec![reading("a", "cpus=4,mem=1600", cpu_us, mem_mib)]))
    };
    for second in 0..10 {
        assert_eq!(at(second, 0, 0), None);
    }
    assert_eq!(at(10, 0, 0), lent("cpus=3.6,mem=1440"));
    assert_eq!(at(11, 3_000, 0), lent("cpus=0.6,mem=1440"));
    assert_eq!(at(12, 0, 1_000), lent("cpus=0.6,mem=432"));
    for second in 13..21 {
        assert_eq!(at(second, 0, 0), lent("cpus=0.6,mem=432"), "{second}");
    }
    assert_eq!(at(21, 0, 0), lent("cpus=3.6,mem=432"));
    assert_eq!(at(22, 0, 0), lent("cpus=3.6,mem=1440"));
}

/// Shows that a task counts as using all it holds until it was seen for a window, and when it cannot be read.
#[test]
fn newcomers_and_the_unreadable() {
    let mut lender = Lender::new(10_000);
    let old = || reading("old", "cpus=2,mem=1024", 0, 0);
    for second in 0..=10 {
        lender.sample(second * 1_000, &sample(vec![old()]));
    }
    let both = || sample(vec![old(), reading("new", "cpus=2,mem=1024", 0, 0)]);
    for second in 11..21 {
        // The margin is of what both hold.
        assert_eq!(lender.sample(second * 1_000, &both()), lent("cpus=1.6,mem=816"), "{second}");
    }
    assert_eq!(lender.sample(21_000, &both()), lent("cpus=3.6,mem=1840"));
    let mut blind = both();
    (blind.firm[0].cpu_us, blind.firm[1].mem_bytes) = (None, None);
    assert_eq!(lender.sample(22_000, &blind), lent("cpus=1.6,mem=816"));
    assert_eq!(lender.sample(23_000, &sample(vec![])), Some(Resources::default()), "nobody holds anything");
}

/// Shows that memory is lent only as far as the machine has it, that what is lent does not count against itself, and that
/// one who uses more than it holds uses what could be lent.
#[test]
fn bounds() {
    let mut lender = Lender::new(10_000);
    let tight = |taken_mib: u64, lent_mib: u64| Sample {
        firm: vec![reading("a", "cpus=2,mem=8192", 0, 0), reading("b", "mem=1024", 0, 2_048)],
        mem_total_bytes: 10_240 << 20,
        mem_available_bytes: (10_240 - taken_mib - lent_mib) << 20,
        mem_lent_bytes: lent_mib << 20,
    };
    for second in 0..10 {
        lender.sample(second * 1_000, &tight(5_632, 0));
    }
    assert_eq!(lender.sample(10_000, &tight(5_632, 0)), lent("cpus=1.8,mem=4096"));
    assert_eq!(lender.sample(11_000, &tight(5_632, 4_000)), lent("cpus=1.8,mem=4096"), "what is lent is theirs");
    assert_eq!(lender.sample(12_000, &tight(6_632, 3_000)), lent("cpus=1.8,mem=3088"), "others came");
    for second in 13..22 {
        lender.sample(second * 1_000, &tight(0, 0));
    }
    // 9216 held, 2048 used, 922 kept.
    assert_eq!(lender.sample(22_000, &tight(0, 0)), lent("cpus=1.8,mem=6240"));
}

/// Shows that a window that is looked at far too often keeps its bound and forgets no peak in it.
#[test]
fn often() {
    let mut lender = Lender::new(1_000);
    for at_ms in 0..=5_500 {
        let used_mib = if at_ms == 4_100 { 500 } else { 0 };
        let said = lender.sample(at_ms, &sample(vec![reading("a", "cpus=1,mem=1000", 0, used_mib)]));
        if (4_100..5_000).contains(&at_ms) {
            assert_eq!(said, lent("cpus=0.9,mem=400"), "{at_ms}");
        } else if at_ms > 5_200 {
            assert_eq!(said, lent("cpus=0.9,mem=896"), "{at_ms}");
        }
        assert!(lender.histories["a"].mem_bytes.0.len() as u64 <= PARTS_MAX + 2);
    }
}

proptest! {
    /// Shows of random tasks that come, work and go: what is lent is never more than what is held less what is used, now
    /// or at any moment of the window by those who are still there; nor does a processor second lent one moment stay lent
    /// in the next if it is used then.
    #[test]
    fn never_more_than_is_idle(
        steps in proptest::collection::vec((1u64..3_000, proptest::collection::vec(proptest::option::weighted(0.9, (0u64..5_000, 0u64..2_000)), 3)), 1..60),
        held in proptest::collection::vec((0u64..4_000, 0u64..2_000), 3),
        machine_mib in 0u64..8_000,
    ) {
        let window_ms = 5_000;
        let mut lender = Lender::new(window_ms);
        let mut now_ms = 0;
        // Of each task: when it came, its processor time, and what it used when.
        let mut lives: Vec<Option<(u64, u64, Vec<(u64, u64, u64)>)>> = vec![None; 3];
        for (pause_ms, uses) in steps {
            now_ms += pause_ms;
            let mut firm = Vec::new();
            for (place, one) in uses.iter().enumerate() {
                let Some((used_milli, mem_mib)) = *one else {
                    lives[place] = None;
                    continue;
                };
                let (came_ms, cpu_us, seen) = lives[place].get_or_insert((now_ms, 0, Vec::new()));
                let used_milli = if *came_ms == now_ms { 0 } else { used_milli };
                *cpu_us += used_milli * pause_ms;
                seen.push((now_ms, used_milli, mem_mib));
                let (cpus, mem) = held[place];
                let text = format!("cpus={}.{:03},mem={mem}", cpus / 1000, cpus % 1000);
                firm.push(reading(&format!("{place}-{came_ms}"), &text, *cpu_us, mem_mib));
            }
            let of_machine = Sample { firm, mem_total_bytes: machine_mib << 20, mem_available_bytes: machine_mib << 20, mem_lent_bytes: 0 };
            let Some(said) = lender.sample(now_ms, &of_machine) else {
                continue;
            };
            let (mut idle_milli, mut idle_mib) = (0i64, 0i64);
            for (life, (cpus, mem)) in lives.iter().zip(&held) {
                let Some((came_ms, _, seen)) = life else { continue };
                if now_ms - came_ms < window_ms {
                    continue;
                }
                let of_window = seen.iter().filter(|(at_ms, ..)| at_ms + window_ms > now_ms);
                let (worst_milli, worst_mib) = of_window.fold((0, 0), |(cpu, mem), (_, used, size)| (cpu.max(*used), mem.max(*size)));
                idle_milli += *cpus as i64 - worst_milli as i64;
                idle_mib += *mem as i64 - worst_mib as i64;
            }
            prop_assert!(said.cpus.as_milli() <= idle_milli.max(0), "{said} of {idle_milli}");
            prop_assert!(said.mem.as_milli() <= idle_mib.max(0) * 1_000, "{said} of {idle_mib}");
            prop_assert!(said.mem.whole_units() + (MEM_RESERVE_BYTES >> 20) <= machine_mib || said.mem.is_zero());
            prop_assert!(said.cpus.as_milli() % CPU_STEP_MILLI as i64 == 0 && said.mem.as_milli() % 16_000 == 0);
            prop_assert_eq!(Resources { cpus: Milli::ZERO, mem: Milli::ZERO, ..said }, Resources::default());
        }
    }
}
