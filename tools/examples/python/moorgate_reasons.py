"""What a client does about an outcome that is no success: the action beside its reason, or else the table of section 12
of protocol-spec.md."""

import enum

import common_pb2 as common


class Action(enum.Enum):
    RETRY_NOW = "send it again at once"
    RETRY_AFTER = "send it again after the hint, or after a while"
    REAUTHENTICATE = "get a new access token first"
    RESYNC = "fetch the state anew"
    UPDATE = "tell the user that this client is too old"
    GIVE_UP = "do not repeat"


def _reasons(*names):
    return {common.Reason.Value(f"REASON_{name}") for name in names}


_RETRY_NOW = _reasons(
    "FRAME_TIMEOUT", "SEQUENCE_GAP", "ACK_BEYOND_SENT", "IN_FLIGHT_EXCEEDED", "HANDSHAKE_TIMEOUT",
    "HEARTBEAT_TIMEOUT", "WRITE_STALLED", "ENDPOINT_LOST", "TIMEOUT", "REPLY_INVALID", "INTERNAL",
)  # fmt: skip
_RETRY_AFTER = _reasons(
    "TOKEN_NOT_YET_VALID", "SHUTDOWN", "REBALANCE", "RATE_LIMITED", "BANNED", "CONNECTION_LIMIT",
    "GATEWAY_OVERLOADED", "SERVICE_OVERLOADED", "NO_ENDPOINT", "DRAINING",
)  # fmt: skip
_RESYNC = _reasons(
    "RESUME_UNKNOWN_SESSION", "RESUME_STALE", "RESUME_INVALID", "REPLY_TOO_LARGE", "PUSH_OVERFLOW",
    "PUSH_EXPIRED", "PUSH_COLLAPSED",
)  # fmt: skip
_REAUTHENTICATE = _reasons("TOKEN_INVALID", "TOKEN_EXPIRED", "TOKEN_REVOKED", "LOGIN_REQUIRED", "LOGGED_OUT")
_UPDATE = _reasons("VERSION_UNSUPPORTED", "VERSION_TOO_LOW")


def name(reason):
    """Its name without the prefix; "REASON 1234" for one that is not known here (N-3)."""
    known = common.Reason.values()
    return common.Reason.Name(reason).removeprefix("REASON_") if reason in known else f"REASON {reason}"


def action_of(message):
    """What to do about a Response, an Error, a Notice or an Authenticated: None for a success without a reason (N-7)."""
    named = common.Action.Name(message.action).removeprefix("ACTION_") if message.action in common.Action.values() else ""
    if named in Action.__members__:
        return Action[named]
    # An Error counts as one whose execution is UNSPECIFIED (N-4).
    execution = getattr(message, "execution", common.EXECUTION_UNSPECIFIED)
    return action(message.reason, execution) if message.status or message.reason else None


def action(reason, execution=common.EXECUTION_UNSPECIFIED):
    """The table (N-1, N-2). GIVE_UP for a reason that is not known, or for none: whoever knows what the request means may
    decide by its status (N-3)."""
    may_have_run = execution in (common.EXECUTION_UNKNOWN, common.EXECUTION_EXECUTED)
    for reasons, not_executed, otherwise in (
        (_RETRY_NOW, Action.RETRY_NOW, Action.RESYNC),
        (_RETRY_AFTER, Action.RETRY_AFTER, Action.RESYNC),
        (_RESYNC, Action.RESYNC, Action.RESYNC),
        (_REAUTHENTICATE, Action.REAUTHENTICATE, Action.REAUTHENTICATE),
        (_UPDATE, Action.UPDATE, Action.UPDATE),
    ):
        if reason in reasons:
            return otherwise if may_have_run else not_executed
    return Action.GIVE_UP
