//! The accounts of all agents, found by id and by place
//!
//! Those of which something is free stand in one list, in order of their ids, so that the allocator finds the next one
//! without looking at all those that are full.

use std::collections::BTreeMap;

use super::Account;
use super::ready::{Amounts, Ready};
use crate::id::AgentId;

/// See the module.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Accounts {
    slots: Vec<Option<Slot>>,
    /// Empty slots.
    spare: Vec<u32>,
    index: BTreeMap<AgentId, u32>,
    /// Those that are open and have something free.
    ready: Ready,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Slot {
    agent: AgentId,
    account: Account,
    /// Whether anything may be offered of it now.
    is_open: bool,
    is_ready: bool,
}

const FILLED: &str = "the index names slots that are filled";

impl Accounts {
    pub(super) fn get(&self, agent: &AgentId) -> Option<&Account> {
        self.slot(*self.index.get(agent)?).map(|slot| &slot.account)
    }

    pub(super) fn contains(&self, agent: &AgentId) -> bool {
        self.index.contains_key(agent)
    }

    /// Puts a new account in, open; the caller has looked that there is none.
    pub(super) fn insert(&mut self, agent: AgentId, account: Account) {
        let slot = Slot { agent: agent.clone(), account, is_open: true, is_ready: false };
        let place = match self.spare.pop() {
            Some(place) => {
                self.slots[place as usize] = Some(slot);
                place
            }
            None => {
                self.slots.push(Some(slot));
                u32::try_from(self.slots.len() - 1).expect("fewer agents than that")
            }
        };
        self.index.insert(agent, place);
        self.settle(place);
    }

    pub(super) fn remove(&mut self, agent: &AgentId) -> Option<Account> {
        let place = *self.index.get(agent)?;
        self.slot_mut(place).is_open = false;
        self.settle(place);
        self.index.remove(agent);
        self.spare.push(place);
        self.slots[place as usize].take().map(|slot| slot.account)
    }

    /// The one place where an account is changed: it keeps the list of those with something free.
    pub(super) fn change<T>(&mut self, agent: &AgentId, how: impl FnOnce(&mut Account) -> T) -> Option<T> {
        let place = *self.index.get(agent)?;
        let done = how(&mut self.slot_mut(place).account);
        self.settle(place);
        Some(done)
    }

    pub(super) fn set_open(&mut self, agent: &AgentId, is_open: bool) {
        if let Some(&place) = self.index.get(agent) {
            self.slot_mut(place).is_open = is_open;
            self.settle(place);
        }
    }

    /// All accounts in order of the agents' ids.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&AgentId, &Account)> {
        self.index.iter().filter_map(|(agent, place)| Some((agent, &self.slot(*place)?.account)))
    }

    pub(super) fn count(&self) -> usize {
        self.index.len()
    }

    /// How many are open and have something free.
    pub(super) fn ready_count(&self) -> usize {
        self.ready.count()
    }

    /// One of these, by its place in the order of their ids.
    pub(super) fn ready_at(&self, place: usize) -> (&AgentId, &Account) {
        let slot = self.ready.slot_at(place).and_then(|slot| self.slot(slot));
        slot.map(|slot| (&slot.agent, &slot.account)).expect("a place below the count")
    }

    /// The first of them from a place on that has as much free; their count if none has.
    pub(super) fn ready_with(&self, place: usize, least: &Amounts) -> usize {
        self.ready.first_with(place, least)
    }

    /// Where in that order an agent stands, if it does.
    pub(super) fn ready_place(&self, agent: &AgentId) -> Option<usize> {
        self.ready.place_of(agent, |place| id_at(&self.slots, place))
    }

    fn settle(&mut self, place: u32) {
        let id = |place: u32| id_at(&self.slots, place);
        let slot = self.slots[place as usize].as_ref().expect(FILLED);
        let is_ready = slot.is_open && !slot.account.free.is_empty();
        if is_ready {
            self.ready.put(place, &slot.account.free, id);
        } else if slot.is_ready {
            self.ready.take(place, id);
        }
        self.slot_mut(place).is_ready = is_ready;
    }

    fn slot(&self, place: u32) -> Option<&Slot> {
        self.slots[place as usize].as_ref()
    }

    fn slot_mut(&mut self, place: u32) -> &mut Slot {
        self.slots[place as usize].as_mut().expect(FILLED)
    }
}

