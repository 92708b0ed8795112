"""The catalog against a dict: any sequence of puts, removals and readings, by one handle or another, in any order."""

import shutil
import tempfile
from fnmatch import fnmatchcase

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from trims.disk import snapshot
from trims.disk.catalog import Catalog, Entry
from trims.disk.store import create_store, open_store
from trims.errors import AmbiguousModel, NoSuchModel

REFS = [f"{name}:{tag}" for name in ("a", "b", "net", "org/net", "org/a", "A") for tag in ("latest", "v2")]
DIGESTS = [c * 64 for c in "0123"] + ["0" * 8 + "f" * 56]


class CatalogMachine(RuleBasedStateMachine):
    """`model` is what must be there; the snapshot is whatever it was when last rebuilt, or junk."""

    @initialize()
    def start(self):
        self.directory = tempfile.mkdtemp(prefix="t", dir="/tmp")
        self.root = f"{self.directory}/store"
        self.model = {}
        self.catalog = Catalog(create_store(self.root).paths)
        self.paths = open_store(self.root).paths

    def teardown(self):
        shutil.rmtree(self.directory)

    @rule(ref=st.sampled_from(REFS), digest=st.sampled_from(DIGESTS), nbytes=st.integers(0, 1 << 50))
    def put(self, ref, digest, nbytes):
        entry = Entry(ref, digest, "onnx", 1, nbytes, nbytes, "none", 2.5, {"path": ref}, {"n": str(nbytes)})
        with self.catalog.writing(ref):
            self.catalog.put(entry)
        self.model[ref] = entry

    @rule(ref=st.sampled_from(REFS))
    def remove(self, ref):
        if ref in self.model:
            self.catalog.remove(ref)
            del self.model[ref]
        else:
            with pytest.raises(NoSuchModel):
                self.catalog.remove(ref)

    @rule(ref=st.sampled_from(REFS))
    def get(self, ref):
        assert self.catalog.find(ref) == self.model.get(ref)

    @rule(digest=st.sampled_from(DIGESTS), length=st.integers(6, 64))
    def resolve_digest(self, digest, length):
        found = {e.digest for e in self.model.values() if e.digest.startswith(digest[:length])}
        if len(found) == 1:
            assert self.catalog.resolve(f"id:{digest[:length]}").digest in found
        else:
            with pytest.raises(AmbiguousModel if found else NoSuchModel):
                self.catalog.resolve(f"id:{digest[:length]}")

    @rule(pattern=st.sampled_from(["*", "a*", "net", "org/*", "*:v2", "[ab]", "?:latest"]))
    def match(self, pattern):
        whole = pattern if ":" in pattern else f"{pattern}:{'*' if set(pattern) & set('*?[') else 'latest'}"
        want = sorted(ref for ref in self.model if fnmatchcase(ref, whole))
        if want:
            assert sorted(entry.ref for entry in self.catalog.match([pattern])) == want
        else:
            with pytest.raises(NoSuchModel):
                self.catalog.match([pattern])

    @rule()
    def list_entries(self):
        assert {entry.ref: entry for entry in self.catalog.entries()} == self.model

    @rule(junk=st.sampled_from([b"", b"trims.snapshot/1\n", b"junk\n\n"]))
    def spoil_the_snapshot(self, junk):
        with open(self.paths.snapshot, "wb") as file:
            file.write(junk)

    @rule()
    def reopen(self):
        self.catalog = Catalog(open_store(self.root).paths)

    @invariant()
    def the_listing_is_true(self):
        rows = snapshot.listing(self.paths)
        assert [row[1] for row in rows] == sorted(self.model) == self.catalog.refs()
        assert all(self.model[ref].digest == digest for digest, ref, _ in rows)


TestCatalog = CatalogMachine.TestCase
TestCatalog.settings = settings(max_examples=25, stateful_step_count=25, deadline=None)
