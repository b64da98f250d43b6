"""The whole story on one machine: ``make demo``.

A private master in ``.demo/``, and the commands that an operator types. Each step shows its command lines, what they
said, and how long they took; ``build/demo.json`` has the same for programs. What is kept in ``.demo/`` for the next
time are downloads and layers.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import signal
import sys
import time
import urllib.request
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from examples.starter import PlainEstate
from examples.watch import Visitors, Watch
from tests.support.estate import MARK, Answer
from tests.support.haproxy import Balancer

ROOT = Path(__file__).parents[1]
REPORT = ROOT / "build/demo.json"
SIZE = 3
MOST = 8
"""Lines that are shown of what a failed command says."""
WIDTH = 160
COLOUR = {"dim": "2", "bold": "1", "green": "32", "red": "31", "yellow": "33"}


def paint(text: str, how: str) -> str:
    """Colour a text, if a person watches."""
    return f"\x1b[{COLOUR[how]}m{text}\x1b[0m" if sys.stdout.isatty() else text


def show(text: str, how: str = "dim") -> None:
    """Print lines below a step's title."""
    for line in text.splitlines():
        print(f"    {paint(line[:WIDTH], how)}", flush=True)


def need(true: object, otherwise: str) -> None:
    """Let the step fail unless something is true."""
    if not true:
        raise AssertionError(otherwise)


@dataclass(frozen=True)
class Page:
    """What a machine answers to a visitor."""

    address: str
    version: str
    image: str


def fetch(address: str) -> Page:
    """Fetch the page of one machine."""
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with direct.open(f"http://{address}/", timeout=5) as answer:
        text = answer.read().decode()
    version, image = re.search(r"version (\S+?)<", text), re.search(r'"image": "(\w{12})', text)
    need(version and image, f"http://{address}/ is not our page:\n{text}")
    return Page(address, version[1] if version else "", image[1] if image else "")


class Operator:
    """Types commands, and reads what they say."""

    def __init__(self, estate: PlainEstate, balancer: Balancer) -> None:
        self.estate = estate
        self.balancer = balancer
        self.images: dict[str, str] = {}
        """Version of the page -> name of its image."""
        self.leaks: dict[str, int] = {}

    def run(self, *words: str, fails: bool = False) -> Answer:
        """Type a ``salt-run`` command; it must end as expected."""
        show(f"$ salt-run {' '.join(words)}", "bold")
        answer = self.estate.salt_run(*words, check=False)
        return self._expected(answer, fails)

    def salt(self, *words: str, fails: bool = False) -> Answer:
        """Type a ``salt`` command; it must end as expected."""
        show(f"$ salt {' '.join(repr(word) if '*' in word else word for word in words)}", "bold")
        return self._expected(self.estate.salt(words[0], *words[1:], check=False), fails)

    def _expected(self, answer: Answer, fails: bool) -> Answer:
        said = f"{answer.stderr}\n{answer.stdout}".strip()
        need(answer.ok != fails, f"{' '.join(answer.command)} exited with {answer.returncode}:\n{said}")
        return answer

    def count(self) -> str:
        """Count what is left, and return that it is nothing, or raise."""
        found = self.estate.leaks()
        self.leaks = {what: max(count, self.leaks.get(what, 0)) for what, count in found.items()}
        left = [f"{count} {what}" for what, count in found.items() if count]
        need(not left, f"left: {', '.join(left)}")
        return f"no {', '.join(found)}"

    def release(self, version: str, **more: Any) -> str:
        """Change the pillar, as somebody who commits a new version does."""
        self.estate.write_pillar("web", {"web": {"version": version, **more}})
        show(f"pillar/web.sls: version {version}" + "".join(f", {name}: {value}" for name, value in more.items()))
        return f"version {version}"

    def bake(self, recipe: str) -> str:
        """Bake, and return the image."""
        baked = self.run("image.bake", recipe).data
        for layer in baked["layers"]:
            took = "there already" if layer["cached"] else f"{layer['seconds']:.1f} s"
            show(f"{layer['digest'][:12]}  {layer['what']:<24} {took}")
        return str(baked["image"])

    def pages(self, version: str) -> str:
        """Fetch the page from every machine; each must be of this version, from the image that was baked for it."""
        status = self.run("fleet.status", "web").data
        found = [fetch(machine["address"]) for machine in status["machines"]]
        for page in found:
            show(f"http://{page.address}/  version {page.version}  image {page.image}")
        need(len(found) == SIZE, f"{len(found)} machines, not {SIZE}")
        image = self.images[version].partition("@")[2]
        wrong = [page for page in found if (page.version, page.image) != (version, image)]
        need(not wrong, f"not version {version} of image {image}: {wrong}")
        need(fetch(self.balancer.place).version == version, f"HAProxy shows another version than {version}")
        return f"{len(found)} machines show version {version} of {self.images[version]}"

    def watched(self, *words: str, fails: bool = False) -> tuple[Answer, str]:
        """Type a command while visitors come: never fewer machines than the fleet's size may answer."""
        with Watch(str(self.estate.net.subnet), SIZE) as watch, Visitors(self.balancer.place) as visitors:
            answer = self.run(*words, fails=fails)
        need(not watch.low, f"only {watch.low} of {SIZE} machines answered at some moment")
        lost = "; ".join(visitors.lost[:3])
        need(not lost, f"{len(visitors.lost)} of {visitors.seen.total()} requests through HAProxy were lost: {lost}")
        need(visitors.seen, "nobody came through HAProxy")
        served = ", ".join(f"version {version} {count} times" for version, count in sorted(visitors.seen.items()))
        return answer, f"never fewer than {SIZE} machines, no request lost: HAProxy served {served}"


