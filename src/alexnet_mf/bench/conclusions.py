"""Conclusions from a benchmark, as sentences, and remarks on single figures."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from alexnet_mf.backends.execution import switched_off
from alexnet_mf.bench.figures import RANKED, Row
from alexnet_mf.bench.plan import OURS
from alexnet_mf.instruments import statistics
from alexnet_mf.instruments.statistics import Candidate
from alexnet_mf.instruments.units import estimate_text, times


def gains(rows: Sequence[Row]) -> list[str]:
    """Return what each setting gains, if it was left out or tried in a process beside the full one."""
    lines = []
    for row in rows:
        if row.phase not in RANKED or row.full or row.worker.style != OURS:
            continue
        for whole in rows:
            same = (whole.full and whole.run == row.run and whole.worker.backend == row.worker.backend
                    and whole.conditions == row.conditions)
            if not same:
                continue
            changed = {name: on for name, on in row.worker.speed.items() if whole.worker.speed.get(name) is not on}
            without, also = switched_off(changed), sorted(name for name, on in changed.items() if on)
            gained = statistics.ratio(row.rates, whole.rates) if also else statistics.ratio(whole.rates, row.rates)
            if gained:
                sure = gained.low is not None and gained.high is not None and (gained.low > 1 or gained.high < 1)
                what, beside = ((f"with {' and '.join(also)}", "without") if also
                                else ("", f"without {', '.join(without)}"))
                lines.append(f"{row.phase}, batch {row.batch_size}: {' '.join(filter(None, [whole.label, what]))} is "
                             f"{estimate_text(gained, times, 'x')} of what it is {beside}"
                             f"{'' if sure else ': no difference seen'}")
    return lines


def ranking(rows: Sequence[Row]) -> list[str]:
    """Return who is faster, pair by pair, for each ranked phase and batch size."""
    sentences: list[str] = []
    keys = dict.fromkeys((row.phase, row.batch_size) for row in rows if row.phase in RANKED)
    for phase, batch_size in keys:
        here = [row for row in rows if (row.phase, row.batch_size) == (phase, batch_size) and row.full]
        here.sort(key=lambda row: -row.rate.median)
        if len(here) < 2:
            continue
        differing = sorted({key for row in here for key in row.conditions
                            if row.conditions[key] != here[0].conditions[key]})
        lines = []
        for a, b in itertools.combinations(here, 2):
            if a.conditions != b.conditions:
                continue
            winner = statistics.faster(*(Candidate(row.label, row.rate, row.conditions) for row in (a, b)))
            far = statistics.ratio(a.rates, b.rates) if a.run == b.run else None
            by = f", {estimate_text(far, times, 'x')}" if far else ", in separate runs"
            few = ": too few rounds for an interval" if min(a.rate.n, b.rate.n) < statistics.FEWEST else ""
            lines.append(f"{a.label} and {b.label}: no difference seen{few}" if winner is None
                         else f"{a.label} is faster than {b.label}{by}")
        sentences += [f"{phase}, batch {batch_size}: {line}" for line in lines]
        if differing:
            several = "; ".join(f"{key} ({', '.join(sorted({row.conditions[key] for row in here}))})"
                                for key in differing)
            sentences.append(f"{phase}, batch {batch_size}: not ranked across different {several}")
    return sentences


def remarks(rows: Sequence[Row]) -> list[str]:
    """Return the remarks on single figures."""
    lines = []
    if any(not row.steady for row in rows):
        lines.append("* still getting faster when the warm-up's time was up: its figure may be too low")
    above = [row for row in rows if row.share and row.share.median > 1 and row.ceiling == "matrix product"]
    if above:
        lines.append("above the matrix product's rate: a convolution may take fewer multiplications than the "
                     f"arithmetic counts ({', '.join(dict.fromkeys(f'{row.label} {row.phase}' for row in above))})")
    return lines
