#!/usr/bin/env python3
"""Prints the bill of materials of the mailraft binary (CycloneDX 1.5, JSON) from Cargo's own metadata and lock file."""

import json
import subprocess
import sys
import tomllib
import uuid
from pathlib import Path

TARGET = "x86_64-unknown-linux-gnu"


def metadata(workspace):
    command = ["cargo", "metadata", "--format-version", "1", "--locked", "--filter-platform", TARGET]
    return json.loads(subprocess.run(command, cwd=workspace, check=True, capture_output=True).stdout)


def in_binary(resolve, root):
    """Ids of all packages that are linked into `root`, or run while it is built: neither tests nor examples."""
    nodes = {node["id"]: node for node in resolve["nodes"]}
    found, waiting = set(), [root]
    while waiting:
        package = waiting.pop()
        if package in found:
            continue
        found.add(package)
        for dependency in nodes[package]["deps"]:
            if any(kind["kind"] in (None, "build") for kind in dependency["dep_kinds"]):
                waiting.append(dependency["pkg"])
    return found, nodes


def reference(package):
    return f"pkg:cargo/{package['name']}@{package['version']}"


def component(package, checksums):
    entry = {
        "type": "library",
        "bom-ref": reference(package),
        "name": package["name"],
        "version": package["version"],
        "purl": reference(package),
    }
    if package.get("license"):
        entry["licenses"] = [{"expression": package["license"].replace("/", " OR ")}]
    checksum = checksums.get((package["name"], package["version"]))
    if checksum:
        entry["hashes"] = [{"alg": "SHA-256", "content": checksum}]
    return entry


def main():
    workspace = Path(sys.argv[1])
    data = metadata(workspace)
    lock = tomllib.loads((workspace / "Cargo.lock").read_text())
    checksums = {(p["name"], p["version"]): p.get("checksum") for p in lock["package"]}
    packages = {package["id"]: package for package in data["packages"]}
    root = next(p for p in packages.values() if p["name"] == "mailraft" and p["id"] in data["workspace_members"])
    found, nodes = in_binary(data["resolve"], root["id"])
    parts = sorted((packages[i] for i in found if i != root["id"]), key=reference)
    graph = [
        {
            "ref": reference(packages[i]),
            "dependsOn": sorted(reference(packages[d]) for d in nodes[i]["dependencies"] if d in found),
        }
        for i in sorted(found, key=lambda i: reference(packages[i]))
    ]
    application = component(root, checksums) | {"type": "application"}
    bom = {
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        # Of the content: the same sources have the same number.
        "serialNumber": "urn:uuid:" + str(uuid.uuid5(uuid.NAMESPACE_URL, json.dumps(graph))),
        "version": 1,
        "metadata": {"component": application},
        "components": [component(package, checksums) for package in parts],
        "dependencies": graph,
    }
    json.dump(bom, sys.stdout, indent=1)
    print()


main()
