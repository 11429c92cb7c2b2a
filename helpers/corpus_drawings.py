"""Pictures of a corpus: a text cut into tokens, the bytes of a .bin, the parts that --split gives."""

from helpers import drawings
from helpers.corpus import Corpus, data_split
from helpers.show import style, tables
from helpers.show.style import FAINT, INK, RUN_COLOURS, Picture

LETTER = 0.095  # inches a character of 10 pt monospace takes, with a little room
TOKENS_A_ROW, ROW = 9, 1.6  # of token_bytes; the height of a row in inches
MONOSPACE = {"family": "DejaVu Sans Mono", "va": "center", "ha": "center", "color": INK}


def pieces(text: str, *corpora: Corpus) -> Picture:
    """A text as boxes, one a token, a row a tokenizer. A space shows as "·".

    Args:
        text: up to about 90 characters fit.
        corpora: their tokenizers cut the text.
    """
    from matplotlib.patches import FancyBboxPatch

    cut = {corpus.tokenizer: [corpus.decode([i]) for i in corpus.encode(text)] for corpus in corpora}
    width = LETTER * (len(text) + 0.45 * max(map(len, cut.values()))) + 0.2
    height = 0.72 * len(cut)
    axes = _canvas(width, height)
    for row, (name, tokens) in enumerate(cut.items()):
        x, y = 0.1, 0.72 * row
        per_token = len(text.encode()) / len(tokens)
        title = f"{name}: {len(tokens)} tokens, {per_token:.1f} bytes per token"
        axes.text(x, y + 0.15, title, va="center", fontsize=10, color=FAINT)
        for i, token in enumerate(tokens):
            shown = tables.visible_spaces(token)
            wide = LETTER * (len(shown) + 0.45)
            colour = drawings.tint(RUN_COLOURS[1 + i % 3], 0.5)
            shape = FancyBboxPatch(
                (x + 0.02, y + 0.31), wide - 0.04, 0.3, boxstyle="round,pad=0,rounding_size=0.04", fc=colour, lw=0
            )
            axes.add_patch(shape)
            axes.text(x + wide / 2, y + 0.46, shown, fontsize=10, **MONOSPACE)
            x += wide
    listed = "; ".join(f"{name} cuts it into {len(tokens)}: {' | '.join(tokens)}" for name, tokens in cut.items())
    return Picture(axes.figure, f"The text “{text}” as tokens. {listed}.")


def token_bytes(data: Corpus, count: int = 16) -> Picture:
    """The first tokens of a `.bin`: where each lies, its bytes in hexadecimal, the id they say, its text.

    A colour a document (of the index's sequences), and a row of its own; end-of-document tokens have a dark edge.
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
    axes = _canvas(wide + 0.95, ROW * len(rows) - 0.1)
    for number, row in enumerate(rows):
        left, top = 0.1, ROW * number
        for y, name in ((0.2, "byte"), (0.55, "bytes"), (0.92, "token id"), (1.27, "text")):
            axes.text(wide + 0.1, top + y, name, va="center", fontsize=10, color=FAINT)
        for i in row:
            token, middle = ids[i], left + widths[i] / 2
            colour = drawings.tint(RUN_COLOURS[1 + int((ends <= i).sum()) % 6], 0.5)
            edge = {"ec": INK, "lw": 1.2} if token == data.eod_id else {"lw": 0}
            axes.add_patch(Rectangle((left + 0.03, top + 0.36), widths[i] - 0.06, 0.38, fc=colour, **edge))
            axes.text(middle, top + 0.2, f"{i * opened.itemsize:,}", va="center", ha="center", fontsize=9, color=FAINT)
            axes.text(middle, top + 0.55, token.tobytes().hex(" "), fontsize=9.5, **MONOSPACE)
            axes.text(middle, top + 0.92, f"{token}", va="center", ha="center", fontsize=9.5, color=INK, weight="bold")
            axes.text(middle, top + 1.27, texts[i], fontsize=8.5, **MONOSPACE)
            left += widths[i]
    listed = ", ".join(f"{token} “{text}”" for token, text in zip(ids, texts, strict=True))
    return Picture(axes.figure, f"The first {len(ids)} tokens of {data.prefix.name}.bin: {listed}.")


def split_parts(data: Corpus, *splits: str, sequence_length: int = 1024) -> Picture:
    """What each `--split` makes of a corpus: a row a split, the documents in their order, a colour a part."""
    parts = {text: data_split.parts(data.open_index(), text, sequence_length) for text in splits}
    total = data.open_index().sequences
    figure, axes = style.new_figure(width=8.2, height=0.75 + 0.72 * len(splits))
    with style.apply():
        for row, found in enumerate(parts.values()):
            for i, part in enumerate(found):
                pale = drawings.tint(RUN_COLOURS[1 + i], 0.55)
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


def _canvas(width: float, height: float):
    """Axes in inches, y downwards, without frame."""
    from matplotlib.figure import Figure

    with style.apply():
        figure = Figure(figsize=(width, height))
        axes = figure.add_axes((0, 0, 1, 1))
        axes.set(xlim=(0, width), ylim=(height, 0))
        axes.axis("off")
    return axes
