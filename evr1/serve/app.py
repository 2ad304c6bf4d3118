"""The routes."""

import time
from collections.abc import Callable

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from evr1.serve import answers
from evr1.serve.chat import Chat
from evr1.serve.errors import Refusal
from evr1.serve.gate import Gate
from evr1.serve.metrics import CONTENT_TYPE, Metrics
from evr1.serve.settings import ServeSettings
from evr1.serve.worker import Worker

_CODES = {404: "not_found", 405: "method_not_allowed"}


def make_app(
    settings: ServeSettings, worker: Worker, chat: Chat, gate: Gate, metrics: Metrics
) -> Starlette:
    """Returns the application."""
    created = int(time.time())

    def guarded(answer: Callable[[Request], Response]) -> Callable:
        async def endpoint(request: Request) -> Response:
            gate.check_key(request)
            return answer(request)

        return endpoint

    def show_models(request: Request) -> Response:
        del request
        return JSONResponse(answers.models(settings.name, created))

    def show_model(request: Request) -> Response:
        name = request.path_params["name"]
        if name != settings.name:
            raise Refusal(404, f"model: there is no {name[:80]!r}, but {settings.name!r}",
                          "model_not_found", "model")  # fmt: skip
        return JSONResponse(answers.model(name, created))

    def show_metrics(request: Request) -> Response:
        del request
        return Response(metrics.text(), media_type=CONTENT_TYPE)

    async def health(request: Request) -> Response:
        del request
        if not worker.is_sound:
            return JSONResponse({"status": "failed"}, 503)
        return JSONResponse({"status": "ok", "version": worker.version.name})

    async def refuse(request: Request, error: Exception) -> Response:
        del request
        assert isinstance(error, Refusal)
        return JSONResponse(error.body(), error.status, error.headers)

    async def of_http(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        reason = f"{request.method} {request.url.path[:200]}: {error.detail}"
        refusal = Refusal(error.status_code, reason, _CODES.get(error.status_code, "http_error"))
        return JSONResponse(refusal.body(), error.status_code, error.headers)

    async def of_fault(request: Request, error: Exception) -> Response:
        del request, error
        return JSONResponse(Refusal(500, "a fault of the server", "server_error").body(), 500)

    return Starlette(
        routes=[
            Route("/v1/chat/completions", chat, methods=["POST"]),
            Route("/v1/models", guarded(show_models)),
            Route("/v1/models/{name:path}", guarded(show_model)),
            Route("/metrics", guarded(show_metrics)),
            Route("/health", health),
        ],
        exception_handlers={Refusal: refuse, HTTPException: of_http, Exception: of_fault},
    )
