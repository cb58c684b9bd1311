"""Two executors of an agent. Serve them with `a2a-server serve examples/hello_agent.py`."""

from typing import Any

from core import TaskContext, executor


@executor("hello")
async def hello(inputs: dict[str, Any], context: TaskContext) -> str:
    """Greets whoever the text names, and says what it is doing."""
    name = inputs.get("text", "world")
    await context.progress(0.5, f"looking for {name}")
    return f"Hello, {name}!"


@executor("interview")
async def interview(inputs: dict[str, Any], context: TaskContext) -> dict[str, Any]:
    """Asks two questions, streams what it understood, and returns the answers."""
    # `ask` ends this attempt; the function runs again from its top when the answer is there (also after a restart).
    name = await context.ask("What is your name?")
    language = await context.ask(f"Which language do you like, {name}?")
    await context.artifact(f"{name} likes ")
    await context.artifact(f"{language}.", last_chunk=True)
    return {"name": name, "language": language}
