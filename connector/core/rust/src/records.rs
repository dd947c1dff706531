//! Record leaves (docs/evidence.md, section 2): made of the columns of a report, and read back.

use crate::cbor::{push, Head, Reader, MAP, TEXT, UINT};
use crate::keyfiles::{Key, KEY_BYTES};
use crate::keys::Shared;
use crate::leaves::{unpack, Refusal, LEAF};
use crate::sha::{hash, hash_of, hash_two, in_turn, Hash, Message, State, BEGIN, HASH_BYTES};

const KEY_PREFIX_BYTES: usize = 16;
const KIND_USE: u8 = 1; // in keys: use and record leaves share their use ids
const KIND_RECORD: u64 = 2;
const CALLS: u8 = 1;
const LAST_QUANTITY: u64 = 7;
const MAX_QUANTITY: u64 = 1 << 53;
const MAX_TIME_MS: u64 = 253_402_300_799_999;
const MAX_TEXT: usize = 512; // characters
const MAX_REPORTER: usize = 64; // characters
const MAX_USE_ID: usize = 64;
const SALT_BYTES: usize = 16;
const NUMBER_BYTES: usize = 8; // in a column
const NO_PREVIOUS: Hash = [0; HASH_BYTES];

/// How a record leaf begins: a map of 12, version 1, kind 2, the head of the salt.
const FRONT: [u8; 7] = [0xac, 0, 1, 1, KIND_RECORD as u8, 2, 0x40 | SALT_BYTES as u8];

// Faults, as `interface.Fault` numbers them.
const MALFORMED: u8 = 1;
const OUT_OF_TIME: u8 = 2;
const DUPLICATE: u8 = 3;
const EXHAUSTED: u8 = 4;
const RUNNING: u8 = 5;

/// `interface.Columns` and `interface.Place`, checked by `checks.py`.
pub struct Report<'a> {
    pub use_ids: &'a [u8],
    pub served: &'a [u8],
    pub amounts: Vec<(u8, &'a [u8])>,
    pub salts: &'a [u8],
    pub scope: &'a str,
    pub purpose: &'a str,
    pub reporter: &'a str,
    pub head: Hash,
    pub number: u64,
    pub time_ms: u64,
    pub index: u64,
    pub window: (i64, i64),
    pub left: Option<u128>,
    pub running: Vec<&'a [u8]>,
}

/// `interface.Made`.
pub struct Made {
    pub packed: Vec<u8>,
    pub hashes: Vec<u8>,
    pub calls: u128,
    pub head: Hash,
    pub refused: Vec<(usize, u8)>,
}

/// A row that nothing speaks against, so far.
struct Row<'a> {
    row: usize,
    use_id: &'a [u8],
}

impl Report<'_> {
    fn number_at(column: &[u8], row: usize) -> u64 {
        let at = row * NUMBER_BYTES;
        let bytes = column[at..at + NUMBER_BYTES].try_into();
        u64::from_le_bytes(bytes.unwrap_or_default())
    }

    fn calls(&self, row: usize) -> u64 {
        let calls = self.amounts.iter().find(|(quantity, _)| *quantity == CALLS);
        calls.map_or(0, |(_, column)| Self::number_at(column, row))
    }

    /// What speaks against a row without regard to the others.
    fn fault(&self, row: usize, use_id: &[u8]) -> Option<u8> {
        let served = Self::number_at(self.served, row);
        let is_visible = use_id.iter().fold(true, |all, byte| all & byte.is_ascii_graphic());
        let is_amount = |(quantity, column): &(u8, &[u8])| {
            let amount = Self::number_at(column, row);
            amount <= MAX_QUANTITY && (amount > 0 || *quantity != CALLS)
        };
        if !is_visible
            || !(1..=MAX_USE_ID).contains(&use_id.len())
            || served > MAX_TIME_MS
            || !self.amounts.iter().all(is_amount)
        {
            return Some(MALFORMED);
        }
        if (served as i64) < self.window.0 || served as i64 > self.window.1 {
            return Some(OUT_OF_TIME);
        }
        self.running.contains(&use_id).then_some(RUNNING)
    }
}

