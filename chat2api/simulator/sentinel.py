"""The requirements exchange, in one stage or in two, and the check of its tokens when a conversation is opened.

Single-stage: the call gives a token, a seed and a difficulty; the conversation brings the token and a SHA3-512 proof.
Two-stage: prepare gives a prepare token, seed and difficulty; finalize takes an FNV proof and gives the token; the
conversation brings it, and may repeat the prepare token and the proof, which must then be the same ones.
"""

from dataclasses import dataclass

from chat2api.simulator.accounts import AccountBook
from chat2api.simulator.proof import REQUIREMENTS_PREFIX, HashName, ProofError, check_proof, decode_config
from chat2api.simulator.recorder import Recorder
from chat2api.simulator.refusals import named_answer, refuse, refuse_field, refuse_text
from chat2api.simulator.routes import BASE, Call, Route, route
from chat2api.simulator.wire import Answer, Object, Refusal, json_answer

_H = "openai-sentinel-"
_TOKEN = _H + "chat-requirements-token"
_PREPARE_TOKEN = _H + "chat-requirements-prepare-token"
_PROOF = _H + "proof-token"
_TURNSTILE = _H + "turnstile-token"
_SENTINEL_HEADERS = (_TOKEN, _PREPARE_TOKEN, _PROOF, _TURNSTILE, _H + "arkose-token", _H + "so-token")
_HEADERS_THAT_MAY_BE_NULL_BY_MISTAKE = (*_SENTINEL_HEADERS, "x-conduit-token", "oai-device-id", "chatgpt-account-id")


@dataclass(slots=True)
class _Issued:
    """A token that was given out, and what must come with it."""

    owner: str
    expires_at: float
    seed: str
    difficulty: str
    proof_required: bool
    turnstile_enforced: bool
    prepare_token: str | None = None
    accepted_proof: str | None = None


