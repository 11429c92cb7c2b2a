"""Executed notebooks as one page that needs nothing else, and their outputs without the traces of one machine."""

import html
import os
import re
import sys
from pathlib import Path

import nbformat

from helpers.machine import PROJECT, cache_root
from helpers.machine.places import DEFAULT_CACHE

WIDGET = "application/vnd.jupyter.widget-view+json"
# The lab template without the scripts that it would fetch from the network.
TEMPLATE = """{%- extends 'lab/index.html.j2' -%}
{%- block html_head_js -%}{%- endblock -%}
{%- block html_head_js_mathjax -%}{%- endblock -%}
{%- block html_head_js_mermaidjs -%}{%- endblock -%}
{%- block html_head_css -%}<style>
main { max-width: 62rem; margin: 0 auto; }
.jp-InputPrompt, .jp-OutputPrompt { opacity: 0.6; }
</style>{%- endblock -%}
"""


def tidy(notebook: nbformat.NotebookNode, runs_root: Path) -> nbformat.NotebookNode:
    """Take out what is of this machine or of this minute: absolute paths, widget state, kernel details.

    Paths in outputs become relative to the project, runs become `runs/…` wherever they were kept, home becomes `~`, and
    corpora lie where they do by default.
    A widget keeps the picture or text that stands in for it where nothing interactive runs. Changes `notebook`.
    """
    places = {str(runs_root): "runs", sys.prefix: ".venv", f"{PROJECT}{os.sep}": "", str(PROJECT): "."}
    places[str(Path.home())] = "~"
    places[str(cache_root())] = DEFAULT_CACHE
    pattern = re.compile("|".join(re.escape(path) for path in sorted(places, key=len, reverse=True) if path != "/"))

    def clean(text):
        if isinstance(text, list):
            return [clean(part) for part in text]
        return pattern.sub(lambda found: places[found.group()], text) if isinstance(text, str) else text

    notebook.metadata.pop("widgets", None)
    notebook.metadata["kernelspec"] = {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"}
    notebook.metadata["language_info"] = {"name": "python", "file_extension": ".py", "pygments_lexer": "ipython3"}
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)
        if "outputs" in cell:
            cell.outputs = joined(cell.outputs)
        for output in cell.get("outputs", ()):
            for key in ("text", "traceback", "evalue"):
                if key in output:
                    output[key] = clean(output[key])
            data = output.get("data", {})
            data.pop(WIDGET, None)
            for kind in data:
                if kind.startswith("text/"):
                    data[kind] = clean(data[kind])
        if "outputs" in cell:
            cell.outputs = [output for output in cell.outputs if output.get("data") != {}]
    return notebook


def joined(outputs: list) -> list:
    """The same outputs with neighbouring pieces of one stream made one, and without text that "\\r" wrote over.

    A stream that goes on below a picture stays there: the line announces the next picture.
    """
    together = []
    for output in outputs:
        last = together[-1] if together else {}
        if output.output_type == "stream" and output.name == last.get("name"):
            last.text += output.text
        else:
            together.append(output)
    for output in together:
        if output.output_type == "stream":
            output.text = re.sub(r".*\r(?=[^\n])", "", output.text)
    return together


def headings(cell: nbformat.NotebookNode) -> list[tuple[int, str]]:
    """(level, words) of the headings of a Markdown cell, code blocks left out."""
    if cell.cell_type != "markdown":
        return []
    text = re.sub(r"^```.*?^```", "", cell.source, flags=re.DOTALL | re.MULTILINE)
    return [(len(marks), words.strip()) for marks, words in re.findall(r"^(#{1,2}) (.+)$", text, flags=re.MULTILINE)]


def combine(title: str, introduction: str, notebooks: dict[str, nbformat.NotebookNode]) -> nbformat.NotebookNode:
    """One notebook of several: a title, `introduction` (Markdown), a table of contents, then each with its anchors."""
    contents, cells = [], []
    for name, notebook in notebooks.items():
        contents.append(f"- [**{name}**](#{name})")
        cells.append(nbformat.v4.new_markdown_cell(f'---\n<a id="{name}"></a>'))
        for number, cell in enumerate(notebook.cells):
            copy = nbformat.from_dict(cell)
            if copy.cell_type == "markdown":  # links between notebooks become links inside the page
                copy.source = re.sub(
                    r"\]\((\w+)\.ipynb(?:#[^)]*)?\)",
                    lambda link: f"](#{link.group(1)})" if link.group(1) in notebooks else link.group(),
                    copy.source,
                )
            if found := [words for level, words in headings(cell) if level == 2]:
                anchor = f"{name}-{number}"
                copy.source = f'<a id="{anchor}"></a>\n\n{copy.source}'
                plain = [re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", words) for words in found]
                contents += [f"    - [{html.escape(words, quote=False)}](#{anchor})" for words in plain]
            cells.append(copy)
    first = nbformat.v4.new_markdown_cell("\n\n".join([f"# {title}", introduction, "\n".join(contents)]))
    for number, cell in enumerate([first, *cells]):
        cell["id"] = f"cell-{number}"
    return nbformat.v4.new_notebook(cells=[first, *cells], metadata={"title": title})


def write(path: Path, title: str, introduction: str, notebooks: dict[str, nbformat.NotebookNode], folder: Path) -> Path:
    """Write `path`, one HTML file. Pictures that the notebooks link to are read from `folder` and put inside."""
    from nbconvert import HTMLExporter

    exporter = HTMLExporter(raw_template=TEMPLATE, embed_images=True, anchor_link_text="¶")
    resources = {"metadata": {"name": title, "path": str(folder)}}
    page, _ = exporter.from_notebook_node(combine(title, introduction, notebooks), resources)
    path.write_text(page)
    return path
