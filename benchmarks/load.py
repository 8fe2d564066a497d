"""Thirty people at once on one server: edit latency, fairness of the queue, memory over time.

Starts the app in a process of its own and talks to it as the page does, over the same HTTP events:
each visitor holds a heartbeat, edits a plan every few seconds and has both models speak; some close
their tab in mid-sentence and come back as somebody new. Bounded in time.

`--minutes 10` replays an hour of such a room in ten minutes: so many actions for each person
(`--actions`), of which six in ten are edits, one in seven has both models speak, and the
others open the base anew or leave and come back. Hardly a plan comes twice, so that whatever is
kept for a plan would be seen to grow. Reports memory along the way, and what is left once
everybody has gone.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import psutil

from ._visitor import Visitor

ROOT = Path(__file__).parents[1]
GOAL = 0.3  # seconds, at the 95th percentile
PLANS = ("0:13, 17:30", "0:30", "0:22, 8:30", "0:8, 7@identity, 8:30", "0:10", "0:30, 5:9")


@dataclass
class Figures:
    """What was seen."""

    edits: list[tuple[float, bool]] = field(default_factory=list)  # seconds, did others speak?
    turns: Counter = field(default_factory=Counter)  # answers by place in the room
    waits: list[float] = field(default_factory=list)  # seconds from asking to the first word
    places: list[int] = field(default_factory=list)
    memory: list[tuple[float, float]] = field(default_factory=list)  # seconds, MB
    closed: int = 0
    problems: Counter = field(default_factory=Counter)
    speaking: int = 0
    actions: Counter = field(default_factory=Counter)


async def visit(place: int, client, events, figures: Figures, until: float, tokens: int) -> None:
    """One seat in the room, from first opening to the end."""
    chance = random.Random(place)
    while time.monotonic() < until:
        visitor = Visitor(client, events)
        try:
            await visitor.open()
            while time.monotonic() < until:
                for _ in range(chance.randint(2, 4)):
                    others = figures.speaking > 0
                    figures.edits.append((await visitor.edit(chance.choice(PLANS)), others))
                    await asyncio.sleep(chance.uniform(0.5, 3))
                closes = chance.random() < 0.15
                await speak(visitor, place, figures, until, tokens, closes)
                if closes:
                    break
        except Exception as error:
            figures.problems[f"{type(error).__name__}: {str(error)[:80]}"] += 1
            await asyncio.sleep(1)
        finally:
            await visitor.leave()


def any_plan(chance: random.Random, depth: int = 30) -> str:
    """A plan that hardly comes twice: something dropped, something repeated, or both."""
    start = chance.randrange(2, depth - 8)
    end = start + chance.randrange(1, 6)
    back = chance.randrange(0, start)
    init = chance.choice(("", "", "@identity", f"@scale={chance.randrange(1, 99) / 100}"))
    return chance.choice(
        (
            f"0:{start}, {end}:{depth}",
            f"0:{end}, {back}:{depth - chance.randrange(0, 4)}",
            f"0:{start}, {start}:{end}{init}, {start}:{depth}",
        )
    )


async def hour(place: int, client, events, figures: Figures, until: float, tokens: int, pause):
    """One person's hour, an action every `pause` seconds or so."""
    chance = random.Random(place)
    while time.monotonic() < until:
        await asyncio.sleep(chance.uniform(0.5, 1.5) * pause)
        figures.actions["come"] += 1
        visitor = Visitor(client, events)
        try:
            await visitor.open()
            while time.monotonic() < until:
                await asyncio.sleep(chance.uniform(0.5, 1.5) * pause)
                what = chance.choices(("edit", "speak", "open", "leave"), (60, 14, 10, 16))[0]
                figures.actions[what] += 1
                if what == "leave":
                    break
                if what == "edit":
                    others = figures.speaking > 0
                    figures.edits.append((await visitor.edit(any_plan(chance)), others))
                elif what == "speak":
                    closes = chance.random() < 0.15
                    await speak(visitor, place, figures, until, tokens, closes)
                    if closes:
                        break
                else:
                    await visitor.open()
        except Exception as error:
            figures.problems[f"{type(error).__name__}: {str(error)[:80]}"] += 1
        finally:
            await visitor.leave()


