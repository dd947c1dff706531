//! Which use has which leaf: `connector/core/keys.py` says how it works; this does the same.
//!
//! Everything is behind one mutex, which is held for look-ups in memory, or a change that takes no
//! longer. Files are read without it. Threads in the background hold it to put a finished run in
//! its place. Nobody holds the interpreter while waiting for it. Groups that wait for their commit
//! have a mutex of their own.

use crate::keyfiles::{entries_of, number_of, Key, Run, RunWriter, INDEX_MASK, MAX_INDEX};
use crate::table::Table;
use crate::InternalError;
use pyo3::prelude::*;
use sha2::{Digest, Sha256};
use std::collections::VecDeque;
use std::fs::{self, DirBuilder};
use std::io::{self, ErrorKind};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};

const FREEZE_AT: usize = 1 << 20; // keys
const LATE_AT: usize = 3 << 20; // while earlier ones are still being written
const SMALL_SLOTS: usize = 1 << 12; // of the first table; it grows once
const MIDDLE_SLOTS: usize = 1 << 17; // to this, as growing takes time; then another is begun
const LARGE_SLOTS: usize = 1 << 21; // 32 MiB; one fills while another is written
#[cfg(target_os = "linux")]
const NICE: i32 = 15; // the threads that write files let all others go first
const MERGE_STEP: u64 = 1 << 13; // entries that a merge has at hand

/// Where keys are, oldest first: `runs`, tables that a freeze took, tables that grow (the last).
struct State {
    runs: Vec<Arc<Run>>,
    frozen: Vec<Arc<Table>>,
    memory: Vec<Table>,
    spare: Option<Table>, // a large one, empty, whose memory the system need not find again
    staged: Vec<u128>,
    merging: bool,
    damaged: Option<u64>, // first leaf of a run that is not what was written
    trouble: String,
}

impl State {
    fn of(runs: Vec<Arc<Run>>) -> State {
        State {
            runs,
            frozen: Vec::new(),
            memory: vec![Table::with_slots(SMALL_SLOTS)],
            spare: None,
            staged: Vec::new(),
            merging: false,
            damaged: None,
            trouble: String::new(),
        }
    }

    fn end(&self) -> u64 {
        self.runs.last().map_or(0, |run| run.end)
    }

    fn covered(&self) -> u64 {
        self.damaged.unwrap_or(u64::MAX).min(self.end())
    }

    fn recent(&self, number: u128) -> Option<u64> {
        self.memory.iter().find_map(|table| table.find(number))
    }

    /// False if the key is in one of the tables in memory, of which those before `from` were
    /// looked at.
    fn stage(&mut self, number: u128, index: u64, from: usize) -> bool {
        if self.memory.last().is_none_or(Table::is_full) {
            self.grow();
        }
        let Some((last, others)) = self.memory.split_last_mut() else { return false };
        let others = others.iter().skip(from);
        if others.filter_map(|table| table.find(number)).next().is_some() {
            return false;
        }
        if !last.insert(number, index) {
            return false;
        }
        self.staged.push(number);
        true
    }

    /// Room in the last table.
    fn grow(&mut self) {
        match self.memory.last_mut() {
            Some(table) if table.capacity() == SMALL_SLOTS => {
                let mut next = Table::with_slots(MIDDLE_SLOTS);
                for entry in table.entries() {
                    let _ = next.insert(entry >> 48, (entry & INDEX_MASK) as u64);
                }
                *table = next;
            }
            _ => {
                let large = self.spare.take();
                self.memory.push(large.unwrap_or_else(|| Table::with_slots(LARGE_SLOTS)));
            }
        }
    }

    fn unstage(&mut self) {
        for number in self.staged.drain(..) {
            self.memory.iter_mut().for_each(|table| table.remove(number));
        }
    }

    /// The runs from leaf `after` on that are due for a merge; `keys.first_due` says which.
    fn due(&self, after: u64) -> Vec<Arc<Run>> {
        let runs: Vec<_> = self.runs.iter().filter(|run| run.first >= after).collect();
        let (mut due, mut newer) = (runs.len(), 0);
        for (at, run) in runs.iter().enumerate().rev() {
            if newer > 0 && 3 * (run.count + 1) <= newer {
                due = at;
            }
            newer += run.count + 1;
        }
        runs[due..].iter().map(|run| Arc::clone(run)).collect()
    }
}