/// Decide about every row, in order; stage the keys of those that become leaves, and make them.
pub fn make(report: &Report<'_>, keys: &Shared) -> Made {
    let (sound, mut refused) = look(report);
    let wanted = Keyed::new(report.scope).keys(&sound);
    let mut rows = Vec::with_capacity(sound.len());
    let (mut left, mut calls) = (report.left, 0);
    let (found, mut guard) = keys.find_old(&wanted);
    for ((candidate, key), found) in sound.into_iter().zip(&wanted).zip(found) {
        let row = candidate.row;
        let amount = u128::from(report.calls(row));
        let fits = left.is_none_or(|left| amount <= left);
        if found.is_some() || (!fits && guard.recent(key).is_some()) {
            refused.push((row, DUPLICATE));
        } else if !fits {
            refused.push((row, EXHAUSTED));
        } else if !guard.stage_unfound(key, report.index + rows.len() as u64) {
            refused.push((row, DUPLICATE));
        } else {
            left = left.map(|left| left - amount);
            calls += amount;
            rows.push(candidate);
        }
    }
    drop(guard);
    refused.sort_unstable();
    let (packed, hashes, head) = Writer::new(report).leaves(&rows);
    Made { packed, hashes, calls, head, refused }
}

/// The rows that nothing speaks against without regard to the others, and the other ones.
fn look<'a>(report: &Report<'a>) -> (Vec<Row<'a>>, Vec<(usize, u8)>) {
    let mut sound = Vec::with_capacity(report.served.len() / NUMBER_BYTES);
    let mut refused = Vec::new();
    for (row, use_id) in report.use_ids.split(|byte| *byte == b'\n').enumerate() {
        match report.fault(row, use_id) {
            Some(fault) => refused.push((row, fault)),
            None => sound.push(Row { row, use_id }),
        }
    }
    (sound, refused)
}

/// Writes leaves: what is the same in all of a report, with keys of the map, and between it what
/// is not.
struct Writer<'a> {
    report: &'a Report<'a>,
    to_number: Vec<u8>, // from the beginning of what is hashed; the salt is in it
    to_head: Vec<u8>,
    to_use_id: Vec<u8>, // the head is in it
    to_quantities: Vec<u8>,
    to_served: Vec<u8>,
}

const SALT_AT: usize = LEAF.len() + FRONT.len();

/// A leaf in the making. `head`: where the hash of the one before it goes; `state`: after the
/// blocks that lie before that, of which there are `begun`.
struct Draft {
    message: Message,
    head: usize,
    begun: usize,
    state: State,
}

impl<'a> Writer<'a> {
    fn new(report: &'a Report<'a>) -> Self {
        let mut to_number = [&LEAF[..], &FRONT, &[0; SALT_BYTES], &[3]].concat();
        push(&mut to_number, TEXT, report.scope.len() as u64, report.scope.as_bytes());
        to_number.push(4);
        let mut to_head = vec![5];
        push(&mut to_head, UINT, report.time_ms, &[6, 0x58, HASH_BYTES as u8]);
        let to_use_id = [&NO_PREVIOUS[..], &[10]].concat();
        let mut to_quantities = vec![14];
        push(&mut to_quantities, TEXT, report.purpose.len() as u64, report.purpose.as_bytes());
        to_quantities.push(19);
        push(&mut to_quantities, MAP, report.amounts.len() as u64, &[]);
        let mut to_served = vec![21];
        push(&mut to_served, TEXT, report.reporter.len() as u64, report.reporter.as_bytes());
        to_served.push(22);
        Writer { report, to_number, to_head, to_use_id, to_quantities, to_served }
    }

    fn new_draft(&self) -> Draft {
        Draft { message: Message::of(&self.to_number), head: 0, begun: 0, state: BEGIN }
    }

