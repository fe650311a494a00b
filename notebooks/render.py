"""Run the notebooks and write them with their outputs: the .py files here are the source, the .ipynb what readers see.

Usage:

    python notebooks/render.py [--out FOLDER] [01_build_an_index ...]
"""

import argparse
import os
import tempfile
from pathlib import Path

import jupytext
from jupyter_client.kernelspec import KernelSpecManager
from jupyter_client.manager import AsyncKernelManager
from nbclient import NotebookClient
from nbformat import NotebookNode

FOLDER = Path(__file__).resolve().parent
CELL_SECONDS = 300


def sources() -> list[Path]:
    """The notebooks' source files, in their order."""
    return sorted(FOLDER.glob("[0-9][0-9]_*.py"))


def execute(source: Path, compiled: Path) -> NotebookNode:
    """Run a source file in a new kernel of this very interpreter, on the bundled sample.

    compiled: a folder where one notebook finds the programs that another has compiled.
    """
    notebook = jupytext.read(source)
    with tempfile.TemporaryDirectory(prefix="geo_mf-") as folder:
        manager = AsyncKernelManager(
            kernel_name="python3",
            # Without folders to look in, "python3" can only be the kernel of the interpreter that runs this.
            kernel_spec_manager=KernelSpecManager(kernel_dirs=[]),
            transport="ipc",
            connection_file=str(Path(folder) / "kernel.json"),
        )
        environment = {name: value for name, value in os.environ.items() if name != "GEO_MF_DATA"}
        environment["IPYTHONDIR"] = folder  # no one's own start-up files
        # A rendered page has no live progress bars; it need not be told that they are not installed.
        environment["PYTHONWARNINGS"] = "ignore:IProgress not found"
        environment |= {"JAX_COMPILATION_CACHE_DIR": str(compiled), "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0"}
        client = NotebookClient(notebook, km=manager, timeout=CELL_SECONDS)
        # The kernel is ours, since the manager is, so that nbclient has to be told to end it.
        client.execute(env=environment, cwd=str(FOLDER), cleanup_kc=True)
    return tidy(notebook)


def tidy(notebook: NotebookNode) -> NotebookNode:
    """Leave out what changes from run to run and from machine to machine: times, versions, ids, long reprs."""
    notebook.metadata = {
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
    }
    for number, cell in enumerate(notebook.cells):
        cell.metadata = {}
        cell.id = f"cell-{number}"
        for output in cell.get("outputs", []):
            if "text/html" in output.get("data", {}):
                output["data"].pop("text/plain", None)
    return notebook


def main() -> None:
    parser = argparse.ArgumentParser(description="Run the notebooks and write them with their outputs.")
    parser.add_argument("names", nargs="*", help="which ones, such as 01_build_an_index; by default all")
    parser.add_argument("--out", type=Path, default=FOLDER, help="where to write them; by default beside the sources")
    options = parser.parse_args()
    unknown = set(options.names) - {source.stem for source in sources()}
    if unknown:
        parser.error(f"no notebook is called {', '.join(sorted(unknown))}")
    with tempfile.TemporaryDirectory(prefix="geo_mf-") as compiled:
        for source in sources():
            if not options.names or source.stem in options.names:
                target = options.out / f"{source.stem}.ipynb"
                jupytext.write(execute(source, Path(compiled)), target, fmt="ipynb")
                print(f"{target.name}: {target.stat().st_size / 1024:.0f} kB")


if __name__ == "__main__":
    main()
