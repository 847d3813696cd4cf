"""From `MODULE:NAME` to an application, and to the `Oncecast` that it has made.

Invariant: what is wrong is one line, a `ConfigurationError`; where the application's own code has failed, the log has
its traceback before that line.
"""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import logging
import os
import sys
from collections.abc import Callable
from typing import Any

from ...errors import ConfigurationError
from ..embedding import Embedding, living_embeddings
from ..wrapping import AsgiApp

__all__ = ["INSTALL", "find_cast", "load_application"]

logger = logging.getLogger("oncecast.server")

INSTALL = "--app needs uvicorn: pip install 'oncecast[app]'"


def load_application(target: str) -> AsgiApp:
    """Return the application of `MODULE:NAME`, found from the working directory on. Raises `ConfigurationError`."""
    for needed in ("uvicorn", "httptools"):
        if importlib.util.find_spec(needed) is None:
            raise ConfigurationError(INSTALL)
    name, colon, attribute = target.partition(":")
    if not (colon and name and attribute):
        raise ConfigurationError(f"--app {target}: give MODULE:NAME, as in shop.main:app")
    here = os.getcwd()
    if here not in sys.path:
        sys.path.insert(0, here)
    found: Any = _import(name, target)
    for part in attribute.split("."):
        try:
            found = getattr(found, part)
        except AttributeError:
            raise ConfigurationError(f"--app {target}: the module {name} has no {attribute}") from None
    if (fault := _fault(found)) is not None:
        raise ConfigurationError(f"--app {target}: this is no ASGI application, {fault}")
    return found  # type: ignore[no-any-return]


def find_cast() -> Embedding | None:
    """Return the one `Oncecast` of this process, None where it has none. Raises `ConfigurationError` for several."""
    found = living_embeddings()
    if len(found) > 1:
        raise ConfigurationError(f"the application has made {len(found)} Oncecast objects: make one, for all of it")
    return found[0] if found else None


def _import(name: str, target: str) -> Any:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is not None and (name == error.name or name.startswith(error.name + ".")):
            text = f"--app {target}: there is no module {error.name} here or in Python's path: give it as import does"
            raise ConfigurationError(text) from None
        logger.exception("the application can't be imported")
        raise ConfigurationError(f"--app {target}: {name} can't be imported: {error}") from None
    except Exception as error:
        logger.exception("the application can't be imported")
        raise ConfigurationError(f"--app {target}: {name} can't be imported: {_in_one_line(error)}") from None


def _in_one_line(error: Exception) -> str:
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def _fault(found: Any) -> str | None:
    """Return why this is no application of ASGI 3."""
    if not callable(found):
        return f"as {_article(type(found).__name__)} can't be called"
    if inspect.isclass(found):
        return "but a class: name an object of it"
    try:
        signature = inspect.signature(found)
    except (TypeError, ValueError):  # of C
        return None
    for count, what in (
        (3, ""),
        (0, "but a function that makes one: call it in the module, and name its result"),
        (2, "but takes two arguments, as those of WSGI do: wrap it, as a2wsgi does"),
        (1, "but takes one argument, as those of ASGI 2 do: wrap it, as asgiref does"),
    ):
        if _takes(signature.bind, count):
            return what or None
    return "as it can't be called with scope, receive and send"


def _takes(bind: Callable[..., object], count: int) -> bool:
    try:
        bind(*(None,) * count)
    except TypeError:
        return False
    return True


def _article(name: str) -> str:
    return f"{'an' if name[0] in 'aeiouAEIOU' else 'a'} {name}"
