"""Claims of a study, judged by its results: reproduced, refuted, undecided, or not run.

A claim names a number of metrics.json, what it is compared with, and on which side it should lie. The evidence is a
`Comparison`: one that stands there already, or one that is made from the seeds, runs or standard errors that do.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, Self

from pydantic import Field, model_validator

from jneuro.core.config import Config
from jneuro.core.names import unknown_name
from jneuro.evaluation.comparison import Comparison, compare, compare_estimates
from jneuro.evaluation.results import Quantity, Scores

__all__ = ["Claim", "JudgedClaim", "Status", "check_claims", "claims_table", "judge"]

Status = Literal["reproduced", "refuted", "undecided", "not run"]

LEAST_SEEDS = 3
"""Fewer seeds give no useful interval; runs are then the independent units."""


class Claim(Config):
    """A statement that results can bear out.

    Attributes:
        text: the statement, in the source's words or ours.
        source: where it stands, such as a citation with its section; empty for a question of the study itself.
        quantity: the dotted key of a number in metrics.json, such as `test.lstm.r2`; or several, of which all must
            hold. Null for a claim that this configuration cannot test; then `why` says why.
        against: the key of another number, or a number. For several quantities, one for all, or as many.
        expect: where the quantity should lie: `above`, `below`, or `within` a `margin` of `against`.
        margin: of `within`, in the quantity's unit.
        why: what the claim would need, where it is not run.
    """

    text: str = Field(min_length=1)
    source: str = ""
    quantity: str | tuple[str, ...] | None = None
    against: float | str | tuple[float | str, ...] = 0.0
    expect: Literal["above", "below", "within"] = "above"
    margin: float = Field(default=0.0, ge=0)
    why: str = ""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.quantity is None and not self.why:
            raise ValueError("give a quantity, or say in `why` what the claim would need")
        if (self.expect == "within") != (self.margin > 0):
            raise ValueError("`expect: within` needs a `margin` above 0, and only it has one")
        if isinstance(self.against, tuple) and len(self.against) != len(self.keys):
            raise ValueError(f"against has {len(self.against)} entries for {len(self.keys)} quantities; give as many")
        return self

    @property
    def keys(self) -> tuple[str, ...]:
        """The keys of all quantities."""
        return () if self.quantity is None else (self.quantity,) if isinstance(self.quantity, str) else self.quantity

    @property
    def pairs(self) -> Iterator[tuple[str, float | str]]:
        """Each quantity and what it is compared with."""
        others = self.against if isinstance(self.against, tuple) else (self.against,) * len(self.keys)
        return zip(self.keys, others, strict=True)


@dataclass(frozen=True)
class JudgedClaim:
    """How a claim came out.

    Attributes:
        text: the claim.
        source: of the claim.
        status: `reproduced`, `refuted`, `undecided` or `not run`; of several quantities, `refuted` if any is, and
            `reproduced` if all are.
        evidence: for each quantity in words: both numbers, their difference with its 95 % interval, what pairs them.
        comparisons: of each quantity; null where no interval is known, so that the numbers alone were compared.
    """

    text: str
    source: str
    status: Status
    evidence: tuple[str, ...]
    comparisons: tuple[Comparison | None, ...] = ()


def check_claims(
    claims: Sequence[Claim],
    *,
    models: Sequence[str],
    baselines: Sequence[str],
    analyses: Sequence[str],
    ceiling: bool,
) -> None:
    """Refuse claims on quantities that a run will not have.

    Args:
        claims: of the study.

    Other Args:
        models: labels under which models are scored.
        baselines: names of the baselines.
        analyses: keys of the analyses.
        ceiling: whether there is one.

    Raises:
        ValueError: with the claim's place, the key and the remedy.
    """
    heads = {"test": models, "baselines": baselines, "analyses": analyses, "recording": None, "windows": None}
    heads |= {"ceiling": None} if ceiling else {}
    for place, claim in enumerate(claims):
        for key in (k for pair in claim.pairs for k in pair if isinstance(k, str)):
            try:
                _check_key(key, heads)
            except ValueError as error:
                raise ValueError(f"claims.{place}: {key!r}: {error}; correct the key, or leave the claim out") from None


def _check_key(key: str, heads: Mapping[str, Sequence[str] | None]) -> None:
    head, _, rest = key.partition(".")
    if head not in heads:
        raise ValueError(unknown_name(head, heads, "part of metrics.json"))
    known = heads[head]
    if known is None:
        return
    name = max((n for n in known if rest == n or rest.startswith(f"{n}.")), key=len, default=None)
    if name is None:
        kind = {"test": "model", "baselines": "baseline", "analyses": "analysis"}[head]
        raise ValueError(unknown_name(rest.split(".")[0], known, kind))
    field = rest[len(name) + 1 :].split(".")[0]
    if head != "analyses" and field not in Scores.__annotations__:
        raise ValueError(unknown_name(field, Scores.__annotations__, "score"))


def judge(claims: Sequence[Claim], metrics: Mapping[str, Any]) -> list[JudgedClaim]:
    """Judge claims by results.

    The evidence for a difference is, in this order: a `Comparison` that the key names; seeds of both sides, in pairs,
    if there are three or more; for `r2` of two predictors of the same windows, their pairs of runs; standard errors;
    and where none of these is known the numbers alone, which is said.

    Args:
        claims: of the study.
        metrics: as in metrics.json, typed (`jneuro.evaluation.results.typed`).

    Returns:
        The judgements, in the order of the claims.
    """
    return [_judge_one(claim, metrics) for claim in claims]


def _judge_one(claim: Claim, metrics: Mapping[str, Any]) -> JudgedClaim:
    if claim.quantity is None:
        return JudgedClaim(claim.text, claim.source, "not run", (claim.why,))
    statuses, evidence, comparisons = [], [], []
    for key, other in claim.pairs:
        try:
            first, second, found = _compared(metrics, key, other)
        except KeyError as error:
            return JudgedClaim(claim.text, claim.source, "not run", (str(error.args[0]),))
        low, high = found.ci95 if math.isfinite(found.ci95[0]) else (found.difference, found.difference)
        statuses.append(_status(claim, low, high) if math.isfinite(found.difference) else "undecided")
        alone = not math.isfinite(found.ci95[0])
        evidence.append(_said(first, second, found, alone))
        comparisons.append(None if alone else found)
    every = set(statuses)
    status: Status = "refuted" if "refuted" in every else "reproduced" if every == {"reproduced"} else "undecided"
    return JudgedClaim(claim.text, claim.source, status, tuple(evidence), tuple(comparisons))


def _status(claim: Claim, low: float, high: float) -> Status:
    """Where the interval of the difference lies."""
    if claim.expect == "within":
        inside, outside = -claim.margin <= low and high <= claim.margin, low > claim.margin or high < -claim.margin
    else:
        low, high = (low, high) if claim.expect == "above" else (-high, -low)
        inside, outside = low > 0, high < 0 or low == high
    return "reproduced" if inside else "refuted" if outside else "undecided"


def _said(first: float, second: float, found: Comparison, alone: bool) -> str:
    unit = "" if found.unit == "1" else f" {found.unit}"
    numbers = f"{first:.4g} against {second:.4g}{unit}"
    if alone:
        return f"{numbers}, without an interval"
    low, high = found.ci95
    paired = f"paired by {found.paired_by}, n = {found.n}" if found.paired_by else "unpaired"
    return f"{numbers}: {found.difference:+.3g} ({low:+.3g} to {high:+.3g}), {paired}".replace("-", "−")


def _compared(metrics: Mapping[str, Any], key: str, other: float | str) -> tuple[float, float, Comparison]:
    """Both numbers and the evidence for their difference."""
    first, around = _find(metrics, key)
    if isinstance(first, Comparison):
        by = float(other) if not isinstance(other, str) else _number(_find(metrics, other)[0], other)
        low, high = first.ci95
        return first.difference, by, replace(first, difference=first.difference - by, ci95=(low - by, high - by))
    value, unit = _number(first, key), first.unit if isinstance(first, Quantity) else "1"
    if isinstance(other, str):
        second, beside = _find(metrics, other)
        against = _number(second, other)
    else:
        beside, against = {}, float(other)
    mine, theirs = (_seeds(k, p) for k, p in ((key, around), (other, beside)))
    if len(mine) >= LEAST_SEEDS and (not isinstance(other, str) or len(theirs) == len(mine)):
        found = compare(mine, theirs if theirs else against, paired_by="seed", unit=unit)
        return (
            sum(mine) / len(mine),
            sum(theirs) / len(theirs) if theirs else against,
            found,
        )  # means, as the difference
    if key.endswith(".r2") and isinstance(other, str):
        name = other.removesuffix(".r2").removeprefix(f"{key.removesuffix('.r2')}.")
        name = name.removeprefix("test.").removeprefix("baselines.")
        if other.endswith(".r2") and name in (around.get("against") or {}):
            return value, against, around["against"][name]
    errors = (_error(key, around), _error(str(other), beside))
    runs = len(metrics.get("windows", {}).get("runs", {}).get("test", ())) or 2
    return value, against, compare_estimates(value, against, errors, n=runs, unit=unit)


def _find(metrics: Any, key: str) -> tuple[Any, Mapping[str, Any]]:
    """What a key names, and the mapping that holds it; keys may contain dots themselves.

    Raises:
        KeyError: if there is no such thing, with a sentence.
    """
    value, holder, rest = metrics, {}, key
    while rest:
        holder = value
        if isinstance(value, Mapping):
            name = max((k for k in value if rest == k or rest.startswith(f"{k}.")), key=len, default=None)
            if name is None:
                raise KeyError(f"{key} is not in metrics.json: {unknown_name(rest.split('.')[0], value, 'key')}")
            value, rest = value[name], rest[len(name) + 1 :]
        elif isinstance(value, list) and (step := rest.split(".")[0]).isdigit() and int(step) < len(value):
            value, rest = value[int(step)], rest[len(step) + 1 :]
        else:
            raise KeyError(f"{key} is not in metrics.json: nothing lies below {key[: -len(rest) - 1]}")
    return value, holder if isinstance(holder, Mapping) else {}


def _number(value: Any, key: str) -> float:
    value = value.value if isinstance(value, Quantity) else value
    if value is not None and (isinstance(value, bool) or not isinstance(value, int | float)):
        raise KeyError(f"{key} in metrics.json is no number; name one below it")
    return math.nan if value is None else float(value)


def _seeds(key: Any, around: Mapping[str, Any]) -> list[float]:
    """The values of all seeds beside a number, of which it is the first or the mean; else they are of another."""
    name = str(key).rpartition(".")[2]
    seeds = around.get("seeds")
    values = seeds.get(name) if isinstance(seeds, Mapping) else seeds
    if not isinstance(values, list) or not values:
        return []
    found = [math.nan if v is None else float(v) for v in values]
    value = _number(around[name], name)
    same = math.isclose(value, found[0]) or math.isclose(value, sum(found) / len(found))
    return found if same else []


def _error(key: str, around: Mapping[str, Any]) -> float:
    """The standard error beside a number."""
    name = key.rpartition(".")[2]
    error = around.get(f"{name}_se", around.get("se") if name in ("r2", "lost") else None)
    return math.nan if error is None else float(error)


def claims_table(judged: Sequence[JudgedClaim]) -> str:
    """The claims as a Markdown table.

    Args:
        judged: what `judge` returned.
    """
    rows = [
        f"| {c.text}{f' ({c.source})' if c.source else ''} | {c.status} | {'; '.join(c.evidence)} |" for c in judged
    ]
    return "\n".join(["| claim | verdict | evidence |", "|---|---|---|", *rows])
