//! Files of keys: `connector/core/keyfiles.py` says what is in them; these are the same bytes.
//!
//! Look-ups read a mapping of the file, everything else reads the file. Whatever a file holds,
//! reading it does no harm. Errors are `io::Error`; one of kind `InvalidData` says that the file
//! is not what it should be.

use memmap2::{Advice, Mmap, UncheckedAdvice};
use sha2::{Digest, Sha256};
use std::fs::{self, File, OpenOptions};
use std::hint::black_box;
use std::io::{self, ErrorKind};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

pub const KEY_BYTES: usize = 10;
pub type Key = [u8; KEY_BYTES];
pub const MAX_INDEX: u64 = (1 << 48) - 2; // of a leaf
pub const INDEX_MASK: u128 = (1 << 48) - 1;

const VERSION: u64 = 1;
const HEADER_BYTES: usize = 128;
const FIELD_BYTES: usize = 112; // of the header; its check is behind them
const LINE_BYTES: usize = 64;
const LINE_KEYS: u64 = 24;
const ENTRY_BYTES: usize = 16;
const WORDS: usize = 7; // of a filter
const MAGIC: &[u8; 8] = b"tds-keys";
const SYNC_BYTES: usize = 1 << 20; // written between syncs
const MAX_PAUSE: Duration = Duration::from_millis(50); // after one
const BUFFER_BYTES: usize = 1 << 20;
const PAGE_BYTES: usize = 4096;
const UNMAP_BYTES: usize = 4 << 20;

/// A key as a number, of 80 bits; an entry is that, and 48 bits of the leaf's index.
pub fn number_of(key: &Key) -> u128 {
    key.iter().fold(0, |number, byte| number << 8 | u128::from(*byte))
}

/// The name of the run of leaves `first` to `end - 1`.
pub fn file_name(first: u64, end: u64) -> String {
    format!("{first:015}-{end:015}.keys")
}

fn invalid(what: &str) -> io::Error {
    io::Error::new(ErrorKind::InvalidData, format!("key file: {what}"))
}

fn line_of(number: u128, lines: u64) -> u64 {
    (((number >> 16) * u128::from(lines)) >> 64) as u64
}

fn word_bit(number: u128, word: usize) -> u64 {
    1 << ((number >> (6 * word)) & 63)
}

fn u64_at(data: &[u8], at: usize) -> u64 {
    u64::from_be_bytes(data[at..at + 8].try_into().unwrap())
}

/// Entries from their bytes.
pub fn entries_of(bytes: &[u8]) -> impl Iterator<Item = u128> + '_ {
    bytes.chunks_exact(ENTRY_BYTES).map(|entry| u128::from_be_bytes(entry.try_into().unwrap()))
}

/// A run's file, open.
pub struct Run {
    pub path: PathBuf,
    pub first: u64,
    pub end: u64,
    pub count: u64,
    pub entries_digest: [u8; 32],
    lines: u64,
    lines_digest: [u8; 32],
    entries: usize, // where they begin
    data: Mmap,
    file: File,
}

impl Run {
    #[allow(unsafe_code)]
    pub fn open(path: &Path) -> io::Result<Run> {
        let file = File::open(path)?;
        let size = file.metadata()?.len();
        let mut header = [0u8; HEADER_BYTES];
        if size < HEADER_BYTES as u64 {
            return Err(invalid("it ends early"));
        }
        file.read_exact_at(&mut header, 0)?;
        let check = Sha256::digest(&header[..FIELD_BYTES]);
        if &header[..8] != MAGIC
            || u64_at(&header, 8) != VERSION
            || check[..HEADER_BYTES - FIELD_BYTES] != header[FIELD_BYTES..]
        {
            return Err(invalid("its header is not one"));
        }
        let [first, end, count, lines] = [16, 24, 32, 40].map(|at| u64_at(&header, at));
        let name = path.file_name().and_then(|name| name.to_str());
        if first >= end || end > MAX_INDEX + 1 || name != Some(&file_name(first, end)) {
            return Err(invalid("its name is another file's"));
        }
        let expected = HEADER_BYTES as u128
            + LINE_BYTES as u128 * u128::from(lines)
            + ENTRY_BYTES as u128 * u128::from(count);
        if lines == 0 || u128::from(size) != expected {
            return Err(invalid("it has another size than it should"));
        }
        // SAFETY: files are written under another name and never changed under this one; a node's
        // folder belongs to one process. Bytes that change would be read as other bytes.
        let data = unsafe { Mmap::map(&file)? };
        data.advise(Advice::Random)?;
        Ok(Run {
            path: path.to_path_buf(),
            first,
            end,
            count,
            entries_digest: header[80..112].try_into().unwrap(),
            lines,
            lines_digest: header[48..80].try_into().unwrap(),
            entries: HEADER_BYTES + LINE_BYTES * lines as usize,
            data,
            file,
        })
    }

