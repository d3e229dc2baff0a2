"""Typed keys of the aiohttp application, beside web.parts.PARTS."""

from aiohttp import web

from web.imports import Imports
from web.metrics import Metrics
from web.overview import Overviews
from web.readings_csv import Exports
from web.store_jobs import StoreJobs

OVERVIEWS = web.AppKey("OVERVIEWS", Overviews)
METRICS = web.AppKey("METRICS", Metrics)
DOCUMENT = web.AppKey("DOCUMENT", bytes)
IMPORTS = web.AppKey("IMPORTS", Imports)
EXPORTS = web.AppKey("EXPORTS", Exports)
STORE_JOBS = web.AppKey("STORE_JOBS", StoreJobs)