def bake_base(me: Operator) -> str:
    return me.bake("base")


def bake_first(me: Operator) -> str:
    me.release("1")
    me.images["1"] = me.bake("web")
    return me.images["1"]


def roll_first(me: Operator) -> str:
    done = me.run("fleet.roll", "web").data
    return f"{done['reason']}, in {done['seconds']:.1f} s"


def pages_of_first(me: Operator) -> str:
    return me.pages("1")


def highstate(me: Operator) -> str:
    refused = me.salt("web-*", "state.highstate", fails=True)
    for minion_id, said in refused.data.items():
        show(f"{minion_id}:\n  {said}", "yellow")
        need("sealed: image web@" in said, f"{minion_id} did not refuse: {said}")
    need(len(refused.data) == SIZE, f"{len(refused.data)} machines answered, not {SIZE}")
    return f"refused by {SIZE} machines, exit code {refused.returncode}"


def change(me: Operator) -> str:
    me.release("2")
    plan = me.run("fleet.plan", "web").data
    need(plan["verdict"] == "done", f"a pillar that no image has been baked from changes no machine: {plan}")
    return "no machine changes because a pillar does"


def bake_second(me: Operator) -> str:
    me.images["2"] = me.bake("web")
    need(me.images["2"] != me.images["1"], "another version must be another image")
    plan = me.run("fleet.plan", "web").data
    for action in plan["actions"]:
        show(f"{action['kind']:<8} {action.get('minion_id', ''):<34} {action['reason']}")
    need(plan["reason"] == f"{SIZE} to launch, {SIZE} to destroy", f"an unexpected plan: {plan}")
    return f"{me.images['2']}; the plan: {plan['reason']}"


def roll_second(me: Operator) -> str:
    answer, seen = me.watched("fleet.roll", "web")
    return f"{answer.data['reason']}, in {answer.data['seconds']:.1f} s; {seen}"


def pages_of_second(me: Operator) -> str:
    return me.pages("2")


def bad_release(me: Operator) -> str:
    me.release("3", broken=True)
    me.images["3"] = me.bake("web")
    answer, seen = me.watched("fleet.roll", "web", fails=True)
    show("\n".join(str(answer.data).splitlines()[:MOST]), "yellow")
    me.pages("2")
    return f"{me.images['3']} was not healthy and went, {me.images['2']} stayed, exit code {answer.returncode}; {seen}"


def rollback(me: Operator) -> str:
    answer, seen = me.watched("fleet.rollback", "web")
    return f"{me.pages('1')}, in {answer.data['seconds']:.1f} s; {seen}"


def destroy(me: Operator) -> str:
    me.run("fleet.destroy", "web", "test=True")
    done = me.run("fleet.destroy", "web").data
    return f"{done['reason']}, in {done['seconds']:.1f} s"


def nothing_left(me: Operator) -> str:
    standing = me.balancer.servers()
    need(not standing, f"HAProxy still knows {standing}")
    me.balancer.stop()
    return f"no servers in HAProxy, {me.count()}"


STORY: dict[str, Callable[[Operator], str]] = {
    "bake base: Debian and Salt": bake_base,
    "bake web: version 1": bake_first,
    "roll the fleet": roll_first,
    "fetch the page of each machine": pages_of_first,
    "a highstate is refused": highstate,
    "change the version in pillar": change,
    "bake web: version 2": bake_second,
    "roll to version 2": roll_second,
    "fetch the page of each machine again": pages_of_second,
    "a broken version 3 rolls itself back": bad_release,
    "roll back to version 1": rollback,
    "destroy the fleet": destroy,
    "nothing of it is left": nothing_left,
}


@dataclass(frozen=True)
class Step:
    """One step as it went."""

    name: str
    seconds: float
    ok: bool
    detail: str


