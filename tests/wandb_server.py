"""A loopback W&B server for tests: it stores only what was posted, at the offset where it was posted.

In a test: `with WandbServer() as server: server.environment(), server.history("run id")`. By hand:
`python -m tests.wandb_server 8080`, then train with the WANDB_* variables that it prints.
"""

from __future__ import annotations

import gzip
import json
import sys
import time
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Lock, Thread
from typing import Any, Self

import pytest

from tests.wandb_artifacts import ArtifactStore

Json = dict[str, Any]

KEY = "0" * 40


@dataclass
class StoredRun:
    """What was posted of one run: lines per file, media by name, alerts, and the fields of its last upsert."""

    lines: dict[str, list[str]] = field(default_factory=dict)
    media: dict[str, bytes] = field(default_factory=dict)
    fields: Json = field(default_factory=dict)
    alerts: list[Json] = field(default_factory=list)
    exit_code: int | None = None

    def store(self, name: str, offset: int, content: list[str]) -> None:
        """Keep lines where the client says that they belong."""
        kept = self.lines.setdefault(name, [])
        for number, line in enumerate(content, offset):
            kept[number:] = [line, *kept[number + 1 :]]


class WandbServer:
    """The server in a thread of this process. What it has stored outlives `stop` and `start`."""

    def __init__(self, port: int = 0) -> None:
        self.runs: dict[str, StoredRun] = {}
        self.artifacts = ArtifactStore()
        self.views: dict[str, Json] = {}  # saved workspaces, by their internal names
        self.status = 200  # answered to everything if not 200; `refuse_rows` refuses the rows alone
        self.refuse_rows = 200
        self.delay_s = 0.0
        self.requests = 0
        self.unknown: list[str] = []  # paths that a W&B server has and this one has not
        self._lock = Lock()
        self._port = port
        self._http: ThreadingHTTPServer | None = None

    def start(self) -> None:
        """Listen, on the same port as before."""
        owner = self

        class Handler(RequestHandler):
            server_state = owner

        self._http = QuietServer(("127.0.0.1", self._port), Handler)
        self._port = self._http.server_address[1]
        Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()

    def stop(self) -> None:
        """Refuse connections."""
        if self._http:
            self._http.shutdown()
            self._http.server_close()
            self._http = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def environment(self) -> dict[str, str]:
        """The variables that send wandb here."""
        return {"WANDB_BASE_URL": self.url, "WANDB_API_KEY": KEY}

    def use(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Send wandb here, from this process and those that it starts."""
        for name, value in self.environment().items():
            monkeypatch.setenv(name, value)

    @property
    def url(self) -> str:
        """The address, whose port stays the same."""
        return f"http://127.0.0.1:{self._port}"

    def history(self, run_id: str) -> list[Json]:
        """The rows of a run, in the order in which the dashboard would draw them."""
        run = self.runs.get(run_id, StoredRun())
        return [json.loads(line) for line in run.lines.get("wandb-history.jsonl", [])]

    def answer(self, method: str, path: str, body: bytes) -> tuple[int, Json]:
        """Answer one request."""
        time.sleep(self.delay_s)
        with self._lock:
            self.requests += 1
            if self.status != 200:
                return self.status, {"errors": [{"message": f"told to answer {self.status}"}]}
            if path == "/graphql":
                return 200, {"data": self._graphql(json.loads(body))}
            match path.strip("/").split("/", 2 if method == "PUT" else 4):
                case ["media", run_id, name] if method == "PUT":
                    self.runs[run_id].media[name] = body
                    return 200, {}
                case ["manifest", artifact_id] if method == "PUT":
                    self.artifacts.put(artifact_id, body)
                    return 200, {}
                case ["artifact", *_] if method == "PUT":
                    return 200, {}
                case ["files", _, _, run_id, "file_stream"]:
                    return self._file_stream(self.runs[run_id], json.loads(body))
            self.unknown.append(path)
            return 404, {"error": path}

    def _file_stream(self, run: StoredRun, posted: Json) -> tuple[int, Json]:
        if self.refuse_rows != 200:
            return self.refuse_rows, {"error": f"told to answer {self.refuse_rows}"}
        for name, chunk in posted.get("files", {}).items():
            run.store(name, chunk["offset"], chunk["content"])
        run.exit_code = posted.get("exitcode", run.exit_code)
        return 200, {"exitcode": None, "limits": {}}

    def _graphql(self, request: Json) -> Json:
        query, variables = request["query"], request.get("variables", {})
        if "UpsertBucket" in query:
            return {"upsertBucket": self._upsert(variables)}
        if "RunResumeStatus" in query:
            model = {"id": "p", "name": variables["project"], "entity": {"id": "e", "name": "tester"}}
            return {"model": model | {"bucket": self._bucket(variables["name"])}}
        if "upsertView" in query:
            return {"upsertView": self._upsert_view(variables)}
        if "allViews" in query:
            found = [{"node": view} for name, view in self.views.items() if name == variables["viewName"]]
            return {"project": {"allViews": {"edges": found}}}
        if "CreateRunFiles" in query:
            run_id = variables["run"]
            files = [{"name": name, "uploadUrl": f"{self.url}/media/{run_id}/{name}"} for name in variables["files"]]
            return {"createRunFiles": {"runID": run_id, "uploadHeaders": [], "files": files}}
        if "NotifyScriptableRunAlert" in query:
            self.runs[variables["runName"]].alerts.append(variables)
            return {"notifyScriptableRunAlert": {"success": True}}
        if "Viewer" in query or "GetDefaultEntity" in query:
            return {
                "viewer": {"id": "u", "entity": "tester", "username": "tester", "flags": "{}", "teams": {"edges": []}}
            }
        if "ServerFeatures" in query:
            return {"serverInfo": {"features": []}}
        return self.artifacts.graphql(query, variables, self.url) or {}

    def _upsert_view(self, variables: Json) -> Json:
        name = variables["name"]
        inserted = name not in self.views
        assert variables.get("id") == (None if inserted else name), "a view that is there is named by its id"
        self.views[name] = {"id": name, "displayName": variables["displayName"], "spec": variables["spec"]}
        return {"view": {"id": name, "name": name}, "inserted": inserted}

    def _upsert(self, variables: Json) -> Json:
        run_id = variables["name"]
        inserted = run_id not in self.runs
        run = self.runs.setdefault(run_id, StoredRun())
        run.fields |= {key: value for key, value in variables.items() if value is not None}
        project = {"id": "p", "name": variables["project"], "entity": {"id": "e", "name": "tester"}}
        bucket = {"id": run_id, "name": run_id, "displayName": run.fields.get("displayName"), "project": project}
        return {"bucket": bucket | {"historyLineCount": len(self.history(run_id))}, "inserted": inserted}

    def _bucket(self, run_id: str) -> Json | None:
        """What a client that resumes is told: nothing but what was posted."""
        run = self.runs.get(run_id)
        if run is None:
            return None

        def count(name: str) -> int:
            return len(run.lines.get(name, []))

        return {
            "id": run_id,
            "name": run_id,
            "displayName": run.fields.get("displayName"),
            "summaryMetrics": run.lines.get("wandb-summary.json", ["{}"])[-1],
            "logLineCount": count("output.log"),
            "historyLineCount": count("wandb-history.jsonl"),
            "eventsLineCount": count("wandb-events.jsonl"),
            "historyTail": json.dumps(run.lines.get("wandb-history.jsonl", [])[-1:]),
            "eventsTail": "[]",
            "config": run.fields.get("config", "{}"),
            "wandbConfig": json.dumps({"t": 1}),
            "tags": [],
            "notes": run.fields.get("notes"),
        }


class QuietServer(ThreadingHTTPServer):
    """A server that takes a killed client for granted: that is what these tests are about."""

    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)


class RequestHandler(BaseHTTPRequestHandler):
    """HTTP around `WandbServer.answer`."""

    server_state: WandbServer
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if self.headers.get("Content-Encoding") == "gzip":
            body = gzip.decompress(body)
        status, answer = self.server_state.answer(self.command, self.path, body)
        content = json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    do_PUT = do_GET = do_POST

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


def main() -> None:
    """Serve until interrupted."""
    server = WandbServer(port=int(sys.argv[1]) if len(sys.argv) > 1 else 8080)
    with server:
        print(*(f"export {key}={value}" for key, value in server.environment().items()), sep="\n", flush=True)
        while True:
            time.sleep(10)
            print({run_id: len(server.history(run_id)) for run_id in server.runs}, flush=True)


if __name__ == "__main__":
    main()
