"""One of N equal shares of a job, as commands name it."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Part:
    """The share of what has a hash that is `index` modulo `count`."""

    index: int = 0
    count: int = 1

    @classmethod
    def parse(cls, text: str) -> "Part":
        """Returns the part that a text names.

        >>> Part.parse("1/3"), Part.parse("3/3"), Part.parse("0/3")
        (Part(index=1, count=3), Part(index=0, count=3), Part(index=0, count=3))

        Raises:
            ValueError: it is no "i/N" with i from 0 to N.
        """
        index, _, count = text.partition("/")
        if not (index.isdecimal() and count.isdecimal() and 0 <= int(index) <= int(count) > 0):
            raise ValueError(f"--part={text!r}: give i/N, the i-th of N parts, such as 1/3")
        return cls(int(index) % int(count), int(count))

    @property
    def number(self) -> int:
        """The number of the part, from 1."""
        return self.index or self.count


WHOLE = Part()
