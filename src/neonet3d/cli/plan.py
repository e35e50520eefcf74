"""neonet3d study plan: what a study of so many patients can answer, before it begins."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from neonet3d.cli.options import AsJson, show

if TYPE_CHECKING:
    from collections.abc import Iterator

    from neonet3d.metrics.power import StudyPlan


def plan(
    n: Annotated[int, typer.Option("--n", help="Number of patients.", show_default=False)],
    prevalence: Annotated[
        float, typer.Option(help="Share that is positive, such as 0.34.", show_default=False)
    ],
    auc: Annotated[
        float, typer.Option(help="AUC that is hoped for, such as 0.8.", show_default=False)
    ],
    difference: Annotated[
        float | None,
        typer.Option(help="How much lower a rival's AUC is, such as 0.1.", show_default=False),
    ] = None,
    correlation: Annotated[
        float, typer.Option(help="Of the two models' scores among patients of one class.")
    ] = 0.5,
    as_json: AsJson = False,
) -> None:
    """How wide the interval of an AUC will be, and which difference between models can be seen."""
    from dataclasses import asdict

    from neonet3d.metrics.power import plan_study

    found = plan_study(n, prevalence, auc, difference=difference, correlation=correlation)
    show(
        asdict(found) | {"prevalence": prevalence},
        as_json=as_json,
        sentence="\n".join(_sentences(found)),
    )


def _sentences(found: StudyPlan) -> Iterator[str]:
    from neonet3d.metrics.power import POWER

    asked = f"{100 * POWER:.0f} %"
    auc, n, n_positive = found.auc, found.auc.n, found.auc.n_positive
    yield (
        f"With {n} patients, {n_positive} of them positive, an AUC of {auc.value:.3g} comes with a "
        f"95 % interval of about {auc.low:.2f} to {auc.high:.2f}, {auc.high - auc.low:.2f} wide."
    )
    compared = found.comparison
    if compared is not None:
        rival = auc.value - compared.difference
        yield (
            f"If a rival's AUC is {rival:.3g} and the two models' scores correlate "
            f"{found.correlation:g} within a class, the paired DeLong test (two-sided, 5 %) finds "
            f"the difference with a probability of {100 * compared.power:.0f} %."
        )
        yield (
            f"For {asked} no cohort is large enough."
            if compared.n_needed is None
            else f"For {asked} it takes about {compared.n_needed} patients, "
            f"{compared.n_positive_needed} of them positive."
        )
    yield (
        f"Not even a rival that guesses (AUC 0.5) would be told apart with {asked} power."
        if found.smallest_difference is None
        else f"With {asked} power, {n} patients show a difference of about "
        f"{found.smallest_difference:.2f} ({auc.value:.2f} against "
        f"{auc.value - found.smallest_difference:.2f}) or more, at a correlation of "
        f"{found.correlation:g}."
    )
    yield (
        "This takes scores as normal in each class and models as given: that training scatters, in "
        "cross-validation too, comes on top."
    )
