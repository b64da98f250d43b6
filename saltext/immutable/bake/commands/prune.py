"""Delete the images that their recipes do not keep, then whatever nothing needs any more."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any

from salt.exceptions import CommandExecutionError, SaltInvocationError

from saltext.immutable import minions, spec
from saltext.immutable.bake import locks, parent_image
from saltext.immutable.builder.local import LOCAL
from saltext.immutable.images.retention import Candidate, Rule, Verdict, decide
from saltext.immutable.spec.model import Definitions
from saltext.immutable.spec.origins import Debian, Disk, Oci, Tarball
from saltext.immutable.store import Image, Store, in_use
from saltext.immutable.store.revocations import failures
from saltext.immutable.worker import Worker

Builder = Callable[..., Any]


def prune(
    opts: Mapping[str, Any], recipe: str | None, progress: Callable[..., None], *, test: bool, who: str | None = None
) -> dict[str, Any]:
    """Delete the images (of ``recipe``) that are not kept, then whatever nothing needs. ``test``: delete nothing.

    Returns deleted and kept (name: why), unknown (digests of the builder's images that the store does not know),
    layers, caches and leftovers with their bytes, and freed: the bytes of all that. Raises CommandExecutionError while
    a bake is under way, SaltInvocationError for an unknown recipe.
    """
    settings, definitions = spec.settings(opts), minions.definitions(opts)
    with closing(Store.open(settings.store)) as store:
        builder = Worker(opts, settings, "image", LOCAL)
        with nullcontext() if test else locks.deleting(store):
            report = Prune(store, builder, definitions, who, partial(_forget, opts)).prune(recipe, test)
    if not test:
        progress(report["comment"], "image/pruned", deleted=list(report["deleted"]), freed=report["freed"])
    return report


def _forget(opts: Mapping[str, Any], minion_id: str) -> None:
    with closing(minions.Minions(opts)) as salt:
        salt.forget(minion_id)


@dataclass(frozen=True)
class Prune:
    """What is pruned, and by whom. No bake may be under way."""

    store: Store
    builder: Builder
    definitions: Definitions
    who: str | None = None
    forget: Callable[[str], None] = lambda bake_id: None
    """Deletes the key of a minion from the master."""

    def prune(self, recipe: str | None, test: bool) -> dict[str, Any]:
        """Prune, and return what `prune` does."""
        images = {image.digest: image for image in self.store.images()}
        judged = self._verdicts(images, recipe)
        verdicts = judged if test else [self._delete(verdict) for verdict in judged]
        gone = {verdict.digest for verdict in verdicts if not verdict.kept}
        if not test:
            self._delete_leftover_keys()
        found = self.builder("collect", known=sorted(set(images) - gone), test=test, **self._caches())
        return self._report(images, verdicts, found, test)

    def _delete_leftover_keys(self) -> None:
        """Delete the keys of bakes that were killed: no bake is under way."""
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
        return decide(self._candidates(wanted), rules, self.store.clock())

    def _candidates(self, images: list[Image]) -> Iterator[Candidate]:
        users, revoked = self.builder("image_users"), self.store.revocations()
        parents = parent_image.pinned(self.store, self.definitions)
        with self.store.read() as connection:
            failed = failures(connection)
            for image in images:
                others = (*users.get(image.digest, ()), *parents.get(image.digest, ()))
                needed = (*in_use.used_by(connection, image.digest), *others)
                bad = (image.digest in revoked, needed, image.digest in failed)
                yield Candidate(image.digest, image.recipe, image.created, *bad)

    def _delete(self, verdict: Verdict) -> Verdict:
        """Delete an image that is not kept; if something needs it by now, return that as the reason to keep it."""
        if verdict.kept:
            return verdict
        try:
            self.store.delete_image(verdict.digest, who=self.who)
        except CommandExecutionError as err:
            return Verdict(verdict.digest, True, str(err))
        return verdict

    def _caches(self) -> dict[str, list[str]]:
        """Return the suites, recipes, archives and OCI images whose downloads are kept."""
        recipes = self.definitions.recipes.values()
        suites = {each.source.suite for each in recipes if isinstance(each.source, Debian)}
        files = (each.source for each in recipes if isinstance(each.source, Tarball | Disk))
        sums = {source.sha256 for source in files if source.sha256}
        bake_ids = sorted(each.bake_id for each in recipes)
        references = sorted({each.source.reference for each in recipes if isinstance(each.source, Oci)})
        return {"suites": sorted(suites), "bake_ids": bake_ids, "tarballs": sorted(sums), "references": references}

    def _report(
        self, images: Mapping[str, Image], verdicts: list[Verdict], found: Mapping[str, Any], test: bool
    ) -> dict[str, Any]:
        gone = {images[one.digest].name: one.reason for one in verdicts if not one.kept}
        freed = sum(layer["size"] or 0 for layer in found["layers"].values())
        freed += sum(size for kind in ("caches", "leftovers") for size in found[kind].values())
        what = f"{len(gone)} images and {len(found['layers'])} layers"
        comment = f"{what} would be deleted, which frees {freed} bytes" if test else f"deleted {what}: {freed} bytes"
        return {
            "deleted": gone,
            "kept": {images[one.digest].name: one.reason for one in verdicts if one.kept},
            "unknown": [digest for digest in found["images"] if digest not in images],
            **{kind: found[kind] for kind in ("layers", "caches", "leftovers")},
            "freed": freed,
            "comment": comment,
        }
