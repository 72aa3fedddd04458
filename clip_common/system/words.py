"""Numbers in messages, with the right plural."""


def counted(number: int, noun: str, plural: str | None = None) -> str:
    """A number with its noun: `1 image`, `2 images`."""
    return f"{number} {noun if number == 1 else plural or noun + 's'}"


def were(number: int) -> str:
    """A number with its verb: `1 was`, `2 were`."""
    return f"{number} {'was' if number == 1 else 'were'}"
