"""What holds for all tests."""

import pytest

_LONGEST_ID = 60


def pytest_make_parametrize_id(val: object, argname: str) -> str | None:
    """Long texts and texts of many lines name no test: some hold times, and every worker has to find the same names."""
    if not isinstance(val, str | bytes):
        return None
    text = val if isinstance(val, str) else val.decode("latin-1")
    return argname if len(text) > _LONGEST_ID or "\n" in text else None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The slow ones first: begun last, they would keep one worker busy when the others have nothing left to do."""
    items.sort(key=lambda item: item.get_closest_marker("slow") is None)
