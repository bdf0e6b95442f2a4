"""The contract of modalbind, by behaviour; the quick start has a slow test of its own."""

from __future__ import annotations

from modalbind.testing import contract

test_contract = contract("modalbind-text", without=("quickstart",))
