//! The native metering core: `connector/core/interface.py` says what it does, `reference.py` does
//! the same in Python, and tests hold the two equal, byte for byte.
//!
//! This file is what Python sees; the work is in the other ones, which know nothing of Python but
//! for `keys`. It is done without the interpreter's lock, but for `verify_inclusion`, which is
//! over in the time that giving the lock away takes. A bug raises `InternalError`.

#![deny(unsafe_code)]

mod cbor;
#[allow(unsafe_code)] // maps files into memory
mod keyfiles;
mod keys;
mod leaves;
mod records;
mod sha;
mod table;
mod tree;

use pyo3::prelude::*;
use pyo3::pybacked::{PyBackedBytes, PyBackedStr};
use pyo3::types::{PyBytes, PyDict, PyList};
use std::panic::{catch_unwind, AssertUnwindSafe};

pyo3::import_exception!(connector.errors, InternalError);
pyo3::import_exception!(connector.errors, InvalidInput);
pyo3::import_exception!(connector.errors, VerificationFailed);

/// Packed leaves, their hashes, the sum of their calls, the last hash, rows refused.
type Made<'py> =
    (Bound<'py, PyBytes>, Bound<'py, PyBytes>, u128, Bound<'py, PyBytes>, Vec<Refused>);
type Refused = (usize, u8);

/// Work without the interpreter; what it refuses raises `InvalidInput`.
fn work<T: Send>(
    py: Python<'_>,
    job: impl FnOnce() -> Result<T, leaves::Refusal> + Send,
) -> PyResult<T> {
    match py.detach(|| catch_unwind(AssertUnwindSafe(job))) {
        Ok(Ok(done)) => Ok(done),
        Ok(Err(refusal)) => Err(InvalidInput::new_err(refusal)),
        Err(_) => Err(InternalError::new_err("the native core has a bug; its log says where")),
    }
}

#[pyfunction]
fn detail() -> &'static str {
    #[cfg(any(target_arch = "x86", target_arch = "x86_64"))]
    let has_sha = std::arch::is_x86_feature_detected!("sha");
    #[cfg(target_arch = "aarch64")]
    let has_sha = std::arch::is_aarch64_feature_detected!("sha2");
    #[cfg(not(any(target_arch = "x86", target_arch = "x86_64", target_arch = "aarch64")))]
    let has_sha = false;
    if has_sha {
        "SHA instructions"
    } else {
        "portable"
    }
}

#[pyfunction]
#[allow(clippy::too_many_arguments)]
fn make_records<'py>(
    py: Python<'py>,
    keys: &keys::Keys,
    use_ids: &[u8],
    served: &[u8],
    amounts: Vec<(u8, PyBackedBytes)>,
    salts: &[u8],
    names: (PyBackedStr, PyBackedStr, PyBackedStr),
    head: &[u8],
    number: u64,
    time_ms: u64,
    index: u64,
    window: (i64, i64),
    left: Option<u128>,
    running: Vec<PyBackedBytes>,
) -> PyResult<Made<'py>> {
    let report = records::Report {
        use_ids,
        served,
        amounts: amounts.iter().map(|(quantity, column)| (*quantity, &column[..])).collect(),
        salts,
        scope: &names.0,
        purpose: &names.1,
        reporter: &names.2,
        head: leaves::one_hash(head).map_err(InvalidInput::new_err)?,
        number,
        time_ms,
        index,
        window,
        left,
        running: running.iter().map(|use_id| &use_id[..]).collect(),
    };
    let made = work(py, || Ok(records::make(&report, &keys.shared)))?;
    let bytes = |data: &[u8]| PyBytes::new(py, data);
    Ok((bytes(&made.packed), bytes(&made.hashes), made.calls, bytes(&made.head), made.refused))
}

#[pyfunction]
fn leaf_hashes<'py>(py: Python<'py>, packed: &[u8]) -> PyResult<Bound<'py, PyBytes>> {
    let hashes = work(py, || leaves::hashes(packed))?;
    Ok(PyBytes::new(py, &hashes))
}

#[pyfunction]
fn offsets(py: Python<'_>, packed: &[u8], skip: usize, step: usize) -> PyResult<Vec<usize>> {
    work(py, || leaves::offsets(packed, skip, step))
}

#[pyfunction]
fn extend<'py>(
    py: Python<'py>,
    size: u64,
    subtrees: Vec<PyBackedBytes>,
    hashes: &[u8],
) -> PyResult<(Bound<'py, PyList>, Bound<'py, PyDict>)> {
    let grown = work(py, || {
        let subtrees = subtrees.iter().map(|item| leaves::one_hash(item));
        Ok(tree::extend(size, &subtrees.collect::<Result<Vec<_>, _>>()?, hashes))
    })?;
    let subtrees = PyList::new(py, grown.subtrees.iter().map(|item| PyBytes::new(py, item)))?;
    let completed = PyDict::new(py);
    for (level, hashes) in &grown.completed {
        completed.set_item(level, PyBytes::new(py, hashes))?;
    }
    Ok((subtrees, completed))
}