fn id_at(slots: &[Option<Slot>], place: u32) -> &AgentId {
    &slots[place as usize].as_ref().expect(FILLED).agent
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resources::{Milli, parse_total};

    fn agent(number: u64) -> AgentId {
        AgentId::parse(&format!("a{number}")).expect("an id")
    }

    fn account(free: &str) -> Account {
        Account { free: parse_total(free).expect(free), ..Account::default() }
    }

    /// Shows that the list is of those that are open and have something free, in order, whatever comes, goes and changes.
    #[test]
    fn the_list_of_the_ready() {
        let mut accounts = Accounts::default();
        let ready = |accounts: &Accounts| (0..accounts.ready_count()).map(|place| accounts.ready_at(place).0.to_string()).collect::<Vec<_>>().join(" ");
        for (number, free) in [(3, "cpus=1"), (1, "cpus=1"), (2, "cpus=0"), (4, "mem=1")] {
            accounts.insert(agent(number), account(free));
        }
        assert_eq!(ready(&accounts), "a1 a3 a4");
        accounts.change(&agent(2), |account| account.free = parse_total("cpus=1").expect("cpus"));
        accounts.change(&agent(3), |account| account.free = Default::default());
        assert_eq!(ready(&accounts), "a1 a2 a4");
        accounts.set_open(&agent(1), false);
        accounts.remove(&agent(4));
        assert_eq!(ready(&accounts), "a2");
        accounts.insert(agent(0), account("cpus=1"));
        accounts.set_open(&agent(1), true);
        assert_eq!(ready(&accounts), "a0 a1 a2");
        assert_eq!((accounts.ready_place(&agent(1)), accounts.ready_place(&agent(3))), (Some(1), None));
        assert_eq!(accounts.iter().map(|(agent, _)| agent.to_string()).collect::<Vec<_>>(), ["a0", "a1", "a2", "a3"]);
    }
    /// Shows that a list of many pieces is one, in order, while half of it comes and goes.
    #[test]
    fn a_long_list() {
        let mut accounts = Accounts::default();
        let id = |number: u64| AgentId::parse(&format!("a{number:05}")).expect("an id");
        // In an order of its own: 7,919 is prime to 5,000.
        (0..5_000).for_each(|number| accounts.insert(id(number * 7_919 % 5_000), account("cpus=1")));
        for number in (0..5_000).filter(|number| number % 3 > 0) {
            accounts.change(&id(number), |account| account.free = Default::default());
        }
        assert_eq!(accounts.ready_count(), 1_667);
        for place in 0..accounts.ready_count() {
            assert_eq!(accounts.ready_at(place).0, &id(place as u64 * 3));
            assert_eq!(accounts.ready_place(&id(place as u64 * 3)), Some(place));
        }
        (0..5_000).for_each(|number| drop(accounts.remove(&id(number))));
        assert_eq!(accounts.ready_count(), 0);
        assert!(accounts.ready.is_summed_up());
    }

    /// Shows that whoever seeks so much finds the first that has it, whatever the others had before.
    #[test]
    fn the_first_with_enough() {
        let mut accounts = Accounts::default();
        let id = |number: u64| AgentId::parse(&format!("a{number:05}")).expect("an id");
        (0..3_000).for_each(|number| accounts.insert(id(number), account("cpus=1,mem=100")));
        let large = parse_total("cpus=8,mem=10").expect("resources");
        let least = |cpus, mem| [Milli::units(cpus), Milli::units(mem), Milli::ZERO, Milli::ZERO];
        for number in [700, 1_900, 2_999] {
            accounts.change(&id(number), |account| account.free = large.clone());
        }
        assert_eq!([0, 700, 701, 1_901].map(|from| accounts.ready_with(from, &least(2, 0))), [700, 700, 1_900, 2_999]);
        assert_eq!(accounts.ready_with(0, &least(2, 11)), 3_000, "one has the cpus, another the memory");
        accounts.change(&id(1_900), |account| account.free = Default::default());
        accounts.change(&id(2_999), |account| account.free.cpus = Milli::units(1));
        assert_eq!([0, 701].map(|from| accounts.ready_with(from, &least(2, 0))), [700, 2_999]);
        accounts.set_open(&id(700), false);
        assert_eq!(accounts.ready_with(0, &least(2, 0)), 2_998);
        assert!(accounts.ready.is_summed_up());
    }
}
