"""The order of the packages is a contract; `make lint` shows it, and so does every test run."""

from importlinter.cli import lint_imports


def test_every_import_contract_is_kept() -> None:
    assert lint_imports(no_cache=True) == 0
