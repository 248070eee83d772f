"""Connections that are cut, fall silent, trickle, or are refused."""

from __future__ import annotations

from functools import partial
from typing import Literal

from tests.chaos.faults.fault import Fault, Hit, Target, anywhere
from tests.chaos.installation import Installation
from tests.chaos.proxy import Mode, Proxy

Side = Literal["broker", "ledger"]


def cut(target: Target, *, side: Side) -> Hit | None:
    """Every connection is reset; new ones are taken at once."""
    proxy = _proxy(target.installation, side)
    return Hit() if proxy is not None and proxy.cut() else None


def spoil(target: Target, *, side: Side, mode: Mode, most: float) -> Hit | None:
    """For some seconds; then connections are well again, or are reset."""
    proxy = _proxy(target.installation, side)
    if proxy is None or proxy.mode != "pass" or (mode != "refuse" and not proxy.connections):
        return None
    proxy.mode = mode
    resets = target.chance.random() < 0.5

    def heal() -> None:
        proxy.mode = "pass"
        if resets:
            proxy.cut()

    return Hit(lasts=target.chance.uniform(0.5, most), heal=heal)


def _proxy(installation: Installation, side: Side) -> Proxy | None:
    return installation.broker_proxy if side == "broker" else installation.ledger_proxy


def _has_ledger_server(installation: Installation) -> str:
    return "" if installation.ledger_proxy is not None else "SQLite has no connections"


def _faults(side: Side, weight: float) -> tuple[Fault, ...]:
    possible = _has_ledger_server if side == "ledger" else anywhere
    kinds: tuple[tuple[str, float, Mode, float], ...] = (
        ("silent", 0.8, "silent", 7.0),
        ("slow", 0.8, "drip", 4.0),
        ("refused", 0.6, "refuse", 6.0),
    )
    return (
        Fault(
            name=f"{side} connections cut",
            weight=2.0 * weight,
            strike=partial(cut, side=side),
            possible=possible,
        ),
        *(
            Fault(
                name=f"{side} connections {word}",
                weight=part * weight,
                strike=partial(spoil, side=side, mode=mode, most=most),
                possible=possible,
            )
            for word, part, mode, most in kinds
        ),
    )


FAULTS = (*_faults("broker", 1.0), *_faults("ledger", 1.5))
