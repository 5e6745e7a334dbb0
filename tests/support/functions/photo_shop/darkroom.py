"""Photo shop without a queue: its orders and machines, and what it writes. Both applications use this module."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

FOLDER = Path("/srv/shop")  # the test names a folder of its own
PAGES = [
    [
        {"id": "17", "customer": "anna", "photos": ["beach", "boat", "jammed"]},
        {"id": "18", "customer": "ben", "photos": ["cat"]},
    ],
    [
        {"id": "19", "customer": "anna", "photos": ["dog", "spoiled", "owl"]},
        {"id": "20", "customer": "cem", "photos": ["elk"] * 9},
    ],
    [{"id": "21", "customer": "ben", "photos": [f"party {number}" for number in range(25)]}],
]
ESTATE = ["vase", "clock", "painting"]


class Jammed(Exception):
    """The machine has stopped. It works again at the next attempt."""


class Spoiled(Exception):
    """The film cannot be developed."""

    retryable = False


def page_of_orders(number: int) -> tuple[list[dict[str, Any]], bool]:
    """Return the orders of a page, from 1, and whether there is another."""
    return PAGES[number - 1], number < len(PAGES)


def print_photo(photo: str) -> str:
    if photo == "spoiled":
        raise Spoiled(photo)
    if photo == "jammed" and not (FOLDER / "machines" / "cleared.json").exists():
        save("machines", "cleared", True)
        raise Jammed(photo)
    return f"{photo}, 10 by 15"


def customers_without_bill() -> list[str]:
    customers = {order["customer"] for page in PAGES for order in page}
    return [customer for customer in sorted(customers) if not (FOLDER / "bills" / f"{customer}.json").exists()]


def cents_of(customer: str) -> int:
    return sum(29 * len(order["photos"]) for page in PAGES for order in page if order["customer"] == customer)


def save(kind: str, name: str, value: object) -> None:
    """Write a value as a whole: bills, albums, letters."""
    folder = FOLDER / kind
    folder.mkdir(parents=True, exist_ok=True)
    part = folder / f"{name}.{os.getpid()}"
    part.write_text(json.dumps(value))
    part.rename(folder / f"{name}.json")
