//! Record leaves (docs/evidence.md, section 2): made of the columns of a report, and read back.

use crate::cbor::{head_size, push, write_head, Reader, BYTES, MAP, TEXT, UINT};
use crate::keys::Shared;
use crate::leaves::{leaf_hash, unpack, Hash, Refusal, HASH_BYTES};
use sha2::{Digest, Sha256};

const KIND_USE: u64 = 1; // in keys: use and record leaves share their use ids
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
const KEY_BYTES: usize = 10;
const NO_PREVIOUS: Hash = [0; HASH_BYTES];

/// How a record leaf begins: a map of 12, version 1, kind 2, the head of the salt.
const BEGIN: [u8; 7] = [0xac, 0, 1, 1, KIND_RECORD as u8, 2, 0x40 | SALT_BYTES as u8];

// Faults, as `interface.Fault` numbers them.
const MALFORMED: u8 = 1;
const OUT_OF_TIME: u8 = 2;
const DUPLICATE: u8 = 3;
const EXHAUSTED: u8 = 4;

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

/// What becomes of each row. `size`: bytes that the packed leaves take.
pub struct Plan<'a> {
    made: Vec<Row<'a>>,
    parts: Parts,
    pub size: usize,
    pub calls: u128,
    pub refused: Vec<(usize, u8)>,
}

struct Row<'a> {
    row: usize,
    use_id: &'a [u8],
}

/// What is the same in all leaves of a report, between the parts that are not.
struct Parts {
    number: Vec<u8>,     // before the number: scope
    head: Vec<u8>,       // before the hash of the leaf before: time
    quantities: Vec<u8>, // before the amounts: purpose
    served: Vec<u8>,     // before the time served: reporter
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
        self.running.contains(&use_id).then_some(DUPLICATE)
    }

    fn parts(&self) -> Parts {
        let mut parts =
            Parts { number: vec![3], head: vec![5], quantities: vec![14], served: vec![21] };
        push(&mut parts.number, TEXT, self.scope.len() as u64, self.scope.as_bytes());
        push(&mut parts.number, UINT, 4, &[]);
        push(&mut parts.head, UINT, self.time_ms, &[]);
        push(&mut parts.head, UINT, 6, &[]);
        push(&mut parts.head, BYTES, HASH_BYTES as u64, &[]);
        push(&mut parts.quantities, TEXT, self.purpose.len() as u64, self.purpose.as_bytes());
        push(&mut parts.quantities, UINT, 19, &[]);
        push(&mut parts.quantities, MAP, self.amounts.len() as u64, &[]);
        push(&mut parts.served, TEXT, self.reporter.len() as u64, self.reporter.as_bytes());
        push(&mut parts.served, UINT, 22, &[]);
        parts
    }
}

/// Decide about every row, in order, and stage the keys of those that become leaves.
pub fn plan<'a>(report: &Report<'a>, keys: &Shared) -> Result<Plan<'a>, Refusal> {
    let keyed = Keyed::new(report.scope);
    let rows = report.served.len() / NUMBER_BYTES;
    let mut sound = Vec::with_capacity(rows);
    let mut wanted = Vec::with_capacity(rows);
    let mut refused = Vec::new();
    for (row, use_id) in report.use_ids.split(|byte| *byte == b'\n').enumerate() {
        match report.fault(row, use_id) {
            Some(fault) => refused.push((row, fault)),
            None => {
                sound.push(Row { row, use_id });
                wanted.push(keyed.key(use_id));
            }
        }
    }
    let parts = report.parts();
    let constant = BEGIN.len() + SALT_BYTES + HASH_BYTES + parts.size();
    let (mut left, mut calls, mut size) = (report.left, 0, 0);
    let mut made = Vec::with_capacity(sound.len());
    let mut guard = keys.lock();
    let found = guard.find_all(&wanted);
    for ((candidate, key), found) in sound.into_iter().zip(&wanted).zip(found) {
        let row = candidate.row;
        let amount = u128::from(report.calls(row));
        let fits = left.is_none_or(|left| amount <= left);
        if found.is_some() || (!fits && guard.recent(key).is_some()) {
            refused.push((row, DUPLICATE));
        } else if !fits {
            refused.push((row, EXHAUSTED));
        } else if !guard.stage(key, report.index + made.len() as u64) {
            refused.push((row, DUPLICATE));
        } else {
            left = left.map(|left| left - amount);
            calls += amount;
            made.push(candidate);
            let number = report.number + made.len() as u64;
            size += 2 + constant + varying(report, &made[made.len() - 1], number);
        }
    }
    drop(guard);
    refused.sort_unstable();
    Ok(Plan { made, parts, size, calls, refused })
}

