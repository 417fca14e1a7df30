"""The command that serves a model over HTTP."""

from __future__ import annotations

import ipaddress
import os
from pathlib import Path
from typing import Annotated

import typer

from unseen.cli.saying import say
from unseen.errors import SettingsError

TOKEN = "UNSEEN_TOKEN"
"""The environment variable that a token is taken from."""


def serve(
    model: Annotated[Path, typer.Argument(metavar="MODEL", help="A saved classifier, or a file that `unseen export` wrote.")],
    host: Annotated[str, typer.Option(help="Address to listen at; 0.0.0.0 is every one of this machine's.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes any free one.")] = 8000,
    token_file: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help=f"Holds a secret; who knows it may add and remove classes. Or set {TOKEN}."),
    ] = None,
    allow_host: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="Name that the server is asked for, beside localhost and addresses; repeatable."),
    ] = None,
    save: Annotated[bool, typer.Option("--save", help="Write added and removed classes back to MODEL.")] = False,
    encoder: Annotated[
        str | None, typer.Option(help="Of descriptions, where it is not minilm; as `unseen embed` takes it.")
    ] = None,
    image_encoder: Annotated[
        str | None, typer.Option(help="Of pictures, where it is not efficientnet-lite0; as `unseen features` takes it.")
    ] = None,
) -> None:
    """Answer over HTTP, with a page for people; stop with Ctrl-C."""
    from unseen.serving import Limits, create_app
    from unseen.serving.running import address, listening
    from unseen.serving.running import serve as answer

    token = _token(token_file)
    if save and token is None:
        raise SettingsError("--save writes back what is added, and nobody may add without a token; give --token-file")
    limits = Limits()
    with listening(host, port) as at:  # before the model is opened: a port that is taken shows at once
        app = create_app(
            model, token, limits, names=allow_host or (), encoder=encoder, image_encoder=image_encoder, save=save
        )  # fmt: skip
        if not _is_local(at.getsockname()[0]):
            unencrypted = ", and the token is sent unencrypted" if token else ""
            say(
                f"note: everybody who reaches {host} can ask this server{unencrypted}; a proxy with TLS before it is safer",
                "yellow",
            )
        answer(app, at, limits, ready=lambda: print(f"{model} answers at {address(at)}; stop with Ctrl-C", flush=True))


def _token(file: Path | None) -> str | None:
    """The secret in the file, or in the environment; None where there is neither."""
    if file is None:
        return os.environ.get(TOKEN) or None
    try:
        token = file.read_text("utf-8").strip()
    except (OSError, UnicodeError) as error:
        cause = getattr(error, "strerror", None) or "it is no text"
        raise SettingsError(f"the token in {file} cannot be read ({cause}); check the path") from error
    if not token:
        raise SettingsError(f"{file} is empty; put a token into it")
    if os.name == "posix" and file.stat().st_mode & 0o077:
        say(f"note: others on this machine may read {file}; chmod 600 keeps the token to you", "yellow")
    return token


def _is_local(address: str) -> bool:
    return ipaddress.ip_address(address.partition("%")[0]).is_loopback
