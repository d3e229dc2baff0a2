"""Makes the swarm's devices through the admin API, as a fitter with a laptop would: create, note the token, go on.

A device that exists already gets a further credential; when it has two, the older one is revoked for it.
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence

import aiohttp
import orjson

from firmware_sim.credentials import CredentialsFile
from firmware_sim.device import DeviceSpec
from firmware_sim.errors import AdminRefused, LoginRefused, ServerUnreachable
from firmware_sim.options import SimOptions

AT_ONCE = 8
"""Creating a device costs the server a transaction; more at once only wait for each other there."""
PATIENCE = 5
"""How often "too many requests" and "busy" are waited out."""
TIMEOUT = aiohttp.ClientTimeout(total=30, sock_connect=10)


class Admin:
    """The few calls of the admin API that a fitter needs."""

    def __init__(self, session: aiohttp.ClientSession, options: SimOptions) -> None:
        self._session = session
        self._base = options.url.rstrip("/")
        self._username = options.username
        self._password = options.password
        self._token = options.token

    async def login(self) -> None:
        """Make sure that there is a bearer token. Raises LoginRefused."""
        if self._token:
            return
        if not self._username or not self._password:
            raise LoginRefused("devices must be created: give the user name and password, or a token, of an operator")
        body = {"username": self._username, "password": self._password}
        try:
            answer = await self._call("log in", "POST", "auth/login", body)
        except AdminRefused as refused:
            if refused.status in (400, 401, 403, 422, 429):
                raise LoginRefused(f"{self._base} does not let {self._username!r} in: {refused.detail}") from refused
            raise
        token = answer.get("access_token")
        if not isinstance(token, str):
            raise AdminRefused("log in", 200, "the answer holds no access_token")
        self._token = token

    async def credential(self, spec: DeviceSpec) -> str:
        """A token for a device, which is created when it does not exist."""
        body = {
            "id": spec.device_id,
            "name": spec.name,
            "profile": spec.kind.value,
            "tags": [spec.site],
            "attributes": {"serial": spec.serial, "site": spec.site, "lat": spec.lat, "lon": spec.lon},
        }
        try:
            return _token_in(await self._call(f"create device {spec.device_id}", "POST", "devices", body))
        except AdminRefused as refused:
            if refused.status != 409:
                raise
        path = f"devices/{spec.device_id}/credentials"
        action = f"add a credential to device {spec.device_id}"
        try:
            return _token_in(await self._call(action, "POST", path))
        except AdminRefused as refused:
            if refused.status != 409:
                raise
        await self._revoke_oldest(path, spec.device_id)
        return _token_in(await self._call(action, "POST", path))

    async def _revoke_oldest(self, path: str, device_id: str) -> None:
        listed = await self._call(f"list the credentials of {device_id}", "GET", path)
        items = listed.get("items")
        valid = [
            item
            for item in (items if isinstance(items, list) else [])
            if isinstance(item, dict) and item.get("revoked_at") is None and isinstance(item.get("id"), str)
        ]
        if valid:
            oldest = min(valid, key=lambda item: str(item.get("created_at")))
            await self._call(f"revoke a credential of {device_id}", "DELETE", f"{path}/{oldest['id']}")

    async def _call(self, action: str, method: str, path: str, body: object = None) -> Mapping[str, object]:
        headers = {"Authorization": f"Bearer {self._token}"} if self._token else {}
        data = None if body is None else orjson.dumps(body)
        if data is not None:
            headers["Content-Type"] = "application/json"
        url = f"{self._base}/api/v1/{path}"
        for attempt in range(PATIENCE + 1):
            try:
                async with self._session.request(
                    method, url, data=data, headers=headers, timeout=TIMEOUT, allow_redirects=False
                ) as response:
                    status, text = response.status, await response.read()
                    retry_after = response.headers.get("Retry-After", "")
            except (aiohttp.ClientError, OSError) as error:
                reason = str(error) or type(error).__name__
                raise ServerUnreachable("the admin API", self._base, reason) from error
            if status not in (429, 503) or path.startswith("auth/") or attempt == PATIENCE:
                break
            await asyncio.sleep(min(float(retry_after) if retry_after.isdecimal() else 1.0, 30.0))
        if 200 <= status < 300:
            return _object(text)
        detail = _detail(text)
        if status == 401 and path != "auth/login":
            raise LoginRefused(f"{self._base} does not accept the token: {detail}")
        if status == 403 and path != "auth/login":
            raise LoginRefused(f"this login may not {action}: {detail}")
        raise AdminRefused(action, status, detail)


async def provision(
    admin: Admin,
    specs: Sequence[DeviceSpec],
    kept: CredentialsFile,
    note: Callable[[int, int], None],
) -> None:
    """Get a token for every device that has none kept. Raises what Admin raises, at the first device it happens to."""
    missing = [spec for spec in specs if kept.token(spec.device_id) is None]
    if not missing:
        return
    await admin.login()
    waiting = iter(missing)
    made = 0

    async def fitter() -> None:
        nonlocal made
        for spec in waiting:
            kept.keep(spec.device_id, token=await admin.credential(spec))
            made += 1
            note(made, len(missing))

    async def everyone() -> None:
        async with asyncio.TaskGroup() as group:
            for number in range(min(AT_ONCE, len(missing))):
                group.create_task(fitter(), name=f"sim-fitter-{number}")

    try:
        await everyone()
    except BaseExceptionGroup as several:
        # All fitters meet the same trouble: the first one's words are enough.
        raise several.exceptions[0] from several
    finally:
        kept.save()


def _token_in(answer: Mapping[str, object]) -> str:
    credentials = answer.get("credentials")
    token = credentials.get("token") if isinstance(credentials, Mapping) else answer.get("token")
    if not isinstance(token, str) or not token:
        raise AdminRefused("give a device a credential", 200, "the answer holds no token")
    return token


def _object(text: bytes) -> Mapping[str, object]:
    try:
        value = orjson.loads(text) if text else {}
    except orjson.JSONDecodeError:
        return {}
    return value if isinstance(value, dict) else {"items": value}


def _detail(text: bytes) -> str:
    """A problem's own words, on one line."""
    problem = _object(text)
    words = [str(problem[name]) for name in ("detail", "title") if problem.get(name)][:1]
    errors = problem.get("errors")
    for error in errors if isinstance(errors, list) else []:
        if isinstance(error, Mapping):
            words.append(f"{error.get('field')}: {error.get('detail')}")
    said = "; ".join(words) or text[:200].decode("utf-8", "replace")
    return " ".join(said.split())[:300]
