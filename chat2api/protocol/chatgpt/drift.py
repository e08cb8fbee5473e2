"""Whether the backend's answers have changed their form: the drift alarm (R15).

Decoders count shapes that they do not understand. One such shape is no news: the website adds side events every month.
It is news when shapes that may carry a part of the answer come in more than one answer of a hundred. Shapes are names of
fields and kinds, never content.
"""

from collections import Counter, deque
from collections.abc import Mapping
from dataclasses import dataclass, field

WINDOW_SECONDS = 300.0
ALARM_SHARE = 0.01
"""Of the answers of the window."""

UNREADABLE = "unreadable answer"
"""The shape of an answer that could not be decoded at all."""

_BUCKET_SECONDS = 10.0
_MAX_SHAPES = 100
_MAX_TOLD = 10


def is_critical(shape: str) -> bool:
    """Whether a part of the answer may be lost with it. Side events (by their `type`) tell things beside the answer."""
    return not shape.startswith("type: ") and shape != "error after the answer"


@dataclass(slots=True)
class _Bucket:
    begins: float
    answers: int = 0
    drifted: int = 0
    shapes: Counter[str] = field(default_factory=Counter)


class DriftWatch:
    """Counts answers and the shapes in them. Instants are monotonic seconds, passed in."""

    def __init__(self) -> None:
        """Begin with nothing seen."""
        self.answers = 0
        """Answers so far."""
        self.shapes: Counter[str] = Counter()
        """In how many answers each unknown shape was, critical or not; past 100 names as "others"."""
        self._recent: deque[_Bucket] = deque()

    def note(self, unknown: Mapping[str, int], now: float) -> None:
        """Count an answer, with how often each unknown shape came in it."""
        self._drop_old(now)
        if not self._recent or now - self._recent[-1].begins >= _BUCKET_SECONDS:
            self._recent.append(_Bucket(now))
        bucket = self._recent[-1]
        self.answers += 1
        bucket.answers += 1
        if not unknown:
            return
        named = {shape if shape in self.shapes or len(self.shapes) < _MAX_SHAPES else "others" for shape in unknown}
        self.shapes.update(named)
        critical = [shape for shape in named if is_critical(shape)]
        bucket.shapes.update(critical)
        bucket.drifted += bool(critical)

    def alarm(self, now: float) -> tuple[str, ...]:
        """Give the critical shapes of the last five minutes, the most frequent first, once they are too many; else none."""
        self._drop_old(now)
        answers = sum(bucket.answers for bucket in self._recent)
        drifted = sum(bucket.drifted for bucket in self._recent)
        if drifted <= answers * ALARM_SHARE:
            return ()
        shapes = sum((bucket.shapes for bucket in self._recent), Counter[str]())
        return tuple(shape for shape, _ in shapes.most_common(_MAX_TOLD))

    def _drop_old(self, now: float) -> None:
        while self._recent and now - self._recent[0].begins >= WINDOW_SECONDS:
            self._recent.popleft()
