//! Numbers for fresh ids, from a seed that arrives in an event: `core` has no randomness of its own.

/// Two words of state of xoroshiro128++ (Blackman and Vigna), seeded by the outside with true randomness.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seed(u64, u64);

impl Seed {
    /// From 128 bits; all zeros would stay zero, so they are replaced.
    pub fn new(words: [u64; 2]) -> Self {
        if words == [0, 0] { Seed(0x9e37_79b9_7f4a_7c15, 1) } else { Seed(words[0], words[1]) }
    }

    /// The next 64 bits.
    pub fn draw(&mut self) -> u64 {
        let (s0, mut s1) = (self.0, self.1);
        let drawn = s0.wrapping_add(s1).rotate_left(17).wrapping_add(s0);
        s1 ^= s0;
        self.0 = s0.rotate_left(49) ^ s1 ^ (s1 << 21);
        self.1 = s1.rotate_left(28);
        drawn
    }

    /// A number below `bound`; 0 if the bound is 0.
    pub fn below(&mut self, bound: u64) -> u64 {
        if bound == 0 { 0 } else { ((u128::from(self.draw()) * u128::from(bound)) >> 64) as u64 }
    }
}

#[cfg(test)]
mod tests {
    use super::Seed;

    /// Shows that a seed always draws the same, that draws differ, and that a bound is kept.
    #[test]
    fn draws() {
        let (mut a, mut b) = (Seed::new([1, 2]), Seed::new([1, 2]));
        let drawn: Vec<u64> = (0..1000).map(|_| a.draw()).collect();
        assert!(drawn.iter().all(|n| *n == b.draw()));
        assert_eq!(drawn.iter().collect::<std::collections::BTreeSet<_>>().len(), 1000);
        assert!((0..1000).all(|_| a.below(7) < 7));
        assert_eq!(Seed::new([0, 0]).below(0), 0);
    }
}
