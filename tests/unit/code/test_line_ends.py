"""Line ends of edited texts: those of unchanged lines stay."""

from __future__ import annotations

import pytest

from engine.code.editing import COMPARED, with_line_ends


@pytest.mark.parametrize(
    ("before", "text", "after"),
    [
        ("", "a\nb", "a\nb"),
        ("a", "a\nb", "a\nb"),
        ("a\r\nb\r\n", "a\nnew\nb\n", "a\r\nnew\r\nb\r\n"),
        ("a\r\nb\nc\n", "a\nb\nc\n", "a\r\nb\nc\n"),
        ("a\r\nb\nc\nd\r\n", "a\nnew\nc\nd\n", "a\r\nnew\r\nc\nd\r\n"),
        ("a\r\nb\nc\rd", "first\na\nb\nc\nd\n", "first\r\na\r\nb\nc\rd\r\n"),
        ("a\nb\r\nc\nd", "a\nc", "a\nc"),
    ],
)
def test_unchanged_lines_keep_their_ends(before: str, text: str, after: str) -> None:
    assert with_line_ends(text, before) == after


def test_many_changed_lines_get_the_most_common_end() -> None:
    many = [str(number) for number in range(COMPARED + 2)]
    before = "a\r\nb\r\n" + "\n".join(many) + "\nc\r\n"

    assert with_line_ends("\n".join(["a", "b", *many, "c", ""]), before) == before
    assert with_line_ends("\n".join(["a", "B", "b", *many[:-1], "c", ""]), before) == (
        "a\r\nB\nb\n" + "\n".join(many[:-1]) + "\nc\r\n"
    )
