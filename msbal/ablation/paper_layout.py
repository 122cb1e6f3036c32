"""The ablation spec's ``table:`` section: measured metrics in the shape of a paper's table."""

from __future__ import annotations

from collections.abc import Collection

from pydantic import Field, model_validator

from msbal.errors import SpecError, suggest
from msbal.evaluation.bootstrap import ALL_METRICS
from msbal.spec.base import SpecModel

COST = "GFLOPs"
COLUMNS = (*ALL_METRICS, COST)


class TableRow(SpecModel):
    """A row, in the paper's order."""

    arm: str | None = Field(
        None, description="The arm that it measures; a row without one is cited and never run."
    )
    labels: tuple[str, ...] = Field((), description="A text for each of the table's `labels`.")
    published: tuple[float | None, ...] = Field(
        (), description="The paper's metric for each of the table's `columns`: points (0 to 100), or GFLOPs."
    )


class TableLayout(SpecModel):
    """The whole table."""

    title: str = Field(description="Its caption.")
    labels: tuple[str, ...] = Field((), description="Headings of the texts that begin each row.")
    ticks: bool = Field(
        False, description="Begin each row with a column an action, ticked where the arm has it."
    )
    columns: tuple[str, ...] = Field(
        ("AP",), min_length=1, description=f"What is shown of each arm: {', '.join(COLUMNS)}."
    )
    rows: tuple[TableRow, ...] = Field(min_length=1, description="In the paper's order.")

    @model_validator(mode="after")
    def _fits(self) -> TableLayout:
        for column in self.columns:
            if column not in COLUMNS:
                raise ValueError(f"`columns`: `{column}` is unknown; {suggest(column, COLUMNS)}")
        arms = [row.arm for row in self.rows if row.arm is not None]
        twice = sorted({arm for arm in arms if arms.count(arm) > 1})
        if twice:
            raise ValueError(f"`rows`: two rows are of arm `{twice[0]}`")
        for number, row in enumerate(self.rows, start=1):
            if len(row.labels) != len(self.labels):
                raise ValueError(
                    f"row {number} should have {len(self.labels)} labels. Found {list(row.labels)}"
                )
            if row.published and len(row.published) != len(self.columns):
                raise ValueError(
                    f"row {number} should have {len(self.columns)} published metrics, null where the paper has "
                    f"none. Found {list(row.published)}"
                )
        return self


def check_arms(layout: TableLayout | None, arms: Collection[str]) -> None:
    """Refuse rows of arms that the grid does not have.

    Raises:
        SpecError: naming the first of them.
    """
    for number, row in enumerate(layout.rows if layout else (), start=1):
        if row.arm is not None and row.arm not in arms:
            raise SpecError(f"table.rows, row {number}", f"`{row.arm}` is no arm", fix=suggest(row.arm, arms))


def layout_of_published(published: dict[str, dict[str, float]], arms: Collection[str]) -> TableLayout:
    """Return the plain table of an ablation that gives published metrics by arm and no layout."""
    columns = tuple(dict.fromkeys(name for row in published.values() for name in row))
    rows = [
        TableRow(
            arm=arm, labels=(arm,), published=tuple(published.get(arm, {}).get(name) for name in columns)
        )
        for arm in arms
    ]
    return TableLayout(title="Published and measured", labels=("arm",), columns=columns, rows=tuple(rows))
