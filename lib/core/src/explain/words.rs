//! An explanation in words

use crate::duration::show_duration;
use crate::policy::Subject;
use crate::resources::{Milli, Request, Shortfall};
use crate::wire::explain::{AgentReason, Count, Explanation, Holder, Miss, Obstacle, Reason};

/// MiB in a GiB, and GiB in a TiB.
const STEP: u64 = 1024;

/// All of it on one line: what concerns the whole, then how many agents fail for which reason.
pub fn summary(explanation: &Explanation) -> String {
    let mut parts: Vec<String> = explanation.obstacles.iter().map(obstacle_text).collect();
    if !explanation.counts.is_empty() {
        let counts: Vec<String> = explanation.counts.iter().map(|count| count_text(count, explanation)).collect();
        parts.push(format!("{}: {}", agents_text(explanation.agents_all), counts.join(", ")));
    }
    parts.join("; ")
}

/// The same in lines, whose wish it is first.
pub fn lines(explanation: &Explanation) -> Vec<String> {
    let mut lines = vec![wish_text(explanation)];
    lines.extend(explanation.obstacles.iter().map(|obstacle| format!("  {}", obstacle_text(obstacle))));
    if !explanation.counts.is_empty() {
        lines.push(format!("{}:", agents_text(explanation.agents_all)));
        lines.extend(explanation.counts.iter().map(|count| format!("  {}", count_text(count, explanation))));
    }
    lines
}

/// Why one agent does not serve.
pub fn agent_text(line: &AgentReason, explanation: &Explanation) -> String {
    match line.reason {
        Reason::Recovering => "not back yet under this master".to_owned(),
        Reason::Unreachable => "unreachable".to_owned(),
        Reason::OtherAgent => "not the one asked for".to_owned(),
        Reason::Condition => format!("fails {}", line.clause),
        Reason::TooSmall => format!("too small: {}", shortfalls_text(&line.lacks)),
        Reason::Offered => format!("offered to {}", holders_text(&line.holders, explanation)),
        Reason::Busy => format!("busy: {} free, held by {}", shortfalls_text(&line.lacks), holders_text(&line.holders, explanation)),
        Reason::Refused => format!("refused for {} more", age(line.refused_ms)),
        Reason::KeptFor => format!("kept free for {}", holders_text(&line.holders, explanation)),
        Reason::Guaranteed => format!("held for {}", guaranteed_text(&line.holders)),
        Reason::Fits => "has room".to_owned(),
    }
}

fn wish_text(explanation: &Explanation) -> String {
    let role = &explanation.role;
    let who = match (&explanation.framework, &explanation.name) {
        (Some(framework), Some(name)) => format!("framework {name} ({framework}) of role {role}"),
        (Some(framework), None) => format!("framework {framework} of role {role}"),
        (None, _) => format!("a task of role {role}"),
    };
    let mut wish = match (explanation.count, &explanation.request) {
        (0, _) => String::new(),
        (_, request) if request.is_empty() => " wants all that an agent has free".to_owned(),
        (_, request) if explanation.framework.is_none() => format!(" that needs {}", request_text(request)),
        (1, request) => format!(" wants one task more of {}", request_text(request)),
        (count, request) => format!(" wants {count} tasks more of {}", request_text(request)),
    };
    if !explanation.condition.is_empty() {
        wish.push_str(&format!(" where {}", explanation.condition));
    }
    if let Some(on) = &explanation.on {
        wish.push_str(&format!(" on {on}"));
    }
    format!("{who}{wish}:")
}

