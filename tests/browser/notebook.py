"""A notebook in a browser, driven through JupyterLab's own promises and models: no waits for a spinner, no sleeps."""

import json

import nbformat

#: finds the notebook of a path; what follows is the body of an asynchronous function
_FIND = """
const app = window.jupyterapp;
const book = [...app.shell.widgets('main')].find(one => one.context?.path === path);
const cells = book?.content.model.cells, session = book?.context.sessionContext;
"""
_OPEN = """
await app.restored;
const opened = await app.commands.execute('docmanager:open', {path, factory: 'Notebook'});
await opened.context.ready;
await opened.context.sessionContext.ready;
await opened.context.sessionContext.session.kernel.info;
"""
_RUN = """
app.shell.activateById(book.id);
book.content.activeCellIndex = index;
cells.get(index).sharedModel.execution_count = null;
app.commands.execute('notebook:run-cell');
"""
_RUN_ALL = """
app.shell.activateById(book.id);
await app.commands.execute('notebook:run-all-cells');
"""
_CELLS = """
return [...cells].map(cell => ({type: cell.type, source: cell.sharedModel.getSource()}));
"""
_ERRORS = """
const wrong = cells.get(index).outputs.toJSON().filter(one => one.output_type === 'error');
return wrong.map(one => `${one.ename}: ${one.evalue}`);
"""
_TELL = """
const asked = session.session.kernel.requestExecute({code, store_history: false, stop_on_error: false});
let said = '', wrong = null;
asked.onIOPub = message => {
    if (message.header.msg_type === 'stream') said += message.content.text;
    if (message.header.msg_type === 'error') wrong = `${message.content.ename}: ${message.content.evalue}`;
};
await asked.done;
if (wrong) throw new Error(wrong);
return said;
"""


class Notebook:
    """An open notebook with a kernel."""

    def __init__(self, page, file):
        self.page, self.file = page, file

    @classmethod
    def open(cls, page, file, cells=("",)):
        """Write a notebook of some cells and open it."""
        book = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
        book.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3", "language": "python"}
        nbformat.write(book, file)
        return cls(page, file).show()

    def show(self):
        """Open a notebook that is there."""
        self._js(_OPEN)
        return self

    def _js(self, body, **given):
        names = "".join(f", {name}" for name in given)
        return self.page.evaluate(f"async ([path{names}]) => {{{_FIND}{body}}}", [self.file.name, *given.values()])

    def run(self, index=0, wait=True):
        """Run a cell; a cell that fails fails the test."""
        self._js(_RUN, index=index)
        if wait:
            self.page.wait_for_function(
                f"([path, index]) => {{{_FIND} const cell = cells.get(index);"
                " return cell.executionCount !== null && cell.executionState !== 'running'; }",
                arg=[self.file.name, index],
            )
            assert not (errors := self._js(_ERRORS, index=index)), "\n".join(errors)
        return self

    def run_all(self):
        """Run every cell; one that fails fails the test."""
        self._js(_RUN_ALL)
        for index, cell in enumerate(self.cells()):
            if cell["type"] == "code":
                assert not (errors := self._js(_ERRORS, index=index)), "\n".join(errors)

    def type(self, code, index=0, wait=True):
        """Put code into a cell and run it."""
        self._js("cells.get(index).sharedModel.setSource(code);", index=index, code=code)
        return self.run(index, wait)

    def is_running(self, index):
        return self._js("return cells.get(index).executionState;", index=index) == "running"

    def ask(self, expression):
        """Return what an expression is worth in the kernel, by way of JSON."""
        return json.loads(self.tell(f"import json as _json\nprint(_json.dumps({expression}))"))

    def tell(self, code):
        """Run statements in the kernel, beside the cells; returns what they print."""
        return self._js(_TELL, code=code)

    def cells(self):
        """Return type and source of every cell: a key that reached the notebook shows here."""
        return self._js(_CELLS)

    def restart(self):
        self._js("await session.restartKernel(); await session.session.kernel.info;")

    def save(self):
        """Save, and return what stands in the file."""
        self._js("await book.context.save();")
        return self.file.read_text(encoding="utf-8")

    def shut_down(self):
        """End the kernel; its process is gone when this returns."""
        self._js("await session.shutdown();")

    def close(self):
        """Close it and let its kernel end."""
        self._js("session.shutdown(); book.context.model.dirty = false; book.close();")
