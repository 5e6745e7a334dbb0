"""Commands of functiond."""


def main() -> None:
    raise SystemExit("not yet")