def take(name: str, act: Callable[[], str]) -> Step:
    """Do one step, and tell of it."""
    print(f"\n{paint(name, 'bold')}", flush=True)
    began = time.monotonic()
    try:
        ok, detail = True, act()
    except Exception as err:  # told, written into the report, and the exit code
        ok, detail = False, str(err) or repr(err)
    step = Step(name, round(time.monotonic() - began, 2), ok, detail)
    show(f"{'ok' if ok else 'FAILED'} {step.seconds:6.1f} s  {detail}", "green" if ok else "red")
    return step


def start(estate: PlainEstate, balancer: Balancer) -> str:
    """Start the master, with the example's orchestration beside its states, and the HAProxy that sends the visitors."""
    estate.up()
    shutil.copytree(ROOT / "examples/orch", estate.home / "orch", dirs_exist_ok=True)
    balancer.start()
    route(estate.pillar / "immutable.sls", balancer)
    places = f"machines on {estate.net.bridge} ({estate.net.subnet}), visitors at {balancer.url}"
    return f"config in {estate.etc.relative_to(ROOT)}, {places}"


def route(pillar: Path, balancer: Balancer) -> None:
    """Let HAProxy send the visitors: what the example pillar has as a comment, with the socket of this HAProxy."""
    before = pillar.read_text()
    after = before.replace("# traffic:", "traffic:").replace("/run/haproxy/admin.sock", balancer.socket)
    need(after != before, f"{pillar} has no traffic to switch on")
    pillar.write_text(after)


def end(me: Operator) -> str:
    """End the master and HAProxy, and whatever a step that failed has left."""
    me.balancer.stop()
    me.estate.down()
    return me.count()


def keep(me: Operator) -> str:
    """Take the bad release back, roll the fleet once more, and leave everything running."""
    me.release("1")
    me.bake("web")
    me.run("fleet.roll", "web")
    said = me.pages("1")
    me.estate.leave()
    return said


def tell(me: Operator, kept: bool) -> list[Step]:
    """Tell the story up to its end or to the first step that fails; nothing of it stays, unless it shall be kept."""
    steps = [take("start a private master", lambda: start(me.estate, me.balancer))]
    rest = {**STORY, "keep it running": keep} if kept else STORY
    try:
        for name, act in rest.items():
            if steps[-1].ok:
                steps.append(take(name, partial(act, me)))
    except KeyboardInterrupt:
        steps.append(Step("interrupted", 0.0, False, "by Ctrl-C or a signal"))
    finally:
        if not (kept and steps[-1].ok and steps[-1].name == "keep it running"):
            steps.append(take("end the master", lambda: end(me)))
    return steps


def report(steps: list[Step], leaks: dict[str, int]) -> bool:
    """Write build/demo.json, say how it went, and return whether all was right."""
    ok = bool(steps) and all(step.ok for step in steps) and not any(leaks.values())
    REPORT.parent.mkdir(exist_ok=True)
    REPORT.write_text(json.dumps({"ok": ok, "steps": [asdict(step) for step in steps], "leaks": leaks}, indent=1))
    seconds = sum(step.seconds for step in steps)
    print(f"\n{paint('all ok' if ok else 'FAILED', 'green' if ok else 'red')} in {seconds:.0f} s: {REPORT}")
    return ok


USE = """
It is running. Try:
    {bin}/salt-run -c .demo/etc fleet.status web
    {bin}/salt -c .demo/etc 'web-*' immutable.status
    curl {url}
    edit .demo/pillar/web.sls, then
    {bin}/salt-run -c .demo/etc state.orchestrate release saltenv=orch
Remove it with
    make demo-clean
"""


def main() -> int:
    """Tell the story; 0 if all of it went well."""
    parser = argparse.ArgumentParser(description="The whole story of immutable rollouts, on this machine, as root.")
    parser.add_argument("--keep", action="store_true", help="leave the master and the fleet running")
    parser.add_argument("--clean", action="store_true", help="end what --keep left running")
    asked = parser.parse_args()
    home = ROOT / ".demo"
    roots = {"base": [str(home / "states")], "orch": [str(home / "orch")]}
    trees = {"pillar": ROOT / "pillar", "states": ROOT / "examples/states"}
    estate = PlainEstate(home, hear=show, **trees, config={"file_roots": roots})
    if asked.clean:
        estate.end()
        return 0
    me = Operator(estate, Balancer(home / "haproxy", "option httpchk GET /", env={MARK: str(estate.home)}))
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    steps = tell(me, asked.keep)
    ok = report(steps, me.leaks)
    if ok and asked.keep:
        print(USE.format(bin=Path(sys.executable).parent.relative_to(ROOT), url=me.balancer.url))
    return 0 if ok else 1


if __name__ == "__main__":
    sys.exit(main())
