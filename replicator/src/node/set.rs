//! A set of peers, or of volumes, by index. What it stands for, whoever has it knows.

/// Indices below 32.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Set(u32);

impl Set {
    pub(super) fn contains(self, index: usize) -> bool {
        self.0 & (1 << index) != 0
    }

    pub(super) fn is_empty(self) -> bool {
        self.0 == 0
    }

    pub(super) fn insert(&mut self, index: usize) {
        self.0 |= 1 << index;
    }

    pub(super) fn remove(&mut self, index: usize) {
        self.0 &= !(1 << index);
    }

    /// In either.
    pub(super) fn or(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// In both.
    pub(super) fn and(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    /// In this one alone.
    pub(super) fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }
}

impl FromIterator<usize> for Set {
    fn from_iter<I: IntoIterator<Item = usize>>(indices: I) -> Self {
        let mut set = Self::default();
        indices.into_iter().for_each(|index| set.insert(index));
        set
    }
}

#[cfg(test)]
mod tests {
    use super::Set;

    #[test]
    fn each_index_is_in_it_or_not() {
        let set: Set = [1, 3, 31, 3].into_iter().collect();
        let members: alloc::vec::Vec<usize> = (0..32).filter(|&i| set.contains(i)).collect();
        assert_eq!(members, [1, 3, 31]);
        let mut rest = set;
        rest.remove(3);
        rest.remove(3);
        rest.remove(0);
        assert_eq!(rest, [1, 31].into_iter().collect());
        assert!(Set::default().is_empty() && !rest.is_empty());
    }

    #[test]
    fn two_of_them_make_a_third() {
        let of = |indices: &[usize]| indices.iter().copied().collect::<Set>();
        let (a, b) = (of(&[0, 1]), of(&[1, 2]));
        assert_eq!(a.or(b), of(&[0, 1, 2]));
        assert_eq!(a.and(b), of(&[1]));
        assert_eq!(a.without(b), of(&[0]));
    }
}
