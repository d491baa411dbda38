"""What an agent's code may use of Python: names that are listed here, and no others.

Read by skillsd, which reads the code before it is run, and by the engine's Python, which runs it and has no skillsd.
"""

from __future__ import annotations

import builtins
import importlib
from types import ModuleType

#: Of these modules everything public that is no module itself: they compute, and follow no name that is given as text.
_WHOLE = (
    "array bisect collections collections.abc datetime decimal difflib fractions heapq itertools json math "
    "numbers pprint random re statistics unicodedata"
).split()
#: Of these what is listed; the rest of them takes attributes by name, evaluates text, starts programs, or is shared by
#: all and could be changed.
_CHOSEN = {
    "calendar": (
        "Calendar FRIDAY IllegalMonthError IllegalWeekdayError MONDAY SATURDAY SUNDAY THURSDAY TUESDAY TextCalendar "
        "WEDNESDAY calendar day_abbr day_name firstweekday isleap leapdays month month_abbr month_name monthcalendar "
        "monthrange prcal prmonth setfirstweekday timegm weekday weekheader"
    ),
    "copy": "copy deepcopy",
    "dataclasses": (
        "FrozenInstanceError InitVar KW_ONLY MISSING asdict astuple dataclass field fields is_dataclass replace"
    ),
    "enum": "Enum Flag IntEnum IntFlag StrEnum auto unique",
    "functools": "cache cached_property cmp_to_key lru_cache partial partialmethod reduce total_ordering wraps",
    "operator": (
        "abs add and_ call concat contains countOf delitem eq floordiv ge getitem gt iadd iand iconcat ifloordiv "
        "ilshift imatmul imod imul index indexOf inv invert ior ipow irshift is_ is_not isub itemgetter itruediv ixor "
        "le length_hint lshift lt matmul mod mul ne neg not_ or_ pos pow rshift setitem sub truediv truth xor"
    ),
    "pendulum": (
        "DAYS_PER_WEEK FRIDAY HOURS_PER_DAY MINUTES_PER_HOUR MONDAY MONTHS_PER_YEAR SATURDAY SECONDS_PER_DAY "
        "SECONDS_PER_HOUR SECONDS_PER_MINUTE SUNDAY THURSDAY TUESDAY UTC WEDNESDAY WEEKS_PER_YEAR YEARS_PER_CENTURY "
        "YEARS_PER_DECADE Date DateTime Duration FixedTimezone Interval Period Time Timezone WeekDay date datetime "
        "duration format_diff from_format from_timestamp instance interval local local_timezone naive now parse period "
        "time timezone timezones today tomorrow week_ends_at week_starts_at yesterday"
    ),
    "string": (
        "Template ascii_letters ascii_lowercase ascii_uppercase capwords digits hexdigits octdigits printable "
        "punctuation whitespace"
    ),
    "textwrap": "dedent fill indent shorten wrap",
    "time": (
        "asctime ctime gmtime localtime mktime monotonic perf_counter sleep strftime strptime struct_time time time_ns"
    ),
    "typing": (
        "Annotated Any Callable ClassVar Collection Counter DefaultDict Deque Dict Final FrozenSet Generator Generic "
        "Hashable Iterable Iterator List Literal Mapping MutableMapping NamedTuple Never NoReturn NotRequired Optional "
        "Protocol Required Self Sequence Set Sized TYPE_CHECKING Tuple Type TypeAlias TypeVar TypedDict Union cast "
        "overload"
    ),
    "uuid": "NAMESPACE_DNS NAMESPACE_OID NAMESPACE_URL NAMESPACE_X500 UUID uuid3 uuid4 uuid5",
}  # fmt: skip
#: Modules that may be imported.
MODULES = frozenset([*_WHOLE, *_CHOSEN])
#: Functions and types that need no import; exceptions, which are classes, come with them.
BUILTINS = frozenset(
    "Ellipsis False None NotImplemented True abs aiter all anext any ascii bin bool bytearray bytes callable chr "
    "classmethod complex dict dir divmod enumerate filter float format frozenset hasattr hash hex id input int "
    "isinstance issubclass iter len list map max min next object oct ord pow print property range repr reversed round "
    "set slice sorted staticmethod str sum super tuple type zip".split()
) | {
    name for name, value in vars(builtins).items() if isinstance(value, type) and issubclass(value, BaseException)
}  # fmt: skip


#: What no listed module gives, and nobody asks for by mistake: it takes attributes by name, or evaluates text.
_REACHING = frozenset(
    "Formatter ForwardRef attrgetter get_type_hints make_dataclass methodcaller update_wrapper".split()
)


def reaches(module: str, name: str, value: object) -> bool:
    """Whether asking a module for this ``value``, which is not public, is an attempt to reach further: for another
    module, say. Its own parts (``json.decoder``) may be asked for in good faith.
    """
    other = isinstance(value, ModuleType) and not value.__name__.startswith(f"{module}.")
    return other or name in _REACHING


def names(module: str) -> frozenset[str]:
    """The names that may be used of a module in ``MODULES``."""
    if module in _CHOSEN:
        return frozenset(_CHOSEN[module].split())
    found = importlib.import_module(module)
    public = getattr(found, "__all__", None) or [name for name in vars(found) if not name.startswith("_")]
    return frozenset(name for name in public if not isinstance(getattr(found, name), ModuleType))
