"""From what a client names to what can be loaded: ref → digest → form, its bytes and its files.

`quick` answers from memory and is what the loop calls; when it knows nothing (None), `slow` reads the sidecar, in a
thread. A digest's forms never change, so only the step from ref to digest (names) is checked again. Whose the names
are to read is decided there: an `asker` is one who is no operator of a shared store. Forms are those of the host;
`Form.on` gives that of another place.
"""

from __future__ import annotations

import os

from trims.disk.catalog import Catalog
from trims.disk.sidecar import read_sidecar
from trims.disk.store import Store
from trims.errors import NoSuchModel, NoSuchVariant, TrimsError, UsageError
from trims.linux import memfd
from trims.manager.loader import Form
from trims.manager.names import Named, Names
from trims.manager.variants import Errand, Variants
from trims.manifest import table_bytes
from trims.permission import Asker
from trims.places import HOST
from trims.residency.events import Key

RAW = "raw"
_KEY = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._+-")
_MOST = 20_000
"""Forms remembered; with more than that, all are forgotten and looked up again."""


class NeedsBuilding(Exception):
    """The form is an ONNX Runtime variant that the store does not have yet. optional: raw would do as well."""

    def __init__(self, named: Named, optional: bool) -> None:
        super().__init__(named.ref)
        self.named, self.optional = named, optional


class Resolver:
    """The store's names, as the manager sees them."""

    def __init__(self, store: Store, variants: Variants) -> None:
        self._store, self._variants = store, variants
        self._forms: dict[tuple[str, str], Form] = {}
        self.names = Names(store, Catalog(store.paths), lambda digest: (digest, RAW) in self._forms)

    # ---- in the loop

    def quick(self, text: str, variant: str, prefer: str = "", asker: Asker | None = None) -> Form | None:
        """The form an attach names, if that takes no reading."""
        named = self.names.quick(text, asker)
        if named is None:
            return None
        return self._forms.get((named.digest, self._auto(named, prefer) if variant == "auto" else variant))

    def quick_flavour(self, text: str, flavour: str, asker: Asker | None = None) -> Form | None:
        """The form a warm names, if that takes no reading."""
        named = self.names.quick(text, asker)
        if named is None:
            return None
        if flavour in (RAW, "torch") or (flavour == "auto" and named.format != "onnx"):
            return self._forms.get((named.digest, RAW))
        return self._forms.get((named.digest, self._variants.key)) if self._variants.key else None

    def forget(self, key: Key) -> None:
        """A load of this form failed: look at the store again before the next."""
        self._forms.pop((key.digest, key.variant), None)

    # ---- in a thread

    def _name(self, text: str, asker: Asker | None) -> Named:
        if len(self._forms) > _MOST:
            self._forms.clear()
        return self.names.quick(text, asker) or self.names.slow(text, asker)

    def slow(self, text: str, variant: str, prefer: str = "", asker: Asker | None = None) -> Form:
        """The form an attach names. Raises what is wrong with it."""
        named = self._name(text, asker)
        if variant == "auto":
            if not prefer and named.format == "onnx" and os.path.isdir(self._store.paths.variants_of(named.digest)):
                self._learn_key()
            variant = self._auto(named, prefer)
        return self.form(named, variant)

    def slow_flavour(self, text: str, flavour: str, asker: Asker | None = None) -> Form:
        """The form a warm names. Raises NeedsBuilding when it has to be made first."""
        if flavour not in (RAW, "torch", "onnxruntime", "auto"):
            raise UsageError(f"no flavour {flavour!r}", "", "flavours are auto, raw, onnxruntime and torch")
        named = self._name(text, asker)
        if flavour in (RAW, "torch") or (flavour == "auto" and named.format != "onnx"):
            return self.form(named, RAW)
        try:
            key = self._variants.find_key()
        except TrimsError:
            if flavour == "auto":
                return self.form(named, RAW)
            raise
        if not self._has(named.digest, key):
            raise NeedsBuilding(named, flavour == "auto")
        return self.form(named, key)

    def form_of(self, key: Key, ref: str) -> Form:
        """The form of a key: from memory, or read again where it has been forgotten since."""
        return self.form(Named(ref, key.digest, "", "", (0, 0, 0)), key.variant)

    def build(self, needed: NeedsBuilding, errand: Errand) -> Form:
        """The second step of `slow_flavour`. Raises NoSuchVariant and whatever else the child reported."""
        digest, key = needed.named.digest, self._variants.key
        if not self._has(digest, key):  # it may have been built while we stood in line
            key = self._variants.build(digest, errand)
        return self.form(needed.named, key)

    def form(self, named: Named, variant: str) -> Form:
        """One form of a model, read from its sidecar. Raises NoSuchModel, NoSuchVariant, Damaged."""
        known = self._forms.get((named.digest, variant))
        if known is not None:
            return known
        paths, digest = self._store.paths, named.digest
        if variant == RAW:
            container, path = paths.container(digest), paths.sidecar(digest)
        elif is_key(variant):
            container, path = paths.variant(digest, variant), paths.variant_sidecar(digest, variant)
        else:
            raise UsageError(f"bad variant {variant!r}", "", "it is raw, auto or a key of letters, digits and ._+-")
        try:
            sidecar = read_sidecar(path)
        except NoSuchModel:
            if variant == RAW:
                raise
            raise NoSuchVariant(
                f"{named.ref} has no variant {variant}", "", f"build it: trims warm --for onnxruntime {named.ref}"
            ) from None
        span, table = sidecar.span_nbytes, len(table_bytes(sidecar.manifest))
        key = Key(digest, variant, HOST)
        form = Form(key, named.ref, memfd.pages(span + table), container, path, span, table)
        self._forms[digest, variant] = form
        return form

    def _auto(self, named: Named, prefer: str) -> str:
        """The form that "auto" means: `prefer`, or what this manager derives of an ONNX model, where that is at hand.

        A client that has not imported ONNX Runtime yet names no preference, and most that open an ONNX model will.
        """
        key = prefer or (self._variants.key if named.format == "onnx" else "")
        return key if is_key(key) and self._has(named.digest, key) else RAW

    def _learn_key(self) -> None:
        try:
            self._variants.find_key()
        except TrimsError:
            pass  # nothing can be derived here: raw it is

    def _has(self, digest: str, key: str) -> bool:
        return (digest, key) in self._forms or os.path.exists(self._store.paths.variant_sidecar(digest, key))


def is_key(text: str) -> bool:
    """Whether `text` may be the key of a variant: it becomes a file name."""
    return 0 < len(text) <= 100 and set(text) <= _KEY and text[0] not in ".-" and text != RAW