async def speak(visitor, place, figures: Figures, until: float, tokens: int, closes: bool) -> None:
    """Have both models speak; or close the tab once they have begun."""
    settings = [True, False, tokens, 0, 0.8, 0.95]
    began, first = time.monotonic(), None
    figures.speaking += 1
    answer = visitor.event("speak", ["Once upon a time", *settings])
    try:
        async for data in answer:
            text, shown = (data[0] or {}).get("text") or "", data[1] or {}
            if "Place" in text:
                figures.places.append(int(text.split()[1]))
            if first is None and shown.get("patient", {}).get("text"):
                first = time.monotonic()
                figures.waits.append(first - began)
                if closes:
                    figures.closed += 1
                    return
        figures.turns[place] += first is not None
    finally:
        await answer.aclose()
        figures.speaking -= 1


async def room(
    url: str,
    server: psutil.Process,
    people: int,
    seconds: float,
    tokens: int,
    pause: float = 0,
    watched: Path | None = None,
):
    """Everybody, for so long; then the quiet after they left."""
    figures = Figures()
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=None)
    timeout = httpx.Timeout(10, read=None, pool=None)
    async with httpx.AsyncClient(base_url=url, limits=limits, timeout=timeout) as client:
        config = (await client.get("config")).json()
        events = {}
        for event in config["dependencies"]:
            events.setdefault(event["api_name"], event)
        start = time.monotonic()

        async def weigh() -> None:
            while True:
                figures.memory.append((time.monotonic() - start, _megabytes(server)))
                await asyncio.sleep(2)

        scales = asyncio.create_task(weigh())
        until = start + seconds
        seats = [
            asyncio.create_task(
                hour(i, client, events, figures, until, tokens, pause)
                if pause
                else visit(i, client, events, figures, until, tokens)
            )
            for i in range(people)
        ]
        await asyncio.wait(seats, timeout=seconds + 5)
        for seat in seats:
            seat.cancel()  # whoever still waits closes the tab
        await asyncio.gather(*seats, return_exceptions=True)
        left = time.monotonic()
        if watched:
            await emptied(figures, watched, left)
            left = time.monotonic()
        visitor = Visitor(client, events)
        await visitor.open()
        after = Figures()
        await speak(visitor, 0, after, left + 60, 8, False)
        figures.free_again = time.monotonic() - left
        figures.first_after = after.waits[0] if after.waits else None
        await visitor.leave()
        await asyncio.sleep(max(0, 20 - (time.monotonic() - left)))
        figures.memory.append((time.monotonic() - start, _megabytes(server)))
        scales.cancel()
    if watched:
        os.kill(server.pid, signal.SIGUSR1)  # let it collect garbage, and count what lives
        await asyncio.sleep(4)
        figures.settled = (_megabytes(server), _proportional(server))
        figures.counted = [line for line in _lines(watched) if line["collected"]][-1]
    return figures


async def emptied(figures: Figures, watched: Path, left: float) -> None:
    """Wait until no session holds more than its plan, for two minutes at most."""
    while (last := _lines(watched)[-1])["full"] and time.monotonic() - left < 120:
        await asyncio.sleep(0.5)
    figures.emptied = time.monotonic() - left
    figures.still = last


def _lines(watched: Path) -> list[dict]:
    return [json.loads(line) for line in watched.read_text().splitlines() if line.endswith("}")]


def _proportional(process: psutil.Process) -> float:
    """PSS: what is shared with other processes counts in part."""
    return sum(p.memory_full_info().pss for p in [process, *process.children(True)]) / 1e6


def _slope(points: list[tuple[float, float]]) -> float:
    """MB per second, by least squares."""
    times, sizes = zip(*points, strict=True)
    return statistics.linear_regression(times, sizes).slope


def _megabytes(process: psutil.Process) -> float:
    return sum(p.memory_info().rss for p in [process, *process.children(True)]) / 1e6