    /// Have the lines in memory before somebody waits for them.
    pub fn touch(&self) {
        for at in (0..self.entries).step_by(PAGE_BYTES) {
            black_box(self.data[at]);
        }
    }

    /// Whether the key can be there. Without a branch, so that waiting for one key's line goes
    /// on while the next one is asked for.
    #[inline]
    pub fn may_hold(&self, number: u128) -> bool {
        let at = HEADER_BYTES + line_of(number, self.lines) as usize * LINE_BYTES;
        let line: &[u8; LINE_BYTES] = self.data[at..at + LINE_BYTES].try_into().unwrap();
        let mut missing = 0;
        for word in 0..WORDS {
            let at = 8 + 8 * word;
            let bits = u64::from_le_bytes(line[at..at + 8].try_into().unwrap());
            missing |= word_bit(number, word) & !bits;
        }
        missing == 0
    }

    /// The leaf's index of a key that can be there.
    pub fn search(&self, number: u128) -> Option<u64> {
        let line = line_of(number, self.lines);
        let at = self.lower_bound(line, |entry| entry >> 48 < number)?;
        let entry = self.entry(at);
        (entry >> 48 == number).then_some((entry & INDEX_MASK) as u64)
    }

    /// How many entries have a key whose first 8 bytes are below `bound`, 0 to 2**64.
    pub fn rank(&self, bound: u128) -> u64 {
        let line = ((bound * u128::from(self.lines)) >> 64) as u64;
        self.lower_bound(line, |entry| entry >> 64 < bound).unwrap_or(self.count)
    }

    /// The bytes of entries `start` to `stop - 1`.
    pub fn read(&self, start: u64, stop: u64, bytes: &mut Vec<u8>) -> io::Result<()> {
        bytes.resize(stop.saturating_sub(start) as usize * ENTRY_BYTES, 0);
        self.file.read_exact_at(bytes, self.entries as u64 + start * ENTRY_BYTES as u64)
    }

    /// Whether lines and entries are those that were written. Reads all of the file.
    pub fn is_sound(&self) -> bool {
        let (middle, end) = (self.entries as u64, self.data.len() as u64);
        matches!(self.digest(HEADER_BYTES as u64, middle), Ok(found) if found == self.lines_digest)
            && matches!(self.digest(middle, end), Ok(found) if found == self.entries_digest)
    }

    fn digest(&self, start: u64, stop: u64) -> io::Result<[u8; 32]> {
        let mut digest = Sha256::new();
        let mut bytes = vec![0; BUFFER_BYTES];
        let mut at = start;
        while at < stop {
            let part = &mut bytes[..BUFFER_BYTES.min((stop - at) as usize)];
            self.file.read_exact_at(part, at)?;
            digest.update(&*part);
            at += part.len() as u64;
        }
        Ok(digest.finalize().into())
    }

