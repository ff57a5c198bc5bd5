//! What is under way, by names that rise: in one piece of memory, in order, without an allocation at steady state. New names come at the
//! end, and what ends is mostly near the front, so little is moved.
//!
//! Not for names that come in any order.

use alloc::collections::VecDeque;
use core::ops::Index;

/// A map whose keys are inserted in rising order.
#[derive(Clone, Debug)]
pub(super) struct Table<K, V> {
    entries: VecDeque<(K, V)>,
}

impl<K, V> Default for Table<K, V> {
    fn default() -> Self {
        Self { entries: VecDeque::new() }
    }
}

impl<K: Copy + Ord, V> Table<K, V> {
    /// Panics if the key is not higher than all that are there.
    pub(super) fn insert(&mut self, key: K, value: V) {
        let last = self.entries.back();
        assert!(last.is_none_or(|(last, _)| *last < key), "names rise");
        self.entries.push_back((key, value));
    }

    pub(super) fn get(&self, key: &K) -> Option<&V> {
        let at = self.find(key)?;
        Some(&self.entries[at].1)
    }

    pub(super) fn get_mut(&mut self, key: &K) -> Option<&mut V> {
        let at = self.find(key)?;
        Some(&mut self.entries[at].1)
    }

    pub(super) fn remove(&mut self, key: &K) -> Option<V> {
        let at = self.find(key)?;
        self.entries.remove(at).map(|(_, value)| value)
    }

    pub(super) fn keys(&self) -> impl Iterator<Item = K> + '_ {
        self.entries.iter().map(|(key, _)| *key)
    }

    pub(super) fn values(&self) -> impl Iterator<Item = &V> {
        self.entries.iter().map(|(_, value)| value)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (K, &V)> {
        self.entries.iter().map(|(key, value)| (*key, value))
    }

    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    pub(super) fn clear(&mut self) {
        self.entries.clear();
    }

    fn find(&self, key: &K) -> Option<usize> {
        // One at a time, the first is it.
        if self.entries.front().is_some_and(|(first, _)| first == key) {
            return Some(0);
        }
        self.entries.binary_search_by_key(key, |(key, _)| *key).ok()
    }
}

impl<K: Copy + Ord, V> Index<&K> for Table<K, V> {
    type Output = V;

    fn index(&self, key: &K) -> &V {
        self.get(key).expect("it is under way")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::collections::BTreeMap;

    #[test]
    fn it_is_a_map() {
        let (mut table, mut map) = (Table::default(), BTreeMap::new());
        let mut random = 7u64;
        for key in 0..2000u64 {
            table.insert(key, key * 2);
            map.insert(key, key * 2);
            random = random.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(1);
            let gone = key.saturating_sub((random >> 33) % 40);
            assert_eq!(table.remove(&gone), map.remove(&gone));
            let there = key.saturating_sub((random >> 40) % 40);
            assert_eq!(table.get(&there), map.get(&there));
            assert_eq!(table.get_mut(&there), map.get_mut(&there));
        }
        assert!(table.iter().eq(map.iter().map(|(key, value)| (*key, value))));
        assert!(table.keys().eq(map.keys().copied()) && table.values().eq(map.values()));
        assert_eq!((table.len(), table.is_empty()), (map.len(), map.is_empty()));
        table.clear();
        assert!(table.is_empty());
    }

    #[test]
    #[should_panic(expected = "names rise")]
    fn names_rise() {
        let mut table = Table::default();
        table.insert(2, ());
        table.insert(2, ());
    }
}
