"""A sample that is being drawn, and its file: a checkpoint of a `Reservoir`, whose notes hold all the rest."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

import gumbeltopk as gt
from gumbeltopk.cli.failures import BAD_INPUT, FAILED, Failure, reason

NOTES = "gumbeltopk sample"
OPTIONS = {
    "k": "-k",
    "column": "-w",
    "format": "--format",
    "seed": "--seed",
    "start": "--start",
    "on_bad": "--on-bad",
}


@dataclass
class Description:
    """All about a sample but the reservoir; JSON values only."""

    form: str
    column: str
    settings: dict[str, Any] = field(default_factory=dict)  # by the names of OPTIONS; none of a merged sample
    inputs: list[dict[str, Any]] = field(default_factory=list)
    header: str = ""
    names: list[str] = field(default_factory=list)
    input: int = 0  # the input at hand
    place: list[Any] = field(default_factory=list)  # in it; empty before its beginning
    position: list[Any] = field(default_factory=list)
    skipped: int = 0
    complaint: str = ""  # about the first record that was skipped
    is_finished: bool = False


def save(path: str, reservoir: gt.Reservoir, description: Description, option: str = "--state") -> None:
    """Write the state, as a whole or not at all."""
    reservoir.notes[NOTES] = asdict(description)
    try:
        reservoir.save(path)
    except OSError as error:
        raise Failure(f"cannot write {option} {path}: {reason(error)}", FAILED) from None


def load(path: str) -> tuple[gt.Reservoir, Description]:
    """The state in a file."""
    try:
        reservoir = gt.Reservoir.load(path)
    except OSError as error:
        raise Failure(f"{path}: {reason(error)}", FAILED) from None
    except gt.CheckpointError as error:
        raise Failure(str(error), BAD_INPUT) from None
    try:
        return reservoir, Description(**reservoir.notes[NOTES])
    except (KeyError, TypeError):
        raise Failure(f"{path}: this reservoir was not written by gumbeltopk sample --state", BAD_INPUT) from None


def check_same_run(path: str, before: Description, now: Description) -> None:
    """A run goes on with the arguments it was begun with."""
    advice = "give the same arguments and inputs, or another --state (or delete the file to begin anew)"
    if not before.settings:
        raise Failure(f"{path}: this is a merged sample, and no run to go on with; {advice}", BAD_INPUT)
    for name, option in OPTIONS.items():
        old, new = before.settings.get(name), now.settings[name]
        if old != new:
            raise Failure(
                f"{path}: that run had {_shown(option, old)}, and this one has {_shown(option, new)}; {advice}",
                BAD_INPUT,
            )
    if len(before.inputs) != len(now.inputs):
        raise Failure(
            f"{path}: that run had {len(before.inputs)} inputs, and this one has {len(now.inputs)}; {advice}", BAD_INPUT
        )
    for number, (old, new) in enumerate(zip(before.inputs, now.inputs, strict=True), start=1):
        if old != new:
            raise Failure(
                f"{path}: input {number} is not that of the interrupted run ({_difference(old, new)}); {advice}",
                BAD_INPUT,
            )


def _shown(option: str, value: Any) -> str:
    return f"no {option}" if value is None else f"{option} {value}"


def _difference(old: dict[str, Any], new: dict[str, Any]) -> str:
    if "stream" in old or "stream" in new:
        return "one is a stream, the other a file"
    if old["bytes"] != new["bytes"]:
        return f"{old['bytes']} bytes then, {new['bytes']} bytes now"
    return "other content"
