"""Modules are loaded without a look for garbage, which goes on as ever afterwards."""

from __future__ import annotations

import gc

import pytest

from command_line.loading import MANY, loading


@pytest.mark.parametrize(("objects", "frozen"), [(10, False), (2 * MANY, True)])
def test_garbage_is_collected_again_and_what_was_loaded_is_not_looked_at(objects: int, frozen: bool) -> None:
    before = gc.get_freeze_count()
    gc.collect()
    with loading():
        assert not gc.isenabled()
        made: list[list[int]] = [[] for _ in range(objects)]
    assert gc.isenabled()
    assert (gc.get_freeze_count() >= before + len(made)) == frozen


def test_it_is_collected_again_where_loading_fails() -> None:
    with pytest.raises(ImportError), loading():
        raise ImportError
    assert gc.isenabled()