    /// Packed leaves, their hashes, and the last hash.
    ///
    /// A leaf holds the hash of the one before, so they cannot be hashed two at a time; but what
    /// lies before that hash is, together with the end of the leaf before.
    fn leaves(&self, rows: &[Row<'_>]) -> (Vec<u8>, Vec<u8>, Hash) {
        let mut packed = Vec::new();
        let mut hashes = Vec::with_capacity(rows.len() * HASH_BYTES);
        let mut head = self.report.head;
        let (mut leaf, mut next) = (self.new_draft(), self.new_draft());
        if let Some(first) = rows.first() {
            self.draft(&mut leaf, first, 1);
            in_turn(&mut leaf.state, leaf.message.begun(leaf.begun), &mut [0; 8], &[]);
        }
        for made in 1..=rows.len() {
            match rows.get(made) {
                Some(row) => self.draft(&mut next, row, made as u64 + 1),
                None => next.begun = 0,
            }
            leaf.message.bytes_mut()[leaf.head..leaf.head + HASH_BYTES].copy_from_slice(&head);
            let rest = &leaf.message.padded()[leaf.begun..];
            in_turn(&mut leaf.state, rest, &mut next.state, next.message.begun(next.begun));
            head = hash_of(&leaf.state);
            hashes.extend_from_slice(&head);
            let bytes = &leaf.message.bytes()[LEAF.len()..];
            if packed.is_empty() {
                packed.reserve(rows.len() * (bytes.len() + 16));
            }
            packed.extend_from_slice(&(bytes.len() as u16).to_be_bytes()); // far below 65,536
            packed.extend_from_slice(bytes);
            std::mem::swap(&mut leaf, &mut next);
        }
        (packed, hashes, head)
    }

    /// A row as a leaf, but for the hash of the one before it; `made`: which of the report's.
    fn draft(&self, draft: &mut Draft, row: &Row<'_>, made: u64) {
        let number = |column| Report::number_at(column, row.row);
        let salt = &self.report.salts[row.row * SALT_BYTES..][..SALT_BYTES];
        let message = &mut draft.message;
        message.cut(self.to_number.len());
        message.bytes_mut()[SALT_AT..SALT_AT + SALT_BYTES].copy_from_slice(salt);
        message.add_head(&Head::new(UINT, self.report.number + made));
        message.add(&self.to_head);
        draft.head = message.add(&self.to_use_id);
        message.add_head(&Head::new(TEXT, row.use_id.len() as u64));
        message.add(row.use_id);
        message.add(&self.to_quantities);
        for (quantity, column) in &self.report.amounts {
            message.add_head(&Head::under(*quantity, UINT, number(column)));
        }
        message.add(&self.to_served);
        message.add_head(&Head::new(UINT, number(self.report.served)));
        draft.begun = message.whole_blocks(draft.head);
        draft.state = BEGIN;
    }
}

/// Makes keys of use ids of one scope: `interface.key_of`.
struct Keyed {
    messages: [Message; 2],
}

impl Keyed {
    fn new(scope: &str) -> Self {
        let mut named = vec![0x82, KIND_USE]; // an array of two
        push(&mut named, TEXT, scope.len() as u64, scope.as_bytes());
        let prefix = hash(Message::of(&named).padded());
        let message = Message::of(&prefix[..KEY_PREFIX_BYTES]);
        Keyed { messages: [message.clone(), message] }
    }

    /// What is hashed for a use id.
    fn message(&mut self, which: usize, use_id: &[u8]) {
        let message = &mut self.messages[which];
        message.cut(KEY_PREFIX_BYTES);
        message.add(use_id);
    }

    fn keys(&mut self, rows: &[Row<'_>]) -> Vec<Key> {
        let mut keys = Vec::with_capacity(rows.len());
        for two in rows.chunks(2) {
            for (which, row) in two.iter().enumerate() {
                self.message(which, row.use_id);
            }
            let [one, other] = &mut self.messages;
            let hashes = hash_two(one.padded(), other.padded());
            keys.extend(hashes.iter().take(two.len()).map(key_in));
        }
        keys
    }
}

fn key_in(hash: &Hash) -> Key {
    let (key, _) = hash.split_first_chunk().unwrap_or((&[0; KEY_BYTES], &[]));
    *key
}

/// What `read` finds: a run of records, or a leaf of another kind.
pub enum Item<'a> {
    Run(Run<'a>),
    Other(&'a [u8]),
}

/// `interface.RecordRun`.
pub struct Run<'a> {
    pub scope: &'a str,
    pub first: u64,
    pub count: u64,
    pub previous: &'a [u8],
    pub head: Hash,
    pub calls: u128,
    pub time_ms: u64,
}

/// What is in packed leaves, the first being leaf `index`; stages the keys of records.
pub fn read<'a>(packed: &'a [u8], index: u64, keys: &Shared) -> Result<Vec<Item<'a>>, Refusal> {
    let mut items: Vec<Item<'a>> = Vec::new();
    let (mut wanted, mut indices) = (Vec::new(), Vec::new());
    let mut keyed: Option<(&str, Keyed)> = None;
    let mut message = Message::of(&LEAF);
    for (leaf, index) in unpack(packed).zip(index..) {
        let leaf = leaf?;
        if leaf.get(1..5) != FRONT.get(1..5) {
            items.push(Item::Other(leaf));
            continue;
        }
        let record = parse(leaf)?;
        let maker = match &mut keyed {
            Some((scope, maker)) if *scope == record.scope => maker,
            other => &mut other.insert((record.scope, Keyed::new(record.scope))).1,
        };
        maker.message(0, record.use_id);
        message.cut(LEAF.len());
        message.add(leaf);
        let [head, key] = hash_two(message.padded(), maker.messages[0].padded());
        wanted.push(key_in(&key));
        indices.push(index);
        match items.last_mut() {
            Some(Item::Run(run))
                if run.scope == record.scope
                    && run.first + run.count == record.number
                    && run.head[..] == *record.previous =>
            {
                run.count += 1;
                run.head = head;
                run.calls += u128::from(record.calls);
                run.time_ms = run.time_ms.max(record.time_ms);
            }
            _ => items.push(Item::Run(Run {
                scope: record.scope,
                first: record.number,
                count: 1,
                previous: record.previous,
                head,
                calls: u128::from(record.calls),
                time_ms: record.time_ms,
            })),
        }
    }
    let (found, mut guard) = keys.find_old(&wanted);
    for ((key, index), found) in wanted.iter().zip(indices).zip(found) {
        let known = match found {
            None if !guard.stage_unfound(key, index) => guard.recent(key),
            found => found,
        };
        if known.is_some_and(|known| known != index) {
            return Err("receipt: its use has another one");
        }
    }
    Ok(items)
}

