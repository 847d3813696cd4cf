"""Oncecast mounted in FastAPI, as docs/how-to/in-your-app.md has it."""

from __future__ import annotations

from fastapi import FastAPI

from oncecast import Oncecast

cast = Oncecast("memory://", subscribe="public", publish="public")
app = FastAPI(lifespan=cast.lifespan)
app.mount("/rt", cast)