def report(figures: Figures, people: int, seconds: float) -> None:
    """Print the table."""
    for label, edits in (
        ("all edits", [s for s, _ in figures.edits]),
        ("while others generate", [s for s, others in figures.edits if others]),
    ):
        if len(edits) < 2:
            continue
        cuts = statistics.quantiles(edits, n=100)
        print(
            f"edit latency, {label}: n={len(edits)}  p50 {1000 * cuts[49]:.0f} ms  "
            f"p95 {1000 * cuts[94]:.0f} ms  p99 {1000 * cuts[98]:.0f} ms  "
            f"worst {1000 * max(edits):.0f} ms  (goal: p95 <= {1000 * GOAL:.0f} ms)"
        )
    answers = [figures.turns[i] for i in range(people)]
    total = sum(answers)
    if total:
        fair = total**2 / (people * sum(n * n for n in answers))
        print(
            f"answers: {total} in {seconds:.0f} s, by seat {min(answers)} to {max(answers)}, "
            f"Jain's index {fair:.3f} (1 is equal)"
        )
    if figures.waits:
        print(
            f"first word after: median {statistics.median(figures.waits):.1f} s, "
            f"longest {max(figures.waits):.1f} s; longest queue seen {max(figures.places or [0])}"
        )
    first = f"{figures.first_after:.1f} s" if figures.first_after is not None else "never"
    print(
        f"tabs closed in mid-sentence: {figures.closed}; after all had left, the first word came "
        f"after {first}"
    )
    third = [mb for t, mb in figures.memory if seconds / 3 <= t <= seconds]
    print(
        f"memory, MB: {figures.memory[0][1]:.0f} at the start, "
        f"{third[0]:.0f} at a third, {max(mb for _, mb in figures.memory):.0f} at most, "
        f"{third[-1]:.0f} at the end, {figures.memory[-1][1]:.0f} once all had left"
    )
    for problem, times in figures.problems.most_common():
        print(f"problem, {times} times: {problem}")


def report_hour(figures: Figures, seconds: float) -> None:
    """Print what an hour adds to it."""
    done = ", ".join(f"{count} {what}" for what, count in sorted(figures.actions.items()))
    print(f"actions: {done}")
    marks = [min(figures.memory, key=lambda m: abs(m[0] - k * seconds / 6))[1] for k in range(7)]
    print("memory at each sixth, RSS in MB: " + ", ".join(f"{mb:.0f}" for mb in marks))
    rest = [(t, mb) for t, mb in figures.memory if seconds / 3 <= t <= seconds]
    if len(rest) > 2:
        print(
            f"growth in the last two thirds: {_slope(rest) * seconds:+.1f} MB in the hour replayed"
        )
    counted = figures.counted
    print(
        f"after all tabs closed: {figures.emptied:.1f} s until no session held more than its plan "
        f"({figures.still['full']} of {figures.still['sessions']} still did); after garbage was "
        f"collected {counted['patients']} patients, {counted['streams']} streams and "
        f"{counted['plans']} plans live, RSS {figures.settled[0]:.0f} MB, "
        f"PSS {figures.settled[1]:.0f} MB"
    )


def main() -> None:
    """Start a server, fill the room, print the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--people", type=int, default=30)
    parser.add_argument("--seconds", type=float, default=150)
    parser.add_argument("--tokens", type=int, default=32)
    parser.add_argument("--minutes", type=float, help="replay an hour in so many minutes")
    parser.add_argument("--actions", type=int, default=40, help="of each person in that hour")
    options = parser.parse_args()
    pause = 0.0
    if options.minutes:
        options.seconds = 60 * options.minutes
        pause = options.seconds / options.actions
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    with tempfile.TemporaryDirectory() as folder, open(Path(folder) / "log", "w") as log:
        watched = Path(folder) / "watched"
        served = ["--no-browser", "--public", f"--port={port}"]
        process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks._watched", str(watched), *served],
            cwd=folder,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stdout=log,
            stderr=subprocess.STDOUT,
        )
        try:
            url = f"http://127.0.0.1:{port}/"
            for _ in range(600):
                if process.poll() is not None:
                    sys.exit(Path(log.name).read_text())
                try:
                    httpx.get(url, timeout=5)
                    break
                except httpx.HTTPError:
                    time.sleep(0.3)
            load = psutil.getloadavg()[0]
            print(
                f"{options.people} people, {options.seconds:.0f} s, {options.tokens} tokens an "
                f"answer, {psutil.cpu_count()} processors, load before {load:.1f}"
                + (f"; an hour of {options.actions} actions each" if pause else "")
            )
            server = psutil.Process(process.pid)
            figures = asyncio.run(
                room(
                    url,
                    server,
                    options.people,
                    options.seconds,
                    options.tokens,
                    pause,
                    watched if pause else None,
                )
            )
            report(figures, options.people, options.seconds)
            if pause:
                report_hour(figures, options.seconds)
        finally:
            if "Traceback" in (said := Path(log.name).read_text()):
                print("the server's log:", said[-1500:])
            process.terminate()
            process.wait(30)


if __name__ == "__main__":
    main()