fn obstacle_text(obstacle: &Obstacle) -> String {
    match obstacle {
        Obstacle::NotConnected { age_ms } => format!("nobody has spoken for it for {}", age(*age_ms)),
        Obstacle::Suppressed {} => "it is suppressed: it said that it wants no offers".to_owned(),
        Obstacle::Sated {} => "all who launch for it say that they could launch no more now".to_owned(),
        Obstacle::WantsNothing { tasks: 0 } => "it wants nothing now".to_owned(),
        Obstacle::WantsNothing { tasks } => format!("it wants nothing more: {}", counted(*tasks, "task is its own", "tasks are its own")),
        Obstacle::Offered { offers, age_ms } => format!("all that it wants is offered to it: {}, the oldest for {}", counted(*offers, "offer", "offers"), age(*age_ms)),
        Obstacle::OpenMax { offers, age_ms } => format!("it holds {}, which is as many as it may, the oldest for {}", counted(*offers, "offer", "offers"), age(*age_ms)),
        Obstacle::Limit { subject, name, limit, need, .. } if need > limit => {
            format!("{} is limited to {} {name}, and one task needs {}", subject_text(subject), amount(name, *limit), amount(name, *need))
        }
        Obstacle::Limit { subject, name, held, limit, need } => {
            format!("{} is at its limit of {name}: {} of {} held, one task needs {}", subject_text(subject), amount(name, *held), amount(name, *limit), amount(name, *need))
        }
        Obstacle::Guaranteed { name, free, kept_back, need, subjects } => {
            let whom: Vec<String> = subjects.iter().map(|kept| format!("{} ({})", subject_text(&kept.subject), amount(name, kept.amount))).collect();
            let whom = if whom.is_empty() { String::new() } else { format!(" to {}", whom.join(", ")) };
            format!("of {} {name} free, {} are guaranteed{whom}, and one task needs {}", amount(name, *free), amount(name, *kept_back), amount(name, *need))
        }
        Obstacle::NoAgents {} => "there is no agent".to_owned(),
        Obstacle::Turn { share, fair_share } => format!("it waits for its turn: it holds {} of the cluster, its fair share is {}", percent(*share), percent(*fair_share)),
    }
}

fn count_text(count: &Count, explanation: &Explanation) -> String {
    let (n, is_one) = (count.agents, count.agents == 1);
    let verb = |one: &str, many: &str| format!("{n} {}", if is_one { one } else { many });
    match count.reason {
        Reason::Recovering => format!("{} not back yet under this master", verb("is", "are")),
        Reason::Unreachable => format!("{} unreachable", verb("is", "are")),
        Reason::OtherAgent => format!("{} not {}", verb("is", "are"), explanation.on.as_deref().unwrap_or("the one asked for")),
        Reason::Condition => format!("{} {}", verb("fails", "fail"), count.clause),
        Reason::TooSmall => format!("{} {}", verb("has", "have"), misses_text(&count.lacks, "even when empty", "largest")),
        Reason::Offered => format!("{} offered to {}", verb("is", "are"), holders_text(&count.holders, explanation)),
        Reason::Busy => format!("{} {}, held by {}", verb("has", "have"), misses_text(&count.lacks, "free", "most"), holders_text(&count.holders, explanation)),
        Reason::Refused => format!("{} refused by it for {} more", verb("is", "are"), age(count.refused_ms)),
        Reason::KeptFor => format!("{} kept free for {}", verb("is", "are"), holders_text(&count.holders, explanation)),
        Reason::Guaranteed => format!("{} held for {}", verb("is", "are"), guaranteed_text(&count.holders)),
        Reason::Fits => verb("has room", "have room"),
    }
}

/// `too little mem even when empty (need 64G, largest 48G on h3)`; of several kinds each with its number of agents.
fn misses_text(misses: &[Miss], when: &str, which: &str) -> String {
    let nearest = |miss: &Miss| format!("need {}, {which} {} on {}", amount(&miss.name, miss.need), amount(&miss.name, miss.most), miss.host);
    match misses {
        [miss] => format!("too {} {} {when} ({})", if is_size(&miss.name) { "little" } else { "few" }, kind(&miss.name), nearest(miss)),
        _ => {
            let each: Vec<String> = misses.iter().map(|miss| format!("{} on {} ({})", kind(&miss.name), miss.agents, nearest(miss))).collect();
            format!("too little {when}: {}", each.join(", "))
        }
    }
}

