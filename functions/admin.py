"""The admin API: enqueue jobs, look at one. Needs a key in the header x-admin-key, never in the address."""

from __future__ import annotations

import logging
from urllib.parse import urljoin, urlsplit
from uuid import UUID

import azure.functions as func

from functions.problem import METHODS, answer, problem, wrong_method
from shared.access import Verdict
from shared.engine.errors import EnqueueError, QueueClosedError, StoreUnavailableError, UnknownQueueError
from shared.settings_errors import SettingsError

bp = func.Blueprint()  # type: ignore[no-untyped-call]
log = logging.getLogger(__name__)

KEY_HEADER = "x-admin-key"
LARGEST_BODY_BYTES = 16 * 1024 * 1024
RETRY_SOON = {"Retry-After": "10"}


@bp.function_name("enqueue_jobs")
@bp.route("queue/{queue}/jobs", methods=METHODS, auth_level=func.AuthLevel.ANONYMOUS)
def enqueue_jobs(req: func.HttpRequest) -> func.HttpResponse:
    """POST a job, or a list of them: stored all or none, 202 with their ids."""
    refusal = wrong_method(req, "POST") or _refuse_stranger(req) or _refuse_body(req)
    if refusal is not None:
        return refusal
    from shared import bootstrap
    from shared.handlers.job_requests import enqueue, read_document, receipt

    try:
        document = read_document(req.get_body())
        made = enqueue(bootstrap.producer(), req.route_params["queue"], document)
    except UnknownQueueError as error:
        return problem(404, str(error))
    except QueueClosedError as error:
        return problem(409, str(error))
    except EnqueueError as error:
        return problem(422, str(error), error.problems)
    except (StoreUnavailableError, SettingsError) as error:
        return _unavailable(error)
    jobs = [receipt(one) for one in made]
    if isinstance(document, list):
        return answer(202, {"jobs": jobs})
    location = urljoin(urlsplit(req.url).path, f"../jobs/{jobs[0]['id']}")
    return answer(202, jobs[0], {"Location": location})


@bp.function_name("show_job")
@bp.route("queue/jobs/{id}", methods=METHODS, auth_level=func.AuthLevel.ANONYMOUS)
def show_job(req: func.HttpRequest) -> func.HttpResponse:
    """GET a job with its attempts, whatever its state."""
    refusal = wrong_method(req, "GET") or _refuse_stranger(req)
    if refusal is not None:
        return refusal
    from shared import bootstrap
    from shared.handlers.job_requests import describe

    try:
        job = bootstrap.store().get(UUID(req.route_params["id"]))
        failures = bootstrap.delivery_failures().of_job(job.id) if job is not None else []
    except ValueError:
        job = None
    except (StoreUnavailableError, SettingsError) as error:
        return _unavailable(error)
    if job is None:
        return problem(404, "there is no job with this id")
    return answer(200, describe(job, [failure.as_json() for failure in failures]))


def _refuse_stranger(req: func.HttpRequest) -> func.HttpResponse | None:
    """Fails closed: without a usable key in the settings nobody gets in."""
    from shared import bootstrap

    try:
        verdict = bootstrap.admin_access().check(req.headers.get(KEY_HEADER))
    except SettingsError as error:
        log.error("admin.not_configured", extra={"error": str(error)})
        return problem(503, "the admin API has no key yet")
    if verdict is Verdict.GRANTED:
        return None
    if verdict is Verdict.SLOWED:
        return problem(429, "too many wrong keys", headers={"Retry-After": "60"})
    return problem(401, f"the header {KEY_HEADER} must carry a valid key", headers={"WWW-Authenticate": "AdminKey"})


def _refuse_body(req: func.HttpRequest) -> func.HttpResponse | None:
    kind = req.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":
        return problem(415, "the body must be application/json")
    if req.headers.get("content-encoding", "identity").strip().lower() != "identity":
        return problem(415, "a compressed body is not taken")
    if len(req.get_body()) > LARGEST_BODY_BYTES:
        return problem(413, f"a body has at most {LARGEST_BODY_BYTES:,} bytes")
    return None


def _unavailable(error: Exception) -> func.HttpResponse:
    log.warning("admin.unavailable", extra={"error": str(error)})
    return problem(503, "the job store cannot be used now; try again", headers=RETRY_SOON)
