"""A publisher's record of a dataset, read once and again."""

import pytest

from connector.errors import InvalidInput, VerificationFailed
from connector.identity.datasets import read_dataset, sign_dataset
from connector.identity.statements import public_bytes
from tests.negotiators import DATASET
from tests.vectors import scenario

KEY, OTHER = public_bytes(scenario.PROVIDER.key), public_bytes(scenario.CONSUMER.key)


@pytest.mark.parametrize("keys", [[KEY], [OTHER, KEY]])
def test_what_was_verified_before_is_the_same_again(keys) -> None:
    record = sign_dataset(scenario.PROVIDER.key, DATASET)
    assert read_dataset(record, keys) == read_dataset(record, iter(keys)) == DATASET


def test_what_was_verified_by_one_key_is_not_by_another() -> None:
    record = sign_dataset(scenario.PROVIDER.key, DATASET)
    assert read_dataset(record, [KEY]) == DATASET
    for _ in range(2):
        with pytest.raises(VerificationFailed):
            read_dataset(record, [OTHER])
    head, payload, signature = record.split(".")
    for changed in (f"{head}.{payload}A.{signature}", f"{head}.{payload}.{signature[:-2]}AA"):
        with pytest.raises((InvalidInput, VerificationFailed)):
            read_dataset(changed, [KEY])
    assert read_dataset(record, [KEY]) == DATASET
