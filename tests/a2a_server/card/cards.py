"""Cards and keys for tests."""

import json
from pathlib import Path
from typing import Any

from a2a_server.card.keys import ALGORITHMS, Key, generate, load_keys
from a2a_server.card.signing import to_document
from a2a_server.protocol import types
from a2a_server.protocol.codec import decode_strict

CARD: dict[str, Any] = {
    "name": "Lab \U0001f9ea",
    "description": "Führt Versuche aus; 実験。",
    "version": "1.0",
    "supportedInterfaces": [{"url": "https://a.example/", "protocolBinding": "JSONRPC", "protocolVersion": "1.0"}],
    "capabilities": {
        "streaming": True,
        "pushNotifications": False,
        "extensions": [{"uri": "https://a.example/x", "params": {"n": 1, "half": 0.5, "\U0001f600": [], "€": None}}],
    },
    "securitySchemes": {"bearer": {"httpAuthSecurityScheme": {"scheme": "Bearer"}}, "tls": {"mtlsSecurityScheme": {}}},
    "securityRequirements": [{"schemes": {"bearer": {}}}],
    "defaultInputModes": ["text/plain"],
    "defaultOutputModes": ["application/json"],
    "skills": [],
}


def card(**fields: Any) -> types.AgentCard:
    return decode_strict(CARD | fields, types.AgentCard)


def key_file(folder: Path, alg: str, /, **changed: Any) -> str:
    """A new private key in a file; `changed` replaces members of its JWK, None takes them out."""
    jwk = json.loads(generate(alg)) | changed
    file = folder / f"{alg}-{len(list(folder.iterdir()))}.json"
    file.touch(0o600)
    file.write_text(json.dumps({member: value for member, value in jwk.items() if value is not None}))
    return str(file)


def keys(folder: Path, *algs: str) -> tuple[Key, ...]:
    """New keys of these algorithms; of each one if none is named."""
    return load_keys([key_file(folder, alg) for alg in algs or ALGORITHMS])


def as_v0_3(card: types.AgentCard) -> dict[str, Any]:
    """A stand-in for what makes hybrids: adds fields that v1.0 does not know, and changes none that it knows."""
    document = to_document(card)
    schemes = {name: scheme | {"type": "http"} for name, scheme in document.get("securitySchemes", {}).items()}
    return document | {
        "url": document["supportedInterfaces"][0]["url"],
        "protocolVersion": "0.3.0",
        "preferredTransport": "JSONRPC",
        "securitySchemes": schemes,
    }
