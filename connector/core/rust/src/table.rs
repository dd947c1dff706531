//! The keys that are in memory, of `keys`: a hash table whose only change of size is a new one.

use crate::keyfiles::INDEX_MASK;
use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;

/// Keys in memory: open addressing, a slot being a number, and 48 bits of the index plus one.
pub struct Table {
    slots: Vec<u128>, // 0: free
    pub len: usize,
    factor: u64, // random, so that nobody can choose keys that meet in one place
}

impl Table {
    pub fn with_slots(slots: usize) -> Table {
        let factor = RandomState::new().hash_one(slots) | 1;
        Table { slots: vec![0; slots], len: 0, factor }
    }

    #[inline]
    fn place(&self, number: u128) -> usize {
        let mixed = ((number >> 16) as u64).wrapping_mul(self.factor);
        (mixed >> (64 - self.slots.len().trailing_zeros())) as usize
    }

    /// The slot that holds the key, or the free one where it would go.
    #[inline]
    fn slot(&self, number: u128) -> usize {
        let mut at = self.place(number);
        while self.slots[at] != 0 && self.slots[at] >> 48 != number {
            at = (at + 1) & (self.slots.len() - 1);
        }
        at
    }

    #[inline]
    pub fn find(&self, number: u128) -> Option<u64> {
        let slot = self.slots[self.slot(number)];
        (slot != 0).then(|| (slot & INDEX_MASK) as u64 - 1)
    }

    pub fn capacity(&self) -> usize {
        self.slots.len()
    }

    pub fn is_full(&self) -> bool {
        self.len >= self.slots.len() / 10 * 7
    }

    /// False if the key is in the table, which is not full.
    #[inline]
    pub fn insert(&mut self, number: u128, index: u64) -> bool {
        let at = self.slot(number);
        if self.slots[at] != 0 {
            return false;
        }
        self.slots[at] = number << 48 | u128::from(index + 1);
        self.len += 1;
        true
    }

    pub fn remove(&mut self, number: u128) {
        let last = self.slots.len() - 1;
        let mut free = self.slot(number);
        if self.slots[free] == 0 {
            return;
        }
        self.len -= 1;
        let mut at = free;
        loop {
            at = (at + 1) & last;
            if self.slots[at] == 0 {
                break;
            }
            // What lies behind moves up, unless it would come to lie before its place.
            let place = self.place(self.slots[at] >> 48);
            if (at.wrapping_sub(place) & last) >= (at.wrapping_sub(free) & last) {
                self.slots[free] = self.slots[at];
                free = at;
            }
        }
        self.slots[free] = 0;
    }

    pub fn clear(&mut self) {
        self.slots.fill(0);
        self.len = 0;
    }

    pub fn entries(&self) -> impl Iterator<Item = u128> + '_ {
        self.slots.iter().filter(|slot| **slot != 0).map(|slot| slot - 1)
    }
}
