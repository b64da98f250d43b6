"""What a bake has made so far, as a value that each step takes and returns."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from saltext.immutable.images.layers import OF_DAMAGE
from saltext.immutable.spec.model import Recipe, Slim
from saltext.immutable.store import Image

Layer = Mapping[str, Any]
"""What is known of a layer: what (its name), digest, key, cached, packages, grains, seconds, phases, slim, size, files,
tests, warnings, unproven, private_keys, deferred, sls, git (the commits of which its states were made), pinned, damaged
(what was wrong with the layers that it takes the place of), differs_from (the digests of those with another content),
unusable (the names of the images that have them)."""
_REPORTED = ("what", "digest", "cached", "seconds", "phases", "slim", "size", "files")


DERIVED = ("running", "not_previewed")
"""Keys of an image's policy that follow from its layers, not from its recipes."""


@dataclass(frozen=True)
class Given:
    """What the image that the first recipe is built from gives to all of them, beside its layers."""

    policy: Mapping[str, Any] = field(default_factory=dict)
    """That of its recipes."""
    packages: Mapping[str, str] = field(default_factory=dict)
    """The version of each of its packages: those come with its next bake, not with that of a child."""
    slim: Slim | Literal[False] | None = None


@dataclass(frozen=True)
class Sealed:
    """An image as the builder made it."""

    image: Image
    """Without its report, which the step `commit` adds."""
    made: Mapping[str, Any]
    """The builder's answer: image (digest), created, above (the files above the layers), proof (None: not signed), and
    what the image was ordered with."""


@dataclass(frozen=True)
class Stack:
    """The layers of one bake, and what is known of them. A step returns a new one by `dataclasses.replace`."""

    layers: tuple[Layer, ...] = ()
    """From the root to the top."""
    grains: Mapping[str, Any] = field(default_factory=dict)
    """Grains of the recipes so far: a child has those of its parents, and its own."""
    secrets: tuple[str, ...] = ()
    """Paths of the pillar that the recipes so far mark as secret."""
    at_boot: tuple[str, ...] = ()
    """Units that the recipes so far do not start in a bake."""
    given: Given = Given()
    origins: Mapping[str, Any] = field(default_factory=dict)
    """By name of a layer that no states made: its inputs."""
    state_origins: Mapping[str, Any] = field(default_factory=dict)
    """By recipe: what its layer of states was made from, for comparing images."""
    parts: Mapping[str, Any] = field(default_factory=dict)
    """By recipe: the same in parts that `image.why` compares with those of the next bake."""
    seconds: float = 0.0
    """How long the layers took."""
    sealed: Sealed | None = None
    """The image, from the step `seal` on."""
    results: tuple[Mapping[str, Any], ...] = ()
    """Results of the image's tests, from the step `test` on."""
    phases: Mapping[str, float] = field(default_factory=dict)
    """Seconds of each phase after the layers."""
    moved: bool = False
    """Whether the step `commit` moved the channel."""

    @property
    def digests(self) -> list[str]:
        """The digests of the layers; '' for a layer that a preview would build."""
        return [layer["digest"] for layer in self.layers]

    @property
    def top(self) -> Layer:
        """The highest layer."""
        return self.layers[-1]

    @property
    def cached(self) -> bool:
        """Whether no layer was built."""
        return all(layer["cached"] for layer in self.layers)

    @property
    def warnings(self) -> list[str]:
        """What the builder warned of, a sentence each."""
        of_layers = [warning for layer in self.layers for warning in layer.get("warnings", ())]
        return of_layers + (list(self.sealed.made.get("warnings", ())) if self.sealed else [])

    @property
    def deferred(self) -> list[Mapping[str, str]]:
        """What the states left to the boot of a machine: state, what and applied_by of each."""
        return [each for layer in self.layers for each in layer.get("deferred") or ()]

    def policy(self, of_recipes: Mapping[str, Any]) -> dict[str, Any]:
        """Return the policy of the image: that ``of_recipes``, and what follows from its states.

        ``running``: the units that they declare running; ``not_previewed``: the states of which it is known that they
        would change something on each machine.
        """
        known = sorted({each["state"] for each in self.deferred}.union(self.restless))
        more = dict(zip(DERIVED, (self.running, known), strict=True))
        return {**of_recipes, **{name: value for name, value in more.items() if value}}

    @property
    def running(self) -> list[str]:
        """The units that the states of all layers together declare running."""
        declared: dict[str, bool] = {}
        for layer in self.layers:
            declared |= layer.get("services") or {}
        return sorted(unit for unit, runs in declared.items() if runs)

    @property
    def restless(self) -> list[str]:
        """The states that would change something each time they are applied, as far as the recipes ask for them."""
        return [name for layer in self.layers for name in layer.get("restless") or ()]

    @property
    def packages(self) -> Mapping[str, str]:
        """The version of each package in the image."""
        return dict(self.top.get("packages", {}))

    def own_packages(self, packages: Mapping[str, str]) -> dict[str, str]:
        """Return those of these packages that the parent image does not have as they are."""
        return {name: version for name, version in packages.items() if self.given.packages.get(name) != version}

    def slim_of(self, recipe: Recipe) -> Slim | Literal[False] | None:
        """Return how the layer of a recipe is slimmed: as the recipe says, else as the parent image was."""
        return self.given.slim if recipe.slim is None else recipe.slim

    def push(self, layer: Layer) -> Stack:
        """Return the stack with one more layer."""
        return replace(self, layers=(*self.layers, layer))

    def amend_top(self, **known: Any) -> Stack:
        """Return the stack with more known of its highest layer."""
        return replace(self, layers=(*self.layers[:-1], {**self.top, **known}))

    def inherit(self, recipe: Recipe) -> Stack:
        """Return the stack with the grains, the secrets and the units of ``at_boot`` of one more recipe."""
        secrets = tuple(dict.fromkeys((*self.secrets, *recipe.secrets)))
        at_boot = tuple(dict.fromkeys((*self.at_boot, *recipe.at_boot)))
        return replace(self, grains={**self.grains, **recipe.grains}, secrets=secrets, at_boot=at_boot)

    def require_sealed(self) -> Sealed:
        """Return the image. Raises RuntimeError where a step comes before `seal` but needs an image."""
        if self.sealed is None:
            raise RuntimeError("this step needs an image, so it has to come after the step seal")
        return self.sealed

    def report(self, channel: str) -> dict[str, Any]:
        """Return what an operator is shown of the layers: layers, seconds, channel, cached, deferred, warnings."""
        layers = [_reported(layer) for layer in self.layers]
        known = {"seconds": self.seconds, "channel": channel, "cached": self.cached}
        return {"layers": layers, **known, "deferred": self.deferred, "warnings": self.warnings}


def _reported(layer: Layer) -> dict[str, Any]:
    """Return what an operator is shown of a layer."""
    shown = {name: layer[name] for name in _REPORTED if name in layer}
    return {**shown, **{name: layer[name] for name in ("git", *OF_DAMAGE) if layer.get(name)}}
