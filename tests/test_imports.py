"""Package structure: no import cycles, no imports for type checkers only, few files at the top of the library."""

from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import grimp
import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("vlprm", "data_synth", "train", "eval")
SOURCES = [path for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py"))]


def test_no_module_imports_itself_through_others() -> None:
    graph = grimp.build_graph(*PACKAGES)
    imports = {module: graph.find_modules_directly_imported_by(module) for module in graph.modules}
    try:
        TopologicalSorter(imports).prepare()
    except CycleError as error:
        pytest.fail(" -> ".join(error.args[1]))


def test_no_import_is_for_type_checkers_alone() -> None:
    assert [str(path) for path in SOURCES if "TYPE_CHECKING" in path.read_text()] == []


def test_the_top_of_the_library_has_few_files() -> None:
    files = [path.name for path in (ROOT / "vlprm").glob("*.py") if path.name != "__init__.py"]
    assert len(files) <= 8, files