/// The map, as other native code has it.
pub struct Shared {
    folder: PathBuf,
    state: Mutex<State>,
    /// Groups, the oldest first. Taken alone, or after the other mutex: whoever settles need not
    /// wait for look-ups.
    sealed: Mutex<VecDeque<Vec<u128>>>,
    stopping: AtomicBool,
    news: AtomicBool, // a run was added: a merge need not take the mutex to see that none was
    writer: Mutex<Option<JoinHandle<()>>>,
    merger: Mutex<Option<JoinHandle<()>>>,
}

/// The map while nobody else reads or changes it.
pub struct Guard<'a> {
    state: MutexGuard<'a, State>,
    looked: usize, // tables in memory that `find_old` looked at: all but the last
    _searched: Vec<Arc<Run>>, // let go after the mutex: closing a file takes a while
}

impl Guard<'_> {
    /// The leaf's index, of a key that was staged, or settled after the last freeze.
    pub fn recent(&self, key: &Key) -> Option<u64> {
        self.state.recent(number_of(key))
    }

    /// Add a key of a leaf that is about to be committed. False if `recent` has it: that stays.
    pub fn stage(&mut self, key: &Key, index: u64) -> bool {
        self.state.stage(number_of(key), index, 0)
    }

    /// As `stage`, of a key that `find_old` has just not found.
    pub fn stage_unfound(&mut self, key: &Key, index: u64) -> bool {
        let looked = self.looked;
        self.state.stage(number_of(key), index, looked)
    }
}

impl Shared {
    fn open(folder: &Path) -> io::Result<Arc<Shared>> {
        DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
        let runs = open_runs(folder)?;
        Ok(Arc::new(Shared {
            folder: folder.to_path_buf(),
            state: Mutex::new(State::of(runs)),
            sealed: Mutex::default(),
            stopping: AtomicBool::new(false),
            news: AtomicBool::new(false),
            writer: Mutex::new(None),
            merger: Mutex::new(None),
        }))
    }

