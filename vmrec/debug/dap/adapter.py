# SPDX-License-Identifier: GPL-2.0-or-later
"""The adapter: a request of the Debug Adapter Protocol in, what the target does, responses and events out.

    initialize → launch → (breakpoints …) → configurationDone → stopped ⇄ continue, next, stepBack, goto …

A request that moves is answered at once; the move and its `stopped` event follow. There is one thread, the hart. The
past cannot be changed, so there is nothing that writes. Lines count from 1 or 0, as the client says.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

from vmrec.debug.dap.arguments import Arguments
from vmrec.debug.dap.breakpoints import FILTERS
from vmrec.debug.dap.messages import Request
from vmrec.debug.dap.session import REQUESTS, Answer, Session
from vmrec.debug.target import Target
from vmrec.errors import UsageError, VmrecError
from vmrec.replay.names import number

__all__ = ["Adapter", "Opener"]

#: Opens the recording that `launch` names (None: the one of the command line) as a target. Raises VmrecError.
Opener = Callable[[str | None], AbstractContextManager[Target]]

_CAPABILITIES = dict.fromkeys(
    (
        "supportsConfigurationDoneRequest", "supportsFunctionBreakpoints", "supportsConditionalBreakpoints",
        "supportsHitConditionalBreakpoints", "supportsEvaluateForHovers", "supportsStepBack",
        "supportsGotoTargetsRequest", "supportsCompletionsRequest", "supportsRestartRequest", "supportsLogPoints",
        "supportsTerminateRequest", "supportsDataBreakpoints", "supportsReadMemoryRequest",
        "supportsDisassembleRequest", "supportsBreakpointLocationsRequest", "supportsSteppingGranularity",
        "supportsInstructionBreakpoints", "supportsLoadedSourcesRequest", "supportsDelayedStackTraceLoading",
        "supportsExceptionInfoRequest", "supportsDataBreakpointBytes", "supportsModulesRequest",
    ),
    True,
)  # fmt: skip


class Adapter:
    """Serves one client. `send` sends a message (without `seq`, which the sender adds)."""

    def __init__(self, opener: Opener, send: Callable[[dict[str, Any]], None]) -> None:
        self._opener = opener
        self._send = send
        self._opened: AbstractContextManager[Target] | None = None
        self._session: Session | None = None
        self._line_base = 1
        self._initialized = False
        self.done = False  #: The client wants no more.

    def close(self) -> None:
        """Gives the recording back."""
        self._session = None
        opened, self._opened = self._opened, None
        if opened is not None:
            opened.__exit__(None, None, None)

    @property
    def target(self) -> Target | None:
        """What is debugged, once it was launched."""
        return None if self._session is None else self._session.target

    # --- messages ---

    def handle(self, request: Request) -> None:
        """Answers a request, and does what it asks. Raises nothing that the request can cause."""
        try:
            body, then = self._answer(request)
        except VmrecError as error:
            self._fail(request, str(error))
            return
        response = {"type": "response", "request_seq": request.seq, "success": True, "command": request.command}
        self._send(response if body is None else {**response, "body": body})
        if then is not None:
            try:
                then()
            except VmrecError as error:
                self._event("output", category="important", output=f"vmrec: {error}\n")
                if self._session is not None:
                    self._session.stopped("exception", f"stopped by an error: {error}")

    def _answer(self, request: Request) -> Answer:
        """(body of the response, what is to be done behind it)."""
        arguments = Arguments(request.arguments)
        own = {
            "initialize": self._initialize, "launch": self._launch, "attach": self._launch,
            "disconnect": self._disconnect, "terminate": self._terminate,
        }.get(request.command)  # fmt: skip
        if own is not None:
            return own(arguments)
        handler = REQUESTS.get(request.command)
        if handler is None:
            raise UsageError(f"the request {request.command[:60]!r} is not known to this adapter")
        if self._session is None:
            raise UsageError(f"{request.command}: there is no recording yet; send initialize and launch first")
        return handler(self._session, arguments)

    def _fail(self, request: Request, message: str) -> None:
        error = {"id": 1, "format": "{text}", "variables": {"text": message}, "showUser": True}
        self._send(
            {
                "type": "response", "request_seq": request.seq, "success": False, "command": request.command,
                "message": message, "body": {"error": error},
            }
        )  # fmt: skip

    def _event(self, event: str, /, **body: Any) -> None:
        self._send({"type": "event", "event": event, "body": body} if body else {"type": "event", "event": event})

    # --- the session ---

    def _initialize(self, arguments: Arguments) -> tuple[dict[str, Any], None]:
        if arguments.text("pathFormat", "path") != "path":
            raise UsageError("pathFormat: only path is possible")
        self._line_base = int(arguments.flag("linesStartAt1", True))
        self._initialized = True
        filters = [{"filter": name, "label": label, "default": False} for name, label in FILTERS.items()]
        completes = [" ", "$", "&", "*"]
        return {
            **_CAPABILITIES, "exceptionBreakpointFilters": filters, "completionTriggerCharacters": completes
        }, None  # fmt: skip

    def _launch(self, arguments: Arguments) -> tuple[None, Callable[[], None]]:
        if not self._initialized:
            raise UsageError("launch: send initialize first")
        if self._session is not None:
            raise UsageError("launch: a recording is debugged already")
        trace = arguments.text("trace", "") or None
        place = arguments.text("position", "begin")
        folders = [*arguments.texts("sourcePaths"), os.getcwd(), *([os.path.dirname(trace) or "."] if trace else [])]
        opened = self._opener(trace)
        target = opened.__enter__()
        self._opened = opened
        try:
            if "position" in arguments:
                target.seek(target.place(place))
        except VmrecError:
            self.close()
            raise
        entry = arguments.flag("stopOnEntry", True)
        self._session = Session(target, self._event, folders, self._line_base, entry)
        return None, self._launched

    def _launched(self) -> None:
        assert self._session is not None
        target = self._session.target
        self._event("process", name=target.guest.name, isLocalProcess=False, startMethod="launch")
        text = f"{target.guest.name}: {number(target.last)} steps; type help for commands\n"
        self._event("output", category="console", output=text)
        self._event("initialized")

    def _disconnect(self, arguments: Arguments) -> tuple[None, Callable[[], None]]:
        return None, self._finish

    def _terminate(self, arguments: Arguments) -> tuple[None, Callable[[], None]]:
        return None, lambda: self._event("terminated")

    def _finish(self) -> None:
        self.done = True
        self.close()
