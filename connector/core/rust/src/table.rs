//! The keys that are in memory, of `keys`: a hash table whose only change of size is a new one.

use crate::keyfiles::INDEX_MASK;
use memmap2::MmapMut;
use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::hint::black_box;

const SLOT_BYTES: usize = 16;

/// Keys in memory: open addressing, a slot being a number, and 48 bits of the index plus one.
pub struct Table {
    slots: Slots, // 0: free
    pub len: usize,
    factor: u64, // random, so that nobody can choose keys that meet in one place
}

impl Table {
    pub fn with_slots(slots: usize) -> Table {
        let factor = RandomState::new().hash_one(slots) | 1;
        Table { slots: Slots::new(slots), len: 0, factor }
    }

    #[inline]
    fn place(&self, number: u128) -> usize {
        let mixed = ((number >> 16) as u64).wrapping_mul(self.factor);
        (mixed >> (64 - self.capacity().trailing_zeros())) as usize
    }

    /// The slot that holds the key, or the free one where it would go; and what is in it.
    #[inline]
    fn slot(&self, number: u128) -> (usize, u128) {
        let mut at = self.place(number);
        loop {
            let slot = self.slots.get(at);
            if slot == 0 || slot >> 48 == number {
                return (at, slot);
            }
            at = (at + 1) & (self.capacity() - 1);
        }
    }

    #[inline]
    pub fn find(&self, number: u128) -> Option<u64> {
        let (_, slot) = self.slot(number);
        (slot != 0).then(|| (slot & INDEX_MASK) as u64 - 1)
    }

    /// Have the places of keys in the processor's cache. Nothing here depends on what was read,
    /// so that waiting for one place goes on while the next ones are asked for.
    pub fn touch(&self, numbers: &[u128]) {
        let read = |sum, number: &u128| sum ^ self.slots.get(self.place(*number)) as u64;
        black_box(numbers.iter().fold(0, read));
    }

    #[inline]
    pub fn capacity(&self) -> usize {
        self.slots.count
    }

    pub fn is_full(&self) -> bool {
        self.len >= self.capacity() / 10 * 7
    }

    /// False if the key is in the table, which is not full.
    #[inline]
    pub fn insert(&mut self, number: u128, index: u64) -> bool {
        let (at, slot) = self.slot(number);
        if slot != 0 {
            return false;
        }
        self.slots.set(at, number << 48 | u128::from(index + 1));
        self.len += 1;
        true
    }

    pub fn remove(&mut self, number: u128) {
        let last = self.capacity() - 1;
        let (mut free, slot) = self.slot(number);
        if slot == 0 {
            return;
        }
        self.len -= 1;
        let mut at = free;
        loop {
            at = (at + 1) & last;
            let slot = self.slots.get(at);
            if slot == 0 {
                break;
            }
            // What lies behind moves up, unless it would come to lie before its place.
            let place = self.place(slot >> 48);
            if (at.wrapping_sub(place) & last) >= (at.wrapping_sub(free) & last) {
                self.slots.set(free, slot);
                free = at;
            }
        }
        self.slots.set(free, 0);
    }

    pub fn clear(&mut self) {
        self.slots.memory.fill(0);
        self.len = 0;
    }

    pub fn entries(&self) -> impl Iterator<Item = u128> + '_ {
        (0..self.capacity())
            .map(|at| self.slots.get(at))
            .filter(|slot| *slot != 0)
            .map(|slot| slot - 1)
    }
}

/// Memory of its own, zeros at first; in large pages where the system has them, as every look-up
/// is in another page, and finding small ones takes longer than reading.
struct Slots {
    memory: MmapMut,
    count: usize, // a power of two
}

impl Slots {
    fn new(count: usize) -> Slots {
        let memory = MmapMut::map_anon(count * SLOT_BYTES).expect("no memory for keys");
        #[cfg(target_os = "linux")]
        let _ = memory.advise(memmap2::Advice::HugePage);
        Slots { memory, count }
    }

    #[inline]
    fn get(&self, at: usize) -> u128 {
        let bytes = &self.memory[at * SLOT_BYTES..][..SLOT_BYTES];
        u128::from_ne_bytes(bytes.try_into().unwrap_or_default())
    }

    #[inline]
    fn set(&mut self, at: usize, slot: u128) {
        self.memory[at * SLOT_BYTES..][..SLOT_BYTES].copy_from_slice(&slot.to_ne_bytes());
    }
}
