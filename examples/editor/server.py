"""Editor: several people in one text.

The pages merge: each change is an update of Yjs, some bytes that can be applied in any order, and more than once, with
the same result. So the server has no more to do than to keep them. The channel `text` is the history: a page that comes
late replays it.
"""

import sys
from pathlib import Path

from starlette.applications import Starlette
from starlette.routing import Mount
from starlette.staticfiles import StaticFiles

from oncecast import Oncecast, Publication, Refused

HERE = Path(__file__).parent
if not (HERE / "page/yjs.js").exists():
    sys.exit("The editor needs Yjs: run `make web`, which bundles it from npm.")

cast = Oncecast(settings=HERE / "oncecast.toml")


@cast.on_publish("text")
async def check(publication: Publication) -> None:
    """Refuse what no page of ours publishes."""
    if not isinstance(publication.data, bytes):
        raise Refused("A change is binary: an update of Yjs.", code="data_invalid")


routes = [
    Mount("/rt", cast),
    Mount("/shared", StaticFiles(directory=HERE.parent / "shared")),
    Mount("/", StaticFiles(directory=HERE / "page", html=True)),
]
app = Starlette(routes=routes, lifespan=cast.lifespan)
