"""Run notebooks and store their outputs, without widgets, times and whatever else differs from machine to machine.

python tests/store_notebook.py notebooks/01_review.ipynb
"""

import sys
from pathlib import Path

import nbformat
from nbclient import NotebookClient

WIDGET = "application/vnd.jupyter.widget-view+json"


def store(path):
    book = nbformat.read(path, 4)
    options = {"kernel_name": "python3", "record_timing": False, "store_widget_state": False}
    NotebookClient(book, timeout=120, resources={"metadata": {"path": str(path.parent)}}, **options).execute()
    kernel = {"name": "python3", "display_name": "Python 3 (ipykernel)", "language": "python"}
    book.metadata = nbformat.from_dict({"kernelspec": kernel, "language_info": {"name": "python"}})
    for i, cell in enumerate(book.cells):
        cell.id = f"cell-{i:02d}"
        tags = cell.metadata.get("tags")
        cell.metadata = nbformat.from_dict({"tags": tags} if tags else {})
        for output in cell.get("outputs", ()):
            output.get("data", {}).pop(WIDGET, None)
    nbformat.validate(book)
    nbformat.write(book, path)


if __name__ == "__main__":
    for name in sys.argv[1:]:
        store(Path(name))
