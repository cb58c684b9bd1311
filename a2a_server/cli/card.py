"""`a2a-server card …`: agent cards, this server's and those of others."""

import os
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit, urlunsplit

import msgspec
import typer
from typer.core import TyperGroup

from a2a_server.app import build
from a2a_server.card.document import read_document
from a2a_server.card.keys import ES256, Key, generate, load_keys, read_key_set
from a2a_server.card.rules import card_problems
from a2a_server.card.signing import Verdict, signatures
from a2a_server.card.signing import verify as verify_card
from a2a_server.cli.client import CARD, Ca, Client
from a2a_server.cli.output import Failure, Format, Output, clean, print_json
from a2a_server.config import load
from a2a_server.extensions import load_executors
from a2a_server.protocol import types
from a2a_server.protocol.codec import decode_strict

SHOW = "show"
KEY_SET = ".well-known/jwks.json"

Source = Annotated[
    str, typer.Argument(metavar="FILE|URL", help="A card file, the URL of a card, or the URL of its server.")
]


class CardCommands(TyperGroup):
    """`a2a-server card` followed by no subcommand shows a card."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if not args or (args[0] not in self.commands and args[0] not in ctx.help_option_names):
            args = [SHOW, *args]
        return super().parse_args(ctx, args)


app = typer.Typer(cls=CardCommands, add_completion=False, rich_markup_mode=None)


@app.callback()
def introduce() -> None:
    """Show (the default), validate, sign and verify agent cards; generate a key."""


@app.command(SHOW)
def show(
    executors: Annotated[
        list[str] | None,
        typer.Argument(metavar="[FILES_OR_MODULES]…", help="Files or modules that register executors; not with --url."),
    ] = None,
    url: Annotated[str | None, typer.Option(help="Show the card of the server at this address.")] = None,
    config: Annotated[str | None, typer.Option(metavar="FILE", help="Configuration file (TOML).")] = None,
    ca: Ca = None,
    output: Output = Format.TEXT,
) -> None:
    """Show the agent card of the server at --url, or of the server that `serve` would start here."""
    if url is not None:
        with Client(url, ca=ca) as server:
            found = server.card()
    else:
        settings = load({"executors": executors or None, "config": config}, os.environ, Path.cwd())
        load_executors(settings.executors)
        found = msgspec.json.decode(build(settings).cards.published.strict.body)
    if output is Format.JSON:
        print_json(found)
        return
    print(f"{clean(found['name'])} {clean(found.get('version', ''))}: {clean(found['description'])}")
    for interface in found["supportedInterfaces"]:
        print(f"  {interface['protocolBinding']} {interface['protocolVersion']} at {clean(interface['url'])}")
    for skill in found["skills"]:
        print(f"  skill {clean(skill['id'])}: {clean(skill['description'])}")


@app.command()
def validate(source: Source, ca: Ca = None, output: Output = Format.TEXT) -> None:
    """List every problem of an agent card, including fields that A2A v1.0 does not define. Exits 1 if any."""
    problems = card_problems(_read(source, ca))
    if output is Format.JSON:
        told = [{"field": problem.field, "message": problem.message} for problem in problems]
        print_json({"valid": not problems, "problems": told})
    else:
        for problem in problems:
            print(f"{clean(problem.field)}: {clean(problem.message)}")
        print("not valid" if problems else "valid")
    raise typer.Exit(1 if problems else 0)


@app.command("sign")
def sign_card(
    file: Annotated[str, typer.Argument(metavar="FILE", help="A complete A2A v1.0 card.")],
    keys: Annotated[
        list[str], typer.Option("--key", metavar="FILE", help="Private key (JWK or PEM). Repeatable, newest first.")
    ],
    jku: Annotated[
        str | None, typer.Option(metavar="URL", help="URL of the public keys, for the signature's header.")
    ] = None,
) -> None:
    """Print the card with a signature of each key added. Existing signatures stay."""
    document = _read(file, None)
    if problems := card_problems(document):
        told = "; ".join(f"{problem.field}: {problem.message}" for problem in problems)
        raise Failure(f"{file} is not a valid card: {told}")
    card = decode_strict(document, types.AgentCard)
    made = signatures(card, load_keys(keys), jku=jku)
    print_json(msgspec.structs.replace(card, signatures=[*made, *card.signatures]))


@app.command()
def verify(
    source: Source,
    jwks: Annotated[
        str | None,
        typer.Option(
            metavar="FILE|URL", help="Public keys to trust (default for a URL: those that its server publishes)."
        ),
    ] = None,
    ca: Ca = None,
    output: Output = Format.TEXT,
) -> None:
    """Check that a card has a valid signature of a trusted key (ES256 or EdDSA). Exits 0 only then.

    Without --jwks the keys come from the card's own server, so they cannot prove who runs it.
    """
    document = _read(source, ca)
    keys = _read_keys(jwks, ca) if jwks is not None else _read_keys(_key_set_beside(source), ca)
    verdicts = verify_card(document, keys)
    is_valid = any(verdict.is_valid for verdict in verdicts)
    if output is Format.JSON:
        told = [{"valid": verdict.is_valid, **msgspec.to_builtins(verdict)} for verdict in verdicts]
        print_json({"valid": is_valid, "keys_of": "its server" if jwks is None else "--jwks", "signatures": told})
    else:
        for verdict in verdicts:
            print(_line(verdict))
        good = (
            "valid"
            if jwks is not None
            else "valid by its own server's keys; give --jwks with keys you trust to prove more"
        )
        print(good if is_valid else "not valid" if verdicts else "not valid: the card has no signature")
    raise typer.Exit(0 if is_valid else 1)


@app.command()
def keygen(
    file: Annotated[str, typer.Argument(metavar="FILE", help="File to write; only you can read it.")],
    alg: Annotated[Literal["ES256", "EdDSA", "Ed25519"], typer.Option(help="Signature algorithm of the key.")] = ES256,
    output: Output = Format.TEXT,
) -> None:
    """Generate a private key for the setting `card_keys` and for `card sign`; print its public key."""
    with open(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as made:
        made.write(generate(alg))
    (key,) = load_keys([file])
    if output is Format.JSON:
        print_json(key.public())
    else:
        print(f"{key.alg} key {key.kid} in {clean(file)}")


def _line(verdict: Verdict) -> str:
    of = clean(f"{verdict.alg} {verdict.kid}") or "signature"
    if not verdict.is_valid:
        return f"{of}: not valid: {clean(verdict.problem)}"
    return f"{of}: valid" + (f", not for {clean(', '.join(verdict.uncovered))}" if verdict.uncovered else "")


def _read(source: str, ca: str | None) -> dict[str, Any]:
    try:
        return read_document(_bytes(source, CARD, ca))
    except ValueError as error:
        raise Failure(f"{source} {error}") from None


def _read_keys(source: str, ca: str | None) -> list[Key]:
    try:
        return read_key_set(_bytes(source, KEY_SET, ca))
    except ValueError as error:
        raise Failure(f"{source} {error}") from None


def _key_set_beside(source: str) -> str:
    """Where the card's own server publishes its keys. What the card itself says of that (jku) is not looked at."""
    if not _is_url(source):
        raise Failure("--jwks is needed: a file does not say whose keys are to be trusted", 2)
    address = urlsplit(source)
    folder = address.path.removesuffix(CARD) if address.path.endswith(f"/{CARD}") else "/"
    return urlunsplit((address.scheme, address.netloc, folder + KEY_SET, "", ""))


def _bytes(source: str, path: str, ca: str | None) -> bytes:
    """The file's content, or what is at the address; at a server's bare address, at this path of it."""
    if not _is_url(source):
        return Path(source).read_bytes()
    is_bare = urlsplit(source).path in ("", "/")
    with Client(source, ca=ca) as server:
        return server.document(path if is_bare else source)


def _is_url(source: str) -> bool:
    return source.startswith(("http://", "https://"))
