"""A model's control tokens inside a row's text, which are read as text where that is asked for.

A tokenizer turns every spelling of a control token into that token, one in a question, too, which
could so end its own turn. Before the chat template is rendered each spelling is put between two
private-use characters; afterwards what stands between them is encoded as plain text.

Source: transformers 5.24, `apply_chat_template(sanitize_control_tokens=True)`; equal to it in ids.
"""

import dataclasses
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import tokenizers

from evr1.data.records import Row, Turn
from evr1.formats import chat_template, processor_files

START, END = "\U000f0000", "\U000f0001"  # as in transformers


@dataclasses.dataclass(frozen=True)
class ControlTokens:
    """The spellings that a row's text must not be read as.

    Attributes:
        spelling: matches one of them.
        marked: splits a chat into (text, spelling between marks or None, text, ...).
    """

    spelling: re.Pattern[str]
    marked: re.Pattern[str]

    @classmethod
    def of(cls, root: Path, tokenizer: tokenizers.Tokenizer, template: str) -> "ControlTokens":
        """Returns those of a HF directory: special tokens, and added ones that its template has."""
        named = processor_files.read_json(root / "tokenizer_config.json").get("chat_control_tokens")
        literal = chat_template.literal_text(template)
        added = list(tokenizer.get_added_tokens_decoder().values())
        control = [
            token.content
            for token in added
            if token.special
            or (token.content in named if isinstance(named, list) else _is_in(token, literal))
        ]
        all_added = _any_of([token.content for token in added])
        return cls(
            re.compile(_any_of(control)), re.compile(f"{START}({all_added}){END}|[{START}{END}]")
        )

    def are_in(self, row: Row) -> bool:
        """Returns whether a text that the model is shown of a row spells one."""
        turns = (turn.content for turn in row.turns)
        return any(map(self.spelling.search, (row.problem, row.system or "", *row.options, *turns)))

    def mark(self, row: Row) -> Row:
        """Returns the row with marks round each spelling in its texts."""
        return dataclasses.replace(
            row,
            problem=self._mark(row.problem),
            options=tuple(map(self._mark, row.options)),
            system=row.system and self._mark(row.system),
            turns=tuple(Turn(turn.role, self._mark(turn.content)) for turn in row.turns),
            extra={name: self._mark(value) for name, value in row.extra.items()},
        )

    def _mark(self, value: Any) -> Any:
        if isinstance(value, str):
            plain = value.replace(START, "").replace(END, "")
            return self.spelling.sub(f"{START}\\g<0>{END}", plain)
        if isinstance(value, Mapping):
            return {k: self._mark(v) for k, v in value.items()}
        return [self._mark(v) for v in value] if isinstance(value, list | tuple) else value

    def encode(
        self, text: str, tokenizer: tokenizers.Tokenizer, tokenize: Callable[[str], list[int]]
    ) -> list[int]:
        """Returns the ids of a part of a chat; marked spellings are plain text.

        Raises:
            ValueError: the tokenizer gives the control token for its plain text, too.
        """
        ids: list[int] = []
        for place, piece in enumerate(self.marked.split(text)):
            if not piece:
                continue
            if place % 2 == 0:
                ids += tokenize(piece)
                continue
            plain = _encode_plain(tokenizer, piece)
            if tokenizer.token_to_id(piece) in plain:
                raise ValueError(
                    f"data.sanitize: the tokenizer gives {piece!r} for its plain text; take it out "
                    "of the row"
                )
            ids += plain
        return ids


def _is_in(token: tokenizers.AddedToken, literal: str) -> bool:
    return token.content in literal and not token.content.isspace()


def _any_of(spellings: Sequence[str]) -> str:
    longest_first = sorted(spellings, key=len, reverse=True)
    return "|".join(map(re.escape, longest_first)) or "(?!)"  # which matches nowhere


def _encode_plain(tokenizer: tokenizers.Tokenizer, text: str) -> list[int]:
    """Returns the ids of a text in which no added token is looked for."""
    if tokenizer.normalizer is not None:
        text = tokenizer.normalizer.normalize_str(text)
    words = [text]
    if tokenizer.pre_tokenizer is not None:
        words = [word for word, _ in tokenizer.pre_tokenizer.pre_tokenize_str(text)]
    return [token.id for word in words for token in tokenizer.model.tokenize(word)]
