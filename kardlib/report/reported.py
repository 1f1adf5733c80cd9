"""The papers' own numbers, read from `reported.yml`, which says what its fields are."""

from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Literal, Self

import yaml
from pydantic import Field, model_validator

from kardlib.settings import Group, validate

FILE = Path(__file__).with_name("reported.yml")


class Table(Group):
    """A table or a figure of a paper on one dataset: a number for each row and column, None where it has none."""

    at: str = Field(min_length=1)
    dataset: str
    columns: tuple[str, ...]
    rows: dict[str, tuple[float | None, ...]]
    sd: dict[str, tuple[float, ...]] = Field({})
    read_off: bool = False
    x: dict[Literal["rows", "columns"], tuple[float, ...]] = Field({}, max_length=1)

    @model_validator(mode="after")
    def _fill(self) -> Self:
        for name, numbers in [*self.rows.items(), *self.sd.items()]:
            if len(numbers) != len(self.columns):
                raise ValueError(f"{name} must have a number for each of {', '.join(self.columns)}")
        for along, numbers in self.x.items():
            if len(numbers) != len(self.rows if along == "rows" else self.columns):
                raise ValueError(f"x must have a number for each of the {along}")
        return self

    def numbers(self, row: str, columns: Sequence[str] = ()) -> list[float]:
        """A row's numbers in some columns, or in all. Raises ValueError for what is not there."""
        if row not in self.rows:
            raise ValueError(f"{self.at} has no row {row!r}: its rows are {', '.join(self.rows)}")
        if unknown := set(columns) - set(self.columns):
            raise ValueError(f"{self.at} has no column {min(unknown)!r}: its columns are {', '.join(self.columns)}")
        numbers = []
        for column in columns or self.columns:
            if (number := self.rows[row][self.columns.index(column)]) is None:
                raise ValueError(f"{self.at} has no number for {row} in the column {column}")
            numbers.append(number)
        return numbers

    def curves(self) -> dict[str, dict[float, float]]:
        """The lines along `x` by their names, as x -> number; none where the table has no `x`."""
        lines = {
            "columns": self.rows,
            "rows": dict(zip(self.columns, zip(*self.rows.values(), strict=True), strict=True)),
        }
        return {
            name: {at: number for at, number in zip(x, line, strict=True) if number is not None}
            for along, x in self.x.items()
            for name, line in lines[along].items()
        }


@cache
def read_reported() -> dict[str, Table]:
    """All tables by their name. Raises SettingsError for one that is malformed."""
    return {name: validate(Table, table) for name, table in yaml.safe_load(FILE.read_text("utf-8")).items()}


def find_table(name: str) -> Table:
    """A table of the papers. Raises ValueError for a name that is none."""
    if name not in (tables := read_reported()):
        raise ValueError(f"reported.yml has no table {name!r}: its tables are {', '.join(tables)}")
    return tables[name]
