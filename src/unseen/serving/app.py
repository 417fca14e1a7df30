"""The application: what can be asked, and how it is answered.

Bodies are read by hand, because what reads them for FastAPI would do so on the one thread that serves everybody.
"""

from __future__ import annotations

import hmac
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

from fastapi import FastAPI, HTTPException, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException as StarletteHTTPException

import unseen
from unseen.errors import DataError, MissingDependency, SettingsError, UnseenError
from unseen.serving import messages
from unseen.serving.guard import Guard, refusal, reply
from unseen.serving.limits import SHORTEST_TOKEN, Limits
from unseen.serving.line import Line, LineFull, TooLate
from unseen.serving.page import page
from unseen.serving.pictures import rows_of
from unseen.serving.served import Refused, Served, Snapshot
from unseen.storage import BeingChanged

if TYPE_CHECKING:
    from collections.abc import Iterable

    from unseen.classifier import ZeroShotClassifier
    from unseen.inference import OnnxClassifier

T = TypeVar("T")
MOST_GUESSES = 100
CLOSED = "this server was started without a token, so nobody may change its classes; start it with --token-file"
PICTURE = {"schema": {"type": "string", "format": "binary"}}
BODY_OF_PREDICT = {
    "required": True,
    "content": {
        "application/json": {"schema": messages.FeatureRows.model_json_schema()},
        "image/*": PICTURE,
        "multipart/form-data": {
            "schema": {
                "type": "object",
                "properties": {"picture": {"type": "array", "items": PICTURE["schema"]}},
                "required": ["picture"],
            }
        },
    },
}
BODY_OF_ADD = {"required": True, "content": {"application/json": {"schema": messages.NewClass.model_json_schema()}}}
PROBLEMS: dict[int | str, dict[str, Any]] = {
    "4XX": {"model": messages.Problem, "description": "Something is wrong with the request."},
    "5XX": {"model": messages.Problem, "description": "The server is busy or at fault."},
}
SECURED: dict[str, Any] = {"security": [{"bearer": []}]}

logger = logging.getLogger(__name__)


def create_app(
    model: Path | ZeroShotClassifier | OnnxClassifier,
    token: str | None = None,
    limits: Limits | None = None,
    *,
    names: Iterable[str] = (),
    encoder: str | None = None,
    image_encoder: str | None = None,
    save: bool = False,
) -> FastAPI:
    """A server's application, for any ASGI server; `unseen.serving.running.serve` runs it by uvicorn.

    Args:
        model: a folder that `save` wrote, a file that `unseen export` wrote, or a classifier, which is not changed.
        token: who knows it may add and remove classes; None: nobody may.
        limits: what may be asked.
        names: under which the server may be asked for, beside localhost and IP addresses.
        encoder, image_encoder: of a saved model, as `ZeroShotClassifier.load` takes them.
        save: write each change of the classes back to the model's folder.

    Raises:
        SettingsError: the token is too short, or the model cannot be saved back.
        DataError, MissingDependency: as opening the model does.
    """
    limits = limits or Limits()
    if token is not None and (len(token) < SHORTEST_TOKEN or not token.isascii() or not token.isprintable()):
        raise SettingsError(
            f"a token is {SHORTEST_TOKEN} or more printable ASCII characters, so that nobody guesses it; make one by: "
            "python -c 'import secrets; print(secrets.token_urlsafe())'"
        )
    served = Served(model, limits.classes, encoder=encoder, image_encoder=image_encoder, save=save)
    predicting = Line("predict", limits.threads, limits.waiting)
    changing = Line("change", 1, limits.changes)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        predicting.close()
        changing.close()

    app = FastAPI(
        title="unseen",
        version=unseen.__version__,
        summary="A classifier that also knows classes it was shown no example of.",
        docs_url=None,  # these pages fetch scripts from elsewhere
        redoc_url=None,
        lifespan=lifespan,
        responses=PROBLEMS,
    )
    app.add_middleware(Guard, limits=limits, names=names)
    answer_errors(app)

    @app.api_route("/", methods=["GET", "HEAD"], include_in_schema=False)
    async def show_page() -> Response:
        return page()

    @app.head("/healthz", include_in_schema=False)
    @app.get("/healthz", response_model=messages.Health)
    async def health() -> Response:
        """Whether the server answers, and by which revision of the model."""
        return reply({"status": "ok", "revision": served.current.revision})

    @app.post("/predict", response_model=messages.Predicted, openapi_extra={"requestBody": BODY_OF_PREDICT})
    async def predict(
        request: Request, top: Annotated[int, Query(ge=1, le=MOST_GUESSES, description="classes to list for each row")] = 5
    ) -> Response:
        """Features as JSON, a picture as the body, or pictures as the files of a form → what the model says of each."""
        kind = content_type(request)
        if kind == "application/json":
            rows = await features_of(request)
        elif kind.startswith("image/"):
            rows = pictures_of([await request.body()])
        elif kind == "multipart/form-data":
            rows = pictures_of(await files_of(request, limits.pictures))
        else:
            raise HTTPException(415, "send features as application/json, or pictures as image/… or multipart/form-data")

        def work() -> Response:
            given = rows()
            now = served.current
            return reply(messages.predicted(now, now.answers(given), top))

        return await in_line(predicting, work, limits.predict_seconds)

    async def features_of(request: Request) -> Callable[[], Any]:
        width = served.width
        if width is None:
            raise HTTPException(415, "this model takes pictures; send them as image/… or multipart/form-data")
        body = await request.body()
        return lambda: messages.feature_rows(body, width, limits.rows)

    def pictures_of(files: list[bytes]) -> Callable[[], Any]:
        if not served.takes_pictures:
            raise HTTPException(415, "this model takes rows of features, not pictures; send them as application/json")
        return lambda: rows_of(files, served.encoder, limits.pixels)

    @app.get("/classes", response_model=messages.Classes)
    async def list_classes() -> Response:
        """What the model takes, and the classes that it knows."""
        return reply(messages.known(served, "" if token else CLOSED))

    @app.post(
        "/classes", status_code=201, response_model=messages.Changed, openapi_extra={"requestBody": BODY_OF_ADD, **SECURED}
    )
    async def add_class(request: Request) -> Response:
        """Learn a class that has no example. Answers name it from the revision that is returned on."""
        check_token(request)
        if content_type(request) != "application/json":
            raise HTTPException(415, "tell the class as application/json")
        asked = messages.read(messages.NewClass, await request.body())
        for what, text, most in (
            ("name", asked.name, limits.name),
            ("description", asked.description or "", limits.description),
        ):
            if len(text) > most:
                raise DataError(f"the {what} has {len(text)} characters, and {most} are taken; shorten it")
        if {".", ".."} & set(asked.name.split("/")):
            raise DataError(
                f"a class named {asked.name!r} could not be removed, as no address leads to it; choose another name"
            )
        said = asked.description if served.told_by == "description" else asked.embedding
        if (asked.description is None) == (asked.embedding is None) or (said is None and served.told_by):
            raise DataError(f"tell a class to this model by its {served.told_by or 'description'}, and by nothing else")
        if asked.description is not None and not asked.description.strip():
            raise DataError("the description is empty; give the class a description")
        return await changed(lambda: served.add(asked.name, said or ()), 201)

    @app.delete("/classes/{name:path}", response_model=messages.Changed, openapi_extra=SECURED)
    async def remove_class(name: str, request: Request) -> Response:
        """Answer a class no more that was never seen."""
        check_token(request)
        return await changed(lambda: served.remove(name), 200)

    async def changed(change: Callable[[], Snapshot], status: int) -> Response:
        def work() -> Response:
            after = change()
            return reply({"revision": after.revision, "classes": len(after.names)}, status)

        return await in_line(changing, work, None)

    def check_token(request: Request) -> None:
        if token is None:
            raise HTTPException(403, CLOSED)
        scheme, _, given = request.headers.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not hmac.compare_digest(given.strip().encode(), token.encode()):
            raise HTTPException(
                401, "this needs the server's token; send it as `Authorization: Bearer …`", {"WWW-Authenticate": "Bearer"}
            )

    describe_token(app)
    return app


