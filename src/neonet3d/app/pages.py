"""The app's pages as HTML, and what they ask for: pictures, scripts, reports of runs."""

from __future__ import annotations

from functools import cache
from importlib.resources import files

from jinja2 import ChoiceLoader, Environment, PackageLoader
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import FileResponse, HTMLResponse, RedirectResponse, Response
from starlette.routing import Route

from neonet3d.app.guard import REPORT_POLICY
from neonet3d.app.runs import page_of_run
from neonet3d.app.session import Session
from neonet3d.app.thumbnails import thumbnail
from neonet3d.errors import InputError
from neonet3d.report.html import environment
from neonet3d.report.palette import DARK, LIGHT, class_colours
from neonet3d.report.viewer import NIIVUE, STEPS, label_colours

STATIC = {
    "common.js": "text/javascript",
    "volumes.js": "text/javascript",
    "cohort.js": "text/javascript",
    "predict.js": "text/javascript",
    "generate.js": "text/javascript",
    "runs.js": "text/javascript",
    "app.css": "text/css",
}
NIIVUE_NAME = "niivue.js"


def routes(session: Session) -> list[Route]:
    """Everything that a browser opens or that a page shows."""

    async def start(request: Request) -> Response:
        return RedirectResponse("predict")

    async def cohort(request: Request) -> Response:
        of = session.shown_cohort
        rows = [
            {
                "number": i,
                "name": case.name,
                "outcome": case.outcome,
                "has_mask": bool(case.mask_path),
            }
            for i, case in enumerate(of, start=1)
        ]
        return _page(
            "cohort",
            outcome=of.outcome_name,
            rows=rows,
            whole=session.cohort is not None,
            faults=session.faults,
        )

    async def picture(request: Request) -> Response:
        of, number = session.shown_cohort, request.path_params["number"]
        if not 1 <= number <= len(of):
            raise InputError(f"There are {len(of)} cases, and no number {number}.")
        path = session.folder / f"case-{number}.png"
        if not path.is_file():
            path.write_bytes(await run_in_threadpool(thumbnail, of.cases[number - 1], of.schema))
        return FileResponse(path)

    async def predict(request: Request) -> Response:
        settings = {"labels": label_colours(session.card.classes), "steps": STEPS}
        return _page(
            "predict",
            outcome=session.card.outcome,
            settings=settings,
            colours=class_colours(session.card.classes),
        )

    async def generate(request: Request) -> Response:
        cases = [
            {"number": i, "outcome": case.outcome, "training": session.card.saw(case)}
            for i, case in enumerate(session.crops, start=1)
        ]
        settings = {
            "labels": label_colours(session.card.classes),
            "steps": STEPS,
            "colours": ["#000000", *class_colours(session.card.classes).values()],
        }
        return _page(
            "generate",
            outcome=session.card.outcome,
            cases=cases,
            settings=settings,
            colours=class_colours(session.card.classes),
        )

    async def runs(request: Request) -> Response:
        return _page("runs")

    async def report(request: Request) -> Response:
        name, page = request.path_params["name"], request.path_params["page"]
        path = await run_in_threadpool(page_of_run, session.run.parent, name, page)
        return FileResponse(
            path, media_type="text/html", headers={"content-security-policy": REPORT_POLICY}
        )

    return [
        Route("/", start),
        Route("/cohort", cohort),
        Route("/cohort/{number:int}.png", picture),
        Route("/predict", predict),
        Route("/generate", generate),
        Route("/runs", runs),
        Route("/runs/{name}/{page}", report),
        Route("/static/{name}", _static),
    ]


async def _static(request: Request) -> Response:
    name = request.path_params["name"]
    if name == NIIVUE_NAME:
        text = files("neonet3d.report").joinpath(NIIVUE).read_text("utf-8")
        return Response(text, media_type="text/javascript")
    if name not in STATIC:
        raise InputError(f"There is no {name!r} here.")
    if name == "app.css":
        return Response(_style(), media_type="text/css")
    text = files("neonet3d.app").joinpath("static", name).read_text("utf-8")
    return Response(text, media_type=STATIC[name])


@cache
def _style() -> str:
    """The report's colours and rules, and the app's own."""
    return _templates().get_template("app.css.j2").render(light=LIGHT, dark=DARK)


def _page(name: str, **values: object) -> HTMLResponse:
    return HTMLResponse(_templates().get_template(f"{name}.html.j2").render(here=name, **values))


@cache
def _templates() -> Environment:
    """The app's pages beside the report's."""
    both = ChoiceLoader([PackageLoader("neonet3d.app"), PackageLoader("neonet3d.report")])
    return environment().overlay(loader=both)