    /// Call it without the interpreter.
    pub fn lock(&self) -> Guard<'_> {
        Guard { state: self.state(), looked: 0, _searched: Vec::new() }
    }

    /// The leaf's index. Call it without the interpreter.
    pub fn find(&self, key: &Key) -> Option<u64> {
        let (found, guard) = self.find_old(std::slice::from_ref(key));
        found[0].or_else(|| guard.recent(key))
    }

    /// As `find`, for many, but for the table that keys are added to, which `stage_unfound` looks
    /// into: waiting for memory and disk overlaps. What was found, and the map while that holds.
    pub fn find_old(&self, keys: &[Key]) -> (Vec<Option<u64>>, Guard<'_>) {
        let numbers: Vec<u128> = keys.iter().map(number_of).collect();
        let mut found = vec![None; keys.len()];
        let (state, searched) = self.search(&numbers, &mut found);
        let looked = state.memory.len() - 1;
        let tables = state.frozen.iter().map(Arc::as_ref).chain(&state.memory[..looked]);
        for table in tables.filter(|table| table.len > 0) {
            table.touch(&numbers);
            for (found, number) in found.iter_mut().zip(&numbers) {
                *found = found.or_else(|| table.find(*number));
            }
        }
        state.memory[looked].touch(&numbers);
        (found, Guard { state, looked, _searched: searched })
    }

    /// Look into all runs, without the mutex: a page that is not in memory is waited for. Those
    /// that came meanwhile are looked into afterwards, until none did. They have what older ones
    /// had, or what was in memory.
    fn search(
        &self,
        numbers: &[u128],
        found: &mut [Option<u64>],
    ) -> (MutexGuard<'_, State>, Vec<Arc<Run>>) {
        let mut searched: Vec<Arc<Run>> = Vec::new();
        let mut candidates = Vec::new();
        loop {
            let state = self.state();
            let is_new = |run: &&Arc<Run>| !searched.iter().any(|old| Arc::ptr_eq(old, run));
            let new: Vec<_> = state.runs.iter().filter(is_new).map(Arc::clone).collect();
            if new.is_empty() {
                return (state, searched);
            }
            drop(state);
            for run in &new {
                candidates.clear();
                for (row, number) in numbers.iter().enumerate() {
                    if run.may_hold(*number) {
                        candidates.push(row);
                    }
                }
                for row in &candidates {
                    found[*row] = found[*row].or_else(|| run.search(numbers[*row]));
                }
            }
            searched.extend(new);
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn sealed(&self) -> MutexGuard<'_, VecDeque<Vec<u128>>> {
        self.sealed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn pending(&self) -> usize {
        let state = self.state();
        let staged = state.staged.len() + self.sealed().iter().map(Vec::len).sum::<usize>();
        state.memory.iter().map(|table| table.len).sum::<usize>() - staged
    }

    fn seal(&self) {
        let mut state = self.state();
        let staged = std::mem::take(&mut state.staged);
        self.sealed().push_back(staged);
    }

    /// The oldest sealed group was committed; if none is sealed, all that is staged was.
    fn settle(&self) {
        let settled = self.sealed().pop_front();
        if settled.is_none() {
            self.state().staged.clear();
        }
    }

    fn discard(&self) {
        let mut state = self.state();
        let sealed = std::mem::take(&mut *self.sealed());
        state.staged.extend(sealed.into_iter().flatten());
        state.unstage();
    }

    pub fn freeze(self: &Arc<Self>, size: u64) -> Result<(), &'static str> {
        self.wait();
        let mut state = self.state();
        if !state.staged.is_empty() || !self.sealed().is_empty() {
            return Err("keys: frozen while some are staged");
        }
        let first = state.end();
        if size <= first {
            return Ok(());
        }
        let next = state.spare.take().unwrap_or_else(|| Table::with_slots(SMALL_SLOTS));
        let memory = std::mem::replace(&mut state.memory, vec![next]);
        state.frozen.extend(memory.into_iter().filter(|table| table.len > 0).map(Arc::new));
        let tables = state.frozen.clone();
        drop(state);
        let shared = Arc::clone(self);
        self.start(&self.writer, "keys-write", move || shared.write(first, size, tables));
        Ok(())
    }

    fn start(
        &self,
        place: &Mutex<Option<JoinHandle<()>>>,
        name: &str,
        job: impl FnOnce() + Send + 'static,
    ) -> bool {
        let beside = move || {
            #[cfg(target_os = "linux")] // elsewhere it would be the whole process
            let _ = rustix::process::nice(NICE);
            job();
        };
        match thread::Builder::new().name(name.to_string()).spawn(beside) {
            Ok(thread) => {
                *place.lock().unwrap_or_else(PoisonError::into_inner) = Some(thread);
                true
            }
            Err(error) => {
                self.state().trouble = format!("key files cannot be written: {error}");
                false
            }
        }
    }

    fn wait(&self) {
        join(&self.writer);
    }

    fn is_writing(&self) -> bool {
        let writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        writer.as_ref().is_some_and(|thread| !thread.is_finished())
    }

    fn sound(&self) -> u64 {
        let runs = self.state().runs.clone();
        let sound = runs.iter().take_while(|run| run.is_sound()).last();
        sound.map_or(0, |run| run.end)
    }

    fn clear(&self) -> io::Result<()> {
        self.close();
        self.sealed().clear();
        let state = std::mem::replace(&mut *self.state(), State::of(Vec::new()));
        self.stopping.store(false, Ordering::Relaxed);
        // The newest first: what a crash leaves reaches from leaf 0 to somewhere.
        state.runs.iter().rev().try_for_each(|run| remove(&run.path))
    }

    fn close(&self) {
        self.wait();
        self.stopping.store(true, Ordering::Relaxed);
        join(&self.merger);
    }

    /// Thread: a run of all keys of the tables.
    fn write(self: Arc<Self>, first: u64, end: u64, tables: Vec<Arc<Table>>) {
        let written = write_run(&self.folder, first, end, &tables);
        drop(tables);
        let mut state = self.state();
        match written {
            Err(error) => state.trouble = format!("key files cannot be written: {error}"),
            Ok(run) => {
                state.runs.push(Arc::new(run));
                self.news.store(true, Ordering::Relaxed);
                let frozen = std::mem::take(&mut state.frozen);
                if state.damaged.is_none() {
                    state.trouble.clear();
                }
                let idle = !std::mem::replace(&mut state.merging, true);
                drop(state);
                self.keep_spare(frozen);
                if idle {
                    join(&self.merger);
                    let shared = Arc::clone(&self);
                    if !self.start(&self.merger, "keys-merge", move || shared.merge_all()) {
                        self.state().merging = false;
                    }
                }
            }
        }
    }

    /// Keep the memory of one large table for the next one.
    fn keep_spare(&self, tables: Vec<Arc<Table>>) {
        let mut tables = tables.into_iter().filter_map(Arc::into_inner);
        let large = tables.find(|table| table.capacity() == LARGE_SLOTS);
        if let Some(mut table) = large {
            table.clear();
            self.state().spare = Some(table);
        }
    }

    /// Thread: merge until nothing is due, or it does not work.
    fn merge_all(&self) {
        loop {
            let done = self.tidy(0);
            let mut state = self.state();
            if !done || state.due(0).is_empty() {
                state.merging = false;
                return;
            }
        }
    }

    /// Merge what is due of the runs of leaf `after` and later. False if that failed or was
    /// stopped.
    fn tidy(&self, after: u64) -> bool {
        loop {
            let state = self.state();
            if state.damaged.is_some() || self.stopping.load(Ordering::Relaxed) {
                return false;
            }
            let due = state.due(after);
            drop(state);
            if due.is_empty() {
                return true;
            }
            match self.merge(&due) {
                Ok(true) => {}
                Ok(false) => return false,
                Err(error) => {
                    self.state().trouble = format!("key files cannot be merged: {error}");
                    self.look_for_damage(&due);
                    return false;
                }
            }
        }
    }

    /// One run of several neighbours. False if it was stopped.
    fn merge(&self, runs: &[Arc<Run>]) -> io::Result<bool> {
        let (first, end) = (runs[0].first, runs[runs.len() - 1].end);
        let count = runs.iter().map(|run| run.count).sum();
        let mut writer = RunWriter::create(&self.folder, first, end, count)?;
        if !self.merge_into(&mut writer, runs, (count / MERGE_STEP).max(1))? {
            return Ok(false);
        }
        let merged = Arc::new(writer.finish()?);
        let mut state = self.state();
        let inside = |run: &Arc<Run>| run.first >= first && run.end <= end;
        let at = state.runs.iter().position(inside).unwrap_or(0);
        let old: Vec<_> = state.runs.splice(at..at + runs.len(), [merged]).collect();
        drop(state);
        old.iter().for_each(|run| drop(remove(&run.path)));
        Ok(true)
    }

    /// A range of keys at a time: sorting is merging, when what is sorted are sorted pieces.
    fn merge_into(
        &self,
        writer: &mut RunWriter,
        runs: &[Arc<Run>],
        steps: u64,
    ) -> io::Result<bool> {
        let mut starts = vec![0; runs.len()];
        let mut digests = vec![Sha256::new(); runs.len()];
        let (mut batch, mut bytes) = (Vec::new(), Vec::new());
        for step in 1..=steps {
            batch.clear();
            for (at, run) in runs.iter().enumerate() {
                let stop = run.rank((u128::from(step) << 64) / u128::from(steps));
                run.read(starts[at], stop, &mut bytes)?;
                digests[at].update(&bytes);
                batch.extend(entries_of(&bytes));
                starts[at] = stop;
            }
            batch.sort();
            writer.add(&batch)?;
            if self.news.swap(false, Ordering::Relaxed) {
                self.tidy(runs[runs.len() - 1].end);
            }
            if self.stopping.load(Ordering::Relaxed) {
                return Ok(false);
            }
        }
        for (run, digest) in runs.iter().zip(digests) {
            if run.entries_digest[..] != digest.finalize()[..] {
                return Err(io::Error::new(ErrorKind::InvalidData, "they make no sense"));
            }
        }
        Ok(true)
    }

    /// Remove a run that does not hold what was written: opening will notice the gap. Until then
    /// it stays in use, as far as it goes.
    fn look_for_damage(&self, runs: &[Arc<Run>]) {
        if let Some(run) = runs.iter().find(|run| !run.is_sound()) {
            let mut state = self.state();
            state.damaged = Some(run.first);
            state.trouble = "a key file is damaged; the next start makes it anew".to_string();
            drop(state);
            let _ = remove(&run.path);
        }
    }
}

