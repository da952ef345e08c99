"""Discovery: which groups, versions and resources there are, in the legacy and the aggregated form."""

from collections.abc import Iterable

from datatunerx.server.errors import Json
from datatunerx.server.kinds import Kind, Registry

SUBRESOURCE_VERBS = ("get", "patch", "update")
REVIEWS = {
    ("authorization.k8s.io", "v1"): {
        "selfsubjectaccessreviews": "SelfSubjectAccessReview",
        "selfsubjectrulesreviews": "SelfSubjectRulesReview",
    },
    ("authentication.k8s.io", "v1"): {"selfsubjectreviews": "SelfSubjectReview"},
}


def review_kinds() -> list[Kind]:
    """Things that are only ever created, and answered at once."""
    return [
        Kind(group, version, name, plural, name.lower(), namespaced=False, verbs=("create",), builtin=True)
        for (group, version), kinds in REVIEWS.items()
        for plural, name in kinds.items()
    ]


def _subresources(kind: Kind) -> list[tuple[str, tuple[str, ...], Json]]:
    """(name, verbs, response kind) of each."""
    own = {"group": kind.group, "version": kind.version, "kind": kind.name}
    found: list[tuple[str, tuple[str, ...], Json]] = []
    if kind.has_status:
        found.append(("status", SUBRESOURCE_VERBS, own))
    if kind.scale:
        scale = {"group": "autoscaling", "version": "v1", "kind": "Scale"}
        found.append(("scale", SUBRESOURCE_VERBS, scale))
    if kind.serves:
        found += [("proxy", ("create", "get"), own), ("compare", ("create",), own)]
    if kind.plural == "pods" and not kind.group:
        found.append(("log", ("get",), own))
    return found


def resource_list(group: str, version: str, kinds: Iterable[Kind]) -> Json:
    """The legacy APIResourceList of one version."""
    resources: list[Json] = []
    for kind in kinds:
        row: Json = {
            "name": kind.plural,
            "singularName": kind.singular,
            "namespaced": kind.namespaced,
            "kind": kind.name,
            "verbs": list(kind.verbs),
        }
        if kind.short_names:
            row["shortNames"] = list(kind.short_names)
        if kind.categories:
            row["categories"] = list(kind.categories)
        resources.append(row)
        for name, verbs, response in _subresources(kind):
            resources.append(
                {
                    "name": f"{kind.plural}/{name}",
                    "singularName": "",
                    "namespaced": kind.namespaced,
                    "kind": response["kind"],
                    "group": response["group"],
                    "version": response["version"],
                    "verbs": list(verbs),
                }
            )
    group_version = f"{group}/{version}" if group else version
    return {
        "kind": "APIResourceList",
        "apiVersion": "v1",
        "groupVersion": group_version,
        "resources": resources,
    }


def api_versions() -> Json:
    """GET /api."""
    return {
        "kind": "APIVersions",
        "apiVersion": "v1",
        "versions": ["v1"],
        "serverAddressByClientCIDRs": [],
    }


def group(name: str, versions: list[str]) -> Json:
    """One APIGroup."""
    rows = [{"groupVersion": f"{name}/{version}", "version": version} for version in versions]
    return {
        "kind": "APIGroup",
        "apiVersion": "v1",
        "name": name,
        "versions": rows,
        "preferredVersion": rows[0],
    }


def groups(registry: Registry) -> Json:
    """GET /apis."""
    rows = [group(name, versions) for name, versions in registry.groups().items() if name]
    for row in rows:
        del row["kind"], row["apiVersion"]
    return {"kind": "APIGroupList", "apiVersion": "v1", "groups": rows}


def aggregated(registry: Registry, *, core: bool, version: str) -> Json:
    """GET /api or /apis as one document with everything in it."""
    items = []
    for name, versions in registry.groups().items():
        if (name == "") != core:
            continue
        rows = []
        for each in versions:
            kinds = [kind for kind in registry if kind.group == name and kind.version == each]
            rows.append({"version": each, "resources": [_row(k) for k in kinds], "freshness": "Current"})
        items.append(
            {"metadata": {"name": name, "creationTimestamp": None} if name else {}, "versions": rows}
        )
    return {
        "kind": "APIGroupDiscoveryList",
        "apiVersion": f"apidiscovery.k8s.io/{version}",
        "metadata": {},
        "items": items,
    }


def _row(kind: Kind) -> Json:
    row: Json = {
        "resource": kind.plural,
        "responseKind": {"group": kind.group, "version": kind.version, "kind": kind.name},
        "scope": "Namespaced" if kind.namespaced else "Cluster",
        "singularResource": kind.singular,
        "verbs": list(kind.verbs),
    }
    if kind.short_names:
        row["shortNames"] = list(kind.short_names)
    if kind.categories:
        row["categories"] = list(kind.categories)
    subresources = [
        {"subresource": name, "responseKind": response, "verbs": list(verbs)}
        for name, verbs, response in _subresources(kind)
    ]
    if subresources:
        row["subresources"] = subresources
    return row
