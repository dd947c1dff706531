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

/// Numbers that are no `u64` cannot be a proof's.
#[pyfunction]
fn verify_inclusion(
    leaf: &[u8],
    index: &Bound<'_, PyAny>,
    size: &Bound<'_, PyAny>,
    proof: &Bound<'_, PyAny>,
    root: &[u8],
) -> PyResult<()> {
    let number = |value: &Bound<'_, PyAny>| value.extract::<u64>().unwrap_or(u64::MAX);
    let mut path = Vec::with_capacity(tree::MAX_PROOF);
    for item in proof.try_iter()? {
        let item = item?;
        if path.len() == tree::MAX_PROOF {
            return Err(InvalidInput::new_err("proof: too many hashes"));
        }
        path.push(
            leaves::one_hash(item.cast::<PyBytes>()?.as_bytes()).map_err(InvalidInput::new_err)?,
        );
    }
    let leaf = leaves::one_hash(leaf).map_err(InvalidInput::new_err)?;
    let root = leaves::one_hash(root).map_err(InvalidInput::new_err)?;
    match tree::verify_inclusion(leaf, number(index), number(size), &path, &root) {
        Ok(()) => Ok(()),
        Err(tree::Wrong::Impossible(why)) => Err(InvalidInput::new_err(why)),
        Err(tree::Wrong::Proof(why)) => Err(VerificationFailed::new_err(why)),
    }
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
    module.add_function(wrap_pyfunction!(verify_inclusion, module)?)
}
