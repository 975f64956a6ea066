"""The loss curve as a PNG, which the Hub shows inside a card: the same bytes for the same numbers and fonts."""

from __future__ import annotations

import io

from distill.measures import Training

INK, FIRST, SECOND = "#333333", "#3b6fb6", "#c46a1b"
"""Readable on the Hub's light page; the picture has a white ground of its own for its dark one."""


def loss_curve(training: Training) -> bytes:
    """Loss by step, the held-out loss beside it."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    with mpl.rc_context({"font.family": "DejaVu Sans", "font.size": 11, "text.color": INK, "axes.labelcolor": INK}):
        figure = Figure(figsize=(7, 3.2), dpi=110, layout="constrained", facecolor="white")
        axes = figure.subplots()
        for points, label, colour in ((training.loss, "training", FIRST), (training.heldout, "held out", SECOND)):
            if points:
                steps, losses = zip(*points, strict=True)
                axes.plot(
                    steps, losses, color=colour, label=label, linewidth=1.6, marker="." if len(points) < 3 else ""
                )
        axes.set_xlabel("step")
        axes.set_ylabel("loss")
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(visible=True, color="#dddddd", linewidth=0.6)
        axes.legend(frameon=False)
        file = io.BytesIO()
        figure.savefig(file, format="png", metadata={"Software": None})
    return file.getvalue()
