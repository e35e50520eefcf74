"""What the pages' scripts ask for: jobs, masks, how far a run is. JSON in and out."""

from __future__ import annotations

import asyncio
import base64
import secrets
from dataclasses import asdict
from pathlib import Path
from typing import TypeVar

import numpy as np
from pydantic import Field, ValidationError
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import Route

from neonet3d.app.checking import CheckCohort
from neonet3d.app.drawing import DrawVolume
from neonet3d.app.edits import EditedMask, edited_mask
from neonet3d.app.jobs import Job
from neonet3d.app.reading import ReadScan
from neonet3d.app.runs import list_runs
from neonet3d.app.session import Session
from neonet3d.app.uploads import receive, require_plain_name, require_size
from neonet3d.app.worker import Work
from neonet3d.config_section import Section
from neonet3d.errors import InputError

MOST_JSON = 1 << 16
MOST_UPLOADS = 2  # at a time
LONGEST_UPLOAD_SECONDS = 600.0
SectionT = TypeVar("SectionT", bound=Section)
FILE_TYPES = {".gz": "application/gzip", ".zip": "application/zip"}


class Drawing(EditedMask):
    """A volume to draw."""

    outcome: int = Field(ge=-1, le=1)
    seed: int = Field(ge=0, lt=2**31)


def routes(session: Session) -> list[Route]:
    """Of everything that is asked for by scripts."""
    uploads = asyncio.Semaphore(MOST_UPLOADS)

    def told(job: Job) -> JSONResponse:
        return JSONResponse(session.jobs.told(job))

    async def check(request: Request) -> Response:
        root = session.shown_cohort.root
        return told(session.jobs.submit("cohort", lambda _: CheckCohort(root)))

    async def predict(request: Request) -> Response:
        name = request.query_params.get("name", "")
        require_plain_name(name)
        require_size(request.headers.get("content-length"))
        if uploads.locked():
            raise InputError(f"{MOST_UPLOADS} uploads are coming in already. Wait for one of them.")
        upload = session.folder / f"upload-{secrets.token_hex(8)}"

        def make(folder: Path) -> Work:
            return ReadScan(session.models, upload.rename(folder / "upload.bin"), name)

        try:
            async with uploads, asyncio.timeout(LONGEST_UPLOAD_SECONDS):
                await receive(request.stream(), upload)
            return told(session.jobs.submit("predict", make))
        except TimeoutError as error:
            raise InputError("The upload took too long. Send it again.") from error
        finally:
            upload.unlink(missing_ok=True)

    async def mask(request: Request) -> Response:
        wanted = await _read(request, EditedMask)
        found = await run_in_threadpool(edited_mask, session.crops, session.card, wanted)
        schema = session.card.schema_
        tumour = found.label_map == schema.value("tumour") if "tumour" in schema else None
        voxel_ml = float(np.prod(found.spacing_mm)) / 1000
        return JSONResponse(
            {
                "shape": found.label_map.shape,
                "spacing_mm": [round(mm, 4) for mm in found.spacing_mm],
                # x runs fastest, so that a slice of the last axis is one piece.
                "labels": base64.b64encode(found.label_map.tobytes("F")).decode(),
                "tumour_ml": None if tumour is None else round(float(tumour.sum()) * voxel_ml, 3),
            }
        )

    async def generate(request: Request) -> Response:
        wanted = await _read(request, Drawing)
        mask = EditedMask(case=wanted.case, edits=wanted.edits)
        work = DrawVolume(session.models, session.crops.root, mask, wanted.outcome, wanted.seed)
        return told(session.jobs.submit("generate", lambda _: work))

    async def job(request: Request) -> Response:
        return told(session.jobs.get(request.path_params["number"]))

    async def cancel(request: Request) -> Response:
        return told(session.jobs.cancel(request.path_params["number"]))

    async def file(request: Request) -> Response:
        found = session.jobs.get(request.path_params["number"])
        name = request.path_params["name"]
        # The folder's own files by their names, so that no name leads out of it.
        listed = {one.name: one for one in found.folder.glob("*") if one.is_file()}
        kind = FILE_TYPES.get(Path(name).suffix)
        if name not in listed or kind is None:
            raise InputError(f"The job has no file {name!r}.")
        return FileResponse(listed[name], media_type=kind)

    async def runs(request: Request) -> Response:
        found = await run_in_threadpool(list_runs, session.run.parent)
        return JSONResponse([asdict(run) for run in found])

    return [
        Route("/api/cohort/check", check, methods=["POST"]),
        Route("/api/predict", predict, methods=["POST"]),
        Route("/api/mask", mask, methods=["POST"]),
        Route("/api/generate", generate, methods=["POST"]),
        Route("/api/jobs/{number}", job),
        Route("/api/jobs/{number}/cancel", cancel, methods=["POST"]),
        Route("/api/jobs/{number}/files/{name}", file),
        Route("/api/runs", runs),
    ]


async def _read(request: Request, kind: type[SectionT]) -> SectionT:
    """A small JSON body.

    Raises:
        InputError: too long, or not what is asked for.
    """
    body = b""
    async for piece in request.stream():
        body += piece
        if len(body) > MOST_JSON:
            raise InputError("The request is too long. Undo some of the edits.")
    try:
        return kind.model_validate_json(body)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"]) or "the request"
        raise InputError(f"{place}: {first['msg']}. Change it and try again.") from error
