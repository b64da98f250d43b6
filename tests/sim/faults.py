"""What goes wrong in a simulated world, and how likely."""

from __future__ import annotations

from dataclasses import dataclass, field


class Killed(BaseException):
    """The process is no more: nothing of its own runs after this."""


@dataclass
class Faults:
    """How likely each thing goes wrong, and what is wrong with which image."""

    launch_fails: float = 0.0
    launch_hangs: float = 0.0
    unanswered: float = 0.0
    """The provider's host does not say whether it launched or destroyed."""
    probe_hangs: float = 0.0
    rumour: float = 0.0
    """A minion says of another one that it was denied."""
    neighbour: float = 0.0
    """A machine is compromised: it forges every kind of event about the others, answers too."""
    never_up: float = 0.0
    """Its key never arrives."""
    start_lost: float = 0.0
    start_twice: float = 0.0
    intruder: float = 0.0
    dies: float = 0.0
    falls_ill: float = 0.0
    """It is unhealthy for a while, within its first two minutes."""
    no_answer: float = 0.0
    list_fails: float = 0.0
    list_misses: float = 0.0
    """One machine is not in the list for a while, though it is there: only where the list lags."""
    list_overtaken: float = 0.0
    """A list is told long after it was made."""
    destroy_fails: float = 0.0
    traffic_fails: float = 0.0
    traffic_hangs: float = 0.0
    slandered: float = 0.0
    """Those who send the visitors take a machine for down that is not, for a while."""
    forgets: float = 0.0
    """Those who send the visitors are reloaded, and know of no machine any more: how often a minute."""
    host_boots: float = 0.0
    """The host of all machines boots, and starts them again: how often a minute."""
    tainted: float = 0.0
    """Somebody changes a machine by hand within its first minute."""
    jumps: float = 0.0
    """The wall clock jumps by minutes, forwards or backwards: how often a minute."""
    lags: bool = False
    ill: dict[str, str] = field(default_factory=dict)
    """Image -> unhealthy | wrong | crashes | dies."""