fn shortfalls_text(shortfalls: &[Shortfall]) -> String {
    let one = |lack: &Shortfall| {
        let (need, have) = (amount(&lack.name, lack.need), amount(&lack.name, lack.have));
        format!("{} {have} of {need}", kind(&lack.name))
    };
    shortfalls.iter().map(one).collect::<Vec<_>>().join(", ")
}

fn holders_text(holders: &[Holder], explanation: &Explanation) -> String {
    let one = |holder: &Holder| {
        let who = match (&holder.name, &explanation.framework) {
            (_, Some(me)) if *me == holder.framework => "itself".to_owned(),
            (Some(name), _) => name.to_string(),
            (None, _) => holder.framework.to_string(),
        };
        let what = match (holder.offered, holder.count) {
            (_, 0) => return who,
            (true, 1) => "1 offer".to_owned(),
            (true, count) => format!("{count} offers"),
            (false, 1) => "1 task".to_owned(),
            (false, count) => format!("{count} tasks"),
        };
        format!("{who} ({} in {what} for {})", held_text(holder), age(holder.age_ms))
    };
    let texts: Vec<String> = holders.iter().map(one).collect();
    if texts.is_empty() { "others".to_owned() } else { texts.join(", ") }
}

/// `2 tasks of web (4 cpus 2G mem), to whom it is guaranteed`
fn guaranteed_text(holders: &[Holder]) -> String {
    let one = |holder: &Holder| {
        let who = holder.name.as_ref().map_or(holder.framework.to_string(), ToString::to_string);
        format!("{} of {who} ({})", counted(holder.count, "task", "tasks"), held_text(holder))
    };
    format!("{}, to whom it is guaranteed", holders.iter().map(one).collect::<Vec<_>>().join(", "))
}

fn held_text(holder: &Holder) -> String {
    holder.held.iter().map(|(name, sum)| format!("{} {}", amount(name, sum), kind(name))).collect::<Vec<_>>().join(" ")
}

fn subject_text(subject: &Subject) -> String {
    match subject {
        Subject::Role(role) => format!("role {role}"),
        Subject::Framework(..) => format!("framework {subject}"),
    }
}

fn request_text(request: &Request) -> String {
    let built_in = [("cpus", request.cpus), ("mem", request.mem), ("disk", request.disk), ("gpus", request.gpus), ("ports", Milli::units(request.ports.into()))];
    let mut items: Vec<String> = built_in.into_iter().filter(|(_, need)| !need.is_zero()).map(|(name, need)| format!("{name}={}", amount(name, need))).collect();
    if !request.port_ranges.is_empty() {
        items.push(format!("ports={}", request.port_ranges));
    }
    items.extend(request.other.iter().map(|(name, need)| format!("{name}={need}")));
    items.join(",")
}

fn agents_text(agents: u32) -> String {
    counted(agents, "agent", "agents")
}

fn counted(count: u32, one: &str, many: &str) -> String {
    format!("{count} {}", if count == 1 { one } else { many })
}

fn kind(name: &str) -> &str {
    if name == "port_ranges" { "of the named ports" } else { name }
}

/// An amount as one would type it.
fn amount(name: &str, amount: Milli) -> String {
    if !is_size(name) {
        return amount.to_string();
    }
    // The largest unit that needs no more than one decimal: what is rounded cannot be told from what is needed.
    let tenths = |step: u64| amount.checked_mul(10).filter(|_| amount >= Milli::units(step)).filter(|tenths| tenths.as_milli() % Milli::units(step).as_milli() == 0);
    for (step, unit) in [(STEP * STEP, "T"), (STEP, "G")] {
        if let Some(count) = tenths(step).and_then(|tenths| tenths.checked_div(Milli::units(step))) {
            return if count % 10 == 0 { format!("{}{unit}", count / 10) } else { format!("{}.{}{unit}", count / 10, count % 10) };
        }
    }
    format!("{amount}M")
}

