#!/usr/bin/env python3
"""Writes what a release consists of, as a CycloneDX 1.5 document.

    Scripts/bill-of-materials.py --folder pdserve-0.1.0-linux-x86_64 --version 0.1.0 \\
        --commit abc --packages Package.resolved --llama Scripts/llama-requirements.txt

Swift packages come from Package.resolved, llama.cpp from its pinned archive, files with their hashes
from the folder, and libraries that the system has to bring from what the executables ask for. Equal
input gives an equal document. Needs Python 3.9, ldd, and dpkg for the versions of libraries.
"""
import argparse
import hashlib
import json
import re
import subprocess
import sys
import uuid
from pathlib import Path


def command(*words):
    """The output of a command, or nothing if it fails or is not there."""
    try:
        done = subprocess.run(words, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return ""
    return done.stdout


def swift_packages(path):
    for pin in json.loads(Path(path).read_text())["pins"]:
        state = pin["state"]
        version = state.get("version") or state["revision"]
        location = re.sub(r"\.git$", "", pin["location"])
        where = re.sub(r"^https?://", "", location)
        yield {
            "type": "library", "name": pin["identity"], "version": version,
            "purl": f"pkg:swift/{where}@{version}",
            "externalReferences": [{"type": "vcs", "url": location}],
            "properties": [{"name": "revision", "value": state["revision"]}],
        }


def llama(path):
    text = Path(path).read_text()
    version = re.search(r"llama-cpp-python==([0-9.]+)", text)[1]
    digest = re.search(r"sha256:([0-9a-f]{64})", text)[1]
    return {
        "type": "library", "name": "llama-cpp-python", "version": version,
        "description": "its archive has the source of llama.cpp and ggml that lib/ is built from",
        "purl": f"pkg:pypi/llama-cpp-python@{version}",
        "hashes": [{"alg": "SHA-256", "content": digest}],
    }


def toolchain():
    match = re.search(r"Swift version ([0-9.]+)", command("swift", "--version"))
    if not match:
        sys.exit("bill of materials: 'swift --version' says no version")
    return {
        "type": "library", "name": "swift-standard-library", "version": match[1],
        "description": "standard library, Foundation and Dispatch, linked into the executables",
        "purl": f"pkg:generic/swift@{match[1]}",
    }


def system_libraries(folder):
    """Shared libraries that are not in the folder, with the Debian packages that bring them."""
    paths = set()
    for file in sorted((folder / "bin").iterdir()):
        for line in command("ldd", str(file)).splitlines():
            match = re.search(r"=> (/\S+)", line)
            if "not found" in line:
                sys.exit(f"bill of materials: {file.name}: {line.strip()}")
            if match and folder.resolve() not in Path(match[1]).resolve().parents:
                paths.add(match[1])
    for path in sorted(paths):
        package, version = "", ""
        for name in (path, str(Path(path).resolve()), re.sub(r"^/lib/", "/usr/lib/", path)):
            package = command("dpkg-query", "-S", name).split(":")[0]
            if package:
                version = command("dpkg-query", "-W", "-f=${Version}", package).strip()
                break
        component = {
            "type": "library", "name": Path(path).name, "scope": "required",
            "description": "the system has to bring it; the version is that of the build",
        }
        if package:
            component["version"] = version
            component["purl"] = f"pkg:deb/debian/{package}@{version}"
        yield component


def files(folder):
    for path in sorted(folder.rglob("*")):
        if path.is_file() and not path.is_symlink():
            digest = hashlib.sha256(path.read_bytes()).hexdigest()
            yield {
                "type": "file", "name": str(path.relative_to(folder)),
                "hashes": [{"alg": "SHA-256", "content": digest}],
            }


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name in ("folder", "version", "commit", "packages", "llama"):
        parser.add_argument(f"--{name}", required=True)
    options = parser.parse_args()
    folder = Path(options.folder)
    components = [
        *swift_packages(options.packages), llama(options.llama), toolchain(),
        *system_libraries(folder), *files(folder),
    ]
    for component in components:
        component["bom-ref"] = f"{component['type']}:{component['name']}"
    subject = {
        "type": "application", "name": "pdserve", "version": options.version, "bom-ref": "pdserve",
        "properties": [{"name": "commit", "value": options.commit}],
    }
    content = json.dumps(components, sort_keys=True) + options.version + options.commit
    serial = uuid.uuid5(uuid.NAMESPACE_URL, content)
    json.dump({
        "bomFormat": "CycloneDX", "specVersion": "1.5", "version": 1,
        "serialNumber": f"urn:uuid:{serial}",
        "metadata": {"component": subject},
        "components": components,
        "dependencies": [
            {"ref": "pdserve", "dependsOn": [each["bom-ref"] for each in components]},
        ],
    }, sys.stdout, indent=1)
    print()


main()
