"""Models for the tests in containers: those of the managers' tests."""

from manager.conftest import put as put
