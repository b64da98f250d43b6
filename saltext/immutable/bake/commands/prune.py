"""Delete the images that their recipes do not keep, and what then nothing needs any more."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any

from salt.exceptions import CommandExecutionError, SaltInvocationError

from saltext.immutable import minions, spec
from saltext.immutable.bake import locks
from saltext.immutable.builder.local import LOCAL
from saltext.immutable.images.retention import Candidate, Rule, Verdict, judge
from saltext.immutable.spec.model import Debian, Definitions, Tarball
from saltext.immutable.store import Image, Store, in_use
from saltext.immutable.store.revocations import failures
from saltext.immutable.worker import Worker

Builder = Callable[..., Any]


def prune(
    opts: Mapping[str, Any], recipe: str | None, tell: Callable[..., None], *, test: bool, who: str | None = None
) -> dict[str, Any]:
    """Delete the images (of ``recipe``) that are not kept, then whatever nothing needs; ``test``: only tell.

    Returns deleted and kept (name: why), unknown (digests of the builder's images that are in no book), layers, caches
    and leftovers with their bytes, and freed: the bytes of all that.
    """
    settings, definitions = spec.settings(opts), minions.definitions(opts)
    with closing(Store.open(settings.store)) as store:
        builder = Worker(opts, settings, "image", LOCAL)
        with nullcontext() if test else locks.deleting(store):
            told = Prune(store, builder, definitions, who, partial(_forget, opts)).prune(recipe, test)
    if not test:
        tell(told["comment"], "image/pruned", deleted=list(told["deleted"]), freed=told["freed"])
    return told


def _forget(opts: Mapping[str, Any], minion_id: str) -> None:
    with closing(minions.Minions(opts)) as salt:
        salt.forget(minion_id)


@dataclass(frozen=True)
class Prune:
    """What is pruned, and by whom."""

    store: Store
    builder: Builder
    definitions: Definitions
    who: str | None = None
    forget: Callable[[str], None] = lambda bake_id: None
    """Deletes the key of a minion."""

    def prune(self, recipe: str | None, test: bool) -> dict[str, Any]:
        """See `prune`; no bake may be under way."""
        images = {image.digest: image for image in self.store.images()}
        judged = self._verdicts(images, recipe)
        verdicts = judged if test else [self._done(verdict) for verdict in judged]
        gone = {verdict.digest for verdict in verdicts if not verdict.kept}
        if not test:
            self._let_go()
        found = self.builder("collect", known=sorted(set(images) - gone), test=test, **self._caches())
        return self._told(images, verdicts, found, test)

    def _let_go(self) -> None:
        """Delete the keys that killed bakes left on the master: nobody bakes."""
        for bake_id in self.store.enrolled():
            self.forget(bake_id)
            self.store.remove_enrolled(bake_id)

    def _verdicts(self, images: Mapping[str, Image], recipe: str | None) -> list[Verdict]:
        known = sorted({*self.definitions.recipes, *(image.recipe for image in images.values())})
        if recipe is not None and recipe not in known:
            there = ", ".join(known) or "none"
            raise SaltInvocationError(f"there is no recipe {recipe!r}, and no image of it; there are: {there}")
        rules = {name: Rule(each.keep, each.keep_for) for name, each in self.definitions.recipes.items()}
        wanted = [image for image in images.values() if recipe in (None, image.recipe)]
        return judge(self._candidates(wanted), rules, self.store.clock())

    def _candidates(self, images: list[Image]) -> Iterator[Candidate]:
        users, revoked = self.builder("image_users"), self.store.revocations()
        with self.store.read() as connection:
            failed = failures(connection)
            for image in images:
                needed = (*in_use.used_by(connection, image.digest), *users.get(image.digest, ()))
                bad = (image.digest in revoked, needed, image.digest in failed)
                yield Candidate(image.digest, image.recipe, image.created, *bad)

    def _done(self, verdict: Verdict) -> Verdict:
        """Forget an image that is not kept; what came to need it meanwhile keeps it."""
        if verdict.kept:
            return verdict
        try:
            self.store.delete_image(verdict.digest, who=self.who)
        except CommandExecutionError as err:
            return Verdict(verdict.digest, True, str(err))
        return verdict

    def _caches(self) -> dict[str, list[str]]:
        """Return whose downloads are kept."""
        recipes = self.definitions.recipes.values()
        suites = {each.source.suite for each in recipes if isinstance(each.source, Debian)}
        sums = {each.source.sha256 for each in recipes if isinstance(each.source, Tarball) and each.source.sha256}
        bake_ids = sorted(each.bake_id for each in recipes)
        return {"suites": sorted(suites), "bake_ids": bake_ids, "tarballs": sorted(sums)}

    def _told(
        self, images: Mapping[str, Image], verdicts: list[Verdict], found: Mapping[str, Any], test: bool
    ) -> dict[str, Any]:
        gone = {images[one.digest].name: one.reason for one in verdicts if not one.kept}
        freed = sum(layer["size"] or 0 for layer in found["layers"].values())
        freed += sum(size for kind in ("caches", "leftovers") for size in found[kind].values())
        did = "would go" if test else "went"
        return {
            "deleted": gone,
            "kept": {images[one.digest].name: one.reason for one in verdicts if one.kept},
            "unknown": [digest for digest in found["images"] if digest not in images],
            **{kind: found[kind] for kind in ("layers", "caches", "leftovers")},
            "freed": freed,
            "comment": f"{len(gone)} images and {len(found['layers'])} layers {did}, {freed} bytes with them",
        }
