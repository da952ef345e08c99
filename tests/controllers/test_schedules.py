"""Whatever is dropped, doubled, late or killed: the same end, no child twice, nothing terminal undone.

One seed is one schedule. The API here is a small one in memory, with the real one's conflicts, finalizers
and garbage collection, so that hundreds of schedules take seconds; the journeys use the real one.
"""

import json
import random
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from datatunerx.client import Api, Conflict, NotFound, Response
from datatunerx.client.informer import Key
from datatunerx.controllers import Settings
from datatunerx.controllers.context import Context
from datatunerx.controllers.objects import NameTaken
from datatunerx.controllers.start import reconcilers
from datatunerx.controllers.wakes import PLACEMENT, Wake, wakes
from datatunerx.resources.kinds import BY_MODEL, KINDS
from datatunerx.resources.wire import RETRY

TERMINAL = ("Succeeded", "Failed", "Stopped")
BY_PLURAL = {kind.plural: kind for kind in KINDS}


class Crash(BaseException):
    """The controllers' process dies here."""


class SmallApi:
    """The writes of a Kubernetes API over one dict, as a Transport; objects are replaced, never changed."""

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng
        self.version = 0
        self.objects: dict[tuple[str, str], dict[str, Any]] = {}
        self.history: list[dict[tuple[str, str], dict[str, Any]]] = [{}]
        self.changes: list[tuple[Any, Any]] = []
        self.crash_rate = 0.0
        self.created: list[tuple[str, dict[str, Any]]] = []
        self.asked_again = False
        """Whether a user had something tried again: the only way out of a terminal phase."""

    async def request(
        self, method: str, path: str, *, query: Mapping[str, str] | None = None,
        body: bytes | None = None, headers: Mapping[str, str] | None = None,
    ) -> Response:  # fmt: skip
        parts = path.split("/")
        at = parts.index("namespaces") + 2 if "namespaces" in parts else 4
        plural, name = parts[at], parts[at + 1] if len(parts) > at + 1 else ""
        if method == "GET":
            status, answer = self._read(plural, name)
            return _response(status, answer)
        if self.rng.random() < self.crash_rate:
            raise Crash
        document = json.loads(body) if body else {}
        match method:
            case "POST":
                status, answer = self._create(plural, document)
            case "PATCH":
                status, answer = self._patch(plural, name, document, parts[-1] == "status")
            case _:
                status, answer = self._delete(plural, name, document)
        if self.rng.random() < self.crash_rate:
            raise Crash
        return _response(status, answer)

    def stream(self, path: str, **_: Any) -> AsyncIterator[bytes]:
        raise NotImplementedError

    def _read(self, plural: str, name: str) -> tuple[int, Any]:
        if name:
            found = self.objects.get((plural, name))
            return (200, found) if found else _refuse(404, "NotFound")
        items = [obj for key, obj in sorted(self.objects.items()) if key[0] == plural]
        return 200, {"items": items, "metadata": {"resourceVersion": str(self.version)}}

    def _create(self, plural: str, document: dict[str, Any]) -> tuple[int, Any]:
        name = document["metadata"]["name"]
        if plural == "events":
            return 201, document
        if (plural, name) in self.objects:
            return _refuse(409, "AlreadyExists")
        document.pop("status", None)
        document["metadata"] |= {
            "namespace": "default", "uid": f"uid-{self.version + 1:08}", "generation": 1,
            "creationTimestamp": "2026-01-01T00:00:00Z",
        }  # fmt: skip
        self.created.append((plural, document))
        return 201, self._put(plural, name, document)

    def _patch(self, plural: str, name: str, patch: dict[str, Any], status: bool) -> tuple[int, Any]:
        old = self.objects.get((plural, name))
        if old is None:
            return _refuse(404, "NotFound")
        wanted = patch.get("metadata", {})
        for field in ("resourceVersion", "uid"):
            if wanted.get(field) and wanted[field] != old["metadata"][field]:
                return _refuse(409, "Conflict")
        if status:
            new = {**old, "status": _merged(old.get("status", {}), patch.get("status", {}))}
        else:
            new = _merged(old, {key: value for key, value in patch.items() if key != "status"})
            new["metadata"]["resourceVersion"] = old["metadata"]["resourceVersion"]
        if new == old:
            return 200, old
        if new["spec"] != old["spec"]:
            new["metadata"] = {**new["metadata"], "generation": old["metadata"]["generation"] + 1}
        before = old.get("status", {}).get("phase")
        if before in TERMINAL and new["status"]["phase"] != before:
            asked = self.asked_again and (before == "Failed" or plural == "finetuneexperiments")
            assert asked, f"{plural}/{name} left {before}"
        if new["metadata"].get("deletionTimestamp") and not new["metadata"].get("finalizers"):
            return 200, self._drop(plural, name)
        return 200, self._put(plural, name, new)

    def _delete(self, plural: str, name: str, options: dict[str, Any]) -> tuple[int, Any]:
        old = self.objects.get((plural, name))
        if old is None:
            return _refuse(404, "NotFound")
        wanted = options.get("preconditions") or {}
        if any(value != old["metadata"][field] for field, value in wanted.items()):
            return _refuse(409, "Conflict")
        if not old["metadata"].get("finalizers"):
            return 200, self._drop(plural, name)
        if old["metadata"].get("deletionTimestamp"):
            return 200, old
        gone = {**old["metadata"], "deletionTimestamp": "2026-01-01T00:00:01Z"}
        return 200, self._put(plural, name, {**old, "metadata": gone})

    def _put(self, plural: str, name: str, new: dict[str, Any]) -> dict[str, Any]:
        self.version += 1
        old = self.objects.get((plural, name))
        new = {**new, "metadata": {**new["metadata"], "resourceVersion": str(self.version)}}
        self.objects = {**self.objects, (plural, name): new}
        self._changed(plural, old, new)
        return new

    def _drop(self, plural: str, name: str) -> dict[str, Any]:
        self.version += 1
        old = self.objects[plural, name]
        self.objects = {key: obj for key, obj in self.objects.items() if key != (plural, name)}
        self._changed(plural, old, None)
        uid = old["metadata"]["uid"]
        for (kind, child), obj in list(self.objects.items()):
            owners = [o["uid"] for o in obj["metadata"].get("ownerReferences", [])]
            alive = {o["metadata"]["uid"] for o in self.objects.values()}
            if uid in owners and not alive & set(owners):
                self._delete(kind, child, {})
        return old

    def _changed(self, plural: str, old: Any, new: Any) -> None:
        self.history.append(self.objects)
        self.changes.append((plural, old, new))