fn is_size(name: &str) -> bool {
    matches!(name, "mem" | "disk")
}

fn percent(share: Milli) -> String {
    let tenths = share.as_milli();
    if tenths % 10 == 0 { format!("{}%", tenths / 10) } else { format!("{}.{}%", tenths / 10, tenths % 10) }
}

fn age(age_ms: u64) -> String {
    show_duration(age_ms / 1000 * 1000)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::{AgentId, FrameworkId, Name};
    use crate::resources::{Quantities, parse_request, parse_total};
    use crate::role::Role;
    use crate::wire::explain::Kept;

    fn agent(id: &str) -> AgentId {
        AgentId::parse(id).expect(id)
    }

    fn size(text: &str) -> Milli {
        crate::resources::parse_size(text).expect(text)
    }

    fn count(reason: Reason, agents: u32) -> Count {
        Count { reason, agents, clause: String::new(), lacks: vec![], holders: vec![], refused_ms: 0 }
    }

    fn miss(name: &str, agents: u32, need: Milli, most: Milli, host: &str) -> Miss {
        Miss { name: name.to_owned(), agents, need, most, agent: agent("a1"), host: host.to_owned() }
    }

    fn holder(framework: &str, name: Option<&str>, offered: bool, held: &str) -> Holder {
        Holder {
            framework: FrameworkId::parse(framework).expect(framework),
            name: name.map(|name| Name::parse(name).expect(name)),
            offered,
            count: 2,
            held: Quantities::of(&parse_total(held).expect(held)),
            age_ms: 41_500,
        }
    }

    fn line(id: &str, host: &str, reason: Reason) -> AgentReason {
        AgentReason { agent: agent(id), host: host.to_owned(), reason, clause: String::new(), lacks: vec![], holders: vec![], refused_ms: 0 }
    }

    fn some() -> Explanation {
        Explanation {
            meso: "explain/1".to_owned(),
            about: "framework".to_owned(),
            framework: FrameworkId::parse("fw_1").ok(),
            name: Name::parse("keeper").ok(),
            role: Role::parse("batch").expect("a role"),
            request: parse_request("cpus=4,mem=64G,licenses=2").expect("a request"),
            count: 3,
            condition: "attr.rack == r1".to_owned(),
            on: None,
            revocable: false,
            obstacles: vec![Obstacle::Limit { subject: Subject::parse("batch").expect("a role"), name: "cpus".to_owned(), held: Milli::units(98), limit: Milli::units(100), need: Milli::units(4) }],
            agents_all: 12,
            counts: vec![
                Count { lacks: vec![miss("mem", 7, size("64G"), size("48G"), "h3")], ..count(Reason::TooSmall, 7) },
                Count { clause: "attr.rack == r1".to_owned(), ..count(Reason::Condition, 3) },
                Count { holders: vec![holder("fw_2", Some("spark"), true, "mem=16G")], ..count(Reason::Offered, 1) },
                count(Reason::Fits, 1),
            ],
            agents: vec![],
            agents_left_out: 12,
            summary: String::new(),
        }
    }

    /// Shows the one line that a waiting person reads.
    #[test]
    fn the_summary() {
        assert_eq!(
            summary(&some()),
            "role batch is at its limit of cpus: 98 of 100 held, one task needs 4; \
             12 agents: 7 have too little mem even when empty (need 64G, largest 48G on h3), 3 fail attr.rack == r1, 1 is offered to spark (16G mem in 2 offers for 41s), 1 has room"
        );
    }

    /// Shows whose wish it is and what is wanted, and each agent's own reason with exact amounts.
    #[test]
    fn lines_and_agents() {
        let whole = lines(&some());
        assert_eq!(whole[0], "framework keeper (fw_1) of role batch wants 3 tasks more of cpus=4,mem=64G,licenses=2 where attr.rack == r1:");
        assert_eq!(whole[1], "  role batch is at its limit of cpus: 98 of 100 held, one task needs 4");
        assert_eq!((whole[2].as_str(), whole.len()), ("12 agents:", 7));
        let nobody = Explanation { framework: None, name: None, request: Request::default(), condition: String::new(), on: Some("h9".to_owned()), ..some() };
        assert_eq!(lines(&nobody)[0], "a task of role batch wants all that an agent has free on h9:");
        let lack = |name: &str, need, have| Shortfall { name: name.to_owned(), need, have };
        let small = AgentReason { lacks: vec![lack("mem", size("64G"), size("48.5G")), lack("cpus", Milli::units(4), Milli::units(2))], ..line("a1", "h3", Reason::TooSmall) };
        assert_eq!(agent_text(&small, &some()), "too small: mem 48.5G of 64G, cpus 2 of 4");
        let busy = AgentReason { lacks: vec![lack("mem", size("64G"), size("65530M"))], holders: vec![holder("fw_1", None, false, "mem=6")], ..line("a2", "h2", Reason::Busy) };
        assert_eq!(agent_text(&busy, &some()), "busy: mem 65530M of 64G free, held by itself (6M mem in 2 tasks for 41s)");
    }

    /// Shows the words for everything else that may concern the whole, and for the rarer reasons of agents.
    #[test]
    fn other_words() {
        let vip = Kept { subject: Subject::parse("vip:web").expect("a framework"), amount: size("7G") };
        let half = Milli::parse("0.505").expect("a share");
        for (obstacle, text) in [
            (Obstacle::Limit { subject: Subject::parse("eng").expect("a role"), name: "mem".to_owned(), held: Milli::ZERO, limit: size("1G"), need: size("2G") }, "role eng is limited to 1G mem, and one task needs 2G"),
            (Obstacle::NotConnected { age_ms: 61_000 }, "nobody has spoken for it for 1m1s"),
            (Obstacle::WantsNothing { tasks: 1 }, "it wants nothing more: 1 task is its own"),
            (Obstacle::Offered { offers: 1, age_ms: 2_000 }, "all that it wants is offered to it: 1 offer, the oldest for 2s"),
            (Obstacle::OpenMax { offers: 16, age_ms: 0 }, "it holds 16 offers, which is as many as it may, the oldest for 0s"),
            (Obstacle::Guaranteed { name: "mem".to_owned(), free: size("10G"), kept_back: size("8G"), need: size("3G"), subjects: vec![vip] }, "of 10G mem free, 8G are guaranteed to framework vip:web (7G), and one task needs 3G"),
            (Obstacle::Turn { share: half, fair_share: Milli::units(1) }, "it waits for its turn: it holds 50.5% of the cluster, its fair share is 100%"),
        ] {
            assert_eq!(obstacle_text(&obstacle), text);
        }
        let on = Explanation { on: Some("h9".to_owned()), ..some() };
        let two = vec![miss("cpus", 2, Milli::units(8), Milli::units(4), "h1"), miss("gpus", 1, Milli::units(1), Milli::ZERO, "h2")];
        for (count, text) in [
            (count(Reason::OtherAgent, 11), "11 are not h9"),
            (count(Reason::Recovering, 1), "1 is not back yet under this master"),
            (Count { refused_ms: 4_000, ..count(Reason::Refused, 2) }, "2 are refused by it for 4s more"),
            (Count { lacks: two, ..count(Reason::TooSmall, 2) }, "2 have too little even when empty: cpus on 2 (need 8, largest 4 on h1), gpus on 1 (need 1, largest 0 on h2)"),
            (Count { holders: vec![Holder { count: 0, ..holder("fw_7", None, false, "mem=1") }], ..count(Reason::KeptFor, 1) }, "1 is kept free for fw_7"),
            (Count { holders: vec![holder("fw_7", Some("web"), false, "cpus=2,mem=1G")], ..count(Reason::Guaranteed, 3) }, "3 are held for 2 tasks of web (2 cpus 1G mem), to whom it is guaranteed"),
        ] {
            assert_eq!(count_text(&count, &on), text);
        }
    }
}