    /// The first entry of a line, or after it, that is not `below`; none behind the last entry.
    fn lower_bound(&self, line: u64, below: impl Fn(u128) -> bool) -> Option<u64> {
        let (mut low, mut high) = (self.start(line), self.start(line + 1));
        while low < high {
            let middle = (low + high) / 2;
            if below(self.entry(middle)) {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        (low < self.count).then_some(low)
    }

    /// The number of entries before a line's own; never more than there are.
    fn start(&self, line: u64) -> u64 {
        if line >= self.lines {
            return self.count;
        }
        u64_at(&self.data, HEADER_BYTES + line as usize * LINE_BYTES).min(self.count)
    }

    fn entry(&self, number: u64) -> u128 {
        let at = self.entries + number as usize * ENTRY_BYTES;
        u128::from_be_bytes(self.data[at..at + ENTRY_BYTES].try_into().unwrap())
    }
}

impl Drop for Run {
    /// A piece at a time: while a large mapping is undone at once, nobody else in the process gets
    /// or gives back memory, for a tenth of a second.
    #[allow(unsafe_code)]
    fn drop(&mut self) {
        for at in (0..self.data.len()).step_by(UNMAP_BYTES) {
            let size = UNMAP_BYTES.min(self.data.len() - at);
            // SAFETY: the mapping is only read; what is read after this comes from the file again.
            let _ =
                unsafe { self.data.unchecked_advise_range(UncheckedAdvice::DontNeed, at, size) };
        }
    }
}

/// Writes the run of leaves `first` to `end - 1`, of at most `planned` keys.
///
/// The file has its name once `finish` returns, and is durable then. Dropped before, it leaves
/// nothing.
pub struct RunWriter {
    folder: PathBuf,
    path: PathBuf,
    file: File,
    first: u64,
    end: u64,
    lines: u64,
    count: u64,
    last: Option<u128>,
    line: u64, // the one under way, with the entries before it and its filter
    before: u64,
    filter: [u64; WORDS],
    line_part: Part,
    entry_part: Part,
}

impl RunWriter {
    pub fn create(folder: &Path, first: u64, end: u64, planned: u64) -> io::Result<RunWriter> {
        let path = folder.join(format!("{}.new", file_name(first, end)));
        let mut options = OpenOptions::new();
        let file = options.write(true).create(true).truncate(true).mode(0o600).open(&path)?;
        let lines = planned.div_ceil(LINE_KEYS).max(1);
        Ok(RunWriter {
            folder: folder.to_path_buf(),
            path,
            file,
            first,
            end,
            lines,
            count: 0,
            last: None,
            line: 0,
            before: 0,
            filter: [0; WORDS],
            line_part: Part::at(HEADER_BYTES as u64),
            entry_part: Part::at(HEADER_BYTES as u64 + LINE_BYTES as u64 * lines),
        })
    }

    /// Entries that follow those added before, ascending. Of a key's only the first counts.
    pub fn add(&mut self, entries: &[u128]) -> io::Result<()> {
        for entry in entries {
            let number = entry >> 48;
            match self.last {
                Some(last) if number == last => continue,
                Some(last) if number < last => return Err(invalid("its entries do not ascend")),
                _ => self.last = Some(number),
            }
            let line = line_of(number, self.lines);
            if line != self.line {
                self.end_lines(line)?;
            }
            for word in 0..WORDS {
                self.filter[word] |= word_bit(number, word);
            }
            self.entry_part.write(&self.file, &entry.to_be_bytes())?;
            self.count += 1;
        }
        Ok(())
    }

    /// Durable under its name; the run.
    pub fn finish(mut self) -> io::Result<Run> {
        self.end_lines(self.lines)?;
        let lines_digest = self.line_part.finish(&self.file)?;
        let entries_digest = self.entry_part.finish(&self.file)?;
        let mut header = Vec::with_capacity(HEADER_BYTES);
        header.extend_from_slice(MAGIC);
        for field in [VERSION, self.first, self.end, self.count, self.lines] {
            header.extend_from_slice(&field.to_be_bytes());
        }
        header.extend_from_slice(&lines_digest);
        header.extend_from_slice(&entries_digest);
        let check = Sha256::digest(&header);
        header.extend_from_slice(&check[..HEADER_BYTES - FIELD_BYTES]);
        self.file.write_all_at(&header, 0)?;
        self.file.sync_all()?;
        let path = self.folder.join(file_name(self.first, self.end));
        fs::rename(&self.path, &path)?;
        File::open(&self.folder)?.sync_all()?;
        let run = Run::open(&path)?;
        run.touch();
        Ok(run)
    }

    /// The line under way is complete, and so are those up to `line`, which are empty.
    fn end_lines(&mut self, line: u64) -> io::Result<()> {
        while self.line < line {
            self.line_part.write(&self.file, &self.before.to_be_bytes())?;
            for word in self.filter {
                self.line_part.write(&self.file, &word.to_le_bytes())?;
            }
            self.line += 1;
            self.before = self.count;
            self.filter = [0; WORDS];
        }
        Ok(())
    }
}

impl Drop for RunWriter {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path); // not there any more, if it was finished
    }
}

/// A part of a file that is written front to back, with its SHA-256.
struct Part {
    offset: u64,
    unsynced: usize,
    begun: Instant, // since the last sync
    buffer: Vec<u8>,
    digest: Sha256,
}

impl Part {
    fn at(offset: u64) -> Part {
        let buffer = Vec::with_capacity(BUFFER_BYTES + LINE_BYTES);
        Part { offset, unsynced: 0, begun: Instant::now(), buffer, digest: Sha256::new() }
    }

    #[inline]
    fn write(&mut self, file: &File, data: &[u8]) -> io::Result<()> {
        self.buffer.extend_from_slice(data);
        if self.buffer.len() >= BUFFER_BYTES {
            self.flush(file)?;
        }
        Ok(())
    }

    fn finish(&mut self, file: &File) -> io::Result<[u8; 32]> {
        self.flush(file)?;
        Ok(self.digest.finalize_reset().into())
    }

    fn flush(&mut self, file: &File) -> io::Result<()> {
        self.digest.update(&self.buffer);
        file.write_all_at(&self.buffer, self.offset)?;
        self.offset += self.buffer.len() as u64;
        self.unsynced += self.buffer.len();
        self.buffer.clear();
        if self.unsynced >= SYNC_BYTES {
            file.sync_data()?;
            self.unsynced = 0;
            // The disk belongs to the log's commits: as much time to them as was taken here.
            thread::sleep(self.begun.elapsed().min(MAX_PAUSE));
            self.begun = Instant::now();
        }
        Ok(())
    }
}