struct Record<'a> {
    scope: &'a str,
    number: u64,
    time_ms: u64,
    previous: &'a [u8],
    use_id: &'a [u8],
    calls: u64,
}

/// A record leaf by every rule of `model.receipt.decode`: fields in their order, every bound.
fn parse(leaf: &[u8]) -> Result<Record<'_>, Refusal> {
    let mut reader = Reader::new(leaf);
    if reader.head(MAP)? != 12 {
        return Err("receipt: a field too many or too few for its kind");
    }
    field(&mut reader, 0, |reader| uint(reader, 1, 1))?;
    field(&mut reader, 1, |reader| uint(reader, KIND_RECORD, KIND_RECORD))?;
    field(&mut reader, 2, |reader| octets(reader, SALT_BYTES))?;
    let scope = field(&mut reader, 3, |reader| text(reader, 1, MAX_TEXT))?;
    let number = field(&mut reader, 4, |reader| uint(reader, 1, MAX_QUANTITY))?;
    let time_ms = field(&mut reader, 5, |reader| uint(reader, 0, MAX_TIME_MS))?;
    let previous = field(&mut reader, 6, |reader| octets(reader, HASH_BYTES))?;
    let use_id = field(&mut reader, 10, |reader| text(reader, 1, MAX_USE_ID))?.as_bytes();
    field(&mut reader, 14, |reader| text(reader, 0, MAX_TEXT))?;
    let calls = field(&mut reader, 19, quantities)?;
    field(&mut reader, 21, |reader| text(reader, 1, MAX_REPORTER))?;
    field(&mut reader, 22, |reader| uint(reader, 0, MAX_TIME_MS))?;
    if !reader.is_empty() {
        return Err("receipt: bytes after the end");
    }
    if (number == 1) != (previous == NO_PREVIOUS) {
        return Err("receipt: number 1, and only it, follows none");
    }
    if !use_id.iter().all(u8::is_ascii_graphic) {
        return Err("receipt: a use id must be visible ASCII characters");
    }
    Ok(Record { scope, number, time_ms, previous, use_id, calls })
}

/// A field with this key.
fn field<'a, T>(
    reader: &mut Reader<'a>,
    key: u64,
    value: impl FnOnce(&mut Reader<'a>) -> Result<T, Refusal>,
) -> Result<T, Refusal> {
    if reader.head(UINT)? != key {
        return Err("receipt: a field too many or too few for its kind");
    }
    value(reader)
}

fn uint(reader: &mut Reader<'_>, low: u64, high: u64) -> Result<u64, Refusal> {
    let value = reader.head(UINT)?;
    (low..=high).contains(&value).then_some(value).ok_or("receipt: a number out of its bounds")
}

fn octets<'a>(reader: &mut Reader<'a>, size: usize) -> Result<&'a [u8], Refusal> {
    let value = reader.bytes()?;
    (value.len() == size).then_some(value).ok_or("receipt: a field has a wrong length")
}

/// Text of so many characters.
fn text<'a>(reader: &mut Reader<'a>, least: usize, most: usize) -> Result<&'a str, Refusal> {
    let value = reader.text()?;
    let characters = if value.len() <= most { value.len() } else { value.chars().count() };
    (characters >= least && characters <= most)
        .then_some(value)
        .ok_or("receipt: a text too long, or empty")
}

/// The calls in the map of amounts.
fn quantities(reader: &mut Reader<'_>) -> Result<u64, Refusal> {
    let (mut last, mut calls) = (0, 0);
    for _ in 0..reader.head(MAP)? {
        let quantity = uint(reader, last + 1, LAST_QUANTITY)?;
        let amount = uint(reader, 0, MAX_QUANTITY)?;
        if quantity == u64::from(CALLS) {
            calls = amount;
        }
        last = quantity;
    }
    if calls == 0 {
        return Err("receipt: a record is of one call at least");
    }
    Ok(calls)
}