fn write_run(folder: &Path, first: u64, end: u64, tables: &[Arc<Table>]) -> io::Result<Run> {
    let mut entries = Vec::with_capacity(tables.iter().map(|table| table.len).sum());
    tables.iter().for_each(|table| entries.extend(table.entries()));
    entries.sort_unstable();
    let mut writer = RunWriter::create(folder, first, end, entries.len() as u64)?;
    writer.add(&entries)?;
    writer.finish()
}

/// The runs from leaf 0 as far as they reach. Every other file is removed.
fn open_runs(folder: &Path) -> io::Result<Vec<Arc<Run>>> {
    let mut found = Vec::new();
    for item in fs::read_dir(folder)? {
        let path = item?.path();
        match Run::open(&path) {
            Ok(run) => found.push(Arc::new(run)),
            Err(_) => drop(remove(&path)),
        }
    }
    found.sort_by_key(|run| (run.first, std::cmp::Reverse(run.end)));
    let mut runs: Vec<Arc<Run>> = Vec::new();
    for run in found {
        if run.first == runs.last().map_or(0, |run| run.end) {
            runs.push(run);
        } else {
            let _ = remove(&run.path);
        }
    }
    Ok(runs)
}

fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

fn join(thread: &Mutex<Option<JoinHandle<()>>>) {
    let handle = thread.lock().unwrap_or_else(PoisonError::into_inner).take();
    if let Some(handle) = handle {
        let _ = handle.join();
    }
}

