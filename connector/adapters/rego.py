"""The embedded policy engine: regorus, an interpreter of Rego v1, in this process.

What the library demands, and what is done about it:

* an engine belongs to the thread that made it, which must also end it: each thread that asks
  gets one of its own;
* a deep input or a large one could end the process: ``inputs.encode`` refuses it before;
* a panic is a ``BaseException`` of a class that cannot be imported: it is known by its name,
  and the engine that panicked is thrown away;
* an undefined rule comes back as the text ``<undefined>``: it is no answer;
* there is no timeout and the interpreter holds the GIL: only bundles that the operator chose are
  loaded, and a decision takes well under a millisecond.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Mapping
from typing import Any

import regorus

from connector.adapters.bundle import Bundle
from connector.errors import ConfigError, InvalidInput, Unavailable
from connector.model import fields
from connector.policy import inputs
from connector.policy.decisions import ENTRIES

_UNDEFINED = "<undefined>"


class RegoEngine:
    """``ports.policy.PolicyEngine`` over one bundle. Answers at once, in the caller's thread.

    Raises ``ConfigError`` if the bundle does not load, or lacks one of the decisions.
    """

    def __init__(self, bundle: Bundle) -> None:
        self._bundle = bundle
        self._threads = threading.local()
        self._threads.engine = _load(bundle)
        for entry in ENTRIES:
            try:
                self._ask(entry, b"{}")
            except Unavailable as error:
                self._threads.engine = None  # here: what an error holds may end in any thread
                raise ConfigError(f"policy bundle: {entry} does not decide") from error

    @property
    def digest(self) -> bytes:
        return self._bundle.digest

    async def evaluate(self, entry: str, document: Mapping[str, Any]) -> Any:
        """Raises ``Unavailable`` as the port says, and ``InvalidInput`` for a document that is
        not plain, small and shallow."""
        data = inputs.encode(document)
        try:
            return fields.parse_json(self._ask(entry, data), what="decision")
        except InvalidInput as error:
            raise Unavailable("the policy engine gave no usable answer") from error

    def _ask(self, entry: str, data: bytes) -> bytes:
        engine = getattr(self._threads, "engine", None)
        if engine is None:
            engine = self._threads.engine = _load(self._bundle)
        try:
            engine.set_input_json(data.decode())
            answer: str = engine.eval_rule_as_json(f"data.{entry.replace('/', '.')}")
        except RuntimeError as error:  # an error in the policy, an unknown rule
            raise Unavailable("the policy engine failed") from error
        except BaseException as error:
            if type(error).__name__ != "PanicException":
                raise
            self._threads.engine = None
            raise Unavailable("the policy engine failed") from error
        if json.loads(answer) == _UNDEFINED:
            raise Unavailable("the policy gave no decision")
        return answer.encode()


def _load(bundle: Bundle) -> Any:
    engine = regorus.Engine()
    try:
        for name, text in bundle.modules.items():
            engine.add_policy(name, text)
        engine.add_data_json(json.dumps(bundle.data))
    except RuntimeError as error:
        del engine  # here: what an error holds may end in any thread
        raise ConfigError("policy bundle: a module does not load in the embedded engine") from error
    return engine
