"""What it costs the master to look at 100 machines and to believe only proven answers, against bare jobs of Salt.

The minions are simulated: one process answers jobs on the bus under 100 ids, with a key that the master accepted.
Both sides ask each machine for as much; ours verifies a signature for each, which the simulated minion makes.
"""

from __future__ import annotations

import json
import multiprocessing
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import salt.utils.event
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from saltext.immutable.guard import proof
from saltext.immutable.minions import Jobs, Minions
from saltext.immutable.spec.model import FunctionCheck
from tests.bench.rolling import opts_of
from tests.support.estate import Estate

MACHINES = 100
AT_A_TIME = 8
WITHIN = 60.0
QUESTIONS = (FunctionCheck("immutable.status"), FunctionCheck("service.status", ("nginx",)))
_NAMES = tuple(f"simulated-{number}.example.com" for number in range(MACHINES))


@contextmanager
def simulated(estate: Estate) -> Iterator[None]:
    """Let the master know 100 minions, which a process answers for."""
    opts = opts_of(estate)
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    public = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()
    minions = Minions(opts)
    answering = multiprocessing.get_context("fork").Process(target=_answer, args=(opts, private), daemon=True)
    try:
        for name in _NAMES:
            minions.enrol(name, public)
        answering.start()
        time.sleep(2)  # until it listens
        yield
    finally:
        answering.kill()
        answering.join()
        for name in _NAMES:
            minions.forget(name)
        minions.close()


def look_100(estate: Estate) -> tuple[float, float]:
    """Return the seconds of a look at all, and of as many bare jobs."""
    opts = opts_of(estate)
    return _proven(opts), _bare(opts)


def _proven(opts: dict[str, Any]) -> float:
    jobs = Jobs(opts)
    return _timed(lambda name: jobs.ask_all(name, QUESTIONS, within=WITHIN))


def _bare(opts: dict[str, Any]) -> float:
    jobs = Jobs(opts)
    functions = [question.fun for question in QUESTIONS]
    return _timed(lambda name: jobs.run(name, functions, [list(question.args) for question in QUESTIONS]))


def _timed(ask: Any) -> float:
    ask(_NAMES[0])  # loads what is loaded once
    began = time.monotonic()
    with ThreadPoolExecutor(AT_A_TIME) as pool:
        list(pool.map(ask, _NAMES))
    return time.monotonic() - began


def _answer(opts: dict[str, Any], private: bytes) -> None:
    """Answer each new job on the bus, as its minions would."""
    with salt.utils.event.get_event("master", opts=opts, listen=True) as bus:
        while True:
            event = bus.get_event(wait=60, tag="salt/job/", match_type="startswith", full=True)
            if event and event["tag"].endswith("/new"):
                job = event["data"]
                for name in job["minions"]:
                    about = {"id": name, "jid": job["jid"], "fun": job["fun"], "fun_args": [], "retcode": 0}
                    found = {**about, "success": True, "return": _returned(name, job, private)}
                    bus.fire_event(found, f"salt/job/{job['jid']}/ret/{name}")


def _returned(name: str, job: dict[str, Any], private: bytes) -> Any:
    if job["fun"] != "immutable.answer":
        return {fun: True for fun in job["fun"]}
    how = next(word for word in job["arg"] if isinstance(word, dict))
    asked = json.loads(how["asked"])
    answers = json.dumps([{"return": True, "retcode": 0} for _ in asked])
    return {"answers": answers, "proof": proof.sign(how["nonce"], name, how["asked"], answers, private)}
