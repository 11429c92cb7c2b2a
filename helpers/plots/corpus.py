"""A corpus drawn: documents, tokens, the bytes of its index, what a split gives, how samples are packed."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from helpers.corpus import Corpus, data_split, index
from helpers.corpus.sample_order import Order
from helpers.corpus.samples import Samples
from helpers.plots import shapes
from helpers.show import bounds, style, tables
from helpers.show.arguments import checked
from helpers.show.style import FAINT, GREY, INK, REFERENCE, RUN_COLOURS, Picture


@checked
def document_lengths(corpus: Corpus, sequence_length: Annotated[int, bounds.TOKENS] = 1024) -> Picture:
    """How long the documents of a `corpus.Corpus` are, in tokens, beside the length of one sample. Logarithmic."""
    import numpy as np
    from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter

    lengths = np.asarray(corpus.document_lengths())
    low, high = max(1, min(lengths.min(), sequence_length)), max(lengths.max(), sequence_length) + 1
    middle = float(np.median(lengths))
    with style.apply():
        figure, axes = style.new_figure(height=2.8)
        edges = np.geomspace(low / 1.1, high * 1.1, 40)
        axes.hist(lengths, bins=edges, color=RUN_COLOURS[1], edgecolor="white", linewidth=0.6)
        axes.axvline(middle, **REFERENCE | {"zorder": 3})
        axes.axvline(sequence_length, color=INK, lw=1.6)
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
        axes.xaxis.set_minor_formatter(NullFormatter())
        axes.yaxis.set_major_locator(MaxNLocator(integer=True))
        axes.set(xlabel="tokens in a document (logarithmic axis)", ylabel="documents")
        axes.margins(y=0.25)
        words = {"va": "top", "transform": axes.get_xaxis_transform()}
        axes.text(middle, 0.99, f" median {middle:,.0f}", color=GREY, **words)
        axes.text(sequence_length, 0.99, f" one sample: {sequence_length:,}", color=INK, **words)
    alt = f"Lengths of {len(lengths):,} documents: {lengths.min():,} to {lengths.max():,} tokens, median {middle:,.0f}."
    shorter = int((lengths < sequence_length).sum())
    return Picture(figure, f"{alt} A sample has {sequence_length:,}: {shorter:,} documents are shorter than that.")


CELLS_A_ROW = 25


@checked
def blend_order(order: Order, first: Annotated[int, bounds.COUNT] = 100) -> Picture:
    """The first samples of a blend as cells, in the order of training, one colour a member, and what each got.

    Args:
        order: a `corpus.Order`, from `corpus.order`.
        first: how many samples to draw.
    """
    from matplotlib.patches import Rectangle

    shown = order.members[:first]
    rows = -(-len(shown) // CELLS_A_ROW)
    names, total = order.blend.names, len(order.members)
    with style.apply():
        figure, axes = shapes.canvas(8.2, 0.34 * rows + 0.3 * len(names) + 0.45)
    for i, member in enumerate(shown):
        x, y = 0.1 + 0.32 * (i % CELLS_A_ROW), 0.32 + 0.34 * (i // CELLS_A_ROW)
        axes.add_patch(Rectangle((x, y), 0.29, 0.29, fc=_colour(member), lw=0))
    axes.text(0.1, 0.16, f"samples 1 to {len(shown)}, row by row", va="center", fontsize=10, color=FAINT)
    words = []
    for member, (name, count, share) in enumerate(zip(names, order.counts, order.blend.shares, strict=True)):
        y = 0.34 * rows + 0.55 + 0.3 * member
        axes.add_patch(Rectangle((0.1, y - 0.1), 0.2, 0.2, fc=_colour(member), lw=0))
        words.append(f"{name}: {count:,} of {total:,} samples, {count / total:.1%} (asked for: {share:.1%})")
        axes.text(0.4, y, words[-1], va="center", fontsize=10.5, color=INK)
    return Picture(figure, f"The first {len(shown)} samples of {order.blend.name}. {'; '.join(words)}.")


def _colour(member: int):
    return shapes.tint(RUN_COLOURS[1 + member % 6], 0.7)


INDEX_SECTIONS = {  # field of the index -> section, which gives its colour
    "magic": 0,
    "version": 1,
    "dtype code": 1,
    "sequences": 2,
    "document indices": 2,
    "sequence length": 3,
    "sequence pointer": 4,
    "document index": 5,
}


@checked
def index_bytes(prefix: Path | str, first: Annotated[int, range(101)] = 2) -> Picture:
    """The bytes of `<prefix>.idx`, one line a field: where it lies, its bytes as hexadecimal boxes, what they say.

    Args:
        first: how many entries of each of the three arrays to show.
    """
    from matplotlib.patches import Rectangle

    table = index.fields(prefix, first)
    raw = index.idx_path(prefix).read_bytes()
    with style.apply():
        from matplotlib.figure import Figure

        height = 0.3 * len(table) + 0.5
        figure = Figure(figsize=(9.6, height))
        axes = figure.add_axes((0, 0, 1, 1))
        axes.set(xlim=(0, 32), ylim=(len(table) + 0.35, -1.3))
        axes.axis("off")
        words = {"va": "center", "fontsize": 10, "color": INK}
        for x, title, side in ((2.1, "byte", "right"), (2.6, "bytes, hexadecimal", "left"), (15.6, "field", "left")):
            axes.text(x, -0.75, title, ha=side, **words | {"color": FAINT})
        axes.text(27.6, -0.75, "value", ha="right", **words | {"color": FAINT})
        for y, row in enumerate(table.itertuples()):
            colour = RUN_COLOURS[1 + INDEX_SECTIONS[row.field.split(" [")[0]]]
            axes.text(2.1, y, f"{row.offset:,}", ha="right", **words)
            for i, byte in enumerate(raw[row.offset : row.offset + row.bytes]):
                axes.add_patch(Rectangle((2.6 + 1.4 * i, y - 0.43), 1.32, 0.86, fc=colour, alpha=0.35, lw=0))
                code = {"ha": "center", "family": "DejaVu Sans Mono", "fontsize": 9.5, "va": "center"}
                axes.text(2.6 + 1.4 * i + 0.66, y, f"{byte:02x}", color=INK if byte else "#8A8A8A", **code)
            axes.text(15.6, y, row.field, **words)
            value = "MMIDIDX" if row.field == "magic" else f"{row.value:,}"
            axes.text(27.6, y, value, ha="right", **words | {"weight": "bold"})
            axes.text(28.0, y, row.type if row.field != "magic" else "", **words | {"color": FAINT})
    listed = ", ".join(
        f"{row.field} = {'MMIDIDX' if row.field == 'magic' else row.value}" for row in table.itertuples()
    )
    return Picture(figure, f"Bytes of {index.idx_path(prefix).name}, field by field: {listed}.")


@checked
def packing(samples: Samples) -> Picture:
    """Samples as bars of tokens, one colour per document with its number, a black mark at every end-of-document token.

    A jagged edge marks where a sample cuts a document: the rest of it lies in another sample.

    Args:
        samples: a `samples.Samples`, from `samples.draw`.
    """
    count, length = samples.tokens.shape
    parts = samples.parts
    documents = list(dict.fromkeys(zip(parts["corpus"], parts["document"], strict=True)))
    figure, axes = style.new_figure(width=8.2, height=0.75 + 0.42 * count)
    with style.apply():
        for part in parts.itertuples():
            colour = RUN_COLOURS[1 + documents.index((part.corpus, part.document)) % 6]
            pale = shapes.tint(colour, 0.45)
            axes.barh(part.sample, part.tokens, left=part.position, height=0.66, fc=pale, ec="white", lw=0.8)
            label = f"document {part.document:,}"
            label = label if part.tokens > 0.17 * length else f"{part.document}" if part.tokens > 0.05 * length else ""
            middle = part.position + part.tokens / 2
            axes.text(middle, part.sample, label, ha="center", va="center", fontsize=9.5, color=INK)
            if part.first_token:
                _jag(axes, part.position, part.sample, length)
        ends = [(i, end + 1) for i in range(count) for end in samples.document_ends(i)]
        width = max(1.0, length / 300)
        axes.barh([i for i, _ in ends], width, left=[at - width for _, at in ends], height=0.8, color=INK, lw=0)
        for i in range(count):
            if not ends or (i, length) not in ends:
                _jag(axes, length, i, length)
        axes.set(xlim=(-length / 100, length * 1.01), ylim=(count - 0.5, -0.5), yticks=range(count))
        axes.set_yticklabels([f"sample {i}" for i in range(count)])
        axes.set_xlabel("token")
        axes.grid(False)
        axes.tick_params(axis="y", length=0)
        axes.spines[["left"]].set_visible(False)
    held = parts.drop_duplicates(["sample", "corpus", "document"]).groupby("sample").size()
    alt = f"{count} samples of {length} tokens from {len(documents)} documents; they hold parts of "
    return Picture(figure, alt + ", ".join(map(str, held)) + f" documents, with {len(ends)} ends of documents in all.")


def _jag(axes, x: float, row: int, length: int) -> None:
    """A white zigzag across a bar: here a document is cut."""
    reach = length / 160
    heights = [row - 0.36 + 0.09 * i for i in range(9)]
    axes.plot([x + reach * (-1) ** i for i in range(9)], heights, color="white", lw=2.4, clip_on=False)


LETTER = 0.095  # inches a character of 10 pt monospace takes, with a little room
TOKENS_A_ROW, ROW = 9, 1.6  # of token_bytes; the height of a row in inches
MONOSPACE = {"family": "DejaVu Sans Mono", "va": "center", "ha": "center", "color": INK}


@checked
def pieces(text: Annotated[str, bounds.LINE], *corpora: Corpus) -> Picture:
    """A text as boxes, one per token, one row per tokenizer. A space shows as "·".

    Args:
        text: up to about 90 characters fit.
        corpora: their tokenizers cut the text.
    """
    from matplotlib.patches import FancyBboxPatch

    if not text or not corpora:
        raise ValueError('plots.pieces: there is nothing to cut. It takes a text and corpora: pieces("a text", data).')
    cut = {corpus.tokenizer: [corpus.decode([i]) for i in corpus.encode(text)] for corpus in corpora}
    width = LETTER * (len(text) + 0.45 * max(map(len, cut.values()))) + 0.2
    height = 0.72 * len(cut)
    with style.apply():
        figure, axes = shapes.canvas(width, height)
    for row, (name, tokens) in enumerate(cut.items()):
        x, y = 0.1, 0.72 * row
        per_token = len(text.encode()) / len(tokens)
        title = f"{name}: {len(tokens)} tokens, {per_token:.1f} bytes per token"
        axes.text(x, y + 0.15, title, va="center", fontsize=10, color=FAINT)
        for i, token in enumerate(tokens):
            shown = tables.visible_spaces(token)
            wide = LETTER * (len(shown) + 0.45)
            colour = shapes.tint(RUN_COLOURS[1 + i % 3], 0.5)
            shape = FancyBboxPatch(
                (x + 0.02, y + 0.31), wide - 0.04, 0.3, boxstyle="round,pad=0,rounding_size=0.04", fc=colour, lw=0
            )
            axes.add_patch(shape)
            axes.text(x + wide / 2, y + 0.46, shown, fontsize=10, **MONOSPACE)
            x += wide
    listed = "; ".join(f"{name} cuts it into {len(tokens)}: {' | '.join(tokens)}" for name, tokens in cut.items())
    return Picture(figure, f"The text “{text}” as tokens. {listed}.")


@checked
def token_bytes(data: Corpus, count: Annotated[int, range(1, 201)] = 16) -> Picture:
    """The first tokens of a `.bin`: where each lies, its bytes in hexadecimal, the id they say, its text.

    One colour per document (of the index's sequences), and one row; end-of-document tokens have a dark edge.
    """
    from matplotlib.patches import Rectangle

    opened = data.open_index()
    ids = opened.token_ids()[:count]
    ends = opened.sequence_lengths.cumsum()
    texts = [tables.visible_spaces(data.decode([i])) for i in ids]
    widths = [max(0.58 if opened.itemsize == 2 else 1.0, LETTER * 0.85 * len(text) + 0.1) for text in texts]
    rows = [[0]]
    for i in range(1, len(ids)):
        if ids[i - 1] == data.eod_id or len(rows[-1]) == TOKENS_A_ROW:
            rows.append([])
        rows[-1].append(i)
    wide = max(sum(widths[i] for i in row) for row in rows) + 0.1
    with style.apply():
        figure, axes = shapes.canvas(wide + 0.95, ROW * len(rows) - 0.1)
    for number, row in enumerate(rows):
        left, top = 0.1, ROW * number
        for y, name in ((0.2, "byte"), (0.55, "bytes"), (0.92, "token id"), (1.27, "text")):
            axes.text(wide + 0.1, top + y, name, va="center", fontsize=10, color=FAINT)
        for i in row:
            token, middle = ids[i], left + widths[i] / 2
            colour = shapes.tint(RUN_COLOURS[1 + int((ends <= i).sum()) % 6], 0.5)
            edge = {"ec": INK, "lw": 1.2} if token == data.eod_id else {"lw": 0}
            axes.add_patch(Rectangle((left + 0.03, top + 0.36), widths[i] - 0.06, 0.38, fc=colour, **edge))
            axes.text(middle, top + 0.2, f"{i * opened.itemsize:,}", va="center", ha="center", fontsize=9, color=FAINT)
            axes.text(middle, top + 0.55, token.tobytes().hex(" "), fontsize=9.5, **MONOSPACE)
            axes.text(middle, top + 0.92, f"{token}", va="center", ha="center", fontsize=9.5, color=INK, weight="bold")
            axes.text(middle, top + 1.27, texts[i], fontsize=8.5, **MONOSPACE)
            left += widths[i]
    listed = ", ".join(f"{token} “{text}”" for token, text in zip(ids, texts, strict=True))
    return Picture(figure, f"The first {len(ids)} tokens of {data.prefix.name}.bin: {listed}.")


@checked
def split_parts(data: Corpus, *splits: str, sequence_length: Annotated[int, bounds.TOKENS] = 1024) -> Picture:
    """What each `--split` makes of a corpus: one row per split, the documents in their order, one colour per part."""
    if not splits:
        raise ValueError('plots.split_parts: there is no split. It takes some: plots.split_parts(data, "90,5,5").')
    parts = {text: data_split.parts(data.open_index(), text, sequence_length) for text in splits}
    total = data.open_index().sequences
    figure, axes = style.new_figure(width=8.2, height=0.75 + 0.72 * len(splits))
    with style.apply():
        for row, found in enumerate(parts.values()):
            for i, part in enumerate(found):
                pale = shapes.tint(RUN_COLOURS[1 + i], 0.55)
                axes.barh(row, part["documents"], left=part["first"], height=0.42, fc=pale, ec="white", lw=1)
                x = total * (0.01 + 0.27 * i)
                axes.scatter(x, row - 0.37, s=60, marker="s", fc=pale, lw=0)
                weight = "bold" if part["problem"] else "normal"
                axes.text(x + total * 0.015, row - 0.37, _counted(part), va="center", fontsize=10, weight=weight)
        axes.set(xlim=(0, total), ylim=(len(splits) - 0.6, -0.72), yticks=range(len(splits)), xlabel="document")
        axes.set_yticklabels(splits)
        axes.grid(False)
        axes.tick_params(axis="y", length=0)
        axes.spines[["left"]].set_visible(False)
    alt = "; ".join(f"--split {text}: " + ", ".join(map(_counted, found)) for text, found in parts.items())
    return Picture(figure, f"{total} documents. {alt}.")


def _counted(part: dict) -> str:
    number = f"{part['documents']:,} documents" if part["documents"] != 1 else "1 document"
    return f"{part['part']} {number}" + (f" ({part['problem']}!)" if part["problem"] else "")