pyo3::import_exception!(connector.errors, Unavailable);

fn key_of(key: &[u8]) -> PyResult<Key> {
    key.try_into().map_err(|_| InternalError::new_err("keys: a key has 10 bytes"))
}

/// `interface.Core.open_keys`. Raises `Unavailable` if the folder cannot be used.
#[pyfunction]
pub fn open_keys(py: Python<'_>, folder: PathBuf) -> PyResult<Keys> {
    let refused = "the folder of the key files cannot be used";
    let shared = py.detach(|| Shared::open(&folder)).map_err(|_| Unavailable::new_err(refused))?;
    Ok(Keys { shared })
}

/// `interface.Keys`. If files cannot be written, nothing is lost and nothing is raised: `trouble`
/// says so, `covered` stays, the keys stay in memory, and the next `freeze` tries again. Memory
/// grows until one succeeds, by about 32 bytes a key; a full disk stops the log itself first.
#[pyclass(frozen, module = "connector.core._native")]
pub struct Keys {
    pub shared: Arc<Shared>,
}

#[pymethods]
impl Keys {
    fn find(&self, py: Python<'_>, key: &[u8]) -> PyResult<Option<u64>> {
        let key = key_of(key)?;
        Ok(py.detach(|| self.shared.find(&key)))
    }

    fn stage(&self, py: Python<'_>, key: &[u8], index: u64) -> PyResult<()> {
        let key = key_of(key)?;
        if index > MAX_INDEX {
            return Err(InternalError::new_err("keys: a leaf's index has less than 48 bits"));
        }
        py.detach(|| self.shared.lock().stage(&key, index));
        Ok(())
    }

    fn seal(&self, py: Python<'_>) {
        py.detach(|| self.shared.seal());
    }

    fn unstage(&self, py: Python<'_>) {
        py.detach(|| self.shared.state().unstage());
    }

    fn settle(&self, py: Python<'_>) {
        py.detach(|| self.shared.settle());
    }

    fn discard(&self, py: Python<'_>) {
        py.detach(|| self.shared.discard());
    }

    fn freeze(&self, py: Python<'_>, size: u64) -> PyResult<()> {
        py.detach(|| self.shared.freeze(size)).map_err(InternalError::new_err)
    }

    fn wait(&self, py: Python<'_>) {
        py.detach(|| self.shared.wait());
    }

    /// Reads every byte of the files: they are as they were written for leaves below this.
    fn sound(&self, py: Python<'_>) -> u64 {
        py.detach(|| self.shared.sound())
    }

    fn clear(&self, py: Python<'_>) -> PyResult<()> {
        let refused = "the key files cannot be removed";
        py.detach(|| self.shared.clear()).map_err(|_| Unavailable::new_err(refused))
    }

    fn close(&self, py: Python<'_>) {
        py.detach(|| self.shared.close());
    }

    #[getter]
    fn covered(&self, py: Python<'_>) -> u64 {
        py.detach(|| self.shared.state().covered())
    }

    #[getter]
    fn pending(&self, py: Python<'_>) -> usize {
        py.detach(|| self.shared.pending())
    }

    #[getter]
    fn freeze_at(&self, py: Python<'_>) -> usize {
        if py.detach(|| self.shared.is_writing()) {
            LATE_AT
        } else {
            FREEZE_AT
        }
    }

    /// Why files could not be written or read lately; empty if they could.
    #[getter]
    fn trouble(&self, py: Python<'_>) -> String {
        py.detach(|| self.shared.state().trouble.clone())
    }

    /// How many files there are.
    #[getter]
    fn runs(&self, py: Python<'_>) -> usize {
        py.detach(|| self.shared.state().runs.len())
    }
}
