"""The artifacts of the loopback W&B server: versions by name, their manifests, and which runs made and used them."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

Json = dict[str, Any]

NUMBER = "UHJvamVjdDox"  # Project:1, as W&B encodes it
PROJECT = {"id": NUMBER, "internalId": NUMBER, "name": "lienzo", "entity": {"id": "e", "name": "tester"}}


@dataclass
class StoredArtifact:
    """One version of an artifact."""

    name: str
    type: str
    digest: str
    version: int
    made_by: str
    aliases: list[str]
    metadata: Json
    used_by: list[str] = field(default_factory=list)
    manifest: Json = field(default_factory=dict)
    committed: bool = False

    @property
    def id(self) -> str:
        return f"{self.name}:v{self.version}"

    @property
    def references(self) -> dict[str, str]:
        """Where its files lie, by name."""
        return {name: entry["ref"] for name, entry in self.manifest["contents"].items() if "ref" in entry}


class ArtifactStore:
    """Answers what wandb asks of artifacts. The same content under the same name is the same version, as in W&B.

    Of files that are uploaded, it keeps the names alone: those of a table are among the run's media as well.
    """

    def __init__(self) -> None:
        self.versions: list[StoredArtifact] = []

    def named(self, name: str) -> list[StoredArtifact]:
        """The versions of an artifact, in their order."""
        return [one for one in self.versions if one.name == name]

    def graphql(self, query: str, variables: Json, url: str) -> Json | None:
        """Answer a request; None: it is not about artifacts."""
        given = variables.get("input", variables)
        if "mutation CreateArtifact (" in query:
            return {"createArtifact": {"artifact": self._create(given)}}
        if "mutation CreateArtifactManifest" in query or "mutation UpdateArtifactManifest" in query:
            return self._manifest(query, variables, url)
        if "mutation CreateArtifactFiles" in query:
            nodes = [self._file(url, **file) for file in given["artifactFiles"]]
            return {"createArtifactFiles": {"files": {"edges": [{"node": node} for node in nodes]}}}
        if "mutation CommitArtifact" in query:
            artifact = self._of(variables["artifactID"])
            artifact.committed = True
            return {"commitArtifact": {"artifact": {"id": artifact.id, "digest": artifact.digest}}}
        if "mutation UseArtifact" in query:
            self._of(given["artifactID"]).used_by.append(given["runName"])
            return {"useArtifact": {"artifact": {"id": given["artifactID"]}}}
        if "query ArtifactType" in query:
            return {"project": {"artifact": self._type(variables["name"])}}
        if "query ArtifactByID" in query:
            return {"artifact": described(self._of(variables["id"]))}
        return None

    def put(self, artifact_id: str, body: bytes) -> None:
        """Keep a manifest."""
        self._of(artifact_id).manifest = json.loads(body)

    def _of(self, artifact_id: str) -> StoredArtifact:
        return next(one for one in self.versions if one.id == artifact_id)

    def _create(self, given: Json) -> Json:
        name = given["artifactCollectionName"]
        versions = self.named(name)
        aliases = [one["alias"] for one in given.get("aliases") or ()]
        found = next((one for one in versions if one.digest == given["digest"]), None)
        if found is None:
            metadata = json.loads(given.get("metadata") or "{}")
            kind, made_by = given["artifactTypeName"], given["runName"]
            found = StoredArtifact(name, kind, given["digest"], len(versions), made_by, [], metadata)
            self.versions.append(found)
        for version in versions:
            version.aliases = [alias for alias in version.aliases if alias not in aliases]
        found.aliases += [alias for alias in aliases if alias not in found.aliases]
        latest = {"latestArtifact": {"id": versions[-1].id} if versions else None}
        return {"id": found.id, "state": "COMMITTED" if found.committed else "PENDING", "artifactSequence": latest}

    def _manifest(self, query: str, variables: Json, url: str) -> Json:
        artifact_id = variables.get("artifactID") or variables["artifactManifestID"]
        file = {"id": artifact_id, "uploadUrl": f"{url}/manifest/{artifact_id}", "uploadHeaders": []}
        name = "createArtifactManifest" if "Create" in query else "updateArtifactManifest"
        return {name: {"artifactManifest": {"id": artifact_id, "file": file}}}

    def _file(self, url: str, artifactID: str, name: str, **_: object) -> Json:
        target = f"{artifactID}/{name}"
        place = {"storagePath": target, "uploadUrl": f"{url}/artifact/{target}", "uploadHeaders": []}
        return place | {"uploadMultipartUrls": None, "artifact": {"id": artifactID}}

    def _type(self, name: str) -> Json | None:
        versions = self.named(name.partition(":")[0])
        return {"artifactType": {"name": versions[-1].type}} if versions else None


def described(artifact: StoredArtifact) -> Json:
    """What W&B says of a version that is asked for by its id."""
    sequence = {"id": artifact.name, "name": artifact.name, "project": PROJECT, "__typename": "ArtifactSequence"}
    return {
        "__typename": "Artifact",
        "id": artifact.id,
        "artifactSequence": sequence,
        "versionIndex": artifact.version,
        "artifactType": {"name": artifact.type},
        "metadata": json.dumps(artifact.metadata),
        "state": "COMMITTED",
        "digest": artifact.digest,
        "createdAt": "2026-01-01T00:00:00Z",
        **dict.fromkeys(("description", "historyStep", "commitHash", "updatedAt")),
        **{"ttlDurationSeconds": -1, "ttlIsInherited": True, "tags": [], "size": 0, "fileCount": 0, "aliases": []},
    }