def _response(status: int, answer: Any) -> Response:
    return Response(status, {}, json.dumps(answer).encode())


def _refuse(status: int, reason: str) -> tuple[int, Any]:
    return status, {"kind": "Status", "code": status, "reason": reason, "message": reason}


def _merged(old: Any, patch: Any) -> Any:
    if not isinstance(patch, dict):
        return patch
    new = dict(old) if isinstance(old, dict) else {}
    for key, value in patch.items():
        if value is None:
            new.pop(key, None)
        else:
            new[key] = _merged(new.get(key), value)
    return new


class LateWorld:
    """What the informers show: each kind as it was some versions ago, never going back."""

    parsed: dict[tuple[str, str], Any] = {}

    def __init__(self, api: SmallApi) -> None:
        self.api = api
        self.seen = dict.fromkeys(BY_PLURAL, len(api.history) - 1)
        self.stuck = dict.fromkeys(BY_PLURAL, 0)

    def advance(self, rng: random.Random, *, fully: bool) -> None:
        newest = len(self.api.history) - 1
        for plural, seen in self.seen.items():
            if fully:
                self.seen[plural], self.stuck[plural] = newest, 0
            elif self.stuck[plural] > 0:
                self.stuck[plural] -= 1
            else:
                self.seen[plural] = rng.choice((newest, newest, rng.randint(seen, newest)))
                self.stuck[plural] = rng.randint(1, 50) if rng.random() < 0.05 else 0

    def _objects(self, model: Any) -> dict[str, Any]:
        plural = BY_MODEL[model].plural
        shown = self.api.history[self.seen[plural]]
        return {name: self._parse(model, obj) for (kind, name), obj in shown.items() if kind == plural}

    def _parse(self, model: Any, obj: dict[str, Any]) -> Any:
        key = (obj["metadata"]["uid"], obj["metadata"]["resourceVersion"])
        if key not in self.parsed:
            self.parsed[key] = model.parse(obj)
        return self.parsed[key]

    def get(self, model: Any, namespace: str, name: str) -> Any:
        plural = BY_MODEL[model].plural
        obj = self.api.history[self.seen[plural]].get((plural, name))
        return self._parse(model, obj) if obj else None

    def all(self, model: Any, namespace: str) -> list[Any]:
        return [obj for _, obj in sorted(self._objects(model).items())]

    def owned(self, model: Any, uid: str) -> list[Any]:
        return [o for o in self.all(model, "") if uid in {r.uid for r in o.metadata.owner_references}]


