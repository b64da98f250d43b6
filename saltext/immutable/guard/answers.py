"""Answer the master's questions, with a proof: ``immutable.answer``. Each question passes the guard like a job."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, MutableMapping
from pathlib import Path
from typing import Any

from salt.exceptions import CommandExecutionError, SaltException

from saltext.immutable.guard import gate, proof, seal

MAX_QUESTIONS = 50


def answer(
    opts: Mapping[str, Any],
    data: Mapping[str, Any],
    call: Callable[..., Any],
    context: MutableMapping[str, Any],
    nonce: object,
    asked: object,
) -> dict[str, str]:
    """Return ``answers`` and ``proof``.

    ``asked``: JSON, a list of ``[function, args, kwargs]``. ``answers``: JSON, for each a mapping with ``return`` and
    ``retcode``, or with ``error``. ``data``: who asks, for the guard's events. ``context``: Salt's, with its retcode.
    """
    asked = asked if isinstance(asked, str) else json.dumps(asked, default=str)  # a command line reads JSON as YAML
    questions = _questions(asked)
    answers = f"[{', '.join(_answer(opts, data, call, context, *question) for question in questions)}]"
    context["retcode"] = 0
    key = Path(opts["pki_dir"], "minion.pem").read_bytes()
    return {"answers": answers, "proof": proof.sign(str(nonce), opts["id"], asked, answers, key)}


def _questions(asked: str) -> list[tuple[str, list[Any], dict[str, Any]]]:
    try:
        found = [(fun, args, kwargs) for fun, args, kwargs in json.loads(asked)]
    except (ValueError, TypeError) as err:
        raise CommandExecutionError(f"asked: {err}; it must be a list of [function, args, kwargs]") from err
    for fun, args, kwargs in found:
        right = isinstance(fun, str) and isinstance(args, list) and isinstance(kwargs, dict)
        if not right or fun == "immutable.answer":
            raise CommandExecutionError("asked: each question must be [function, args, kwargs]")
    if len(found) > MAX_QUESTIONS:
        raise CommandExecutionError(f"asked: {len(found)} questions are more than {MAX_QUESTIONS}")
    return found


def _answer(
    opts: Mapping[str, Any],
    data: Mapping[str, Any],
    call: Callable[..., Any],
    context: MutableMapping[str, Any],
    fun: str,
    args: list[Any],
    kwargs: dict[str, Any],
) -> str:
    """Return the answer to one question as JSON."""
    try:
        if os.path.lexists(seal.SEAL_PATH) and (reason := gate.refusal(opts, data, fun, args, kwargs)):
            return json.dumps({"error": reason})
        context["retcode"] = 0
        value = call(fun, *args, **kwargs)
        return json.dumps({"return": value, "retcode": context.get("retcode", 0)}, default=str)
    except SaltException as err:
        return json.dumps({"error": str(err)})
    except KeyError as err:
        return json.dumps({"error": f"{err.args[0] if err.args else fun} is not available"})
    except Exception as err:  # whatever it is, it is the answer
        return json.dumps({"error": f"{type(err).__name__}: {err}"})