/// Leaves that are no records as bytes; runs as the fields of `interface.RecordRun`, in order.
#[pyfunction]
fn read_records<'py>(
    py: Python<'py>,
    keys: &keys::Keys,
    packed: &[u8],
    index: u64,
) -> PyResult<Bound<'py, PyList>> {
    let items = work(py, || records::read(packed, index, &keys.shared))?;
    let found = PyList::empty(py);
    for item in &items {
        match item {
            records::Item::Other(leaf) => found.append(PyBytes::new(py, leaf))?,
            records::Item::Run(run) => found.append((
                run.scope,
                run.first,
                run.count,
                PyBytes::new(py, run.previous),
                PyBytes::new(py, &run.head),
                run.calls,
                run.time_ms,
            ))?,
        }
    }
    Ok(found)
}

const CLAIMS: usize = 64; // read at a time, so that little memory is used again and again

/// Leaf, index, size, proof, root: as `interface.Core` has them.
type Claim<'py> = (
    Bound<'py, PyBytes>,
    Bound<'py, PyAny>,
    Bound<'py, PyAny>,
    Bound<'py, PyAny>,
    Bound<'py, PyBytes>,
);

/// What Python claims, its proof appended to `hashes`: leaf, index, size, number of hashes, root.
/// Numbers that are no `u64` cannot be a proof's.
fn claimed(
    leaf: &[u8],
    index: &Bound<'_, PyAny>,
    size: &Bound<'_, PyAny>,
    proof: &Bound<'_, PyAny>,
    root: &[u8],
    hashes: &mut Vec<sha::Hash>,
) -> PyResult<(sha::Hash, u64, u64, usize, sha::Hash)> {
    let number = |value: &Bound<'_, PyAny>| value.extract::<u64>().unwrap_or(u64::MAX);
    let before = hashes.len();
    let mut add = |item: Bound<'_, PyAny>| {
        if hashes.len() - before == tree::MAX_PROOF {
            return Err(InvalidInput::new_err("proof: too many hashes"));
        }
        let hash = leaves::one_hash(item.cast::<PyBytes>()?.as_bytes());
        hashes.push(hash.map_err(InvalidInput::new_err)?);
        Ok(())
    };
    match proof.cast::<PyList>() {
        Ok(list) => list.iter().try_for_each(add)?, // as it mostly is, and it takes less time
        Err(_) => proof.try_iter()?.try_for_each(|item| add(item?))?,
    }
    let count = hashes.len() - before;
    let leaf = leaves::one_hash(leaf).map_err(InvalidInput::new_err)?;
    let root = leaves::one_hash(root).map_err(InvalidInput::new_err)?;
    Ok((leaf, number(index), number(size), count, root))
}

fn refused(wrong: tree::Wrong) -> PyErr {
    match wrong {
        tree::Wrong::Impossible(why) => InvalidInput::new_err(why),
        tree::Wrong::Proof(why) => VerificationFailed::new_err(why),
    }
}

#[pyfunction]
fn verify_inclusion(
    leaf: &[u8],
    index: &Bound<'_, PyAny>,
    size: &Bound<'_, PyAny>,
    proof: &Bound<'_, PyAny>,
    root: &[u8],
) -> PyResult<()> {
    let mut hashes = Vec::with_capacity(tree::MAX_PROOF);
    let (leaf, index, size, _, root) = claimed(leaf, index, size, proof, root, &mut hashes)?;
    let claim = tree::Claim { leaf, index, size, proof: &hashes, root };
    tree::verify_inclusion(&claim).map_err(refused)
}

#[pyfunction]
fn verify_inclusions(py: Python<'_>, claims: Vec<Claim<'_>>) -> PyResult<()> {
    let mut hashes = Vec::with_capacity(CLAIMS * tree::MAX_PROOF);
    for claims in claims.chunks(CLAIMS) {
        hashes.clear();
        let (mut read, mut unread) = (Vec::with_capacity(CLAIMS), Ok(()));
        for (leaf, index, size, proof, root) in claims {
            match claimed(leaf.as_bytes(), index, size, proof, root.as_bytes(), &mut hashes) {
                Ok(claim) => read.push(claim),
                Err(error) => {
                    unread = Err(error); // unless one before it does not hold
                    break;
                }
            }
        }
        let held = work(py, || {
            let mut rest = &hashes[..];
            let whole = read.iter().map(|&(leaf, index, size, count, root)| {
                let (proof, others) = rest.split_at(count);
                rest = others;
                tree::Claim { leaf, index, size, proof, root }
            });
            Ok(tree::verify_inclusions(&whole.collect::<Vec<_>>()))
        })?;
        held.map_err(refused)?;
        unread?;
    }
    Ok(())
}

#[pymodule]
fn _native(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_class::<keys::Keys>()?;
    module.add_function(wrap_pyfunction!(keys::open_keys, module)?)?;
    module.add_function(wrap_pyfunction!(detail, module)?)?;
    module.add_function(wrap_pyfunction!(make_records, module)?)?;
    module.add_function(wrap_pyfunction!(leaf_hashes, module)?)?;
    module.add_function(wrap_pyfunction!(offsets, module)?)?;
    module.add_function(wrap_pyfunction!(extend, module)?)?;
    module.add_function(wrap_pyfunction!(read_records, module)?)?;
    module.add_function(wrap_pyfunction!(verify_inclusion, module)?)?;
    module.add_function(wrap_pyfunction!(verify_inclusions, module)?)
}