class Schedule:
    """One seeded life of the controllers."""

    def __init__(self, seed: int, root: Path, backend: Any) -> None:
        self.rng = random.Random(seed)
        self.server = SmallApi(self.rng)
        self.api = Api(self.server)
        self.backend = backend
        self.now = 1000.0
        self.settings = Settings(root_uri=f"file://{root}", poll_seconds=0.5, devices=self.rng.choice((1, 3)))
        self.crashes = 0
        LateWorld.parsed = {}
        self.restart()
        self.pending: list[Wake] = []
        self.read = 0

    def restart(self) -> None:
        """All that is in memory is gone."""
        self.world = LateWorld(self.server)
        self.table = reconcilers(
            Context(self.api, self.world, self.backend, self.settings, clock=lambda: self.now)
        )

    def every_key(self) -> list[Wake]:
        found = [Wake(BY_PLURAL[plural].name, Key("default", name)) for plural, name in self.server.objects]
        return [*found, Wake(PLACEMENT, Key("default", ""))]

    async def reconcile(self, wake: Wake) -> None:
        try:
            again = await self.table[wake.controller].reconcile(wake.key)
        except (Conflict, NameTaken, NotFound):
            self.pending.append(wake)
        except Crash:
            self.crashes += 1
            self.restart()
        else:
            if again is not None:
                self.pending.append(wake)
        self.hear()

    def hear(self) -> None:
        """Wake-ups of what was written: some are dropped, some doubled."""
        for plural, old, new in self.server.changes[self.read :]:
            model = BY_PLURAL[plural].model
            before, after = (self.world._parse(model, o) if o else None for o in (old, new))
            for wake in wakes(self.world, before, after):
                self.pending += [wake] * self.rng.choices((0, 1, 2), (0.15, 0.7, 0.15))[0]
        self.read = len(self.server.changes)

    async def chaos(self, most: int, after_end: int, at_random: Any) -> None:
        """Until the experiment has ended and some steps more."""
        self.server.crash_rate = 0.04
        for number in range(most):
            await at_random(number)
            if has_ended(self.server):
                after_end -= 1
            if not after_end:
                break
            self.now += self.rng.random()
            if self.rng.random() < 0.3:
                self.backend.step()
            self.world.advance(self.rng, fully=False)
            if self.rng.random() < 0.1 or not self.pending:
                self.pending.append(self.rng.choice(self.every_key()))
            await self.reconcile(self.pending.pop(self.rng.randrange(len(self.pending))))
        self.server.crash_rate = 0.0

    async def settle(self) -> None:
        """What resync does in the end: everything is looked at until nothing changes any more."""
        quiet = 0
        for _ in range(200):
            version = self.server.version
            self.backend.step()
            for wake in self.every_key():
                self.now += 0.2
                self.world.advance(self.rng, fully=True)
                await self.reconcile(wake)
            self.pending.clear()
            quiet = quiet + 1 if self.server.version == version else 0
            if quiet == 4:
                return
        raise AssertionError("does not come to rest")


def final_state(server: SmallApi) -> dict[str, Any]:
    """What must be the same in every life: everything but uids, times, runs and how often it was tried."""
    state: dict[str, Any] = {}
    for (plural, name), obj in server.objects.items():
        if plural == "runs":
            continue
        status = obj.get("status", {})
        conditions = {c["type"]: c["status"] for c in status.get("conditions", []) if c["type"] != "InUse"}
        kept = {key: status.get(key) for key in ("phase", "score", "checkpoint", "jobs", "digest")}
        best = status.get("best", {})
        kept |= {"best": best.get("job"), "why": best.get("why"), "conditions": conditions}
        kept["ranking"] = [(r.get("rank"), r["name"], r.get("score")) for r in status.get("ranking", [])]
        kept["failures"] = [(f["job"], f["reason"]) for f in status.get("failures", [])]
        state[f"{plural}/{name}"] = kept
    return state


def each_attempt_has_one_run(server: SmallApi) -> None:
    seen: set[tuple[str, int]] = set()
    for plural, obj in server.created:
        if plural == "runs":
            for name, attempt in obj["spec"].get("attempts", {}).items():
                assert (name, attempt) not in seen, f"{name} was bound twice"
                seen.add((name, attempt))


def no_child_was_made_twice(server: SmallApi) -> None:
    made = [(plural, obj["metadata"]["name"]) for plural, obj in server.created]
    assert len(made) == len(set(made))


DELETABLE = [
    (plural, f"e-g{i}")
    for plural in ("finetunejobs", "finetunes", "scorings", "llmcheckpoints")
    for i in range(3)
]


def is_known(server: SmallApi, plural: str, name: str) -> bool:
    """Whether the object is there and its parent has written down that it made it."""
    if (plural, name) not in server.objects:
        return False
    parent = ("finetuneexperiments", "e") if plural == "finetunejobs" else ("finetunejobs", name)
    status = server.objects.get(parent, {}).get("status", {})
    match plural:
        case "finetunejobs":
            return bool(status.get("jobs", {}).get("total"))
        case "finetunes":
            return bool(status.get("finetune"))
        case "scorings":
            return bool(status.get("scoring"))
    return server.objects.get(("finetunes", name), {}).get("status", {}).get("phase") in TERMINAL