class Sentinel:
    """Issues requirements and redeems their tokens."""

    def __init__(self, book: AccountBook, recorder: Recorder) -> None:
        """Start with nothing issued."""
        self._book = book
        self._recorder = recorder
        self._prepared: dict[str, _Issued] = {}
        self._tokens: dict[str, _Issued] = {}
        self.refusals: list[str] = []
        """Why tokens and proofs were refused, in order; the peer is told nothing so exact."""

    def routes(self) -> list[Route]:
        """Give the operations."""
        path = BASE + "/sentinel/chat-requirements"
        return [
            route("requirements", "POST", path, self.requirements, "anybody"),
            route("requirements_prepare", "POST", path + "/prepare", self.prepare, "anybody"),
            route("requirements_finalize", "POST", path + "/finalize", self.finalize, "anybody"),
            route("sentinel_ping", "POST", BASE + "/sentinel/ping", self.ping, "anybody"),
        ]

    def requirements(self, call: Call) -> Answer:
        """Answer the single-stage form."""
        options = call.options
        if options.stages == "two":
            gone = {"404": "not_found", "405": "method_not_allowed", "410": "gone"}.get(options.single_stage_gone)
            return named_answer(gone) if gone is not None else self._prepared_answer(call)
        self._check_p(call, null_allowed=True)
        issued = self._issue(call)
        token = REQUIREMENTS_PREFIX[:-1] + "Bm-" + self._book.random_text("requirements", 200)
        self._tokens[token] = issued
        answer = {**self._common(call, issued), "token": token, "expire_after": options.expire_after, "so_token": None}
        return json_answer(answer, headers=(("set-cookie", self._cookie()),))

    def prepare(self, call: Call) -> Answer:
        """Answer the first of two stages."""
        if call.options.stages == "single":
            return named_answer("not_found")
        self._check_p(call, null_allowed=False)
        return self._prepared_answer(call)

    def _prepared_answer(self, call: Call) -> Answer:
        issued = self._issue(call)
        prepare_token = REQUIREMENTS_PREFIX[:-1] + "B-prepare-" + self._book.random_text("prepare", 160)
        issued.prepare_token = prepare_token
        self._prepared[prepare_token] = issued
        common = self._common(call, issued)
        del common["arkose"]
        so: Object = {"required": False, "collector_dx": "", "snapshot_dx": ""}
        return json_answer({**common, "prepare_token": prepare_token, "token": "", "so": so})

    def finalize(self, call: Call) -> Answer:
        """Answer the second of two stages."""
        if call.options.stages == "single":
            return named_answer("not_found")
        body = call.body()
        prepare_token, proof = body.get("prepare_token"), body.get("proofofwork")
        if not isinstance(prepare_token, str):
            raise refuse_field("prepare_token", "Input should be a valid string", "string_type")
        if "proofofwork" in body and not isinstance(proof, str):
            raise refuse_field("proofofwork", "Input should be a valid string", "string_type")
        issued = self._redeem(self._prepared, prepare_token, call)
        if issued.proof_required:
            self._check_proof(call, issued, proof if isinstance(proof, str) else None, "fnv")
            issued.accepted_proof = proof if isinstance(proof, str) else None
        token = REQUIREMENTS_PREFIX[:-1] + "B-final-" + self._book.random_text("requirements", 200)
        issued.expires_at = call.now + call.options.expire_after
        self._tokens[token] = issued
        answer: Object = {"persona": _persona(call), "token": token, "expire_after": call.options.expire_after}
        return json_answer(answer, headers=(("set-cookie", self._cookie()),))

    def ping(self, call: Call) -> Answer:
        """Answer the optional liveness call."""
        return json_answer({"status": "ok"})

    def redeem(self, call: Call) -> None:
        """Use up the tokens that a conversation call brings. Raises Refusal (400, 403)."""
        request = call.request
        for name in _HEADERS_THAT_MAY_BE_NULL_BY_MISTAKE:
            if request.header(name) in ("None", "null", "undefined"):
                raise refuse_text(400, f"Invalid header {name}")
        token = request.header(_TOKEN)
        if token is None:
            raise self._refuse("no requirements token")
        issued = self._redeem(self._tokens, token, call)
        proof = request.header(_PROOF)
        if issued.prepare_token is None:
            if issued.proof_required:
                self._check_proof(call, issued, proof, "sha3")
        else:
            repeated = request.header(_PREPARE_TOKEN)
            if repeated is not None and repeated != issued.prepare_token:
                raise self._refuse("another prepare token")
            if proof is not None and proof != issued.accepted_proof:
                raise self._refuse("another proof than at finalize")
        if issued.turnstile_enforced:
            raise self._refuse("turnstile enforced")
        if call.options.arkose:
            raise self._refuse("arkose required")

    def _issue(self, call: Call) -> _Issued:
        options = call.options
        digits = int.from_bytes(self._book.random_bytes("seed", 7), "big") % 10**16
        return _Issued(
            owner=call.caller.key,
            expires_at=call.now + options.expire_after,
            seed=f"0.{digits:016d}",
            difficulty=options.difficulty,
            proof_required=options.proof_required,
            turnstile_enforced=options.turnstile == "enforced",
        )

    def _common(self, call: Call, issued: _Issued) -> Object:
        options = call.options
        work: Object = {"required": False}
        if issued.proof_required:
            work = {"required": True, "seed": issued.seed, "difficulty": issued.difficulty}
        wants_turnstile = options.turnstile != "absent"
        turnstile: Object = {"required": wants_turnstile}
        if wants_turnstile:
            turnstile["dx"] = self._book.random_text("dx", 64)
        arkose: Object = {
            "required": options.arkose,
            "dx": self._book.random_text("dx", 64) if options.arkose else None,
        }
        return {
            "persona": _persona(call),
            "force_login": options.force_login,
            "arkose": arkose,
            "turnstile": turnstile,
            "proofofwork": work,
        }

    def _check_p(self, call: Call, *, null_allowed: bool) -> None:
        value = call.body().get("p")
        if value is None and null_allowed:
            return
        if not isinstance(value, str):
            raise refuse_field("p", "Input should be a valid string", "string_type")
        try:
            config = decode_config(value, REQUIREMENTS_PREFIX)
        except ProofError as error:
            self.refusals.append(f"requirements token {error}")
            raise refuse_text(400, "Invalid requirements token") from error
        if config[4] != call.request.header("user-agent"):
            self._recorder.add_violation("the requirements token names another User-Agent than the request")

    def _redeem(self, issued_by_token: dict[str, _Issued], token: str, call: Call) -> _Issued:
        """Take the token out: it works once, whatever comes of it."""
        issued = issued_by_token.pop(token, None)
        if issued is None:
            raise self._refuse("unknown or used token")
        if issued.expires_at <= call.now:
            raise self._refuse("token too old")
        if issued.owner != call.caller.key:
            raise self._refuse("token of another caller")
        return issued

    def _check_proof(self, call: Call, issued: _Issued, proof: str | None, hash_name: HashName) -> None:
        if proof is None:
            raise self._refuse("no proof")
        user_agent = call.request.header("user-agent") or ""
        try:
            check_proof(
                proof, seed=issued.seed, difficulty=issued.difficulty, user_agent=user_agent, hash_name=hash_name
            )
        except ProofError as error:
            raise self._refuse(f"proof {error}") from error

    def _refuse(self, reason: str) -> Refusal:
        self.refusals.append(reason)
        return refuse("unusual_activity")

    def _cookie(self) -> str:
        return f"oai-sc={self._book.random_text('cookie', 80)}; Path=/; Secure; HttpOnly; SameSite=Lax"


def _persona(call: Call) -> str:
    if call.options.persona is not None:
        return call.options.persona
    workspace = call.caller.workspace
    if workspace is None:
        return "chatgpt-noauth"
    return "chatgpt-paid" if workspace.paid else "chatgpt-freeaccount"