async def in_line(line: Line, work: Callable[[], T], seconds: float | None) -> T:
    """The result of work in a thread; 503 where too many wait for one, or it takes too long."""
    try:
        return await line.do(work, seconds)
    except LineFull:
        raise HTTPException(503, "too many requests are waiting; try again in a second", {"Retry-After": "1"}) from None
    except TooLate:
        sentence = f"there was no answer within {seconds:g} seconds; send less at a time, or try again later"
        raise HTTPException(503, sentence, {"Retry-After": "5"}) from None


async def files_of(request: Request, most: int) -> list[bytes]:
    """The files of a form, in their order, whatever their fields are called."""
    async with request.form(max_files=most, max_fields=most) as form:
        files = [part for _, part in form.multi_items() if not isinstance(part, str)]
        if not files or len(files) < len(form.multi_items()):
            raise HTTPException(422, f"a form holds 1 to {most} pictures as files, and nothing else")
        return [await file.read() for file in files]


def content_type(request: Request) -> str:
    """What a body is said to be, without parameters."""
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()


def answer_errors(app: FastAPI) -> None:
    """Every error as one sentence of JSON."""

    async def ours(request: Request, error: Exception) -> Response:
        if isinstance(error, Refused):
            return refusal(409, str(error))
        if isinstance(error, BeingChanged):
            return refusal(503, str(error), {"Retry-After": "1"})
        if isinstance(error, DataError | SettingsError):
            return refusal(422, str(error))
        if isinstance(error, MissingDependency):
            return refusal(501, str(error))
        logger.error("%s", error)
        return refusal(500, str(error))

    async def of_http(request: Request, error: Exception) -> Response:
        assert isinstance(error, StarletteHTTPException)
        sentence = str(error.detail)
        if error.status_code in (404, 405) and sentence in ("Not Found", "Method Not Allowed"):
            sentence = f"there is no {request.method} {request.url.path[:100]} here; see /openapi.json"
        return refusal(error.status_code, sentence, dict(error.headers or {}))

    async def of_query(request: Request, error: Exception) -> Response:
        assert isinstance(error, RequestValidationError)
        first = error.errors()[0]
        what = first["msg"]
        return refusal(422, f"{first['loc'][-1]} is not as it should be: {what[:1].lower()}{what[1:]}; see /openapi.json")

    async def unforeseen(request: Request, error: Exception) -> Response:
        return refusal(500, "the server failed at this request, and its log says how; try another")

    app.add_exception_handler(UnseenError, ours)
    app.add_exception_handler(StarletteHTTPException, of_http)
    app.add_exception_handler(RequestValidationError, of_query)
    app.add_exception_handler(Exception, unforeseen)


def describe_token(app: FastAPI) -> None:
    """Say in /openapi.json what `security` of an operation means."""
    made = app.openapi

    def with_scheme() -> dict[str, Any]:
        described = made()
        described.setdefault("components", {})["securitySchemes"] = {"bearer": {"type": "http", "scheme": "bearer"}}
        return described

    app.openapi = with_scheme  # type: ignore[method-assign]