def has_ended(server: SmallApi) -> bool:
    experiment = server.objects.get(("finetuneexperiments", "e"))
    return bool(experiment) and experiment.get("status", {}).get("phase") in TERMINAL


async def live(seed: int, root: Path, backend: Any, objects: list[Any], scenario: str) -> Schedule:
    schedule = Schedule(seed, root, backend)
    rng = random.Random(seed)
    backend.behaviour.scores = {"e-g0": 0.5, "e-g1": 0.6, "e-g2": 0.7}
    fails = {"e-g1": "NonFiniteLoss"} if scenario in ("one fails", "tried again") else {}
    backend.behaviour.fail = dict(fails)
    backend.behaviour.die = {"e-g0": 1} if scenario == "worker dies" else {}
    rng.shuffle(objects)
    todo = {rng.randint(0, 40): obj for obj in objects}
    for obj in objects:
        if obj not in todo.values():
            await schedule.api.create(obj)
    wanted_gone = rng.sample(DELETABLE, 3) if scenario == "children deleted" else []
    off, on = sorted(rng.sample(range(60, 260), 2)) if scenario == "suspended" else (-1, -1)

    async def ask_again() -> None:
        if scenario == "tried again" and has_ended(schedule.server) and not schedule.server.asked_again:
            backend.behaviour.fail, schedule.server.asked_again = {}, True
            body = {"metadata": {"annotations": {RETRY: "1"}}}
            await schedule.api.patch(BY_PLURAL["finetunejobs"].model, "e-g1", body)

    async def at_random(number: int) -> None:
        calm, schedule.server.crash_rate = schedule.server.crash_rate, 0.0
        if number in todo:
            await schedule.api.create(todo.pop(number))
        if number in (off, on):
            body = {"spec": {"suspend": number == off}}
            await schedule.api.patch(next(k.model for k in KINDS if k.short == "fe"), "e", body)
        await ask_again()
        for plural, name in wanted_gone:
            # Some as soon as they are there, some when all is over.
            late = has_ended(schedule.server) or rng.random() < 0.02
            if late and is_known(schedule.server, plural, name):
                await schedule.api.delete(BY_PLURAL[plural].model, name)
        schedule.server.crash_rate = calm
        schedule.hear()

    await schedule.chaos(1500, 60, at_random)
    await schedule.settle()
    await ask_again()  # where it ended only now
    await schedule.settle()
    return schedule


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("part", range(5))
@pytest.mark.parametrize("scenario", ["plain", "one fails", "worker dies", "suspended", "children deleted"])
async def test_every_schedule_ends_in_the_same_state(scenario, part, root, make_backend, make_objects):
    first: dict[str, Any] | None = None
    crashes = 0
    for seed in range(part * 20, part * 20 + 20):
        folder = root / f"{seed}"
        schedule = await live(seed, folder, make_backend(), make_objects(3), scenario)
        crashes += schedule.crashes
        each_attempt_has_one_run(schedule.server)
        no_child_was_made_twice(schedule.server)
        state = final_state(schedule.server)
        if scenario == "children deleted":
            assert state["finetuneexperiments/e"]["phase"] in TERMINAL, f"seed {seed}"
            continue
        assert "llmcheckpoints/e-g2" in state, f"seed {seed}: {[(k, v['phase']) for k, v in state.items()]}"
        first = first or state
        assert state == first, f"seed {seed} ended otherwise"
        experiment = state["finetuneexperiments/e"]
        assert experiment["phase"] == "Succeeded", f"seed {seed}: {experiment}"
        assert experiment["best"] == "e-g2"
    assert crashes > 20  # else nothing was tried


@pytest.mark.slow
@pytest.mark.timeout(600)
async def test_a_job_that_is_tried_again_ends_in_every_schedule_as_if_it_had_never_failed(
    root, make_backend, make_objects
):
    never = await live(0, root / "never", make_backend(), make_objects(3), "plain")
    crashes = 0
    for seed in range(30):
        schedule = await live(seed, root / f"{seed}", make_backend(), make_objects(3), "tried again")
        crashes += schedule.crashes
        assert schedule.server.asked_again
        each_attempt_has_one_run(schedule.server)
        no_child_was_made_twice(schedule.server)
        assert final_state(schedule.server) == final_state(never.server), f"seed {seed}"
        assert schedule.server.objects["finetunes", "e-g1"]["status"]["attempt"] == 1
    assert crashes > 20
