"""Draw what ``python -m benchmarks.roundtrips --json docs/roundtrips.json`` has written.

``uv run --group docs python docs/plot.py docs/roundtrips.json docs/roundtrips.svg``
"""

import json
import sys
from collections import defaultdict
from pathlib import Path

import matplotlib as mpl
from matplotlib.figure import Figure

TITLES = {"psycopg": "psycopg", "psycopg_async": "psycopg, asyncio", "asyncpg": "asyncpg"}
STYLES = {
    "plain": {"color": "black", "linestyle": "--", "label": "plain SQLAlchemy, unbound"},
    "two statements": {"color": "tab:red", "label": "two statements in after_begin"},
    "statement": {"color": "tab:orange"},
    "with_begin": {"color": "tab:blue"},
    "pipeline": {"color": "tab:green"},
    "one-shot": {"color": "tab:purple", "label": "one-shot, in AUTOCOMMIT"},
}


def draw(figures: list[dict], target: Path) -> None:
    # The same figures give the same file, and text stays text.
    mpl.rcParams |= {"svg.hashsalt": "sqla_rls", "svg.fonttype": "none"}
    lines = defaultdict(lambda: defaultdict(list))
    for each in figures:
        lines[each["driver"]][each["transport"]].append((each["delay"], each["median"]))
    sheet = Figure(figsize=(10, 4), layout="constrained")
    panels = sheet.subplots(1, len(lines), sharey=True, squeeze=False)[0]
    for axes, (driver, transports) in zip(panels, lines.items(), strict=True):
        for transport, style in STYLES.items():
            if transport in transports:
                delays, medians = zip(*sorted(transports[transport]), strict=True)
                axes.plot(delays, medians, marker="o", markersize=3, **{"label": transport, **style})
        axes.set(title=TITLES[driver], xlabel="added to a round trip, ms")
        axes.grid(alpha=0.3)
    sheet.axes[0].set_ylabel("one SELECT, then COMMIT, ms")
    handles, labels = sheet.axes[0].get_legend_handles_labels()
    sheet.legend(handles, labels, loc="outside lower center", ncols=3, frameon=False)
    sheet.savefig(target, metadata={"Date": None})


if __name__ == "__main__":
    draw(json.loads(Path(sys.argv[1]).read_text())["figures"], Path(sys.argv[2]))