/// How many bytes of a leaf depend on its row.
fn varying(report: &Report<'_>, row: &Row<'_>, number: u64) -> usize {
    let uint = |column| head_size(Report::number_at(column, row.row));
    let amounts: usize = report.amounts.iter().map(|(_, column)| 1 + uint(column)).sum();
    let use_id = 1 + head_size(row.use_id.len() as u64) + row.use_id.len();
    head_size(number) + use_id + amounts + uint(report.served)
}

impl Parts {
    fn size(&self) -> usize {
        self.number.len() + self.head.len() + self.quantities.len() + self.served.len()
    }
}

/// Write the packed leaves of a plan, which fill `out`. Returns their hashes, and the last one.
pub fn write(
    report: &Report<'_>,
    plan: &Plan<'_>,
    out: &mut [u8],
) -> Result<(Vec<u8>, Hash), Refusal> {
    let parts = &plan.parts;
    let mut hashes = Vec::with_capacity(plan.made.len() * HASH_BYTES);
    let (mut head, mut number, mut start) = (report.head, report.number, 0);
    for Row { row, use_id } in &plan.made {
        number += 1;
        let salt = &report.salts[row * SALT_BYTES..][..SALT_BYTES];
        let mut at = start + 2;
        at = put(out, at, &BEGIN);
        at = put(out, at, salt);
        at = put(out, at, &parts.number);
        at = write_head(out, at, UINT, number);
        at = put(out, at, &parts.head);
        at = put(out, at, &head);
        at = put(out, at, &[10]);
        at = write_head(out, at, TEXT, use_id.len() as u64);
        at = put(out, at, use_id);
        at = put(out, at, &parts.quantities);
        for (quantity, column) in &report.amounts {
            at = put(out, at, &[*quantity]);
            at = write_head(out, at, UINT, Report::number_at(column, *row));
        }
        at = put(out, at, &parts.served);
        at = write_head(out, at, UINT, Report::number_at(report.served, *row));
        let size = u16::try_from(at - start - 2).map_err(|_| "report: a leaf too large")?;
        out[start..start + 2].copy_from_slice(&size.to_be_bytes());
        head = leaf_hash(&out[start + 2..at]);
        hashes.extend_from_slice(&head);
        start = at;
    }
    Ok((hashes, head))
}

#[inline]
fn put(out: &mut [u8], at: usize, bytes: &[u8]) -> usize {
    let end = at + bytes.len();
    out[at..end].copy_from_slice(bytes);
    end
}

/// Makes keys of use ids of one scope: `interface.key_of`.
struct Keyed {
    begun: Sha256,
}

impl Keyed {
    fn new(scope: &str) -> Self {
        let mut begin = vec![0x83]; // an array of 3
        push(&mut begin, UINT, KIND_USE, &[]);
        push(&mut begin, TEXT, scope.len() as u64, scope.as_bytes());
        Keyed { begun: Sha256::new_with_prefix(begin) }
    }

    fn key(&self, use_id: &[u8]) -> [u8; KEY_BYTES] {
        let mut head = [0; 2];
        let end = write_head(&mut head, 0, TEXT, use_id.len() as u64);
        let digest = self.begun.clone().chain_update(&head[..end]).chain_update(use_id).finalize();
        let mut key = [0; KEY_BYTES];
        key.copy_from_slice(&digest[..KEY_BYTES]);
        key
    }
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
    for (leaf, index) in unpack(packed).zip(index..) {
        let leaf = leaf?;
        if leaf.get(1..5) != BEGIN.get(1..5) {
            items.push(Item::Other(leaf));
            continue;
        }
        let record = parse(leaf)?;
        let maker = match &mut keyed {
            Some((scope, maker)) if *scope == record.scope => maker,
            other => &mut other.insert((record.scope, Keyed::new(record.scope))).1,
        };
        wanted.push(maker.key(record.use_id));
        indices.push(index);
        let head = leaf_hash(leaf);
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
    let mut guard = keys.lock();
    let found = guard.find_all(&wanted);
    for ((key, index), found) in wanted.iter().zip(indices).zip(found) {
        let known = match found {
            None if !guard.stage(key, index) => guard.recent(key),
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
